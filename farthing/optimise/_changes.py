"""The exact change of an advice: what is written today, what to write instead, and the same for the policy file."""

from __future__ import annotations

from typing import Any

from farthing.book import Book
from farthing.cache import HOUR_US, POLICIES, Policy
from farthing.optimise._advice import Change
from farthing.optimise._lots import MOVED, PADDED, Choice, Load
from farthing.optimise._replay import BY_CLIENT, BY_GATEWAY, policy_of
from farthing.traces._volatile import KINDS as VOLATILE

_GEOGRAPHY = "geo:"


def change(book: Book, load: Load, lever: str, before: Choice, after: Choice) -> Change:
    """Of one lever, or of the first of several."""
    made = {
        "content": _content,
        "model": _model,
        "channel": _batch,
        "schedule": _order,
        "cache": _cache,
        "endpoint": _profile,
    }
    return made[lever](book, load, before, after)


def _content(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    stage = load.stages[after.model]
    if after.content == PADDED:
        least = stage.minimum
        return Change(
            "content",
            f"lengthen system prompts that are a little short to {least:,} tokens, with text that helps the model",
            "system: shorter than what is cached",
            f"system: {least:,} tokens, more examples say",
            {**_where(load), "content": PADDED, "minimum": least},
        )
    places = [one for one in stage.traffic.moved if one.different > 1] or list(stage.traffic.moved)
    return Change(
        "content",
        "move what changes from call to call behind the last message, where it ends no prefix",
        "\n".join(
            f"{one.path}: {VOLATILE[one.kind]}, {one.different:,} different in {one.calls:,} calls"
            for one in places
        ),
        "\n".join(
            f"{one.path}: sorted by name"
            if one.kind == "tool-order"
            else f"messages[-1]: {VOLATILE[one.kind]}, last"
            for one in places
        ),
        {**_where(load), "content": MOVED, "places": [one._asdict() for one in places]},
    )


def _where(load: Load) -> dict[str, Any]:
    return {"workload": load.lot.workload, "platform": load.lot.platform, "model": load.lot.model}


def called(book: Book, platform: str, model: str, routing: str) -> str:
    """The id that a model is called by, with its routing."""
    ids = book.models[model].ids
    if platform != "bedrock":
        return next((name for name in ids if not name.startswith("anthropic.")), model)
    base = next((name for name in ids if name.startswith("anthropic.")), f"anthropic.{model}")
    if routing == "global":
        return f"global.{base}"
    return f"{routing.removeprefix(_GEOGRAPHY)}.{base}" if routing.startswith(_GEOGRAPHY) else base


def _routing(load: Load) -> str:
    """That of most of the money."""
    money: dict[str, int] = {}
    for part in load.parts:
        money[part.said["routing"]] = money.get(part.said["routing"], 0) + part.cell.cost
    return max(money, key=lambda name: (money[name], name))


def _claude_code(load: Load) -> bool:
    return load.sources() <= {"claude_code", "claude_code_events"}


def _model(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    platform, routing = load.lot.platform, "global" if after.globe else _routing(load)
    old = called(book, platform, before.model or load.lot.model, _routing(load))
    new = called(book, platform, after.model, routing)
    data = {**_where(load), "to_model": after.model, "model_id": new}
    if _claude_code(load):
        pin = f"ANTHROPIC_DEFAULT_{_alias(load.lot.model)}_MODEL"
        return Change(
            "settings",
            "pin the model in the settings of Claude Code (~/.claude/settings.json, or managed for all)",
            f'{{"env": {{"{pin}": "{old}"}}}}',
            f'{{"env": {{"{pin}": "{new}"}}}}',
            {**data, "env": {pin: new}},
        )
    return Change("model", "call another model", f'modelId="{old}"', f'modelId="{new}"', data)


def _alias(model: str) -> str:
    return next((name for name in ("OPUS", "SONNET", "HAIKU", "FABLE") if name.lower() in model), "SONNET")


def _profile(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    platform, model = load.lot.platform, before.model or load.lot.model
    old, new = called(book, platform, model, _routing(load)), called(book, platform, model, "global")
    data = {**_where(load), "routing": "global", "model_id": new}
    if platform != "bedrock":
        return Change(
            "profile", "do not ask for a geography", 'inference_geo="us"', 'inference_geo="global"', data
        )
    return Change(
        "profile", "call the global inference profile", f'modelId="{old}"', f'modelId="{new}"', data
    )


def _batch(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    platform = load.lot.platform
    model = called(book, platform, after.model or load.lot.model, _routing(load))
    data = {**_where(load), "channel": "batch", "deadline": load.workload.deadline if load.workload else ""}
    if platform != "bedrock":
        return Change(
            "batch",
            "send the calls as a batch",
            "client.messages.create(...)",
            'client.messages.batches.create(requests=[{"custom_id": ..., "params": {...}}])',
            data,
        )
    return Change(
        "batch",
        "collect the calls, and send them as a batch job of at least 100 records",
        f'runtime.invoke_model(modelId="{model}", body=...)',
        f'bedrock.create_model_invocation_job(modelId="{model}", roleArn=..., jobName=...,\n'
        '    inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://.../in/"}},\n'
        '    outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://.../out/"}})',
        data,
    )


def _order(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    deadline = load.workload.deadline if load.workload else ""
    return Change(
        "schedule",
        "hold what may wait, and send it in the order of its prefixes, one after the other",
        "for request in requests: send(request)",
        "for request in sorted(requests, key=lambda r: (r['system'], r['messages'])): send(request)",
        {**_where(load), "order": "prefix", "deadline": deadline},
    )


def _cache(book: Book, load: Load, before: Choice, after: Choice) -> Change:
    policy, today = policy_of(after.policy, load.stages[""].traffic), load.stages[""].traffic.today
    data = {
        **_where(load), "policy": after.policy,
        "was": next((name for name, one in (POLICIES | BY_CLIENT).items() if one == today), ""),
        "system_ttl": _ttl(policy.system_ttl_us), "end_ttl": _ttl(policy.end_ttl_us),
    }  # fmt: skip
    if _claude_code(load):
        switch = "ENABLE_PROMPT_CACHING_1H"
        hour = policy.end_ttl_us == HOUR_US
        return Change(
            "settings",
            f"{'ask for' if hour else 'no longer ask for'} the one-hour cache in the settings of Claude Code",
            '{"env": {}}' if hour else f'{{"env": {{"{switch}": "1"}}}}',
            f'{{"env": {{"{switch}": "1"}}}}' if hour else '{"env": {}}',
            {**data, "env": {switch: "1" if hour else None}},
        )
    if after.policy in BY_GATEWAY:
        before_, after_ = _markers(today, converse=False), f'cache_policy = "{after.policy}"'
        return Change("cache_markers", "let the gateway place the cache points", before_, after_, data)
    converse = any("Converse" in part.said["operation"] for part in load.parts)
    marked_alike = bool(today.system_ttl_us) == bool(policy.system_ttl_us) and bool(today.end_ttl_us) == bool(
        policy.end_ttl_us
    )
    kind = "ttl" if marked_alike and policy != Policy() else "cache_markers"
    says = "no cache points: they cost more here than they save" if policy == Policy() else (
        "another lifetime of the cache points" if kind == "ttl" else "where the cache points stand"
    )  # fmt: skip
    return Change(kind, says, _markers(today, converse=converse), _markers(policy, converse=converse), data)


def _ttl(us: int) -> str:
    return {0: "", HOUR_US: "1h"}.get(us, "5m")


def _markers(policy: Policy, *, converse: bool) -> str:
    """A request's markers, in the words of its API."""

    def mark(ttl_us: int) -> str:
        if converse:
            return f'{{"cachePoint": {{"type": "default", "ttl": "{_ttl(ttl_us)}"}}}}'
        return f'"cache_control": {{"type": "ephemeral", "ttl": "{_ttl(ttl_us)}"}}'

    places = (("system", "the last block of system", policy.system_ttl_us),
              ("messages", "the last block of the last message", policy.end_ttl_us))  # fmt: skip
    lines = []
    for name, place, ttl_us in places:
        if ttl_us and converse:
            lines.append(f"{name}: [..., {mark(ttl_us)}]  # behind {place}")
        elif ttl_us:
            lines.append(f"{name}: [..., {{..., {mark(ttl_us)}}}]  # on {place}")
    return "\n".join(lines) or "no markers"
