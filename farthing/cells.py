"""Cells: the ledger's usage summed as far as pricing allows, and priced by the same `@` as a single record.

A question selects rows and names keys. The engine sums tokens by those keys and by the cell of the book
(rating.Grid) each row lies in; what comes back is small, and every figure of every report is made from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from farthing.book import ANY_PROMPT, FOREVER, START, Book, Card, Resolved, Unpriced, default_book
from farthing.config import UNASSIGNED, Config, claim_by_facts, claims, fingerprint
from farthing.ledger import Ledger, arrow, transposed
from farthing.meters import METERS, Vector
from farthing.offers import contract_book, load_offers
from farthing.rating import Grid, grid
from farthing.usage import EPOCH, Facts, Sku, parse_model_id, settle_ttl

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

    from farthing.config import Members

FACT_KEYS = ("account", "region", "principal", "session", "project", "source", "operation", "status")
SKU_KEYS = ("platform", "model", "endpoint", "zone", "mode")
CLAIMED = ("team", "workload")  # who claims a call: by its tags, else by what its context tells
KEYS = (*SKU_KEYS, "routing", "profile", *CLAIMED, *FACT_KEYS)  # what `where` takes
TIME_KEYS = ("day", "week", "month")
_RESOLVING = ("platform", "model_id", "served_model", "region", "mode", "inference_geo")
_SUMMED = ("at", "day", "calls", "ctx", "tags", *METERS)  # all that is looked at, but by flags
_BELONGING = (
    "model_id",
    "principal",
    "project",
    "account",
)  # what says whose a call is, where its tags do not


class QuestionError(ValueError):
    """A key, filter, date or zone that cannot be: one line, with what can."""


class Where(NamedTuple):
    key: str
    values: tuple[str, ...]  # any of them; `*` and `?` as in a shell, see `glob`
    negated: bool = False


@dataclass(frozen=True)
class Question:
    """What a report is asked: which rows, by which book, in which time zone, on which assumptions.

    `since` and `until` are days of the zone `tz`, both included. `assume` settles what sources left open:
    endpoint, region, inference_geo, ttl.

    Where the config names offers, the book has them: nobody who asks can forget them. `at_list` takes them out again.
    """

    since: date | None = None
    until: date | None = None
    tz: str = "UTC"
    where: tuple[Where, ...] = ()
    assume: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)
    book: Book = field(default_factory=default_book)
    config: Config = field(default_factory=Config)  # teams, residency

    def __post_init__(self) -> None:
        self.zone  # noqa: B018 - an unknown zone is an error even of a question that asks for no day
        if self.config.contracts and not self.book.offers:
            offers = load_offers(self.config.contracts, self.book)
            object.__setattr__(self, "book", contract_book(self.book, offers))

    @cached_property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise QuestionError(f"unknown time zone {self.tz!r}: use a name such as Europe/Berlin") from error

    def span(self) -> tuple[datetime, datetime]:
        """[from, to) in UTC."""
        start = START if self.since is None else self._midnight(self.since)
        return start, FOREVER if self.until is None else self._midnight(self.until + timedelta(days=1))

    def _midnight(self, day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)


def at_list(question: Question) -> Question:
    """The same question, by public prices alone."""
    config = msgspec.structs.replace(question.config, contracts=())
    return replace(question, book=question.book.listed, config=config)


class Cell(NamedTuple):
    """Tokens that share keys, SKU and card. `price` is the card, or why there is none."""

    keys: tuple[Any, ...]
    sku: Resolved | Unpriced
    at: datetime  # an instant of the cell's era, and a prompt size of its band: enough to find other cards by
    prompt: int
    price: Card | Unpriced
    tokens: Vector
    calls: int
    meter_calls: Vector  # calls that used each meter; zeros unless asked for
    cost: int  # picodollars; 0 where there is no price, so ask `price` before showing it
    assumed: tuple[str, ...]
    source: str
    flags: tuple[bool, ...]  # of the extra conditions asked for


def parse_where(text: str) -> Where:
    """`model=claude-opus-*,claude-sonnet-5`, `region!=us-east-1`, `tag:team=search`; `[,]` is a comma of a value."""
    key, operator, values = text.partition("=")
    negated = operator == "=" and key.endswith("!")
    key = key.removesuffix("!").strip()
    if not operator or not (key in KEYS or (key.startswith("tag:") and len(key) > 4)):
        raise QuestionError(
            f"cannot filter by {text!r}: use KEY=VALUE with KEY of {', '.join(KEYS)}, tag:NAME"
        )
    listed = (value.strip().replace("[,]", ",") for value in re.split(r",(?!(?<=\[,)\])", values))
    return Where(key, tuple(listed), negated)


def check_key(key: str) -> str:
    if key in (*KEYS, *TIME_KEYS, "meter") or (key.startswith("tag:") and len(key) > 4):
        return key
    raise QuestionError(
        f"cannot group by {key!r}: keys are {', '.join((*KEYS, *TIME_KEYS, 'meter'))}, tag:NAME"
    )


def cells(
    ledger: Ledger,
    question: Question,
    keys: Sequence[str] = (),
    *,
    flags: Sequence[nw.Expr] = (),
    extra: Callable[[Resolved | Unpriced], Mapping[str, int]] | None = None,
    beside: Callable[[Sku], Iterable[Sku]] | None = None,
    by_meter: bool = False,
) -> list[Cell]:
    """The ledger's usage, summed by `keys` (not `meter`) and by cell of the book, every cell with its card.

    `flags` are conditions to tell rows apart by, over the ledger's columns and those that `extra` gives each
    SKU (it must give all the same). `beside` gives the SKUs that a cell will be rated by as well, so that it
    lies in one box of each of them too. `by_meter` counts the calls that used each meter.
    """
    keys = tuple(check_key(key) for key in keys)
    if "meter" in keys:
        raise QuestionError("meter is a key of a finished table, not of the ledger")
    used = ledger.days()
    if used is None:
        return []
    since, until = question.span()
    since, until = max(since, used[0]), min(until, used[1])
    if since >= until:
        return []
    keep = getattr(ledger, "kept_cells", None)  # of a ledger that keeps sums: farthing/web/_cube.py
    if keep and not (flags or extra or beside):
        kept: list[Cell] | None = keep(question, keys, (since, until), by_meter)
        if kept is not None:
            return kept
    contexts = Contexts(ledger, question, (since, until), keys, extra, beside)
    lines = grid(question.book, sorted(contexts.skus), since, until)
    summed = _sum(ledger, question, contexts, lines, keys, (since, until), flags, by_meter)
    return list(priced_cells(summed, question, contexts, lines, keys, since))


class Placed(Protocol):
    """What contexts resolve to, and the prompt sizes at which the prices of each change."""

    places: list[Resolved | Unpriced]
    edges: list[tuple[int, ...]]


class Contexts:
    """The ledger's contexts joined to what the book makes of them.

    `places` are what they resolve to, and `edges` the prompt sizes at which the prices of each change; `skus` are
    theirs, with those that `beside` gives.
    """

    def __init__(
        self,
        ledger: Ledger,
        question: Question,
        span: tuple[datetime, datetime],
        keys: Sequence[str],
        extra: Callable[[Resolved | Unpriced], Mapping[str, int]] | None = None,
        beside: Callable[[Sku], Iterable[Sku]] | None = None,
    ) -> None:
        self.ledger = ledger
        self.question = question
        con = ledger.connection
        contexts = ledger.contexts().materialize()
        facts, on = _distinct(contexts, question.book)
        resolved = [_resolve(question, said) for said in facts]
        # where a call may run is a key like others; what it costs hangs on the rest, which fewer places tell apart
        placed = [p._replace(routing="") if isinstance(p, Resolved) else p for p in resolved]
        self.places = list(dict.fromkeys(placed))
        own = {place.sku for place in self.places if isinstance(place, Resolved)}
        family = {sku: {sku, *(beside(sku) if beside else ())} for sku in own}
        self.skus = set().union(*family.values())
        self.edges = [
            edges_of(question.book, family[p.sku], *span) if isinstance(p, Resolved) else ()
            for p in self.places
        ]
        self.edge_columns = [f"edge_{i}" for i in range(max(map(len, self.edges), default=0))]
        number = {place: i for i, place in enumerate(self.places)}
        columns: dict[str, list[Any]] = {name: [said[name] for said in facts] for name in on.split(", ")}
        columns["place"] = [number[place] for place in placed]
        for i, name in enumerate(SKU_KEYS):
            columns[f"sku_{name}"] = [
                place.sku[i] if isinstance(place, Resolved) else _unresolved(name, said)
                for place, said in zip(placed, facts, strict=True)
            ]
        columns["routing"] = [p.routing if isinstance(p, Resolved) else "unknown" for p in resolved]
        columns["profile"] = [parse_model_id(said["model_id"]).profile for said in facts]
        given = [
            {
                **(extra(place) if extra else {}),
                **dict(zip_longest(self.edge_columns, self.edges[number[place]], fillvalue=ANY_PROMPT)),
            }
            for place in placed
        ]
        self.extra = tuple(given[0]) if given else ()
        columns |= {name: [row[name] for row in given] for name in self.extra}
        types = {name: "int64" if name in ("place", *self.extra) else "string" for name in columns}
        con.register("ctx_facts", contexts)
        con.register("ctx_places", arrow(columns, types))
        named = "".join(
            f', {"p.sku_" if key in SKU_KEYS else "p." if key in ("routing", "profile") else "c."}{key} AS "{key}"'
            for key in KEYS
            if key not in CLAIMED
        )
        named += "".join(f', p."{name}"' for name in self.extra)
        query = f"SELECT ctx, place, c.assumed{named} FROM ctx_facts c JOIN ctx_places p USING ({on})"
        self.claiming: dict[
            str, Any
        ] = {}  # by the claimed keys that are asked for: tag sets and their claimants
        for key in CLAIMED:
            if key in (*keys, *(where.key for where in question.where)):
                self.claiming[key] = self._by_tags(key)
                con.register(f"ctx_{key}", self._by_facts(key, contexts))
                same = " AND ".join(f"c.{name} = {key}.{name}" for name in _BELONGING)
                query = query.replace(" FROM", f", {key}.{key} FROM") + f" JOIN ctx_{key} {key} ON {same}"
        self.named = con.sql(query)
        for where in question.where:
            if not self.hangs_on_tags(where.key):
                self.named = self.named.filter(_matches(f'"{where.key}"', where))

    def _claimants(self, key: str) -> Mapping[str, Members]:
        return self.question.config.teams if key == "team" else self.question.config.workloads

    def _by_facts(self, key: str, contexts: Any) -> Any:
        """Who claims each profile, principal, project and account that occur together.

        What no team claims is unassigned; what no workload does has one of its own.
        """
        names = ", ".join(_BELONGING)
        columns = transposed(
            contexts.project(names).distinct().fetchall(), dict.fromkeys(_BELONGING, "string")
        )
        parsed = map(parse_model_id, columns["model_id"])
        kinds = {
            "profiles": [
                "" if model.base else model.profile for model in parsed
            ],  # a system profile is nobody's
            "principals": columns["principal"],
            "projects": columns["project"],
            "accounts": columns["account"],
        }
        claimant = claim_by_facts(self._claimants(key))
        rows = (dict(zip(kinds, row, strict=True)) for row in zip(*kinds.values(), strict=True))
        columns[key] = [
            claimant(said) or (fingerprint(said) if key == "workload" else UNASSIGNED) for said in rows
        ]
        return arrow(columns, dict.fromkeys(columns, "string"))

    def _by_tags(self, key: str) -> Any:
        """Who claims each tag set; None where nobody goes by tags.

        Where no teams are configured, the tag `team` names them.
        """
        claimants, con = self._claimants(key), self.ledger.connection
        if key == "team" and not claimants:
            return self._tag_values("team").filter("value <> ''")
        keys = {member.partition("=")[0] for made in claimants.values() for member in made.tags}
        if not keys:
            return None
        con.register("ledger_tags", self.ledger.table("tags").distinct())
        named = ", ".join(map(_literal, sorted(keys)))
        pairs = con.execute(f"SELECT DISTINCT key, value FROM ledger_tags WHERE key IN ({named})").fetchall()
        claim = claims(claimants, "tags")
        claimed = [(*pair, *made) for pair in pairs if (made := claim("=".join(pair)))]
        types = {"key": "string", "value": "string", "rank": "int64", "claimant": "string"}
        con.register(f"tags_of_{key}", arrow(transposed(claimed, types), types))
        return con.sql(
            f"SELECT tags, arg_min(claimant, rank) AS value FROM ledger_tags JOIN tags_of_{key} USING (key, value) "
            "GROUP BY tags"
        )

    def hangs_on_tags(self, key: str) -> bool:
        """Whether a row's tags say what it is under this key, so that its context alone does not."""
        return key.startswith("tag:") or self.claiming.get(key) is not None

    def coded(self, keys: Sequence[str]) -> tuple[Any, dict[int, dict[str, Any]]]:
        """Each context with a small code for what it says of `keys`, and what each code stands for.

        Strings are looked at here once a context; rows are joined and grouped by the code.
        """
        con = self.ledger.connection
        names = tuple(dict.fromkeys(("place", "assumed", "source", *keys)))
        said = [_quoted(name) for name in names]
        fits = {
            f"fits_{i}": _matches(where.key, where)
            for i, where in enumerate(self.question.where)
            if where.key in CLAIMED and self.hangs_on_tags(where.key)
        }
        given = [_quoted(name) for name in self.extra] + list(fits.values())
        grouped = self.named.aggregate(f"{', '.join([*said, *given])}, list(ctx)").fetchall()
        types = {
            "ctx": "int64", "code": "int32",
            **dict.fromkeys(self.extra, "int64"), **dict.fromkeys(fits, "bool"),
        }  # fmt: skip
        columns: dict[str, list[Any]] = {name: [] for name in types}
        for code, row in enumerate(grouped):
            for column, value in zip(columns.values(), (None, code, *row[len(said) : -1]), strict=True):
                column += row[-1] if column is columns["ctx"] else [value] * len(row[-1])
        con.register("ctx_coded", arrow(columns, types))
        meanings = {code: dict(zip(names, row, strict=False)) for code, row in enumerate(grouped)}
        return con.table("ctx_coded"), meanings

    def tags(self, key: str, name: str) -> tuple[Any, dict[int | None, str]]:
        """Each tag set that says something of the key, with a code for what under a name; and what codes stand for."""
        con = self.ledger.connection
        view = f"said of {key}"  # of its own: a frame looks its views up when it is read
        con.register(view, self.claiming[key] if key in CLAIMED else self._tag_values(key[4:]))
        code = "CAST(dense_rank() OVER (ORDER BY value) AS INTEGER) AS code"
        coded = f"SELECT tags, {code}, value FROM {_quoted(view)}"
        meanings = _meanings(con, f"code, value FROM ({coded})")
        named = con.sql(f"SELECT tags, code AS {_quoted(name)} FROM ({coded})")
        return named, {code: said["value"] for code, said in meanings.items()}

    def keep(self, frame: Any, number: int, where: Where) -> Any:
        """The rows that are as asked, where tags say so; a row without the tag has the value ""."""
        import narwhals.stable.v2 as nw

        if where.key in CLAIMED:
            fits = self.claiming[where.key].project(f"tags, {_matches('value', where)} AS tag_fits_{number}")
            frame = frame.join(nw.from_native(self.ledger.lifted(fits)), on="tags", how="left")
            return frame.filter(nw.coalesce(nw.col(f"tag_fits_{number}"), nw.col(f"fits_{number}")))
        values = self._tag_values(where.key[4:])
        (without,) = self.ledger.connection.execute(f"SELECT {_matches(chr(39) * 2, where)}").fetchall()[0]
        asked = _matches("value", where)
        found = self.ledger.lifted(values.filter(f"NOT {asked}" if without else asked))
        return frame.join(nw.from_native(found), on="tags", how="anti" if without else "semi")

    def _tag_values(self, name: str) -> Any:
        con = self.ledger.connection
        con.register("ledger_tags", self.ledger.table("tags").distinct())
        return con.sql(
            f"SELECT tags, min(value) AS value FROM ledger_tags WHERE key = {_literal(name)} GROUP BY tags"
        )


