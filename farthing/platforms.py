"""The same usage on Amazon Bedrock, on Anthropic's own API and on Claude Platform on AWS, and what each has and lacks.

Claude Platform on AWS is paid in CCU (Claude Consumption Units) of a cent: usage is rated in dollars at the direct
price, a discount is taken off first, and each hour is metered. No rule is published for the rest of an hour that makes
no whole CCU; ours is `carry` (see `metered`), and what another rule could add or take is told beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from farthing.book import Book, Card, Unpriced, midnight
from farthing.cells import Cell, Question, at_list, cells
from farthing.costs import Rates
from farthing.importers import read_paths
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.offers import books
from farthing.usage import Entry, Sku

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

PLATFORMS = ("bedrock", "anthropic", "claude_aws")
NAMES = {"bedrock": "Amazon Bedrock", "anthropic": "Claude API", "claude_aws": "Claude Platform on AWS"}
CCU_PICOS = 10**10
ROUNDINGS = ("carry", "up", "nearest")
_HOUR_BITS = 5
_KEYS = ("day", "account", "region", "routing")


class Feature(NamedTuple):
    """What the platforms have, as the sources said on the day that the prices were read."""

    name: str
    bedrock: str
    anthropic: str
    claude_aws: str


FEATURES = (
    Feature(
        "where calls run", "in region, geography or global", "global, or us at 1.1x", "global, or us at 1.1x"
    ),
    Feature("batch at half price", "some models, without caching", "yes, with caching", "yes, with caching"),
    Feature("fast mode", "no", "yes", "no"),
    Feature("cache shared within", "the organization", "the workspace", "the workspace"),
    Feature("web search, web fetch", "no", "yes", "yes"),
    Feature("code execution", "no", "yes", "yes"),
    Feature("Files, MCP connector", "no", "yes", "yes"),
    Feature("Managed Agents", "no", "yes", "yes"),
    Feature("usage and cost by API", "CUR and FOCUS, by model and meter", "Usage and Cost API", "no"),
    Feature(
        "on the invoice",
        "a line by model and meter",
        "Anthropic's own",
        "one CCU line; models in the Console",
    ),
    Feature("private offers", "by model and meter", "by agreement", "taken off before CCU"),
)


# --- CCU -----------------------------------------------------------------------------------------------------------


def metered(hours: Sequence[int], rule: str = "carry") -> list[int]:
    """Whole CCU of each hour, from its picodollars.

    `carry` takes what makes no whole CCU into the next hour, so less than one is missing in all; `up` rounds each hour
    up; `nearest` rounds it half-even. `carry` is ours: a meter of AWS Marketplace counts in whole units.
    """
    if rule == "up":
        return [-(-picos // CCU_PICOS) for picos in hours]
    if rule == "nearest":
        return [_half_even(picos, CCU_PICOS) for picos in hours]
    counted, total, found = 0, 0, []
    for picos in hours:
        total += picos
        found.append(total // CCU_PICOS - counted)
        counted += found[-1]
    return found


def _half_even(above: int, below: int) -> int:
    whole, rest = divmod(above, below)
    return whole + int(rest * 2 > below or (rest * 2 == below and whole % 2 == 1))


class CcuLine(NamedTuple):
    """The line of an account and month on the invoice; `least` and `most`: by the other rules that could hold."""

    month: str
    account: str
    ccu: int
    usage_picos: int  # before it became CCU
    hours: int  # with usage
    least: int
    most: int


def ccu_lines(hourly: Mapping[tuple[str, datetime], int], rule: str = "carry") -> list[CcuLine]:
    """By account and UTC hour, to a line a month."""
    months: dict[tuple[str, str], list[tuple[int, ...]]] = defaultdict(list)
    for account in sorted({account for account, _ in hourly}):
        hours = sorted(at for whose, at in hourly if whose == account)
        picos = [hourly[account, at] for at in hours]
        by_rule = [metered(picos, name) for name in (rule, *ROUNDINGS)]
        for at, spent, *counts in zip(hours, picos, *by_rule, strict=True):
            months[f"{at:%Y-%m}", account].append((spent, *counts))
    lines = []
    for (month, account), rows in sorted(months.items()):
        spent, ccu, *others = map(sum, zip(*rows, strict=True))
        lines.append(CcuLine(month, account, ccu, spent, len(rows), min(others), max(others)))
    return lines


# --- the same usage elsewhere --------------------------------------------------------------------------------------


@dataclass
class Side:
    """What the usage comes to on one platform, in picodollars.

    The sums are of the calls that all platforms have a price for. What it alone, or it and one other, could take is
    `alone`; what it has no price for is in neither.
    """

    platform: str
    calls: int = 0
    listed: int = 0
    discounted: int = 0
    alone_calls: int = 0
    alone: int = 0
    unpriced: dict[str, int] = field(default_factory=dict)  # reason -> calls
    unconfined: int = 0  # calls that stay in a geography today, and would not there
    uncached: int = 0  # calls whose cache a batch there forfeits
    hourly: dict[tuple[str, datetime], int] = field(default_factory=dict)  # by account and UTC hour


class _Moved(NamedTuple):
    sku: Sku
    tokens: Vector
    confined: bool = True
    uncached: bool = False


class _Costs(NamedTuple):
    listed: int
    discounted: int
    moved: _Moved


def compare(ledger: Ledger, question: Question) -> list[Side]:
    """The question's usage on each platform: the same tokens, models and modes, at the offers of each account."""
    of = books(question.book.listed, question.book.offers)
    question = at_list(question)
    sides = [Side(platform) for platform in PLATFORMS]
    asked = replace(question, tz="UTC")
    for cell in cells(ledger, asked, _KEYS, flags=_hour(), beside=_anywhere):
        day, account, *_ = cell.keys
        at = midnight(date.fromisoformat(day))
        hour = account, at + timedelta(hours=sum(1 << i for i, flag in enumerate(cell.flags) if flag))
        costs = [_costs(cell, side.platform, question.book, of(account), at) for side in sides]
        everywhere = all(isinstance(cost, _Costs) for cost in costs)
        for side, cost in zip(sides, costs, strict=True):
            _add(side, cell, cost, hour, everywhere=everywhere)
    return sides


