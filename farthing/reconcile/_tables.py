"""The comparison as tables: by any of the keys it is made by, and by invoice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from farthing.reconcile._sides import Place, Side

KEYS = Place._fields


class Row(NamedTuple):
    """Ours and AWS's of one group. `quantity_picos` + `price_picos` = billed - ours, exactly.

    It is the split of `rating.bridge`, with the amount billed where that has tokens times rates: the lines of a bill
    have amounts and not always a rate.
    """

    keys: tuple[Any, ...]
    ours: int
    billed: int
    ours_picos: int
    billed_picos: int
    quantity_picos: int
    price_picos: int


def check_keys(text: str) -> list[str]:
    """The keys of a list with commas. ValueError names those there are."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if unknown := [key for key in keys if key not in KEYS]:
        raise ValueError(f"--by {unknown[0]!r}: keys are {', '.join(KEYS)}")
    return keys


def by(sides: Mapping[Place, Side], keys: Sequence[str]) -> list[Row]:
    """The places summed by some of their fields, in their order."""
    at = [KEYS.index(key) for key in keys]
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * 6)
    for place, side in sides.items():
        entry = (
            side.ours, side.theirs, side.ours_picos, side.theirs_picos, side.quantity_picos, side.price_picos,
        )  # fmt: skip
        total = sums[tuple(place[i] for i in at)]
        for i, amount in enumerate(entry):
            total[i] += amount
    return [Row(key, *total) for key, total in sorted(sums.items())]


def total(rows: Sequence[Row]) -> Row:
    """All rows as one, without keys."""
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    return Row((), *(sums or [0] * 6))