def _distinct(contexts: Any, book: Book) -> tuple[list[dict[str, str]], str]:
    """What the contexts say that their price hangs on, each once; and the columns that it is in."""
    names = (*_RESOLVING, "account") if book.terms else _RESOLVING
    on = ", ".join(names)
    rows = contexts.project(on).distinct().order(on).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows], on


def edges_of(book: Book, skus: Iterable[Sku], since: datetime, until: datetime) -> tuple[int, ...]:
    """The prompt sizes at which any of their prices changes."""
    cards = [card for card in book.cards(*skus) if card.starts < until and since < card.ends]
    sizes = {size for card in cards for size in (card.prompt_from, card.prompt_to)}
    return tuple(sorted(size for size in sizes if 0 < size < ANY_PROMPT))


def _meanings(con: Any, selected: str) -> dict[Any, dict[str, Any]]:
    """Codes and what they stand for: the first column by the rest."""
    found = con.sql(f"SELECT DISTINCT {selected}")
    return {row[0]: dict(zip(found.columns[1:], row[1:], strict=True)) for row in found.fetchall()}


def _resolve(question: Question, said: Mapping[str, str]) -> Resolved | Unpriced:
    return question.book.place(Facts("", **said), question.profiles, question.assume)


def _unresolved(key: str, facts: Mapping[str, Any]) -> str:
    """What a key shows for a model that the book does not know: what the source said."""
    said = {"platform": facts["platform"], "model": facts["model_id"], "mode": facts["mode"] or "on_demand"}
    return str(said.get(key, ""))


