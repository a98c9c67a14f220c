"""What is known of a month: its usage and the cards that price it, and what AWS billed, with the causes between them.

Everything is rows (`ledger.Line`) that a closing can keep. Days are UTC, as AWS bills them.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.allocate import Filters
from farthing.book import Book, Card, Unpriced
from farthing.cells import Cell, Question, cells
from farthing.config import MEMBERS
from farthing.costs import due_entries, taken_off
from farthing.ledger import Ledger, Line, shapes
from farthing.meters import METERS
from farthing.money import usd
from farthing.reconcile import Reconciled, reconcile
from farthing.statement import Statement

USAGE, BILLED, APART, CAUSE, CARD = "usage", "billed", "apart", "cause", "card"  # parts
READS = "reads"  # of the cache, by the calls of a pool that is shared by them
NOT_YET = "not billed yet"  # reconcile's cause
UNDECODED = "undecoded"
_KEYS = ("day", "account", "team", "platform", "model", "endpoint", "zone", "mode")


class Month(NamedTuple):
    """`said` holds digests, counts and what was asked; `billed` and the like are its rows by part."""

    of: str
    said: dict[str, Any]
    lines: tuple[Line, ...]

    def part(self, *names: str) -> list[Line]:
        return [line for line in self.lines if line.part in names]

    @property
    def has_bill(self) -> bool:
        return bool(self.said.get("bill"))

    def sum(self, *names: str) -> int:
        return sum(line.picos for line in self.part(*names))

    @property
    def unexplained_picos(self) -> int:
        """Too much here does not make up for too little there."""
        return sum(abs(line.picos) for line in self.part(CAUSE) if line.ref == "unexplained")


def days_of(month: str) -> tuple[date, date]:
    """The first and the last day; ValueError for what is no month."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise ValueError(f"{month!r} is no month: write 2026-10")
    year, number = int(month[:4]), int(month[5:])
    return date(year, number, 1), date(year, number, calendar.monthrange(year, number)[1])


def asked_of(question: Question, month: str) -> Question:
    """The question of a month's days, in UTC and of everything."""
    first, last = days_of(month)
    return replace(question, since=first, until=last, tz="UTC", where=())


def digests_of(question: Question) -> tuple[str, str]:
    """Of the teams, by their members, in the order that decides whose a call is, with the pools that they share;
    and of the map of profiles.
    """
    members = [
        (name, {kind: getattr(team, kind) for kind in MEMBERS if getattr(team, kind)})
        for name, team in question.config.teams.items()
    ]
    told = [members, question.config.pools] if question.config.pools else members
    teams, profiles = map(msgspec.json.encode, (told, sorted(question.profiles.items())))
    return hashlib.sha256(teams).hexdigest(), hashlib.sha256(profiles).hexdigest()


def rows_of(ledger: Ledger, month: str) -> int:
    """How many rows of usage a month has: no data is read."""
    return sum(shape.rows for shape in shapes(ledger) if (shape.table, shape.month) == ("usage", month))


# --- usage ---------------------------------------------------------------------------------------------------------


def usage_of(ledger: Ledger, question: Question, month: str) -> Month:
    """A month's usage by day, account, team, SKU, card and meter, priced by the question's book."""
    asked = asked_of(question, month)
    sums: dict[Line, list[int]] = {}
    cards: dict[str, Card] = {}
    calls = unpriced = 0
    rows = rows_of(ledger, month)
    pools = Filters(question.config.pools)
    keys = tuple(dict.fromkeys((*_KEYS, *pools.keys)))
    found = cells(ledger, asked, keys)
    for cell in found:
        calls += cell.calls
        if isinstance(cell.price, Unpriced):
            unpriced += cell.calls
        else:
            cards[cell.price.id] = cell.price
        for line, tokens, picos in _meters(cell, dict(zip(keys, cell.keys, strict=True)), pools, month):
            total = sums.setdefault(line, [0, 0])
            total[0] += tokens
            total[1] += picos
    lines = [line._replace(tokens=total[0], picos=total[1]) for line, total in sums.items()]
    teams, profiles = digests_of(question)
    said = {
        "book": question.book.digest,
        "usage_digest": usage_digest(ledger, month),
        "calls": calls,
        **_said_of_prices(question.book, found, sum(line.picos for line in lines)),
        "unpriced_calls": unpriced,
        "teams": teams,
        "assume": dict(question.assume),
        "profiles": profiles,
        "rows": rows,
        **_beside_tokens(ledger, asked),
    }
    return Month(month, said, (*sorted(lines), *(_card(month, card) for card in cards.values())))


