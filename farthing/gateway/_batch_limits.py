"""How large a batch job may be: as Service Quotas says of the account, else as it is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from farthing.gateway._batch_plan import Limits

MESSAGES = Limits(least=1, most=100_000, most_bytes=128 << 20, jobs=50)  # of Anthropic: 256 MB a batch
_A_JOB = "batch inference job"
_NAMES = {  # how Service Quotas names them, each once for every model
    "least": re.compile(f"minimum number of records per {_A_JOB} for (.+)", re.IGNORECASE),
    "most": re.compile(f"records per (?:input file per )?{_A_JOB} for (.+)", re.IGNORECASE),
    "jobs": re.compile(
        f"sum of in-progress and submitted {_A_JOB}s using a base model for (.+)", re.IGNORECASE
    ),
}
_GIGABYTE = 1 << 30


def limits_of(quotas: Iterable[Mapping[str, Any]], model: str) -> Limits:
    """Of the model with this name (Claude Sonnet 4.6). What the quotas do not say is as published.

    >>> limits_of([{"QuotaName": "Records per batch inference job for Claude Opus 5", "Value": 900.0}], "Claude Opus 5")
    Limits(least=100, most=900, most_bytes=134217728, jobs=20)
    """
    found: dict[str, int] = {}
    usual = Limits()
    for quota in quotas:
        name, value = str(quota.get("QuotaName", "")), int(quota.get("Value") or 0)
        for key, pattern in _NAMES.items():
            said = pattern.fullmatch(name)
            if said and value > 0 and _same(said[1], model):
                found[key] = min(value, found.get(key, value))
        if re.fullmatch(r"batch inference input file size.*", name, re.IGNORECASE) and value > 0 and (
            " for " not in name.lower() or _same(name.lower().rpartition(" for ")[2], model)
        ):  # fmt: skip
            found["most_bytes"] = min(value * _GIGABYTE, usual.most_bytes)
    return usual._replace(**found)


def _same(said: str, model: str) -> bool:
    """Names of a model differ in case, in `Anthropic` before them, and in their versions behind."""
    words = re.sub(r"\(.*?\)|\bv\d+\b|\banthropic('s)?\b", " ", said.lower()).split()
    return words == model.lower().split()


def ask_quotas(client: Any) -> list[Mapping[str, Any]]:
    """What Service Quotas says of Bedrock; nothing where it may not be asked."""
    try:
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="bedrock")
        return [quota for page in pages for quota in page["Quotas"]]
    except Exception:  # noqa: BLE001 - denied, no network, no such service: the published ones hold
        return []