def _add(side: Side, cell: Cell, cost: _Costs | str, hour: tuple[str, datetime], *, everywhere: bool) -> None:
    if isinstance(cost, str):
        side.unpriced[cost] = side.unpriced.get(cost, 0) + cell.calls
        return
    if not everywhere:
        side.alone_calls += cell.calls
        side.alone += cost.discounted
        return
    side.calls += cell.calls
    side.listed += cost.listed
    side.discounted += cost.discounted
    side.unconfined += 0 if cost.moved.confined else cell.calls
    side.uncached += cell.calls if cost.moved.uncached else 0
    side.hourly[hour] = side.hourly.get(hour, 0) + cost.discounted


def _costs(cell: Cell, platform: str, book: Book, own: Book, at: datetime) -> _Costs | str:
    """By the list and by the account's own book; or why there is no price."""
    if isinstance(cell.sku, Unpriced):
        return cell.sku.reason
    if cell.sku.sku.endpoint == "govcloud" and platform != "bedrock":
        return f"GovCloud has no like on {NAMES[platform]}"
    if cell.sku.sku.platform != platform and (
        retired := retired_on(book, cell.sku.sku.model, platform, at.date())
    ):
        return f"{cell.sku.sku.model} was retired on {NAMES[platform]} on {retired}"
    moved = _move(cell, cell.sku.sku, platform, book, at)
    card, paid = (
        found.find(moved.sku, at, cell.prompt, cached=moved.tokens.cached > 0) for found in (book, own)
    )
    if isinstance(card, Unpriced):
        return card.reason
    assert isinstance(paid, Card)  # an offer changes a card, and takes none away
    return _Costs(moved.tokens @ card.rates, moved.tokens @ paid.rates, moved)


def retired_on(book: Book, model: str, platform: str, day: date) -> date | None:
    """The day from which the model no longer answered there, if that was by then."""
    cycle = book.models[model].platform(platform).get("lifecycle", {})
    ends = [cycle[stage] for stage in ("retirement", "eol") if stage in cycle and cycle[stage] <= day]
    return min(ends, default=None)


def _move(cell: Cell, sku: Sku, platform: str, book: Book, at: datetime) -> _Moved:
    """Where the usage would run there, and what it loses: a geography, or the cache of a batch."""
    tokens = cell.tokens
    if sku.platform == platform:
        return _Moved(sku, tokens)
    there = Sku(platform, sku.model, "global", "", sku.mode)
    confined = sku.endpoint == "global" or cell.keys[3] in ("", "unknown")  # nobody knows that it was
    if platform == "bedrock" and sku.endpoint == "geo_us":
        there, confined = there._replace(endpoint="regional"), True
    elif platform != "bedrock" and (sku.endpoint == "geo_us" or _in_us(cell, sku)):
        in_us = there._replace(endpoint="geo_us")
        if isinstance(book.find(in_us, at, cell.prompt), Card):
            there, confined = in_us, True
    elif platform == "bedrock" and isinstance(book.find(there, at, cell.prompt), Unpriced):
        there = there._replace(endpoint="regional")  # older models have one price, and no global endpoint
    uncached = platform == "bedrock" and sku.mode == "batch" and tokens.cached > 0
    if uncached:
        tokens = Vector(input=tokens.prompt, output=tokens.output)
    return _Moved(there, tokens, confined, uncached)


def _in_us(cell: Cell, sku: Sku) -> bool:
    _, _, region, routing = cell.keys
    if sku.endpoint != "regional":
        return False
    return bool(routing == "geo:us" or (routing == "in_region" and str(region).startswith("us-")))


def _anywhere(sku: Sku) -> Iterable[Sku]:
    """Every SKU that the same usage may be elsewhere, so that a cell lies in one box of each."""
    for platform in PLATFORMS:
        for endpoint in ("global", "regional") if platform == "bedrock" else ("global", "geo_us"):
            yield Sku(platform, sku.model, endpoint, "", sku.mode)


def _hour() -> tuple[nw.Expr, ...]:
    """The bits of the UTC hour: what is metered by the hour is summed by it."""
    import narwhals.stable.v2 as nw

    hour = nw.col("at").dt.hour()
    return tuple(hour.is_in([n for n in range(24) if n >> bit & 1]) for bit in range(_HOUR_BITS))


# --- what is no token ----------------------------------------------------------------------------------------------


def breakeven(rates: Rates, card: Card, output_percent: int) -> int:
    """Tokens in an hour of running at which they cost what the running does: with fewer, the runtime dominates."""
    percents = Vector(input=100 - output_percent, output=output_percent)
    return int(rates.session_hour * 100 // (percents @ card.rates))


class UseError(ValueError):
    """A file of uses that cannot be read: file and mend."""


def read_uses(path: Path, now: datetime) -> tuple[list[Entry], list[str]]:
    """The uses of a file, as an import reads it, and a line for each that is none: a good one beside it counts."""
    found: list[Entry] = []
    bad = []
    for batch in read_paths([str(path)], format="uses", now=now, workers=0):
        found += batch.entries
        for file in batch.files:
            if file.error and not file.rejects:
                raise UseError(f"{path}: {file.error}")
            bad += [f"{path}:{reject.line}: {reject.reason}" for reject in file.rejects]
    return found, bad
