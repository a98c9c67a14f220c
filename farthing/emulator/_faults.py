"""What goes wrong, by a plan: throttling, errors, delays, streams that end in the middle. Never at random."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from farthing.emulator._errors import Refused

Kind = Literal["throttle", "error", "hang", "close", "cut", "corrupt", "exception"]
_BEFORE = ("throttle", "error")  # nothing is billed
_IN_STREAMS = ("cut", "corrupt", "exception")
_STATUSES = {
    408: "timeout", 424: "model", 429: "throttled", 500: "internal", 503: "unavailable", 529: "overloaded",
    403: "denied", 404: "not_found", 400: "invalid",
}  # fmt: skip


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong: with every `every`th call of these operations, `times` times (0: for ever)."""

    do: Kind
    every: int = 1
    times: int = 0
    on: tuple[str, ...] = ()  # operations; all if empty
    status: int = 500  # of `error`
    exception: str = "throttlingException"  # of `exception`
    message: str = ""
    after: int = 2  # events of a stream that are sent before
    retry_after_s: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or self.times < 0 or self.after < 0 or self.retry_after_s < 0:
            raise ValueError("a fault's `every` counts from 1, and no other number of it is negative")
        if self.status not in _STATUSES:
            raise ValueError(f"status {self.status} is none of {', '.join(map(str, sorted(_STATUSES)))}")

    def concerns(self, operation: str, *, streamed: bool) -> bool:
        return (not self.on or operation in self.on) and (streamed or self.do not in _IN_STREAMS)


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the service behaves. Times are real ones, whatever the clock says."""

    latency_ms: int = 0  # before an answer that is not streamed
    first_token_ms: int = 0  # before a stream's first event; what a request writes can be read from then on
    event_ms: int = 0  # between events
    rate_per_s: int = 0  # calls; what is above is throttled
    retry_after_s: int = 0  # told to who is throttled
    downgrade_1h: bool = False  # writes for an hour are kept and billed for five minutes, without a word
    plan: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        for name in ("latency_ms", "first_token_ms", "event_ms", "rate_per_s", "retry_after_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is negative")


class Failing:
    """Faults at work: whose turn it is."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._met = [0] * len(faults.plan)
        self._done = [0] * len(faults.plan)
        self._second = self._calls = 0

    def meet(self, operation: str, *, streamed: bool) -> Fault | None:
        """What befalls this call after it was taken; Refused if it is not taken at all."""
        faults = self.faults
        if faults.rate_per_s:
            second = int(time.monotonic())
            self._calls = self._calls + 1 if second == self._second else 1
            self._second = second
            if self._calls > faults.rate_per_s:
                raise Refused("throttled", retry_after_s=faults.retry_after_s)
        for at, fault in enumerate(faults.plan):
            if not fault.concerns(operation, streamed=streamed) or 0 < fault.times <= self._done[at]:
                continue
            self._met[at] += 1
            if self._met[at] % fault.every:
                continue
            self._done[at] += 1
            if fault.do in _BEFORE:
                kind = "throttled" if fault.do == "throttle" else _STATUSES[fault.status]
                raise Refused(kind, fault.message, fault.retry_after_s or faults.retry_after_s)
            return fault
        return None


def read_faults(text: bytes | str) -> Faults:
    """Faults as JSON. ValueError says what is wrong with it."""
    try:
        return msgspec.json.decode(text, type=Faults)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"faults: {error}") from error


def as_json(faults: Faults) -> Any:
    """As they can be set again."""
    return msgspec.to_builtins(faults)
