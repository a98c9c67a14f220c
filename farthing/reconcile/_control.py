"""CloudWatch's tokens beside ours and AWS's: a third count, which neither of the two is made from.

Tokens of one level of series are compared (reports._control chooses it), on the days and accounts that CloudWatch
tells of. It leaves batches out, tells no lifetimes of cache writes, and counts mantle apart, with all of a prompt as
input: so mantle's rows have no count of ours, whose sources do not tell mantle apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from typing import NamedTuple

from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.reconcile._sides import Grain, Place, Side
from farthing.reports._control import counted
from farthing.usage import EPOCH

_TIMES_NEARER = 10  # to one side than the two are to each other: then it agrees with that side
_WRITES = "cache_write"
_Key = tuple[date, str, str, str]  # day, account, model, meter


class Count(NamedTuple):
    """Tokens of a model and meter by all three, of the days and accounts that CloudWatch tells of."""

    model: str
    service: str  # runtime, mantle
    meter: str
    ours: int | None
    cloudwatch: int
    billed: int

    @property
    def agrees_with(self) -> str:
        """`both`, `bill`, `ours`, or "" where it is near neither."""
        return _nearer(self.cloudwatch, self.ours, self.billed)


def _nearer(count: int, ours: int | None, billed: int) -> str:
    if ours is None:
        return "bill" if count == billed else ""
    if ours == billed:
        return "both" if count == billed else ""
    apart = abs(billed - ours)
    if abs(count - billed) * _TIMES_NEARER <= apart:
        return "bill"
    return "ours" if abs(count - ours) * _TIMES_NEARER <= apart else ""


class Control:
    """What CloudWatch counted, where the ledger has it."""

    def __init__(self, sides: Mapping[Place, Side], ledger: Ledger, question: Question, grain: Grain) -> None:
        self._told: dict[str, dict[_Key, int]] = {"runtime": defaultdict(int), "mantle": defaultdict(int)}
        for slot in counted(ledger, question):
            if slot.service in self._told and slot.model.startswith("bedrock/"):
                day, account = grain((EPOCH + timedelta(days=slot.day)).date(), slot.account)
                if slot.meter not in ("calls", "errors"):
                    self._told[slot.service][day, account, slot.model.partition("/")[2], slot.meter] += (
                        slot.tokens
                    )
        self._meters = {
            meter for *_, meter in self._told["runtime"]
        }  # not every metric may have been asked for
        self._places = {service: {key[:2] for key in told} for service, told in self._told.items()}
        self._ours: dict[_Key, int] = defaultdict(int)
        self._billed: dict[str, dict[_Key, int]] = {"runtime": defaultdict(int), "mantle": defaultdict(int)}
        for place, side in sides.items():
            if place.mode == "batch":
                continue
            for service, tokens in (("runtime", side.theirs - side.mantle), ("mantle", side.mantle)):
                at = self._at(service, place)
                if at and (tokens or service == "runtime"):
                    self._billed[service][(*at, place.model, _family(place, service))] += tokens
            if at := self._at("runtime", place):
                self._ours[(*at, place.model, _family(place, "runtime"))] += side.ours

    def _at(self, service: str, place: Place) -> tuple[date, str] | None:
        """The day and account that CloudWatch tells of which are the place's; it may name no accounts."""
        keys = ((place.day, account) for account in (place.account, ""))
        return next((key for key in keys if key in self._places[service]), None)

    def side(self, place: Place) -> str:
        """Which side it agrees with where the two differ: `bill`, `ours`, or "" where it does not say."""
        at = self._at("runtime", place)
        if at is None or place.mode == "batch":
            return ""
        key = (*at, place.model, _family(place, "runtime"))
        if key[-1] not in self._meters:
            return ""
        found = _nearer(
            self._told["runtime"].get(key, 0), self._ours.get(key, 0), self._billed["runtime"].get(key, 0)
        )
        return found if found != "both" else ""

    def counts(self) -> list[Count]:
        """By model and meter, runtime first."""
        sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for service, told in self._told.items():
            ours = self._ours if service == "runtime" else {}
            for i, found in enumerate((ours, told, self._billed[service])):
                for (_, _, model, meter), tokens in found.items():
                    sums[service, model, meter][i] += tokens
        return [
            Count(model, service, meter, total[0] if service == "runtime" else None, *total[1:])
            for (service, model, meter), total in sorted(sums.items(), key=lambda item: _order(*item[0]))
            if any(total) and (service == "mantle" or meter in self._meters)
        ]


def _order(service: str, model: str, meter: str) -> tuple[bool, str, int]:
    return service != "runtime", model, ("input", "output", "cache_read", _WRITES).index(meter)


def _family(place: Place, service: str) -> str:
    if service == "mantle":
        return "output" if place.meter == "output" else "input"
    return _WRITES if place.meter.startswith(_WRITES) else place.meter
