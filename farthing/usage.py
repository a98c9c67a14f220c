"""What was used: SKUs, model ids in every form Bedrock and Anthropic write them, and usage blocks in every dialect.

Reading an id is syntax only (this file); which model it names, and at what price, is the book's to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from farthing.meters import METERS, Vector

PLATFORMS = ("bedrock", "anthropic", "claude_aws")
MODES = ("on_demand", "batch", "fast")
GEOGRAPHIES = (
    "us-gov",
    "us",
    "eu",
    "apac",
    "jp",
    "au",
    "in",
    "ca",
)  # system profile prefixes beside `global`


class Sku(NamedTuple):
    """What has a price. `zone` is "" unless the model's price differs by region group (3.5 Sonnet).

    `terms` tells accounts apart that have private offers of their own; a public price has none (docs/contracts.md).
    """

    platform: str
    model: str
    endpoint: str
    zone: str
    mode: str
    terms: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self[:5] if part)

    def named(self) -> dict[str, Any]:
        """What is sold, by name: all but the terms."""
        return dict(zip(self._fields[:5], self[:5], strict=True))


class Facts(NamedTuple):
    """What a source said of a part of a call, apart from counts and times. "" is what it did not say.

    Facts only: which SKU they amount to is asked of the book when a report is made, so that a later book,
    profile map or `--assume` reaches back. Calls share few distinct Facts; the ledger stores each once.
    """

    source: str  # bedrock_log, claude_code ...
    platform: str = ""  # bedrock, anthropic, claude_aws; "" leaves it to the id
    model_id: str = ""  # as called: an id or ARN of any form
    served_model: str = ""  # as the response body names it
    region: str = ""  # the caller's: the billing region
    account: str = ""
    principal: str = ""
    mode: str = ""  # "" is on_demand
    inference_geo: str = ""
    session: str = ""
    project: str = ""
    operation: str = ""
    status: str = ""  # "" is success, else the error code or why nothing was billed
    assumed: str = ""  # what of the counts is assumed: "ttl"; several with commas between


class Usage(NamedTuple):
    """One record of one call, as a source saw it. The same call may be seen many times, by many sources."""

    at_us: int  # request time, microseconds since 1970 UTC
    request_id: str  # the platform's request id, or a digest of the line where it has no id at all
    message_id: str  # the response's own id
    parts: tuple[tuple[Facts, tuple[int, int, int, int, int]], ...]  # tokens in the order of METERS
    tags: tuple[tuple[str, str], ...] = ()  # sorted
    latency_ms: int | None = None
    sidechain: bool = False
    gateway_id: str = ""  # of whoever passed the call on: a gateway, a hook, a batch job and its record
    also: tuple[str, ...] = ()  # further ids that other records of the call named; sorted

    @property
    def at(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.at_us)

    @property
    def ids(self) -> list[str]:
        """Every id it was seen under; a call that shares one with it is the same, unless they contradict."""
        return [name for name in (self.message_id, self.request_id, self.gateway_id, *self.also) if name]


class Total(NamedTuple):
    """What a source counted in all over a period: a control, never usage beside single calls.

    `name` is a meter, `cache_write` (where lifetimes are not told), calls, errors, throttles, web_searches, or
    usd (then `value` is picodollars). Of two with all the rest alike, the one read last holds.
    """

    source: str  # anthropic_usage, cloudwatch ...
    start_us: int  # [start, end), microseconds since 1970 UTC
    end_us: int
    name: str
    value: int
    platform: str = ""
    account: str = ""
    region: str = ""
    model_id: str = ""
    mode: str = ""
    inference_geo: str = ""
    principal: str = ""
    session: str = ""
    scope: str = ""  # what it sums over, where a source gives sums at several levels: never add two of them

    @property
    def said(self) -> tuple[str, ...]:
        """All but period and value."""
        return (self.source, self.name, *self[5:])


ENTRY_UNITS = {"session": "ms", "web_search": "searches", "code_execution": "ms"}  # by kind


class Entry(NamedTuple):
    """A use of what is no token, as a source told it: like usage a fact, and priced when a report is made.

    Of two with the same id the greater quantity holds: a count that goes on is told as it grows.
    """

    id: str
    at_us: int  # microseconds since 1970 UTC
    kind: str  # of ENTRY_UNITS
    quantity: int  # in the unit of its kind
    facts: Facts
    free: str = ""  # why nothing is due: not_running, failed, with_web_tools

    @property
    def at(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.at_us)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_TOKENS = 2**35  # of one record: beyond it a row times the dearest rate could pass 63 bits


# --- model ids ---------------------------------------------------------------------------------------------------


class ModelId(NamedTuple):
    """A model id taken apart. `base` is "" when the id names no model (application profile, provisioned)."""

    base: str
    routing: str  # in_region, geo:us, geo:eu ..., global, or "" where the id does not say
    region: str  # of the caller, when the id is an ARN
    account: str
    profile: str  # the profile or resource that must be resolved, or the system profile's own id
    kind: str  # model, application-inference-profile, provisioned-model ...


_ARN = re.compile(
    r"arn:aws(?P<partition>-[a-z-]+)?:bedrock:(?P<region>[a-z0-9-]*):(?P<account>\d{12})?:"
    r"(?P<kind>[a-z-]+)/(?P<rest>.+)",
)
_PROFILE = re.compile(rf"(?:(?P<prefix>global|{'|'.join(GEOGRAPHIES)})\.)?(?P<base>anthropic\.claude.+)")
_CONTEXT_SUFFIX = re.compile(
    r"(:\d+k|\[1m\])$"
)  # `...-v1:0:200k` of provisioned models, `...[1m]` of Claude Code

OPAQUE = ("application-inference-profile", "provisioned-model", "custom-model", "custom-model-deployment",
          "imported-model", "prompt", "prompt-router", "default-prompt-router")  # fmt: skip


def parse_model_id(text: str) -> ModelId:
    """Take any id apart that an InvokeModel or Converse call, a transcript or a bill may hold (PRICES.md 2).

    >>> parse_model_id("eu.anthropic.claude-sonnet-4-6").routing
    'geo:eu'
    >>> parse_model_id("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5").region
    'us-east-1'
    """
    text = text.strip()
    arn = _ARN.fullmatch(text)
    if arn is None:
        return _named(text, "", "")
    region, account, kind, rest = arn["region"], arn["account"] or "", arn["kind"], arn["rest"]
    if kind in ("foundation-model", "inference-profile"):
        return _named(rest, region, account)
    return ModelId("", "", region, account, text, kind)


def _named(text: str, region: str, account: str) -> ModelId:
    text = _CONTEXT_SUFFIX.sub("", text)
    match = _PROFILE.fullmatch(text)
    if match is None:
        return ModelId(text, "", region, account, "", "model")
    prefix = match["prefix"]
    if prefix is None:
        return ModelId(match["base"], "in_region", region, account, "", "model")
    routing = "global" if prefix == "global" else f"geo:{prefix}"
    return ModelId(match["base"], routing, region, account, text, "model")


_VERSION = re.compile(r"-v\d+(:\d+)?$")
_DATE = re.compile(r"-\d{8}$")


def is_own(named: str, called: str, served: str = "") -> bool:
    """Whether the model that a pass names is the one called; of an id that names none, the one served.

    Answers name models bare, with a date or without. "" is the call's own.

    >>> is_own("claude-haiku-4-5-20251001", "us.anthropic.claude-haiku-4-5-20251001-v1:0")
    True
    >>> is_own("claude-opus-4-8", "global.anthropic.claude-fable-5", served="claude-opus-4-8")
    False
    """
    own = _VERSION.sub("", parse_model_id(called).base.removeprefix("anthropic.")) or served
    return named in ("", called, own, _DATE.sub("", own)) or _DATE.sub("", named) == own


# --- usage blocks ------------------------------------------------------------------------------------------------


class Rejected(ValueError):
    """A record that says something impossible: negative or fractional counts, no usage at all."""


@dataclass(frozen=True, slots=True)
class Part:
    """One sampling pass of a call. `model` is "" when it is the call's own."""

    tokens: Vector
    model: str = ""


