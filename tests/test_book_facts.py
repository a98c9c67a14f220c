"""The price book against what it was made from: the fact base cell by cell, and another catalogue.

Each comparison gathers every difference, and the differences must be exactly those listed here with a reason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from farthing.book import Card, Unpriced, default_book, midnight
from farthing.meters import CACHE_METERS, METERS
from farthing.money import mtok_usd
from farthing.usage import Sku

BOOK = default_book()
NOW = datetime(2026, 11, 22, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

# --- the fact base ---------------------------------------------------------------------------------

# Three rules in which the book departs from the fact base on purpose:
# - a 1h write without a published rate, beside a 5m write with one, costs twice the input rate;
# - a Bedrock batch whose SKU was seen absent has no price, whatever the fact base works out for it;
# - what the fact base has as prose is not compared: NOT_COMPARED.
NOT_COMPARED = {
    "notes", "fast_note", "periods_note", "cache_in_batch", "prompt_caching", "disputed", "available", "label",
    "applies_to", "regions",
    "released_source",  # the release notes were read since
    "service_tiers",  # no Claude price hangs on one
}  # fmt: skip

# (model, cell): what the book has, and why it is not what the fact base has.
EXCEPTIONS: dict[tuple[str, str], tuple[Any, str]] = {
    ("claude-2.1", "released"): (date(2023, 11, 21), "the announcement"),
    ("claude-2.0", "released"): (date(2023, 7, 11), "general knowledge, marked so"),
    ("claude-instant-1.2", "released"): (date(2023, 8, 9), "general knowledge, marked so"),
    ("claude-fable-5-2", "confidence"): ("medium", "medium-high is no word of the book"),
    ("claude-3-5-sonnet-v2", "confidence"): ("high", "only its Bedrock price since 2025-12-01 is disputed"),
    ("claude-3-5-sonnet-v1", "confidence"): ("high", "only its Bedrock price since 2025-12-01 is disputed"),
    ("claude-3-7-sonnet", "sources"): ({"A_PRICE_2608"}, "that page no longer has it, earlier ones do"),
    ("claude-3-opus", "min_cacheable_tokens.anthropic"): (1024, "earlier snapshots of the page"),
    ("claude-3-haiku", "min_cacheable_tokens.anthropic"): (2048, "earlier snapshots of the page"),
    ("claude-mythos-5", "min_cacheable_tokens.bedrock_docs"): (512, "PRICES.md 4 has it"),
    ("claude-opus-4-1", "min_cacheable_tokens.bedrock_docs"): (1024, "PRICES.md 4 has it"),
    ("claude-mythos-preview", "direct.retirement"): ({"2026-06-30"}, "one of two days: _disputed.toml"),
    ("claude-3-sonnet", "bedrock.eol"): ({"2026-01-30", "2026-07-30"}, "PRICES.md 1.4 has its legacy date"),
}


def our_rates(found: Card | Unpriced) -> dict[str, Decimal | None] | None:
    if isinstance(found, Unpriced):
        return None
    rates = zip(METERS, found.rates, strict=True)
    return {
        m: Decimal(mtok_usd(rate)) if found.cached or m not in CACHE_METERS else None for m, rate in rates
    }


class Reader:
    """Walks the fact base, asks the book for each cell, and keeps the differences."""

    def __init__(self, model: str) -> None:
        self.model = BOOK.models[model]
        self.cells = 0
        self.differences: dict[tuple[str, str], Any] = {}

    def same(self, cell: str, fact: Any, ours: Any) -> None:
        self.cells += 1
        if fact != ours:
            self.differences[self.model.id, cell] = ours

    def rates(self, cell: str, fact: Mapping[str, Any], found: Card | Unpriced) -> None:
        """Every rate in a row of the fact base, in dollars; a card without cached tokens has none for them."""
        ours = our_rates(found) or dict.fromkeys(METERS)
        for meter in (meter for meter in METERS if meter in fact):
            rate = fact[meter]
            if meter == "cache_write_1h" and rate is None and fact["cache_write_5m"] is not None:
                rate = 2 * Decimal(fact["input"])
            self.same(f"{cell}.{meter}", rate and Decimal(rate), ours[meter])

    def find(
        self, place: str, mode: str = "on_demand", *, at: datetime = NOW, prompt: int = 0, zone: str = ""
    ):
        """The book's answer at a place such as bedrock/regional."""
        platform, endpoint = place.split("/")
        return BOOK.find(Sku(platform, self.model.id, endpoint, zone, mode), at, prompt)

    def periods(
        self, cell: str, rows: list[dict[str, Any]], place: str, mode: str, *, zone: str = ""
    ) -> None:
        """Dated rows: at the first and the last instant of each, above and below 200,000 tokens."""
        for row in rows:
            starts = date.fromisoformat(row["from"]) if row["from"] else self.model.released
            ends = midnight(date.fromisoformat(row["to"])) if row["to"] else NOW
            said = {meter: rate for meter, rate in row.items() if meter in METERS and rate is not None}
            for at in (midnight(starts), ends - INSTANT):
                for prompt, rates in ((200_000, said), (200_001, row.get("over_200k") or said)):
                    found = self.find(place, mode, at=at, prompt=prompt, zone=zone)
                    self.rates(f"{cell} {at} {prompt}", rates, found)


