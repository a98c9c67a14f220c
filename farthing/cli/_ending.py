"""A server that is told to end before it listens ends as it would later: with exit code 0."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def end_cleanly(argv: Sequence[str]) -> None:
    """To be called before anything is loaded, which takes most of a second. Servers put handlers of their own."""
    if argv[:1] == ["emulate"] or (argv[:1] == ["gateway"] and argv[1:2] and argv[1].startswith("-")):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
