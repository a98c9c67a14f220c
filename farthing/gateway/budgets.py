"""Budgets that hold before a call and settle after it, each in one atomic step over all that it falls under.

`open_budgets` gives the budgets of farthing.toml that have `hold`, kept in a SQLite file (one host) or in PostgreSQL
(several). docs/budgets.md says what they promise.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from farthing.config import Config
from farthing.gateway._budget_rules import Rule, Rules, shown
from farthing.gateway._budget_store import Hold, Store, Sums, Work, open_store, threads
from farthing.gateway._budget_types import Change, Denied, Held, Notice, Scope, State, StoreError

__all__ = [
    "MARKS", "Budgets", "Change", "Denied", "Held", "Holding", "Notice", "Scope", "Settling", "State",
    "StoreError", "default_url", "open_budgets",
]  # fmt: skip

MARKS = (75, 95, 100)  # percent, each told once a window
SOON_S = 5  # when to try again if only open holds are in the way
RAISES_S = 1.0  # how long what others raised may go unseen
BATCH = 500  # holds looked for at once when they expire, or settled late with one call
SLOW_S, PAUSE_S = 0.1, 1.0  # a store that takes so long to fail is left alone for so long
_DAY_US = 86_400 * 10**6
_KEPT_US = {"minute": _DAY_US, "hour": 35 * _DAY_US}  # of longer periods every window is kept
_LATE_US = 35 * _DAY_US  # how long a late answer is still put to its windows
_SECOND_US = 10**6


def open_budgets(config: Config, url: str = "", *, when_down: str = "refuse") -> Budgets:
    """`url` is a path (SQLite), `postgresql://...`, or "": as farthing.toml says. StoreError if it cannot be opened.

    Open it in the process that uses it, after any fork. `when_down` is what becomes of calls while the store is out of
    reach: refuse or pass.
    """
    if when_down not in ("refuse", "pass"):
        raise ValueError(f"when_down is {when_down!r}: write refuse or pass")
    return Budgets(Rules(config), open_store(url or default_url(config)), passes=when_down == "pass")


def default_url(config: Config) -> str:
    """What farthing.toml or $FARTHING_BUDGET_STORE names, else a file among the user's own."""
    if config.budget_store:
        return config.budget_store
    import platformdirs

    return f"{platformdirs.user_data_dir('farthing', appauthor=False)}/budgets.sqlite"


class _No(Exception):
    """Carries a denial out of the transaction, which is then undone: windows may have been begun to look at them."""


class Holding(NamedTuple):
    """A call that asks whether it may be sent. The ceiling in picodollars and in tokens; None: nobody knows."""

    call_id: str
    scope: Scope
    picos: int | None
    now_us: int
    until_us: int
    tokens: int | None = None


class Settling(NamedTuple):
    """A call to be posted, or with `posts` False voided. None: what it came to is not known."""

    call_id: str
    posts: bool
    picos: int | None
    now_us: int
    tokens: int | None = None


Asked = Holding | Settling
Told = Held | Denied | tuple[Notice, ...]


