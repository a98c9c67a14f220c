"""Between the calling process and its workers: frames of msgpack, each after its length."""

from __future__ import annotations

import os
from typing import BinaryIO

import msgspec

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
    """Each Facts goes once: rows hold its place in the table."""
    places: dict[int, int] = {}  # by identity: a format hands out one object for equal facts, or nearly so
    table: list[Facts] = []

    def place(facts: Facts) -> int:
        at = places.get(id(facts))
        if at is None:
            at = places[id(facts)] = len(table)
            table.append(facts)
        return at

    rows = []
    others = []
    for at_us, request_id, message_id, parts, tags, latency_ms, sidechain, gateway_id, also in frame.usages:
        facts, tokens = parts[0]
        ids = (request_id, message_id, gateway_id, also)
        rows.append((at_us, ids, place(facts), tokens, tags, latency_ms, sidechain))
        if len(parts) > 1:
            others.append((len(rows) - 1, [(place(facts), tokens) for facts, tokens in parts[1:]]))
    return msgspec.msgpack.encode((table, rows, others, frame[1:]))


_Tokens = tuple[int, int, int, int, int]
_Ids = tuple[str, str, str, tuple[str, ...]]


class _Packed(msgspec.Struct, array_like=True, gc=False):
    table: list[Facts]
    rows: list[tuple[int, _Ids, int, _Tokens, tuple[tuple[str, str], ...], int | None, bool]]
    others: list[tuple[int, list[tuple[int, _Tokens]]]]  # the further parts of the few calls that have some
    rest: tuple[int, int, int, int, list[End], list[Total], list[Entry], int]


_frames = msgspec.msgpack.Decoder(_Packed)


def unpack_frame(data: bytes) -> Frame:
    packed = _frames.decode(data)
    table = packed.table
    usages = [
        Usage(
            at_us, request_id, message_id, ((table[place], tokens),), tags, latency_ms, side, gateway_id, also
        )
        for at_us, (
            request_id,
            message_id,
            gateway_id,
            also,
        ), place, tokens, tags, latency_ms, side in packed.rows
    ]
    for row, parts in packed.others:
        more = tuple((table[place], tokens) for place, tokens in parts)
        usages[row] = usages[row]._replace(parts=usages[row].parts + more)
    return Frame(usages, *packed.rest)
