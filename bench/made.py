"""Made-up data is kept while what made it stays the same, and made anew when that changes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def keep(folder: Path, made_by: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `make` tells of the data it wrote into `folder`; `made_by` is the text that it depends on."""
    done = folder.with_suffix(".done")
    stamp = hashlib.sha256(made_by.encode()).hexdigest()[:16]
    with alone(folder.with_suffix(".lock")):
        if done.exists():
            told: dict[str, Any] = json.loads(done.read_text())
            if told.pop("stamp", "") == stamp:
                return told
        done.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        told = make(folder)
        done.write_text(json.dumps(told | {"stamp": stamp}))
        return told


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another run ({lock.name})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
