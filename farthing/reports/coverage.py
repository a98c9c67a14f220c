"""How much of the spend is seen, by what, and why the rest is not (docs/coverage.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from farthing.book import Unpriced
from farthing.cells import Cell, Question, QuestionError, cells
from farthing.ledger import Ledger
from farthing.reports._control import Compared, Gap, Slot, comparable, compare, not_compared
from farthing.reports._pairs import SECONDS, find_copies
from farthing.reports._table import Table, footer, heading, report
from farthing.usage import EPOCH

SEEN_BY = {
    "outbox": "gateway",
    "bedrock_log": "invocation_log",
    "bedrock_batch": "batch_output",
    "anthropic_batch": "batch_output",
    "claude_code": "transcript",
}
TELEMETRY = "other_telemetry"
CONTROL = "control_total"
_ORDER = (*dict.fromkeys(SEEN_BY.values()), TELEMETRY, CONTROL)
_KEYS = ("account", "region", "source", "day", "status", "model")
_SHARE_PLACES = 6

CAUSES = {
    "gateway_bypass": "in the log and not in the gateway, which sees other calls of that account or principal",
    "batch": "batch jobs are in no invocation log: import their output",
    "errors": "calls that failed, as seen call by call",
    "errors_unseen": "errors and throttles that only a control total counts",
    "mantle": "calls to bedrock-mantle are in no invocation log: send them through a gateway or hook",
    "logging_off": "a control total and no invocation log that day: switch logging on in that account and region",
    "batch_unseen": "batches that only a control total counts: import their results",
    "unexplained": "a control total counts calls that no log, transcript or gateway here tells of one by one",
    "more_than_control": "single calls come to more than the control total: it is not whole, or calls count twice",
}


@dataclass
class _Sum:
    calls: int = 0
    usd: int = 0
    upper_usd: int = 0
    priced: bool = False  # any of it
    unpriced: int = 0  # tokens without a price
    tokens: int = 0

    def add_gap(self, gap: Gap) -> None:
        if gap.slot.meter in ("calls", "errors"):
            self.calls += gap.least
            return
        self.tokens += gap.least
        self.usd += gap.usd
        self.upper_usd += gap.upper_usd
        self.priced |= gap.slot.priced
        self.unpriced += 0 if gap.slot.priced else gap.least


@report("How much of the spend is seen, by what, and what hides the rest.")
def coverage(ledger: Ledger, question: Question, teams: bool = False) -> Table:
    """Each call under the best source that saw it; then what only control totals count. Days are UTC days.

    `teams` adds what each team's calls were seen by; control totals know no teams.
    """
    question = replace(question, tz="UTC")
    found = cells(ledger, question, _KEYS)
    compared = compare(ledger, question, found, _KEYS) if comparable(question) else Compared([], [])
    sums = _seen(found)
    logged = _logged(found)
    causes: dict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    for gap in compared.gaps:
        place = gap.slot.account, gap.slot.region
        if gap.slot.meter == "errors":
            causes[(*place, "errors_unseen")].add_gap(gap)
            continue
        sums[(*place, CONTROL)].add_gap(gap)
        causes[(*place, _cause(gap.slot, logged))].add_gap(gap)
    _seen_causes(causes, found, compared.excess, _bypassing(ledger, question, found))
    rows = list(_rows(sums, compared))
    parts: dict[str, Any] = {
        "sources": _by_source(rows),
        "causes": list(_cause_rows(causes, compared)),
        "possible_duplicates_usd": _possible_duplicates(ledger, question),
        "not_compared": not_compared(ledger) if comparable(question) else [_FILTERED],
    }
    if teams:
        parts["teams"] = _by_team(ledger, question)
    ranged = any(row["upper_usd"] != row["usd"] for row in rows)
    columns = ("account", "region", "source", "calls", "usd", *(("upper_usd",) if ranged else ()), "share")
    return Table("Coverage", heading(found), columns, rows, footer(ledger, question, found), parts)


def _possible_duplicates(ledger: Ledger, question: Question) -> int | None:
    """None where they cannot be told under the question's filters."""
    try:
        return sum(copy.usd for copy in find_copies(ledger, question, SECONDS))
    except QuestionError:
        return None


