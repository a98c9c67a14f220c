"""What a budget answers with, and what it is asked of. Amounts are picodollars, calls or tokens, as `unit` says."""

from __future__ import annotations

from typing import NamedTuple


class Scope(NamedTuple):
    """Whose a call is. `model` is the catalogue's name (claude-sonnet-4-6); `tags` are pairs."""

    key: str = ""
    team: str = ""
    project: str = ""
    run: str = ""
    model: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    account: str = ""


class Notice(NamedTuple):
    """A mark that a budget has passed, each once a window; or with percent 0 what went wrong. `says` is a sentence."""

    budget: str  # as `budget raise` takes it: NAME or NAME/VALUE
    percent: int
    says: str
    spent: int = 0
    limit: int = 0
    unit: str = "usd"
    period: str = ""
    reset_us: int = 0


class Held(NamedTuple):
    """The call may be sent. `holds` name the budgets' windows, for the outbox; none where it falls under no budget.

    `warnings`: marks that a budget has passed, and what was let pass unknown. `near`: with all
    that is held a budget is at its first mark, or has no room for another such call; so settling may have to be told.
    """

    holds: tuple[str, ...] = ()
    warnings: tuple[Notice, ...] = ()
    near: bool = False


class Denied(NamedTuple):
    """The call may not be sent: `reason` says it to its sender in one sentence.

    `reset_us` is when the window ends. `retry_after_s` is sooner where only open holds stand in the way. Of several
    budgets that deny, the one that does so longest. With period "" the store itself was out of reach.
    """

    budget: str
    period: str
    reset_us: int
    retry_after_s: int
    limit: int
    spent: int
    held: int
    reason: str
    unit: str = "usd"


class State(NamedTuple):
    """A budget in its window that is now. `limit` is as raised, if it is (`raised_until_us`)."""

    budget: str
    value: str
    mode: str  # hard, soft
    period: str
    start_us: int
    reset_us: int
    unit: str
    limit: int
    spent: int
    held: int
    raised_until_us: int = 0


class Change(NamedTuple):
    """A line of the audit: who did what to which budget, when and why. `value` is None for all values."""

    at_us: int
    by: str
    action: str  # raise, reset, sync
    budget: str
    value: str | None
    amount: int
    until_us: int
    reason: str


class StoreError(Exception):
    """The store cannot be used: one line that says why."""
