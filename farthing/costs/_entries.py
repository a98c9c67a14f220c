"""What is no token, priced: sessions by the millisecond, searches by the piece, containers beyond what is free.

The ledger keeps what was used, and the book's `addons` say what that comes to, as with usage. Each entry is rounded
half-even to the picodollar, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from fnmatch import translate
from functools import cache
from typing import Any, NamedTuple

from farthing.book import Book, Resolved
from farthing.cells import FACT_KEYS, TIME_KEYS, Question, Where, glob
from farthing.config import UNASSIGNED, claim_by_facts, fingerprint
from farthing.ledger import Ledger
from farthing.money import from_usd, usd
from farthing.usage import Entry, Facts, parse_model_id

HOUR_MS = 3_600_000
SOLD_ON = ("", "anthropic", "claude_aws")  # "" is not told: only these sell them, at one price
_WORDS = {"session": "session runtime", "web_search": "web search", "code_execution": "code execution"}
_PLATFORMS = {"bedrock": "Amazon Bedrock"}


class Rates(NamedTuple):
    """Picodollars, from the catalogue's `addons`, and where they are from."""

    session_hour: int
    search: int
    container_hour: int
    free_ms: int  # of containers, an organization and month
    least_ms: int  # of a container
    source: str = ""
    read: str = ""  # the day of the source

    @classmethod
    def of(cls, book: Book, day: date | None = None) -> Rates:
        """Those of a day, or with all changes that are known."""
        said = dict(book.defaults["addons"])
        source = str(book.defaults.get("addons_source", ""))
        for change in sorted(book.defaults.get("addons_later", ()), key=lambda change: change["from"]):
            if day is None or change["from"] <= day:
                said |= change
                source = str(change.get("source", ""))
        return cls(
            from_usd(said["managed_agents_session_hour"]),
            from_usd(said["web_search_per_1000"]) // 1000,
            from_usd(said["code_execution_per_container_hour"]),
            int(said["code_execution_free_hours_per_org_month"]) * HOUR_MS,
            int(said["code_execution_min_minutes"]) * 60_000,
            source,
            str(book.defaults.get("sources", {}).get(source, {}).get("date", "")),
        )


class Due(NamedTuple):
    """An entry and what it comes to: None is no price, and `why` says why; else `why` is rate, source and its day."""

    entry: Entry
    billed: int  # of its quantity: with a minimum, without an allowance and what is free
    picos: int | None
    why: str
    keys: tuple[str, ...] = ()


def priced_entries(found: Iterable[Entry], book: Book, platform: str = "") -> list[Due]:
    """In order of time, as the free hours of a month are used up; as if all were of `platform`, if that is given.

    Sessions count milliseconds of running alone. A container counts at least five minutes.
    """
    rates = cache(lambda day: Rates.of(book, day))
    left: dict[tuple[str, str], int] = {}
    made = []
    for entry in sorted(found, key=lambda entry: (entry.at_us, entry.kind, entry.id)):
        where = platform or entry.facts.platform
        if where not in SOLD_ON:
            why = f"{_WORDS[entry.kind]} is not sold on {_PLATFORMS.get(where, where)}"
            made.append(Due(entry, 0, None, why))
        elif entry.free:
            made.append(Due(entry, 0, 0, f"free: {entry.free.replace('_', ' ')}"))
        else:
            now = rates(entry.at.date())
            made.append(_PRICED[entry.kind](entry, now, left, (where, f"{entry.at:%Y-%m}")))
    return made


_Left = dict[tuple[str, str], int]  # of the free milliseconds, by platform and month


def _session(entry: Entry, rates: Rates, _: _Left, __: tuple[str, str]) -> Due:
    picos = _half_even(entry.quantity * rates.session_hour, HOUR_MS)
    return Due(entry, entry.quantity, picos, _why(rates, f"${usd(rates.session_hour)} an hour of running"))


