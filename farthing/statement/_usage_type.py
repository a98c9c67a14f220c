"""What a line of an AWS bill is about, from its usage type and the names beside it.

AWS has written Claude's usage types in several grammars (camel case, snake case, with and without the model, mantle),
and prints them in thousands or millions of tokens. All of them are words in some order, so they are read as words:
cache before input, an hour before plain writes. What is not understood is said to be so, and keeps its money.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from farthing.book import Book

Name = tuple[str, tuple[int, ...], str]  # family, version, revision of a model

TOKENS = "tokens"
UNDECODED = "undecoded"  # Claude's, or so it seems, and not understood
RESERVED = ("reserved", "provisioned")  # capacity bought ahead, and what is used of it


class About(NamedTuple):
    """`kind` is `tokens`, a class beside tokens (reserved, provisioned, guardrail ...), `undecoded`, or "" for lines
    that have nothing to do with Bedrock or Claude. `scale` is tokens a unit; `why` says what was not understood.
    """

    kind: str
    platform: str = ""
    model: str = ""
    endpoint: str = ""
    mode: str = ""
    meter: str = ""
    long_prompt: bool = False
    mantle: bool = False
    region: str = ""
    scale: int = 0
    why: str = ""


# AWS's billing codes of regions (FORMATS: the rarer ones are not confirmed; a region column is believed first).
_REGIONS = {
    "USE1": "us-east-1", "USE2": "us-east-2", "USW1": "us-west-1", "USW2": "us-west-2",
    "CAN1": "ca-central-1", "CAN2": "ca-west-1", "SAE1": "sa-east-1", "MXC1": "mx-central-1",
    "EU": "eu-west-1", "EUW1": "eu-west-1", "EUW2": "eu-west-2", "EUW3": "eu-west-3",
    "EUC1": "eu-central-1", "EUC2": "eu-central-2", "EUN1": "eu-north-1", "EUS1": "eu-south-1", "EUS2": "eu-south-2",
    "APN1": "ap-northeast-1", "APN2": "ap-northeast-2", "APN3": "ap-northeast-3",
    "APS1": "ap-southeast-1", "APS2": "ap-southeast-2", "APS3": "ap-south-1", "APS4": "ap-southeast-3",
    "APS5": "ap-south-2", "APS6": "ap-southeast-4", "APE1": "ap-east-1",
    "MES1": "me-south-1", "MEC1": "me-central-1", "AFS1": "af-south-1", "ILC1": "il-central-1",
    "UGW1": "us-gov-west-1", "UGE1": "us-gov-east-1",
}  # fmt: skip
_FAMILIES = ("opus", "sonnet", "haiku", "fable", "mythos", "instant")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+[hm](?![a-z])|\d+")
_REGION = re.compile(r"([A-Z]{2,3}\d?)-")
_BESIDE = {
    "guardrail": "guardrail", "guardrails": "guardrail", "agentcore": "agentcore", "knowledgebase": "knowledge_base",
    "rerank": "knowledge_base", "customization": "customization", "storage": "customization",
    "flow": "other", "flows": "other", "evaluation": "other", "dataautomation": "other",
}  # fmt: skip


def about(
    names: Mapping[Name, str],
    usage_type: str,
    product_code: str = "",
    product_name: str = "",
    unit: str = "",
    description: str = "",
    region: str = "",
    resource: str = "",
) -> About:
    """What the line says; `names` are the book's models (`by_name`).

    `resource` is an ARN, which names the model where nothing else does.
    """
    said = f"{usage_type} {product_code} {product_name} {description} {resource}".lower()
    of_claude = "claude" in said or "anthropic" in said
    if "claude platform" in said:
        return About("ccu", "claude_aws", region=region)
    words = words_of(usage_type)
    if "bedrock" not in said and not (of_claude and "token" in said):
        if of_claude:  # seats and the like: not of Bedrock, and money all the same
            return About("other", region=region)
        if "MP:" in usage_type and _meter(words):
            return About(UNDECODED, "bedrock", region=region, why="no product name that tells the model")
        return About("")
    code = _REGION.match(usage_type)
    where = region or (_REGIONS.get(code[1], "") if code else "")
    kind = _beside(words, product_code)
    if kind and not (of_claude and kind == "other"):
        return About(kind, "bedrock", region=where)
    if not of_claude:
        return About("other_model" if _meter(words) else "other", "bedrock", region=where)
    return _of_claude(names, words, where, unit, description, product_name, usage_type, resource)


def _of_claude(
    names: Mapping[Name, str],
    words: list[str],
    region: str,
    unit: str,
    description: str,
    product_name: str,
    usage_type: str,
    resource: str,
) -> About:
    model = next(
        filter(None, (_model(names, text) for text in (product_name, usage_type, resource, description))), ""
    )
    meter = _meter(words)
    scale = _scale(unit, description, usage_type)
    kind = next((kind for kind in RESERVED if kind in words or kind in "".join(words)), "")
    if kind and meter and scale:  # tokens that ran in it
        return About(kind, "bedrock", model, "", kind, meter, region=region, scale=scale)
    if kind:
        return About(kind, "bedrock", model, region=region)
    why = (
        "no model that the book knows"
        if not model
        else "no meter in its usage type"
        if not meter
        else "no unit that tells how many tokens it counts"
        if not scale
        else ""
    )
    if why:
        return About(UNDECODED, "bedrock", model, region=region, why=why)
    endpoint = "global" if "global" in words else "govcloud" if region.startswith("us-gov-") else "regional"
    long_prompt = re.search("long|lctx", "".join(words)) is not None  # LCtx is two words
    return About(
        TOKENS, "bedrock", model, endpoint, _mode(words), meter, long_prompt, "mantle" in words, region, scale
    )


def words_of(text: str) -> list[str]:
    """The words of a usage type, in lower case.

    >>> words_of("USE1-MP:USE1_CacheWrite1hInputTokenCount_Global-Units")[5:]
    ['cache', 'write', '1h', 'input', 'token', 'count', 'global', 'units']
    """
    return [word.lower() for word in _WORD.findall(text)]


def _meter(words: list[str]) -> str:
    said = set(words)
    if "cache" in said and "read" in said:
        return "cache_read"
    if "cache" in said and "write" in said:
        return "cache_write_1h" if "1h" in said else "cache_write_5m"
    if not said & {"token", "tokens"}:
        return ""
    return "output" if "output" in said else "input" if "input" in said else ""


def _mode(words: list[str]) -> str:
    said = set(words)
    for mode in ("batch", "priority", "flex", "fast"):
        if mode in said:
            return mode
    return "latency_optimized" if "latency" in said or "optimized" in said else "on_demand"


def _beside(words: list[str], product_code: str) -> str:
    if "agentcore" in product_code.lower():
        return "agentcore"
    joined = "".join(words)
    for name, kind in _BESIDE.items():
        if name in words or name in joined:
            return kind
    return "log_delivery" if "vendedlog" in joined else ""


_THOUSANDS = re.compile(r"\b1k\b|\b1,?000 |thousand|\bper k\b", re.IGNORECASE)
_MILLIONS = re.compile(r"\b1m\b|million|\b1,?000,?000 ", re.IGNORECASE)


def _scale(unit: str, description: str, usage_type: str) -> int:
    """Tokens a unit: by the unit, then by the description, then by the grammar of the usage type."""
    for text in (unit, description):
        if _MILLIONS.search(text):
            return 1_000_000
        if _THOUSANDS.search(text):
            return 1_000
    if re.fullmatch(r"tokens?", unit.strip(), re.IGNORECASE):
        return 1
    if "MP:" in usage_type:
        return 1_000_000
    return 1_000 if _REGION.match(usage_type) else 0


# --- models --------------------------------------------------------------------------------------------------------


def _model(names: Mapping[Name, str], text: str) -> str:
    """The model that a text names by family and version: `Claude Opus 4.6`, `Claude4.6Sonnet`, an id or ARN."""
    if not re.search(r"claude|anthropic", text, re.IGNORECASE):
        return ""
    found = _named(_bare(text))
    return names.get(found, "") if found else ""


def _bare(text: str) -> str:
    """Without what stands before the model and is like it: a region code, a vendor, an account."""
    start = re.search(r"claude", text, re.IGNORECASE)
    return text[start.start() :] if start else text


_NAMES = tuple(
    re.compile(pattern.replace("FAMILY", "|".join(_FAMILIES)))
    for pattern in (
        r"(?P<family>FAMILY)[ -]?(?P<major>\d)(?![\dhm])(?:[.-](?P<minor>\d{1,2})(?!\d))?",  # Claude Opus 4.6
        r"claude[ -]?(?P<major>\d)(?:[.-](?P<minor>\d))?[ -]?(?P<family>FAMILY)",  # Claude 3.5 Sonnet
        r"claude[ -]?(?P<family>FAMILY)",
        r"claude[ -]?v?(?P<major>\d)(?:\.(?P<minor>\d))?",
    )
)


def _named(text: str) -> Name | None:
    """Family, version and revision: 3.5 Sonnet has two."""
    text = text.lower()
    match = next(filter(None, (pattern.search(text) for pattern in _NAMES)), None)
    if match is None:
        return None
    said = match.groupdict()
    version = tuple(int(said[part]) for part in ("major", "minor") if said.get(part))
    family = said.get("family") or "claude"
    revision = ""
    if (family, version) == ("sonnet", (3, 5)):
        revision = "v2" if re.search(r"v2(?!\d)|20241022", text) else "v1"
    return family, version, revision


def by_name(book: Book) -> Mapping[Name, str]:
    """The book's models by family and version, as their ids and names write them."""
    found: dict[Name, str] = {}
    for model in book.models.values():
        for text in (model.id, str(model.data.get("name", ""))):
            named = _named(_bare(text))
            if named:
                found.setdefault(named, model.id)
    found.setdefault(("claude", (2,), ""), "claude-2.0")
    return found
