"""A process that runs tasks: frames of msgpack on standard input and output, each after its length.

`python -m farthing.importers._worker` says hello, answers each task with its frames and an empty one, and ends
when its input does. It is started by _pool.py, never by hand.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

import msgspec

from farthing.importers._read import Reject
from farthing.importers._task import End, Frame, Range, Task, run
from farthing.usage import Facts, Usage

LENGTH_BYTES = 4
HELLO = b"farthing"

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode


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
    return _encode(task)


def unpack_task(data: bytes) -> Task:
    return msgspec.msgpack.decode(data, type=Task)


Row = tuple[int, str, str, list[tuple[int, tuple[int, int, int, int, int]]], tuple[tuple[str, str], ...], Any, bool]


def pack_frame(frame: Frame) -> bytes:
    """Each Facts goes once: the parts of a call hold its place in the list."""
    places: dict[int, int] = {}  # by identity: a format hands out one object for equal facts, or nearly so
    table: list[Facts] = []
    rows = []
    for at_us, request_id, message_id, parts, tags, latency_ms, sidechain in frame.usages:
        coded = []
        for facts, tokens in parts:
            place = places.get(id(facts))
            if place is None:
                place = places[id(facts)] = len(table)
                table.append(facts)
            coded.append((place, tokens))
        rows.append((at_us, request_id, message_id, coded, tags, latency_ms, sidechain))
    return _encode((table, rows, frame[1:]))


class _Packed(msgspec.Struct, array_like=True):
    table: list[Facts]
    rows: list[
        tuple[
            int,
            str,
            str,
            list[tuple[int, tuple[int, int, int, int, int]]],
            tuple[tuple[str, str], ...],
            int | None,
            bool,
        ]
    ]
    rest: tuple[int, int, int, int, list[End], int]


_frames = msgspec.msgpack.Decoder(_Packed)


def unpack_frame(data: bytes) -> Frame:
    packed = _frames.decode(data)
    table = packed.table
    usages = [
        Usage(at_us, request_id, message_id, tuple([(table[i], tokens) for i, tokens in parts]), *rest)
        for at_us, request_id, message_id, parts, *rest in packed.rows
    ]
    return Frame(usages, *packed.rest)


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon: it closes the pipes
    tasks = sys.stdin.buffer
    frames = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a print in a format must not get between the frames
    gc.disable()  # records hold no cycles, and looking for some takes a fifth of the time
    send(frames, HELLO)
    while (data := receive(tasks)) is not None:
        for frame in run(unpack_task(data)):
            send(frames, pack_frame(frame))
            gc.collect()
        send(frames, b"")


if __name__ == "__main__":
    main()
