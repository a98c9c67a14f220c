"""Rules on one request: what keeps a cache from working, or the API from taking it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from farthing.cache._engine import BREAKPOINTS
from farthing.lint._billing import Piece, Scenario, Terms
from farthing.lint._request import CONVERSE, INVOKE, Part, Sent, leaves
from farthing.traces._volatile import KINDS, MOST_SEARCHED, SUSPECT, TOKENS

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (NOTE, WARNING, ERROR)
LOOKBACK = 20


class Rule(NamedTuple):
    severity: str
    why: str
    source: str


_ANTHROPIC = "Anthropic, Prompt caching"
_AWS = "AWS, Prompt caching for Bedrock"

RULES: dict[str, Rule] = {
    "breakpoints": Rule(ERROR, "a request has at most four breakpoints; with more it is refused", _ANTHROPIC),
    "ttl-order": Rule(ERROR, "a 1h breakpoint must come before every 5m one; else the request is refused",
                      _ANTHROPIC),
    "empty-marker": Rule(ERROR, "neither an empty text nor a thinking block can carry a breakpoint", _ANTHROPIC),
    "automatic": Rule(ERROR, "top-level cache_control is not taken by InvokeModel and Converse", _ANTHROPIC),
    "under-minimum": Rule(WARNING, "a prefix under the model's minimum is not cached, and nothing says so", _AWS),
    "batch": Rule(WARNING, "batches on Bedrock are not cached: breakpoints do nothing there", _AWS),
    "unmarked": Rule(WARNING, "only what a breakpoint ends is cached", _ANTHROPIC),
    "lookback": Rule(WARNING, "a breakpoint finds what was written at most 20 blocks before it", _ANTHROPIC),
    "no-caching": Rule(NOTE, "the model has no prompt cache there", _AWS),
    "clock": Rule(WARNING, "a time in the prefix makes it another one in every call", _ANTHROPIC),
    "date": Rule(NOTE, "a day in the prefix makes it another one every day", _ANTHROPIC),
    "id": Rule(WARNING, "an id in the prefix makes it another one in every call", _ANTHROPIC),
    "counter": Rule(WARNING, "a number that counts makes the prefix another one in every call", _ANTHROPIC),
    "text": Rule(WARNING, "what differs between calls ends the prefix that they share", _ANTHROPIC),
    "whitespace": Rule(WARNING, "a cache compares bytes: blanks and line ends count", _ANTHROPIC),
    "key-order": Rule(WARNING, "a cache compares bytes: the order of JSON keys counts", _ANTHROPIC),
    "tool-order": Rule(WARNING, "tools come first in the prefix: another order is another prefix", _ANTHROPIC),
    "tools-changed": Rule(WARNING, "tools come first in the prefix: with others nothing behind them is found",
                          _ANTHROPIC),
    "history": Rule(WARNING, "a turn that is changed afterwards ends the prefix there", _ANTHROPIC),
    "tool-choice": Rule(WARNING, "another tool_choice: cached messages are not found", _ANTHROPIC),
    "thinking": Rule(WARNING, "other thinking or effort: cached messages are not found", _ANTHROPIC),
    "speed": Rule(WARNING, "another speed has a cache of its own", _ANTHROPIC),
    "images": Rule(NOTE, "the first image, or none any more: cached messages may not be found", _ANTHROPIC),
    "model": Rule(WARNING, "each model has a cache of its own", _ANTHROPIC),
    "region": Rule(NOTE, "a cache is kept where it was written", _AWS),
}  # fmt: skip


class Found(NamedTuple):
    """A fault: where, in words what, the change that mends it, and the scenarios that price it."""

    rule: str
    where: str
    what: str
    mend: tuple[str, ...] = ()  # lines of a diff, by JSON path
    before: Scenario | None = None
    after: Scenario | None = None
    severity: str = ""  # where it is not the rule's
    assumed: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()  # text of the prompt, for who asks for it


def scenario(sent: Sent, varying: frozenset[int] = frozenset()) -> Scenario:
    """The request over and over: a conversation grows by its last turn, any other has another last message."""
    marks = dict(sent.marks)
    turns = [at for at, part in enumerate(sent.parts) if part.role == "assistant"]
    last = len(sent.parts) - 1
    step = last - turns[-1] + 1 if turns and turns[-1] < last else 0
    once = set() if step else {last}
    return Scenario(
        tuple(
            Piece(size, marks.get(at, ""), at in varying or at in once) for at, size in enumerate(sent.sizes)
        ),
        step,
    )


def marked(given: Scenario, marks: dict[int, str]) -> Scenario:
    """The same with these breakpoints instead of its own."""
    pieces = (piece._replace(mark=marks.get(at, "")) for at, piece in enumerate(given.pieces))
    return given._replace(pieces=tuple(pieces))


def by_the_hour(found: Found) -> Found:
    """The same mend with breakpoints that live for an hour."""
    if not found.after:
        return found
    hour = {at: "1h" for at, piece in enumerate(found.after.pieces) if piece.mark}
    lines = (line.replace('"}', '", "ttl": "1h"}') for line in found.mend)
    return found._replace(mend=tuple(lines), after=marked(found.after, hour))


def faults(sent: Sent, terms: Terms) -> Iterator[Found]:
    """What is wrong with one request."""
    for rule in _CHECKS:
        yield from rule(sent, terms)


def control(sent: Sent, ttl: str = "5m") -> str:
    """A marker, as this form of request writes it."""
    lives = ', "ttl": "1h"' if ttl == "1h" else ""
    if sent.form == CONVERSE:
        return f'{{"cachePoint": {{"type": "default"{lives}}}}}'
    return f'{{"type": "ephemeral"{lives}}}'


def put(sent: Sent, part: Part, ttl: str = "5m") -> str:
    """The line of a diff that adds a marker behind a part."""
    if sent.form == CONVERSE:
        return f"+ behind {part.path}: {control(sent, ttl)}"
    path = part.path if part.path.endswith("]") else f"{part.path} (as a list of blocks)[-1]"
    return f"+ {path}.cache_control = {control(sent, ttl)}"


def off(part: Part) -> str:
    """The line of a diff that takes a marker off."""
    return f"- {part.mark_path}" if part.mark_path else "- cache_control"


# --- markers that are refused ----------------------------------------------------------------------------------------


def _breakpoints(sent: Sent, terms: Terms) -> Iterator[Found]:
    if len(sent.marks) <= BREAKPOINTS:
        return
    places = [at for at, _ in sent.marks]
    idle = [at for at in places if sum(sent.sizes[: at + 1]) < (terms.minimum or 0)]
    spare = sorted([*idle, *(at for at in places[1:] if at not in idle)][: len(places) - BREAKPOINTS])
    kept = {at: ttl for at, ttl in sent.marks if at not in spare}
    before = scenario(sent)
    yield Found(
        "breakpoints",
        sent.parts[spare[0]].mark_path,
        f"{len(sent.marks)} breakpoints",
        tuple(off(sent.parts[at]) for at in spare),
        before,
        marked(before, kept),
    )


def _ttl_order(sent: Sent, terms: Terms) -> Iterator[Found]:
    hours = [at for at, ttl in sent.marks if ttl == "1h"]
    early = [at for at, ttl in sent.marks if ttl == "5m" and hours and at < hours[-1]]
    if not early:
        return
    marks = dict(sent.marks) | dict.fromkeys(early, "1h")
    before = scenario(sent)
    mend = []
    for at in early:
        path = sent.parts[at].mark_path
        mend += [f"- {path} = {control(sent)}", f"+ {path} = {control(sent, '1h')}"]
    yield Found(
        "ttl-order",
        sent.parts[early[0]].mark_path,
        f"a 5m breakpoint before the 1h one at {sent.parts[hours[-1]].path}",
        tuple(mend),
        before,
        marked(before, marks),
    )


def _empty_marker(sent: Sent, terms: Terms) -> Iterator[Found]:
    for at, part in enumerate(sent.parts):
        kind = part.value.get("type") if isinstance(part.value, dict) else ""
        text = part.value.get("text") if isinstance(part.value, dict) else None
        thinking = kind in ("thinking", "redacted_thinking") or "reasoningContent" in part.value
        if part.mark and (thinking or (isinstance(text, str) and not text)):
            earlier = next((p for p in reversed(sent.parts[:at]) if _markable(p)), None)
            mend = (off(part), *([put(sent, earlier, part.mark)] if earlier and not earlier.mark else []))
            what = "a breakpoint on a thinking block" if thinking else "a breakpoint on an empty text"
            yield Found("empty-marker", part.mark_path, what, mend)


def _markable(part: Part) -> bool:
    value = part.value
    return not (
        value.get("type") in ("thinking", "redacted_thinking")
        or "reasoningContent" in value
        or value.get("text") == ""
    )


def _automatic(sent: Sent, terms: Terms) -> Iterator[Found]:
    bedrock = terms.sku is None or terms.sku.platform == "bedrock"
    if sent.automatic and bedrock and sent.form in (CONVERSE, INVOKE):
        mend = ("- cache_control", put(sent, sent.parts[-1], sent.automatic))
        what = f"automatic caching does not exist in {sent.form}"
        yield Found("automatic", "cache_control", what, mend)


# --- markers that do nothing -----------------------------------------------------------------------------------------


def _under_minimum(sent: Sent, terms: Terms) -> Iterator[Found]:
    if terms.minimum is None or sent.batch:
        return
    depth = 0
    before = scenario(sent)
    first = stable(sent)
    for at, (part, size) in enumerate(zip(sent.parts, sent.sizes, strict=True)):
        depth += size
        if not part.mark or depth >= terms.minimum:
            continue
        what = f"{depth:,} tokens up to the breakpoint; from {terms.minimum:,} on it is cached"
        assumed = () if sent.usage else ("tokens (four bytes each)",)
        reach = _reach(sent.sizes, terms.minimum)
        if reach is not None and reach <= first:
            further = sent.parts[reach]
            if further.mark:
                yield Found(
                    "under-minimum", part.mark_path, what, (off(part),), severity=NOTE, assumed=assumed
                )
                continue
            marks = {place: ttl for place, ttl in sent.marks if place != at} | {reach: part.mark}
            mend = (off(part), put(sent, further, part.mark))
            yield Found(
                "under-minimum", part.mark_path, what, mend, before, marked(before, marks), "", assumed
            )
        else:
            pad = terms.minimum - depth
            pieces = list(before.pieces)
            pieces[at] = pieces[at]._replace(tokens=pieces[at].tokens + pad)
            more = f"+ {part.path}: {pad:,} tokens more that never change, such as examples"
            after = before._replace(pieces=tuple(pieces))
            yield Found("under-minimum", part.mark_path, what, (more,), before, after, "", assumed)


def _reach(sizes: Sequence[int], minimum: int) -> int | None:
    """The first part up to which the prompt is long enough."""
    depth = 0
    for at, size in enumerate(sizes):
        depth += size
        if depth >= minimum:
            return at
    return None


def stable(sent: Sent) -> int:
    """The last part of tools and system; of a conversation, the last that was there before its last turn."""
    turns = [at for at, part in enumerate(sent.parts) if part.role == "assistant"]
    system = [at for at, part in enumerate(sent.parts) if part.tier != "messages"]
    return max([-1, *turns, *system])


def _batch(sent: Sent, terms: Terms) -> Iterator[Found]:
    bedrock = terms.sku is not None and terms.sku.platform == "bedrock"
    if sent.batch and sent.marks and (bedrock or sent.form in (CONVERSE, INVOKE)):
        places = tuple(off(part) for part in sent.parts if part.mark)
        what = f"{len(sent.marks)} breakpoints in a record of a batch"
        mend = (*places, "  or send it by InvokeModel, where the prefix is read at a tenth")
        yield Found("batch", sent.parts[sent.marks[0][0]].mark_path or "cache_control", what, mend)


def _unmarked(sent: Sent, terms: Terms) -> Iterator[Found]:
    if sent.marks or sent.batch or terms.minimum is None or not terms.caches:
        return
    end = stable(sent)
    depth = sum(sent.sizes[: end + 1])
    if depth < terms.minimum:
        return
    before = scenario(sent)
    system = [at for at, part in enumerate(sent.parts) if part.tier != "messages"]
    at = len(sent.parts) - 1 if before.step else end
    marks = {at: "5m"} | ({system[-1]: "5m"} if system else {})
    what = f"{depth:,} tokens that do not change, and no breakpoint"
    mend = tuple(put(sent, sent.parts[place]) for place in sorted(marks))
    yield Found("unmarked", sent.parts[end].path, what, mend, before, marked(before, marks))


def _lookback(sent: Sent, terms: Terms) -> Iterator[Found]:
    before = scenario(sent)
    last = len(sent.parts) - 1
    marks = dict(sent.marks)
    if before.step <= LOOKBACK or last not in marks or len(marks) >= BREAKPOINTS:
        return
    old = last - before.step  # where the breakpoint of the call before stood
    if any(0 <= at - old < LOOKBACK for at in marks):
        return
    at = min(old + LOOKBACK - 1, last - 1)
    what = f"the last turn has {before.step} blocks: the breakpoint does not look back to the one before"
    mend = (put(sent, sent.parts[at], marks[last]),)
    yield Found(
        "lookback", sent.parts[last].path, what, mend, before, marked(before, marks | {at: marks[last]})
    )


def _no_caching(sent: Sent, terms: Terms) -> Iterator[Found]:
    if terms.sku and not terms.caches and sent.marks:
        places = tuple(off(part) for part in sent.parts if part.mark)
        yield Found(
            "no-caching", "model", f"{terms.sku.model} does not cache on {terms.sku.platform}", places
        )


# --- what looks as if it changed -------------------------------------------------------------------------------------


def changing(sent: Sent) -> Iterator[tuple[int, str, str, re.Match[str]]]:
    """Clocks and ids in the marked part of a system prompt: the part, the kind, the path and where it stands."""
    last = max((at for at, _ in sent.marks), default=-1)
    for at, part in enumerate(sent.parts[: last + 1]):
        for path, text in leaves(part.value, part.path) if part.tier == "system" else ():
            for kind in SUSPECT:
                if match := TOKENS[kind].search(text, 0, MOST_SEARCHED):
                    yield at, kind, path, match


def _suspects(sent: Sent, terms: Terms) -> Iterator[Found]:
    """One request cannot prove that they change."""
    for at, kind, path, match in changing(sent):
        what = f"{KINDS[kind]} at character {match.start():,}: does it change from call to call?"
        whole = scenario(sent, frozenset({at}))
        assumed = (f"that the {KINDS[kind].split()[-1]} changes",)
        mend = moved(sent, path, kind)
        yield Found(kind, path, what, mend, whole, scenario(sent), NOTE, assumed, (match[0],))


def moved(sent: Sent, path: str, kind: str) -> tuple[str, ...]:
    """The diff that moves a thing behind the last breakpoint."""
    last = sent.parts[-1].path
    return (f"- {path}: {KINDS.get(kind, 'what differs')}", f"+ {last}: the same, behind the last breakpoint")


_CHECKS: tuple[Callable[[Sent, Terms], Iterator[Found]], ...] = (
    _breakpoints, _ttl_order, _empty_marker, _automatic, _under_minimum, _batch, _unmarked, _lookback, _no_caching,
    _suspects,
)  # fmt: skip
