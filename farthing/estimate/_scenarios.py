"""Every way to run a workload: model x platform x endpoint x cache x mode, priced, or with what rules it out.

Capacity bought ahead is a way too, and has no published price: its reason says what to ask AWS for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

from farthing.book import Book, Card, Model, Resolved, Unpriced
from farthing.estimate._arrivals import Hits, batch_hits, hits
from farthing.estimate._tokens import Sizes, sizes
from farthing.estimate._workload import Workload, model_of
from farthing.meters import METERS, Vector
from farthing.usage import MODES, PLATFORMS, Sku

CACHES = ("none", "5m", "1h")
BATCH_HOURS = 24  # a batch may take as long; a Bedrock job is given no less
BATCH_RECORDS = 100  # of a Bedrock job: the default quota's least
SAFE_MINIMUM = 4_096  # tokens: enough on every model whose minimum is published
HOUR_TTL_ON_BEDROCK = date(2025, 9, 29)  # Sonnet 4.5: earlier models have no 1h SKU there
CAPACITY = ("reserved", "provisioned")  # modes of Bedrock that are bought by the month or the hour
RESERVED_LEAST = (100_000, 10_000)  # tokens a minute, in and out
_ENDS = ("retirement", "eol", "eol_by")


class Scenario(NamedTuple):
    """One way. `reasons` are empty if it can be had; else there is no price, which is not a price of nothing."""

    workload: str
    model: str
    endpoint: str
    cache: str
    mode: str
    platform: str
    reasons: tuple[str, ...]
    monthly: int | None = None
    per_request: int | None = None
    requests: int = 0
    tokens: Vector = Vector()
    sku: Sku | None = None
    prompt: int = 0
    writes: Fraction = Fraction(0)
    ends: date | None = None
    assumed: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        return not self.reasons

    @property
    def why_not(self) -> str:
        return "; ".join(self.reasons)


class _Way(NamedTuple):
    """A combination, before it is known whether it can be had."""

    work: Workload
    book: Book
    at: datetime
    model: Model
    platform: str
    endpoint: str
    cache: str
    mode: str
    size: Sizes
    named: bool

    @property
    def offered(self) -> Mapping[str, Any]:
        return self.model.platform(self.platform)


def scenarios(work: Workload, book: Book, at: datetime, name: str = "") -> list[Scenario]:
    """Every way, cheapest first, then those that are ruled out."""
    found = [_priced(way, name) for way in _ways(work, book, at)]
    return sorted(found, key=_order)


def _order(one: Scenario) -> tuple[bool, int, tuple[int | str, ...]]:
    return (
        one.monthly is None,
        one.monthly or 0,
        (PLATFORMS.index(one.platform), one.model, one.endpoint, one.mode, one.cache),
    )


def _ways(work: Workload, book: Book, at: datetime) -> Iterator[_Way]:
    wanted = list(dict.fromkeys(model_of(name, book) for name in work.models)) or list(book.models)
    for model in (book.models[name] for name in wanted):
        size = sizes(work, model, book)
        for platform in PLATFORMS:
            for endpoint in model.platform(platform).get("endpoints", ()):
                for mode, cache in _modes(platform, endpoint):
                    named = bool(work.models)
                    yield _Way(work, book, at, model, platform, endpoint, cache, mode, size, named)


def _modes(platform: str, endpoint: str) -> Iterator[tuple[str, str]]:
    """Modes and caches. No inference profile goes with provisioned throughput, and a global endpoint is one."""
    yield from product(MODES, CACHES)
    if platform == "bedrock":
        yield from ((mode, "none") for mode in CAPACITY if mode == "reserved" or endpoint != "global")


def _priced(way: _Way, name: str) -> Scenario:
    if way.mode in CAPACITY:
        why = tuple(dict.fromkeys([*_against(way), _capacity(way)]))
        return Scenario(name, way.model.id, way.endpoint, way.cache, way.mode, way.platform, why)
    sku, unplaced = _place(way)
    reasons = list(dict.fromkeys([*_against(way), *unplaced]))
    card = way.book.find(sku, way.at, way.size.prompt, cached=way.cache != "none") if sku else None
    if isinstance(card, Unpriced) and not (
        way.mode == "batch" and way.platform == "bedrock" and way.cache != "none"
    ):
        reasons.append(card.reason)
    made = Scenario(
        name, way.model.id, way.endpoint, way.cache, way.mode, way.platform, tuple(dict.fromkeys(reasons))
    )
    if reasons or not isinstance(card, Card):
        return made
    tokens, writes = _monthly_tokens(way)
    cost = Fraction(tokens @ card.rates)
    return made._replace(
        monthly=round(cost),
        per_request=round(cost / way.work.monthly),
        requests=way.work.monthly,
        tokens=tokens,
        sku=sku,
        prompt=way.size.prompt,
        writes=writes,
        ends=_end(way.offered),
        assumed=tuple(dict.fromkeys((*way.size.assumed, *card.assumed, *_assumed(way)))),
    )


def _monthly_tokens(way: _Way) -> tuple[Vector, Fraction]:
    """A month on the five meters; counts may be fractions, as the writes are expected ones."""
    n, size = way.work.monthly, way.size
    if way.cache == "none":
        return Vector(input=n * size.prompt, output=n * size.output), Fraction(0)
    met: Hits = batch_hits(way.work) if way.mode == "batch" else hits(way.work, way.cache)
    entries = dict.fromkeys(METERS, Fraction(0)) | {
        "input": Fraction(n * (size.prompt - size.prefix)),
        "output": Fraction(n * size.output),
        "cache_read": met.reads * size.prefix,
        f"cache_write_{way.cache}": met.writes * size.prefix,
    }
    return Vector(**entries), met.writes


def _assumed(way: _Way) -> Iterator[str]:
    if way.mode == "batch" and way.cache != "none":
        yield "batch_hits"
    if way.mode == "batch" and way.work.deadline_hours is None:
        yield "deadline"
    if way.cache != "none" and _minimum(way) is None:
        yield "cache_minimum"
    if way.platform == "bedrock" and way.endpoint == "regional":
        kept = way.work.kept_in
        if kept == "in_region":
            yield "availability"
        elif kept and kept not in way.offered.get("profiles", ()):
            yield "profile"


# --- where it would run ----------------------------------------------------------------------------------------------


def _place(way: _Way) -> tuple[Sku | None, list[str]]:
    """The SKU: on Bedrock the price may hang on the region, which the book knows."""
    if way.platform != "bedrock":
        return Sku(way.platform, way.model.id, way.endpoint, "", way.mode), []
    ids = [one for one in way.model.ids if one.startswith("anthropic.")]
    if not ids:
        return None, [f"{way.model.id} has no id on bedrock"]
    region = way.work.region
    prefix = {"global": "global.", "govcloud": "us-gov."}.get(way.endpoint, "" if region else f"{_geo(way)}.")
    found = way.book.resolve(f"{prefix}{ids[0]}", platform="bedrock", region=region, mode=way.mode)
    return (found.sku, []) if isinstance(found, Resolved) else (None, [found.reason])


def _geo(way: _Way) -> str:
    """The geography that was asked for, else the model's first."""
    kept = way.work.kept_in
    profiles = [one for one in way.offered.get("profiles", ()) if one != "global"]
    return kept if kept and kept != "in_region" else (profiles or ["us"])[0]


