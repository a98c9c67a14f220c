"""Rules on two requests of one workload, the later against the earlier: where their prefixes part, and over what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from farthing.lint._billing import Piece, Scenario, Terms
from farthing.lint._request import Part, Sent, below, leaves
from farthing.lint._rules import LOOKBACK, NOTE, Found, marked, moved, put, scenario, stable
from farthing.traces._volatile import KINDS, TOKENS

_SPACE = re.compile(r"\s+")
_NAMED_TOOLS = 400  # characters of a system prompt that a workload is known by
_SHOWN = 40
_SETTINGS = {
    "tool_choice": "tool-choice",
    "thinking": "thinking",
    "output_config": "thinking",
    "additionalModelRequestFields": "thinking",
    "speed": "speed",
}


class Difference(NamedTuple):
    """The first place where two prompts part: the kind of what differs, its path, and how it is told."""

    kind: str
    path: str
    what: str
    shown: tuple[str, ...] = ()


def workload(sent: Sent) -> tuple[Any, ...]:
    """By what requests are taken to be of one kind: tools by name and how the prompt begins, times and ids apart."""
    tools = sorted(_tool_name(part) for part in sent.parts if part.tier == "tools")
    begin = next((part for part in sent.parts if part.tier != "tools"), None)
    text = next((text for _, text in leaves(begin.value, begin.path)), "") if begin else ""
    if begin and begin.tier == "messages" and not tools:
        return (sent.account, _masked(text[:_NAMED_TOOLS]))
    return (sent.account, tuple(tools), _masked(text[:_NAMED_TOOLS])[: _NAMED_TOOLS // 4])


def _tool_name(part: Part) -> str:
    spec = part.value.get("toolSpec") if isinstance(part.value.get("toolSpec"), dict) else part.value
    return str(spec.get("name") or spec.get("type") or "")


def _masked(text: str) -> str:
    for kind, pattern in TOKENS.items():
        text = pattern.sub(f"<{kind}>", text)
    return _SPACE.sub(" ", text).strip()


def continues(before: Sent, after: Sent) -> bool:
    """Whether the later goes on with the conversation of the earlier: it begins with the same words, and is longer."""
    old = [part for part in before.parts if part.tier == "messages"]
    new = [part for part in after.parts if part.tier == "messages"]
    if len(new) <= len(old) or not old:
        return False
    first, now = (next(leaves(parts[0].value, parts[0].path), ("", ""))[1] for parts in (old, new))
    return _masked(first[: 1 << 16]) == _masked(now[: 1 << 16])


def between(before: Sent, after: Sent, terms: Terms, *, named: bool = False) -> Iterator[Found]:
    """What keeps the later request from reading what the earlier one wrote. `named`: the two were named as a pair."""
    goes_on = continues(before, after)
    if before.model != after.model and not (goes_on or named):
        return
    marks = dict(after.marks)
    old_marks = dict(before.marks)
    reach = max(old_marks, default=-1) if old_marks else len(before.parts) - 1
    yield from _elsewhere(before, after, bool(marks))
    apart = next(
        (at for at, (a, b) in enumerate(zip(before.parts, after.parts, strict=False)) if a.data != b.data),
        None,
    )
    if not old_marks and not marks:
        yield from _shared(before, after, len(before.parts) if apart is None else apart, terms)
    if apart is None and len(after.parts) < len(before.parts):
        return
    if apart is not None and apart <= reach and _counts(before, after, apart, goes_on):
        yield _parting(before, after, apart, reach)
        return
    if goes_on and _marks_messages(after):
        yield from _settings(before, after)
        yield from _images(before, after)
        yield from _missed(before, after)


def _counts(before: Sent, after: Sent, apart: int, goes_on: bool) -> bool:
    """Whether prompts should not part there: in tools and system never, in messages where a conversation goes on."""
    if before.parts[apart].tier != "messages" or after.parts[apart].tier != "messages":
        return True
    return goes_on and apart < len(before.parts) - 1


def _shared(before: Sent, after: Sent, apart: int, terms: Terms) -> Iterator[Found]:
    """What two requests have in common, and no breakpoint ends. What one request tells of itself is told there."""
    tokens = sum(after.sizes[:apart])
    if terms.minimum is None or not terms.caches or tokens < terms.minimum or after.batch:
        return
    if sum(after.sizes[: stable(after) + 1]) >= terms.minimum:
        return
    grown = len(after.parts) - len(before.parts) if apart == len(before.parts) else 0
    pieces = (Piece(size, "", not grown and at >= apart) for at, size in enumerate(after.sizes))
    faulty = Scenario(tuple(pieces), grown)
    at = len(after.parts) - 1 if grown else apart - 1
    what = f"{tokens:,} tokens shared with the request before, and no breakpoint"
    yield Found(
        "unmarked",
        after.parts[at].path,
        what,
        (put(after, after.parts[at]),),
        faulty,
        marked(faulty, {at: "5m"}),
    )


def _marks_messages(sent: Sent) -> bool:
    return any(sent.parts[at].tier == "messages" for at, _ in sent.marks)


def _elsewhere(before: Sent, after: Sent, marks: bool) -> Iterator[Found]:
    """Another model or another region: another cache."""
    for rule, old, new in (("model", before.model, after.model), ("region", before.region, after.region)):
        if old and new and old != new:
            every = frozenset({0})
            severity = "" if marks else NOTE
            faulty, good = scenario(after, every), scenario(after)
            mend = (f"- {rule}: {new}", f"+ {rule}: {old}")
            yield Found(rule, rule, f"{old}, then {new}", mend, faulty, good, severity)


def _parting(before: Sent, after: Sent, at: int, reach: int) -> Found:
    found = difference(before, after, at)
    behind = zip(before.parts[at + 1 : reach + 1], after.parts[at + 1 : reach + 1], strict=False)
    others = sum(a.data != b.data for a, b in behind)
    rule = "history" if after.parts[at].tier == "messages" and found.kind == "text" else found.kind
    more = (
        f"; {others} more {'block differs' if others == 1 else 'blocks differ'} behind it" if others else ""
    )
    told = Found(rule, found.path, found.what + more, _mend(after, found), shown=found.shown)
    if not before.marks and not after.marks:
        return told._replace(what=f"{told.what}; no breakpoint is there yet", severity=NOTE)
    if rule == "date":
        return told._replace(what=f"{told.what}; the prefix is written anew once a day")
    faulty, good = scenario(after, frozenset({at})), scenario(after)
    return told._replace(
        before=faulty, after=_mended(good, after), assumed=("that it differs in every call",)
    )


def _mended(good: Scenario, after: Sent) -> Scenario:
    """With the markers that the later has, or where it has none, one behind the system prompt."""
    if after.marks:
        return good
    system = [at for at, part in enumerate(after.parts) if part.tier != "messages"]
    return marked(good, {system[-1]: "5m"}) if system else good


def _mend(after: Sent, found: Difference) -> tuple[str, ...]:
    if found.kind == "tool-order":
        return (f"- {found.path}: in the order in which they came", f"+ {found.path}: sorted by name")
    if found.kind == "key-order":
        return (f"- {found.path}: keys as they came", f"+ {found.path}: keys in a fixed order (sorted)")
    if found.kind == "whitespace":
        return (f"- {found.path}: blanks as they came", f"+ {found.path}: stripped, always alike")
    if found.kind == "tools-changed":
        return (
            f"- {found.path}: the tools of this turn",
            "+ tools: all of them, always; tool_choice says which may be used",
        )
    if found.path.startswith("messages"):
        return (
            f"- {found.path}: changed after it was sent",
            f"+ {found.path}: as it was sent; what is new goes last",
        )
    return moved(after, found.path, found.kind)


# --- what differs ----------------------------------------------------------------------------------------------------


def difference(before: Sent, after: Sent, at: int) -> Difference:
    """The kind of the first difference, which is in the part `at`."""
    old, new = before.parts[at], after.parts[at]
    if old.tier == "tools" or new.tier == "tools":
        if found := _of_tools(before, after, at):
            return found
    elif old.tier != new.tier:
        return Difference("text", new.path, "one has a block more in its system prompt")
    if old.role != new.role:
        return Difference("text", new.path, f"the role is {old.role}, then {new.role}")
    return _of_values(old.value, new.value, new.path)


def _of_tools(before: Sent, after: Sent, at: int) -> Difference | None:
    old, new = (sorted(part.data for part in sent.parts if part.tier == "tools") for sent in (before, after))
    plain = [sorted(map(_canonical, _tools(sent))) for sent in (before, after)]
    tools = after.parts[at].path if after.parts[at].tier == "tools" else before.parts[at].path
    root = tools.rpartition("[")[0]
    if old == new or (plain[0] == plain[1] and _names(before) != _names(after)):
        return Difference("tool-order", root, f"the same {len(old)} tools in another order, from {tools} on")
    if sorted(_names(before)) != sorted(_names(after)):
        gone, more = set(_names(before)) - set(_names(after)), set(_names(after)) - set(_names(before))
        what = f"{len(more)} tools came, {len(gone)} went, from {tools} on"
        return Difference("tools-changed", root, what, (*(f"- {n}" for n in sorted(gone)),
                                                        *(f"+ {n}" for n in sorted(more))))  # fmt: skip
    return None


def _tools(sent: Sent) -> list[Any]:
    return [part.value for part in sent.parts if part.tier == "tools"]


def _names(sent: Sent) -> list[str]:
    return [_tool_name(part) for part in sent.parts if part.tier == "tools"]


_encoder = msgspec.json.Encoder(order="deterministic")


def _canonical(value: Any) -> bytes:
    return _encoder.encode(value)


def _of_values(old: Any, new: Any, path: str) -> Difference:
    if _canonical(old) == _canonical(new):
        return Difference("key-order", path, "the same keys and values, in another order")
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            if name not in old or name not in new:
                return Difference("text", below(path, name), "there in one of them only")
            if _canonical(old[name]) != _canonical(new[name]):
                return _of_values(old[name], new[name], below(path, name))
    if isinstance(old, list) and isinstance(new, list):
        if len(old) == len(new) and sorted(map(_canonical, old)) == sorted(map(_canonical, new)):
            return Difference("key-order", path, f"the same {len(old)} entries in another order")
        for at, (a, b) in enumerate(zip(old, new, strict=False)):
            if _canonical(a) != _canonical(b):
                return _of_values(a, b, f"{path}[{at}]")
        return Difference("text", path, f"{len(old)} entries, then {len(new)}")
    if isinstance(old, str) and isinstance(new, str):
        return _of_texts(old, new, path)
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return Difference(
        "counter" if numbers else "text", path, "another value", (repr(old)[:_SHOWN], repr(new)[:_SHOWN])
    )


def _of_texts(old: str, new: str, path: str) -> Difference:
    at = common(old, new)
    if _SPACE.sub(" ", old).strip() == _SPACE.sub(" ", new).strip():
        return Difference(
            "whitespace", path, f"blanks or line ends differ at character {at:,}", _around(old, new, at)
        )
    for kind, pattern in TOKENS.items():
        found = [_token(pattern, text, at) for text in (old, new)]
        if found[0] and found[1]:
            rest = "" if _masked(old[at:]) == _masked(new[at:]) else ", and text behind it"
            what = f"{KINDS[kind]} at character {found[1].start():,}{rest}"
            return Difference(kind, path, what, (found[0][0][:_SHOWN], found[1][0][:_SHOWN]))
    return Difference(
        "text", path, f"text differs from character {at:,} on, of {len(new):,}", _around(old, new, at)
    )


def _token(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str] | None:
    """The match that covers a character, looked for around it."""
    begin = max(0, at - 80)
    return next(
        (match for match in pattern.finditer(text, begin, at + 160) if match.start() <= at <= match.end()),
        None,
    )


def _around(old: str, new: str, at: int) -> tuple[str, str]:
    begin = max(0, at - _SHOWN // 2)
    return old[begin : at + _SHOWN // 2], new[begin : at + _SHOWN // 2]


def common(old: str, new: str) -> int:
    """How many characters two texts have in common from their beginning on."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# --- what cached messages hang on ------------------------------------------------------------------------------------


