"""Other catalogues of prices, read: litellm's, genai-prices' and langfuse's.

Each row of theirs becomes entries: what it names, the SKU that our book takes that for, and dollars per million tokens
of each meter, by prompt size. Rows about sellers that farthing does not price are counted by seller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from farthing.book import Book, Unpriced
from farthing.meters import METERS
from farthing.pricelist._lines import PriceListError
from farthing.pricelist._open import read_json
from farthing.usage import Sku

MILLION = 1_000_000
NO_PRICE = Decimal("NaN")
Rates = Mapping[str, Decimal]  # dollars per million tokens, by meter; NaN where theirs is no price


class Entry(NamedTuple):
    """`bands` are prompt sizes above which rates hold, the first above nothing (0)."""

    name: str
    sku: Sku | Unpriced
    bands: tuple[tuple[int, Rates], ...]

    def rates(self, prompt: int) -> Rates:
        """Of each meter what the highest band below that prompt says."""
        found: dict[str, Decimal] = {}
        for over, rates in self.bands:
            if not over or prompt > over:
                found |= rates
        return found


@dataclass
class Catalogue:
    kind: str
    entries: list[Entry] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # rows by seller, or by why they are passed over
    malformed: list[tuple[str, str]] = field(default_factory=list)  # rows that cannot be read, and why

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """One row of theirs: if it is not as they write them, it is kept by name, and the others count."""
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            self.malformed.append((name, f"not as {self.kind} writes it: {error!r}"))

    def readable(self) -> bool:
        return any(
            rate.is_finite() for one in self.entries for _, rates in one.bands for rate in rates.values()
        )


def read_catalogue(place: str, book: Book, at: datetime) -> Catalogue:
    """A file or address, told apart by its shape; `genai-prices` alone is the installed package."""
    document = _installed() if place == "genai-prices" else read_json(place)
    for kind, (fits, read) in KINDS.items():
        if fits(document):
            found = Catalogue(kind)
            read(document, book, at, found)
            if found.readable():
                return found
            for name, why in found.malformed:
                raise PriceListError(f"{place}: {name}: {why}")
            if found.entries:
                raise PriceListError(
                    f"{place}: {found.entries[0].name}: not as {kind} writes it: no price in it"
                )
            raise PriceListError(f"{place}: no price of Claude in this {kind} catalogue")
    raise PriceListError(f"{place}: none of the catalogues known here: {', '.join(KINDS)}")


def _installed() -> Any:
    try:
        from genai_prices.data import providers
    except ImportError as error:
        raise PriceListError("genai-prices: not installed here: name its data file, or install it") from error
    return _plain(providers)


def _plain(value: Any) -> Any:
    """Their objects as their JSON has them."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if hasattr(value, "__dict__"):
        return {key.rstrip("_"): _plain(part) for key, part in vars(value).items() if part is not None}
    return value


# --- litellm ------------------------------------------------------------------------------------------------------

_LITELLM = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
}
_ABOVE = re.compile(r"(?P<key>.+?)(_above_(?P<over>\d+)k_tokens)?(?P<batch>_batches)?")
_SELLERS = ("anthropic", "bedrock", "bedrock_converse", "bedrock_mantle")


def _is_litellm(document: Any) -> bool:
    return isinstance(document, dict) and any(
        isinstance(row, dict) and row.keys() & {"litellm_provider", *_LITELLM} for row in document.values()
    )


def _read_litellm(document: Any, book: Book, at: datetime, found: Catalogue) -> None:
    for name, row in document.items():
        if "claude" in name:
            with found.row(name):
                _read_litellm_row(name, row, book, found)


def _read_litellm_row(name: str, row: Mapping[str, Any], book: Book, found: Catalogue) -> None:
    seller = str(row.get("litellm_provider") or _litellm_seller(name))
    if seller not in _SELLERS:
        found.skipped[seller] += 1
        return
    if "-commitment/" in name:
        found.skipped["provisioned"] += 1
        return
    platform, region, id = _litellm_place(name, seller)
    for mode, bands in _litellm_rates(row).items():
        sku = _sku(book, id, platform=platform, region=region, mode=mode)
        found.entries.append(Entry(name if mode == "on_demand" else f"{name} ({mode})", sku, bands))
    beside = row.get("provider_specific_entry") or {}
    base = _litellm_rates(row).get("on_demand", ())
    for key, said in (("us", {"inference_geo": "us"}), ("fast", {"mode": "fast"})):
        if key in beside and base and platform == "anthropic":
            by = _dollars(beside[key])
            bands = tuple((over, {m: rate * by for m, rate in rates.items()}) for over, rates in base)
            found.entries.append(Entry(f"{name} ({key})", _sku(book, id, platform=platform, **said), bands))


