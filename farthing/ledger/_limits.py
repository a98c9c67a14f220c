"""What this process may have of memory and of files (`ulimit`): libraries that meet a bound abort, crash or hang.

So a bound that they cannot start under is refused in a line, DuckDB is told what is left of any other, and no file is
begun that may not be finished.
"""

from __future__ import annotations

import os
import sys

BASE_BYTES, CORE_BYTES = (
    1_000_000_000,
    250_000_000,
)  # of addresses: DuckDB, deltalake, and threads for each core


def too_little_memory() -> str:
    """Why no ledger can be opened here; "" if one can."""
    most, least = _bound("RLIMIT_AS"), _least()
    if most is None or most >= least:
        return ""
    return f"only {most // 10**6:,} MB of memory are allowed here: `ulimit -v {least // 1_024}` allows enough"


def memory_for_rows() -> int | None:
    """Bytes that DuckDB may keep rows in, where memory is bounded: it puts the rest on disk, or says that it cannot."""
    most = _bound("RLIMIT_AS")
    return None if most is None else max(most - _least(), 0) + CORE_BYTES


def longest_file() -> int:
    """Bytes that a file may have here."""
    most = _bound("RLIMIT_FSIZE")
    return sys.maxsize if most is None else most


def _least() -> int:
    """Bytes of addresses that a ledger needs."""
    return BASE_BYTES + CORE_BYTES * (os.cpu_count() or 1)


def _bound(name: str) -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrlimit(getattr(resource, name))[0]
    return None if most == resource.RLIM_INFINITY else most