# --- what rules it out -----------------------------------------------------------------------------------------------


def _against(way: _Way) -> Iterator[str]:
    yield from _not_sold(way)
    yield from _not_there(way)
    context = way.model.data.get("context_tokens", 0)
    if way.size.prompt + way.size.output > context:
        yield f"{way.size.prompt + way.size.output:,} tokens, in and out, exceed its context of {context:,}"
    if way.mode == "batch":
        yield from _no_batch(way)
    if way.cache != "none":
        yield from _no_cache(way)


def _capacity(way: _Way) -> str:
    """What to ask AWS for: nobody has published what it costs."""
    minutes = way.work.days * 24 * 60
    asked, answered = (
        -(-way.work.monthly * count // minutes) for count in (way.size.prompt, way.size.output)
    )
    need = f"{asked:,} tokens in and {answered:,} out a minute on average (its peak is what counts)"
    if way.mode == "reserved":
        least, least_out = RESERVED_LEAST
        return (
            f"reserved capacity has no published price: ask AWS for {need}, for 1 or 3 months, with {least:,} in and "
            f"{least_out:,} out at least; what goes beyond is on demand, and cache reads do not count"
        )
    return (
        f"provisioned throughput has no published price: ask AWS for the hourly price of a model unit, and how many "
        f"serve {need}"
    )


def _end(offered: Mapping[str, Any]) -> date | None:
    """The day the model ends on a platform, where one is published."""
    cycle = offered.get("lifecycle", {})
    return next((cycle[name] for name in _ENDS if name in cycle), None)


def _not_sold(way: _Way) -> Iterator[str]:
    day = way.at.date()
    end = _end(way.offered)
    if end and end <= day:
        yield f"{way.model.id} has ended on {way.platform} ({end})"
    elif way.model.released > day:
        yield f"{way.model.id} is released on {way.model.released}"
    elif not way.named:
        retired = _end(way.model.data.get("anthropic", {}))
        if retired and retired <= day:
            yield f"an old model, which its maker retired on {retired}: name it with --model"
        elif way.model.data.get("limited"):
            yield "open to invited accounts only: name it with --model"


def _not_there(way: _Way) -> Iterator[str]:
    """Residency: a place that is kept to, and endpoints that do not keep to it."""
    kept = way.work.kept_in
    if way.endpoint == "govcloud":
        if kept != "us-gov" and not way.work.region.startswith("us-gov-"):
            yield "GovCloud is a partition of its own: ask for it with --residency us-gov"
        return
    if not kept:
        return
    if way.endpoint == "global":
        yield f"residency {way.work.residency}: a global endpoint may run the call anywhere"
    elif way.platform != "bedrock":
        if kept != "us":
            yield f"residency {way.work.residency}: {way.endpoint} keeps calls in the US, and there is no other"
    elif kept == "us-gov" or way.work.region.startswith("us-gov-"):
        yield f"residency {way.work.residency}: only the endpoints of GovCloud are there"
    elif kept != "in_region" and kept not in (
        *way.offered.get("profiles", ()),
        *way.offered.get("profiles_claimed", ()),
    ):
        yield f"residency {way.work.residency}: {way.model.id} has no {kept} profile"


def _no_batch(way: _Way) -> Iterator[str]:
    work = way.work
    deadline = work.deadline_hours
    if deadline is not None and deadline < BATCH_HOURS:
        yield f"deadline of {deadline} h: a batch may take {BATCH_HOURS} h"
    if way.platform == "bedrock":
        hours = work.days * 24 if deadline is None else min(Fraction(deadline), Fraction(work.days * 24))
        waiting = int(work.monthly * hours / (work.days * 24))
        if waiting < BATCH_RECORDS and not (deadline is not None and deadline < BATCH_HOURS):
            yield f"only {waiting} requests come by the deadline: a Bedrock job has at least {BATCH_RECORDS} records"


def _no_cache(way: _Way) -> Iterator[str]:
    if way.platform == "bedrock" and way.mode == "batch":
        yield "batch forfeits caching on Bedrock"
    if not way.work.prefix_tokens:
        yield "no stable prefix was given, so nothing repeats"
        return
    minimum = _minimum(way)
    if minimum is None and way.size.prefix < SAFE_MINIMUM:
        yield (
            f"nobody has published the least prefix of {way.model.id} on {way.platform}: {SAFE_MINIMUM:,} tokens "
            f"are enough everywhere, {way.size.prefix:,} may not be"
        )
    elif minimum is not None and way.size.prefix < minimum:
        yield f"a prefix of {way.size.prefix:,} tokens is under the {minimum:,} of {way.model.id} on {way.platform}"
    if way.cache == "1h" and way.platform == "bedrock" and way.model.released < HOUR_TTL_ON_BEDROCK:
        yield f"{way.model.id} has no 1h cache on bedrock"


def _minimum(way: _Way) -> int | None:
    return way.model.cache_minimum(way.platform, way.at.date())


# --- several workloads -----------------------------------------------------------------------------------------------


def ruled_out(found: Iterable[Scenario]) -> list[tuple[str, int]]:
    """Each reason with how many ways it rules out, most first; a way may have several."""
    counted = Counter(reason for one in found for reason in one.reasons)
    return counted.most_common()


def cheapest(found: Iterable[Scenario]) -> Scenario | None:
    """The first that can be had of those of one workload, which come cheapest first."""
    return next((one for one in found if one.feasible), None)
