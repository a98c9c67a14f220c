"""The price book: TOML in, flat cards out. A price is a box: SKU x dates x prompt size x with or without cached tokens.

Every interval is half-open. Cards of one SKU never overlap (`Book.check` and the tests say so), so looking one
up has no order to get wrong; where no box holds a call, the book answers with the reason instead of a guess.
prices/README.md describes the TOML.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from farthing.meters import CACHE_METERS, METERS, Vector
from farthing.money import mtok_usd, per_mtok
from farthing.usage import MODES, PLATFORMS, Facts, ModelId, Sku, is_region, parse_model_id

PRICES = Path(__file__).with_name("prices")
START = datetime(1, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
MOST_RESOLVED = 10_000  # answers kept, for a program that meets ids without end
ANY_PROMPT = 2**63 - 1  # prompt_to of a card without an upper band


@dataclass(frozen=True, slots=True)
class Card:
    """Rates and the box they are good for.

    `rates` are picodollars per token. `cached` is False where no rate for cached tokens is published: such
    a card prices only calls that have none. `factors` tells how the rates came from the published row.
    """

    id: str
    sku: Sku
    starts: datetime
    ends: datetime
    prompt_from: int
    prompt_to: int
    cached: bool
    rates: Vector
    source: str
    accessed: date
    confidence: str
    assumed: tuple[str, ...]
    factors: str


class Unpriced(NamedTuple):
    """Why there is no price. Never the same as a price of zero."""

    reason: str


class Resolved(NamedTuple):
    """A model id in its place: the SKU, where it may run, and what had to be assumed to say so."""

    sku: Sku
    routing: str
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """One model's row of the catalogue, as the TOML states it (`data`), with its ids."""

    id: str
    data: Mapping[str, Any]

    @property
    def released(self) -> date:
        return self.data["released"]  # type: ignore[no-any-return]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.data["ids"])

    def platform(self, name: str) -> Mapping[str, Any]:
        """The model's table for a platform; empty where it is not offered there."""
        return self.data.get(name) or (self.data.get("anthropic", {}) if name == "claude_aws" else {})

    def cache_minimum(self, platform: str, at: date) -> int | None:
        """Tokens a prefix must have to be cached, on that day; None where nobody has published it."""
        rows = self.platform(platform).get("min_cacheable", ())
        known = [row for row in rows if row.get("from", self.released) <= at]
        return known[-1]["tokens"] if known else None


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass
class Book:
    """A catalogue and its cards. Models expand to cards when first asked for; the digest names the whole book.

    A book with private offers in it keeps them, and the public book that it was made from. Accounts that have offers
    of their own have SKUs of their own: `terms` is by account, and is what their SKUs say.
    """

    models: dict[str, Model]
    defaults: Mapping[str, Any]
    digest: str
    offers: tuple[Any, ...] = ()  # farthing.offers knows them
    terms: Mapping[str, str] = field(default_factory=dict)
    public: Book | None = None
    _ids: dict[str, str] = field(default_factory=dict)
    _cards: dict[str, dict[Sku, list[Card]]] = field(default_factory=dict)
    _resolved: dict[tuple[str, ...], Resolved | Unpriced] = field(default_factory=dict)

    # --- making one ---

    @classmethod
    def load(cls, folder: Path | str = PRICES) -> Book:
        """The book of a folder of TOML files; ValueError names the file and the model that are wrong."""
        models: dict[str, Model] = {}
        defaults: Mapping[str, Any] = {}
        digest = hashlib.sha256()
        for path in sorted(Path(folder).glob("*.toml")):
            data = path.read_bytes()
            digest.update(data)
            if path.name.startswith("_") and path.name != "_book.toml":
                continue
            tables = _read(path, data)
            if path.name == "_book.toml":
                defaults = tables
                continue
            twice = models.keys() & tables.keys()
            if twice:
                raise ValueError(f"{path}: {', '.join(sorted(twice))} is in another file already")
            for name, table in tables.items():
                _check_keys(path, data.decode(), name, table)
            models |= {name: Model(name, table) for name, table in tables.items()}
        if not defaults:
            raise ValueError(f"{folder}: no _book.toml, so no factors to price by")
        return cls(models, defaults, digest.hexdigest()[:12])

    def __post_init__(self) -> None:
        for model in self.models.values():
            for name in (model.id, *model.ids):
                if self._ids.setdefault(name, model.id) != model.id:
                    raise ValueError(f"the id {name} is claimed by {self._ids[name]} and {model.id}")

    # --- asking it ---

    def cards(self, *skus: Sku) -> list[Card]:
        """The cards of these SKUs, or of the whole book, in order of SKU, start and prompt size."""
        wanted: Iterable[str] = {sku.model for sku in skus} if skus else self.models
        own = {self._own(sku) for sku in skus}
        found = (card for name in sorted(wanted) for cards in self._of(name).values() for card in cards)
        return [card for card in found if not skus or card.sku in own]

    def place(
        self, facts: Facts, profiles: Mapping[str, str] | None = None, assume: Mapping[str, str] | None = None
    ) -> Resolved | Unpriced:
        """What the facts of a call come to: `resolve`, of what a source said, by the terms of its account."""
        found = self.resolve(
            facts.model_id,
            platform=facts.platform,
            region=facts.region,
            mode=facts.mode,
            inference_geo=facts.inference_geo,
            served_model=facts.served_model,
            profiles=profiles,
            assume=assume,
        )
        return self.by_terms(found, facts.account)

    def by_terms(self, found: Resolved | Unpriced, account: str) -> Resolved | Unpriced:
        """As it is sold to the account."""
        terms = self.terms.get(account)
        if not terms or isinstance(found, Unpriced):
            return found
        return found._replace(sku=found.sku._replace(terms=terms))

    @property
    def listed(self) -> Book:
        """The public book: itself where there are no offers in it."""
        return self.public or self

    def find(self, sku: Sku, at: datetime, prompt: int = 0, *, cached: bool = False) -> Card | Unpriced:
        """The one card in force, or the reason why there is none. `prompt` counts cached tokens too."""
        cards = self._of(sku.model).get(self._own(sku))
        if not cards:
            return Unpriced(self._no_sku(sku))
        prompt = min(prompt, ANY_PROMPT - 1)  # a count may be any int
        for card in cards:
            if card.starts <= at < card.ends and card.prompt_from <= prompt < card.prompt_to:
                if cached and not card.cached:
                    return Unpriced(_no_cached(sku))
                return card
        return Unpriced(self._no_date(sku, at, cards))

    def _own(self, sku: Sku) -> Sku:
        """The SKU as this book has it: where it knows no such terms, what everybody pays."""
        return sku if not sku.terms or sku in self._of(sku.model) else sku._replace(terms="")

    def check(self) -> None:
        """ValueError if two cards of one SKU overlap or a box is empty."""
        for name in self.models:
            for sku, cards in self._of(name).items():
                for i, a in enumerate(cards):
                    if not (a.starts < a.ends and a.prompt_from < a.prompt_to):
                        raise ValueError(f"{a.id}: an empty box")
                    for b in cards[i + 1 :]:
                        if a.starts < b.ends and b.starts < a.ends and (
                            a.prompt_from < b.prompt_to and b.prompt_from < a.prompt_to
                        ):  # fmt: skip
                            raise ValueError(f"{sku}: {a.id} and {b.id} overlap")

    def resolve(
        self,
        model_id: str,
        *,
        platform: str = "",
        region: str = "",
        mode: str = "",
        inference_geo: str = "",
        served_model: str = "",
        pass_model: str = "",
        profiles: Mapping[str, str] | None = None,
        assume: Mapping[str, str] | None = None,
    ) -> Resolved | Unpriced:
        """Any id to its SKU. `profiles` maps opaque profile ids or ARNs to the id they were made from.

        `served_model` is the name a response body gave: it settles the model of an opaque profile, not its
        endpoint. `pass_model` is the one that an entry of `iterations` gave: it ran on the platform of the call, at
        its endpoint if it is the call's own model; of another one the endpoint is not told. `assume` settles what the
        source left open: {"endpoint": "global" or a geography, "region": ...}.
        """
        said = (model_id, platform, region, mode, inference_geo, served_model, pass_model)
        if profiles or assume:
            return self._resolve(said, profiles or {}, assume or {})
        resolved = self._resolved.get(said)
        if resolved is None:
            if len(self._resolved) >= MOST_RESOLVED:
                self._resolved.clear()
            resolved = self._resolved[said] = self._resolve(said, {}, {})
        return resolved

    def _resolve(
        self, said: tuple[str, ...], profiles: Mapping[str, str], assume: Mapping[str, str]
    ) -> Resolved | Unpriced:
        model_id, platform, region, mode, inference_geo, served_model, pass_model = said
        opened = self._open(parse_model_id(model_id), profiles, served_model)
        if isinstance(opened, Unpriced):
            return opened
        name = self._ids.get(opened.base)
        if name is None:
            return Unpriced(self._unknown(opened.base))
        bedrock_id = opened.base.startswith("anthropic.")
        platform = platform or ("bedrock" if bedrock_id or opened.region else "anthropic")
        if pass_model:
            called, own = name, parse_model_id(pass_model)
            name = self._ids.get(own.base)
            if name is None:
                return Unpriced(self._unknown(own.base or pass_model))
            if name != called:
                opened = opened._replace(routing=own.routing)
        if platform != "bedrock":
            return self._direct(
                name, platform, mode or "on_demand", inference_geo or assume.get("inference_geo", "")
            )
        region = opened.region or region or assume.get("region", "")
        if not is_region(region):
            return Unpriced(f"unknown region {region!r}")
        routing = opened.routing
        assumed: list[str] = []
        if not routing and "endpoint" in assume:
            routing = _ROUTINGS.get(assume["endpoint"], f"geo:{assume['endpoint']}")
        elif not routing and not self._uniform(name):
            assumed.append("endpoint")
        gov = region.startswith("us-gov-") or routing == "geo:us-gov"
        endpoint = "govcloud" if gov else "global" if routing == "global" else "regional"
        zone, certain = self._zone(name, region, routing)
        if not certain:
            assumed.append("region")
        return Resolved(
            Sku(platform, name, endpoint, zone, mode or "on_demand"), routing or "unknown", tuple(assumed)
        )

    def _direct(self, name: str, platform: str, mode: str, inference_geo: str) -> Resolved | Unpriced:
        if inference_geo in ("", "global"):
            return Resolved(Sku(platform, name, "global", "", mode), inference_geo or "unknown", ())
        endpoint = f"geo_{inference_geo}"
        return Resolved(Sku(platform, name, endpoint, "", mode), f"geo:{inference_geo}", ())

    def _open(self, parsed: ModelId, profiles: Mapping[str, str], served_model: str) -> ModelId | Unpriced:
        """What an opaque profile was made from: by the map, else the model the response named."""
        if parsed.base:
            return parsed
        if parsed.kind == "provisioned-model":
            return Unpriced("provisioned throughput is billed by the hour, not by the token")
        for key in (parsed.profile, parsed.profile.rsplit("/", 1)[-1]):
            if key in profiles:
                opened = parse_model_id(profiles[key])
                if not opened.base:
                    return Unpriced(f"the profile map has {profiles[key]!r} for {key}, which names no model")
                return opened._replace(region=parsed.region)
        if served_model in self._ids:
            return parse_model_id(served_model)._replace(region=parsed.region, routing="")
        if not parsed.profile:
            return Unpriced("no model is named")
        return Unpriced(f"{parsed.kind} {parsed.profile} is not resolved: map it with --profiles FILE")

    def _zone(self, name: str, region: str, routing: str) -> tuple[str, bool]:
        """(zone, whether that is certain): by region, else by geography, else assumed."""
        zones: Mapping[str, Any] = self.models[name].platform("bedrock").get("zones", {})
        for zone, holds in zones.items():
            if region:
                if region in holds["regions"]:
                    return zone, True
            elif not routing.startswith("geo:") or routing[4:] in holds.get("partly", ()):
                return zone, False
            elif routing[4:] in holds["geographies"]:
                return zone, True
        return "", True

    def _uniform(self, name: str) -> bool:
        """Whether the model costs the same at every Bedrock endpoint, so that nothing hangs on which it was."""
        factors = self.models[name].platform("bedrock").get("endpoints", {})
        return len(set(factors.values())) == 1

    # --- saying why not ---

    def _unknown(self, base: str) -> str:
        near = difflib.get_close_matches(base, self._ids, n=3)
        return f"unknown model {base!r}" + (f"; the nearest known ids are {', '.join(near)}" if near else "")

    def _no_sku(self, sku: Sku) -> str:
        model = self.models.get(sku.model)
        if model is None:
            return self._unknown(sku.model)
        offered = model.platform(sku.platform)
        if not offered or sku.platform not in PLATFORMS:
            return f"{sku.model} has no price on {sku.platform}"
        if sku.mode == "batch" and offered.get("batch") == "none":
            return f"{sku.model} has no batch SKU on {sku.platform} ({offered['batch_source']})"
        if sku.mode == "fast":
            return f"fast mode of {sku.model} has no price on {sku.platform}"
        if sku.mode not in MODES:
            return f"no price is published for Claude in mode {sku.mode!r}"
        return f"{sku.model} has no {sku.endpoint} price on {sku.platform}" + (
            f" in {sku.mode} mode" if sku.mode != "on_demand" else ""
        )

    def _no_date(self, sku: Sku, at: datetime, cards: list[Card]) -> str:
        first, last = min(card.starts for card in cards), max(card.ends for card in cards)
        if at < first:
            return f"{sku} has no price before {first:%Y-%m-%d}"
        return (
            f"{sku} has had no price since {last:%Y-%m-%d}"
            if at >= last
            else f"{sku} has no price on {at:%Y-%m-%d}"
        )

    # --- expanding ---

    def _of(self, name: str) -> dict[Sku, list[Card]]:
        cards = self._cards.get(name)
        if cards is None:
            cards = self._cards[name] = {}
            model = self.models.get(name)
            for card in _expand(model, self.defaults) if model else ():
                cards.setdefault(card.sku, []).append(card)
            for found in cards.values():
                found.sort(key=lambda card: (card.starts, card.prompt_from))
        return cards


