"""How `farthing prices` shows what it found: rows of JSON, and tables without what says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from farthing.cli._shared import console, write_json
from farthing.meters import CACHE_METERS, METERS
from farthing.money import mtok_usd

if TYPE_CHECKING:
    from farthing.book import Book, Card
    from farthing.pricelist import Change, Checked, Comparison
    from farthing.usage import Sku

Row = dict[str, Any]
_SKU = ("platform", "model", "endpoint", "zone", "mode")


# --- cards -------------------------------------------------------------------------------------------------------


def day_of(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def source_of(card: Card) -> str:
    return f"{card.source}, read {card.accessed}, {card.confidence}"


def card_row(card: Card) -> Row:
    """Its SKU and rates; a rate that is not published is None."""
    rates = {
        meter: None if meter in CACHE_METERS and not card.cached else mtok_usd(getattr(card.rates, meter))
        for meter in METERS
    }
    above = card.prompt_from - 1 if card.prompt_from else 0
    return {**card.sku.named(), "above": above, **rates, "assumed": list(card.assumed)}


def change_words(card: Card, before: Card | None) -> str:
    """What became of each meter."""
    if before is None:
        return "begins"
    new, old = card_row(card), card_row(before)
    said = [
        f"{meter} {old[meter] or 'none'} -> {new[meter] or 'none'}"
        for meter in METERS
        if new[meter] != old[meter]
    ]
    if card.prompt_to != before.prompt_to:
        said.append(f"{_prompts(before)} -> {_prompts(card)}")
    if not said:  # of one box: where cards follow one another, rates or sizes differ
        said = [f"{_until(before)} -> {_until(card)}"]
    return ", ".join(said)


def _until(card: Card) -> str:
    from farthing.book import FOREVER

    return "without end" if card.ends == FOREVER else f"until {day_of(card.ends)}"


def _prompts(card: Card) -> str:
    from farthing.book import ANY_PROMPT

    return "any prompt" if card.prompt_to == ANY_PROMPT else f"prompts up to {card.prompt_to - 1:,}"


def counted(counts: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def tell(rows: Sequence[Row], *, json: bool, empty: str = "nothing", **said: Any) -> None:
    if json:
        write_json(said | {"rows": rows})
    elif rows:
        print_rows(rows)
    else:
        print(empty)


def print_rows(rows: Iterable[Row]) -> None:
    """A table without the columns that say nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = [_short(row) for row in rows]
    if not rows:
        return
    columns = [name for name in rows[0] if any(row[name] not in ("", None, 0, False, [], ()) for row in rows)]
    out = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        number = name in (*METERS, "ours", "theirs", "above", "calls", "usd", "days")
        out.add_column(
            name.replace("cache_", ""), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    for row in rows:
        out.add_row(*(_shown(row[name]) for name in columns))
    console().print(out)


def _short(row: Row) -> Row:
    """The five columns of a SKU as one, which is how it is written elsewhere."""
    if not set(_SKU) <= row.keys():
        return row
    made: Row = {}
    for name, value in row.items():
        if name == _SKU[0]:
            made["sku"] = "/".join(row[part] for part in _SKU if row[part])
        elif name not in _SKU:
            made[name] = value
    return made


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None or value is False else str(value)


# --- another catalogue -------------------------------------------------------------------------------------------


def _differs_row(found: Any) -> Row:
    sku: Sku = found.sku
    return {
        "id": found.name,
        **sku.named(),
        "meter": found.meter,
        "above": found.above,
        "theirs": f"{found.theirs.normalize():f}",
        "ours": mtok_usd(found.ours),
        "card": found.card.id,
        "source": found.card.source,
        "accessed": str(found.card.accessed),
        "confidence": found.card.confidence,
    }


def together(done: Checked) -> Iterator[Row]:
    """A row for each of their entries, with all of its meters."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for found in done.different:
        groups.setdefault((found.name, found.sku, found.above), []).append(_differs_row(found))
    for (name, sku, above), rows in groups.items():
        differs = ", ".join(f"{row['meter']} {row['theirs']} not {row['ours']}" for row in rows)
        ours = f"{rows[0]['source']}, read {rows[0]['accessed']}"
        yield {"id": name, "sku": str(sku), "above": above, "theirs, not ours": differs, "our source": ours}


def checked_json(done: Checked, book: Book) -> Row:
    return {
        "catalogue": done.kind,
        "at": f"{done.at:%Y-%m-%d}",
        "book": book.digest,
        "rows": done.rows,
        "equal": done.equal,
        "different": [_differs_row(found) for found in done.different],
        "unmatched": [
            {"id": name, "meter": meter, "above": above, "why": why}
            for name, meter, above, why in done.unmatched
        ],
        "skipped": dict(done.skipped),
    }


# --- a price list ------------------------------------------------------------------------------------------------


def _change_row(change: Change) -> Row:
    return {
        "kind": change.kind,
        **change.sku.named(),
        "meter": change.meter,
        "long_prompt": change.long_prompt,
        "ours": None if change.ours is None else mtok_usd(change.ours),
        "theirs": None if change.theirs is None else mtok_usd(change.theirs),
        "card": change.card.id if change.card else None,
        "source": change.card.source if change.card else None,
        "said": list(change.said),
        "why": change.why,
    }


_KINDS: tuple[Literal["new", "changed", "gone", "undecided", "confirmed"], ...] = (
    "new", "changed", "gone", "undecided", "confirmed",
)  # fmt: skip


def update_json(found: Comparison, book: Book, written: str | None) -> Row:
    reading = found.reading
    return {
        "source": reading.name,
        "published": str(reading.published) if reading.published else None,
        "at": f"{found.at:%Y-%m-%d}",
        "book": book.digest,
        "lines": reading.lines,
        "quotes": len(reading.quotes),
        "rates": found.rates,
        "equal": found.equal,
        **{kind: [_change_row(change) for change in found.of(kind)] for kind in _KINDS},
        "unmatched": [line._asdict() for line in reading.unmatched],
        "skipped": dict(reading.skipped),
        "absent": found.absent,
        "overlay": written,
    }


def _by_sku(changes: Iterable[Change]) -> Iterator[Row]:
    """A row for each SKU, with all of its meters, as people read it."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    sources: dict[str, str] = {}
    for change in changes:
        rates = [mtok_usd(rate) for rate in (change.ours, change.theirs) if rate is not None]
        long = " (long prompts)" if change.long_prompt else ""
        said = groups.setdefault((change.kind, str(change.sku), change.why), [])
        said.append(f"{change.meter}{long} {' -> '.join(rates)}")
        sources[str(change.sku)] = change.card.source if change.card else ""
    for (kind, sku, why), said in groups.items():
        yield {"kind": kind, "sku": sku, "rates": ", ".join(said), "why": why, "our source": sources[sku]}


def print_update(found: Comparison, book: Book, written: str | None) -> None:
    reading = found.reading
    published = f", published {reading.published}" if reading.published else ""
    print(
        f"{reading.name}{published}: {reading.lines:,} lines = {len(reading.quotes):,} rates of Claude + "
        f"{reading.skipped.total():,} passed over + {len(reading.unmatched):,} unmatched"
    )
    counts = ", ".join(f"{len(found.of(kind)):,} {kind}" for kind in _KINDS)
    print(
        f"against book {book.digest} on {found.at:%Y-%m-%d}: {found.rates:,} rates, {found.equal:,} equal; {counts}"
    )
    print_rows(_by_sku(found.of("new", "changed", "gone", "undecided")))
    for said, of, why in reading.unmatched:
        print(f"unmatched: {said} ({of or 'no product'}): {why}")
    if reading.skipped:
        print(f"passed over: {counted(reading.skipped)}")
    if found.absent:
        print(f"not in the list: {', '.join(found.absent)}")
    if written:
        print(
            f"wrote {written}: read it, then lay it on a book with --book, or move its rows to the catalogue"
        )
