"""What goes over the wire between a client and Claude, read without touching it and without I/O.

`route` says which operation a path asks for, `ask` what a request's body wants, `Answers` meters a response while its
bytes are passed on, `encode` and `Frames` are the AWS event stream. Emulator, hooks and gateway share them.
"""

from farthing.wire._answer import Answer, Answers
from farthing.wire._ask import Asked, ask
from farthing.wire._frames import Frame, FrameError, Frames, encode
from farthing.wire._route import BILLED, Route, route, safe_model_id
from farthing.wire._sse import Events, event

__all__ = [
    "BILLED", "Answer", "Answers", "Asked", "Events", "Frame", "FrameError", "Frames", "Route",
    "ask", "encode", "event", "route", "safe_model_id",
]  # fmt: skip
