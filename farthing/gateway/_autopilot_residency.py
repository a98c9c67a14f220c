"""Whether a call may leave its geography: `[[residency]]` of farthing.toml, asked before the call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase

from farthing.config import Config


def forbidden(
    config: Config, account: str, team: str, principal: str, region: str, routing: str, day: date
) -> str:  # fmt: skip
    """Why a call may not run by a routing; "" if it may. What is "" is not known: whoever may be meant by a rule is."""
    known = config.accounts.get(account)
    accounts = [account, known.name if known else ""]
    for rule in config.residency:
        meant = (
            _may_be(rule.accounts, accounts)
            and _may_be(rule.teams, [team])
            and _may_be(rule.principals, [principal])
            and (not rule.since or day >= date.fromisoformat(rule.since))
        )
        names = [routing, f"{routing}:{region}"]
        if meant and not any(fnmatchcase(name, allowed) for allowed in rule.allow for name in names):
            return f"residency keeps it to {', '.join(rule.allow)}"
    return ""


def _may_be(patterns: Sequence[str], values: Sequence[str]) -> bool:
    known = [value for value in values if value]
    return not patterns or not known or any(fnmatchcase(value, each) for each in patterns for value in known)
