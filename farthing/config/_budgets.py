"""Values of [[budgets]] that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from zoneinfo import ZoneInfo

from farthing.config._shape import Fault
from farthing.config._tables import Budget
from farthing.money import PICOS_PER_USD

REPORTED, HELD = ("month", "week", "day"), ("month", "week", "day", "hour", "minute")
SCOPE = (
    "key",
    "team",
    "project",
    "run",
    "model",
    "account",
)  # what is known of a call before it is sent; and tags

Place = tuple[str | int, ...]


def check_budget(budget: Budget, place: Place) -> Iterator[Fault]:
    yield from _limit(budget, place)
    periods = HELD if budget.hold else REPORTED
    if budget.period not in periods:
        mend = '; of an hour or a minute wants `hold = "hard"`' if budget.period in HELD else ""
        yield Fault((*place, "period"), f"{budget.period!r} is none of {', '.join(periods)}{mend}")
    for number, percent in enumerate(budget.alert_at):
        if not 0 < percent <= 1000:
            yield Fault((*place, "alert_at", number), f"{percent} is no percentage: write 80 for 80 %")
    for number, text in enumerate(budget.where):
        key = text.partition("=")[0].removesuffix("!").strip()
        if "=" not in text:
            yield Fault((*place, "where", number), f"{text!r} is no filter: write KEY=VALUE, as for --where")
        elif budget.hold and not known_before(key):
            yield Fault((*place, "where", number), f"{key!r} {_UNKNOWN}")
    yield from _held(budget, place)


_UNKNOWN = f"is not known before a call is made, which `hold` needs; that are {', '.join(SCOPE)}, tag:NAME"


def known_before(key: str) -> bool:
    return key in SCOPE or (key.startswith("tag:") and len(key) > len("tag:"))


def _limit(budget: Budget, place: Place) -> Iterator[Fault]:
    given = [name for name in ("usd", "calls", "tokens") if getattr(budget, name)]
    usd = Decimal(budget.usd)
    if not given or not usd.is_finite() or usd < 0 or min(budget.calls, budget.tokens) < 0:
        name = given[0] if given else "usd"
        yield Fault((*place, name), f"{getattr(budget, name)} is no budget: write dollars above 0")
    elif usd * PICOS_PER_USD % 1:
        yield Fault((*place, "usd"), f"{budget.usd} is finer than a picodollar")
    elif len(given) > 1:
        yield Fault((*place, given[1]), f"and {given[0]} are both given; write two budgets")
    elif not budget.hold and not budget.usd:
        yield Fault((*place, given[0]), 'is for budgets that hold: add hold = "hard"')


def _held(budget: Budget, place: Place) -> Iterator[Fault]:
    if budget.hold not in ("", "hard", "soft"):
        yield Fault((*place, "hold"), f"{budget.hold!r} is none of hard, soft")
    if budget.unpriced not in ("refuse", "pass"):
        yield Fault((*place, "unpriced"), f"{budget.unpriced!r} is none of refuse, pass")
    for name in ("each", "timezone"):
        if getattr(budget, name) and not budget.hold:
            yield Fault((*place, name), 'is for budgets that hold: add hold = "hard"')
    if budget.each and not known_before(budget.each):
        yield Fault((*place, "each"), f"{budget.each!r} {_UNKNOWN}")
    if budget.timezone:
        try:
            ZoneInfo(budget.timezone)
        except (KeyError, ValueError, OSError):
            yield Fault((*place, "timezone"), f"{budget.timezone!r} is no time zone")