@cache
def default_book() -> Book:
    """The catalogue that ships with farthing, read once."""
    return Book.load()


_ROUTINGS = {
    "global": "global",
    "regional": "in_region",
    "in_region": "in_region",
    "govcloud": "geo:us-gov",
}  # else a geography


def _no_cached(sku: Sku) -> str:
    if sku.platform == "bedrock" and sku.mode == "batch":
        return "AWS publishes no rate for cached tokens in a Bedrock batch"
    return f"no rate for cached tokens of {sku.model} is published on {sku.platform}"


# --- TOML ----------------------------------------------------------------------------------------------------------


def _read(path: Path, data: bytes) -> Mapping[str, Any]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except UNREADABLE_TOML as error:
        raise ValueError(f"{path}:{toml_fault(error, text)}") from error


# What tomllib raises of a text, with parse_float=Decimal: it is no TOML, is nested too deeply, has 1e99999999999999.
UNREADABLE_TOML = (ValueError, RecursionError, ArithmeticError)


def toml_fault(error: Exception, text: str) -> str:
    """`LINE: what is wrong`, of a text that is no TOML: its end, if it ends too soon."""
    if not isinstance(error, ValueError):  # which knows no line
        what = "nested too deeply" if isinstance(error, RecursionError) else "a number beyond all bounds"
        return f"1: {what}"
    said, _, where = str(error).partition(" (at ")
    line = re.match(r"line (\d+)", where)
    return f"{line[1] if line else max(1, len(text.splitlines()))}: no TOML: {said}"