def _beside_tokens(ledger: Ledger, asked: Question) -> dict[str, Any]:
    """Sessions, searches and code run of the month, which no closing books: Bedrock, whose bill it holds, has none."""
    due = due_entries(ledger, asked)
    left = {"entries": len(due), "usd": usd(sum(one.picos or 0 for one in due))}
    return {"left_out": left} if due else {}


def _said_of_prices(book: Book, found: Iterable[Cell], computed: int) -> dict[str, Any]:
    """What the usage comes to, at list and by the offers that the book has."""
    taken = taken_off(book, found)
    if taken is None:
        return {"list_usd": usd(computed)}
    return {
        "list_usd": usd(taken["list_usd"]),
        "contracted_usd": usd(computed),
        "offers": {"names": taken["names"], "off_usd": usd(taken["off_usd"])},
    }


def _meters(
    cell: Cell, told: Mapping[str, Any], pools: Filters, month: str
) -> Iterable[tuple[Line, int, int]]:
    """Usage with the pool that it falls in, and reads with each pool that is shared by them."""
    fits = pools.fits(told)
    priced = not isinstance(cell.price, Unpriced)
    line = Line(
        USAGE, month, **{key: told[key] for key in _KEYS}, kind="long" if cell.prompt else "",
        card=cell.price.id if isinstance(cell.price, Card) else "",
        said=cell.price.reason if isinstance(cell.price, Unpriced) else "",
    )  # fmt: skip
    for i, (meter, count) in enumerate(zip(METERS, cell.tokens, strict=True)):
        if count:
            rate = cell.price.rates[i] if isinstance(cell.price, Card) else 0
            yield line._replace(meter=meter, ref=pools.pool(fits, meter)), count, count * rate * priced
        for pool in pools.by_reads.intersection(fits) if count and meter == "cache_read" else ():
            reads = Line(
                READS, month, ref=pool, **{key: told[key] for key in ("day", "account", "team", "model")}
            )
            yield reads, count, 0


def _card(month: str, card: Card) -> Line:
    """A card as a row, so that the month can be priced again without the book."""
    said = {
        "starts": card.starts.isoformat(),
        "ends": card.ends.isoformat(),
        "prompt_from": card.prompt_from,
        "cached": card.cached,
        "rates": list(card.rates),
        "source": card.source,
        "accessed": card.accessed.isoformat(),
    }
    return Line(CARD, month, card=card.id, said=json.dumps(said, sort_keys=True), **card.sku.named())


def usage_digest(ledger: Ledger, month: str) -> str:
    """Of what money hangs on in a month's calls, in whatever order and files they lie.

    Each call's day, place and counts are hashed, and the hashes added up; a reversal takes its own away again. So
    compacting, a second import and a better record that tells the same leave it as it is, and forgetting too.
    """
    con = ledger.connection
    con.register("digest_usage", ledger.table("usage", month=month))
    con.register("digest_contexts", ledger.contexts())
    facts = "account, region, platform, model_id, served_model, mode, inference_geo, assumed"
    counts = ", ".join(f"abs({meter})" for meter in METERS)
    sign = "CASE WHEN reversal THEN -1 ELSE 1 END"
    sums = ", ".join(
        f"sum(({sign}) * CAST(md5_number_{half}(said) AS HUGEINT))::VARCHAR" for half in ("lower", "upper")
    )
    (row,) = con.execute(
        f"""SELECT sum(calls)::VARCHAR, {sums} FROM (
                SELECT calls, reversal, concat_ws(chr(31), "day", {facts}, {counts}) AS said
                FROM digest_usage JOIN digest_contexts USING (ctx))"""
    ).fetchall()
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()


