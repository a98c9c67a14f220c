"""What importers of control totals share: values out of JSON documents, exact numbers, totals added up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from farthing.importers._batch import Reject
from farthing.importers._open import UNREADABLE, Numbered
from farthing.importers._read import Lines, reason
from farthing.importers._read import whole as without_halves
from farthing.usage import Rejected, Total

MOST = 2**63  # what the ledger holds in a row


def values(lines: Lines) -> Iterator[tuple[int, Any] | Reject]:
    """Every JSON value with the line that its document begins in: alone, one a line, or one after another.

    A document ends at the latest before a line that opens one in its first column.
    """
    held: list[tuple[int, bytes]] = []
    for number, line in Numbered.of(lines):
        if held and line[:1] in b"{[":
            yield from _values(held)
            held = []
        held.append((number, line))
        if len(held) == 1 or line[:1] in b"}]":  # it may be whole; if not, more lines are waited for
            found = list(_values(held))
            if not any(isinstance(value, Reject) for value in found):
                yield from found
                held = []
    if held:
        yield from _values(held)


def _values(held: list[tuple[int, bytes]]) -> Iterator[tuple[int, Any] | Reject]:
    number = held[0][0]
    try:
        document = without_halves(b"\n".join(line for _, line in held)).decode("utf-8-sig")
        yield from [(number, value) for value in _decoded(document)]
    except json.JSONDecodeError as error:
        at = held[min(error.lineno, len(held)) - 1][0]
        short = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        yield Reject(at, "not JSON: the document is cut short" if short else f"not JSON: {error.msg}")
    except UNREADABLE as error:
        yield Reject(number, reason(error))


def _decoded(text: str) -> list[Any]:
    found: list[Any] = []
    at = len(text) - len(text.lstrip())
    while at < len(text):
        value, at = _decoder.raw_decode(text, at)
        at = _space.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        found += value if isinstance(value, list) else [value]
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name}")


def _exact(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = None
    if (
        number is None or abs(number.adjusted()) > 1_000
    ):  # Decimal's own arithmetic ends somewhere behind that
        raise ValueError("a number with an exponent beyond all bounds")
    return number


_space = re.compile(r"\s*")
_decoder = json.JSONDecoder(parse_float=_exact, parse_constant=_refused)


def whole(value: Any, name: str) -> int:
    """A count, also one written as 12.0; Rejected if it is none."""
    if isinstance(value, Decimal) and abs(value) < MOST and value == value.to_integral_value():
        value = int(value)  # a larger one may be a billion digits long
    if isinstance(value, bool) or not isinstance(value, int):
        raise Rejected(f"{name} is no whole number")
    if value < 0:
        raise Rejected(f"{name} is negative ({value!r:.30})")
    if value >= MOST:
        raise Rejected(f"{name} is more than there can be ({value!r:.30})")
    return value


def listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Rejected(f"{name} is no list")
    return value


def mapped(value: Any, name: str) -> dict[str, Any]:
    """An object; empty where there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Rejected(f"{name} is no object")
    return value


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def added(found: Iterator[Total]) -> Iterator[Total]:
    """Those that are alike but for their value as one: the ledger would keep the last of them."""
    sums: dict[Total, int] = {}
    for total in found:
        key = total._replace(value=0)
        sums[key] = sums.get(key, 0) + total.value
    return (key._replace(value=value) for key, value in sums.items())
