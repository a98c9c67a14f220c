"""Findings for a person, as JSON, and as SARIF, which code hosts show beside the lines of a change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.lint._lint import Finding, Linted
from farthing.lint._rules import RULES
from farthing.money import show, usd

_LEVELS = {"error": "error", "warning": "warning", "note": "note"}


def lines(done: Linted, *, text: bool = False) -> Iterator[str]:
    """What a person reads. `text` shows the text of the prompt that differs."""
    for each in done.findings:
        found = each.found
        often = f"  ({each.count:,} times)" if each.count > 1 else ""
        yield f"{each.place}: {each.severity}: {found.rule}: {found.where}: {found.what}{often}"
        if each.beside:
            yield f"    beside {each.beside}"
        yield f"    {RULES[found.rule].why} ({RULES[found.rule].source})"
        if text and found.shown:
            yield from (f"    | {shown!r}" for shown in found.shown)
        yield from (f"    {line}" for line in found.mend)
        yield from (f"    {line}" for line in _dollars(each))
    count = len(done.findings)
    pairs = f", {done.pairs:,} of them beside the one before" if done.pairs else ""
    if done.others:
        yield f"left out: {done.others:,} (files without JSON, models that are not Claude)"
    for why, times in done.unchecked.items():
        yield f"not checked in {_count(times, 'request')}: lengths of prefixes ({why})"
    yield f"{_count(count, 'finding')} in {_count(done.requests, 'request')}{pairs}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _dollars(each: Finding) -> Iterator[str]:
    loss = each.loss
    assumed = f"; assumed: {', '.join(each.assumed)}" if each.assumed else ""
    if loss and loss.before is None:
        yield f"costs: nothing, since it is refused; mended {show(loss.after // loss.calls, 4)} a call{assumed}"
    elif loss and each.found.rule == "batch":
        told = f"{show(loss.before or 0)} as a batch, {show(loss.after)} at once and cached"
        yield f"{told}, over {loss.calls:,} calls, {loss.gap_s:,} s apart{assumed}"
    elif loss and loss.before is not None:
        a_call, mended = loss.before // loss.calls, loss.after // loss.calls
        over = f"{loss.calls:,} calls, {loss.gap_s:,} s apart"
        if loss.lost > 0:
            yield (
                f"lost: {show(loss.lost)} over {over}: {show(a_call, 4)} a call for its prompt, "
                f"{show(mended, 4)} mended{assumed}"
            )
        else:
            yield (
                f"nothing is lost over {over}: {show(a_call, 4)} a call as it is, "
                f"{show(mended, 4)} otherwise{assumed}"
            )
    elif each.unpriced:
        yield f"not priced: {each.unpriced}"
    if each.ledger:
        yield (
            f"in the ledger: at most {show(each.ledger.picos)} over {each.ledger.calls:,} calls of the model "
            f"({each.ledger.tokens:,} tokens that could have been read; assumed: all of them are of this workload)"
        )


def as_json(done: Linted, *, text: bool = False) -> dict[str, Any]:
    """Everything, exact."""
    return {
        "requests": done.requests,
        "pairs": done.pairs,
        "left_out": done.others,
        "findings": [_finding(each, text=text) for each in done.findings],
        "unchecked": dict(done.unchecked),
        "unread": [each._asdict() for each in done.unread],
    }


def _finding(each: Finding, *, text: bool) -> dict[str, Any]:
    found, loss = each.found, each.loss
    told: dict[str, Any] = {
        "rule": found.rule,
        "severity": each.severity,
        "place": each.place,
        "beside": each.beside,
        "where": found.where,
        "what": found.what,
        "why": RULES[found.rule].why,
        "source": RULES[found.rule].source,
        "mend": list(found.mend),
        "count": each.count,
        "model": each.model,
        "refused": bool(loss and loss.before is None),
        "usd": _usd(each),
        "calls": loss.calls if loss else None,
        "gap_s": loss.gap_s if loss else None,
        "unpriced": each.unpriced or None,
        "assumed": list(each.assumed),
    }  # fmt: skip
    if each.ledger:
        told["ledger"] = {
            "calls": each.ledger.calls,
            "tokens": each.ledger.tokens,
            "at_most_usd": usd(each.ledger.picos),
            "assumed": ["all calls of the model are of this workload"],
        }
    return told | ({"shown": list(found.shown)} if text else {})


def _usd(each: Finding) -> dict[str, str] | None:
    if each.loss is None or each.loss.before is None:
        return None
    loss, before = each.loss, each.loss.before
    return {"with_fault": usd(before), "mended": usd(loss.after), "lost": usd(loss.lost)}


def sarif(done: Linted, version: str) -> dict[str, Any]:
    """SARIF 2.1.0: a result a finding, at its file and line."""
    used = list(dict.fromkeys(each.found.rule for each in done.findings))
    rules = [
        {
            "id": name,
            "shortDescription": {"text": RULES[name].why},
            "defaultConfiguration": {"level": _LEVELS[RULES[name].severity]},
        }
        for name in used
    ]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "farthing", "version": version, "rules": rules}},
                "results": [_result(each) for each in done.findings],
            }
        ],
    }


def _result(each: Finding) -> dict[str, Any]:
    path, _, line = each.place.partition("[")[0].rpartition(":")
    said = [f"{each.found.where}: {each.found.what}.", *each.found.mend, *_dollars(each)]
    where: dict[str, Any] = {"artifactLocation": {"uri": path or each.place}}
    if line.isdigit():
        where["region"] = {"startLine": int(line)}
    return {
        "ruleId": each.found.rule,
        "level": _LEVELS[each.severity],
        "message": {"text": "\n".join(said)},
        "locations": [{"physicalLocation": where}],
    }
