"""Usage and cost reports of Anthropic's Admin API, and its Claude Code analytics: control totals.

A `scope` begins with what its report was grouped by (`messages:model+workspace_id`): totals of one such level are
disjoint, those of two count the same usage twice. A dimension that is null all over a page was not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from farthing.importers._batch import Reject
from farthing.importers._read import Item, Lines, instant
from farthing.importers._totals import MOST, added, listed, mapped, text, values, whole
from farthing.money import from_usd
from farthing.usage import Rejected, Total

_FIRST = (  # what a page's data begins with: none, a bucket, a day of somebody
    rb'\]\s*,\s*"has_more"\s*:\s*(?:true|false)\s*,\s*"next_page"',
    rb'\{\s*"(?:starting_at|ending_at|results)"\s*:',
    rb'\{\s*(?:"date"\s*:\s*"[^"]{8,40}"\s*,\s*)?"actor"\s*:\s*\{',
)
_OPENS = re.compile(
    rb'\s*(?:\xef\xbb\xbf)?\[?\s*\{\s*(?:"(?:starting_at|ending_at)"\s*:\s*"|'
    rb'(?:"(?:has_more|next_page)"\s*:\s*[^,{}\[\]]*,\s*)*"data"\s*:\s*\[\s*(?:' + rb"|".join(_FIRST) + rb"))"
)

_TOKENS = {
    "uncached_input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
}
_WRITES = {
    "ephemeral_5m_input_tokens": "cache_write_5m",
    "ephemeral_1h_input_tokens": "cache_write_1h",
}
_CODE_TOKENS = {
    "input": "input",
    "output": "output",
    "cache_read": "cache_read",
    "cache_creation": "cache_write",
}
_MODES = {"standard": "on_demand"}
_PRINCIPALS = ("api_key_id", "account_id", "service_account_id")
_AMOUNTS = {"amount", "currency"}
_DAY_US = 86_400_000_000


def sniff(head: bytes) -> bool:
    return _OPENS.match(head) is not None


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    for found in values(lines):
        if isinstance(found, Reject):
            yield found
            continue
        number, page = found
        try:
            entries = _entries(page)
        except Rejected as fault:
            yield Reject(number, str(fault))
            continue
        levels = _levels(entry for _, entry in entries)
        for place, entry in entries:
            yield from _read(number, place, entry, levels)


def _entries(page: Any) -> list[tuple[str, dict[str, Any]]]:
    """The buckets or days of a page, with their place in it."""
    if not isinstance(page, dict):
        raise Rejected("no page of a report")
    if page.get("type") == "error":
        kind = text(mapped(page.get("error"), "error").get("type")) or "error"
        raise Rejected(f"the API's answer was an error ({kind[:40]}), no report; ask it again")
    if "data" not in page:
        return [("", page)]
    entries = listed(page["data"], "data")
    return [(f"data[{i}]: ", mapped(entry, f"data[{i}]")) for i, entry in enumerate(entries)]


def _read(number: int, place: str, entry: dict[str, Any], levels: dict[str, str]) -> Iterator[Item]:
    """The totals of a bucket; a bad row of it costs that row."""
    try:
        if "actor" in entry:
            yield from added(_of_actor(entry))
            return
        period = instant(entry.get("starting_at")), instant(entry.get("ending_at"))
        results = listed(entry.get("results"), "results")
    except Rejected as fault:
        yield Reject(number, f"{place}{fault}")
        return
    good: list[Total] = []
    for i, result in enumerate(results):
        try:
            row = mapped(result, "the row")
            good += _of_cost(row, period, levels) if "amount" in row else _of_tokens(row, period, levels)
        except (Rejected, ValueError) as fault:
            yield Reject(number, f"{place}results[{i}]: {fault}")
    yield from added(iter(good))


def _of_tokens(row: dict[str, Any], period: tuple[int, int], levels: dict[str, str]) -> list[Total]:
    counts = {meter: row.get(name) for name, meter in _TOKENS.items()}
    writes = mapped(row.get("cache_creation"), "cache_creation")
    counts |= {meter: writes.get(name) for name, meter in _WRITES.items()}
    counts["web_searches"] = mapped(row.get("server_tool_use"), "server_tool_use").get("web_search_requests")
    if all(count is None for count in counts.values()):
        raise Rejected("neither tokens nor an amount")
    said = _fields(levels["messages"], _dimensions(row) | _period(period))
    return [
        Total("anthropic_usage", *period, name, whole(count, name), **said)
        for name, count in counts.items()
        if count is not None
    ]


def _of_cost(row: dict[str, Any], period: tuple[int, int], levels: dict[str, str]) -> list[Total]:
    currency = row.get("currency") or "USD"
    if currency != "USD":
        raise Rejected(f"an amount in {str(currency)[:10]}, where USD is expected")
    said = _fields(levels["cost"], _dimensions(row) | _period(period))
    return [Total("anthropic_usage", *period, "usd", _of_cents(row["amount"]), **said)]


def _of_cents(amount: Any) -> int:
    """Picodollars of cents, which come as a decimal string."""
    picos, rest = divmod(from_usd(str(amount)), 100)
    if rest:
        raise Rejected("the amount is finer than a picodollar")
    if not 0 <= picos < MOST:
        raise Rejected("the amount is negative" if picos < 0 else "the amount is more than there can be")
    return picos


def _period(period: tuple[int, int]) -> dict[str, str]:
    """Reports by the minute and by the day count the same: their totals must not be taken for one another."""
    return {"period": str((period[1] - period[0]) // 1_000_000)}


def _dimensions(row: Mapping[str, Any]) -> dict[str, str]:
    return {k: v for k, v in row.items() if isinstance(v, str) and k not in _AMOUNTS}


def _levels(page: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the reports of a page were grouped by: what any of their rows tells."""
    asked: dict[str, set[str]] = {"messages": set(), "cost": set()}
    for bucket in page:
        rows = bucket.get("results")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict):
                asked["cost" if "amount" in row else "messages"] |= _dimensions(row).keys()
    return {kind: f"{kind}:{'+'.join(sorted(names)) or 'all'}" for kind, names in asked.items()}


