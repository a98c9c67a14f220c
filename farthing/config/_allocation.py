"""Values of [[pools]], `fx` and `currency` that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing.config._shape import Fault
from farthing.config._tables import UNASSIGNED, Config, Pool

SPLITS = ("proportion", "even", "fixed", "reads")
_TAKEN = ("direct", "team", "total", "usd")  # names of columns beside those of the pools
_KIND = re.compile(r"[a-z0-9_*?]+")

Place = tuple[str | int, ...]


def check_allocation(config: Config) -> Iterator[Fault]:
    """Pools that take nothing, or give it to nobody; a currency without its rates."""
    if not re.fullmatch("[A-Z]{3}", config.currency):
        yield Fault(("currency",), f"{config.currency!r} is no currency: write three letters, as USD")
    elif config.currency != "USD" and not config.fx:
        yield Fault(
            ("currency",),
            f'{config.currency} needs rates: add fx = "rates.csv" (docs/allocation.md says of what)',
        )
    names = [pool.name for pool in config.pools]
    for number, pool in enumerate(config.pools):
        place: Place = ("pools", number)
        if not pool.name.strip() or pool.name in _TAKEN:
            yield Fault((*place, "name"), f"{pool.name!r} cannot be its name: take another")
        elif pool.name in names[:number]:
            yield Fault((*place, "name"), f"{pool.name!r} is taken: a name is used once")
        yield from _takes(pool, place)
        yield from _gives(pool, config, place)


def _takes(pool: Pool, place: Place) -> Iterator[Fault]:
    if bool(pool.where) == bool(pool.kinds):
        yield Fault(
            place,
            "takes calls by `where`, or other money of the bill by `kinds`: write one of them (two pools for both)",
        )
    for number, text in enumerate(pool.where):
        if "=" not in text:
            yield Fault((*place, "where", number), f"{text!r} is no filter: write KEY=VALUE, as for --where")
    for number, kind in enumerate(pool.kinds):
        if not _KIND.fullmatch(kind):
            says = f"{kind!r} is no kind: write tax, credit, guardrail, not_seen ... as `farthing allocate` shows them"
            yield Fault((*place, "kinds", number), says)


def _gives(pool: Pool, config: Config, place: Place) -> Iterator[Fault]:
    if pool.split not in SPLITS:
        yield Fault((*place, "split"), f"{pool.split!r} is none of {', '.join(SPLITS)}")
    if pool.split == "reads" and pool.kinds:
        yield Fault((*place, "split"), "reads is for calls: name those that share the prefix by `where`")
    if bool(pool.shares) != (pool.split == "fixed"):
        yield Fault(place, 'parts of each team, shares = { search = 3, ads = 1 }, go with split = "fixed"')
    for team, share in pool.shares.items():
        if share < 0 or not any(pool.shares.values()):
            yield Fault((*place, "shares", team), "shares are whole numbers, none below 0 and one above")
    if pool.shares and pool.among:
        yield Fault((*place, "among"), "the teams are those of `shares`: take one away")
    for key, teams in (("shares", tuple(pool.shares)), ("among", pool.among)):
        for number, team in enumerate(teams):
            if config.teams and team not in (*config.teams, UNASSIGNED):
                at = (*place, key, team) if key == "shares" else (*place, key, number)
                yield Fault(at, f"no team {team!r} in this file")
    if len(set(pool.among)) < len(pool.among):
        yield Fault((*place, "among"), "names a team twice")
