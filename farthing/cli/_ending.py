"""How commands end: a server as it would later, an import without taking itself apart first."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence


def end_cleanly(argv: Sequence[str]) -> None:
    """To be called before anything is loaded, which takes most of a second. Servers put handlers of their own.

    At once, as nothing is written yet: an exception could be caught by whatever is being loaded.
    """
    serves = argv[:1] in (["gateway"], ["web"]) and (argv[1:2] == [] or argv[1].startswith("-"))
    if argv[:1] == ["emulate"] or serves:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def leave(code: int) -> None:
    """End this process, but without giving back its memory piece by piece. Not where output cannot be written."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what Python itself calls
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
