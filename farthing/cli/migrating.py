"""`farthing migrate`: what a move to another model would cost, and which models of a ledger end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._offered import offers_json, print_offers, taken_off
from farthing.cli._shared import book_of, ledger_to_read, load_config, parse_assume, read_profiles, write_json
from farthing.cli._workload import (
    Endpoint,
    Online,
    Profile,
    Region,
    Said,
    TextList,
    client,
    instant,
    number,
    read_text,
    workloads,
)
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.cells import Question
    from farthing.count import Inflation
    from farthing.estimate import Workload
    from farthing.ledger import Ledger
    from farthing.migrate import Legacy, Migration, Move, Part, Three


@app.command
def migrate(
    file: Annotated[
        Path | None, Parameter(help="TOML with [workloads.NAME] tables, instead of a ledger.")
    ] = None,
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="The model to leave; without it: those that end.")
    ] = "",
    to: Annotated[str, Parameter(help="The model to move to; without it, the newest of the family.")] = "",
    said: Said = Said(),  # noqa: B008 - it is not changed
    endpoint: Annotated[
        Literal["", "global", "regional", "govcloud", "geo_us"],
        Parameter(help="Endpoint of the new model; as today."),
    ] = "",
    inflation: Annotated[
        str, Parameter(help="Tokens of the new model for one of the old: 1.2, or LOW,MID,HIGH; 1.0,1.3,1.35.")
    ] = "",
    output_factor: Annotated[
        str, Parameter(help="Length of the new answers for one of today: 0.8, or LOW,MID,HIGH.")
    ] = "",
    measure: Annotated[
        list[Path] | None, Parameter(negative="", help="Measure the inflation on this text; may be repeated.")
    ] = None,
    online: Online = False,
    region: Region = "",
    endpoint_url: Endpoint = "",
    profile: Profile = "",
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    config: Annotated[Path | None, Parameter(help="farthing.toml: ledger, zone, profiles, teams.")] = None,
    since: Annotated[str, Parameter(help="First day, YYYY-MM-DD.")] = "",
    until: Annotated[str, Parameter(help="Last day, included.")] = "",
    where: Annotated[TextList, Parameter(negative="", help="As in reports.")] = None,
    assume: Annotated[TextList, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    book: Annotated[str, Parameter(help="Prices, as in reports.")] = "",
    at: Annotated[str, Parameter(help="Day whose prices the new model has, YYYY-MM-DD; today.")] = "",
    json: Json = False,
) -> int:
    """What a move to another model would cost: a range, its causes, and the inflation of tokens it may have."""
    from farthing import migrate as migrating

    now = instant(at)
    estimated = bool(file or said.given().keys() - {"per"})
    if to and not from_:
        raise BadInput("--to needs --from: which model is left?")
    if (estimated or measure) and not from_:
        raise BadInput("--from MODEL: which model is left?")
    question = _question(config, since, until, where, assume, profiles, book_of(book))
    prices = book_of(book) if estimated else question.book  # an estimate is of no account, so of no offer
    move = None
    if from_:
        target = to or _successor(prices, from_, now)
        asked = client(online, region, endpoint_url, profile) if measure else None
        found = _measured(prices, from_, target, measure, asked) if measure else None
        told = found[:3] if found else _three(inflation, "--inflation")
        move = _move(prices, from_, target, told, output_factor, endpoint, found.about if found else "")
    if estimated and move:
        return _tell(_estimated(move, file, said, prices, now), [], {}, json=json)
    with ledger_to_read(ledger, question.config) as books:
        old = migrating.legacy(books, question, now)
        made = _from_ledger(books, question, move, now) if move else None
        others = [
            (one, _follow(books, question, one, now))
            for one in old
            if not (move and one.model == move.source)
        ]
        shown = {one.model for one in old} | ({move.source} if move else set())
        taken = taken_off(books, question, shown)
    return _tell(made, others, taken, json=json)


# --- what is asked ----------------------------------------------------------------------------------------------------


def _question(
    config: Path | None,
    since: str,
    until: str,
    where: TextList,
    assume: TextList,
    profiles: Path | None,
    book: Book,
) -> Question:
    from farthing.cells import Question, parse_where

    told = load_config(config)
    return Question(
        since=_day(since, "--since"),
        until=_day(until, "--until"),
        tz=told.timezone,
        where=tuple(parse_where(text) for text in where or ()),
        assume=parse_assume(assume or ()),
        profiles={**told.profiles, **read_profiles(profiles)},
        book=book,
        config=told,
    )


def _day(text: str, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise BadInput(f"{option} {text!r} is no day: write 2026-11-22") from error


def _successor(book: Book, name: str, now: datetime) -> str:
    from farthing.book import Unpriced
    from farthing.migrate import successor

    known = book.resolve(name)
    if isinstance(known, Unpriced):
        raise BadInput(f"--from: {known.reason}")
    found = successor(book, known.sku.model, "bedrock", now)
    if not found:
        raise BadInput(f"--to MODEL: nothing newer of the family of {name} is known")
    return found


def _move(
    book: Book, source: str, target: str, inflation: Three | None, output: str, endpoint: str, measured: str
) -> Move:
    from farthing.migrate import MigrationError, plan

    try:
        return plan(
            book,
            source,
            target,
            inflation=inflation,
            output=_three(output, "--output-factor"),
            endpoint=endpoint,
            measured=measured,
        )
    except MigrationError as error:
        raise BadInput(str(error)) from error


def _three(text: str, option: str) -> Three | None:
    """One number for all three, or low, mid and high."""
    if not text:
        return None
    numbers = [Fraction(number(part.strip(), option)) for part in text.split(",")]
    if len(numbers) not in (1, 3) or not all(0 < one <= 10 for one in numbers) or numbers != sorted(numbers):
        raise BadInput(f"{option} {text!r}: write one number above 0 and up to 10, or LOW,MID,HIGH")
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]


def _measured(book: Book, source: str, target: str, samples: Sequence[Path], client: Any) -> Inflation:
    from farthing.count import CountError, call_id, measure

    texts = [read_text(path) for path in samples]
    try:
        sides = [(name, call_id(book, name)) for name in (source, target)]
        return measure(texts, sides[0], sides[1], book, client)
    except CountError as error:
        raise BadInput(str(error)) from error


# --- what is moved ----------------------------------------------------------------------------------------------------


def _from_ledger(books: Ledger, question: Question, move: Move, now: datetime) -> Migration:
    from farthing.migrate import MigrationError, from_ledger
    from farthing.migrate import migrate as moved

    parts, unpriced = from_ledger(books, question, move, now)
    if not parts:
        raise BadInput(f"the ledger has no priced call to {move.source} in this selection")
    try:
        return moved(move, parts, question.book, now, unpriced)
    except MigrationError as error:
        raise BadInput(str(error)) from error


def _follow(books: Ledger, question: Question, one: Legacy, now: datetime) -> Migration | None:
    """The move of a model that ends to the one that follows it, if there is one with a price."""
    from farthing.cells import Where
    from farthing.migrate import MigrationError, from_ledger, plan
    from farthing.migrate import migrate as moved

    if not one.successor:
        return None
    asked = replace(question, where=(*question.where, Where("platform", (one.platform,))))
    move = plan(question.book, one.model, one.successor)
    try:
        parts, unpriced = from_ledger(books, asked, move, now)
        return moved(move, parts, question.book, now, unpriced) if parts else None
    except MigrationError:
        return None


def _estimated(move: Move, file: Path | None, said: Said, book: Book, now: datetime) -> Migration:
    """A move of workloads that are not in any ledger: each in the old model's cheapest way on demand on Bedrock.

    One that has ended there is left as it was on its last day.
    """
    from farthing.migrate import MigrationError, ending
    from farthing.migrate import migrate as moved

    works, faults = workloads(file, said, (), book)
    for fault in faults:
        print(f"farthing: {fault}", file=sys.stderr)
    end = ending(book, move.source, "bedrock")
    ended = end if end and end <= now.date() else None
    then = datetime(ended.year, ended.month, ended.day, tzinfo=UTC) - timedelta(days=1) if ended else now
    try:
        made = moved(move, [_part(move, work, book, now, then) for work in works.values()], book, now)
    except MigrationError as error:
        raise BadInput(str(error)) from error
    if ended:
        said_so = f"{move.source} ended on Bedrock on {ended}: as it was sold the day before"
        made = made._replace(notes=(*made.notes, said_so))
    if names := ", ".join(offer.name for offer in book.offers):
        made = made._replace(notes=(*made.notes, f"at the rates of private offers: {names}"))
    return made


def _part(move: Move, work: Workload, book: Book, now: datetime, then: datetime) -> Part:
    import msgspec

    from farthing.estimate import scenarios, sizes
    from farthing.migrate import part_of

    work = msgspec.structs.replace(work, model=move.source, counted_by="")
    ways = scenarios(work, book, then)
    good = [way for way in ways if way.feasible and way.platform == "bedrock" and way.mode == "on_demand"]
    if not good:
        near = [
            way
            for way in ways
            if way.platform == "bedrock" and way.mode == "on_demand" and way.cache == "none"
        ]
        raise BadInput(near[0].why_not if near else f"{move.source} is not sold on bedrock")
    way = good[0]
    if way.sku is None or way.monthly is None:
        raise AssertionError("what can be had has a price")
    return part_of(
        move,
        book,
        now,
        sku=way.sku,
        paid=way.monthly,
        tokens=way.tokens,
        calls=way.requests,
        prompt=way.prompt,
        prefix=sizes(work, book.models[move.source], book).prefix,
    )


# --- the answer -------------------------------------------------------------------------------------------------------


def _tell(
    made: Migration | None,
    others: Sequence[tuple[Legacy, Migration | None]],
    taken: Mapping[str, Any],
    *,
    json: bool,
) -> int:
    if json:
        answer = _migration_json(made) if made else {}
        write_json(answer | {"legacy": [_legacy_json(*pair) for pair in others]} | offers_json(taken))
        return 0
    if made:
        _print_migration(made)
    if others:
        print("Models in this ledger that end" if not made else "Also in this ledger, models that end")
        for one, moved in others:
            print(
                f"  {one.model} on {one.platform}: {one.status} {one.day}; {one.calls:,} calls, {show(one.paid)}"
            )
            if moved:
                spread = f"{show(moved.low)} to {show(moved.high)}"
                print(f"      as {moved.move.target}: {spread}; {_edge(moved)}")
            else:
                print("      no successor of its family is known here: name one with --from and --to")
    elif not made:
        print("no model in this ledger has ended or is about to: name a move with --from and --to")
    print_offers(taken)
    return 0


def _edge(made: Migration) -> str:
    if made.break_even is None:
        return "nothing was paid"
    return f"it pays below {float(made.break_even):.3f} tokens for one of today's"


def _migration_json(made: Migration) -> dict[str, Any]:
    return {
        "from": made.move.source,
        "to": made.move.target,
        "from_usd": usd(made.paid),
        "to_usd": {"low": usd(made.low), "mid": usd(made.mid), "high": usd(made.high)},
        "break_even_inflation": None if made.break_even is None else float(round(made.break_even, 6)),
        "inflation": [float(round(one, 6)) for one in made.move.inflation],
        "output_factor": [float(round(one, 6)) for one in made.move.output],
        "calls": made.calls,
        "unpriced_calls": made.unpriced_calls,
        "steps": [{"name": name, "usd": usd(picos)} for name, picos in made.steps],
        "notes": list(made.notes),
    }


def _legacy_json(one: Legacy, moved: Migration | None) -> dict[str, Any]:
    said = {
        "model": one.model,
        "platform": one.platform,
        "status": one.status,
        "day": one.day.isoformat(),
        "calls": one.calls,
        "usd": usd(one.paid),
        "successor": one.successor or None,
    }
    return said | ({"move": _migration_json(moved)} if moved else {})


def _print_migration(made: Migration) -> None:
    print(f"{made.move.source} to {made.move.target}: {made.calls:,} calls")
    print(f"  {show(made.paid):>18}  what they cost as {made.move.source}")
    for name, picos in made.steps:
        if picos:
            print(f"  {('+' if picos > 0 else '') + show(picos):>18}  {name}")
    print(f"  {show(made.mid):>18}  as {made.move.target}; between {show(made.low)} and {show(made.high)}")
    low, mid, high = (float(one) for one in made.move.inflation)
    spread = f"{low:.3g} to {high:.3g} tokens for one of today's, {mid:.3g} in the middle"
    same = "as many tokens as today" if high == 1 else f"{high:.3g} tokens for one of today's"
    print(f"  {same if low == high else spread}; {_edge(made)}")
    for note in made.notes:
        print(f"  {note}")
    if made.unpriced_calls:
        print(f"  {made.unpriced_calls:,} calls without a price are in neither")
