"""What the two services of batches have in common, as the runner sees them."""

from __future__ import annotations

from typing import NamedTuple


class Fault(Exception):
    """The service did not do it: one line. Whether it is worth another attempt only time tells."""


class Unsure(Fault):
    """Whether a job was begun cannot be told yet."""


class Declined(Fault):
    """The service answered that it does not do it: nothing was begun."""


class Status(NamedTuple):
    """`ended`: nothing will be done any more. `done` counts records that are, `paid` those with an answer."""

    name: str
    ended: bool
    done: int = 0
    paid: int | None = None
    message: str = ""
    ended_us: int = 0


class Outcome(NamedTuple):
    """Of a record: its answer as JSON, or the error. `final`: another attempt would end as this one; `done`: it was
    tried at all."""

    attempt: str
    output: bytes = b""
    error: str = ""
    final: bool = False
    done: bool = True