def _settings(before: Sent, after: Sent) -> Iterator[Found]:
    for name, rule in _SETTINGS.items():
        old, new = before.settings.get(name), after.settings.get(name)
        if old != new:
            first = next(at for at, part in enumerate(after.parts) if part.tier == "messages")
            faulty, good = scenario(after, frozenset({first})), scenario(after)
            how = "came" if old is None else "went" if new is None else "changed"
            mend = (f"- {name}: another from turn to turn", f"+ {name}: the same in a whole conversation")
            shown = (str(old)[:_SHOWN], str(new)[:_SHOWN])
            yield Found(rule, name, f"{name} {how}", mend, faulty, good, "", (), shown)


def _images(before: Sent, after: Sent) -> Iterator[Found]:
    old, new = (any(_is_image(part.value) for part in sent.parts) for sent in (before, after))
    if old != new:
        first = next(at for at, part in enumerate(after.parts) if part.tier == "messages")
        faulty, good = scenario(after, frozenset({first})), scenario(after)
        what = "the first image of the conversation" if new else "no image any more"
        mend = ("+ a breakpoint behind the system prompt, which stays cached",)
        yield Found("images", "messages", what, mend, faulty, good, "", ("that it happens in every call",))


def _is_image(value: Any) -> bool:
    if isinstance(value, dict):
        if value.get("type") == "image" or "image" in value:
            return True
        return any(_is_image(inner) for inner in value.values() if isinstance(inner, list))
    return isinstance(value, list) and any(map(_is_image, value))


def _missed(before: Sent, after: Sent) -> Iterator[Found]:
    """The conversation grew by more than a breakpoint looks back over."""
    old, marks = max((at for at, _ in before.marks), default=-1), dict(after.marks)
    if old < 0 or any(0 <= at - old < LOOKBACK for at in marks) or len(marks) > 3:
        return
    last = max(marks, default=-1)
    if last - old < LOOKBACK:
        return
    base = scenario(after)
    step = last - old
    faulty = base._replace(step=step)
    at = old + LOOKBACK - 1
    what = f"{step} blocks after the last breakpoint of the call before"
    good = marked(faulty, {at: marks[last], last: marks[last]})
    yield Found("lookback", after.parts[last].path, what, (put(after, after.parts[at], marks[last]),),
                marked(faulty, {last: marks[last]}), good)  # fmt: skip