def _fields(level: str, told: dict[str, str]) -> dict[str, Any]:
    """Dimensions as fields; those that have none of their own are in the scope."""
    fields = {"platform": "anthropic", "model_id": told.pop("model", "")}
    geography = told.pop("inference_geo", "")
    fields["inference_geo"] = "" if geography == "not_available" else geography
    tier = told.pop("service_tier", "")
    fields["mode"] = "fast" if told.pop("speed", "") == "fast" else _MODES.get(tier, tier)
    who = next((name for name in _PRINCIPALS if name in told), "")
    fields["principal"] = told.pop(who, "")
    fields["scope"] = " ".join([level, *(f"{name}={value}" for name, value in sorted(told.items()))])
    return fields


def _of_actor(day: dict[str, Any]) -> Iterator[Total]:
    """A day of one person or key in Claude Code. Its cost is an estimate, and has a level of its own."""
    start = instant(day.get("date"))
    actor = mapped(day["actor"], "actor")
    told = {name: value for name, value in _dimensions(day).items() if name != "date"}
    told["api_key_id"] = text(actor.get("email_address")) or text(actor.get("api_key_name"))
    for entry in listed(day.get("model_breakdown") or [], "model_breakdown"):
        row = mapped(entry, "an entry of model_breakdown")
        tokens = mapped(row.get("tokens"), "tokens")
        cost = mapped(row.get("estimated_cost"), "estimated_cost")
        said = told | {"model": text(row.get("model"))}
        for name, meter in _CODE_TOKENS.items():
            if tokens.get(name) is not None:
                count = whole(tokens[name], name)
                yield Total("anthropic_usage", start, start + _DAY_US, meter, count,
                            **_fields("claude_code:actor+model", dict(said)))  # fmt: skip
        if cost.get("amount") is not None and cost.get("currency", "USD") == "USD":
            yield Total("anthropic_usage", start, start + _DAY_US, "usd", _of_cents(cost["amount"]),
                        **_fields("claude_code_estimate:actor+model", dict(said)))  # fmt: skip
