"""What a page is: figures, tables and what has to be known of them; as JSON and as CSV.

A page is a function under `@page`: from a view (ledger, question, links) to a Page. Its own parameters are those of the
query string. Tables come from reports and keep their names of columns.
"""

from __future__ import annotations

import csv
import inspect
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

from farthing.cells import KEYS, Question, Where, cells
from farthing.meters import METERS
from farthing.money import usd
from farthing.reports import REPORTS, ConvertError, Table, in_currency, inert, is_amount

if TYPE_CHECKING:
    from farthing.fx import Rates
    from farthing.ledger import Ledger
    from farthing.statement import Statement

Row = dict[str, Any]
_TITLES = {
    "usd": "cost", "cache_read": "cache reads", "cache_write_5m": "writes 5m", "cache_write_1h": "writes 1h",
    "usd_per_million": "$ per million", "unpriced_calls": "unpriced",
}  # fmt: skip
_COUNTS = {"calls", "tokens", *METERS, "unpriced_calls", "percent", "above", "days", "version", "lines"}
DAY = timedelta(days=1)


class PageError(ValueError):
    """What was asked for cannot be: one line, `what: mend`."""


@dataclass(frozen=True)
class View:
    """What a page is made from: whom and what it is asked about, and how its links go on.

    `ledger` is a Ledger, mostly one that keeps sums. `query` is what the link said, without the page's own parameters.
    """

    ledger: Ledger
    question: Question
    now: datetime
    query: tuple[tuple[str, str], ...] = ()
    rates: Rates | None = None
    currency: str = "USD"
    statement: Callable[[], Statement | None] = lambda: None
    policy: str = ""  # the policy file
    outbox: str = ""  # the folder that live reads
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scope: tuple[str, ...] = ()  # the teams that alone may be seen; () is all
    keep: Callable[[str, Callable[[], Any]], Any] = lambda _, make: make()  # for what several pages need

    @cached_property
    def days(self) -> tuple[date, date] | None:
        """The first and the last day of use, of the teams that may be seen; None if there is none."""
        if not self.scope:
            used = self.ledger.days()
            return used and (used[0].date(), used[1].date() - DAY)
        bound = replace(self.question, since=None, until=None, where=(Where("team", self.scope),))
        found = [date.fromisoformat(cell.keys[0]) for cell in cells(self.ledger, bound, ("day",))]
        return (min(found), max(found)) if found else None

    def report(self, name: str, **values: Any) -> Table:
        """A report, in the view's currency if it can be."""
        made = REPORTS[name]
        if self.rates and self.currency != "USD":
            try:
                return in_currency(made, self.ledger, self.question, self.rates, self.currency, **values)
            except ConvertError:
                pass
        return made.make(self.ledger, self.question, **values)

    def link(self, page: str = "explore", **narrowed: str) -> str:
        """The link to a page with the view's filters, narrowed to one value of each key; of days to that day."""
        asked = {"since": self.question.since, "until": self.question.until}
        days = {name: day.isoformat() for name, day in asked.items() if day}
        parts = [self._carried] if self._carried else []
        for key, value in narrowed.items():
            if key in _SPANS:
                days = _within(days, *_SPANS[key](value))
            elif key in KEYS or key.startswith("tag:"):
                parts.append("where=" + quote_plus(f"{key}={_named(value)}"))
            else:
                parts.append(f"{key}={quote_plus(value)}")
        parts += [f"{name}={day}" for name, day in days.items()]
        return f"/{page}?{'&'.join(parts)}" if parts else f"/{page}"

    @cached_property
    def _carried(self) -> str:
        """The filters that links take along as they are."""
        return urlencode([pair for pair in self.query if pair[0] not in ("since", "until")])


def _named(value: str) -> str:
    """A name as a filter for it alone."""
    return re.sub(r"[*?,]", r"[\g<0>]", value)


def _within(days: dict[str, str], first: date, last: date) -> dict[str, str]:
    return {
        "since": max(days.get("since", ""), first.isoformat()),
        "until": min(days.get("until", "9999-12-31"), last.isoformat()),
    }


def _month(text: str) -> tuple[date, date]:
    first = date.fromisoformat(f"{text}-01")
    return first, (first + 31 * DAY).replace(day=1) - DAY


