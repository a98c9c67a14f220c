"""Capacity bought ahead: reserved tokens a minute, provisioned model units. How much was used, and what the rest cost.

A bill says so in one of three ways: FOCUS marks lines as Used or Unused, CUR gives the unused units of a reservation,
and else tokens that ran in the capacity are held against it, if the unit tells how many it holds. What none of them
tells is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.statement._by import ACCOUNT
from farthing.statement._columns import CAPACITY, snake
from farthing.statement._usage_type import RESERVED, words_of

if TYPE_CHECKING:
    from farthing.statement._bill import Bill

Tokens = Mapping[tuple[str, str, str], int]  # that ran in reserved capacity: by account, model and meter

_TAKES = {  # what takes up capacity: prompts without what is read from the cache, and answers
    "input": ("input", "cache_write_5m", "cache_write_1h"),
    "output": ("output",),
}
_NO_COST = ("credit", "refund", "tax")  # money beside a commitment, and not what it costs
_NOT_TOLD = "no line tells what ran in it"


class Commitment(NamedTuple):
    """Capacity of one kind in one account, over the days that the bill has of it. None is unknown: `why` says why.

    Quantities are in `unit`. `picos` is what it cost on these days, `idle_picos` the part for what was not used.
    """

    kind: str
    name: str  # as the bill names the commitment, else the usage type
    account: str
    model: str
    meter: str
    first: date
    last: date
    unit: str
    capacity: Decimal | None
    used: Decimal | None
    idle: Decimal | None
    picos: int
    idle_picos: int | None
    why: str = ""

    @property
    def utilisation(self) -> Decimal | None:
        if self.used is None or not self.capacity:
            return None
        return (self.used / self.capacity).quantize(Decimal("0.0001"))


class _Line(NamedTuple):
    number: int
    line_type: str
    account: str
    usage_type: str
    unit: str
    description: str
    name: str
    status: str
    first: date
    last: date
    quantity: Decimal
    cost: Decimal
    effective: Decimal | None
    reserved_units: Decimal | None
    unused_units: Decimal | None
    unused_upfront: Decimal | None
    unused_recurring: Decimal | None


def committed(statement: Bill, seen: Tokens | None = None) -> list[Commitment]:
    """Each commitment of the bill. `seen` are tokens that another source tells of: what the bill tells comes first."""
    bought: dict[tuple[str, ...], list[_Line]] = {}
    ran: dict[tuple[str, str, str], int] = {}
    for line in _lines(statement):
        of = statement.classes[line.number]
        if of.kind in RESERVED and of.meter and not line.status:
            place = line.account, of.model, of.meter
            ran[place] = ran.get(place, 0) + int(line.quantity * of.scale)
            continue
        kind = of.kind if of.kind in RESERVED else "commitment"
        told = (line.name, "", "") if line.name else (line.usage_type, of.model, _meter(line.usage_type))
        bought.setdefault((kind, told[0], line.account, *told[1:]), []).append(line)
    return [_commitment(statement, key, lines, ran or seen or {}) for key, lines in sorted(bought.items())]


def _lines(statement: Bill) -> list[_Line]:
    numbers = [number for number, of in enumerate(statement.classes) if of.kind in RESERVED]
    capacity = ", ".join(f"sum({name})" for name in CAPACITY)
    columns = (
        f"line_type, {ACCOUNT}, usage_type, unit, description, coalesce(nullif(commitment, ''), resource), "
        "lower(commitment_status), min(day), max(day), sum(coalesce(quantity, 0)), "
        f"sum(coalesce({statement.cost}, unblended, 0)), {capacity}"
    )
    where = "list_contains(?, class) OR commitment != ''"
    found = [_Line(*row) for row in statement.classed(columns, where, numbers)]
    return [
        one
        for one in found
        if not snake(one.line_type).endswith("discount") and snake(one.line_type) not in _NO_COST
    ]


def _commitment(statement: Bill, key: tuple[str, ...], lines: Sequence[_Line], ran: Tokens) -> Commitment:
    kind, name, account, model, meter = key
    models = {statement.classes[line.number].model for line in lines} - {""}
    meters = {_meter(line.usage_type) for line in lines} - {""}
    model = model or (models.pop() if len(models) == 1 else "")
    meter = meter or (meters.pop() if len(meters) == 1 else "")
    units = {line.unit for line in lines if line.quantity}
    if any(line.status for line in lines):
        told = _by_status(lines, units)
    elif any(line.reserved_units for line in lines):
        told = _by_reservation(lines)
    else:
        told = _by_tokens(lines, units, (account, model, meter), ran)
    first, last = min(line.first for line in lines), max(line.last for line in lines)
    return Commitment(kind, name, account, model, meter, first, last, "/".join(sorted(units)), **told)


def _by_status(lines: Sequence[_Line], units: set[str]) -> dict[str, Any]:
    """FOCUS: each line is of what was used or of what was not; its effective cost is what that cost."""
    used = [line for line in lines if line.status == "used"]
    unused = [line for line in lines if line.status == "unused"]
    cost = sum((line.effective if line.effective is not None else line.cost for line in lines), Decimal())
    idle_cost = sum((line.effective or Decimal() for line in unused), Decimal())
    idle, busy = (sum((line.quantity for line in some), Decimal()) for some in (unused, used))
    several = len(units) > 1
    return {
        "capacity": None if several else busy + idle,
        "used": None if several else busy,
        "idle": None if several else idle,
        "picos": _picos(cost),
        "idle_picos": _picos(idle_cost),
        "why": f"its lines are in several units: {', '.join(sorted(units))}" if several else "",
    }


def _by_reservation(lines: Sequence[_Line]) -> dict[str, Any]:
    """CUR: the fee of a reservation has its units and those that were not used; usage has its share of the fee."""
    capacity = _total(lines, "reserved_units") or Decimal()
    idle = _total(lines, "unused_units")
    parts = [_total(lines, name) for name in ("unused_upfront", "unused_recurring")]
    idle_cost = (
        sum((part for part in parts if part is not None), Decimal())
        if any(p is not None for p in parts)
        else None
    )
    effective = _total(lines, "effective")
    cost = _total(lines, "cost")
    if effective is not None and idle_cost is not None:
        cost = effective + idle_cost
    return {
        "capacity": capacity,
        "used": None if idle is None else capacity - idle,
        "idle": idle,
        "picos": _picos(cost or Decimal()),
        "idle_picos": None if idle_cost is None else _picos(idle_cost),
        "why": "" if idle is not None else "the bill has no column of unused units",
    }


def _by_tokens(
    lines: Sequence[_Line], units: set[str], place: tuple[str, str, str], ran: Tokens
) -> dict[str, Any]:
    """Capacity by the hour, of which the unit may tell how many tokens it holds, against tokens that ran in it."""
    capacity = sum((line.quantity for line in lines), Decimal())
    picos = _picos(sum((line.cost for line in lines), Decimal()))
    account, model, meter = place
    tokens = [ran[account, model, one] for one in _TAKES.get(meter, ()) if (account, model, one) in ran]
    holds = {_holds(line) for line in lines}
    each = holds.pop() if len(holds) == 1 else None
    told: dict[str, Any] = {
        "capacity": capacity,
        "used": None,
        "idle": None,
        "picos": picos,
        "idle_picos": None,
    }
    if len(units) > 1:
        return told | {"capacity": None, "why": f"its lines are in several units: {', '.join(sorted(units))}"}
    if not tokens:
        return told | {"why": _NOT_TOLD}
    if not each or capacity <= 0:
        unit = next(iter(units), "")
        return told | {
            "why": f"{sum(tokens):,} tokens ran in it, but its unit ({unit or 'none'}) does not tell how many it holds"
        }
    used = min(Decimal(sum(tokens)) / each, capacity)
    idle = capacity - used
    return told | {"used": used, "idle": idle, "idle_picos": int(picos * idle / capacity)}


_PER_MINUTE = re.compile(
    r"(?P<scale>k|m|1,?000,?000|1,?000|thousand|million)?[ -]*(input|output)?[ -]*(tpm|tokens?[ -]per[ -]minute)",
    re.IGNORECASE,
)
_SCALES = {"k": 1_000, "1000": 1_000, "thousand": 1_000, "m": 10**6, "1000000": 10**6, "million": 10**6}
_HOUR = re.compile(r"h(ou)?rs?\b", re.IGNORECASE)


def _holds(line: _Line) -> int | None:
    """How many tokens a unit of capacity lets through: a thousand a minute for an hour are 60,000."""
    for text in (line.unit, line.description):
        match = _PER_MINUTE.search(text)
        if match and _HOUR.search(f"{line.unit} {line.description}"):
            scale = (match["scale"] or "").replace(",", "").lower()
            if scale or text == line.unit:
                return _SCALES.get(scale, 1) * 60
    return None


def _meter(usage_type: str) -> str:
    said = words_of(usage_type)
    return next((name for name in _TAKES if name in said), "")


def _total(lines: Sequence[_Line], name: str) -> Decimal | None:
    amounts = [amount for line in lines if (amount := getattr(line, name)) is not None]
    return sum(amounts, Decimal()) if amounts else None


def _picos(cost: Decimal) -> int:
    return int(cost.scaleb(12))
