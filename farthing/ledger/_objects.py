"""A bucket's Parquet files as a frame of Spark where a cluster has no s3a: its executors read the columns asked for.

The names of files are broadcast, which may put them on disks. The keys that open them go with the code of each task.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from farthing.aws import Keys, explained, store

OPEN_BYTES = 4 << 20  # what opening a file costs, in bytes read meanwhile: as Spark counts it
SHARE_BYTES = 128 << 20  # that a task reads at most, as in Spark


class Object(NamedTuple):
    key: str
    size: int


def frame(session: Any, held: Keys, files: Sequence[Object], kinds: Mapping[str, str], schema: str) -> Any:
    """The columns that have `kinds`, of all files; "" where a file lacks one that its table had later."""
    context = session.sparkContext
    shares = _shares(files, context.defaultParallelism)
    read = partial(_read, held, context.broadcast(shares), dict(kinds))
    return session.range(0, len(shares), 1, len(shares)).mapInArrow(read, schema)  # a number a task


def _shares(files: Sequence[Object], slots: int) -> list[list[Object]]:
    """Files put together as Spark does it: tasks are worth their start, and there is one for every slot."""
    whole = sum(file.size + OPEN_BYTES for file in files)
    room = min(SHARE_BYTES, max(OPEN_BYTES, whole // slots))
    shares: list[list[Object]] = []
    left = -1
    for file in sorted(files, key=lambda file: file.size, reverse=True):
        if left < file.size:
            shares.append([])
            left = room
        shares[-1].append(file)
        left -= file.size + OPEN_BYTES
    return shares


def _read(held: Keys, shares: Any, kinds: Mapping[str, str], numbers: Iterator[Any]) -> Iterator[Any]:
    """On an executor: the rows of some shares."""
    schema = _arrow(kinds)
    for batch in numbers:
        for number in batch.column(0).to_pylist():
            for file in shares.value[number]:
                yield from _batches(held, file, schema)


def _arrow(kinds: Mapping[str, str]) -> Any:
    import pyarrow as pa

    utc, named = pa.timestamp("us", "UTC"), cast("Any", pa).type_for_alias
    return pa.schema([(name, utc if kind == "timestamp" else named(kind)) for name, kind in kinds.items()])


def _batches(held: Keys, file: Object, schema: Any) -> Iterator[Any]:
    from pyarrow import PythonFile, RecordBatch, repeat
    from pyarrow.parquet import ParquetFile

    found = ParquetFile(PythonFile(_Opened(held, file), mode="r"), pre_buffer=True)
    there = [name for name in schema.names if name in found.schema_arrow.names]
    for batch in found.iter_batches(columns=there, use_threads=False):
        columns = [
            batch.column(name) if name in there else repeat("", batch.num_rows) for name in schema.names
        ]
        yield RecordBatch.from_arrays(columns, schema.names).cast(schema)


class _Opened(io.RawIOBase):
    """An object as a file that pyarrow reads pieces of. The log tells its size, so nobody has to ask for it."""

    def __init__(self, held: Keys, file: Object) -> None:
        self._held, self._file, self._at = held, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def readinto(self, room: Any) -> int:
        import obstore

        length = min(len(room), self._file.size - self._at)
        if length <= 0:
            return 0
        try:
            data = obstore.get_range(store(self._held), self._file.key, start=self._at, length=length)
        except Exception as error:  # noqa: BLE001 - obstore's and Python's own
            raise explained(error, "s3:GetObject", self._held.bucket) from None
        room[:length] = memoryview(data)
        self._at += length
        return length
