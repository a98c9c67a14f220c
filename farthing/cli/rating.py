"""`farthing rate`: calls priced one by one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._completing import models
from farthing.cli._shared import parse_assume, read_profiles, write_json
from farthing.contract import charge_json, loads, rate_call
from farthing.meters import METERS
from farthing.money import mtok_usd, show, usd
from farthing.usage import Rejected

if TYPE_CHECKING:
    from farthing.rating import Charge


# --- rate -----------------------------------------------------------------------------------------


@app.command
def rate(
    model: Annotated[
        str,
        Parameter(
            help="Model id or ARN; leave out with --json to read JSON lines on stdin.", completer=models
        ),
    ] = "",
    *,
    at: Annotated[str, Parameter(help="Time of the call, ISO; now if left out.")] = "",
    platform: Literal["", "bedrock", "anthropic", "claude_aws"] = "",
    mode: Literal["", "on_demand", "batch", "fast"] = "",
    region: str = "",
    inference_geo: str = "",
    usage: Annotated[str, Parameter(help="A usage block of any dialect, as JSON.")] = "",
    input: int = 0,
    output: int = 0,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
    explain: Annotated[
        bool, Parameter(negative="", help="Card, source, date and factors of each figure.")
    ] = False,
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
) -> int:
    """Price calls exactly: one by flags (exit 1 if it has no price), or JSON lines on stdin, a line out for each in."""
    settled = parse_assume(assume or ()), read_profiles(profiles)
    if not model:
        if not json:
            raise BadInput("name a model, or give --json and JSON lines on stdin")
        if sys.stdin is None:
            raise BadInput("standard input is closed: give it JSON lines, or name a model")
        return _rate_lines(sys.stdin.buffer, *settled)
    counts = dict(zip(METERS, (input, output, cache_read, cache_write_5m, cache_write_1h), strict=True))
    if usage and any(counts.values()):
        raise BadInput("give the counts or --usage, not both")
    call = {
        "model": model,
        "at": at or datetime.now(UTC).isoformat(),
        "platform": platform or None,
        "mode": mode or None,
        "region": region or None,
        "inference_geo": inference_geo or None,
        "usage": loads(usage) if usage else counts,
    }
    try:
        charge = rate_call(call, *settled)
    except Rejected as error:
        raise BadInput(str(error)) from error
    if json:
        write_json(charge_json(charge))
    else:
        _print_charge(charge, explain=explain)
    return 1 if charge.unpriced else 0


def _rate_lines(lines: Any, assume: Mapping[str, str], profiles: Mapping[str, str]) -> int:
    rejected = 0
    for line in lines:
        try:
            answer = charge_json(rate_call(loads(line), assume, profiles))
        except Rejected as error:
            answer = {"rejected": str(error)}
            rejected += 1
        write_json(answer)
    return 2 if rejected else 0


def _print_charge(charge: Charge, *, explain: bool) -> None:
    if charge.unpriced:
        print(f"unpriced: {charge.unpriced}")
        return
    assert charge.cost is not None
    print(f"{show(charge.cost)}  (exactly ${usd(charge.cost)})")
    for line in charge.lines:
        print(f"  {line.card.id}")
        for meter, tokens, rate in zip(METERS, line.tokens, line.card.rates, strict=True):
            if tokens:
                print(
                    f"    {meter:<15}{tokens:>15,} x ${mtok_usd(rate):>8} per million = ${usd(tokens * rate)}"
                )
        if explain:
            card = line.card
            print(f"    factors: {card.factors}")
            print(f"    source: {card.source}, read {card.accessed}, confidence {card.confidence}")
            ends = "" if card.ends.year == 9999 else f" until {card.ends:%Y-%m-%d}"
            print(f"    in force from {card.starts:%Y-%m-%d}{ends}; book {charge.book}")
    if charge.assumed:
        print(f"  assumed: {', '.join(charge.assumed)}")