class Reading(NamedTuple):
    """A usage block understood: its parts, what it left unsaid, and what it says of how the call ran."""

    parts: tuple[Part, ...]
    assumed: tuple[str, ...] = ()
    mode: str = ""  # batch or fast, where the block says so
    inference_geo: str = ""


def count(value: Any, name: str) -> int:
    """A token count, or Rejected: an int of any size, not negative, not a bool, not a fraction."""
    if value.__class__ is int:
        if value < 0:
            raise Rejected(f"{name} is negative ({value})")
        return value
    if value is None:
        return 0
    raise Rejected(f"{name} is no whole number ({quoted(value)})")


def quoted(value: Any) -> str:
    """What stands in the place of a number, for a reason. A text is not repeated: it may be a prompt's.

    >>> quoted(1.5), quoted("7.5"), quoted("Dear Sir"), quoted([])
    ('1.5', "'7.5'", 'text', 'list')
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= 20 and not value.strip("0123456789+-.,eE ") else "text"
    return f"{value!r:.20}" if isinstance(value, int | float) else type(value).__name__


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """A nested block, empty where it is absent, or Rejected: what it counts must not be lost over its type."""
    if value.__class__ is dict or isinstance(value, Mapping):
        return value
    if value is None:
        return {}
    raise Rejected(f"{name} is no object ({type(value).__name__})")


def _objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or None in value:
        raise Rejected(f"{name} is no list of objects ({type(value).__name__})")
    return [_object(entry, f"an entry of {name}") for entry in value]


def _word(value: Any, name: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise Rejected(f"{name} is no text ({type(value).__name__})")


def read_usage(block: Mapping[str, Any]) -> Reading:
    """The tokens of any dialect's usage block; Rejected if it is none of them or impossible.

    Native meters, Anthropic (InvokeModel, mantle, Messages), Converse with `cacheDetails` and its twin
    fields, the counts of an invocation log, OTel gen_ai attributes, LiteLLM and other OpenAI-style blocks.
    """
    if block.__class__ is not dict and not isinstance(block, Mapping):
        raise Rejected(f"the usage block is no object ({type(block).__name__})")
    for known, read in _DIALECTS:
        if not known.isdisjoint(block):
            reading = read(block)
            if not any(any(part.tokens) for part in reading.parts) and _says_nothing(known, block):
                raise Rejected("the usage block has names, but no counts")
            return reading
    raise Rejected(
        f"no usage block of a known dialect (keys: {', '.join(sorted(map(str, block))[:6]) or 'none'})"
    )


def _says_nothing(known: frozenset[str], block: Mapping[str, Any]) -> bool:
    """Whether every count of it is null: that is not known, and not 0."""
    return all(block[name] is None for name in known & block.keys())


def split_writes(written: int, short: int, long: int) -> tuple[int, int, bool]:
    """(5m, 1h, assumed): what of `written` no TTL is told for counts as 5m (PRICES.md 13)."""
    untold = written - short - long
    return (short + untold, long, True) if untold > 0 else (short, long, False)


def settle_ttl(tokens: Vector, assumed: tuple[str, ...], ttl: str) -> tuple[Vector, tuple[str, ...]]:
    """What split_writes assumed, settled by someone who knows: 5m, or 1h; "" leaves it assumed."""
    if not ttl or "ttl" not in assumed:
        return tokens, assumed
    if ttl == "1h":
        tokens = tokens.move(tokens.cache_write_5m, "cache_write_5m", "cache_write_1h")
    return tokens, tuple(name for name in assumed if name != "ttl")


def _native(block: Mapping[str, Any]) -> Reading:
    unknown = block.keys() - set(METERS)
    if unknown:
        raise Rejected(f"no such meter: {', '.join(sorted(map(str, unknown)))} (meters: {', '.join(METERS)})")
    return Reading((Part(Vector.of(lambda meter: count(block.get(meter), meter))),))


def _anthropic(block: Mapping[str, Any]) -> Reading:
    iterations = _objects(block.get("iterations"), "iterations")
    if iterations:
        # Top level leaves compaction and advisor work out: each pass is billed at its own model (PRICES.md 4).
        if any(_ANTHROPIC.isdisjoint(entry) for entry in iterations):
            raise Rejected("an entry of iterations has no counts")
        read = [_anthropic_pass(entry) for entry in iterations]
        models = [_word(entry.get("model"), "iterations.model") for entry in iterations]
        billed = _billed([entry.get("type") for entry in iterations], [tokens for tokens, _ in read])
        parts = tuple(Part(read[at][0], models[at]) for at in billed)
        split_untold = any(read[at][1] for at in billed)
    else:
        tokens, split_untold = _anthropic_pass(block)
        parts = (Part(tokens),)
    mode = tier(block.get("service_tier"))
    if mode != "batch" and block.get("speed") == "fast":
        mode = "fast"
    geo = _word(block.get("inference_geo"), "inference_geo")
    return Reading(parts, ("ttl",) if split_untold else (), mode, "" if geo == "not_available" else geo)


STANDARD_TIERS = {"", "standard", "standard_only", "default", "auto", "on_demand", "none"}


def tier(said: Any) -> str:
    """The mode that a service tier stands for: "" is the standard one. Priority and flex have no price for Claude."""
    if not isinstance(said, str) or said.lower() in STANDARD_TIERS:
        return ""
    return "latency_optimized" if said == "optimized" else said


_ATTEMPTS = ("message", "fallback_message")


def _billed(types: Sequence[Any], tokens: Sequence[Vector]) -> list[int]:
    """The places of the passes that are billed: an attempt that was refused before any output, so that another model
    made the next, reports counts and costs nothing (PRICES.md 4)."""
    fell_back = [at for at, kind in enumerate(types) if kind == "fallback_message"]
    last = fell_back[-1] if fell_back else 0
    return [at for at, kind in enumerate(types) if tokens[at].output or kind not in _ATTEMPTS or at >= last]


def _anthropic_pass(block: Mapping[str, Any]) -> tuple[Vector, bool]:
    split = _object(block.get("cache_creation"), "cache_creation")
    short, long, untold = split_writes(
        count(block.get("cache_creation_input_tokens"), "cache_creation_input_tokens"),
        count(split.get("ephemeral_5m_input_tokens"), "ephemeral_5m_input_tokens"),
        count(split.get("ephemeral_1h_input_tokens"), "ephemeral_1h_input_tokens"),
    )
    return Vector(
        count(block.get("input_tokens"), "input_tokens"),
        count(block.get("output_tokens"), "output_tokens"),
        count(block.get("cache_read_input_tokens"), "cache_read_input_tokens"),
        short,
        long,
    ), untold  # fmt: skip


def _converse(block: Mapping[str, Any]) -> Reading:
    def either(name: str) -> int:  # the twins are copies: adding both would double the cache
        twin = f"{name.removesuffix('s')}Count"
        return max(count(block.get(name), name), count(block.get(twin), twin))

    details: dict[str, int] = {}
    for entry in _objects(block.get("cacheDetails"), "cacheDetails"):
        ttl = _word(entry.get("ttl"), "cacheDetails.ttl")
        details[ttl] = details.get(ttl, 0) + count(entry.get("inputTokens"), "cacheDetails.inputTokens")
    written = max(either("cacheWriteInputTokens"), sum(details.values()))  # a TTL not known here counts too
    short, long, untold = split_writes(written, details.get("5m", 0), details.get("1h", 0))
    tokens = Vector(
        count(block.get("inputTokens"), "inputTokens"),
        count(block.get("outputTokens"), "outputTokens"),
        either("cacheReadInputTokens"),
        short,
        long,
    )
    return Reading((Part(tokens),), ("ttl",) if untold else ())


def _invocation_counts(block: Mapping[str, Any]) -> Reading:
    written = count(block.get("cacheWriteInputTokenCount"), "cacheWriteInputTokenCount")
    tokens = Vector(
        count(block.get("inputTokenCount"), "inputTokenCount"),
        count(block.get("outputTokenCount"), "outputTokenCount"),
        count(block.get("cacheReadInputTokenCount"), "cacheReadInputTokenCount"),
        written,
    )
    return Reading((Part(tokens),), ("ttl",) if written else ())


def _otel(block: Mapping[str, Any]) -> Reading:
    def first(*names: str) -> int:
        return max(count(block.get(f"gen_ai.usage.{name}"), name) for name in names)

    return _inclusive(
        prompt=first("input_tokens", "prompt_tokens"),
        output=first("output_tokens", "completion_tokens"),
        read=first("cache_read.input_tokens", "cache_read_input_tokens"),
        written=first(
            "cache_creation.input_tokens", "cache_write.input_tokens", "cache_creation_input_tokens"
        ),
        short=0,
        long=0,
        certain=False,
    )


def _openai(block: Mapping[str, Any]) -> Reading:
    details = _object(block.get("prompt_tokens_details"), "prompt_tokens_details")
    split = _object(details.get("cache_creation_token_details"), "cache_creation_token_details")
    split = split or _object(block.get("cache_creation"), "cache_creation")
    return _inclusive(
        prompt=count(block.get("prompt_tokens"), "prompt_tokens"),
        output=count(block.get("completion_tokens"), "completion_tokens"),
        read=max(
            count(block.get("cache_read_input_tokens"), "cache_read_input_tokens"),
            count(details.get("cached_tokens"), "cached_tokens"),
        ),
        written=max(
            count(block.get("cache_creation_input_tokens"), "cache_creation_input_tokens"),
            count(details.get("cache_creation_tokens"), "cache_creation_tokens"),
            count(details.get("cache_write_tokens"), "cache_write_tokens"),
        ),
        short=count(split.get("ephemeral_5m_input_tokens"), "ephemeral_5m_input_tokens"),
        long=count(split.get("ephemeral_1h_input_tokens"), "ephemeral_1h_input_tokens"),
        certain=True,
    )


def _responses(block: Mapping[str, Any]) -> Reading:
    """OpenAI's newer names: here `input_tokens` includes the cached ones, other than in Anthropic's block."""
    return _openai(
        {
            **block,
            "prompt_tokens": block.get("input_tokens"),
            "completion_tokens": block.get("output_tokens"),
            "prompt_tokens_details": block["input_tokens_details"],
        }
    )


def _input_tokens(block: Mapping[str, Any]) -> Reading:
    """`input_tokens` is a name in three dialects, which their other names tell apart."""
    if "prompt_tokens" in block:
        return _openai(block)
    if "uncached_input_tokens" in block:  # a row of Anthropic's usage report
        block = {"input_tokens": block["uncached_input_tokens"], **block}
    return _anthropic(block) if block.get("input_tokens_details") is None else _responses(block)


def _inclusive(
    *, prompt: int, output: int, read: int, written: int, short: int, long: int, certain: bool
) -> Reading:
    """Sources whose input includes the cached tokens. One that holds less than they do excludes them (FORMATS.md 8)."""
    short, long, untold = split_writes(written, short, long)
    cached = read + short + long
    includes = prompt >= cached
    tokens = Vector(prompt - cached if includes else prompt, output, read, short, long)
    assumed: tuple[str, ...] = ("ttl",) if untold else ()
    if cached and includes and not certain:
        assumed += ("input_includes_cache",)  # the OTel convention says so, not every instrumentation does
    return Reading((Part(tokens),), assumed)


_ANTHROPIC = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "uncached_input_tokens",
    }
)
_DIALECTS = (
    (_ANTHROPIC, _input_tokens),
    (frozenset({"inputTokens", "outputTokens"}), _converse),
    (frozenset({"inputTokenCount", "outputTokenCount"}), _invocation_counts),
    (frozenset({"prompt_tokens", "completion_tokens"}), _openai),
    (frozenset(f"gen_ai.usage.{name}_tokens" for name in ("input", "output", "prompt", "completion")), _otel),
    (frozenset(METERS), _native),
)  # fmt: skip


_REGION = re.compile(
    r"(?:us|eu|ap|sa|ca|me|af|il|mx|cn|us-gov|us-iso[a-z]?|eu-isoe|eusc-de)-"
    r"(?:north|south|east|west|central|northeast|northwest|southeast|southwest)-[1-9]"
)


def is_region(region: str) -> bool:
    """Whether it is "", where none is said, or has the form that AWS gives to names of regions."""
    return not region or _REGION.fullmatch(region) is not None


def check_region(region: str) -> str:
    """The region, or Rejected if it cannot be one."""
    if not is_region(region):
        raise Rejected(f"unknown region {region!r}")
    return region