class Budgets:
    """Safe for threads. `waits`: answers may take a network's time; in an event loop go through `run`."""

    def __init__(self, rules: Rules, store: Store, *, passes: bool = False) -> None:
        self.rules, self.waits = rules, store.waits
        self._store, self._passes = store, passes
        self._threads = threads() if store.waits else None
        self._later: deque[Settling] = deque(maxlen=100_000)
        self._raises: dict[tuple[str, str | None], list[Change]] = {}
        self._looked = self._again = 0.0

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's answer: at once, or from a thread if this store `waits`, which no event loop should."""
        if self._threads is None:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True)
        self._store.close()

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Work]:
        """For calls. One that waits for a store that is down should not make all the others wait, too."""
        began = time.monotonic()
        if began < self._again:
            raise StoreError("the budget store was out of reach a moment ago")
        try:
            with self._store.transaction(reads=reads) as work:
                yield work
        except StoreError:
            ended = time.monotonic()
            if ended - began > SLOW_S:
                self._again = ended + PAUSE_S
            raise

    # --- several at once

    def together(self, asked: Sequence[Asked]) -> list[Told]:
        """What `hold`, `post` and `void` would answer one after the other, in one transaction if that can be."""
        if len(asked) > 1 and not self.waits:
            try:
                self._ready(asked[-1].now_us)
                with self._transaction() as work:
                    return [self._done(work, each) for each in asked]
            except StoreError:
                pass  # each alone, then: what is wrong with one is not wrong with all
        return [self._alone(each) for each in asked]

    def _ready(self, now_us: int) -> None:
        if self._later:
            self._catch_up()
        self._look(now_us)

    def _done(self, work: Work, asked: Asked) -> Told:
        return self._held(work, asked) if isinstance(asked, Holding) else self._settled(work, asked)

    def _alone(self, asked: Asked) -> Told:
        """In a transaction of its own. Never raises over the store."""
        try:
            self._ready(asked.now_us)
            with self._transaction() as work:
                told = self._done(work, asked)
                if isinstance(told, Denied):
                    raise _No(told)
                return told
        except _No as no:
            return no.args[0]  # type: ignore[no-any-return]
        except StoreError as error:
            return self._put_off(asked, error)

    def _put_off(self, asked: Asked, error: StoreError) -> Told:
        if isinstance(asked, Settling):
            self._later.append(asked)
            return (Notice("", 0, f"not settled yet: {error}"),)
        if isinstance(parts := self._parts(asked), Denied):
            return parts
        if self.waits:  # then it may have been held all the same
            self._later.append(Settling(asked.call_id, False, None, asked.now_us))
        if self._passes:
            return Held((), (Notice("", 0, f"not held against any budget: {error}"),))
        reason = "the budget store is out of reach; try again"
        return Denied("", "", asked.now_us, SOON_S, 0, 0, 0, reason)

    # --- before a call

    def hold(
        self,
        call_id: str,
        scope: Scope,
        ceiling_picos: int | None,
        now_us: int,
        until_us: int,
        tokens: int | None = None,
    ) -> Held | Denied:
        """Set the ceiling aside in every budget that the call falls under, or in none.

        `tokens` is the ceiling in tokens, for budgets of tokens. A call that already holds holds once.
        """
        asked = Holding(call_id, scope, ceiling_picos, now_us, until_us, tokens)
        return self._alone(asked) if self.rules.of(scope) else Held()  # type: ignore[return-value]

    def _held(self, work: Work, asked: Holding) -> Held | Denied:
        parts = self._parts(asked)
        if isinstance(parts, Denied):
            return parts
        holds, warnings = parts
        near = self._take(work, asked, holds, warnings)
        if isinstance(near, Denied):
            return near
        return Held(self.names(asked), tuple(warnings), near)

    def names(self, asked: Holding) -> tuple[str, ...]:
        """Of the windows in which it holds, if it is let."""
        return tuple(
            f"{shown(rule.name, value)}@{rule.window(asked.now_us).start_us}"
            for rule, value in self.rules.of(asked.scope)
        )

    def _parts(self, asked: Holding) -> Denied | tuple[list[Hold], list[Notice]]:
        """What it would hold, as far as that can be told without the store, and what is let pass unknown."""
        holds, warnings = [], []
        for rule, value in self.rules.of(asked.scope):
            amount = rule.amount(asked.picos, asked.tokens)
            if amount is None:
                if rule.hard and not rule.passes_unpriced:
                    return _unknown(rule, value, asked.now_us)
                warnings.append(_notice(rule, value, "nobody knows what this call may come to at most"))
            holds.append(Hold(rule.name, value, rule.window(asked.now_us).start_us, rule.unit, amount or 0))
        return holds, warnings

    def _take(self, work: Work, asked: Holding, holds: list[Hold], told: list[Notice]) -> Denied | bool:
        """Hold in every window, and whether one is near; or hold nothing: the denial that lasts longest."""
        if not holds or not work.hold(asked.call_id, asked.until_us, holds):
            return False
        near = False
        falls = self.rules.of(asked.scope)
        found = [work.sums(hold.part) for hold in holds]
        no: Denied | None = None
        for (rule, value), hold, sums in zip(falls, holds, found, strict=True):
            limit = self.limit(rule, value, asked.now_us)
            most = sums.spent + sums.held + hold.amount
            near = near or most * 100 >= MARKS[0] * limit or most + hold.amount > limit
            if rule.hard and most > limit:
                denied = _denied(rule, value, hold.amount, limit, sums, asked.now_us)
                if no is None or denied.reset_us > no.reset_us:
                    no = denied
        if no is not None:
            work.release(asked.call_id)
            return no
        for (rule, value), hold, sums in zip(falls, holds, found, strict=True):
            mark = self._mark(rule, value, sums, asked.now_us, told)
            work.set(hold.part, Sums(sums.spent, sums.held + hold.amount, mark))
        return near

    # --- after it

    def post(
        self, call_id: str, picos: int | None, now_us: int, tokens: int | None = None
    ) -> tuple[Notice, ...]:
        """What the call came to, whatever that is, in the windows that held for it; None: its ceiling.

        Twice is once. After an expiry it takes the place of the ceiling, after a void it is posted all the same.
        Answers with the marks that are passed by it. Never raises over the store: it is posted when that is back.
        """
        return self.settle(Settling(call_id, True, picos, now_us, tokens))

    def void(self, call_id: str, now_us: int) -> None:
        """Release what is held: the call is known not to have been billed. What was posted stays."""
        self.settle(Settling(call_id, False, None, now_us))

    def settle(self, settling: Settling) -> tuple[Notice, ...]:
        """Post or void it."""
        return self._alone(settling)  # type: ignore[return-value]

    def renew(self, call_id: str, until_us: int) -> bool:
        """Hold on, as its stream lives. False if it holds no more: then its ceiling is posted, until it is itself."""
        try:
            with self._transaction() as work:
                return bool(work.renew(call_id, until_us))
        except StoreError:
            return False

    def _catch_up(self) -> None:
        """What could not be settled before, oldest first."""
        for _ in range(min(BATCH, len(self._later))):
            try:
                settling = self._later.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                with self._transaction() as work:
                    self._settled(work, settling)
            except StoreError:
                self._later.appendleft(settling)
                raise

    def _settled(self, work: Work, settling: Settling) -> tuple[Notice, ...]:
        call_id, posts, picos, now_us, tokens = settling
        told: list[Notice] = []
        held = work.release(call_id)
        late = work.release_late(call_id) if held is None else None
        for hold in held or late or ():
            cost = picos if hold.unit == "usd" else tokens if hold.unit == "tokens" else 1
            spent = (hold.amount if cost is None else cost) if posts else 0
            sums = work.sums(hold.part)
            sums = Sums(
                sums.spent + spent - hold.counted,
                sums.held - (hold.amount if held is not None else 0),
                sums.told,
            )
            rule = self.rules.named.get(hold.budget)
            if rule is not None and posts:
                sums = sums._replace(told=self._mark(rule, hold.value, sums, now_us, told))
            work.set(hold.part, sums)
            hold.counted = 0
        if not posts and (held or late):
            work.late(call_id, now_us, held or late or ())
        return tuple(told)

    def expire(self, now_us: int) -> int:
        """Post the ceilings of holds that nobody renewed, as assumed, until a later post corrects them. How many.

        Also forgets windows of minutes and hours that are long over. StoreError if the store is out of reach.
        """
        count = 0
        while True:
            with self._store.transaction(reads=True) as work:
                overdue = work.overdue(now_us, BATCH)
            count += sum(self._expire(call_id, now_us) for call_id in overdue)
            if len(overdue) < BATCH:
                break
        with self._store.transaction() as work:
            for period, kept_us in _KEPT_US.items():
                over = [rule.name for rule in self.rules.all if rule.period == period]
                work.forget(over, now_us - kept_us)
            work.forget_late(now_us - _LATE_US)
        return count

    def _expire(self, call_id: str, now_us: int) -> bool:
        with self._store.transaction() as work:
            held = work.release(call_id, now_us)
            for hold in held or ():
                sums = work.sums(hold.part)
                work.set(hold.part, Sums(sums.spent + hold.amount, sums.held - hold.amount, sums.told))
                hold.counted = hold.amount
            if held:
                work.late(call_id, now_us, held)
        return bool(held)

    # --- how they stand

    def state(self, now_us: int) -> list[State]:
        """Every budget in its window that is now; of budgets for each value those that were used."""
        found = []
        self._look(now_us, anew=True)
        with self._store.transaction(reads=True) as work:
            for rule in self.rules.all:
                window = rule.window(now_us)
                rows = work.values(rule.name, window.start_us)
                for value, sums in rows or ([] if rule.each else [("", Sums())]):
                    limit, raised_us = self._raised(rule, value, now_us)
                    mode = "hard" if rule.hard else "soft"
                    found.append(
                        State(
                            rule.name, value, mode, rule.period, *window, rule.unit, limit, sums.spent, sums.held,
                            raised_us,
                        )
                    )  # fmt: skip
        return found

    def audit(self) -> list[Change]:
        """Everything that was raised, reset or synced, in the order in which it was."""
        with self._store.transaction(reads=True) as work:
            return list(work.changes())

    # --- what people change, each with an entry in the audit

    def raise_limit(self, key: str, amount: int, until_us: int, by: str, reason: str, now_us: int) -> Change:
        """Let a budget (NAME or NAME/VALUE) go to `amount` until then. ValueError says what is wrong."""
        rule, value = self._find(key)
        if amount <= rule.limit:
            raise ValueError(
                f"{key} is {rule.said(rule.limit)} a {rule.period} already: raise it to more than that"
            )
        if until_us <= now_us:
            raise ValueError("--until is over already")
        change = self._audited(Change(now_us, by, "raise", rule.name, value, amount, until_us, reason))
        with self._store.transaction() as work:
            work.audit(change)
            for each, sums in self._windows(work, rule, value, now_us):
                work.set((rule.name, each, rule.window(now_us).start_us), sums._replace(told=0))
        self._looked = 0.0
        return change

    def reset(self, key: str, by: str, reason: str, now_us: int) -> list[Change]:
        """Take what is spent in the running window back to nothing. What is held stays, and will be posted."""
        rule, value = self._find(key)
        changes = []
        with self._store.transaction() as work:
            for each, sums in self._windows(work, rule, value, now_us):
                if not sums.spent:
                    continue
                change = Change(now_us, by, "reset", rule.name, each, sums.spent, 0, reason)
                changes.append(self._audited(change))
                work.audit(change)
                work.set((rule.name, each, rule.window(now_us).start_us), Sums(0, sums.held, 0))
        return changes

    def floor(self, name: str, value: str, spent: int, by: str, now_us: int) -> Change | None:
        """At least so much is spent in the running window, as the ledger knows it; None if that is no news."""
        rule, _ = self._find(name)
        part = (rule.name, value, rule.window(now_us).start_us)
        with self._store.transaction() as work:
            sums = work.sums(part)
            if spent <= sums.spent:
                return None
            reason = f"the ledger has {rule.said(spent)}, of which {rule.said(sums.spent)} was known"
            change = Change(now_us, by, "sync", rule.name, value, spent, 0, reason)
            work.audit(change)
            work.set(part, sums._replace(spent=spent))
        return change

    def _find(self, key: str) -> tuple[Rule, str | None]:
        found = self.rules.find(key)
        if found is None:
            known = ", ".join(self.rules.named) or 'none: add [[budgets]] with hold = "hard" to farthing.toml'
            raise ValueError(f"no budget {key!r}; there are {known}")
        return found

    def _windows(self, work: Work, rule: Rule, value: str | None, now_us: int) -> list[tuple[str, Sums]]:
        """The running windows of one value, or of all, locked."""
        start_us = rule.window(now_us).start_us
        values = [each for each, _ in work.values(rule.name, start_us)] if value is None else [value]
        return [(each, work.sums((rule.name, each, start_us))) for each in values]

    @staticmethod
    def _audited(change: Change) -> Change:
        if not change.by.strip() or not change.reason.strip():
            raise ValueError("say by whom and for what reason: the audit keeps both")
        return change

    # --- limits and marks

    def _look(self, now_us: int, *, anew: bool = False) -> None:
        """Read again what was raised, once a second: other processes raise too."""
        looked = time.monotonic()
        if not anew and self._looked and looked - self._looked < RAISES_S:
            return
        with self._transaction(reads=True) as work:
            running = work.raises(now_us)
        raises: dict[tuple[str, str | None], list[Change]] = {}
        for change in running:
            raises.setdefault((change.budget, change.value), []).append(change)
        self._raises, self._looked = raises, looked

    def _raised(self, rule: Rule, value: str, now_us: int) -> tuple[int, int]:
        """(the limit that holds now, until when it is raised; 0 if it is not)."""
        if not self._raises:
            return rule.limit, 0
        named = [*self._raises.get((rule.name, None), ()), *self._raises.get((rule.name, value), ())]
        running = [change for change in named if change.until_us > now_us and change.amount > rule.limit]
        if not running:
            return rule.limit, 0
        last = max(running, key=lambda change: (change.amount, change.until_us))
        return last.amount, last.until_us

    def limit(self, rule: Rule, value: str, now_us: int) -> int:
        """Of a budget now, as raised."""
        return self._raised(rule, value, now_us)[0]

    def _mark(self, rule: Rule, value: str, sums: Sums, now_us: int, told: list[Notice]) -> int:
        """The highest mark told so far, with this one put into words if it is new."""
        if sums.spent * 100 < rule.limit * MARKS[0] or sums.told == MARKS[-1]:
            return sums.told
        limit = self.limit(rule, value, now_us)
        mark = max((mark for mark in MARKS if sums.spent * 100 >= mark * limit), default=0)
        if mark <= sums.told:
            return sums.told
        said = f"at {mark} %: {rule.said(sums.spent)} of {rule.said(limit)} a {rule.period}"
        notice = _notice(rule, value, said)
        reset_us = rule.window(now_us).end_us
        told.append(notice._replace(percent=mark, spent=sums.spent, limit=limit, reset_us=reset_us))
        return mark