_FILTERED = {
    "source": "",
    "level": "",
    "totals": 0,
    "why": "control totals know nothing of principals, sessions, tags: leave out --where to compare them",
}


def _seen(found: Iterable[Cell]) -> dict[tuple[str, str, str], _Sum]:
    sums: dict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    for cell in found:
        account, region, source, *_ = cell.keys
        total = sums[account, region, SEEN_BY.get(source, TELEMETRY)]
        total.calls += cell.calls
        total.usd += cell.cost
        total.upper_usd += cell.cost
        total.priced |= not isinstance(cell.price, Unpriced)
    return sums


def _rows(sums: dict[tuple[str, str, str], _Sum], compared: Compared) -> Iterator[dict[str, Any]]:
    """Rows by place, each with its share of the place's spend. Calls that nobody counted are None."""
    places = sorted({key[:2] for key in sums})
    for place in places:
        here = [(source, sums[(*place, source)]) for source in _ORDER if (*place, source) in sums]
        shares = exact_shares([total.usd for _, total in here])
        for (source, total), share in zip(here, shares, strict=True):
            yield dict(zip(("account", "region"), place, strict=True)) | {
                "source": source,
                "calls": None if source == CONTROL and place not in compared.counting else total.calls,
                "usd": total.usd if total.priced else None,
                "upper_usd": total.upper_usd if total.priced else None,
                "share": share,
            }


