"""What AWS billed: CUR, FOCUS and Cost Explorer decoded to platform, model, endpoint, mode and meter.

A bill is read whole: every line of Claude or Bedrock keeps its money, as tokens, as a class beside tokens, or as a
line that was not understood. Lines of usage are kept apart from credits, discounts, taxes and fees by their type,
whoever the seller is.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from farthing.aws import Access
from farthing.book import Book, Card, Unpriced, default_book
from farthing.meters import CACHE_METERS
from farthing.statement._by import (
    ACCOUNT,
    CLASS_BY,
    CORRECTION,
    KEYS,
    LINES,
    PLACE,
    Group,
    grouped,
    is_correction,
    is_usage,
    sums,
)
from farthing.statement._columns import snake
from farthing.statement._commitments import Commitment, committed
from farthing.statement._files import StatementError
from farthing.statement._load import load
from farthing.statement._usage_type import RESERVED, TOKENS, UNDECODED, About, about, by_name

__all__ = [
    "COSTS", "KEYS", "Apart", "Beside", "Billed", "Commitment", "Group", "Statement", "StatementError", "Undecoded",
]  # fmt: skip

COSTS = ("unblended", "net", "public")
Cost = Literal["unblended", "net", "public"]
PICOS = 12  # digits after the point
# What net costs have in them already: counted beside them it would be taken off twice.
_IN_NET = (
    "edp_discount", "private_rate_discount", "bundled_discount", "spp_discount",
    "enterprise_discount_program_discount", "private_rate_card_discount",
    "solution_provider_program_discount",  # as Cost Explorer writes them
)  # fmt: skip
_FAR = 20  # times the list price: so far off that the unit was misread
_MEMORY = "1GB"  # for lines; more than that is put on disk


class Billed(NamedTuple):
    """Tokens of one meter, day and account, as they were billed. `list_picos` is None where the book has no rate."""

    usage_type: str
    day: date
    account: str
    platform: str
    model: str
    endpoint: str
    mode: str
    meter: str
    region: str
    long_prompt: bool
    mantle: bool
    zone: str  # of the model's price
    tokens: int
    billed_picos: int  # the amount that was asked for
    list_picos: int | None
    invoice: str = ""
    entity: str = ""
    currency: str = ""
    unblended_picos: int = 0
    net_picos: int | None = None  # of an enterprise discount; None where the bill does not tell
    lines: int = 1  # of the bill


class Apart(NamedTuple):
    """Money beside the tokens: a class of usage (guardrail ...), or a type of line (credit, tax ...)."""

    kind: str
    account: str
    picos: int
    lines: int


class Beside(NamedTuple):
    """Usage that is no token, in its own unit: guardrails, knowledge bases, capacity, delivery of logs."""

    kind: str
    usage_type: str
    account: str
    unit: str
    quantity: Decimal
    picos: int
    lines: int


class Undecoded(NamedTuple):
    usage_type: str
    product: str
    account: str
    day: date
    picos: int
    why: str


class _Place(NamedTuple):
    """What lines of usage are summed by: the number of their class, then PLACE."""

    number: int
    usage_type: str
    day: date
    account: str
    negative: bool
    unit: str
    invoice: str
    entity: str
    currency: str
    line_type: str


class Statement:
    """The bill in these files, folders and s3:// prefixes. StatementError, a ValueError, where it cannot be read.

    `cost` is which of a line's amounts counts: unblended, net (of an enterprise discount) or public. Only lines
    that began from the day `since` to the day `until` count. `progress(done, all)` tells bytes while they are read.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        cost: Cost = "unblended",
        book: Book | None = None,
        since: date | None = None,
        until: date | None = None,
        access: Access = Access(),  # noqa: B008 - it cannot change
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        import duckdb

        self.book = book or default_book()
        self.cost = cost
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        disk = Path(tempfile.mkdtemp(prefix="farthing-bill-"))
        weakref.finalize(self, shutil.rmtree, disk, ignore_errors=True)
        self.connection.execute(f"SET temp_directory = '{disk / 'overflow'}'")
        self.connection.execute(f"SET memory_limit = '{_MEMORY}'")
        span = {"since": since or date.min, "until": until or date.max}
        self.loaded = load(
            self.connection, paths, copies=disk / "copies", access=access, progress=progress, **span
        )
        self._keep(**span)
        self._check()
        self._classify()

    def _keep(self, since: date, until: date) -> None:
        con = self.connection
        (told,) = con.execute("SELECT [min(day), max(day)] FROM statement_lines").fetchall()[0]
        out = con.execute(
            "DELETE FROM statement_lines WHERE day < ? OR day > ? RETURNING day, lines", [since, until]
        ).fetchall()
        (kept,) = con.execute("SELECT count(*) FROM statement_lines").fetchall()[0]
        if told[0] is None:
            self.loaded.notes.append(f"none of its {self.loaded.lines:,} lines is of Claude or Bedrock")
        elif not kept:
            span = f"its lines are of {told[0]} to {told[1]}"
            self.loaded.notes.append(f"nothing of {since} to {until} is in it: {span}")
        elif out:
            days = [day for day, _ in out]
            self.loaded.notes.append(
                f"{sum(lines for _, lines in out):,} lines of Claude or Bedrock are of {min(days)} to {max(days)}, "
                f"not of {since} to {until}, and left out"
            )

    def _check(self) -> None:
        con = self.connection
        currencies = [
            c for (c,) in con.execute("SELECT DISTINCT currency FROM statement_lines").fetchall() if c
        ]
        if set(currencies) - {"USD"}:
            raise StatementError(
                f"amounts in {', '.join(sorted(currencies))}: only US dollars can be compared with list prices; "
                "export the bill in USD"
            )
        if self.cost == "unblended" or not self.loaded.ours:
            return
        (known,) = con.execute(f"SELECT count({self.cost}) FROM statement_lines").fetchall()[0]
        if not known:
            raise StatementError(f"--cost {self.cost}: this export has no such column; leave the option out")

    def _classify(self) -> None:
        """A number for each class of lines that are about the same thing: `classes` says what."""
        con = self.connection
        by = ", ".join(CLASS_BY)
        rows = con.execute(f"SELECT DISTINCT {by} FROM statement_lines ORDER BY {by}").fetchall()
        names = by_name(self.book)
        self.classes: list[About] = []
        numbered: list[tuple[Any, ...]] = []
        for row in rows:
            said = dict(zip(CLASS_BY, row, strict=True))
            found = about(names, **said)
            if found.kind == UNDECODED and not found.model:
                found = self._by_resource(names, said) or found
            numbered.append((*row, self._number(found)))
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE statement_classes "
            f"({', '.join(f'{name} VARCHAR' for name in CLASS_BY)}, class INTEGER)"
        )
        if numbered:
            con.executemany(f"INSERT INTO statement_classes VALUES ({', '.join('?' * 7)})", numbered)

    def _number(self, found: About) -> int:
        if found not in self.classes:
            self.classes.append(found)
        return self.classes.index(found)

    def _by_resource(self, names: Any, said: dict[str, str]) -> About | None:
        """The model of lines whose names do not tell it, where all their resources are of one."""
        test = " AND ".join(f"{name} = ?" for name in CLASS_BY)
        arns = self.connection.execute(
            f"SELECT DISTINCT resource FROM statement_lines WHERE {test} LIMIT 1000", list(said.values())
        ).fetchall()
        found = {about(names, **said, resource=arn) for (arn,) in arns}
        return found.pop() if len(found) == 1 else None

    def _summed(self, columns: str, *, usage: bool) -> list[tuple[Any, ...]]:
        """Sums by class and columns of the lines of usage, or of all others: cost, unblended, net, amount, lines."""
        types = self.connection.execute("SELECT DISTINCT line_type FROM statement_lines").fetchall()
        wanted = [text for (text,) in types if is_usage(text) == usage]
        return self.classed(f"{columns}, {sums(self.cost)}", "list_contains(?, line_type)", wanted)

    def classed(self, columns: str, where: str, *values: Any) -> list[tuple[Any, ...]]:
        """Class and columns of the lines, summed by what of them is no sum."""
        return self.connection.execute(
            f"SELECT class, {columns} FROM {LINES} WHERE {where} GROUP BY ALL ORDER BY ALL", list(values)
        ).fetchall()

    @cached_property
    def _usage(self) -> list[tuple[_Place, str, Decimal, Decimal, Decimal | None, Decimal, int]]:
        """Of each place: a product's name, cost, unblended, net, amount, lines."""
        rows = self._summed(f"{', '.join(PLACE)}, any_value(product_name)", usage=True)
        size = len(_Place._fields)
        return [(_Place(*row[:size]), *row[size:]) for row in rows]

    @cached_property
    def billed(self) -> list[Billed]:
        """The lines of tokens, summed by usage type, day and account; what was taken back is beside them."""
        return [line for at, line in self._tokens if not _is_far(at, line)]

    @cached_property
    def _tokens(self) -> list[tuple[_Place, Billed]]:
        found = []
        for at, _, cost, unblended, net, quantity, lines in self._usage:
            of = self.classes[at.number]
            if of.kind != TOKENS:
                continue
            tokens = int((quantity * of.scale).to_integral_value())
            zone, listed = self.listed(of, at.day, tokens)
            line = Billed(
                at.usage_type, at.day, at.account, of.platform, of.model, of.endpoint, of.mode, of.meter, of.region,
                of.long_prompt, of.mantle, zone, tokens, _picos(cost), listed, at.invoice, at.entity, at.currency,
                _picos(unblended), None if net is None else _picos(net), lines,
            )  # fmt: skip
            found.append((at, line))
        return found

    def listed(self, of: About, day: date, tokens: int) -> tuple[str, int | None]:
        """The zone, and what the tokens cost by the book on that day."""
        card = self.card(
            of.model, of.endpoint, of.mode, of.region, day, of.long_prompt, of.meter in CACHE_METERS
        )
        if isinstance(card, Unpriced):
            return "", None
        return card.sku.zone, tokens * int(getattr(card.rates, of.meter))

    def card(
        self,
        model: str,
        endpoint: str,
        mode: str,
        region: str,
        day: date,
        long_prompt: bool,
        cached: bool,
        book: Book | None = None,
    ) -> Card | Unpriced:
        """The card that lines of this kind should be billed by, of a book of agreed rates if there is one."""
        named = next((name for name in self.book.models[model].ids if name.startswith("anthropic.")), model)
        prefix = "global." if endpoint == "global" else ""
        resolved = self.book.resolve(prefix + named, platform="bedrock", region=region, mode=mode)
        if isinstance(resolved, Unpriced):
            return resolved
        at = datetime.combine(day, time(), UTC)
        edges = [c.prompt_from for c in self.book.cards(resolved.sku) if c.starts <= at < c.ends]
        prompt = max(edges, default=0) if long_prompt else 0
        return (book or self.book).find(resolved.sku, at, prompt, cached=cached)

    @cached_property
    def apart(self) -> list[Apart]:
        """Everything that is no token: classes of usage, then types of lines."""
        found: dict[tuple[str, str], list[int]] = {}

        def add(kind: str, account: str, picos: int, lines: int) -> None:
            total = found.setdefault((kind, account), [0, 0])
            total[0] += picos
            total[1] += lines

        for one in self.beside:
            add(one.kind, one.account, one.picos, one.lines)
        for is_apart, line, lines in self._not_understood:
            if is_apart:
                add(CORRECTION, line.account, line.picos, lines)
        for number, line_type, account, cost, *_, lines in self._summed(f"line_type, {ACCOUNT}", usage=False):
            kind = snake(line_type) or "untyped"
            if self.classes[number].kind and not self.is_in_net(kind):
                add(kind, account, _picos(cost), lines)
        return [Apart(*key, *total) for key, total in sorted(found.items())]

    def is_in_net(self, kind: str) -> bool:
        """Whether lines of this type are in the net costs that were asked for, and so are left out."""
        return self.cost == "net" and kind in _IN_NET

    @cached_property
    def beside(self) -> list[Beside]:
        """The classes of usage that are no tokens."""
        sums: dict[tuple[str, str, str, str], list[Any]] = {}
        for at, _, cost, _, _, quantity, lines in self._usage:
            kind = self.classes[at.number].kind
            if kind not in (TOKENS, UNDECODED, ""):
                total = sums.setdefault((kind, at.usage_type, at.account, at.unit), [Decimal(), 0, 0])
                for i, more in enumerate((quantity, _picos(cost), lines)):
                    total[i] += more
        return [Beside(*key, *total) for key, total in sorted(sums.items())]

    @cached_property
    def commitments(self) -> list[Commitment]:
        """What was bought ahead, reserved or provisioned: how much of it was used, and what the rest cost."""
        return self.committed({})

    def committed(self, ran: Mapping[tuple[str, str, str], int]) -> list[Commitment]:
        """The commitments, where a ledger tells the tokens that ran in them: by account, model and meter."""
        return committed(self, ran)

    def grouped(self, keys: Sequence[str]) -> list[Group]:
        """All the money of the bill by these keys (KEYS, tag:NAME). ValueError if one of them is none."""
        return grouped(self, keys)

    @cached_property
    def undecoded(self) -> list[Undecoded]:
        """Lines of Claude that were not understood; their money is theirs still."""
        return [line for is_apart, line, _ in self._not_understood if not is_apart]

    @cached_property
    def _not_understood(self) -> list[tuple[bool, Undecoded, int]]:
        """Whether they are corrections, which are apart then, and how many lines they are."""
        found = []
        for at, product, cost, *_, lines in self._usage:
            of = self.classes[at.number]
            if of.kind == UNDECODED:
                line = Undecoded(at.usage_type, product, at.account, at.day, _picos(cost), of.why)
                found.append((is_correction(at.line_type), line, lines))
        why = (
            f"its amount is no count in the unit it seems to be in: {_FAR} times off the list price, or more"
        )
        for at, far in self._tokens:
            if _is_far(at, far):
                line = Undecoded(far.usage_type, far.model, far.account, far.day, far.billed_picos, why)
                found.append((is_correction(at.line_type), line, far.lines))
        return found

    @property
    def rates(self) -> list[tuple[int, date, int | None]]:
        """What a token of each class of tokens costs by the book on each day that has some."""
        days = dict.fromkeys((at.number, at.day) for at, _ in self._tokens)
        return [(number, day, self.listed(self.classes[number], day, 1)[1]) for number, day in days]

    @property
    def far(self) -> list[tuple[Any, ...]]:
        """Where tokens are whose cost and amount cannot belong together: values of PLACE."""
        return [at[1:] for at, line in self._tokens if _is_far(at, line)]

    @property
    def decoded_share(self) -> Decimal | None:
        """How much of Claude's spend is understood; None where there is none."""
        claude = (*RESERVED, "ccu")
        decoded = sum(abs(line.billed_picos) for line in self.billed)  # a refund is as much understood
        decoded += sum(abs(line.picos) for line in self.apart if line.kind in claude)
        unknown = sum(abs(line.picos) for line in self.undecoded)
        if not decoded and not unknown:
            return None
        return (Decimal(decoded) / Decimal(decoded + unknown)).quantize(Decimal("0.000001"))

    @cached_property
    def invoiced(self) -> bool:
        """Whether AWS has put it on an invoice: nothing is added to its days then."""
        (found,) = self.connection.execute(
            "SELECT count(*) FROM statement_lines WHERE invoice != ''"
        ).fetchall()[0]
        return bool(found)

    @property
    def billed_picos(self) -> int:
        """What was billed for tokens."""
        return sum(line.billed_picos for line in self.billed)


def _is_far(at: _Place, line: Billed) -> bool:
    """Whether cost and amount cannot belong together; what is free of charge can."""
    if is_correction(at.line_type) and line.tokens * line.billed_picos <= 0:
        return True  # FOCUS asks for no amount there, and it may be one refund
    billed, listed = abs(line.billed_picos), abs(line.list_picos or 0)
    small = max(billed, listed) < 10**7  # a thousandth of a cent: rounded as much
    in_reach = listed <= billed * _FAR and billed <= listed * _FAR
    return bool(billed and listed) and not small and not in_reach


def _picos(cost: Decimal) -> int:
    return int(cost.scaleb(PICOS))