class Summed(NamedTuple):
    """Groups as the engine gives them: `names` of their first columns; then calls, tokens, calls by meter."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    meanings: dict[int, dict[str, Any]]  # of the column `code`: place, assumed, source and keys
    values: dict[str, dict[int | None, str]]  # of the columns of tags


def _sum(
    ledger: Ledger,
    question: Question,
    contexts: Contexts,
    lines: Grid,
    keys: Sequence[str],
    span: tuple[datetime, datetime],
    flags: Sequence[nw.Expr],
    by_meter: bool,
) -> Summed:
    import narwhals.stable.v2 as nw  # where no frame is asked, it is not loaded

    coded, meanings = contexts.coded([key for key in keys if key in KEYS])
    frame = nw.from_native(ledger.rows_to_sum(*span, () if flags else _SUMMED))
    if question.since or question.until:
        frame = frame.filter(nw.col("at") >= nw.lit(span[0]), nw.col("at") < nw.lit(span[1]))
    frame = frame.join(nw.from_native(ledger.lifted(coded)), on="ctx")
    values: dict[str, dict[int | None, str]] = {}
    by_tags = [key for key in dict.fromkeys((*CLAIMED, *keys)) if key in keys and contexts.hangs_on_tags(key)]
    coded_tags = [
        f"tags_{i}" for i in range(len(by_tags))
    ]  # not every engine takes every name for a column's
    for key, name in zip(by_tags, coded_tags, strict=True):
        tagged, values[key] = contexts.tags(key, name)
        frame = frame.join(nw.from_native(ledger.lifted(tagged)), on="tags", how="left")
    for number, where in enumerate(question.where):
        if contexts.hangs_on_tags(where.key):
            frame = contexts.keep(frame, number, where)
    by = {f"flag_{i}": flag for i, flag in enumerate(flags)}
    if any(key in TIME_KEYS for key in keys):
        by["local_day"] = local_day(question.zone, *span)
    # only what varies: each further key costs a tenth of the time, and each group some microseconds
    by |= lines.cell(varying=True, days=True, prompts=[nw.col(name) for name in contexts.edge_columns])
    meter_calls = {
        f"calls_{meter}": (nw.col("calls") * (nw.col(meter) != 0).cast(nw.Int64())).sum()
        for meter in (METERS if by_meter else ())
    }
    sums = {name: nw.col(name).sum() for name in ("calls", *METERS)} | meter_calls
    # DuckDB's 128-bit sums take long to become Python's; one that does not fit 64 bits is an error, never wrong
    sums = {name: total.cast(nw.Int64()) for name, total in sums.items()}
    summed = (frame.with_columns(**by) if by else frame).group_by("code", *coded_tags, *by).agg(**sums)
    return Summed(("code", *values, *by), ledger.fetched(summed.to_native()), meanings, values)


def priced_cells(
    summed: Summed,
    question: Question,
    contexts: Placed,
    lines: Grid,
    keys: Sequence[str],
    since: datetime,
) -> Iterator[Cell]:
    """Each group with its card, as a cell. Those that nothing is left of are left out."""
    eras = (since, *lines.dates)
    ttl = question.assume.get("ttl", "")

    @cache  # of the groups, few differ in what their price hangs on
    def found(code: int, era: int, band: int, cached: bool) -> tuple[Any, ...]:
        said_of_all = summed.meanings[code]
        number, source = said_of_all["place"], said_of_all["source"]
        place, prompt = contexts.places[number], (0, *contexts.edges[number])[band]
        said = tuple(filter(None, said_of_all["assumed"].split(",")))
        assumed = settle_ttl(Vector(), said, ttl)[1]
        price: Card | Unpriced
        if isinstance(place, Unpriced):
            price = place
        else:
            price = question.book.find(place.sku, eras[era], prompt, cached=cached)
            assumed += place.assumed + (price.assumed if isinstance(price, Card) else ())
        rates = price.rates if isinstance(price, Card) else Vector()
        return place, eras[era], prompt, price, rates, assumed, source, said

    column = {name: i for i, name in enumerate(summed.names)}
    shown = [_shown(key, column, summed) for key in keys]
    era_at, band_at = column.get("era"), column.get("band")
    flags_at = [i for name, i in column.items() if name.startswith("flag_")]
    width = len(column)
    by_meter = any(len(row) > width + 6 for row in summed.rows[:1])
    none = Vector()
    for row in summed.rows:
        calls, tokens = row[width], Vector._make(row[width + 1 : width + 6])
        if not calls and not any(tokens):
            continue  # reversed without remainder
        era = row[era_at] if era_at else 0
        band = row[band_at] if band_at else 0
        sku, at, prompt, price, rates, assumed, source, said = found(row[0], era, band, tokens.cached > 0)
        meter_calls = Vector._make(row[width + 6 :]) if by_meter else none
        if said and said != assumed:
            tokens, meter_calls = settle_ttl(tokens, said, ttl)[0], settle_ttl(meter_calls, said, ttl)[0]
        names = tuple([look[row[i]] for i, look in shown])
        flags = tuple([bool(row[i]) for i in flags_at]) if flags_at else ()
        cost = tokens @ rates
        yield Cell(names, sku, at, prompt, price, tokens, calls, meter_calls, cost, assumed, source, flags)


def _shown(key: str, column: Mapping[str, int], summed: Summed) -> tuple[Any, Mapping[Any, str]]:
    """The column that a key is in, or the columns as a slice, and what its values stand for."""
    if key in TIME_KEYS:
        return column["local_day"], _Days(key)
    if (
        key in CLAIMED and key in summed.values
    ):  # whose tags say so, else the context: the columns up to this one
        at, by_tags, meanings = column[key], summed.values[key], summed.meanings
        rows = {row[: at + 1] for row in summed.rows}
        return slice(at + 1), {row: by_tags.get(row[at]) or meanings[row[0]][key] for row in rows}
    if key in summed.values:
        at = column[key]
        said = summed.values[key]
        return at, {code: said.get(code, "") for code in {row[at] for row in summed.rows}}
    return 0, {code: said[key] for code, said in summed.meanings.items()}


class _Days(dict[date | int, str]):
    """What days are called: themselves, the Monday of their week, or their month; a UTC day is counted from 1970."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __missing__(self, day: date | int) -> str:
        at = EPOCH.date() + timedelta(days=day) if isinstance(day, int) else day
        if self._key == "month":
            self[day] = f"{at:%Y-%m}"
        else:
            self[day] = (at - timedelta(days=at.weekday()) if self._key == "week" else at).isoformat()
        return self[day]