def _by_source(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same over all places."""
    totals: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: _ORDER.index(row["source"])):
        name = row["source"]
        total = totals.setdefault(name, {"source": name, "calls": 0, "usd": 0, "upper_usd": 0})
        for column in ("calls", "usd", "upper_usd"):
            total[column] += row[column] or 0
    shares = exact_shares([total["usd"] for total in totals.values()])
    return [total | {"share": share} for total, share in zip(totals.values(), shares, strict=True)]


def _by_team(ledger: Ledger, question: Question) -> list[dict[str, Any]]:
    """What saw each team's calls, as shares of the team's spend."""
    found: dict[str, dict[str, _Sum]] = defaultdict(lambda: defaultdict(_Sum))
    for cell in cells(ledger, question, ("team", "source")):
        team, source = cell.keys
        total = found[team][SEEN_BY.get(source, TELEMETRY)]
        total.calls += cell.calls
        total.usd += cell.cost
        total.priced |= not isinstance(cell.price, Unpriced)
    rows: list[dict[str, Any]] = []
    for team, sums in sorted(found.items(), key=lambda item: -sum(total.usd for total in item[1].values())):
        here = sorted(sums.items(), key=lambda item: _ORDER.index(item[0]))
        for (source, total), share in zip(here, exact_shares([total.usd for _, total in here]), strict=True):
            usd = total.usd if total.priced else None
            rows.append({"team": team, "source": source, "calls": total.calls, "usd": usd, "share": share})
    return rows


def exact_shares(amounts: Sequence[int]) -> list[str | None]:
    """Each amount's share of their sum, as decimals that come to exactly 1; None where there is nothing to share.

    What rounding down leaves goes to those it took most from.

    >>> exact_shares([1, 1, 1])
    ['0.333334', '0.333333', '0.333333']
    """
    whole = sum(amounts)
    if not whole:
        return [None] * len(amounts)
    parts = [divmod(amount * 10**_SHARE_PLACES, whole) for amount in amounts]
    rest = 10**_SHARE_PLACES - sum(share for share, _ in parts)
    upward = sorted(range(len(parts)), key=lambda i: -parts[i][1])[:rest]
    shares = [share + (i in upward) for i, (share, _) in enumerate(parts)]
    return [_decimal(share) for share in shares]


def _decimal(share: int) -> str:
    text = f"{share // 10**_SHARE_PLACES}.{share % 10**_SHARE_PLACES:0{_SHARE_PLACES}}"
    return text.rstrip("0").rstrip(".")


# --- causes --------------------------------------------------------------------------------------------------------


def _logged(found: Iterable[Cell]) -> set[tuple[str, str, int]]:
    """The places and days that an invocation log tells of; "" stands for any place."""
    logged = set()
    for cell in found:
        account, region, source, day, *_ = cell.keys
        if source == "bedrock_log":
            number = (date.fromisoformat(day) - EPOCH.date()).days
            logged |= {(a, r, number) for a in ("", account) for r in ("", region)}
    return logged


def _cause(slot: Slot, logged: set[tuple[str, str, int]]) -> str:
    if slot.service == "mantle":
        return "mantle"
    if slot.sku and slot.sku.mode == "batch":
        return "batch_unseen"
    off = slot.service == "runtime" and (slot.account, slot.region, slot.day) not in logged
    return "logging_off" if off else "unexplained"


def _seen_causes(
    causes: dict[tuple[str, str, str], _Sum],
    found: Iterable[Cell],
    excess: Iterable[Slot],
    bypassing: Iterable[Cell],
) -> None:
    """Causes that calls themselves show."""
    for cell in found:
        account, region, source, _, status, _ = cell.keys
        names = ["errors"] if status else []
        names += ["batch"] if source == "bedrock_batch" else []
        for name in names:
            _add_cell(causes[account, region, name], cell)
    for cell in bypassing:
        _add_cell(causes[cell.keys[0], cell.keys[1], "gateway_bypass"], cell)
    for slot in excess:
        total = causes[slot.account, slot.region, "more_than_control"]
        total.priced = True
        total.calls += slot.tokens if slot.meter == "calls" else 0
        cost = 0 if slot.meter in ("calls", "errors") else slot.tokens * slot.low
        total.usd += cost
        total.upper_usd += cost


def _add_cell(total: _Sum, cell: Cell) -> None:
    total.calls += cell.calls
    total.usd += cell.cost
    total.upper_usd += cell.cost
    total.priced |= not isinstance(cell.price, Unpriced)


def _bypassing(ledger: Ledger, question: Question, found: Iterable[Cell]) -> list[Cell]:
    """Calls of the log that went past a gateway: from the first day on that it saw their account or principal."""
    if not any(cell.keys[2] == "outbox" for cell in found):
        return []
    told = cells(ledger, question, ("account", "region", "source", "day", "principal"))
    since: dict[tuple[str, str], str] = {}
    for cell in told:
        account, _, source, day, principal = cell.keys
        for who in (("account", account), ("principal", principal)):
            if source == "outbox" and who[1]:
                since[who] = min(since.get(who, day), day)

    def after(cell: Cell) -> bool:
        account, _, source, day, principal = cell.keys
        first = [since[who] for who in (("account", account), ("principal", principal)) if who in since]
        return source == "bedrock_log" and bool(first) and day >= min(first)

    return [cell for cell in told if after(cell)]


_OF_TOTALS = ("mantle", "logging_off", "batch_unseen", "unexplained")


def _cause_rows(causes: dict[tuple[str, str, str], _Sum], compared: Compared) -> Iterator[dict[str, Any]]:
    order = list(CAUSES)
    for (account, region, name), total in sorted(
        causes.items(), key=lambda item: (item[0][:2], order.index(item[0][2]))
    ):
        row = {
            "account": account,
            "region": region,
            "cause": name,
            "calls": None
            if name in _OF_TOTALS and (account, region) not in compared.counting
            else total.calls,
            "usd": total.usd if total.priced or not total.tokens else None,
            "upper_usd": total.upper_usd if total.priced or not total.tokens else None,
            "says": CAUSES[name],
        }
        yield row | ({"unpriced_tokens": total.unpriced} if total.unpriced else {})
