"""The AWS event stream: `application/vnd.amazon.eventstream`, frame by frame.

A frame is: its length, the length of its headers, a CRC of these 8 bytes, headers, payload, a CRC of all before.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

MOST_BYTES = 16 * 1024 * 1024 + 16  # of a frame: AWS's limit of the payload, and what surrounds it
MOST_HEADERS = 128 * 1024
_PRELUDE = struct.Struct(">II")
_PRELUDE_CRC = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LEAST_BYTES = 16
_TEXT = 7
_WIDTHS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of header values that are no text, by type
_SIZED = (6, _TEXT)  # bytes and text say their length


class FrameError(ValueError):
    """Bytes that are no event stream."""


class Frame(NamedTuple):
    """`headers` are those whose value is text; `bytes` of the others are skipped."""

    headers: dict[str, str]
    payload: bytes


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A frame with text headers, as AWS sends them.

    >>> Frames().feed(encode({":event-type": "chunk"}, b"{}"))
    [Frame(headers={':event-type': 'chunk'}, payload=b'{}')]
    """
    packed = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = _PRELUDE.pack(_LEAST_BYTES + len(packed) + len(payload), len(packed))
    checked = prelude + _CRC.pack(crc32(prelude)) + packed + payload
    return checked + _CRC.pack(crc32(checked))


def _header(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + bytes((_TEXT,)) + len(value).to_bytes(2, "big") + value


class Frames:
    """Cuts a stream, however it was chunked, into frames. FrameError at the first byte that belongs to none."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        data = self._rest + chunk if self._rest else chunk
        found, at, size = [], 0, len(data)
        while size - at >= _PRELUDE_CRC.size:
            length, packed, check = _PRELUDE_CRC.unpack_from(data, at)
            if crc32(data[at : at + 8]) != check:
                raise FrameError("an event frame whose prelude does not match its checksum")
            if not _LEAST_BYTES + packed <= length <= MOST_BYTES or packed > MOST_HEADERS:
                raise FrameError(f"an event frame of {length} bytes, {packed} of them headers")
            if size - at < length:
                break
            end = at + length
            if crc32(data[at : end - 4]) != _CRC.unpack_from(data, end - 4)[0]:
                raise FrameError("an event frame that does not match its checksum")
            body = at + _PRELUDE_CRC.size
            headers = _headers(data[body : body + packed])
            found.append(Frame(headers, data[body + packed : end - 4]))
            at = end
        self._rest = data[at:]
        return found

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that has not ended."""
        return bool(self._rest)


def _headers(packed: bytes) -> dict[str, str]:
    headers = {}
    at, end = 0, len(packed)
    try:
        while at < end:
            name_end = at + 1 + packed[at]
            name, kind = packed[at + 1 : name_end].decode(), packed[name_end]
            at = name_end + 1
            if kind in _SIZED:
                value_end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
                if value_end > end:
                    raise FrameError("an event frame with a header that is cut short")
                if kind == _TEXT:
                    headers[name] = packed[at + 2 : value_end].decode()
                at = value_end
            else:
                at += _WIDTHS[kind]
    except (IndexError, KeyError, UnicodeDecodeError):
        raise FrameError("an event frame with headers that cannot be read") from None
    if at != end:
        raise FrameError("an event frame with a header that is cut short")
    return headers
