"""`farthing prices`: the book listed, explained, compared, exported, and held against what AWS and others list."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._shared import Asked, console, ledger_to_read, write_json
from farthing.meters import CACHE_METERS, METERS
from farthing.money import mtok_usd, show, usd

if TYPE_CHECKING:
    from farthing.book import Book, Card
    from farthing.pricelist import Change, Checked, Comparison
    from farthing.usage import Sku

prices = App(name="prices", help="The price book: read it, hold it against other sources, take it along.")
app.command(prices)

_Book = Annotated[
    str, Parameter(help="Folder of TOML, or an overlay; else $FARTHING_BOOK, else the shipped book.")
]
_At = Annotated[str, Parameter(help="Day, YYYY-MM-DD; today if left out.")]
_Platform = Annotated[Literal["", "bedrock", "anthropic", "claude_aws"], Parameter(help="One platform only.")]
_Row = dict[str, Any]
_SKU = ("platform", "model", "endpoint", "zone", "mode")


def _book(named: str) -> Book:
    from farthing.pricelist import load_book

    return load_book(named or os.environ.get("FARTHING_BOOK", ""))


def _at(text: str) -> datetime:
    """Midnight of the day, UTC."""
    try:
        day = date.fromisoformat(text) if text else datetime.now(UTC).date()
    except ValueError as error:
        raise BadInput(f"{text!r} is no day: write 2026-11-22") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


# --- the book ------------------------------------------------------------------------------------------------------


@prices.command(name="list")
def list_(
    *,
    model: Annotated[str, Parameter(help="Only these: a name, * for any part of it.")] = "*",
    platform: _Platform = "",
    mode: Annotated[Literal["", "on_demand", "batch", "fast"], Parameter(help="One mode only.")] = "",
    at: _At = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """The rates in force on a day, in dollars per million tokens."""
    held, day = _book(book), _at(at)
    cards = [
        card
        for card in held.cards()
        if card.starts <= day < card.ends
        and fnmatchcase(card.sku.model, model)
        and platform in ("", card.sku.platform)
        and mode in ("", card.sku.mode)
    ]
    if not cards:
        raise BadInput(f"no price of {model} on {day:%Y-%m-%d}: see `farthing prices list`")
    _tell([_card_row(card) for card in cards], json=json, book=held.digest, at=f"{day:%Y-%m-%d}")
    return 0


@prices.command(name="show")
def show_(
    model: Annotated[str, Parameter(help="A model, or any id of it; a profile's id shows its endpoint.")],
    *,
    at: _At = "",
    platform: _Platform = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """One model's rates on a day, with the source of each, and where they differ by endpoint and mode."""
    held, day = _book(book), _at(at)
    wanted = _resolve(held, model)
    endpoint = wanted.endpoint if "." in model or model.startswith("arn:") else ""
    cards = [
        card
        for card in held.cards()
        if card.sku.model == wanted.model
        and card.starts <= day < card.ends
        and platform in ("", card.sku.platform)
        and (not endpoint or (card.sku.platform, card.sku.endpoint) == (wanted.platform, endpoint))
    ]
    known = held.models[wanted.model].data
    life = {
        name: {key: str(value) for key, value in said.items()}
        for name in ("bedrock", "anthropic")
        if (said := held.models[wanted.model].platform(name).get("lifecycle"))
    }
    rows = [_card_row(card) | {"from": _day(card.starts), "source": _source(card)} for card in cards]
    if not json:
        print(f"{known.get('name', wanted.model)}, released {known['released']}")
    _tell(rows, json=json, book=held.digest, at=f"{day:%Y-%m-%d}", model=wanted.model, lifecycle=life)
    if not json:
        for name, said in life.items():
            print(f"{name}: {', '.join(f'{key} {value}' for key, value in said.items())}")
    return 0 if cards else 1


