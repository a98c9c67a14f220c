"""Why one period, or one scenario, cost more than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json, parse_days
from farthing.cli._offered import offers_json, print_offers, taken_off
from farthing.cli._shared import book_of, ledger_to_read, load_config, parse_assume, read_profiles, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.why import Moved, Scenario, Step

_SIDES = Group("Where the two sides differ in more than days", sort_key=1)
_Texts = list[str] | None


@app.command
def why(
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="A month, 2026-09, or days: 2026-09-01..2026-09-15.")
    ],
    to: Annotated[str, Parameter(help="The later month or days.")],
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    by: Annotated[
        str, Parameter(help="KEY[,KEY...]: the steps of each team, account, model, tag:NAME ...")
    ] = "",
    where: Annotated[_Texts, Parameter(negative="", help="As in reports.")] = None,
    tz: Annotated[str, Parameter(help="Time zone of days.")] = "",
    assume: Annotated[_Texts, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    config: Annotated[Path | None, Parameter(help="farthing.toml: ledger, zone, profiles, teams.")] = None,
    tokenizer: Annotated[
        str, Parameter(help="Tokens of the newer tokenizer for one of the older, of the same text.")
    ] = "1.3",
    from_where: Annotated[
        _Texts, Parameter(negative="", group=_SIDES, help="A filter of --from alone.")
    ] = None,
    to_where: Annotated[_Texts, Parameter(negative="", group=_SIDES, help="A filter of --to alone.")] = None,
    to_ledger: Annotated[str, Parameter(group=_SIDES, help="The ledger of --to.")] = "",
    to_assume: Annotated[_Texts, Parameter(negative="", group=_SIDES, help="Assumed of --to alone.")] = None,
    from_book: Annotated[
        Path | None, Parameter(group=_SIDES, help="A folder of prices, or a TOML file of offers, for --from.")
    ] = None,
    to_book: Annotated[Path | None, Parameter(group=_SIDES, help="The same for --to.")] = None,
    json: Json = False,
) -> int:
    """Why the cost moved: volume, sizes, mixes, cache and each dated price, summing to the difference exactly."""
    from farthing.cells import Question, parse_where
    from farthing.why import Scenario, between, between_by

    told = load_config(config)
    keys, kappa = _keys(by), _kappa(tokenizer)
    both = Question(
        tz=tz or told.timezone,
        where=tuple(parse_where(text) for text in where or ()),
        assume=parse_assume(assume or ()),
        profiles={**told.profiles, **read_profiles(profiles)},
        config=told,
        book=book_of(),
    )
    sides = _sides(both, (from_where, None, from_book), (to_where, to_assume, to_book))
    days = parse_days(from_, "--from"), parse_days(to, "--to")
    with ledger_to_read(ledger, told) as books, ledger_to_read(to_ledger or ledger, told) as others:
        earlier, later = Scenario(books, sides[0], days[0]), Scenario(others, sides[1], days[1])
        found = between(earlier, later, kappa)
        groups = between_by(earlier, later, keys, kappa) if keys else {}
        taken = {"from": _taken(earlier), "to": _taken(later)}
    if json:
        write_json(_json(found) | ({"by": _groups_json(groups, keys)} if keys else {}) | _offers(taken))
        return 0
    _print(found, from_, to)
    for value, moved in groups.items():
        print(" · ".join(text or "(none)" for text in value))
        _print(moved, from_, to)
    for name, one in zip((from_, to), taken.values(), strict=True):
        print_offers(one, f"{name} ")
    return 0


def _sides(both: Question, *own: tuple[_Texts, _Texts, Path | None]) -> list[Question]:
    """What is asked of each side, and by prices that tell the offers of the two apart."""
    from farthing.cells import parse_where
    from farthing.offers import told_apart

    first, second = (
        replace(
            both,
            where=(*both.where, *(parse_where(text) for text in where or ())),
            assume={**both.assume, **parse_assume(assume or ())},
            book=book_of(book) if book else both.book,
        )
        for where, assume, book in own
    )
    return [
        replace(first, book=told_apart(first.book, second.book)),
        replace(second, book=told_apart(second.book, first.book)),
    ]


def _taken(side: Scenario) -> dict[str, Any]:
    return taken_off(side.ledger, replace(side.question, since=side.days[0], until=side.days[1]))


def _offers(taken: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found = {side: offers_json(one)["offers"] for side, one in taken.items() if one}
    return {"offers": found} if found else {}


def _keys(text: str) -> list[str]:
    from farthing.cells import TIME_KEYS, check_key

    keys = [check_key(key.strip()) for key in text.split(",") if key.strip()]
    if wrong := [key for key in keys if key in (*TIME_KEYS, "meter")]:
        raise BadInput(
            f"--by {wrong[0]}: two sides are compared by what both have: team, account, model, tag:NAME ..."
        )
    return keys


def _kappa(text: str) -> Fraction:
    try:
        kappa = Fraction(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise BadInput(f"--tokenizer {text!r}: write a number, such as 1.3") from error
    if not 0 < kappa <= 10:
        raise BadInput(f"--tokenizer {text!r}: write a number above 0 and up to 10, such as 1.3")
    return kappa


# --- the answer ----------------------------------------------------------------------------------------------------


def _json(found: Moved) -> dict[str, Any]:
    return {
        "from_usd": usd(found.from_picos),
        "to_usd": usd(found.to_picos),
        "steps": [_step(step) for step in found.steps],
        "unpriced_calls": found.unpriced_calls,
    }


def _step(step: Step) -> dict[str, Any]:
    said: dict[str, Any] = {"name": step.name, "usd": usd(step.picos)}
    if step.least_picos is not None and step.most_picos is not None:
        said |= {"assumed": True, "least_usd": usd(step.least_picos), "most_usd": usd(step.most_picos)}
    return said


def _groups_json(groups: Mapping[tuple[str, ...], Moved], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [dict(zip(keys, value, strict=True)) | _json(moved) for value, moved in groups.items()]


def _print(found: Moved, from_: str, to: str) -> None:
    print(f"  {show(found.from_picos):>18}  {from_}")
    for step in found.steps:
        said = step.name
        if step.least_picos is not None and step.most_picos is not None:
            said += f" (assumed; {show(step.least_picos)} to {show(step.most_picos)})"
        print(f"  {('+' if step.picos > 0 else '') + show(step.picos):>18}  {said}")
    print(f"  {show(found.to_picos):>18}  {to}")
    if found.unpriced_calls:
        print(f"  {found.unpriced_calls:,} calls without a price are in neither")
