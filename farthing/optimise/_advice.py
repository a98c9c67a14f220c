"""What `farthing savings` answers: a plan, the advice it is made of, and the exact changes. Money is picodollars."""

from __future__ import annotations

from typing import Any

import msgspec

# The order in which steps are taken; the price book comes after them.
LEVERS_IN_ORDER = ("content", "model", "channel", "schedule", "cache", "endpoint")
KINDS = ("content", "cache_markers", "ttl", "profile", "model", "batch", "schedule", "settings")  # of changes


class Interval(msgspec.Struct, frozen=True):
    """Nineteen times of twenty between `low` and `high`; all three alike where nothing is uncertain."""

    low: int
    mid: int
    high: int


class Change(msgspec.Struct, frozen=True):
    """What to change, for a person (`before`, `after`: code, an id, settings) and for the policy file (`data`)."""

    kind: str  # of KINDS
    says: str
    before: str
    after: str
    data: dict[str, Any]


class Advice(msgspec.Struct, frozen=True):
    """One lever on one workload's calls of one model.

    `billed` is what these calls came to; `replayed` what today's configuration comes to on their trace, and
    `calibration` how far that is from what was billed ("" where nothing was replayed). `advised` is what they come to
    with the plan up to and with this lever, `saved` the step that is the lever's own: None where it is withheld.
    `bound` is the least that any plan could have cost, `captured` the share of (billed - bound) that this step saves:
    "" where it saves more than that, since it is no caching and not allowed, and the bound is of what is.

    It is in the plan's total if it `counts`: if it is `permitted`, `resolved` and `final`. `why_not` says what stands
    against it, else. What does not count is given on top of the plan, each by itself.
    """

    workload: str
    model: str
    lever: str  # of LEVERS_IN_ORDER; with " + " between where one pays only with the other
    says: str
    billed: int
    replayed: int | None
    advised: Interval | None
    saved: Interval | None
    bound: int
    captured: str  # percent
    calibration: str  # percent
    resolved: bool
    permitted: bool
    final: bool
    counts: bool
    why_not: str
    exact: bool
    semantics: str
    evidence: str  # the command that shows the rows
    sessions: int  # that were replayed
    risk: str
    change: Change
    # What `saved` is less by, since what is cached is of a model: written anew once, and for good where it is shared.
    cold_cache: int = 0
    # Of a batch: the least that batch or cache, chosen call by call with hindsight, could have come to (proved; None
    # where no prefixes are known), and the share of what that would save which this step does.
    optimum: int | None = None
    captured_of_optimum: str = ""  # percent


class Step(msgspec.Struct, frozen=True):
    """Of the waterfall: by how much the plan comes to less with these levers, all workloads together."""

    lever: str
    saved: Interval


class Worked(msgspec.Struct, frozen=True):
    """A workload under the plan. `worth` is what it would come to if its owner allowed all that is known to pay."""

    workload: str
    owner: str
    named: bool  # in farthing.toml
    calls: int
    models: list[str]
    billed: int
    replayed: int
    advised: Interval
    bound: int
    worth: Interval
    traced: str  # share of its cost whose prefixes are known, in percent
    notes: list[str]
    allow: str  # what to add to farthing.toml to permit what is not


class Rule(msgspec.Struct, frozen=True):
    """One of the four rules of thumb: what it alone would save here, on all calls and on those that may."""

    rule: str
    says: str
    worth: Interval
    permitted: Interval
    note: str


class Plan(msgspec.Struct, frozen=True):
    """The answer. `billed` is the statement's where one was given, else computed. No sum counts a dollar twice."""

    heading: str
    billed: int
    computed: int
    replayed: int
    advised: Interval
    bound: int
    waterfall: list[Step]
    advice: list[Advice]
    workloads: list[Worked]
    rules: list[Rule]
    quarter: str  # whether all of it comes to under a quarter, in a sentence
    semantics: str
    since: str
    until: str
    notes: list[str]
    faults: list[str]  # lines of --bodies that could not be read