# --- the bill ------------------------------------------------------------------------------------------------------


def bill_of(statement: Statement, ledger: Ledger, question: Question, month: str) -> Month:
    """A month's bill, and what reconcile makes of the difference to our usage of it."""
    found = reconcile(statement, ledger, asked_of(question, month))
    sums: dict[Line, list[int]] = {}

    def add(line: Line, tokens: int, picos: int) -> None:
        total = sums.setdefault(line, [0, 0])
        total[0] += tokens
        total[1] += picos

    for of in statement.billed:
        line = Line(
            BILLED, month, day=f"{of.day}", account=of.account, platform=of.platform, model=of.model,
            endpoint=of.endpoint, zone=of.zone, mode=of.mode, meter=of.meter, kind="long" if of.long_prompt else "",
            invoice=of.invoice,
        )  # fmt: skip
        add(line, of.tokens, of.billed_picos)
    for group in statement.grouped(("account", "invoice", "usage_type")):
        account, invoice, usage_type = group.values
        if group.kind != "tokens":
            said = usage_type if group.kind == UNDECODED else ""
            add(
                Line(APART, month, kind=group.kind, account=account, invoice=invoice, said=said),
                0,
                group.picos,
            )
    for ref, causes in (("explained", found.explained), ("unexplained", found.unexplained)):
        for cause in causes:
            add(Line(CAUSE, month, kind=cause.name, said=cause.where, ref=ref), cause.lines, cause.picos)
    lines = sorted(line._replace(tokens=total[0], picos=total[1]) for line, total in sums.items())
    total = sum(line.picos for line in lines if line.part in (BILLED, APART))
    assert total == found.billed_picos, (total, found.billed_picos)
    return Month(month, {"bill": _said_of(statement, lines, found)}, tuple(lines))


def _said_of(statement: Statement, lines: Sequence[Line], found: Reconciled) -> dict[str, Any]:
    invoices: dict[str, int] = {}
    for line in lines:
        if line.part in (BILLED, APART) and line.invoice:
            invoices[line.invoice] = invoices.get(line.invoice, 0) + line.picos
    share = statement.decoded_share
    told = statement.connection.execute("SELECT DISTINCT part FROM statement_lines ORDER BY part").fetchall()
    sources = [statement.loaded.parts[part].source for (part,) in told]  # that have lines of the month
    return {
        "cost": statement.cost,
        "files": [{"name": file.name, "sha256": _sha256(file.path)} for file in sources],
        "invoices": {invoice: usd(picos) for invoice, picos in sorted(invoices.items())},
        "by_month": statement.loaded.by_month,
        "decoded_share": None if share is None else str(share),
        "ours_usd": usd(found.ours_picos),
        "billed_usd": usd(found.billed_picos),
        "unexplained_usd": usd(found.unexplained_picos),
    }


def _sha256(path: Path) -> str:
    """Of a file as it was read: of one out of a bucket or an archive the copy, which is there as long as the bill."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def together(usage: Month, bill: Month | None) -> Month:
    """What our side and the bill's say of a month."""
    if bill is None:
        return usage
    lines = [line for line in bill.lines if line.part in (BILLED, APART, CAUSE)]
    return Month(usage.of, {**usage.said, "bill": bill.said.get("bill")}, (*usage.lines, *lines))


def known(lines: Iterable[Line], of: str, said: Mapping[str, Any]) -> Month:
    """A month as a closing kept it."""
    wanted = (USAGE, READS, BILLED, APART, CAUSE, CARD)
    return Month(of, dict(said), tuple(line for line in lines if line.of == of and line.part in wanted))
