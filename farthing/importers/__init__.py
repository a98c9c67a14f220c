"""Usage out of files: every format, folders, packed files, bad lines, on all processors.

`read_paths` is the way in. A format is one file of this folder (`_read.Format` says what it holds), found by
listing it:

    for batch in read_paths(["logs/"], now=datetime.now(UTC)):
        ...  # batch.usages, batch.files
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

from farthing.aws import Access
from farthing.importers._batch import Batch, File, Reject

__all__ = ["Batch", "File", "Reject", "begin", "formats", "holds", "read_paths"]


def formats() -> dict[str, str]:
    """The name of every format, with its sentence."""
    from farthing.importers import _task

    return {name: (form.__doc__ or "").partition("\n")[0] for name, form in _task.formats().items()}


def holds(path: str, digest: str) -> bool:
    """Whether a local file still has the content that File.digest names."""
    from farthing.importers import _open

    return _open.holds(path, digest)


def begin(paths: Sequence[str]) -> None:
    """An import of these paths will follow: start its processes, if they are local and hold enough, while the rest is
    loaded. It is no promise.
    """
    from farthing.importers import _begin

    _begin.begin(paths)


def read_paths(
    paths: Sequence[str],
    *,
    format: str = "",  # noqa: A002 - as the option is called
    now: datetime,
    workers: int | None = None,
    known: Callable[[str, int, int, str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    access: Access = Access(),  # noqa: B008 - it cannot change
    read_until: Mapping[str, str] | None = None,
    engine: Any = None,
    meanwhile: Callable[[], None] | None = None,
) -> Generator[Batch, None, None]:
    """The usage in files, folders, patterns, s3:// prefixes and standard input ("-"), in batches of bounded size.

    `format` names the only format to be read. Records from after `now` (and a day) are rejected. `known(path,
    size, mtime_ns, digest)` may vouch for a file that has been read before; an object of S3 has a digest and no
    mtime, a local file the other way round. `progress(done, all)` tells bytes on disk. Both are called in the
    caller's thread. `workers` is how many processes parse; with 0 or 1, and for little input anyhow, this one
    does. Closing the iterator ends them.

    `access` is how to reach buckets. `read_until` is what the last batch of an earlier import told: of series of
    objects that go by the hour, only what is newer than that is listed, with some hours before it.
    `engine` is a SparkSession: its executors parse, if there is much to parse. `meanwhile` is called when other
    processes have begun to: for what this one has to do anyhow.
    """
    from farthing.importers import _reading  # when it is used: `farthing --help` needs none of it

    asked = _reading.Asked(
        list(paths), format, now, known, progress, access, read_until or {}, engine, meanwhile
    )
    return _reading.read(asked, workers)