UNPRICED = dict.fromkeys(METERS)


def read_model(fact: dict[str, Any]) -> Reader:
    reader = Reader(fact["id"])
    data = reader.model.data
    direct, bedrock = fact["direct"], fact["bedrock"]
    released = fact["released"] and date.fromisoformat(fact["released"])
    reader.same("name", fact["name"], data["name"])
    reader.same("released", released, data["released"])
    reader.same("tokenizer", fact["tokenizer"].removesuffix("-4.7+"), data["tokenizer"])
    reader.same("context_tokens", fact["context_tokens"], data["context_tokens"])
    reader.same("limited_availability", fact["limited_availability"], data.get("limited", False))
    reader.same("confidence", fact["confidence"], data["confidence"])
    cards = (card for card in BOOK.cards() if card.sku.model == reader.model.id)
    sources = {key for card in cards for key in card.source.split(", ")}
    reader.same("sources", set(), set(fact["sources"]) - sources)
    minimum = fact["min_cacheable_tokens"]
    assert minimum.keys() == {"anthropic", "bedrock_docs"}
    ours = reader.model.cache_minimum("anthropic", NOW.date())
    reader.same("min_cacheable_tokens.anthropic", minimum["anthropic"], ours)
    read_aws_minimum(reader, minimum["bedrock_docs"])
    read_direct(reader, direct)
    read_bedrock(reader, bedrock)
    known = {"id", "name", "released", "tokenizer", "context_tokens", "limited_availability", "confidence", "direct",
             "bedrock", "sources", "min_cacheable_tokens"}  # fmt: skip
    assert fact.keys() <= known | NOT_COMPARED
    return reader


def read_aws_minimum(reader: Reader, fact: int | str | None) -> None:
    """A number, or the numbers one after the other: `4096 (2026-05) then 1024 (2026-09)`."""
    rows = [row["tokens"] for row in reader.model.platform("bedrock").get("min_cacheable", ())]
    cell = "min_cacheable_tokens.bedrock_docs"
    if isinstance(fact, str):
        reader.same(cell, [int(tokens) for tokens in re.findall(r"(\d+) \(", fact)], rows)
    else:
        reader.same(cell, fact, rows[-1] if rows else None)


def read_direct(reader: Reader, fact: dict[str, Any]) -> None:
    known = {"current", "batch", "inference_geo_us_multiplier", "fast", "retirement", "periods", "tiers",
             "fast_periods"}  # fmt: skip
    assert fact.keys() <= known | NOT_COMPARED
    offered = reader.model.platform("anthropic")
    geo = fact["inference_geo_us_multiplier"]
    reader.same("direct.geo_us", geo and Decimal(geo), offered["endpoints"].get("geo_us"))
    for mode, row in (("on_demand", fact["current"]), ("batch", fact["batch"])):
        reader.rates(f"direct.{mode}", row, reader.find("anthropic/global", mode))
        in_us = times(row, Decimal(geo)) if geo else UNPRICED
        reader.rates(f"direct.{mode}.geo_us", in_us, reader.find("anthropic/geo_us", mode))
    fast = fact["fast"] or UNPRICED
    if reader.model.id == "claude-opus-4-6":
        fast = fact["current"]  # runs, and costs, standard
    reader.rates("direct.fast", fast, reader.find("anthropic/global", "fast"))
    reader.periods("direct.periods", fact.get("periods", []), "anthropic/global", "on_demand")
    reader.periods("direct.fast_periods", fact.get("fast_periods", []), "anthropic/global", "fast")
    read_tiers(reader, "direct.tiers", fact.get("tiers", []), "anthropic/global")
    read_dates(reader, "direct.retirement", fact["retirement"], offered.get("lifecycle", {}))


