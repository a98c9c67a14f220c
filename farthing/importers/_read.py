"""What formats share: a line that is rejected, times, digests, and a look at the first lines of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Protocol

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._open import UNREADABLE
from farthing.usage import EPOCH, Entry, Facts, Rejected, Total, Usage

Lines = Iterable[tuple[int, bytes]]  # numbered from 1; blank lines are left out


Item = Usage | Total | Entry | Reject


class Format(Protocol):
    """A file of this folder whose name has no underscore in front.

    `read` goes through the lines one by one and yields what each holds before it takes the next: nothing,
    a Usage, a Total, an Entry, a Reject or several. An exception rejects the line that was taken last, and
    reading goes on with a new `read` at the next. Times, regions and sizes of counts are checked for all formats
    alike (_task.py).
    """

    __doc__: str | None

    def sniff(self, head: bytes) -> bool:
        """Whether a file that begins so (some 64 KB of it, unpacked) has this format."""

    def read(self, lines: Lines, path: str = "") -> Iterator[Item]:
        """The usage in the lines of the file at `path` ("-" or "" if it has none)."""


MICROSECOND = timedelta(microseconds=1)


def instant(text: Any) -> int:
    """Microseconds since 1970 of an ISO time, which is in UTC where it names no zone.

    >>> instant("2025-08-15T12:44:54.5Z")
    1755261894500000
    """
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise Rejected("no timestamp" if text is None else f"not a time: {str(text)[:40]!r}") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def digest(line: bytes) -> str:
    """An id for a record that has none, the same in every copy of the file."""
    import hashlib  # which takes a sixteenth of a worker's start, and few records ask for it

    return "line:" + hashlib.blake2b(line.strip(), digest_size=16).hexdigest()


# Of all fields in their order, without the function that a NamedTuple puts in front of tuple's own.
record_of: Callable[[tuple[Any, ...]], Usage] = partial(tuple.__new__, Usage)
facts_of: Callable[[tuple[str, ...]], Facts] = partial(tuple.__new__, Facts)

_MALFORMED = "JSON is malformed: "
_MISTYPED = re.compile(r"Expected `([^`]*)`(?: (>= 0))?(?:, got `([^`]*)`)?(?: - at `\$\.?(.*)`)?")


def reason(error: BaseException) -> str:
    """One short line on what is wrong. It quotes places and counts, never text of a prompt."""
    text = str(error).partition("\n")[0]
    if isinstance(error, RecursionError):
        text = "nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        text = f"not UTF-8 (byte {error.start})"
    elif text == "Input data was truncated":
        text = "not JSON: the line is cut short"
    elif text.startswith(_MALFORMED):
        text = f"not JSON: {text.removeprefix(_MALFORMED)}"
    elif match := _MISTYPED.fullmatch(text):
        expected, positive, got, place = match.groups()
        wanted = expected.removesuffix(" | null").replace(" | ", " or ")
        text = "negative" if positive else f"{got}, where {wanted} is expected"
        text = f"{place or 'the line'} is {text}"
    return text[:160] or type(error).__name__


# Half of a surrogate pair is left where a program cuts a text in the middle of an emoji. JSON allows it and msgspec
# does not, even in a field that is skipped.
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?:" + _LOW + rb")?|" + _LOW)


def whole(line: bytes) -> bytes:
    """The line with a replacement character for each half of a surrogate pair; the same object if it has none."""
    return _SURROGATE.sub(lambda match: match[0] if len(match[0]) == 12 else b"\\ufffd", line)


# A string, with its colon if it is a key, or a bracket. A string that the end of the head cuts reaches to the end.
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)(\s*:\s*(.))?|[{}\[\]]', re.DOTALL)
_BEFORE = re.compile(rb"\s*(?:\d{4}-\d\d-\d\dT\S+\s+(?:\S+\s+)?)?")  # CloudWatch: a time, and a stream
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def objects(head: bytes) -> Iterator[dict[str, str]]:
    """For each of the first lines that is an object: its keys, with the first character of their values.

    >>> list(objects(b'{"a": {"b": 1}, "c": [2], "d": "cut'))
    [{'a': '{', 'c': '[', 'd': '"'}]
    """
    found = False
    end = -1
    for _ in range(8):  # most often the first one tells, and no more are asked for
        begin, end = end + 1, head.find(b"\n", end + 1)
        line = head[begin:] if end < 0 else head[begin:end]
        start = line.find(b"{")
        if start >= 0 and _BEFORE.fullmatch(line, 0, start):
            keys = keys_of(line, start)
            if keys is None and not found:  # most likely the last: the head ends in it
                keys = keys_at(line, start)
            if keys is not None:
                found = True
                yield keys
        if end < 0:
            return


@lru_cache(maxsize=8)  # each format asks of the same lines
def keys_of(line: bytes, start: int) -> dict[str, str] | None:
    """The keys of the object that the line ends with, with the first character of their values; None if it is none."""
    try:
        return {name: chr(memoryview(value)[0]) for name, value in _OBJECT.decode(line[start:]).items()}
    except UNREADABLE:
        return None


def keys_at(line: bytes, at: int) -> dict[str, str]:
    """The keys of the object that begins there, as far as it goes, with the first character of their values."""
    keys: dict[str, str] = {}
    depth = 0
    while match := _TOKEN.search(line, at):
        at = match.end()
        if match[0] in b"{[":
            depth += 1
        elif match[0] in b"}]":
            depth -= 1
            if not depth:
                break
        elif match[2]:
            at = match.start(3)
            if depth == 1:
                keys[match[1].decode(errors="replace")] = match[3].decode(errors="replace")
    return keys
