"""What AWS billed: CUR, FOCUS and Cost Explorer decoded to platform, model, endpoint, mode and meter.

A bill is read whole: every line of Claude or Bedrock keeps its money, as tokens, as a class beside tokens, or as a
line that was not understood. Lines of usage are kept apart from credits, discounts, taxes and fees by their type,
whoever the seller is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from farthing.book import Book, Card, Unpriced, default_book
from farthing.meters import CACHE_METERS
from farthing.statement._columns import snake
from farthing.statement._load import StatementError, load
from farthing.statement._usage_type import TOKENS, UNDECODED, About, about, by_name

__all__ = ["COSTS", "Apart", "Billed", "Statement", "StatementError", "Undecoded"]

COSTS = ("unblended", "net", "public")
Cost = Literal["unblended", "net", "public"]
PICOS = 12  # digits after the point
_USAGE = ("usage", "discounted_usage", "savings_plan_covered_usage")
# What net costs have in them already: counted beside them it would be taken off twice.
_IN_NET = (
    "edp_discount", "private_rate_discount", "bundled_discount", "spp_discount",
    "enterprise_discount_program_discount", "private_rate_card_discount",
    "solution_provider_program_discount",  # as Cost Explorer writes them
)  # fmt: skip
_FAR = 20  # times the list price: so far off that the unit was misread
_CLASS_BY = ("usage_type", "product_code", "product_name", "unit", "description", "region")


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
    billed_picos: int
    list_picos: int | None


class Apart(NamedTuple):
    """Money beside the tokens: a class of usage (guardrail ...), or a type of line (credit, tax ...)."""

    kind: str
    account: str
    picos: int
    lines: int


class Undecoded(NamedTuple):
    usage_type: str
    product: str
    account: str
    day: date
    picos: int
    why: str


class Statement:
    """The bill in these files and folders. StatementError, a ValueError, where it cannot be read.

    `cost` is which of a line's amounts counts: unblended, net (of an enterprise discount) or public. Only lines
    that began from the day `since` to the day `until` count.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        cost: Cost = "unblended",
        book: Book | None = None,
        since: date | None = None,
        until: date | None = None,
    ) -> None:
        import duckdb

        self.book = book or default_book()
        self.cost = cost
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.loaded = load(self.connection, paths)
        self._keep(since or date.min, until or date.max)
        self._check()
        self._classify()

    def _keep(self, since: date, until: date) -> None:
        con = self.connection
        (told,) = con.execute("SELECT [min(day), max(day)] FROM statement_lines").fetchall()[0]
        con.execute("DELETE FROM statement_lines WHERE day < ? OR day > ?", [since, until])
        (kept,) = con.execute("SELECT count(*) FROM statement_lines").fetchall()[0]
        if told[0] is None:
            self.loaded.notes.append(f"none of its {self.loaded.lines:,} lines is of Claude or Bedrock")
        elif not kept:
            span = f"its lines are of {told[0]} to {told[1]}"
            self.loaded.notes.append(f"nothing of {since} to {until} is in it: {span}")

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
        by = ", ".join(_CLASS_BY)
        rows = con.execute(f"SELECT DISTINCT {by} FROM statement_lines ORDER BY {by}").fetchall()
        names = by_name(self.book)
        self.classes: list[About] = []
        numbered: list[tuple[Any, ...]] = []
        for row in rows:
            said = dict(zip(_CLASS_BY, row, strict=True))
            found = about(names, **said)
            if found.kind == UNDECODED and not found.model:
                found = self._by_resource(names, said) or found
            numbered.append((*row, self._number(found)))
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE statement_classes "
            f"({', '.join(f'{name} VARCHAR' for name in _CLASS_BY)}, class INTEGER)"
        )
        if numbered:
            con.executemany(f"INSERT INTO statement_classes VALUES ({', '.join('?' * 7)})", numbered)

    def _number(self, found: About) -> int:
        if found not in self.classes:
            self.classes.append(found)
        return self.classes.index(found)

    def _by_resource(self, names: Any, said: dict[str, str]) -> About | None:
        """The model of lines whose names do not tell it, where all their resources are of one."""
        test = " AND ".join(f"{name} = ?" for name in _CLASS_BY)
        arns = self.connection.execute(
            f"SELECT DISTINCT resource FROM statement_lines WHERE {test} LIMIT 1000", list(said.values())
        ).fetchall()
        found = {about(names, **said, resource=arn) for (arn,) in arns}
        return found.pop() if len(found) == 1 else None

    def _summed(self, columns: str, *, usage: bool) -> list[tuple[Any, ...]]:
        """Sums by class and columns of the lines of usage, or of all others: cost, amount, lines, below 0?"""
        types = self.connection.execute("SELECT DISTINCT line_type FROM statement_lines").fetchall()
        wanted = [text for (text,) in types if (snake(text) in _USAGE) == usage]
        return self.connection.execute(
            f"""SELECT class, {columns}, sum(coalesce({self.cost}, unblended, 0)), sum(coalesce(quantity, 0)),
                       sum(lines), negative
                FROM statement_lines JOIN statement_classes USING ({", ".join(_CLASS_BY)})
                WHERE list_contains(?, line_type) GROUP BY ALL ORDER BY ALL""",
            [wanted],
        ).fetchall()

    @cached_property
    def _usage(self) -> list[tuple[Any, ...]]:
        where = "usage_type, day, coalesce(nullif(account, ''), payer), any_value(product_name)"
        return self._summed(where, usage=True)

    @cached_property
    def billed(self) -> list[Billed]:
        """The lines of tokens, summed by usage type, day and account; what was taken back is beside them."""
        return [line for line in self._tokens if not _is_far(line)]

    @cached_property
    def _tokens(self) -> list[Billed]:
        found = []
        for number, usage_type, day, account, _, cost, quantity, *_ in self._usage:
            of = self.classes[number]
            if of.kind != TOKENS:
                continue
            tokens = int((quantity * of.scale).to_integral_value())
            zone, listed = self._list(of, day, tokens)
            found.append(
                Billed(
                    usage_type, day, account, of.platform, of.model, of.endpoint, of.mode, of.meter, of.region,
                    of.long_prompt, of.mantle, zone, tokens, _picos(cost), listed,
                )
            )  # fmt: skip
        return found

    def _list(self, of: About, day: date, tokens: int) -> tuple[str, int | None]:
        """The zone, and what the tokens cost by the book on that day."""
        card = self.card(
            of.model, of.endpoint, of.mode, of.region, day, of.long_prompt, of.meter in CACHE_METERS
        )
        if isinstance(card, Unpriced):
            return "", None
        return card.sku.zone, tokens * int(getattr(card.rates, of.meter))

    def card(
        self, model: str, endpoint: str, mode: str, region: str, day: date, long_prompt: bool, cached: bool
    ) -> Card | Unpriced:
        """The card that lines of this kind should be billed by."""
        named = next((name for name in self.book.models[model].ids if name.startswith("anthropic.")), model)
        prefix = "global." if endpoint == "global" else ""
        resolved = self.book.resolve(prefix + named, platform="bedrock", region=region, mode=mode)
        if isinstance(resolved, Unpriced):
            return resolved
        at = datetime.combine(day, time(), UTC)
        edges = [c.prompt_from for c in self.book.cards(resolved.sku) if c.starts <= at < c.ends]
        return self.book.find(resolved.sku, at, max(edges, default=0) if long_prompt else 0, cached=cached)

    @cached_property
    def apart(self) -> list[Apart]:
        """Everything that is no token: classes of usage, then types of lines."""
        found: dict[tuple[str, str], list[int]] = {}

        def add(kind: str, account: str, cost: Decimal, lines: int) -> None:
            total = found.setdefault((kind, account), [0, 0])
            total[0] += _picos(cost)
            total[1] += lines

        for number, _, _, account, _, cost, _, lines, _ in self._usage:
            kind = self.classes[number].kind
            if kind not in (TOKENS, UNDECODED, ""):
                add(kind, account, cost, lines)
        for number, line_type, account, cost, _, lines, _ in self._summed(
            "line_type, coalesce(nullif(account, ''), payer)", usage=False
        ):
            kind = snake(line_type) or "untyped"
            if self.classes[number].kind and not (self.cost == "net" and kind in _IN_NET):
                add(kind, account, cost, lines)
        return [Apart(*key, *total) for key, total in sorted(found.items())]

    @cached_property
    def undecoded(self) -> list[Undecoded]:
        """Lines of Claude that were not understood; their money is theirs still."""
        unknown = [
            Undecoded(usage_type, product, account, day, _picos(cost), self.classes[number].why)
            for number, usage_type, day, account, product, cost, *_ in self._usage
            if self.classes[number].kind == UNDECODED
        ]
        why = (
            f"its amount is no count in the unit it seems to be in: {_FAR} times off the list price, or more"
        )
        far = filter(_is_far, self._tokens)
        return unknown + [
            Undecoded(line.usage_type, line.model, line.account, line.day, line.billed_picos, why)
            for line in far
        ]

    @property
    def decoded_share(self) -> Decimal | None:
        """How much of Claude's spend is understood; None where there is none."""
        claude = ("reserved", "provisioned", "ccu")
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


def _is_far(line: Billed) -> bool:
    """Whether cost and amount cannot belong together; what is free of charge can."""
    billed, listed = abs(line.billed_picos), abs(line.list_picos or 0)
    small = max(billed, listed) < 10**7  # a thousandth of a cent: rounded as much
    in_reach = listed <= billed * _FAR and billed <= listed * _FAR
    return bool(billed and listed) and not small and not in_reach


def _picos(cost: Decimal) -> int:
    return int(cost.scaleb(PICOS))