def times(row: Mapping[str, Any], factor: Decimal) -> dict[str, Any]:
    """A row at another endpoint or in another mode: its rates, and those of its band, by the factor."""
    return {
        key: times(value, factor) if isinstance(value, dict) else value and Decimal(value) * factor
        for key, value in row.items()
        if key in METERS or key == "over_200k"
    }


def read_tiers(reader: Reader, cell: str, tiers: list[dict[str, Any]], place: str) -> None:
    for tier in tiers:
        assert tier.keys() <= {"over_prompt_tokens", *METERS} | NOT_COMPARED
        limit = tier["over_prompt_tokens"]
        reader.rates(cell, tier, reader.find(place, prompt=limit + 1))
        reader.same(f"{cell}.over_prompt_tokens", reader.find(place), reader.find(place, prompt=limit))
        if place == "anthropic/global":
            batch = reader.find(place, "batch", prompt=limit + 1)
            reader.rates(f"{cell}.batch", times(tier, Decimal("0.5")), batch)


def read_dates(reader: Reader, cell: str, fact: str | None, lifecycle: Mapping[str, Any]) -> None:
    """The days named in a text such as `2026-10-14 (legacy 2026-04-14)`; a month stands for any of its days."""
    named = set(re.findall(r"\d{4}-\d{2}(?:-\d{2})?", fact or ""))
    days = {str(day) for key, day in lifecycle.items() if key != "source"}
    reader.same(cell, named, {next((name for name in named if day.startswith(name)), day) for day in days})
    vague = any(key.endswith("_not_before") for key in lifecycle)
    reader.same(f"{cell}.vague", "sooner than" in (fact or ""), vague)


def read_bedrock(reader: Reader, fact: dict[str, Any]) -> None:
    known = {"base_model_id", "mantle_model_id", "profiles", "global", "regional", "regional_multiplier", "govcloud",
             "batch", "eol", "tiers_global", "tiers_regional", "periods", "periods_global"}  # fmt: skip
    assert fact.keys() <= known | NOT_COMPARED
    offered = reader.model.platform("bedrock")
    endpoints = offered["endpoints"]
    read_bedrock_ids(reader, fact)
    reader.same(
        "bedrock.profiles", {id.partition(".")[0] for id in fact["profiles"]}, set(offered["profiles"])
    )
    reader.same("bedrock.endpoints", {"global", "regional", "govcloud"} & fact.keys(), set(endpoints))
    factor = Decimal(fact["regional_multiplier"])
    reader.same("bedrock.regional_multiplier", factor, endpoints["regional"])
    for endpoint in endpoints.keys() & fact.keys():
        assert fact[endpoint].keys() <= {*METERS, "multiplier", "confidence"}
        reader.rates(f"bedrock.{endpoint}", fact[endpoint], reader.find(f"bedrock/{endpoint}"))
    if "govcloud" in fact:
        reader.same(
            "bedrock.govcloud.multiplier", Decimal(fact["govcloud"]["multiplier"]), endpoints["govcloud"]
        )
    read_batch(reader, fact["batch"], offered)
    dated = fact.get("periods_global", [])
    reader.periods("bedrock.periods_global", dated, "bedrock/global", "on_demand")
    regional = [{**row, **times(row, factor)} for row in dated]
    reader.periods("bedrock.periods_regional", regional, "bedrock/regional", "on_demand")
    reader.periods(
        "bedrock.periods", fact.get("periods", []), "bedrock/regional", "on_demand", zone="extended"
    )
    for endpoint in ("global", "regional"):
        tiers = fact.get(f"tiers_{endpoint}", [])
        read_tiers(reader, f"bedrock.tiers_{endpoint}", tiers, f"bedrock/{endpoint}")
    read_dates(reader, "bedrock.eol", fact["eol"], offered.get("lifecycle", {}))


def read_bedrock_ids(reader: Reader, fact: dict[str, Any]) -> None:
    base = fact["base_model_id"]
    routings = {base: "in_region", fact["mantle_model_id"] or base: "in_region"}
    for id in fact["profiles"]:
        prefix = id.removesuffix(f".{base}")
        routings[id] = "global" if prefix == "global" else f"geo:{prefix}"
    for id, routing in routings.items():
        resolved = BOOK.resolve(id)
        ours = resolved if isinstance(resolved, Unpriced) else (resolved.sku.model, resolved.routing)
        reader.same(f"bedrock.id {id}", (reader.model.id, routing), ours)