_SPANS: dict[str, Callable[[str], tuple[date, date]]] = {
    "day": lambda text: (date.fromisoformat(text), date.fromisoformat(text)),
    "week": lambda text: (date.fromisoformat(text), date.fromisoformat(text) + 6 * DAY),
    "month": _month,
}


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass
class Sheet:
    """A table of a page. `keys` are the columns by which a row's link is narrowed; amounts are picodollars."""

    title: str
    columns: Sequence[str]
    rows: list[Row]
    keys: Sequence[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    currency: str = "USD"
    empty: str = "no usage in this selection"
    total: Row = field(default_factory=dict)
    most: int = 100_000  # rows that a browser is given; CSV has all

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {name: self.kinds.get(name) or self._kind(name) for name in self.columns}

    def _kind(self, name: str) -> str:
        if is_amount(name, self.currency):
            return "usd" if name.endswith("usd") else "money"
        if name in ("day", "week", "starts", "expires"):
            return "day"
        if name in ("share", "at", "flag"):
            return {"share": "share", "at": "time", "flag": "flag"}[name]
        if name == "usd_per_million":
            return "rate"
        return "count" if name in _COUNTS else "text"

    def as_json(self, view: View) -> Row:
        """With exact strings for amounts, and each row's link."""
        return {
            "title": self.title,
            "columns": [
                {"name": name, "title": self.titles.get(name) or _title(name), "kind": kind}
                for name, kind in self._kinds.items()
            ],
            "rows": [self._row(row, view) for row in self.rows[: self.most]],
            "total": self._row(self.total, None),
            "empty": self.empty,
        }

    def _row(self, row: Row, view: View | None) -> Row:
        made = {name: self._plain(name, value) for name, value in row.items()}
        if view and self.keys and "_rows" not in row:
            made["_rows"] = view.link(
                calls="50", **{key: str(row[key]) for key in self.keys if row.get(key) is not None}
            )
        return made

    def _plain(self, name: str, value: Any) -> Any:
        exact = isinstance(value, int) and not isinstance(value, bool)
        return usd(value) if exact and is_amount(name, self.currency) else value

    def as_csv(self) -> str:
        """The rows, amounts exact, empty where unpriced. What a spreadsheet would take for a formula is quoted."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            values = (self._plain(name, row.get(name)) for name in self.columns)
            writer.writerow(["" if value is None else inert(value) for value in values])
        return out.getvalue()


def _title(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    return name.removesuffix("_usd").removesuffix("_picos").replace("_", " ")


def sheet(table: Table, title: str, keys: Sequence[str] = (), columns: Sequence[str] = ()) -> Sheet:
    """The rows of a report; with `columns`, no more than these of each."""
    rows = [{name: row[name] for name in columns} for row in table.rows] if columns else table.rows
    return Sheet(
        title,
        tuple(columns or table.columns),
        rows,
        keys,
        titles=table.heads,
        currency=table.currency,
        empty=table.empty,
    )


# --- pages -----------------------------------------------------------------------------------------------------------


@dataclass
class Kpi:
    name: str
    title: str
    kind: str
    value: int | str | None
    note: str = ""

    def as_json(self) -> Row:
        exact = self.kind in ("usd", "money") and isinstance(self.value, int)
        value = usd(int(self.value)) if exact and self.value is not None else self.value
        return {"name": self.name, "title": self.title, "kind": self.kind, "value": value, "note": self.note}


@dataclass
class Page:
    """`missing` is why there is nothing to be seen and what mends it; `footer` is that of a report."""

    title: str
    tables: dict[str, Sheet] = field(default_factory=dict)
    kpis: list[Kpi] = field(default_factory=list)
    heading: str = ""
    footer: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    missing: tuple[str, str] | None = None
    failed: bool = False
    extra: Row = field(default_factory=dict)  # further top-level values

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """For Jupyter and marimo."""
        from farthing.web._drawn import bundle

        return bundle(self)


@dataclass(frozen=True)
class Made:
    name: str
    says: str
    make: Callable[..., Page]
    slow: bool  # it reads more than sums: it has a ledger and a turn of its own

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The parameters of its own."""
        return tuple(name for name in inspect.signature(self.make).parameters if name != "view")


PAGES: dict[str, Made] = {}


def page(says: str, *, slow: bool = False) -> Callable[[Callable[..., Page]], Callable[..., Page]]:
    def register(make: Callable[..., Page]) -> Callable[..., Page]:
        PAGES[make.__name__] = Made(make.__name__, says, make, slow)
        return make

    return register


def as_json(name: str, made: Page, view: View) -> Row:
    """The schema of docs/dashboard.md."""
    question, used = view.question, view.days
    footer = plain(made.footer)
    span = {"since": used[0].isoformat(), "until": used[1].isoformat()} if used else None
    notes = list(made.notes)
    if view.currency != "USD" and all(table.currency == "USD" for table in made.tables.values()):
        notes.append(
            f"in USD: what is here is no sum of days, so no day's rate of {view.currency} holds for it"
        )
    missing = {"why": made.missing[0], "mend": made.missing[1]} if made.missing else None
    return {
        "page": name,
        "title": made.title,
        "heading": made.heading,
        "question": {
            "since": question.since and question.since.isoformat(),
            "until": question.until and question.until.isoformat(),
            "where": [value for key, value in view.query if key == "where"],
            "tz": question.tz,
            "assume": dict(question.assume),
            "currency": view.currency,
        },
        "span": span,
        "choices": {key: list(values) for key, values in view.choices.items()},
        "kpis": [kpi.as_json() for kpi in made.kpis],
        "tables": {key: table.as_json(view) for key, table in made.tables.items()},
        "assumed": {"usd": footer.get("assumed_usd", "0"), "by": footer.get("assumed", [])},
        "unpriced": {"calls": footer.get("unpriced", 0), "reasons": footer.get("unpriced_reasons", {})},
        "rejected": {"lines": footer.get("rejected", 0), "reasons": footer.get("rejected_reasons", [])},
        "footer": footer,
        "notes": notes,
        "currency": view.currency,
        "tz": question.tz,
        "book": question.book.digest,
        "rows_from": view.link(calls="50"),
        "generated_at": f"{view.now:%Y-%m-%dT%H:%M:%SZ}",
        "fresh": True,
        "failed": made.failed,
        **({"missing": missing} if missing else {}),
        **plain(made.extra),
    }


def plain(value: Any, name: str = "") -> Any:
    """JSON-ready: picodollars under names that end in `usd` become exact strings."""
    if isinstance(value, Mapping):
        return {key: plain(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("usd"):
        return usd(value)
    return value


def narrowed(view: View, **changed: Any) -> View:
    """The view with another question."""
    return replace(view, question=replace(view.question, **changed))


def total(rows: Iterable[Row], *names: str) -> Row:
    """Sums of columns; of an amount without any price, None."""
    rows = list(rows)
    found: Row = {}
    for name in names:
        known = [row[name] for row in rows if row.get(name) is not None]
        found[name] = sum(known) if known or not is_amount(name) else None
    return found
