"""The JSON contract of `farthing rate`: one call in, its exact price out. Programs rely on it: add, never change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from farthing.meters import METERS
from farthing.money import mtok_usd, usd
from farthing.usage import MODES, PLATFORMS, Rejected, check_region

if TYPE_CHECKING:
    from farthing.rating import Charge


def loads(text: str | bytes) -> Any:
    """JSON, or Rejected; NaN and infinities are no numbers."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_TEXTS = ("platform", "mode", "region", "inference_geo")
_ALLOWED = {"platform": PLATFORMS, "mode": MODES}


def rate_call(call: Any, assume: Mapping[str, str], profiles: Mapping[str, str]) -> Charge:
    """One call of the JSON contract, rated; Rejected says what is wrong with it."""
    from farthing import rating

    if not isinstance(call, dict):
        raise Rejected("not a JSON object")
    if not isinstance(call.get("model"), str) or not call["model"].strip():
        raise Rejected("no `model`")
    if not isinstance(call.get("usage"), dict):
        raise Rejected("no `usage` object")
    said = {name: "" if call.get(name) is None else call[name] for name in _TEXTS}
    for name, value in said.items():
        if not isinstance(value, str):
            raise Rejected(f"`{name}` is no string ({value!r})")
        if value and value not in _ALLOWED.get(name, (value,)):
            raise Rejected(f"`{name}` is {value!r}: one of {', '.join(_ALLOWED[name])}")
    check_region(said["region"])
    return rating.rate(
        call["model"],
        _instant(call.get("at")),
        call["usage"],
        platform=said["platform"],
        mode=said["mode"],
        region=said["region"],
        inference_geo=said["inference_geo"],
        assume=assume,
        profiles=profiles,
    )


def _instant(text: Any) -> datetime:
    if not isinstance(text, str):
        raise Rejected("no `at`: write the time of the call, as 2026-11-22T09:14:05Z")
    try:
        at = datetime.fromisoformat(text.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Rejected(f"`at` is no time ({text!r}): write 2026-11-22T09:14:05Z") from error
    if at > datetime.now(UTC) + timedelta(days=366):
        raise Rejected(f"`at` is {text}: nobody knows prices more than a year ahead")
    return at


def charge_json(charge: Charge) -> dict[str, Any]:
    """The JSON of one charge; lines add up the parts, and a meter rated twice at two rates shows no single rate."""
    if charge.unpriced:
        return {"unpriced": charge.unpriced}
    lines: dict[str, Any] = {}
    for i, meter in enumerate(METERS):
        parts = [(list(line.tokens)[i], list(line.card.rates)[i], line.card) for line in charge.lines]
        used = {rate for tokens, rate, _ in parts if tokens} or {rate for _, rate, _ in parts}
        known = any(card.cached for _, _, card in parts) or i < 2
        lines[meter] = {
            "tokens": sum(tokens for tokens, _, _ in parts),
            "usd_per_mtok": mtok_usd(used.pop()) if len(used) == 1 and known else None,
            "usd": usd(sum(tokens * rate for tokens, rate, _ in parts)),
        }
    assert charge.cost is not None  # not unpriced
    answer: dict[str, Any] = {
        "cost_usd": usd(charge.cost),
        "picodollars": charge.cost,
        "card": charge.lines[0].card.id,
        "lines": lines,
        "assumed": list(charge.assumed),
    }
    if len(charge.lines) > 1:
        answer["parts"] = [{"card": line.card.id, "usd": usd(line.cost)} for line in charge.lines]
    return answer
