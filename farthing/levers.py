"""The levers: each rewrites usage (never prices), so that what it would have cost is rating again.

A lever is a function from a SKU and its tokens to another SKU and the same tokens, perhaps on other meters;
it answers None where it cannot apply. Totals are conserved: caching moves tokens, nothing makes or destroys
any. To add one, write one function under `@lever`: the reports, the docs and the law tests find it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farthing.meters import Vector
from farthing.usage import Sku

Rewritten = tuple[Sku, Vector] | None
Rewrite = Callable[[Sku, Vector], Rewritten]


@dataclass(frozen=True, slots=True)
class Lever:
    """`exact` levers say to the picodollar what the same tokens would have cost; the others are upper limits.

    `undo` rewrites usage that has the lever into what it would be without: that is what it already saves.
    """

    name: str
    says: str
    exact: bool
    rewrite: Rewrite
    undo: Rewrite


LEVERS: dict[str, Lever] = {}


def lever(says: str, *, exact: bool, undo: Rewrite) -> Callable[[Rewrite], Lever]:
    def register(rewrite: Rewrite) -> Lever:
        made = LEVERS[rewrite.__name__] = Lever(rewrite.__name__, says, exact, rewrite, undo)
        return made

    return register


# The tier below, same tokens. Within a generation, so that what is compared was on sale together.
BELOW = {
    "claude-fable-5-2": "claude-opus-5-5",
    "claude-fable-5-1": "claude-opus-5-5",
    "claude-fable-5": "claude-opus-5",
    "claude-opus-5-5": "claude-sonnet-5-5",
    "claude-opus-5": "claude-sonnet-5",
    "claude-opus-4-8": "claude-sonnet-5",
    "claude-opus-4-7": "claude-sonnet-5",
    "claude-opus-4-6": "claude-sonnet-4-6",
    "claude-opus-4-5": "claude-sonnet-4-5",
    "claude-opus-4-1": "claude-sonnet-4-5",
    "claude-opus-4": "claude-sonnet-4-5",
    "claude-3-opus": "claude-sonnet-4-5",
    "claude-sonnet-5-5": "claude-haiku-5-5",
    "claude-sonnet-5": "claude-haiku-5-5",
    "claude-sonnet-4-6": "claude-haiku-4-5",
    "claude-sonnet-4-5": "claude-haiku-4-5",
    "claude-sonnet-4": "claude-haiku-4-5",
    "claude-3-7-sonnet": "claude-haiku-4-5",
    "claude-3-5-sonnet-v2": "claude-sonnet-4-6",  # at 6/30 a newer Sonnet is the cheaper tier
    "claude-3-5-sonnet-v1": "claude-sonnet-4-6",
    "claude-3-sonnet": "claude-haiku-4-5",
}


def _tier_above(sku: Sku, tokens: Vector) -> Rewritten:
    above = next((high for high, low in BELOW.items() if low == sku.model), None)
    return (sku._replace(model=above), tokens) if above and sku.mode != "fast" else None


@lever("Use the tier below, same tokens: ask for its quality first.", exact=True, undo=_tier_above)
def tier(sku: Sku, tokens: Vector) -> Rewritten:
    below = BELOW.get(sku.model)
    if below is None or sku.mode == "fast":
        return None
    return sku._replace(model=below, zone=""), tokens


def _uncached(sku: Sku, tokens: Vector) -> Rewritten:
    return (sku, Vector(input=tokens.prompt, output=tokens.output)) if tokens.cached else None


@lever(
    "Cache what repeats: every uncached input token read from a cache instead.", exact=False, undo=_uncached
)
def caching(sku: Sku, tokens: Vector) -> Rewritten:
    if not tokens.input or (sku.platform == "bedrock" and sku.mode == "batch"):
        return None
    return sku, tokens.move(tokens.input, "input", "cache_read")


def _on_demand(sku: Sku, tokens: Vector) -> Rewritten:
    return (sku._replace(mode="on_demand"), tokens) if sku.mode == "batch" else None


@lever("Send it as a batch: half price; on Bedrock batch forfeits the cache.", exact=False, undo=_on_demand)
def batch(sku: Sku, tokens: Vector) -> Rewritten:
    if sku.mode != "on_demand":
        return None
    if sku.platform == "bedrock":
        tokens = Vector(input=tokens.prompt, output=tokens.output)
    return sku._replace(mode="batch"), tokens


def _regional(sku: Sku, tokens: Vector) -> Rewritten:
    if sku.endpoint != "global":
        return None
    return sku._replace(endpoint="regional" if sku.platform == "bedrock" else "geo_us"), tokens


@lever("Call the global endpoint: regional is 1.1 times global.", exact=True, undo=_regional)
def endpoint(sku: Sku, tokens: Vector) -> Rewritten:
    if sku.endpoint not in ("regional", "geo_us"):
        return None
    return sku._replace(endpoint="global"), tokens


# --- rewrites that take an argument, for plans -----------------------------------------------------------------------

Ratio = tuple[int, int]
SAME: Ratio = (1, 1)
# Tokens of the newer tokenizer for one of the older: Anthropic says 1.0 to 1.35, and about 30 % more. For a given text
# nobody knows it without counting, so plans carry all three.
KAPPA: tuple[Ratio, Ratio, Ratio] = (SAME, (13, 10), (27, 20))


def to_model(model: str, kappa: Ratio = SAME, *, cacheable: bool = True) -> Rewrite:
    """Another model for the same text. `kappa` tokens of its tokenizer for one of today's, rounded up, on each meter.

    `cacheable` is False where the prompts are under the model's minimum: then they are sent plain.
    """
    above, below = kappa

    def rewrite(sku: Sku, tokens: Vector) -> Rewritten:
        if sku.mode == "fast" or sku.model == model:
            return None
        counted = Vector(*(-(-count * above // below) for count in tokens))
        if not cacheable:
            counted = Vector(input=counted.prompt, output=counted.output)
        return sku._replace(model=model, zone=""), counted

    return rewrite


def to_platform(platform: str) -> Rewrite:
    """The same call bought from another seller. Away from Bedrock there is no region, and no geography but the US.

    Tokens stay on their meters, but in a Bedrock batch, which forfeits the cache.
    """

    def rewrite(sku: Sku, tokens: Vector) -> Rewritten:
        if sku.platform == platform:
            return None
        at_home = "regional" if platform == "bedrock" else "geo_us"
        endpoint = at_home if sku.endpoint in ("geo_us", "govcloud") else sku.endpoint
        if platform != "bedrock" and endpoint == "regional":
            endpoint = "global"
        if platform == "bedrock" and sku.mode == "batch":
            tokens = Vector(input=tokens.prompt, output=tokens.output)
        return sku._replace(platform=platform, endpoint=endpoint, zone=""), tokens

    return rewrite


def family(model: str) -> str:
    """opus, sonnet, haiku ...: of models of one family the newer is the successor."""
    words = [word for word in model.split("-") if word.isalpha() and word not in ("claude", "v")]
    return words[0] if words else ""


def batch_pays(tokens: Vector, own: Vector, batched: Vector) -> bool:
    """Whether these calls cost less in a batch, which forfeits the cache, at these rates: in exact integers.

    With reads at a tenth, output at five times input and batches at half price that is phi < 0.556 + 2.78 O/I, where
    phi is the share of the prompt that is read, and the rest is sent plain.
    """
    plain = Vector(input=tokens.prompt, output=tokens.output)
    return bool(plain @ batched < tokens @ own)
