"""Cost as a test: what breaks caching in requests, with its dollars; and what two sets of requests cost beside."""

from __future__ import annotations

from farthing.lint._comment import as_json as comment_json
from farthing.lint._comment import as_markdown as markdown_of
from farthing.lint._comment import table
from farthing.lint._diff import Compared, compare
from farthing.lint._files import Other, Unread, read_requests, sent_of
from farthing.lint._lint import Finding, How, Linted, lint, price_in_ledger
from farthing.lint._replay import NoReplay, replayed
from farthing.lint._request import Sent
from farthing.lint._rules import RULES, SEVERITIES
from farthing.lint._say import as_json, lines, sarif
from farthing.lint._settings import NoSettings, Settings, compare_settings, read_settings

__all__ = [
    "RULES",
    "SEVERITIES",
    "Compared",
    "Finding",
    "How",
    "Linted",
    "NoReplay",
    "NoSettings",
    "Other",
    "Sent",
    "Settings",
    "Unread",
    "as_json",
    "comment_json",
    "compare",
    "compare_settings",
    "lines",
    "lint",
    "markdown_of",
    "price_in_ledger",
    "read_requests",
    "read_settings",
    "replayed",
    "sarif",
    "sent_of",
    "table",
]
