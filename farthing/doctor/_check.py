"""A check: what was looked at, how it stands, what a gap hides in dollars, and one line that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farthing.money import usd

OK, MISSING, DENIED, UNKNOWN, NOT_ASKED = "ok", "missing", "denied", "unknown", "not_asked"
STATUSES = (OK, MISSING, DENIED, UNKNOWN, NOT_ASKED)


@dataclass(frozen=True)
class Check:
    """`blinds` are picodollars of the last 30 days that the gap hides or leaves unproved; None where unknown.

    Gaps of one account and region mostly hide the same money: their amounts are not to be added up.
    """

    name: str
    status: str
    says: str = ""
    mend: str = ""
    blinds: int | None = None
    account: str = ""
    region: str = ""
    costs: int | None = None  # picodollars of 30 days: an estimate of what this costs itself

    def as_json(self) -> dict[str, Any]:
        """The contract's six fields, then what was found in words."""
        said = {
            "account": self.account,
            "region": self.region,
            "name": self.name,
            "status": self.status,
            "blinds_usd": None if self.blinds is None else usd(self.blinds),
            "mend": self.mend,
            "says": self.says,
        }
        return said if self.costs is None else said | {"costs_usd_estimate": usd(self.costs)}


def fine(name: str, says: str = "") -> Check:
    """Nothing is hidden by what is in order."""
    return Check(name, OK, says, blinds=0)