def _litellm_seller(name: str) -> str:
    """Of a row that does not say it, as in a proxy's own list of prices: the name does."""
    path, _, id = name.rpartition("/")
    return path.split("/")[0] or ("bedrock" if "anthropic." in id else "anthropic")


def _litellm_place(name: str, seller: str) -> tuple[str, str, str]:
    """Platform, region and model id: `bedrock/us-gov-east-1/anthropic.claude...`."""
    *path, id = name.split("/")
    if "claude_platform" in path:
        return "claude_aws", "", id
    region = next((part for part in path if re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", part)), "")
    return ("anthropic" if seller == "anthropic" else "bedrock"), region, id


def _litellm_rates(row: Mapping[str, Any]) -> dict[str, tuple[tuple[int, Rates], ...]]:
    """Bands by mode."""
    modes: dict[str, dict[int, dict[str, Decimal]]] = {}
    for key, value in row.items():
        match = _ABOVE.fullmatch(key)
        meter = _LITELLM.get(match["key"]) if match else None
        if match and meter and value is not None:
            mode = "batch" if match["batch"] else "on_demand"
            over = int(match["over"] or 0) * 1000
            modes.setdefault(mode, {}).setdefault(over, {})[meter] = _dollars(value) * MILLION
    return {mode: tuple(sorted(bands.items())) for mode, bands in modes.items()}


# --- genai-prices -------------------------------------------------------------------------------------------------

_GENAI = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
}
_WHEN = {(("processing", "batch"),): "batch", (("speed", "fast"),): "fast"}


def _is_genai(document: Any) -> bool:
    return isinstance(document, list) and any(
        isinstance(row, dict) and "models" in row and "id" in row for row in document
    )


def _read_genai(document: Any, book: Book, at: datetime, found: Catalogue) -> None:
    ids = _our_ids(book)
    for provider in document:
        with found.row(_named(provider, "id")):
            _read_genai_provider(provider, ids, at, found)


def _read_genai_provider(
    provider: Mapping[str, Any], ids: Iterable[tuple[str, Sku]], at: datetime, found: Catalogue
) -> None:
    platform = {"anthropic": "anthropic", "aws": "bedrock"}.get(provider["id"])
    if platform is None:
        claude = [model for model in provider["models"] if "claude" in _named(model, "id")]
        found.skipped.update({provider["id"]: len(claude)} if claude else {})
        return
    models = []
    for model in provider["models"]:
        with found.row(f"{provider['id']}: {_named(model, 'id')}"):
            _fits(model["match"], model["id"])  # one that cannot be looked up by is told apart here
            models.append(model)
    # Each id is theirs who matches it first, as they look it up.
    taken: dict[str, list[Sku]] = {}
    for id, sku in ids:
        first = next((model for model in models if _fits(model["match"], id)), None)
        if first and sku.platform == platform and sku not in taken.setdefault(first["id"], []):
            taken[first["id"]].append(sku)
    for model in (model for model in models if "claude" in model["id"]):
        with found.row(model["id"]):
            for mode, bands in _genai_modes(model, at):
                name = model["id"] if mode == "on_demand" else f"{model['id']} ({mode})"
                skus = [sku._replace(mode=mode) for sku in taken.get(model["id"], ())]
                found.entries += [Entry(name, sku, bands) for sku in _matched(skus)]


def _named(row: Any, key: str) -> str:
    """What a row calls itself; of one that is no row, what it is."""
    return str(row.get(key)) if isinstance(row, dict) else repr(row)[:40]


def _matched(skus: Iterable[Sku]) -> list[Sku | Unpriced]:
    return list(skus) or [Unpriced("no id of the book is one that it matches")]


def _fits(clause: Mapping[str, Any], id: str) -> bool:
    (kind, said), *_ = clause.items()
    if kind in ("or", "and"):
        return (any if kind == "or" else all)(_fits(part, id) for part in said)
    if kind == "regex":
        return bool(re.search(said, id))
    text = str(said).lower()
    return {
        "equals": id == text,
        "starts_with": id.startswith(text),
        "ends_with": id.endswith(text),
        "contains": text in id,
    }.get(kind, False)


def _genai_modes(
    model: Mapping[str, Any], at: datetime
) -> Iterator[tuple[str, tuple[tuple[int, Rates], ...]]]:
    """Of prices the last that is active holds, or the first; of variants the first, price by price."""
    prices = model["prices"]
    held = prices if isinstance(prices, list) else [{"prices": prices}]
    standard = [row["prices"] for row in held if _active(row, at)] or [held[0]["prices"]]
    yield "on_demand", _genai_bands(standard[-1])
    variants: dict[str, dict[str, Any]] = {}
    for variant in model.get("price_variants") or ():
        mode = _WHEN.get(tuple(variant["when"].items()))
        if mode and _active(variant, at):
            variants[mode] = variant["prices"] | variants.get(mode, {})
    for mode, said in variants.items():
        yield mode, _genai_bands(standard[-1] | said)


def _active(row: Mapping[str, Any], at: datetime) -> bool:
    constraint = row.get("constraint") or {}
    return "start_time" not in constraint and str(constraint.get("start_date", ""))[:10] <= f"{at:%Y-%m-%d}"


def _genai_bands(prices: Mapping[str, Any]) -> tuple[tuple[int, Rates], ...]:
    bands: dict[int, dict[str, Decimal]] = {}
    for key, value in prices.items():
        meter = _GENAI.get(key)
        if meter is None or value is None:
            continue
        steps = value if isinstance(value, dict) else {"base": value, "tiers": []}
        bands.setdefault(0, {})[meter] = _dollars(steps["base"])
        for tier in steps["tiers"]:
            bands.setdefault(int(tier["start"]), {})[meter] = _dollars(tier["price"])
    return tuple(sorted(bands.items()))


# --- langfuse -----------------------------------------------------------------------------------------------------

_LANGFUSE = {
    "input": ("input", "input_tokens"),
    "output": ("output", "output_tokens"),
    "cache_read": ("input_cache_read", "cache_read_input_tokens"),
    "cache_write_5m": ("input_cache_creation_5m", "input_cache_creation", "cache_creation_input_tokens"),
    "cache_write_1h": ("input_cache_creation_1h",),
}


def _is_langfuse(document: Any) -> bool:
    return isinstance(document, list) and any(
        isinstance(row, dict) and "matchPattern" in row for row in document
    )


def _read_langfuse(document: Any, book: Book, at: datetime, found: Catalogue) -> None:
    ids = _our_ids(book)
    for row in document:
        name = _named(row, "modelName")
        with found.row(name):
            if "claude" not in row["modelName"].lower():
                continue
            try:
                pattern = re.compile(row["matchPattern"])
            except re.error as error:
                found.entries.append(
                    Entry(name, Unpriced(f"its pattern is none: {error}"), _langfuse_bands(row))
                )
                continue
            for sku in _matched(dict.fromkeys(sku for id, sku in ids if pattern.search(id))):
                found.entries.append(Entry(name, sku, _langfuse_bands(row)))


def _langfuse_bands(row: Mapping[str, Any]) -> tuple[tuple[int, Rates], ...]:
    bands: dict[int, Rates] = {}
    for tier in row.get("pricingTiers") or [{"isDefault": True, "prices": row.get("prices") or {}}]:
        sizes = [said for said in tier.get("conditions") or () if said.get("operator") == "gt"]
        if not tier.get("isDefault") and not sizes:
            continue
        over = 0 if tier.get("isDefault") else int(sizes[0]["value"])
        prices = tier["prices"]
        bands[over] = {
            meter: _dollars(prices[key]) * MILLION
            for meter in METERS
            if (key := next((key for key in _LANGFUSE[meter] if key in prices), ""))
        }
    return tuple(sorted(bands.items()))


# --- what they name -----------------------------------------------------------------------------------------------


def _dollars(value: Any) -> Decimal:
    """As it is written; NaN if it is no price, which leaves the row's other meters as they are."""
    try:
        said = Decimal(str(value))
    except InvalidOperation:
        return NO_PRICE
    return said if said.is_finite() and said >= 0 else NO_PRICE


def _sku(
    book: Book, id: str, *, platform: str = "", region: str = "", mode: str = "", inference_geo: str = ""
) -> Sku | Unpriced:
    found = book.resolve(id, platform=platform, region=region, mode=mode, inference_geo=inference_geo)
    return found if isinstance(found, Unpriced) else found.sku


def _our_ids(book: Book) -> list[tuple[str, Sku]]:
    """Every id that a call of a model of the book may have, with its system profiles."""
    found = []
    for model in book.models.values():
        bedrock = model.platform("bedrock")
        prefixes = [
            f"{prefix}." for prefix in (*bedrock.get("profiles", ()), *bedrock.get("profiles_claimed", ()))
        ]
        for id in dict.fromkeys((model.id, *model.ids)):
            on_bedrock = id.startswith("anthropic.")
            for prefix in ("", *(prefixes if on_bedrock else ())):
                sku = _sku(book, prefix + id)
                if isinstance(sku, Sku) and model.platform(sku.platform):
                    found.append((prefix + id, sku))
    return found


KINDS: dict[str, tuple[Callable[[Any], bool], Callable[[Any, Book, datetime, Catalogue], None]]] = {
    "litellm": (_is_litellm, _read_litellm),
    "genai-prices": (_is_genai, _read_genai),
    "langfuse": (_is_langfuse, _read_langfuse),
}
