"""Two settings of Claude Code beside each other, on a trace of what its sessions sent.

Its users place no markers: what the settings decide is the model, and whether the cache is asked for by the hour.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.book import Unpriced
from farthing.cache import POLICIES, Unpriceable, cards_for, simulate
from farthing.lint._diff import Compared, Cost, Row
from farthing.lint._lint import How
from farthing.meters import Vector
from farthing.traces import Log
from farthing.traces._lines import UNREADABLE

HOUR = "ENABLE_PROMPT_CACHING_1H"
_OF_SETTINGS = {"env", "model", "permissions", "hooks", "awsAuthRefresh"}


class Settings(NamedTuple):
    """What of a settings file costs money."""

    model: str
    hour: bool


class NoSettings(ValueError):
    """Why two settings cannot be compared, in one line."""


def read_settings(path: Path) -> Settings | None:
    """The settings of a file; None if it holds something else."""
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, *UNREADABLE):
        return None
    if not isinstance(found, dict) or "messages" in found or not _OF_SETTINGS & found.keys():
        return None
    said = found.get("env")
    env: dict[str, Any] = said if isinstance(said, dict) else {}
    model = env.get("ANTHROPIC_MODEL") or found.get("model") or ""
    return Settings(str(model), str(env.get(HOUR, "")).lower() in ("1", "true", "yes", "on"))


def compare_settings(base: Settings, head: Settings, log: Log, how: How, model: str = "") -> Compared:
    """What the sessions of a trace would have cost under each. NoSettings where one has no price."""
    changes = []
    named = [each.model or model for each in (base, head)]
    if named[0] != named[1]:
        changes.append(f"model: {named[0] or 'none'}, then {named[1] or 'none'}")
    if base.hour != head.hour:
        changes.append(f"{HOUR}: {'on, then off' if base.hour else 'off, then on'}")
    assumed = list(log.assumed)
    if named[0] != named[1]:
        assumed.append("as many tokens on both models")
    costs = [_cost(each, name, log, how) for each, name in zip((base, head), named, strict=True)]
    row = Row("the sessions", costs[0], costs[1], tuple(changes))
    return Compared([row], replayed=True, assumed=tuple(assumed))


def _cost(settings: Settings, model: str, log: Log, how: How) -> Cost:
    if not model:
        raise NoSettings("the settings name no model: give --model")
    found = how.book.resolve(model, platform=how.platform)
    if isinstance(found, Unpriced):
        raise NoSettings(found.reason)
    moment = datetime(how.day.year, how.day.month, how.day.day, tzinfo=UTC)
    minimum = how.book.models[found.sku.model].cache_minimum(found.sku.platform, how.day)
    if minimum is None:
        raise NoSettings(f"nobody has published from how many tokens {found.sku.model} caches")
    try:
        cards, _ = cards_for(how.book, found.sku, log.trace, moment, dated=False)
    except Unpriceable as error:
        raise NoSettings(str(error)) from error
    policy = POLICIES["end_1h" if settings.hour else "end_5m"]
    each = simulate(log.trace, policy, cards.rates[0], minimum).each
    tokens = Vector(*(int(column.sum()) for column in each))
    return Cost(tokens, cards.price(each), log.trace.requests)
