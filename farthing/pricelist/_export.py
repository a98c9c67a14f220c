"""The book as data: JSON with a schema of ours, CSV, and the forms of two other catalogues. docs/prices-schema.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from farthing.book import ANY_PROMPT, FOREVER, Book, Card, Model, Resolved
from farthing.meters import CACHE_METERS, METERS
from farthing.money import mtok_usd, usd
from farthing.usage import Sku

SCHEMA = "farthing-prices/1"


def as_json(book: Book) -> dict[str, Any]:
    """All of it: models, cards, sources. A rate that is not published is null, never 0."""
    return {
        "schema": SCHEMA,
        "book": book.digest,
        "as_of": str(book.defaults.get("as_of", "")),
        "currency": "USD",
        "unit": "per 1,000,000 tokens",
        "models": [_model(model) for model in book.models.values()],
        "cards": [_card(card) for card in book.cards()],
        "sources": {
            key: {name: str(value) for name, value in said.items()}
            for key, said in book.defaults.get("sources", {}).items()
        },
    }


def _model(model: Model) -> dict[str, Any]:
    data = model.data
    return {
        "id": model.id,
        "name": data.get("name", ""),
        "released": str(model.released),
        "ids": list(model.ids),
        "context_tokens": data.get("context_tokens"),
        "tokenizer": data.get("tokenizer"),
        "lifecycle": {
            platform: {key: str(value) for key, value in life.items()}
            for platform in ("bedrock", "anthropic")
            if (life := model.platform(platform).get("lifecycle"))
        },
    }


def _card(card: Card) -> dict[str, Any]:
    return {
        "id": card.id,
        **card.sku.named(),
        "from": f"{card.starts:%Y-%m-%d}",
        "to": None if card.ends == FOREVER else f"{card.ends:%Y-%m-%d}",
        "prompt_from": card.prompt_from,
        "prompt_to": None if card.prompt_to == ANY_PROMPT else card.prompt_to,
        **{meter: _rate(card, meter) for meter in METERS},
        "source": card.source,
        "accessed": str(card.accessed),
        "confidence": card.confidence,
        "assumed": list(card.assumed),
    }


def _rate(card: Card, meter: str) -> str | None:
    if meter in CACHE_METERS and not card.cached:
        return None
    return mtok_usd(getattr(card.rates, meter))


def as_csv(book: Book) -> str:
    """The cards, a line each; what is null in JSON is empty."""
    rows = [_card(card) for card in book.cards()]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"assumed": " ".join(row["assumed"])} for row in rows)
    return out.getvalue()


# --- as litellm writes it -----------------------------------------------------------------------------------------

_LITELLM = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
}


def as_litellm(book: Book, at: datetime) -> dict[str, dict[str, Any]]:
    """What holds at that time, by every id a call may have; its numbers are dollars per token."""
    found = {}
    for name, seller, sku in _names(book):
        row: dict[str, Any] = {}
        for suffix, mode in (("", "on_demand"), ("_batches", "batch")):
            for card in _in_force(book, sku._replace(mode=mode), at):
                # A band is told in thousands of tokens, and every band of the book is whole thousands.
                above = f"_above_{(card.prompt_from - 1) // 1000}k_tokens" if card.prompt_from else ""
                for meter, rate in _published(card):
                    row[f"{_LITELLM[meter]}{above}{suffix}"] = float(usd(rate))
        if row:
            model = book.models[sku.model].data
            found[name] = row | {
                "litellm_provider": seller,
                "mode": "chat",
                "max_input_tokens": model.get("context_tokens"),
                "supports_prompt_caching": True,
            }
    return found


def _names(book: Book) -> Iterator[tuple[str, str, Sku]]:
    for model in book.models.values():
        for id in dict.fromkeys((model.id, *model.ids)):
            if not id.startswith("anthropic."):
                if model.platform("anthropic"):
                    yield id, "anthropic", Sku("anthropic", model.id, "global", "", "on_demand")
                    yield f"bedrock/claude_platform/{id}", "bedrock", _direct(model)
                continue
            for prefix in ("", *(f"{name}." for name in _profiles(model))):
                found = book.resolve(prefix + id)
                if isinstance(found, Resolved):
                    yield prefix + id, "bedrock_converse", found.sku


def _direct(model: Model) -> Sku:
    return Sku("claude_aws", model.id, "global", "", "on_demand")


def _profiles(model: Model) -> list[str]:
    bedrock = model.platform("bedrock")
    return [*bedrock.get("profiles", ()), *bedrock.get("profiles_claimed", ())]


def _in_force(book: Book, sku: Sku, at: datetime) -> list[Card]:
    return [card for card in book.cards(sku) if card.starts <= at < card.ends]


def _published(card: Card) -> Iterator[tuple[str, int]]:
    for meter in METERS if card.cached else METERS[:2]:
        yield meter, getattr(card.rates, meter)


# --- as genai-prices writes it ------------------------------------------------------------------------------------

_GENAI = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
_VARIANTS = {"batch": {"processing": "batch"}, "fast": {"speed": "fast"}}


def as_genai(book: Book) -> list[dict[str, Any]]:
    """Two providers, anthropic and aws, with every price and its first day; its numbers are dollars per million."""
    direct: list[dict[str, Any]] = []
    bedrock: list[dict[str, Any]] = []
    for model in book.models.values():
        ids = dict.fromkeys((model.id, *model.ids))
        names = [id for id in ids if not id.startswith("anthropic.")]
        if model.platform("anthropic"):
            sku = Sku("anthropic", model.id, "global", "", "on_demand")
            direct += _genai_model(book, model, model.id, names, sku)
        by_sku: dict[Sku, list[str]] = {}
        for name, seller, sku in _names(book):
            if sku.model == model.id and seller == "bedrock_converse":
                by_sku.setdefault(sku, []).append(name)
        for sku, matched in by_sku.items():
            bedrock += _genai_model(book, model, matched[0], matched, sku)
    return [
        {
            "id": "anthropic",
            "name": "Anthropic",
            "api_pattern": r"https://api\.anthropic\.com",
            "models": direct,
        },
        {
            "id": "aws",
            "name": "AWS Bedrock",
            "api_pattern": r"https://bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com/",
            "models": bedrock,
        },
    ]


def _genai_model(book: Book, model: Model, id: str, names: list[str], sku: Sku) -> Iterator[dict[str, Any]]:
    prices = _genai_prices(book, sku)
    if not prices:
        return
    variants = [
        {"when": when, **row}
        for mode, when in _VARIANTS.items()
        if _goes_on(book, sku._replace(mode=mode))
        for row in reversed(_genai_prices(book, sku._replace(mode=mode)))  # the first that is active holds
    ]
    yield {
        "id": id,
        "match": {"or": [{"equals": name} for name in names]},
        "name": model.data.get("name", ""),
        "context_window": model.data.get("context_tokens"),
        "prices": prices,
    } | ({"price_variants": variants} if variants else {})


def _goes_on(book: Book, sku: Sku) -> bool:
    """Whether its prices have no end: their form has first days only."""
    return any(card.ends == FOREVER for card in book.cards(sku))


def _genai_prices(book: Book, sku: Sku) -> list[dict[str, Any]]:
    """A row for each first day, with the bands of that day as tiers."""
    days: dict[datetime, list[Card]] = {}
    for card in book.cards(sku):
        days.setdefault(card.starts, []).append(card)
    return [
        {"constraint": {"start_date": f"{day:%Y-%m-%d}"}, "prices": _genai_rates(cards)}
        for day, cards in sorted(days.items())
    ]


def _genai_rates(cards: list[Card]) -> dict[str, Any]:
    first, *longer = cards
    found: dict[str, Any] = {}
    for meter, rate in _published(first):
        tiers = [
            {"start": card.prompt_from - 1, "price": _number(getattr(card.rates, meter))} for card in longer
        ]
        found[_GENAI[meter]] = {"base": _number(rate), "tiers": tiers} if tiers else _number(rate)
    return found


def _number(rate: int) -> int | float:
    said = Decimal(mtok_usd(rate))
    return int(said) if said == said.to_integral_value() else float(said)
