"""Objects to be read, opened ahead of their turn: a small one takes no time but the wait for it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from farthing.aws import AwsError, Body, Keys, split

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

AHEAD = 48  # an answer takes 30 ms or so, in which a processor reads as many small files
WHOLE_BYTES = 1 << 20  # less than this is fetched in one piece; more comes as it is read

_held: dict[str, Keys] = {}  # by bucket, of the task under way


def use(keys: Keys | None) -> None:
    """Open s3:// paths of this bucket so, from now on."""
    if keys:
        _held[keys.bucket] = keys


def body(url: str, etag: str = "") -> Body:
    """An object of a bucket in use, as an open file. It is asked for when it is first read."""
    bucket, key = split(url)
    if bucket not in _held:
        raise AwsError(f"no keys are at hand for the bucket {bucket}")
    return Body(_held[bucket], key, etag)


class Wanted(Protocol):
    """An object, or what begins at some place in one (_task.Range)."""

    @property
    def path(self) -> str: ...
    @property
    def etag(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def start(self) -> int: ...


def bodies(wanted: Sequence[Wanted]) -> Iterator[BinaryIO | OSError]:
    """Each object in turn, open, or why it is not, while the next ones are on their way."""
    waiting: deque[tuple[Wanted, Future[bytes] | None]] = deque()
    try:
        for one in wanted:
            small = one.size <= WHOLE_BYTES
            waiting.append((one, _threads().submit(body(one.path, one.etag).all) if small else None))
            if len(waiting) >= AHEAD:
                yield _opened(*waiting.popleft())
        while waiting:
            yield _opened(*waiting.popleft())
    finally:
        for _, coming in waiting:
            if coming:
                coming.cancel()


def _opened(one: Wanted, coming: Future[bytes] | None) -> BinaryIO | OSError:
    try:
        if coming:
            return io.BytesIO(coming.result())
        found = body(one.path, one.etag)
        if not one.start:
            found.open()
        return cast("BinaryIO", found)
    except OSError as error:
        return error


@cache
def _threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # where there is a bucket to read

    return ThreadPoolExecutor(AHEAD, "s3")