@prices.command
def history(
    model: Annotated[str, Parameter(help="A model, or any id of it.")],
    *,
    platform: _Platform = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """Every change of a model's prices, from the first day on."""
    from farthing import pricelist

    held = _book(book)
    name = _resolve(held, model).model
    rows = [
        {
            "day": str(change.day),
            **_card_row(change.card),
            "change": _change_words(change.card, change.before),
        }
        for change in pricelist.history(held, name, platform)
    ]
    _tell(rows, json=json, book=held.digest, model=name)
    return 0


@prices.command
def diff(
    old: Annotated[str, Parameter(help="Folder of TOML, an overlay, or `shipped`.")],
    new: Annotated[str, Parameter(help="The same.")],
    *,
    json: Json = False,
) -> int:
    """What the second book has otherwise than the first: cards that came, went, or have other rates or days."""
    from farthing import pricelist

    books = [pricelist.load_book("" if name == "shipped" else name) for name in (old, new)]
    rows = []
    for before, after in pricelist.differences(*books):
        card = after or before
        assert card
        kind = "changed" if before and after else "new" if after else "gone"
        rows.append(
            {"kind": kind, **_card_row(card), "change": _change_words(card, before) if after else "gone"}
        )
    _tell(rows, json=json, old=books[0].digest, new=books[1].digest)
    return 0


@prices.command(name="at-risk")
def at_risk(
    *,
    within: Annotated[str, Parameter(help="Days from now, as 90d.")] = "90d",
    everything: Annotated[
        bool, Parameter(name="--all", negative="", help="Every model of the book, not those in use.")
    ] = False,
    book: _Book = "",
    asked: Asked | None = None,
) -> int:
    """Models in use that are legacy, in extended access or near their end, with what they cost."""
    from farthing import pricelist

    asked = asked or Asked()
    days = within.removesuffix("d")
    if not days.isdecimal():
        raise BadInput(f"--within {within!r}: write days, as 90d")
    held = _book(book)
    used: dict[tuple[str, str], list[int]] | None = None if everything else _used(asked)
    today = datetime.now(UTC).date()
    found = pricelist.at_risk(held, today, timedelta(days=int(days)), used)
    rows = []
    for risk in found:
        calls, cost = (used or {}).get((risk.platform, risk.model), (0, 0))
        row: _Row = risk._asdict() | {"day": str(risk.day)}
        rows.append(
            row if used is None else row | {"calls": calls, "usd": usd(cost) if asked.json else show(cost)}
        )
    _tell(rows, json=asked.json, book=held.digest, today=str(today), empty="nothing at risk")
    return 0


def _used(asked: Asked) -> dict[tuple[str, str], list[int]]:
    """Calls and cost by platform and model."""
    from farthing.book import Resolved
    from farthing.cells import cells

    question = asked.question()
    found: dict[tuple[str, str], list[int]] = {}
    with ledger_to_read(asked.ledger, question.config) as ledger:
        for cell in cells(ledger, question):
            if isinstance(cell.sku, Resolved):
                sums = found.setdefault((cell.sku.sku.platform, cell.sku.sku.model), [0, 0])
                sums[0] += cell.calls
                sums[1] += cell.cost
    return found


# --- other sources -------------------------------------------------------------------------------------------------


@prices.command
def check(
    catalogue: Annotated[
        str, Parameter(help="litellm's, genai-prices' or langfuse's JSON; `genai-prices` is the package.")
    ],
    *,
    at: _At = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """Another catalogue against the book: every rate that differs, with our source beside it."""
    from farthing import pricelist

    held, day = _book(book), _at(at)
    done = pricelist.check(held, pricelist.read_catalogue(catalogue, held, day), day)
    if json:
        write_json(_checked_json(done, held))
        return 0
    print(
        f"{done.kind} on {day:%Y-%m-%d} against book {held.digest}: {done.rows:,} rates = {done.equal:,} equal + "
        f"{len(done.different):,} different + {len(done.unmatched):,} unmatched"
    )
    _print(_together(done))
    whys: dict[str, list[str]] = {}
    for name, _, _, why in done.unmatched:
        whys.setdefault(why, []).append(name)
    for why, names in whys.items():
        print(f"unmatched, {len(names)} rates: {', '.join(dict.fromkeys(names))}: {why}")
    if done.skipped:
        print(f"not compared: {_counted(done.skipped)}")
    return 0


def _differs_row(found: Any) -> _Row:
    sku: Sku = found.sku
    return {
        "id": found.name,
        **sku._asdict(),
        "meter": found.meter,
        "above": found.above,
        "theirs": f"{found.theirs.normalize():f}",
        "ours": mtok_usd(found.ours),
        "card": found.card.id,
        "source": found.card.source,
        "accessed": str(found.card.accessed),
        "confidence": found.card.confidence,
    }


def _together(done: Checked) -> Iterator[_Row]:
    """A row for each of their entries, with all of its meters."""
    groups: dict[tuple[Any, ...], list[_Row]] = {}
    for found in done.different:
        groups.setdefault((found.name, found.sku, found.above), []).append(_differs_row(found))
    for (name, sku, above), rows in groups.items():
        differs = ", ".join(f"{row['meter']} {row['theirs']} not {row['ours']}" for row in rows)
        ours = f"{rows[0]['source']}, read {rows[0]['accessed']}"
        yield {"id": name, "sku": str(sku), "above": above, "theirs, not ours": differs, "our source": ours}


def _checked_json(done: Checked, book: Book) -> _Row:
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


@prices.command
def update(
    sources: Annotated[
        list[str] | None,
        Parameter(negative="", help="Files or addresses; agreement-offers without any asks AWS."),
    ] = None,
    *,
    from_: Annotated[
        Literal["aws-price-list", "agreement-offers"], Parameter(name="--from", help="What they are.")
    ],
    since: Annotated[
        str, Parameter(help="Day from which new rates hold; the day of publication if left out.")
    ] = "",
    out: Annotated[Path | None, Parameter(help="The overlay; prices-DAY.toml if left out.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Write nothing.")] = False,
    force: Annotated[bool, Parameter(negative="", help="Overwrite the overlay.")] = False,
    region: Annotated[str, Parameter(help="Region to ask for agreement offers.")] = "",
    profile: Annotated[str, Parameter(help="Named profile of the AWS configuration.")] = "",
    endpoint_url: Annotated[str, Parameter(help="Another endpoint of Bedrock.")] = "",
    model: Annotated[
        list[str] | None, Parameter(negative="", help="Model ids to ask about; all if left out.")
    ] = None,
    book: _Book = "",
    json: Json = False,
) -> int:
    """What AWS lists against the book, and an overlay with what differs, to be reviewed. The book is not changed."""
    from farthing import pricelist
    from farthing.aws import Access

    held = _book(book)
    if from_ == "agreement-offers" and not sources:
        reading = pricelist.live_offers(
            held, Access(profile, region=region, endpoint_url=endpoint_url), model or ()
        )
    elif not sources:
        raise BadInput("name an offer file of the AWS Price List, or its address")
    elif from_ == "agreement-offers":
        reading = pricelist.read_agreements(sources, held)
    else:
        reading = pricelist.read_price_lists(sources, held)
    day = _at(since or str(reading.published or ""))
    found = pricelist.compare(held, reading, day)
    text = pricelist.overlay_text(held, found, datetime.now(UTC).date())
    path = out or Path(f"prices-{day:%Y-%m-%d}.toml")
    if text and not dry_run:
        _write(path, text, force=force)
    written = str(path) if text and not dry_run else None
    if json:
        write_json(_update_json(found, held, written))
    else:
        _print_update(found, held, written)
    return 0


def _write(path: Path, text: str, *, force: bool = True) -> None:
    if path.exists() and not force:
        raise BadInput(f"{path}: is there already; --force overwrites it")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def _change_row(change: Change) -> _Row:
    return {
        "kind": change.kind,
        **change.sku._asdict(),
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


def _update_json(found: Comparison, book: Book, written: str | None) -> _Row:
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


def _print_update(found: Comparison, book: Book, written: str | None) -> None:
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
    rows = [_change_row(change) for change in found.of("new", "changed", "gone", "undecided")]
    _print([row | {"said": ", ".join(row["said"])} for row in rows])
    for said, of, why in reading.unmatched:
        print(f"unmatched: {said} ({of or 'no product'}): {why}")
    if reading.skipped:
        print(f"passed over: {_counted(reading.skipped)}")
    if found.absent:
        print(f"not in the list: {', '.join(found.absent)}")
    if written:
        print(
            f"wrote {written}: read it, then lay it on a book with --book, or move its rows to the catalogue"
        )


# --- the book as data ----------------------------------------------------------------------------------------------


@prices.command
def export(
    *,
    json: Annotated[bool, Parameter(negative="", help="All of it, in a schema of its own.")] = False,
    csv: Annotated[bool, Parameter(negative="", help="The cards, a line each.")] = False,
    litellm: Annotated[bool, Parameter(negative="", help="As litellm's price map, for one day.")] = False,
    genai: Annotated[bool, Parameter(negative="", help="As genai-prices' data.")] = False,
    at: _At = "",
    out: Annotated[Path | None, Parameter(help="A file; standard output if left out.")] = None,
    book: _Book = "",
) -> int:
    """The book as data that other programs read."""
    from farthing import pricelist

    if json + csv + litellm + genai != 1:
        raise BadInput("choose one of --json, --csv, --litellm and --genai")
    held = _book(book)
    if csv:
        text = pricelist.as_csv(held)
    else:
        data = (
            pricelist.as_json(held)
            if json
            else pricelist.as_genai(held)
            if genai
            else pricelist.as_litellm(held, _at(at))
        )
        text = json_.dumps(data, indent=1, ensure_ascii=False) + "\n"
    if out:
        _write(out, text)
    else:
        sys.stdout.write(text)
    return 0


# --- showing -------------------------------------------------------------------------------------------------------


def _resolve(book: Book, model: str) -> Sku:
    from farthing.book import Unpriced

    found = book.resolve(model)
    if isinstance(found, Unpriced):
        raise BadInput(found.reason)
    return found.sku


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _source(card: Card) -> str:
    return f"{card.source}, read {card.accessed}, {card.confidence}"


def _card_row(card: Card) -> _Row:
    """Its SKU and rates; a rate that is not published is None."""
    rates = {
        meter: None if meter in CACHE_METERS and not card.cached else mtok_usd(getattr(card.rates, meter))
        for meter in METERS
    }
    above = card.prompt_from - 1 if card.prompt_from else 0
    return {**card.sku._asdict(), "above": above, **rates, "assumed": list(card.assumed)}


def _change_words(card: Card, before: Card | None) -> str:
    """What became of each meter."""
    if before is None:
        return "begins"
    new, old = _card_row(card), _card_row(before)
    said = [
        f"{meter} {old[meter] or 'none'} -> {new[meter] or 'none'}"
        for meter in METERS
        if new[meter] != old[meter]
    ]
    if card.prompt_to != before.prompt_to:
        said.append(f"{_prompts(before)} -> {_prompts(card)}")
    if not said:  # of one box: where cards follow one another, rates or sizes differ
        said = [f"until {_day(before.ends)} -> until {_day(card.ends)}"]
    return ", ".join(said)


def _prompts(card: Card) -> str:
    from farthing.book import ANY_PROMPT

    return "any prompt" if card.prompt_to == ANY_PROMPT else f"prompts up to {card.prompt_to - 1:,}"


def _counted(counts: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def _tell(rows: Sequence[_Row], *, json: bool, empty: str = "nothing", **said: Any) -> None:
    if json:
        write_json(said | {"rows": rows})
    elif rows:
        _print(rows)
    else:
        print(empty)


def _print(rows: Iterable[_Row]) -> None:
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
        out.add_column(name.replace("cache_", ""), justify="right" if number else "left", no_wrap=number)
    for row in rows:
        out.add_row(*(_shown(row[name]) for name in columns))
    console().print(out)


def _short(row: _Row) -> _Row:
    """The five columns of a SKU as one, which is how it is written elsewhere."""
    if not set(_SKU) <= row.keys():
        return row
    made: _Row = {}
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