def local_day(zone: ZoneInfo, since: datetime, until: datetime) -> nw.Expr:
    """The day of a zone that a row lies in, between two instants: a date, or in UTC its number.

    No two engines convert zones alike, but all add an offset. Casting a time to a date is slow in DuckDB, so
    the ledger has the UTC day of every row as a number.
    """
    import narwhals.stable.v2 as nw

    shifts = offsets(zone, since, until)
    if all(not offset for _, offset in shifts):
        return nw.col("day")
    at = nw.col("at")
    shifted = at + nw.lit(shifts[0][1])
    for instant, offset in shifts[1:]:
        shifted = nw.when(at >= nw.lit(instant)).then(at + nw.lit(offset)).otherwise(shifted)
    return shifted.dt.date()


def offsets(zone: ZoneInfo, since: datetime, until: datetime) -> list[tuple[datetime, timedelta]]:
    """When the zone's offset changes between two instants, and to what; the first entry holds at `since`."""

    def offset(at: datetime) -> timedelta:
        return at.astimezone(zone).utcoffset() or timedelta(0)

    shifts = [(since, offset(since))]
    at = since
    while at < until:
        step = min(at + timedelta(days=7), until)
        if offset(step) != shifts[-1][1]:
            low, high = at, step
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if offset(middle) == shifts[-1][1] else (low, middle)
            instant = high.replace(second=0, microsecond=0)
            shifts.append((instant, offset(instant)))
        at = step
    return shifts


def glob(value: str) -> str:
    """A filter's value as a shell reads it: `[*]` and `[?]` are these signs; any other bracket is one, too."""
    return re.sub(r"\[(?![*?]\])", "[[]", value)


def _matches(column: str, where: Where) -> str:
    patterns = (_literal(glob(value)) for value in where.values)
    tests = " OR ".join(f"coalesce({column}, '') GLOB {pattern}" for pattern in patterns)
    return f"NOT ({tests})" if where.negated else f"({tests})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
