"""Between the calling process and its workers: frames of msgpack, each after its length."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import msgspec

from farthing.importers._read import record_of
from farthing.importers._task import End, Frame, Task
from farthing.usage import Entry, Facts, Total, Usage

LENGTH_BYTES = 4
HELLO = b"farthing"


def send(pipe: BinaryIO, data: bytes) -> None:
    pipe.write(len(data).to_bytes(LENGTH_BYTES, "big"))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes | None:
    """The next frame; None if the other side has gone."""
    length = pipe.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    data = pipe.read(int.from_bytes(length, "big"))
    return data if len(data) == int.from_bytes(length, "big") else None


def pack_task(task: Task) -> bytes:
    """Names of files go as bytes: not all of them are text."""
    paths = [os.fsencode(part.path) for part in task.ranges]
    return msgspec.msgpack.encode(
        (paths, task._replace(ranges=[part._replace(path="") for part in task.ranges]))
    )


def unpack_task(data: bytes) -> Task:
    paths, task = msgspec.msgpack.decode(data, type=tuple[list[bytes], Task])
    ranges = zip(task.ranges, paths, strict=True)
    return task._replace(ranges=[part._replace(path=os.fsdecode(path)) for part, path in ranges])


def pack_frame(frame: Frame) -> bytes:
    """A column at a time. Each Facts and each set of tags goes once: rows hold their places in tables."""
    facts: dict[int, int] = {}  # by identity: a format hands out one object for equal facts, or nearly so
    table: list[Facts] = []
    tagsets: dict[tuple[tuple[str, str], ...], int] = {}

    def place(said: Facts) -> int:
        at = facts.get(id(said))
        if at is None:
            at = facts[id(said)] = len(table)
            table.append(said)
        return at

    at_us, request_ids, message_ids, parts, tags, *others = (
        zip(*frame.usages, strict=True) if frame.usages else _NONE
    )
    columns = (
        [place(several[0][0]) for several in parts],
        tuple(zip(*[several[0][1] for several in parts], strict=True)),
        [tagsets.setdefault(pairs, len(tagsets)) for pairs in tags],
        at_us,
        request_ids,
        message_ids,
        *others,
    )
    more = [
        (row, [(place(said), tokens) for said, tokens in several[1:]])
        for row, several in enumerate(parts)
        if len(several) > 1
    ]
    return msgspec.msgpack.encode((table, list(tagsets), columns, more, frame[1:]))


_NONE: tuple[tuple[Any, ...], ...] = ((),) * len(Usage._fields)
_Tags = tuple[tuple[str, str], ...]


class _Columns(msgspec.Struct, array_like=True, gc=False):
    facts: list[int]
    tokens: list[list[int]]  # by meter
    tags: list[int]
    at_us: list[int]
    request_ids: list[str]
    message_ids: list[str]
    latency_ms: list[int | None]
    sidechain: list[bool]
    gateway_ids: list[str]
    also: list[tuple[str, ...]]


class _Packed(msgspec.Struct, array_like=True, gc=False):
    table: list[Facts]
    tagsets: list[_Tags]
    columns: _Columns
    more: list[
        tuple[int, list[tuple[int, tuple[int, int, int, int, int]]]]
    ]  # further parts of the few calls with some
    rest: tuple[int, int, int, int, list[End], list[Total], list[Entry], int]


_frames = msgspec.msgpack.Decoder(_Packed)


def unpack_frame(data: bytes) -> Frame:
    packed = _frames.decode(data)
    table, columns = packed.table, packed.columns
    counted = zip(*columns.tokens, strict=True)
    parts = [((table[place], tokens),) for place, tokens in zip(columns.facts, counted, strict=True)]
    for row, further in packed.more:
        parts[row] += tuple((table[place], tokens) for place, tokens in further)  # type: ignore[assignment]
    rows = zip(
        columns.at_us,
        columns.request_ids,
        columns.message_ids,
        parts,
        [packed.tagsets[place] for place in columns.tags],
        columns.latency_ms,
        columns.sidechain,
        columns.gateway_ids,
        columns.also,
        strict=True,
    )
    return Frame(list(map(record_of, rows)), *packed.rest)
