"""Usage out of files: every format, folders, packed files, bad lines, on all processors.

`read_paths` is the way in. A format is one file of this folder (`_read.Format` says what it holds), found by
listing it:

    for batch in read_paths(["logs/"], now=datetime.now(UTC)):
        ...  # batch.usages, batch.files
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import datetime

from farthing.importers._batch import Batch, File, Reject

__all__ = ["Batch", "File", "Reject", "formats", "read_paths"]


def formats() -> dict[str, str]:
    """The name of every format, with its sentence."""
    from farthing.importers import _task

    return {name: (form.__doc__ or "").partition("\n")[0] for name, form in _task.formats().items()}


def read_paths(
    paths: Sequence[str],
    *,
    format: str = "",  # noqa: A002 - as the option is called
    now: datetime,
    workers: int | None = None,
    known: Callable[[str, int, int], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Batch, None, None]:
    """The usage in files, folders, patterns and standard input ("-"), in batches of bounded size.

    `format` names the only format to be read. Records from after `now` (and a day) are rejected. `known(path,
    size, mtime_ns)` may vouch for a file that has been read before. `progress(done, all)` tells bytes on disk.
    Both are called in the caller's thread. `workers` is how many processes parse; with 0 or 1, and for
    little input anyhow, this one does. Closing the iterator ends them.
    """
    from farthing.importers import _reading  # when it is used: `farthing --help` needs none of it

    return _reading.read(list(paths), format, now, workers, known, progress)
