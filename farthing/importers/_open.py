"""Files to lines: unpacked by their first bytes, in ranges, with a bound on what one line may take."""

from __future__ import annotations

import errno
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import msgspec
from isal.isal_zlib import crc32

from farthing.aws import is_s3

T = TypeVar("T")
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)  # what a bad line may cause
CHUNK_BYTES = 1 << 18  # larger ones leave the processor's cache
HEAD_BYTES = 1 << 16
RANGE_BYTES = 16 << 20  # of a large file that is read by several
MAX_LINE_BYTES = 1 << 26
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"


class Cut(Exception):
    """Packed data that ends too early or is damaged. What came before it is good."""


class Source:
    """An open file, "-" for standard input, with its first bytes looked at but not lost.

    `start` and `end` bound the range in which a line must begin to be read; only a file that is not packed
    can have them. `taken` counts the bytes read from disk, `crc` is of those in the range. `file` is the file, where
    it is open already.
    """

    def __init__(
        self, path: str, start: int = 0, end: int | None = None, file: BinaryIO | None = None
    ) -> None:
        self.taken = 0
        self.crc = 0
        self.packed = False  # known once the head has been looked at
        self.cut: Cut | None = None
        self._file = file or _opened(path)
        self._bounds = start, sys.maxsize if end is None else end
        self._chunks = self._range() if start or end is not None else self._unpacked()
        self._heads: list[bytes] = []

    def close(self) -> None:
        if sys.stdin is None or self._file is not sys.stdin.buffer:
            self._file.close()

    def head(self) -> bytes:
        """Its beginning, unpacked."""
        while sum(map(len, self._heads)) < HEAD_BYTES and not self.cut:
            try:
                chunk = next(self._chunks, b"")
            except Cut as cut:
                self.cut = cut
                break
            if not chunk:
                break
            self._heads.append(chunk)
        return b"".join(self._heads)[:HEAD_BYTES]

    def chunks(self) -> Iterator[bytes]:
        """All of it, unpacked. Cut where that ends too early."""
        yield from self._heads
        if self.cut:
            raise self.cut
        yield from self._chunks

    def _raw(self, at: int = 0) -> Iterator[bytes]:
        read = getattr(self._file, "read1", self._file.read)  # of a pipe, what is there
        start, stop = self._bounds
        while data := read(CHUNK_BYTES):
            self.taken += len(data)
            inside = at >= start and at + len(data) <= stop
            part = data if inside else memoryview(data)[max(start - at, 0) : max(stop - at, 0)]
            self.crc = crc32(part, self.crc)
            at += len(data)
            yield data

    def _unpacked(self) -> Iterator[bytes]:
        raw = self._raw()
        first = b""
        while len(first) < len(ZSTD) and (data := next(raw, b"")):
            first += data
        self.packed = first.startswith((GZIP, ZSTD))
        if first.startswith(GZIP):
            yield from _unpack(first, raw, GZIP, "gzip", *_igzip())
        elif first.startswith(ZSTD):
            yield from _unpack(first, raw, ZSTD, "zstd", *_zstd())
        else:
            first = first.removeprefix(b"\xef\xbb\xbf")
            if first:
                yield first
            yield from raw

    def _range(self) -> Iterator[bytes]:
        """What begins in the range: from its first line that does, to the end of its last."""
        start, stop = self._bounds
        at = max(start - 1, 0)
        self._file.seek(at)
        ours = not start
        for data in self._raw(at):
            begin = 0
            if not ours:
                begin = data.find(b"\n") + 1
                if not begin:
                    at += len(data)
                    continue
                ours = True
                if at + begin >= stop:
                    return
            elif not at:
                begin = 3 if data.startswith(b"\xef\xbb\xbf") else 0
            close = -1
            if at + len(data) >= stop:
                close = data.find(b"\n", max(stop - 1 - at, begin))
            if piece := data[begin : close + 1] if close >= 0 else data[begin:]:
                yield piece
            if close >= 0:
                return
            at += len(data)


def _opened(path: str) -> io.RawIOBase | BinaryIO:
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        return sys.stdin.buffer
    if is_s3(path):
        from farthing.importers._s3 import body

        found = body(path)
        found.open()
        return cast("BinaryIO", found)
    return open(path, "rb", buffering=0)  # noqa: PTH123 - a fifth of Path's time