def read_batch(reader: Reader, fact: dict[str, Any], offered: Mapping[str, Any]) -> None:
    assert fact.keys() <= {"price_list_sku_seen", "global", "regional"} | NOT_COMPARED
    seen = {"y": "sku", "u": "unknown", "n": "none"}[fact["price_list_sku_seen"][0]]
    reader.same("bedrock.batch.price_list_sku_seen", seen, offered["batch"])
    for endpoint in ("global", "regional"):
        found = reader.find(f"bedrock/{endpoint}", "batch")
        row = UNPRICED if seen == "none" else fact[endpoint] or UNPRICED
        reader.rates(f"bedrock.batch.{endpoint}", row, found)
        if isinstance(found, Card):
            assumed = ("batch_rate",) if seen == "unknown" else ()
            reader.same(f"bedrock.batch.{endpoint}.assumed", (assumed, False), (found.assumed, found.cached))


@pytest.fixture(scope="module")
def rates(shared) -> dict[str, Any]:
    return json.loads((shared / "facts" / "rates.json").read_text(encoding="utf-8"))


def test_every_cell_of_the_fact_base(rates):
    assert {fact["id"] for fact in rates["models"]} <= BOOK.models.keys()  # which may have newer ones
    assert len(rates["models"]) == 32
    readers = [read_model(fact) for fact in rates["models"]]
    differences = {cell: ours for reader in readers for cell, ours in reader.differences.items()}
    assert differences == {cell: ours for cell, (ours, _) in EXCEPTIONS.items()}
    assert sum(reader.cells for reader in readers) > 2000


def test_what_the_fact_base_says_of_all_models(rates):
    assert rates["schema"] == "claude-rates/1"
    assert date.fromisoformat(rates["as_of"]) <= BOOK.defaults["as_of"]
    assert rates["sources"].keys() - {"BOTO"} <= BOOK.defaults["sources"].keys()  # BOTO has shapes, no rates
    usual, multipliers = BOOK.defaults["factors"], rates["multipliers"]
    assert usual["meter"] == {
        "cache_write_5m": Decimal(multipliers["cache_write_5m"]),
        "cache_write_1h": Decimal(multipliers["cache_write_1h"]),
        "cache_read": Decimal(multipliers["cache_read_default"]),
    }
    assert usual["mode"] == {"on_demand": 1, "batch": Decimal(multipliers["batch"])}
    for model, multiple in multipliers["cache_read_exceptions"].items():
        card = BOOK.find(Sku("anthropic", model, "global", "", "on_demand"), NOW)
        assert isinstance(card, Card)
        assert card.rates.cache_read == card.rates.input * Decimal(multiple.split()[0])
    addons = {key: Decimal(value) for key, value in rates["addons"].items() if key != "note"}
    names = {"ccu_usd": "ccu"}
    assert {names.get(key, key): value for key, value in addons.items()} == BOOK.defaults["addons"]


# --- another catalogue -----------------------------------------------------------------------------


class Known(NamedTuple):
    """Differences that are known: of these models on this platform, in these meters, for this reason."""

    platform: str
    models: str  # a pattern
    cells: str  # a pattern: mode, prompt size, day and meter, as `on_demand 0 2026-11-22 input`
    why: str


KNOWN = [
    Known(
        "bedrock",
        "claude-(sonnet-4|opus-4|opus-4-1|3-7-sonnet|3-5-haiku)",
        r".* cache_write_1h",
        "no 1h rate there",
    ),
    Known("bedrock", "claude-3-5-sonnet-v2", r".* (2024|2025-0)\S* cache_write_1h", "no 1h rate there"),
    Known("bedrock", "claude-3-5-sonnet-v2", r".* (2025-12|2026)\S* .*", "extended access is not there"),
    Known(
        "bedrock",
        "claude-3-5-sonnet-v1",
        r".* (2025-12|2026)\S* (input|output)",
        "extended access is not there",
    ),
    Known(
        "bedrock",
        "claude-3-5-sonnet-v1|claude-3-sonnet",
        r".* cache_(read|write_5m)",
        "AWS has no cache rate for it",
    ),
    Known(
        "bedrock",
        "claude-(sonnet-4|sonnet-4-[56]|opus-4-6)",
        r".* 200001 .*",
        "no long context on Bedrock there",
    ),
    Known(
        "anthropic",
        "claude-sonnet-4",
        r".* 200001 (2025-12|2026-0[12])\S* .*",
        "no long context of Sonnet 4 there",
    ),
    Known(
        "anthropic",
        "claude-sonnet-4-5",
        r".* 200001 2026-(10|11)\S* .*",
        "its tier stays after the end of the beta",
    ),
    Known(
        "anthropic|bedrock", "claude-sonnet-5-5", r".* 2026-10-01 cache_read", "no earlier read rate there"
    ),
]

