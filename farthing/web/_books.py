"""The books behind the pages: ledger, prices, bill, policy; pages made of them once, and kept until something changes.

Pages made of sums share one ledger that keeps them; those that read more have another, and a turn of their own, so that
nobody waits for a savings plan to see the bill.
"""

from __future__ import annotations

import gzip
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from farthing.cells import Question, QuestionError, parse_where
from farthing.fx import Rates
from farthing.ledger import Ledger, LedgerError
from farthing.web import _proof, _saving, _usage  # noqa: F401 - they bring the pages
from farthing.web._access import Who
from farthing.web._live import recent
from farthing.web._page import PAGES, Page, PageError, View, as_json, page
from farthing.web._usage import choices

if TYPE_CHECKING:
    from farthing.statement import Statement
    from farthing.web._cube import Cubed

ORDER = (
    "bill",
    "explore",
    "why",
    "reconcile",
    "savings",
    "cache",
    "endpoints",
    "batch",
    "budgets",
    "prices",
    "live",
)
SHARED = ("since", "until", "where", "tz", "assume", "currency")  # parameters of every page
CHOICES = ("team", "model", "endpoint", "mode", "platform", "account", "workload")
WARMED = (
    "bill",
    "explore",
    "why",
    "endpoints",
    "batch",
    "prices",
    "budgets",
    "reconcile",
    "cache",
    "savings",
)
MOST_KEPT, MOST_PARTS = 256, 8  # pages; plans and the like, of which pages are made
IDLE_S = 3.0  # without a question, after which pages that take long are made ahead
KEPT_S, KEPT_SLOW_S = 60, 600  # what hangs on the time of day is that old at most

Query = Sequence[tuple[str, str]]
Ask = Callable[[Query], tuple[Question, Rates | None, str]]  # ValueError where something cannot be


class Packed(NamedTuple):
    plain: bytes
    packed: bytes


class _Kept(NamedTuple):
    made: Packed
    at: datetime
    state: Any  # of what it was made from


_FRESH, _NOT_FRESH = (
    b'"fresh":true',
    b'"fresh":false',
)  # quotes inside of a JSON text are escaped: it is the key
log = logging.getLogger("farthing.web")


