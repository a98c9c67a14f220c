"""A server that is told to end before it listens ends as it would later: with exit code 0."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def end_cleanly(argv: Sequence[str]) -> None:
    """To be called before anything is loaded, which takes most of a second. Servers put handlers of their own.

    At once, as nothing is written yet: an exception could be caught by whatever is being loaded.
    """
    serves = argv[:1] in (["gateway"], ["web"]) and (argv[1:2] == [] or argv[1].startswith("-"))
    if argv[:1] == ["emulate"] or serves:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
