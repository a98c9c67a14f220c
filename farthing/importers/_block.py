"""Usage blocks decoded in one go: the dialects of Claude's and Bedrock's answers, as farthing.usage reads them.

`counts` does for the blocks of millions of records what usage.read_usage does for any: the tests hold the two
to the same results. A block that lists its passes, which are priced one by one, goes to read_usage itself.
"""

# ruff: noqa: N815 - fields are named as in the JSON

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec

from farthing.usage import Entry, Reading, Usage, read_usage, split_writes, tier

Count = Annotated[int, msgspec.Meta(ge=0)]
Tokens = tuple[int, int, int, int, int]
ZERO: Tokens = (0, 0, 0, 0, 0)


class _Split(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _Detail(msgspec.Struct, gc=False):
    ttl: str | None = None
    inputTokens: Count | None = None


class _Tools(msgspec.Struct, gc=False):
    web_search_requests: Count | None = None  # those that failed are not counted


class Block(msgspec.Struct, gc=False):
    """Anthropic's names, then Converse's, whose twins in -Count are the names of Bedrock's own metrics as well."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _Split | None = None
    input_tokens_details: Any = None  # of OpenAI's models, whose input holds the cached tokens too
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: list[dict[str, Any]] | None = None
    server_tool_use: _Tools | None = None
    inputTokens: Count | None = None
    outputTokens: Count | None = None
    cacheReadInputTokens: Count | None = None
    cacheWriteInputTokens: Count | None = None
    cacheDetails: list[_Detail] | None = None
    inputTokenCount: Count | None = None
    outputTokenCount: Count | None = None
    cacheReadInputTokenCount: Count | None = None
    cacheWriteInputTokenCount: Count | None = None


def counts(block: Block) -> tuple[Tokens, bool]:
    """The five counts, and whether it is assumed how long cache writes live. Rejected if there are none."""
    if block.input_tokens_details is None and (
        block.input_tokens is not None
        or block.output_tokens is not None
        or block.cache_read_input_tokens is not None
        or block.cache_creation_input_tokens is not None
    ):
        split = block.cache_creation
        short = long = 0
        untold = False
        if split is not None:
            short = split.ephemeral_5m_input_tokens or 0
            long = split.ephemeral_1h_input_tokens or 0
        written = block.cache_creation_input_tokens or 0
        if written > short + long:
            short, long, untold = split_writes(written, short, long)
        cached = block.cache_read_input_tokens or 0
        return (block.input_tokens or 0, block.output_tokens or 0, cached, short, long), untold
    if block.input_tokens_details is None and (
        block.inputTokens is not None or block.outputTokens is not None
    ):
        short = long = other = 0
        for detail in block.cacheDetails or ():
            if detail.ttl == "5m":
                short += detail.inputTokens or 0
            elif detail.ttl == "1h":
                long += detail.inputTokens or 0
            else:
                other += detail.inputTokens or 0
        untold = False
        written = block.cacheWriteInputTokens or 0
        if block.cacheWriteInputTokenCount:
            written = max(written, block.cacheWriteInputTokenCount)
        if other or written > short + long:  # a lifetime not known here counts too
            short, long, untold = split_writes(max(written, short + long + other), short, long)
        cached = block.cacheReadInputTokens or 0
        if block.cacheReadInputTokenCount:
            cached = max(cached, block.cacheReadInputTokenCount)
        return (block.inputTokens or 0, block.outputTokens or 0, cached, short, long), untold
    (part,), assumed, *_ = passes(block)
    return five(part.tokens), "ttl" in assumed


def five(tokens: Iterable[int]) -> Tokens:
    """A Vector as a tuple."""
    return tuple(tokens)  # type: ignore[return-value]  # it has five


def passes(block: Block) -> Reading:
    """The block as usage.read_usage reads it."""
    fields = msgspec.to_builtins(block)
    return read_usage({name: value for name, value in fields.items() if value is not None})


def searches(block: Block | None, usage: Usage) -> Iterator[Entry]:
    """The web searches of a call, where it made some."""
    tools = block.server_tool_use if block else None
    if tools and tools.web_search_requests:
        yield web_searches(usage, tools.web_search_requests)


def web_searches(usage: Usage, made: int) -> Entry:
    """Under the call's id: each of its records tells them, and they count once."""
    facts = usage.parts[0][0]._replace(assumed="")
    return Entry(f"web_search:{usage.ids[0]}", usage.at_us, "web_search", made, facts)


def says_something(block: Block) -> bool:
    """Whether it has counts in a dialect that is known: those of other vendors' models may not."""
    return not (
        block.input_tokens is None
        and block.output_tokens is None
        and block.cache_read_input_tokens is None
        and block.cache_creation_input_tokens is None
        and block.inputTokens is None
        and block.outputTokens is None
        and block.inputTokenCount is None
        and block.outputTokenCount is None
    )


def update(old: Block | None, new: Block) -> Block:
    """`old` with what `new` says: the events of a stream, whose counts are cumulative."""
    if old is None:
        return new
    for name in Block.__struct_fields__:
        value = getattr(new, name)
        if value is not None:
            setattr(old, name, value)
    return old


def geography(block: Block | None) -> str:
    """Where Anthropic was asked to run the call; "" if it was not."""
    geo = (block.inference_geo if block else None) or ""
    return "" if geo == "not_available" else geo


def mode(block: Block | None, *tiers: Any) -> str:
    """How the call was sent, by what the block and the settings around it say; "" is the standard way."""
    if block is not None and (block.service_tier is not None or block.speed is not None):
        if block.service_tier != "batch" and block.speed == "fast":
            return "fast"
        tiers = (block.service_tier, *tiers)
    return next(filter(None, map(tier, tiers)), "")