def digest_of(crcs: Sequence[int]) -> str:
    """A name for the content of a file, by the sums of its ranges; with several, it ends in their number."""
    if len(crcs) == 1:
        return f"crc32:{crcs[0]:08x}"
    return f"crc32:{crc32(b''.join(crc.to_bytes(4, 'big') for crc in crcs)):08x}-{len(crcs)}"


def holds(path: str, digest: str) -> bool:
    """Whether the local file still has the content of that name."""
    crcs = [0]
    range_bytes = RANGE_BYTES if "-" in digest else sys.maxsize
    left = range_bytes
    try:
        with Path(path).open("rb", buffering=0) as file:
            while data := file.read(min(CHUNK_BYTES, left)):
                crcs[-1] = crc32(data, crcs[-1])
                left -= len(data)
                if not left:
                    crcs.append(0)
                    left = range_bytes
    except OSError:
        return False
    if len(crcs) > 1 and left == range_bytes:
        crcs.pop()  # the file ends with a range
    return digest_of(crcs) == digest


def _igzip() -> tuple[Callable[[], Any], type[Exception]]:
    from isal import igzip_lib

    error: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub says otherwise
    return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), error


def _zstd() -> tuple[Callable[[], Any], type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError
    else:
        from backports.zstd import ZstdDecompressor, ZstdError

    return ZstdDecompressor, ZstdError


def _unpack(
    data: bytes,
    raw: Iterator[bytes],
    magic: bytes,
    name: str,
    unpacker: Callable[[], Any],
    broken: type[Exception],
) -> Iterator[bytes]:
    """Members or frames one after the other, with zeros allowed between and after them (tapes, block devices)."""
    unpack = unpacker()
    while True:
        try:
            out = unpack.decompress(data, CHUNK_BYTES)
        except (broken, EOFError, ValueError) as error:
            raise Cut(f"the {name} data is damaged here ({error}): copy the file again") from None
        if out:
            yield out
        if not unpack.eof:
            data = next(raw, b"") if unpack.needs_input else b""
            if unpack.needs_input and not data:
                raise Cut(f"the {name} data ends here, too early: the file was cut short; copy it again")
            continue
        data = unpack.unused_data.lstrip(b"\0")
        while len(data) < len(magic) and (more := next(raw, b"")):
            data = (data + more).lstrip(b"\0")
        if not data:
            return
        if not data.startswith(magic):
            raise Cut(f"something that is no {name} data follows the {name} data here: copy the file again")
        unpack = unpacker()


class Bad(NamedTuple):
    """A line that does not decode, and why."""

    line: bytes
    error: Exception


class Numbered:
    """The lines of chunks, numbered from 1, blank ones left out: as bytes (`iter`), or decoded.

    `number` and `line` are of the line handed out last. A line over the bound is never held: its number goes to
    `long`. There is one iterator: asked for again, it goes on where it was.
    """

    def __init__(self, chunks: Iterable[bytes], most_bytes: int = 0) -> None:
        self.long: list[int] = []
        self._most_bytes = most_bytes or MAX_LINE_BYTES
        self._before = 0  # lines in blocks that are done with
        self._at = -1
        self._data = b""
        self._starts: list[int] = []  # of the lines in `_data`, and the end of the last one
        self.finished = False  # whether the last line has been handed out
        self.unended = False  # whether the line handed out is the last, with no newline after it
        self._blocks = self._split(chunks)
        self._iterator: Iterator[Any] | None = None

    @classmethod
    def of(cls, lines: Iterable[tuple[int, bytes]]) -> Numbered:
        """These lines, unless they are of this class already."""
        if isinstance(lines, cls):
            return lines
        new = cls(())
        new._blocks = new._given(lines)
        return new

    @property
    def number(self) -> int:
        return self._before + self._at + 1

    @property
    def line(self) -> bytes:
        return self._data[self._starts[self._at] : self._starts[self._at + 1] - 1]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self._iterator = self._iterator or ((self.number, self.line) for _ in self._each())
        return self._iterator

    def decoded(self, decoder: msgspec.json.Decoder[T]) -> Iterator[T | Bad]:
        """The lines decoded, many at a time, for that takes half the time."""
        self._iterator = self._iterator or self._decode(decoder)
        return self._iterator

    def _each(self) -> Iterator[None]:
        for _ in self._blocks:
            yield from self._each_of_block()

    def _each_of_block(self) -> Iterator[None]:
        data, starts = self._data, self._starts
        for at in range(len(starts) - 1):
            if data[starts[at]] <= 32 and not data[starts[at] : starts[at + 1]].strip():
                continue
            self._at = at
            yield

    def _decode(self, decoder: msgspec.json.Decoder[T]) -> Iterator[T | Bad]:
        for _ in self._blocks:
            starts = self._starts
            try:
                records = decoder.decode_lines(memoryview(self._data)[starts[0] : starts[-1]])
            except UNREADABLE:
                records = []
            if len(records) == len(starts) - 1:
                for self._at, record in enumerate(records):
                    yield record
                continue
            # A bad line among them, a blank one, or two values in one.
            for _ in self._each_of_block():
                try:
                    record = decoder.decode(self.line)
                except UNREADABLE as error:
                    yield Bad(self.line, error)
                else:
                    yield record

    def _split(self, chunks: Iterable[bytes]) -> Iterator[None]:
        """Blocks of whole lines: what a chunk has of them, and between two chunks the line that they share."""
        pieces: list[bytes] = []
        held_bytes = 0
        for chunk in chunks:
            start = chunk.find(b"\n") + 1
            held_bytes += start or len(chunk)
            if held_bytes > self._most_bytes:
                pieces.clear()
            else:
                pieces.append(chunk[:start] if start else chunk)
            if not start:
                continue
            yield from self._shared(pieces, held_bytes)
            starts = [start]
            while start := chunk.find(b"\n", start) + 1:
                starts.append(start)
            if len(starts) > 1:
                yield from self._block(chunk, starts)
            pieces = [chunk[starts[-1] :]]
            held_bytes = len(pieces[0])
        if held_bytes:
            self.unended = True
            yield from self._shared([*pieces, b"\n"], held_bytes)
        self.finished = True

    def _shared(self, pieces: list[bytes], held_bytes: int) -> Iterator[None]:
        if held_bytes > self._most_bytes:
            self._before += 1
            self.long.append(self._before)
        else:
            line = b"".join(pieces)
            yield from self._block(line, [0, len(line)])

    def _block(self, data: bytes, starts: list[int]) -> Iterator[None]:
        self._data, self._starts = data, starts
        yield
        self._before += len(starts) - 1
        self._at = -1

    def _given(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[None]:
        for number, line in lines:
            self._before = number - 1
            yield from self._block(line + b"\n", [0, len(line) + 1])
        self.finished = True


_ARCHIVES = {
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"BZh": "bzip2 data: unpack it first (bunzip2)",
    b"\xfd7zXZ": "xz data: unpack it first (unxz)",
    b"PAR1": "a Parquet file, where JSON lines are expected",
    b"\xff\xfe": "UTF-16 text: `iconv -f UTF-16 -t UTF-8 FILE` mends it",
    b"\xfe\xff": "UTF-16 text: `iconv -f UTF-16 -t UTF-8 FILE` mends it",
}
_OPENS_ONLY = re.compile(rb"\s*\{\s*\n")


def in_lines(head: bytes) -> bool:
    """Whether each line of a file that begins so is a record of its own, so that it may be read from any of them."""
    first = head.lstrip().partition(b"\n")[0].rstrip()
    return b"{" in first and not first.startswith(b"[") and not first.endswith((b"{", b"["))


def flawed(head: bytes, cut: Cut | None) -> str:
    """Why a file that begins so cannot have any format of lines, and what mends that; "" if it can."""
    if cut:
        return str(cut)
    if not head.strip():
        return "empty"
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            return what
    if b"\0" in head:
        return "binary data, where JSON lines are expected"
    if head.lstrip().startswith(b"["):
        return "a JSON array, where lines are expected: `jq -c '.[]' FILE` mends it"
    if _OPENS_ONLY.match(head):
        return "JSON spread over several lines, where each record needs its own: `jq -c . FILE` mends it"
    return ""
