"""Worker processes: started, ended, and begun ahead, while the program that will give them work is loaded."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from farthing.aws import is_s3
from farthing.importers._find import Found, find

WORTH_BYTES = 8 << 20  # less than this is read sooner than a worker has started
MOST_WORKERS = 8
PIPE_BYTES = 1 << 20  # a frame or more, so that a worker goes on before it has been read
# For glibc: memory of the size of a chunk is kept for the next one, and not given back and asked for each time.
_ROOM = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 26)}
_ahead: list[subprocess.Popen[bytes]] = []  # that nobody has taken yet


def usual_count() -> int:
    """How many workers are as many as there are processors for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def begin(paths: Sequence[str]) -> None:
    """Start workers ahead of the next import, if there is enough for them at these paths, as far as they are local."""
    count = usual_count()
    if count > 1 and _are_worth(paths):
        atexit.register(_end_ahead)
        _ahead.extend(worker for worker in [_started() for _ in range(count)] if worker)


def start() -> subprocess.Popen[bytes] | None:
    """A worker, one begun ahead if there is any; None where it cannot be started."""
    return _ahead.pop() if _ahead else _started()


def end(worker: subprocess.Popen[bytes]) -> None:
    """End it, whatever it is doing."""
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe:
            with contextlib.suppress(OSError):  # what could not be written matters no longer
                pipe.close()


def _end_ahead() -> None:
    while _ahead:
        end(_ahead.pop())


def _are_worth(paths: Sequence[str]) -> bool:
    """Patterns are not looked into: that may take longer than it saves."""
    left = WORTH_BYTES
    for found in find([path for path in paths if not is_s3(path) and os.path.lexists(path)]):
        left -= found.size if isinstance(found, Found) else 0
        if left <= 0:
            return True
    return False


def _started() -> subprocess.Popen[bytes] | None:
    """A worker that finds modules where this process does."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        worker = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                "import gc; gc.disable(); from farthing.importers._worker import main; main()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**_ROOM, **os.environ, "PYTHONPATH": path},
        )
    except OSError:
        return None
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not every system asks, or grants it
        import fcntl

        fcntl.fcntl(cast("BinaryIO", worker.stdout), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return worker
