"""What the bill teaches: negotiated rates, whose usage it is, and faults of the provider.

Each finding has its evidence and its dollars, and is for a person to review: nothing here changes a file of theirs.
"""

from __future__ import annotations

from farthing.teach._discounts import KINDS, Learned, learn, summed
from farthing.teach._faults import Fault, find_faults
from farthing.teach._lines import span_of
from farthing.teach._support import name_requests, support_case
from farthing.teach._teams import Suggested, suggest_teams, teams_toml
from farthing.teach._write import Rerated, as_toml, rerate

__all__ = [
    "KINDS", "Fault", "Learned", "Rerated", "Suggested", "as_toml", "find_faults", "learn", "name_requests",
    "rerate", "span_of", "suggest_teams", "summed", "support_case", "teams_toml",
]  # fmt: skip
