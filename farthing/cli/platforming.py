"""Where Claude is sold: the same usage on Bedrock, on the direct API and in CCU; and when session runtime dominates."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Json
from farthing.cli._offered import ByOffers, offers_json, print_offers, taken_off
from farthing.cli._shared import Asked, book_of, ledger_to_read, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.costs import Due
    from farthing.platforms import CcuLine, Side

platform = App(name="platform", help="Bedrock, the direct API and Claude Platform on AWS beside each other.")
app.command(platform)

_MONTH_HOURS = 720


@platform.command
def compare(
    *,
    uses: Annotated[
        Path | None,
        Parameter(
            help="Sessions, searches and code run, beside those of the ledger: JSONL (docs/platforms.md)."
        ),
    ] = None,
    rounding: Annotated[
        Literal["carry", "up", "nearest"], Parameter(help="What of an hour makes no whole CCU.")
    ] = "carry",
    asked: Asked | None = None,
    offers: ByOffers | None = None,
) -> int:
    """The same usage on Bedrock, direct and in CCU, the CCU line as on the invoice, and what each has or lacks."""
    from farthing import platforms
    from farthing.costs import due_entries

    asked = asked or Asked()
    if asked.csv or asked.shared or asked.tz:
        raise BadInput("--csv, --shared, --tz: platform compare prints text or --json, by hours of UTC")
    question = replace((offers or ByOffers()).asked(asked.question()), tz="UTC")
    used, bad = platforms.read_uses(uses, datetime.now(UTC)) if uses else ([], [])
    with ledger_to_read(asked.ledger, question.config) as ledger:
        sides = platforms.compare(ledger, question)
        taken = taken_off(ledger, question)
        made = due_entries(
            ledger, question, beside=used, platform="anthropic"
        )  # one price wherever they are sold
    (in_ccu,) = (side for side in sides if side.platform == "claude_aws")
    hourly = dict(in_ccu.hourly)
    for due in made:
        hour = due.entry.facts.account, due.entry.at.replace(minute=0, second=0, microsecond=0)
        hourly[hour] = hourly.get(hour, 0) + (due.picos or 0)
    lines = platforms.ccu_lines(hourly, rounding)
    answer = _answer(sides, made, lines, rounding)
    if asked.json:
        write_json(answer | offers_json(taken))
    else:
        _print(sides, made, lines, answer)
        print_offers(taken)
    for line in bad:
        print(f"farthing: {line}", file=sys.stderr)
    return 2 if bad else 0


def _answer(
    sides: Sequence[Side], made: Sequence[Due], lines: Sequence[CcuLine], rounding: str
) -> dict[str, Any]:
    from farthing.platforms import CCU_PICOS, FEATURES

    beside = sum(due.picos or 0 for due in made)
    rows = []
    for side in sides:
        sold = side.platform != "bedrock"
        ccu = sum(line.ccu for line in lines) * CCU_PICOS if side.platform == "claude_aws" else None
        total = side.discounted + (beside if sold else 0) if ccu is None else ccu
        rows.append(
            {
                "platform": side.platform,
                "calls": side.calls,
                "list_usd": usd(side.listed),
                "contracted_usd": usd(side.discounted),
                "entries_usd": usd(beside) if sold else None,
                "total_usd": usd(total) if sold or not made else None,
                "lacks_entries": bool(made) and not sold,
                "only_here": {"calls": side.alone_calls, "usd": usd(side.alone)},
                "unpriced": side.unpriced,
                "unconfined_calls": side.unconfined,
                "uncached_calls": side.uncached,
            }
        )
    return {
        "platforms": rows,
        "ccu": {"unit_usd": "0.01", "rounding": rounding, "lines": [_ccu_json(line) for line in lines]},
        "entries": _entries_json(made),
        "features": [feature._asdict() for feature in FEATURES],
    }


def _ccu_json(line: CcuLine) -> dict[str, Any]:
    from farthing.platforms import CCU_PICOS

    return {
        "month": line.month,
        "account": line.account,
        "description": "Claude Consumption Units",
        "quantity": line.ccu,
        "usd": usd(line.ccu * CCU_PICOS),
        "usage_usd": usd(line.usage_picos),
        "rounding_usd": usd(line.ccu * CCU_PICOS - line.usage_picos),
        "hours": line.hours,
        "quantity_range": [line.least, line.most],
    }


def _entries_json(made: Sequence[Due]) -> list[dict[str, Any]]:
    from farthing.usage import ENTRY_UNITS

    groups: dict[tuple[str, str], list[Due]] = {}
    for due in made:
        groups.setdefault((due.entry.kind, due.why), []).append(due)
    return [
        {
            "kind": kind,
            "quantity": sum(due.entry.quantity for due in group),
            "billed": sum(due.billed for due in group),
            "unit": ENTRY_UNITS[kind],
            "usd": usd(sum(due.picos or 0 for due in group)),
            "why": why,
        }
        for (kind, why), group in sorted(groups.items())
    ]


def _print(
    sides: Sequence[Side], made: Sequence[Due], lines: Sequence[CcuLine], answer: Mapping[str, Any]
) -> None:
    from farthing.platforms import CCU_PICOS, FEATURES, NAMES

    nowhere = set.intersection(*(set(side.unpriced) for side in sides))
    for side, row in zip(sides, answer["platforms"], strict=True):
        total = (
            sum(line.ccu for line in lines) * CCU_PICOS if side.platform == "claude_aws" else side.discounted
        )
        total += sum(due.picos or 0 for due in made) if side.platform == "anthropic" else 0
        said = "not sold there" if row["lacks_entries"] else show(total)
        print(f"{NAMES[side.platform]:<24} {said:>16}  {side.calls:,} calls, tokens {show(side.discounted)}"
              f" (list {show(side.listed)})")  # fmt: skip
        if side.unconfined:
            print(f"  {side.unconfined:,} calls that stay in a geography today would be global")
        if side.uncached:
            print(f"  {side.uncached:,} batched calls lose their cache")
        if side.alone_calls:
            print(f"  beside these {side.alone_calls:,} calls for {show(side.alone)} that not all can take")
        for reason, calls in sorted(side.unpriced.items(), key=lambda item: (-item[1], item[0])):
            if reason not in nowhere:
                print(f"  no price for {calls:,} calls: {reason}")
    for reason in sorted(nowhere):
        print(f"no price anywhere for {sides[0].unpriced[reason]:,} calls: {reason}")
    for entry in answer["entries"]:
        print(f"{entry['kind'].replace('_', ' ')}: {entry['quantity']:,} {entry['unit']}, ${entry['usd']}, "
              f"{entry['why']}")  # fmt: skip
    for line in lines:
        whose = f", {line.account}" if line.account else ""
        print(f"invoice {line.month}{whose}: {line.ccu:,} CCU at $0.01 = {show(line.ccu * CCU_PICOS)}, metered in"
              f" {line.hours:,} hours; by other rules {line.least:,} to {line.most:,} CCU")  # fmt: skip
    width = max(len(feature.name) for feature in FEATURES)
    print(f"{'':<{width}}  {' | '.join(NAMES[side.platform] for side in sides)}")
    for feature in FEATURES:
        print(f"{feature.name:<{width}}  {feature.bedrock} | {feature.anthropic} | {feature.claude_aws}")


@platform.command
def runtime(
    *,
    model: Annotated[str, Parameter(help="An id; all that are on sale if left out.")] = "",
    output_percent: Annotated[int, Parameter(help="Of the tokens, how many are output.")] = 0,
    json: Json = False,
) -> int:
    """When session runtime dominates: the tokens an hour of running at which they cost as much as the running does."""
    from farthing.book import Card, Unpriced
    from farthing.costs import Rates
    from farthing.platforms import breakeven, retired_on
    from farthing.usage import Sku

    if not 0 <= output_percent <= 100:
        raise BadInput(f"--output-percent {output_percent}: write 0 to 100")
    book, now = book_of(), datetime.now(UTC)
    names = [name for name in sorted(book.models) if not retired_on(book, name, "claude_aws", now.date())]
    if model:
        found = book.resolve(model, platform="claude_aws")
        if isinstance(found, Unpriced):
            raise BadInput(f"--model: {found.reason}")
        names = [found.sku.model]
    rates = Rates.of(book, now.date())
    cards = [(name, book.find(Sku("claude_aws", name, "global", "", "on_demand"), now)) for name in names]
    rows = [(name, breakeven(rates, card, output_percent)) for name, card in cards if isinstance(card, Card)]
    if not rows:
        raise BadInput(f"--model {model}: has no price on Claude Platform on AWS today")
    month = rates.session_hour * _MONTH_HOURS
    if json:
        write_json(
            {
                "session_hour_usd": usd(rates.session_hour),
                "always_on_month_usd": usd(month),
                "output_percent": output_percent,
                "models": [{"model": name, "tokens_per_hour": tokens} for name, tokens in rows],
            }
        )
        return 0
    print(f"a running session: {show(rates.session_hour)} an hour, {show(month)} for {_MONTH_HOURS} hours;"
          f" it is the greater part below so many tokens an hour, {output_percent} % of them output:")  # fmt: skip
    for name, tokens in sorted(rows, key=lambda row: (-row[1], row[0])):
        print(f"  {name:<24} {tokens:>10,}")
    return 0
