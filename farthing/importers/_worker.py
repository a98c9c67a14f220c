"""A process that runs tasks: each is answered with its frames and an empty one, until the input ends.

_begin.py starts it, with Python's search for cycles turned off: only errors leave some, and looking for them takes a
fifth of the time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from farthing.importers._task import run
from farthing.importers._wire import HELLO, pack_frame, receive, send, unpack_task


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon: it closes the pipes
    tasks = sys.stdin.buffer
    frames = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a print in a format must not get between the frames
    gc.freeze()
    send(frames, HELLO)
    while (data := receive(tasks)) is not None:
        for frame in run(unpack_task(data)):
            send(frames, pack_frame(frame))
            if frame.rejected:
                gc.collect()
        send(frames, b"")