# Models the other catalogue does not have.
MISSING = {
    "anthropic": {"claude-mythos-5-1", "claude-mythos-5", "claude-mythos-preview", "claude-instant-1.2"},
    "bedrock": {
        "claude-mythos-5-1",
        "claude-mythos-5",
        "claude-mythos-preview",
        "claude-2.1",
        "claude-2.0",
        "claude-instant-1.2",
    },
}
FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
DAYS = [
    datetime(*day, tzinfo=UTC)
    for day in ((2024, 12, 1), (2025, 12, 15), (2026, 2, 20), (2026, 10, 1), (2026, 11, 22))
]
CONTEXT = {"on_demand": None, "batch": {"processing": "batch"}, "fast": {"speed": "fast"}}


def their_rates(model: Any, mode: str, at: datetime, prompt: int) -> dict[str, Decimal | None]:
    prices = model.get_prices(at, CONTEXT[mode])
    found: dict[str, Decimal | None] = {}
    for meter, name in FIELDS.items():
        price = getattr(prices, name, None)
        for tier in getattr(price, "tiers", ()):
            price = tier.price if prompt > tier.start else price
        found[meter] = getattr(price, "base", price)
    return found


def skus(model: str) -> Iterator[tuple[str, str, Sku]]:
    """(their provider, the id to ask them for, our SKU)."""
    ids = BOOK.models[model].ids
    base = next(id for id in ids if id.startswith("anthropic."))
    named = next((id for id in ids if not id.startswith("anthropic.") and id != model), model)
    zone = "extended" if "zones" in BOOK.models[model].platform("bedrock") else ""
    for mode in ("on_demand", "batch", "fast"):
        yield "anthropic", named, Sku("anthropic", model, "global", "", mode)
    yield "aws", f"global.{base}", Sku("bedrock", model, "global", "", "on_demand")
    yield "aws", f"us.{base}", Sku("bedrock", model, "regional", zone, "on_demand")


def test_another_catalogue_agrees_but_for_what_is_known():
    """genai-prices: every model, platform, mode, day and band; all differences are KNOWN, and all KNOWN differ."""
    data = pytest.importorskip("genai_prices.data")
    theirs = {provider.id: provider.models for provider in data.providers}
    compared = 0
    used: set[Known] = set()
    missing: dict[str, set[str]] = {"anthropic": set(), "bedrock": set()}
    for name in BOOK.models:
        for provider, id, sku in skus(name):
            model = next((model for model in theirs[provider] if model.is_match(id)), None)
            if model is None:
                if isinstance(BOOK.find(sku, NOW), Card):
                    missing[sku.platform].add(name)
                continue
            for at in DAYS:
                for prompt in (0, 100_001, 200_001):
                    ours = our_rates(BOOK.find(sku, at, prompt))
                    rates = their_rates(model, sku.mode, at, prompt)
                    if ours is None or not has_mode(model, sku.mode, at):
                        continue
                    for meter in METERS:
                        compared += 1
                        if ours[meter] != rates[meter]:
                            cell = f"{sku.mode} {prompt} {at:%Y-%m-%d} {meter}"
                            used.add(reason_for(sku, cell, ours[meter], rates[meter]))
    assert missing == MISSING
    assert used == set(KNOWN)
    assert compared > 3000


def has_mode(model: Any, mode: str, at: datetime) -> bool:
    """Whether they price the mode at all on that day; without a variant they would answer with the standard."""
    variants = [v for v in model.price_variants or () if v.constraint is None or v.constraint.active(at)]
    return mode == "on_demand" or any(variant.when == CONTEXT[mode] for variant in variants)


def reason_for(sku: Sku, cell: str, ours: Any, theirs: Any) -> Known:
    for known in KNOWN:
        patterns = ((known.platform, sku.platform), (known.models, sku.model), (known.cells, cell))
        if all(re.fullmatch(pattern, text) for pattern, text in patterns):
            return known
    raise AssertionError(f"{sku} {cell}: the book has {ours}, they have {theirs}")
