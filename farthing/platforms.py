"""The same usage on Amazon Bedrock, on Anthropic's own API and on Claude Platform on AWS, and what each has and lacks.

Claude Platform on AWS is paid in CCU (Claude Consumption Units) of a cent: usage is rated in dollars at the direct price,
a discount is taken off first, and each hour is metered. No rule is published for the rest of an hour that makes no whole
CCU; ours is `carry` (see `metered`), and what another rule could add or take is told beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from farthing.book import Book, Card, Resolved, Unpriced, midnight
from farthing.cells import Cell, Question, cells
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import from_usd
from farthing.offers import books, load_offers
from farthing.usage import Sku

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
    return whole + (rest * 2 > below or (rest * 2 == below and whole % 2))


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
    """What the usage comes to on one platform, in picodollars; what has no price there is in neither."""

    platform: str
    calls: int = 0
    listed: int = 0
    discounted: int = 0
    unpriced: dict[str, int] = field(default_factory=dict)  # reason -> calls
    unconfined: int = 0  # calls that stay in a geography today, and would not there
    uncached: int = 0  # calls whose cache a batch there forfeits
    hourly: dict[tuple[str, datetime], int] = field(default_factory=dict)


class _Moved(NamedTuple):
    sku: Sku
    tokens: Vector
    confined: bool
    uncached: bool


def compare(ledger: Ledger, question: Question) -> list[Side]:
    """The question's usage on each platform: the same tokens, models and modes. Only what all of them price compares."""
    of = books(question.book, load_offers(question.config.contracts, question.book))
    sides = {platform: Side(platform) for platform in PLATFORMS}
    asked = replace(question, tz="UTC")
    for cell in cells(ledger, asked, _KEYS, flags=_hour(), beside=_anywhere):
        day, account, *_ = cell.keys
        for side in sides.values():
            _add(side, cell, question.book, of(account), date.fromisoformat(day), account)
    return list(sides.values())


def _add(side: Side, cell: Cell, book: Book, own: Book, day: date, account: str) -> None:
    if isinstance(cell.sku, Unpriced):
        return _unpriced(side, cell, cell.sku.reason)
    at = midnight(day)
    moved = _move(cell, cell.sku, side.platform, book, at)
    cached = moved.tokens.cached > 0
    card, paid = (found.find(moved.sku, at, cell.prompt, cached=cached) for found in (book, own))
    if not isinstance(card, Card) or not isinstance(paid, Card):
        return _unpriced(side, cell, card.reason if isinstance(card, Unpriced) else "no price by the offers")
    cost = moved.tokens @ paid.rates
    side.calls += cell.calls
    side.listed += moved.tokens @ card.rates
    side.discounted += cost
    side.unconfined += 0 if moved.confined else cell.calls
    side.uncached += cell.calls if moved.uncached else 0
    hour = (account, at + timedelta(hours=sum(1 << i for i, flag in enumerate(cell.flags) if flag)))
    side.hourly[hour] = side.hourly.get(hour, 0) + cost
    return None


def _unpriced(side: Side, cell: Cell, reason: str) -> None:
    side.unpriced[reason] = side.unpriced.get(reason, 0) + cell.calls


def _move(cell: Cell, place: Resolved, platform: str, book: Book, at: datetime) -> _Moved:
    """Where the usage would run there, and what it loses: a geography, or the cache of a batch."""
    sku, tokens = place.sku, cell.tokens
    if sku.platform == platform:
        return _Moved(sku, tokens, confined=True, uncached=False)
    endpoint, confined = "global", sku.endpoint == "global"
    if platform == "bedrock" and sku.endpoint == "geo_us":
        endpoint, confined = "regional", True
    elif platform != "bedrock" and (sku.endpoint == "geo_us" or _in_us(cell, sku)):
        there = sku._replace(platform=platform, endpoint="geo_us", zone="")
        if isinstance(book.find(there, at, cell.prompt), Card):
            endpoint, confined = "geo_us", True
    if sku.platform == "bedrock" and "bedrock" in (platform, sku.platform) and sku.endpoint == "regional":
        confined = confined or place.routing in ("", "unknown")  # nobody knows that it was
    uncached = platform == "bedrock" and sku.mode == "batch" and tokens.cached > 0
    if uncached:
        tokens = Vector(input=tokens.prompt, output=tokens.output)
    there = Sku(platform, sku.model, endpoint, "", sku.mode)
    return _Moved(there, tokens, confined=confined, uncached=uncached)


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

HOUR_MS = 3_600_000


class Rates(NamedTuple):
    """Picodollars, from the catalogue's `addons`; none of them is sold on Bedrock."""

    session_hour: int
    search: int
    container_hour: int
    free_ms: int  # of containers, an organization and month
    least_ms: int  # of a container

    @classmethod
    def of(cls, book: Book) -> Rates:
        said = book.defaults["addons"]
        return cls(
            from_usd(said["managed_agents_session_hour"]),
            from_usd(said["web_search_per_1000"]) // 1000,
            from_usd(said["code_execution_per_container_hour"]),
            int(said["code_execution_free_hours_per_org_month"]) * HOUR_MS,
            int(said["code_execution_min_minutes"]) * 60_000,
        )


class Use(NamedTuple):
    """A use of what is sold beside tokens: `session`, `web_search` or `code_execution`."""

    kind: str
    at: datetime
    ms: int = 0
    count: int = 0
    free: bool = False  # a session that was not running, a search that failed, code run for web tools


class Entry(NamedTuple):
    """An amount that is no charge: `quantity` in the unit that is billed, before any allowance."""

    kind: str
    at: datetime
    quantity: int
    picos: int


def entries(uses: Iterable[Use], rates: Rates) -> list[Entry]:
    """What the uses cost, in order of time: each rounded half-even to the picodollar, once.

    Sessions count milliseconds of running alone. A container counts at least five minutes, and the organization's free
    hours of the month are used up first.
    """
    left: dict[str, int] = {}
    found = []
    for use in sorted(uses, key=lambda use: (use.at, use.kind)):
        if use.kind == "session":
            ms = 0 if use.free else use.ms
            found.append(Entry(use.kind, use.at, ms, _half_even(ms * rates.session_hour, HOUR_MS)))
        elif use.kind == "web_search":
            count = 0 if use.free else use.count
            found.append(Entry(use.kind, use.at, count, count * rates.search))
        else:
            ms = 0 if use.free else max(use.ms, rates.least_ms)
            month = f"{use.at:%Y-%m}"
            free = min(ms, left.get(month, rates.free_ms))
            left[month] = left.get(month, rates.free_ms) - free
            found.append(Entry(use.kind, use.at, ms, _half_even((ms - free) * rates.container_hour, HOUR_MS)))
    return found


def breakeven(rates: Rates, card: Card, output_percent: int) -> int:
    """Tokens in an hour of running at which they cost what the running does: with fewer, the runtime dominates."""
    percents = Vector(input=100 - output_percent, output=output_percent)
    return rates.session_hour * 100 // (percents @ card.rates)