@dataclass
class Books:
    """`ask` makes a question of the shared parameters, as the command line does."""

    folder: str  # of the ledger
    ask: Ask
    policy: Path
    statement_of: Callable[[Question], Statement] | None = None
    outbox: str = ""
    config: str = ""  # farthing.toml, whose changes are seen
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    demo: bool = False
    fresh_s: float = 1.0  # for so long the ledger is not asked whether it has changed

    _quick: Cubed | None = field(init=False, default=None)
    _kept: OrderedDict[Any, _Kept] = field(init=False, default_factory=OrderedDict)
    _parts: OrderedDict[Any, Any] = field(init=False, default_factory=OrderedDict)
    _turns: dict[bool, threading.RLock] = field(init=False)
    _choices: dict[Any, dict[str, list[str]]] = field(init=False, default_factory=dict)
    _making: set[Any] = field(init=False, default_factory=set)
    _asked_at: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._turns = {False: threading.RLock(), True: threading.RLock()}

    @property
    def quick(self) -> Cubed:
        """The ledger that keeps sums. Its libraries load as long as all the rest: the server is ready before."""
        with self._turns[False]:
            if self._quick is None:
                from farthing.web._cube import Cubed

                self._quick = Cubed(self.folder, self.fresh_s)
            return self._quick

    @cached_property
    def slow(self) -> Ledger:
        return Ledger(self.folder)

    def warm(self) -> None:
        """Make pages before somebody asks: the first, and with it the sums; the other quick ones; those that take long.

        What is at fault, whoever asks is told.
        """
        self._making.add("ahead")
        for name in WARMED:
            while PAGES[name].slow and time.monotonic() - self._asked_at < IDLE_S:
                time.sleep(0.2)  # while somebody goes from page to page, the engine is theirs
            with suppress(ValueError, LedgerError, OSError):
                self._json(name, (), Who("", "viewer"))
        self._making.discard("ahead")

    @property
    def busy(self) -> bool:
        """Whether a thread makes something that nobody waits for, or is about to."""
        return bool(self._making)

    # --- pages

    def turn(self, *, slow: bool) -> threading.RLock:
        """Whoever reads a ledger takes a turn at it."""
        return self._turns[slow]

    def json(self, name: str, query: Query, who: Who) -> Packed:
        """A page as JSON. PageError or another ValueError in one line where it cannot be."""
        self._asked_at = time.monotonic()
        return self._json(name, query, who)

    def _json(self, name: str, query: Query, who: Who) -> Packed:
        def make(made: Page, view: View) -> bytes:
            said = as_json(name, made, view) | {
                "ledger_version": ".".join(str(version + 1) for version in self.quick.version())
            }
            return msgspec.json.encode(_scoped(said) if who.teams else said)

        return self._once(("json", name, tuple(query), who.teams), name, query, who, make)

    def csv(self, name: str, query: Query, who: Who, table: str = "") -> Packed:
        """One of its tables as CSV: the main one, if none is named."""

        def make(made: Page, view: View) -> bytes:
            if made.missing:
                raise PageError(": ".join(made.missing))
            if table and table not in made.tables:
                raise PageError(f"no table {table[:40]!r}: {name} has {', '.join(made.tables)}")
            chosen = made.tables[table or MAIN.get(name) or next(iter(made.tables))]
            return chosen.as_csv().encode()

        return self._once(("csv", name, table, tuple(query), who.teams), name, query, who, make)

    def _once(
        self, key: Any, name: str, query: Query, who: Who, make: Callable[[Page, View], bytes]
    ) -> Packed:
        """Made once for all who ask the same of the same state of the books.

        Where that takes long, the last answer is served as no longer fresh, and another is made meanwhile. What
        somebody did (the policy, farthing.toml) is seen at once.
        """
        slow, state = PAGES[name].slow, (self._state(), _stamp(self.policy))
        key = (key, *((_stamp(Path(self.config)), state[1]) if slow else state))
        kept = self._kept.get(key)
        old = kept is None or (self.clock() - kept.at).total_seconds() >= (KEPT_SLOW_S if slow else KEPT_S)
        if kept and not old and kept.state == state:
            return kept.made
        if kept and slow and _FRESH in kept.made.plain:
            self._make_meanwhile(key, partial(self._make, key, state, name, query, who, make))
            return _packed(kept.made.plain.replace(_FRESH, _NOT_FRESH, 1))
        return self._make(key, state, name, query, who, make)

    def _make(
        self, key: Any, state: Any, name: str, query: Query, who: Who, make: Callable[[Page, View], bytes]
    ) -> Packed:
        with self._turns[PAGES[name].slow]:
            now = self.clock()
            made = _packed(make(*self._page(name, query, who)))
        self._kept[key] = _Kept(made, now, state)
        with suppress(KeyError):  # another thread was quicker
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made

    def _make_meanwhile(self, key: Any, make: Callable[[], Any]) -> None:
        """Once, however many ask. What is at fault is told to whoever asks when nothing is kept any more."""

        def work() -> None:
            try:
                make()
            except Exception as error:  # noqa: BLE001 - a thread has nobody to tell
                self._kept.pop(key, None)
                log.warning("%s", error)
            finally:
                self._making.discard(key)

        if key not in self._making:
            self._making.add(key)
            threading.Thread(target=work, daemon=True).start()

    def _page(self, name: str, query: Query, who: Who) -> tuple[Page, View]:
        made = PAGES[name]
        others = ("from", "to") if name == "why" else made.own
        if strange := [key for key, _ in query if key not in (*SHARED, *others)]:
            raise PageError(
                f"no parameter {strange[0][:40]!r} here: there are {', '.join((*SHARED, *others))}"
            )
        view = self.view([pair for pair in query if pair[0] in SHARED], who, slow=made.slow)
        return made.make(view, **{key: value for key, value in query if key in others}), view

    def view(self, query: Query, who: Who, *, slow: bool = False) -> View:
        """What a page is made from. Whoever may see some teams alone has a question about those."""
        question, rates, currency = self.ask(query)
        question = _asked_by(question, who)

        def keep(what: str, make: Callable[[], Any]) -> Any:
            key = (what, tuple(query), who.teams, self._state())
            if key not in self._parts:
                self._parts[key] = make()
                while len(self._parts) > MOST_PARTS:
                    self._parts.popitem(last=False)
            return self._parts[key]

        return View(
            self.slow if slow else self.quick, question, self.clock(), tuple(query), rates, currency,
            lambda: self.statement_of(question) if self.statement_of else None,
            str(self.policy), self.outbox, self._known(question, who), who.teams, keep,
        )  # fmt: skip

    def _state(self) -> tuple[Any, ...]:
        """Another whenever the ledger or farthing.toml has changed."""
        return *self.quick.version(), _stamp(Path(self.config)) if self.config else 0

    def _known(self, question: Question, who: Who) -> dict[str, list[str]]:
        """The values to filter by; those of the quick ledger, whichever the page is made from."""
        key = (self._state(), who.teams, question.book.digest)
        with self._turns[False]:
            if key not in self._choices:
                if len(self._choices) > MOST_KEPT:
                    self._choices.clear()
                view = View(self.quick, question, self.clock(), scope=who.teams)
                self._choices[key] = choices(view, CHOICES)
            return self._choices[key]


MAIN = {"bill": "models", "explore": "groups", "cache": "days", "savings": "advice", "reconcile": "causes"}


def _packed(plain: bytes) -> Packed:
    return Packed(plain, gzip.compress(plain, 5, mtime=0))


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _asked_by(question: Question, who: Who) -> Question:
    """The question, about nobody's calls but those of the teams that may be seen."""
    if not who.teams:
        return question
    budgets = tuple(one for one in question.config.budgets if _of(one.where, who.teams))
    config = msgspec.structs.replace(question.config, budgets=budgets)
    return replace(question, where=(*question.where, *who.scope), config=config)


def _of(where: Iterable[str], teams: Sequence[str]) -> bool:
    """Whether a budget is of these teams alone."""
    with suppress(QuestionError):  # which the page of budgets tells to those who see all of them
        asked = [parse_where(text) for text in where]
        return any(one.key == "team" and not one.negated and set(one.values) <= set(teams) for one in asked)
    return False


def _scoped(said: dict[str, Any]) -> dict[str, Any]:
    """Without what is of all teams: which files were rejected, and how many lines."""
    footer = {
        key: value
        for key, value in said["footer"].items()
        if not key.startswith("rejected") and key != "read"
    }
    return said | {"footer": footer, "rejected": {"lines": 0, "reasons": []}}


@page("The last calls of the gateway and the hooks, as they come.", slow=False)
def live(view: View) -> Page:
    return recent(view)
