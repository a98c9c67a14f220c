"""`farthing prices`: the book listed, explained, compared, exported, and held against what AWS and others list."""

from __future__ import annotations

import json as json_
import sys
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._completing import models
from farthing.cli._prices import (
    Row,
    card_row,
    change_words,
    checked_json,
    counted,
    day_of,
    print_rows,
    print_update,
    source_of,
    tell,
    together,
    update_json,
)
from farthing.cli._shared import Asked, book_of, ledger_to_read, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.usage import Sku

prices = App(name="prices", help="The price book: read it, hold it against other sources, take it along.")
app.command(prices)

_Book = Annotated[
    str, Parameter(help="Folder of TOML, or an overlay; else $FARTHING_BOOK, else the shipped book.")
]
_At = Annotated[str, Parameter(help="Day, YYYY-MM-DD; today if left out.")]
_Platform = Annotated[Literal["", "bedrock", "anthropic", "claude_aws"], Parameter(help="One platform only.")]


def _at(text: str) -> datetime:
    """Midnight of the day, UTC."""
    try:
        day = date.fromisoformat(text) if text else datetime.now(UTC).date()
    except ValueError as error:
        raise BadInput(f"{text!r} is no day: write 2026-11-22") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _resolve(book: Book, model: str) -> Sku:
    from farthing.book import Unpriced

    found = book.resolve(model)
    if isinstance(found, Unpriced):
        raise BadInput(found.reason)
    return found.sku


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
    held, day = book_of(book), _at(at)
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
    tell([card_row(card) for card in cards], json=json, book=held.digest, at=f"{day:%Y-%m-%d}")
    return 0


@prices.command(name="show")
def show_(
    model: Annotated[
        str, Parameter(help="A model, or any id of it; a profile's id shows its endpoint.", completer=models)
    ],
    *,
    at: _At = "",
    platform: _Platform = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """One model's rates on a day, with the source of each, and where they differ by endpoint and mode."""
    held, day = book_of(book), _at(at)
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
    rows = [card_row(card) | {"from": day_of(card.starts), "source": source_of(card)} for card in cards]
    if not json:
        print(f"{known.get('name', wanted.model)}, released {known['released']}")
    tell(rows, json=json, book=held.digest, at=f"{day:%Y-%m-%d}", model=wanted.model, lifecycle=life)
    if not json:
        for name, said in life.items():
            print(f"{name}: {', '.join(f'{key} {value}' for key, value in said.items())}")
    return 0 if cards else 1


@prices.command
def history(
    model: Annotated[str, Parameter(help="A model, or any id of it.", completer=models)],
    *,
    platform: _Platform = "",
    book: _Book = "",
    json: Json = False,
) -> int:
    """Every change of a model's prices, from the first day on."""
    from farthing import pricelist

    held = book_of(book)
    name = _resolve(held, model).model
    rows = [
        {
            "day": str(change.day),
            **card_row(change.card),
            "change": change_words(change.card, change.before),
        }
        for change in pricelist.history(held, name, platform)
    ]
    tell(rows, json=json, book=held.digest, model=name)
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
            {"kind": kind, **card_row(card), "change": change_words(card, before) if after else "gone"}
        )
    tell(rows, json=json, old=books[0].digest, new=books[1].digest)
    return 0


@prices.command(name="at-risk")
def at_risk(
    *,
    within: Annotated[str, Parameter(help="Days from now, as 90d.")] = "90d",
    everything: Annotated[
        bool, Parameter(name="--all", negative="", help="Every model of the book, not those in use.")
    ] = False,
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    config: Annotated[Path | None, Parameter(help="A farthing.toml elsewhere.")] = None,
    since: Annotated[str, Parameter(help="Usage from this day on; all if left out.")] = "",
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    book: _Book = "",
    json: Json = False,
) -> int:
    """Models in use that are legacy, in extended access or near their end, with what they cost."""
    from farthing import pricelist

    days = within.removesuffix("d")
    if not days.isdecimal():
        raise BadInput(f"--within {within!r}: write days, as 90d")
    held = book_of(book)
    used: dict[tuple[str, str], list[int]] | None = (
        None if everything else _used(Asked(ledger=ledger, config=config, since=since, profiles=profiles))
    )
    today = datetime.now(UTC).date()
    found = pricelist.at_risk(held, today, timedelta(days=int(days)), used)
    rows = []
    for risk in found:
        calls, cost = (used or {}).get((risk.platform, risk.model), (0, 0))
        row: Row = risk._asdict() | {"day": str(risk.day)}
        rows.append(row if used is None else row | {"calls": calls, "usd": usd(cost) if json else show(cost)})
    tell(rows, json=json, book=held.digest, today=str(today), empty="nothing at risk")
    return 0


def _used(asked: Asked) -> dict[tuple[str, str], list[int]]:
    """Calls and cost by platform and model."""
    from farthing.book import Resolved
    from farthing.cells import at_list, cells

    question = at_list(asked.question())  # `prices` is the list
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

    held, day = book_of(book), _at(at)
    done = pricelist.check(held, pricelist.read_catalogue(catalogue, held, day), day)
    if json:
        write_json(checked_json(done, held))
        return 0
    print(
        f"{done.kind} on {day:%Y-%m-%d} against book {held.digest}: {done.rows:,} rates = {done.equal:,} equal + "
        f"{len(done.different):,} different + {len(done.unmatched):,} unmatched"
    )
    print_rows(together(done))
    whys: dict[str, list[str]] = {}
    for name, _, _, why in done.unmatched:
        whys.setdefault(why, []).append(name)
    for why, names in whys.items():
        print(f"unmatched, {len(names)} rates: {', '.join(dict.fromkeys(names))}: {why}")
    if done.skipped:
        print(f"not compared: {counted(done.skipped)}")
    return 0


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

    held = book_of(book)
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
        write_json(update_json(found, held, written))
    else:
        print_update(found, held, written)
    return 0


def _write(path: Path, text: str, *, force: bool = True) -> None:
    if path.exists() and not force:
        raise BadInput(f"{path}: is there already; --force overwrites it")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


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
    held = book_of(book)
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