_ROW = "from to bands platforms zones cache source accessed confidence bedrock_confidence"
_SOLD = "batch batch_source cache endpoints fast from lifecycle min_cacheable profiles profiles_claimed zones"
_MODEL = "name released released_source ids tokenizer context_tokens limited sources accessed confidence factors price"
_STAGES = ("retirement", "legacy", "extended_access", "eol")
_KEYS: Mapping[
    str, Collection[str]
] = {  # of tables, by the key that they are under; those of others are free
    "": {*_MODEL.split(), *PLATFORMS},
    **{rows: {*_ROW.split(), *METERS} for rows in ("price", "fast")},
    "bands": {"over", *METERS},
    "factors": METERS,
    **dict.fromkeys(PLATFORMS, _SOLD.split()),
    "endpoints": {"global", "regional", "govcloud", "geo_us"},
    "min_cacheable": {"from", "tokens", "source"},
    "lifecycle": {"source", *(f"{stage}{more}" for stage in _STAGES for more in ("", "_by", "_not_before"))},
    "zone": {"regions", "geographies", "partly"},
}


def _check_keys(path: Path, text: str, model: str, table: Any) -> None:
    """ValueError for a key that nobody reads: what was meant by it would be lost in silence."""
    for key, known in _unknown_keys(table):
        near = difflib.get_close_matches(key, known, n=1)
        mend = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(sorted(known))}"
        lines = text.splitlines()
        heads = (n for n, line in enumerate(lines) if line.lstrip().startswith("[") and model in line)
        begins = next(heads, 0)
        said = re.compile(rf"(^|[\s{{,.\[\"']){re.escape(key)}[\"']?\s*[=.\]]")
        found = next((n for n in range(begins, len(lines)) if said.search(lines[n])), begins)
        raise ValueError(f"{path}:{found + 1}: {model}: unknown key {key!r}; {mend}")


