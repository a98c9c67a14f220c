"""What readers of traces share: lines to records, and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec

from farthing.traces._log import Reject, Source
from farthing.usage import EPOCH, Rejected

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
LATEST_US = 250 * 10**15  # in the year 9892: what is later is no date, and may not fit into 64 bits
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)


def decoded(lines: Iterable[tuple[int, bytes]], decoder: msgspec.json.Decoder[T]) -> Iterator[T | Reject]:
    """Each line's record, or why it has none. Blank lines are passed over."""
    for number, line in lines:
        if line.strip():
            try:
                yield decoder.decode(line)
            except UNREADABLE as error:
                yield Reject(number, reason(error))


def whole_documents(source: Source) -> Iterable[tuple[int, bytes]]:
    """Lines, or the one document of a file that was printed over several."""
    if source.head.lstrip().partition(b"\n")[0].strip() in (b"{", b"["):
        return [(1, b"\n".join(line for _, line in source.lines))]
    return source.lines


def reason(error: BaseException) -> str:
    """One short line on what is wrong, which quotes no text of a prompt."""
    text = str(error).partition("\n")[0]
    if isinstance(error, Rejected):
        return text
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return text[:160]
    return "not JSON: the line is cut short" if "truncated" in text else f"not JSON: {text}"[:160]


def instant_us(value: Any) -> int:
    """Microseconds since 1970 of an ISO time, UTC where it names no zone. Rejected if it is none."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Rejected("no timestamp" if value is None else "a timestamp that is none") from None
    at = at.replace(tzinfo=at.tzinfo or UTC)
    at_us = round((at - EPOCH).total_seconds() * 1_000_000)
    if not 0 <= at_us < LATEST_US:
        raise Rejected("a timestamp before 1970, or of the far future")
    return at_us