def _search(entry: Entry, rates: Rates, _: _Left, __: tuple[str, str]) -> Due:
    picos = entry.quantity * rates.search
    return Due(entry, entry.quantity, picos, _why(rates, f"${usd(rates.search * 1000)} per 1,000"))


def _container(entry: Entry, rates: Rates, left: _Left, month: tuple[str, str]) -> Due:
    ms = max(entry.quantity, rates.least_ms)
    free = min(ms, left.get(month, rates.free_ms))
    left[month] = left.get(month, rates.free_ms) - free
    said = f"${usd(rates.container_hour)} an hour over {rates.free_ms // HOUR_MS:,} free hours a month"
    return Due(entry, ms - free, _half_even((ms - free) * rates.container_hour, HOUR_MS), _why(rates, said))


_PRICED: dict[str, Callable[[Entry, Rates, _Left, tuple[str, str]], Due]] = {
    "session": _session,
    "web_search": _search,
    "code_execution": _container,
}


def _why(rates: Rates, said: str) -> str:
    return f"{said} ({rates.source}, {rates.read})" if rates.source else said


def _half_even(above: int, below: int) -> int:
    whole, rest = divmod(above, below)
    return whole + int(rest * 2 > below or (rest * 2 == below and whole % 2 == 1))


# --- those that a question asks for --------------------------------------------------------------------------------


def due_entries(
    ledger: Ledger,
    question: Question,
    keys: Sequence[str] = (),
    *,
    beside: Iterable[Entry] = (),
    platform: str = "",
) -> list[Due]:
    """The ledger's entries of the question's days and filters, each with its keys, of which `meter` is its kind.

    `beside` are some that the ledger may lack. All of a month are priced before some are picked: its free hours are
    used up by all of them; as if all were of `platform`, if that is given.
    """
    found = {entry.id: entry for entry in (*beside, *ledger.entries())}.values()
    if not found:
        return []
    since, until = question.span()
    said = _said(question)
    picked = []
    for due in priced_entries(found, question.book, platform):
        if not since <= due.entry.at < until:
            continue
        names = said(due.entry.facts)
        if all(_fits(where, names.get(where.key, "")) for where in question.where):
            local = due.entry.at.astimezone(question.zone).date()
            own = {"meter": due.entry.kind} | {key: _day(key, local) for key in TIME_KEYS}
            picked.append(due._replace(keys=tuple(own.get(key) or names.get(key, "") for key in keys)))
    return picked


def _day(key: str, day: date) -> str:
    if key == "month":
        return f"{day:%Y-%m}"
    return (day - timedelta(days=day.weekday()) if key == "week" else day).isoformat()


def _said(question: Question) -> Callable[[Facts], Mapping[str, str]]:
    """What the facts of an entry say of each key; as of a call, but where no model is told there is none to say."""
    teams, workloads = (
        claim_by_facts(claimants) for claimants in (question.config.teams, question.config.workloads)
    )

    @cache
    def said(facts: Facts) -> Mapping[str, str]:
        named: dict[str, Any] = {key: getattr(facts, key) for key in FACT_KEYS}
        named |= {"platform": facts.platform, "model": facts.model_id, "mode": facts.mode}
        if facts.model_id:
            place = question.book.place(facts, question.profiles, question.assume)
            if isinstance(place, Resolved):
                named |= place.sku.named() | {"routing": place.routing}
        model = parse_model_id(facts.model_id)
        named["profile"] = model.profile
        whose = {
            "profiles": "" if model.base else model.profile,
            "principals": facts.principal,
            "projects": facts.project,
            "accounts": facts.account,
        }
        return named | {
            "team": teams(whose) or UNASSIGNED,
            "workload": workloads(whose) or fingerprint(whose),
        }

    return said


def _fits(where: Where, value: str) -> bool:
    """As cells have it: `*` and `?` stand for anything."""
    return any(_pattern(text).fullmatch(value) for text in where.values) != where.negated


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(translate(glob(text)))