def _unknown_keys(table: Any, of: str = "") -> Iterator[tuple[str, Collection[str]]]:
    known = _KEYS.get(of)
    for key, value in table.items() if isinstance(table, dict) else ():
        if known is not None and key not in known:
            yield key, known
        for inner in value if isinstance(value, list) else (value,):
            yield from _unknown_keys(inner, "zone" if of == "zones" else key)


# --- TOML rows to cards --------------------------------------------------------------------------------------------


def _expand(model: Model, defaults: Mapping[str, Any]) -> Iterator[Card]:
    """Every card of a model: its price rows, times endpoints, zones, modes and prompt bands."""
    for platform in PLATFORMS:
        offered = model.platform(platform)
        for mode, rows in _modes(model, platform, offered):
            for row in rows:
                if platform not in row.get("platforms", PLATFORMS):
                    continue
                bands = _bands(model, defaults, row)
                for endpoint, factor in offered.get("endpoints", {}).items():
                    for zone in ("", *offered.get("zones", ())):
                        if zone in row.get("zones", (zone,)):
                            sku = Sku(platform, model.id, endpoint, zone, mode)
                            yield from _banded(model, defaults, sku, row, bands, Fraction(factor))


def _modes(model: Model, platform: str, offered: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    if not offered:
        return
    yield "on_demand", model.data["price"]
    if offered.get("batch", "none") != "none":
        yield "batch", model.data["price"]
    if platform == "anthropic":
        yield "fast", offered.get("fast", [])


class _Band(NamedTuple):
    """Prompts from a size on: dollars per million tokens of each meter, and how they are shown."""

    prompt_from: int
    rates: Mapping[str, Fraction]
    shown: list[str]


def _bands(model: Model, defaults: Mapping[str, Any], row: Mapping[str, Any]) -> list[_Band]:
    base = _rates(row, model.data.get("factors", {}), defaults["factors"]["meter"])
    bands = [(0, base), *((band["over"] + 1, _scaled(band, row, base)) for band in row.get("bands", ()))]
    return [
        _Band(prompt_from, rates, [f"{meter} {_plain(rates[meter])}" for meter in METERS])
        for prompt_from, rates in bands
    ]


def _banded(
    model: Model,
    defaults: Mapping[str, Any],
    sku: Sku,
    row: Mapping[str, Any],
    bands: Sequence[_Band],
    endpoint_factor: Fraction,
) -> Iterator[Card]:
    mode_factor = Fraction(defaults["factors"]["mode"].get(sku.mode, 1))
    offered = model.platform(sku.platform)
    cached = row.get("cache", offered.get("cache", True)) and not (
        sku.platform == "bedrock" and sku.mode == "batch"
    )
    starts = midnight(max(row.get("from", model.released), offered.get("from", model.released)))
    ends = midnight(row["to"]) if "to" in row else FOREVER
    factor = endpoint_factor * mode_factor
    factors = "".join(
        f" x {_plain(by)} {name}"
        for name, by in ((sku.endpoint, endpoint_factor), (sku.mode, mode_factor))
        if by != 1
    )
    for i, (prompt_from, rates, shown) in enumerate(bands):
        name = f"{sku}@{starts:%Y-%m-%d}" + (f">{prompt_from - 1}" if prompt_from else "")
        yield Card(
            id=name,
            sku=sku,
            starts=starts,
            ends=ends,
            prompt_from=prompt_from,
            prompt_to=bands[i + 1].prompt_from if i + 1 < len(bands) else ANY_PROMPT,
            cached=cached,
            rates=Vector(
                *(_picos(rates[m], factor, name) if cached or m not in CACHE_METERS else 0 for m in METERS)
            ),
            source=row.get("source") or ", ".join(model.data["sources"]),
            accessed=row.get("accessed", model.data["accessed"]),
            confidence=_confidence(model, defaults, sku, row),
            assumed=_assumed(sku, offered),
            factors="list " + " / ".join(shown if cached else shown[:2]) + factors,
        )


def _rates(row: Mapping[str, Any], own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Fraction]:
    """Dollars per million tokens of each meter: as the row says, else the model's or the usual multiple of input.

    ValueError where a meter is left without any: input and output are no multiple of anything.
    """
    multiples = {meter: by for meter, by in {**usual, **own}.items() if meter in CACHE_METERS}
    if missing := [meter for meter in METERS if meter not in {**row, **multiples}]:
        raise ValueError(f"a price without `{missing[0]}`, from {row.get('from', 'the release')}")
    return {
        meter: Fraction(row[meter]) if meter in row else Fraction(row["input"]) * Fraction(multiples[meter])
        for meter in METERS
    }


def _scaled(
    band: Mapping[str, Any], row: Mapping[str, Any], base: Mapping[str, Fraction]
) -> dict[str, Fraction]:
    """A band's rates; its cache meters keep the row's own multiples of input unless the band says otherwise."""
    rise = Fraction(Fraction(band["input"]), Fraction(row["input"]))
    return {meter: Fraction(band[meter]) if meter in band else base[meter] * rise for meter in METERS}


def _picos(usd: Fraction, factor: Fraction, name: str) -> int:
    """Picodollars per token; without a Fraction on the way, since there are thousands of rates."""
    over = usd.numerator * factor.numerator * per_mtok(1)
    rate, rest = divmod(over, usd.denominator * factor.denominator)
    if rest:
        raise ValueError(f"{name}: {usd * factor} is no whole number of picodollars a token")
    return rate


def _confidence(model: Model, defaults: Mapping[str, Any], sku: Sku, row: Mapping[str, Any]) -> str:
    if sku.platform == "bedrock" and "bedrock_confidence" in row:
        return str(row["bedrock_confidence"])
    return str(defaults["confidence"].get(sku.endpoint) or row.get("confidence") or model.data["confidence"])


def _assumed(sku: Sku, offered: Mapping[str, Any]) -> tuple[str, ...]:
    """A batch rate for which no SKU has been seen is an assumption (PRICES.md 13); in GovCloud none has."""
    unseen = offered.get("batch") == "unknown" or sku.endpoint == "govcloud"
    return ("batch_rate",) if sku.mode == "batch" and unseen else ()


def _plain(value: Fraction) -> str:
    return mtok_usd((value * per_mtok(1)).numerator)