def _named(rule: Rule, value: str) -> str:
    return f"budget {shown(rule.name, value)}"


def _notice(rule: Rule, value: str, says: str) -> Notice:
    return Notice(
        shown(rule.name, value), 0, f"{_named(rule, value)}: {says}", unit=rule.unit, period=rule.period
    )


def _denied(rule: Rule, value: str, amount: int, limit: int, sums: Sums, now_us: int) -> Denied:
    reset_us = rule.window(now_us).end_us
    left_s = max(1, -((now_us - reset_us) // _SECOND_US))
    only_held = sums.spent + amount <= limit
    held = f" and {rule.said(sums.held)} held for calls under way" if sums.held else ""
    reason = (
        f"{_named(rule, value)}: {rule.said(sums.spent)} spent{held} of {rule.said(limit)} a {rule.period}; "
        f"this call may come to {rule.said(amount)}; the {rule.period} ends {rule.ends(now_us)}"
    )
    return Denied(
        shown(rule.name, value), rule.period, reset_us, min(SOON_S, left_s) if only_held else left_s, limit,
        sums.spent, sums.held, reason, rule.unit,
    )  # fmt: skip


def _unknown(rule: Rule, value: str, now_us: int) -> Denied:
    reset_us = rule.window(now_us).end_us
    reason = f"{_named(rule, value)}: nobody knows what this call may come to at most, so it cannot be held"
    left_s = max(1, -((now_us - reset_us) // _SECOND_US))
    return Denied(shown(rule.name, value), rule.period, reset_us, left_s, rule.limit, 0, 0, reason, rule.unit)
