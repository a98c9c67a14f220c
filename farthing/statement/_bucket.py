"""Bills in buckets: what is there, and copies of it to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farthing.aws import Access, Body, keys, objects, split

_AT_ONCE = 4  # files of a bill are large, and few
_CHUNK_BYTES = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def listed(access: Access, url: str) -> Iterator[tuple[str, int, int, str]]:
    """The object, or all below it, as name, size, time and ETag: s3://b/cur does not reach cur-old/."""
    bucket, key = split(url.rstrip("/"))
    for found in objects(access, bucket, key):
        if found.size and (not key or found.key == key or found.key.startswith(f"{key}/")):
            yield f"s3://{bucket}/{found.key}", found.size, _nanoseconds(found.modified), found.etag


def content(access: Access, url: str, etag: str) -> bytes:
    bucket, key = split(url)
    return Body(keys(access, bucket), key, etag).all()


def copied(
    access: Access, wanted: Sequence[tuple[str, str]], folder: Path, tell: Callable[[int], None]
) -> list[Path]:
    """Each (name, ETag) as a file in the folder, in turn. `tell` is called with bytes as they come."""
    folder.mkdir(parents=True, exist_ok=True)

    def copy(number: int, name: str, etag: str) -> Path:
        bucket, key = split(name)
        body = Body(keys(access, bucket), key, etag)
        target = folder / str(number)
        with target.open("wb") as out:
            while chunk := body.read(_CHUNK_BYTES):
                out.write(chunk)
                tell(len(chunk))
        return target

    with ThreadPoolExecutor(_AT_ONCE, "s3") as threads:
        coming = [threads.submit(copy, number, *one) for number, one in enumerate(wanted)]
        return [one.result() for one in coming]


def _nanoseconds(text: str) -> int:
    """Of the time in a listing, which is text."""
    at = datetime.fromisoformat(text) if text else _EPOCH
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
