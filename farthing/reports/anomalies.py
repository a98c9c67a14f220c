"""What costs more than it usually does, hour by hour, and why; and what fell silent."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any, NamedTuple

from farthing.book import Resolved
from farthing.cells import TIME_KEYS, Cell, Question, QuestionError, cells, check_key
from farthing.ledger import Ledger
from farthing.meters import Vector
from farthing.money import PICOS_PER_USD, show
from farthing.reports._alarms import (
    DAY,
    WEEK,
    WEEKS,
    Window,
    long_days,
    same_hours,
    silences,
    spikes,
)
from farthing.reports._spending import known_until
from farthing.reports._table import Table, footer, heading, report
from farthing.usage import EPOCH
from farthing.why import Moved, Scenario, Step, between_cells

KEYS = "team,model,account"
LOOKED_AT_DAYS = 7  # where no days are asked for
STALE_HOURS = 7 * DAY  # after which nobody need be told that a ledger has nothing new
SAME = 60  # percent of an alarm's excess that lie in another's: it is the same
DAY_LEAST = 4  # the least of a day, in hours of the least
MANY = 3  # anomalies of one cause, for them to be one
ALL = "all usage"

CAUSES = {
    "volume": "more calls",
    "prompt size": "longer prompts",
    "output size": "longer answers",
    "tokenizer": "a tokenizer that counts more",
    "model mix": "dearer models",
    "endpoint mix": "dearer endpoints",
    "batch and mode": "less batch",
    "long prompts": "more prompts beyond a price band",
    "cache": "cache broken",
}
SILENT = "silent"


class Subject(NamedTuple):
    """A team, a model, an account; or all usage, whose key is empty."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key} {' '.join(self.value.split()) or '(none)'}" if self.key else ALL


class Anomaly(NamedTuple):
    subject: Subject
    window: Window
    compared: Window | None  # the same hours of a week, or a day, before; None of a silence
    cost: int
    usual: int
    cause: str  # a key of CAUSES, `price`, or SILENT
    detail: str
    steps: tuple[Step, ...]  # from the usual to the cost
    expected_calls: int = 0

    @property
    def extra(self) -> int:
        return self.cost - self.usual


class _Hours:
    """The cells of each hour, and for each subject its cost and calls by the hour."""

    def __init__(self, found: Iterable[Cell], keys: Sequence[str]) -> None:
        self.keys = keys
        self.cells: dict[int, list[Cell]] = defaultdict(list)
        self.usd: dict[Subject, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self.calls: dict[Subject, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for cell in found:
            hour = _hour(cell)
            self.cells[hour].append(cell)
            for subject in self.of(cell):
                self.usd[subject][hour] += cell.cost / PICOS_PER_USD
                self.calls[subject][hour] += cell.calls

    def of(self, cell: Cell) -> list[Subject]:
        """The subjects that it belongs to."""
        named = [Subject(key, value) for key, value in zip(self.keys, cell.keys[1:], strict=True)]
        return [*named, Subject("", "")]

    def within(self, subjects: set[Subject], hours: Iterable[int]) -> list[Cell]:
        """The cells of these hours that belong to all of the subjects."""
        return [cell for hour in hours for cell in self.cells.get(hour, ()) if subjects <= set(self.of(cell))]


@report(
    "What costs more than usual, by the hour, since when and why; what fell silent. Exit code 1 if there is any."
)
def anomalies(ledger: Ledger, question: Question, by: str = KEYS, minimum: int = 5) -> Table:
    """Of the last seven days, if none are asked for. `minimum` is in dollars an hour: less than that is no news."""
    keys = tuple(check_key(key) for key in by.split(",") if key)
    if wrong := next((key for key in keys if key in (*TIME_KEYS, "meter")), ""):
        raise QuestionError(
            f"cannot look for anomalies by {wrong!r}: name what spends, such as team or model"
        )
    found, under, end = find(ledger, question, keys, minimum, datetime.now(UTC))
    until = f"; usage until {end.astimezone(question.zone):%Y-%m-%d %H:%M}" if end else ""
    columns = ("what", "since", "hours", "usd", "usual_usd", "hourly_usd", "cause", "detail", "see")
    return Table(
        "Anomalies",
        f"{heading(under)}{until}",
        columns,
        [_row(anomaly, question) for anomaly in found],
        footer(ledger, question, under),
        failed=bool(found),
        empty="nothing out of the ordinary",
    )


def find(
    ledger: Ledger, question: Question, keys: Sequence[str], minimum: int, now: datetime
) -> tuple[list[Anomaly], list[Cell], datetime | None]:
    """The anomalies of the days asked for, dearest first; the cells of these days; and how far usage is known."""
    end = known_until(ledger, question, now)
    if end is None:
        return [], [], None
    last = _hour_of(end)
    first = _hour_of(question.span()[0]) if question.since else last - last % DAY - (LOOKED_AT_DAYS - 1) * DAY
    learnt = first - (WEEKS * WEEK + WEEK + DAY)
    asked = replace(question, tz="UTC", since=_day(learnt), until=_day(last))
    every = cells(ledger, asked, ("day", *keys), flags=_hour_bits())
    hours = _Hours(every, keys)
    if not hours.cells:
        return [], [], end
    silent_until = last if question.until else _hour_of(now)
    silent_until = silent_until if silent_until - last <= STALE_HOURS else last
    looked_at = range(first, last + 1)
    raised = _spikes(hours, looked_at, minimum)
    raised += _silences(hours, range(first, silent_until))

    def explain(*alarm: Any) -> Anomaly:
        return _explained(ledger, question, hours, *alarm)

    explained = _together(
        [explain(*alarm) for alarm in raised], lambda at: explain(Subject("", ""), at, False)
    )
    found = sorted(explained, key=lambda one: (-abs(one.extra), one.window, one.subject))
    return found, [cell for hour in looked_at for cell in hours.cells.get(hour, ())], end


# --- what is out of the ordinary ------------------------------------------------------------------

Alarm = tuple[Subject, Window, bool]  # whether it is a silence


def _spikes(hours: _Hours, looked_at: range, minimum: int) -> list[Alarm]:
    begun = min(hours.cells)
    found: list[Alarm] = []
    days = range(looked_at.start // DAY, (looked_at.stop - 1) // DAY + 1)
    for whole_days in (False, True):
        raised: list[Alarm] = []
        for subject in hours.usd:
            usd, calls = hours.usd[subject], hours.calls[subject]
            windows = (
                long_days(usd, calls, begun, days, minimum * DAY_LEAST)
                if whole_days
                else spikes(usd, calls, begun, looked_at, minimum)
            )
            raised += [(subject, window, False) for window in windows]
        found = _distinct(hours, found, raised)
    return found


def _distinct(hours: _Hours, found: list[Alarm], raised: list[Alarm]) -> list[Alarm]:
    """With those that are not the same as others: of one cause, the first key has the word, and all usage the last."""
    order = {key: place for place, key in enumerate((*hours.keys, ""))}
    raised.sort(key=lambda alarm: (order[alarm[0].key], -_extra(hours, {alarm[0]}, alarm[1]), alarm[1]))
    for subject, window, _ in raised:
        covered = sum(
            _extra(hours, {subject, other}, window)
            for other, at, _ in found
            if at.start < window.end and window.start < at.end
        )
        if covered * 100 < SAME * _extra(hours, {subject}, window):
            found.append((subject, window, False))
    return found


def _extra(hours: _Hours, subjects: set[Subject], window: Window) -> int:
    """What these hours cost beyond the ones they are compared with."""
    compared = _compared(hours, subjects, window)
    return _cost(hours.within(subjects, range(*window))) - _cost(hours.within(subjects, range(*compared)))


def _compared(hours: _Hours, subjects: set[Subject], window: Window) -> Window:
    """The same hours of that week, or day, before whose cost is the median one."""
    starts = same_hours(window.start, min(hours.cells)) or [window.start - WEEK]
    length = window.end - window.start
    starts = [start for start in starts if start + length <= window.start] or starts[-1:]
    costs = sorted((_cost(hours.within(subjects, range(at, at + length))), -at) for at in starts)
    start = -costs[(len(costs) - 1) // 2][1]
    return Window(start, start + length)


def _silences(hours: _Hours, looked_at: range) -> list[Alarm]:
    """The widest that is silent: where all usage is, no team is told; nor a model whose only team is."""
    begun = min(hours.cells)
    found: list[Alarm] = []
    for key in ("", *(key for key in hours.keys if key != "model")):  # another model is no silence
        for subject in [subject for subject in hours.calls if subject.key == key]:
            for window in silences(hours.calls[subject], begun, looked_at):
                told = [at for other, at, _ in found if _meet(hours, subject, other)]
                if not any(at.start <= window.end and window.start <= at.end for at in told):
                    found.append((subject, window, True))
    return found


def _meet(hours: _Hours, one: Subject, other: Subject) -> bool:
    """Whether most calls of the one were the other's too."""
    mine = [cell for hour in hours.cells.values() for cell in hour if one in hours.of(cell)]
    both = sum(cell.calls for cell in mine if other in hours.of(cell))
    return 2 * both > sum(map(_calls, mine))


def _together(found: list[Anomaly], of_all: Callable[[Window], Anomaly]) -> list[Anomaly]:
    """Where many have one cause at one time, it is one anomaly of all usage: prices, a launch, a library of ours."""
    for first in found:
        alike = [
            one
            for one in found
            if (one.subject.key, one.cause) == (first.subject.key, first.cause)
            and max(one.window.start, first.window.start) < min(one.window.end, first.window.end)
        ]
        if len(alike) < MANY or first.cause == SILENT or not first.subject.key:
            continue
        window = Window(min(one.window.start for one in alike), max(one.window.end for one in alike))
        whole = of_all(window)
        if whole.cause == first.cause and 100 * sum(one.extra for one in alike) >= SAME * whole.extra:
            named = ", ".join(sorted(one.subject.value for one in alike))
            whole = whole._replace(detail=f"{whole.detail}; {first.subject.key} {named}")
            return [*_together([one for one in found if one not in alike], of_all), whole]
    return found


# --- why ------------------------------------------------------------------------------------------


def _explained(
    ledger: Ledger, question: Question, hours: _Hours, subject: Subject, window: Window, silent: bool
) -> Anomaly:
    compared = _compared(hours, {subject}, window)
    after = hours.within({subject}, range(*window))
    before = hours.within({subject}, range(*compared))
    if silent:
        return _fell_silent(hours, subject, window, before)
    if not before:
        detail = f"{sum(cell.calls for cell in after):,} calls where there were none"
        cost = _cost(after)
        return Anomaly(subject, window, compared, cost, 0, "volume", detail, (Step("volume", cost),))
    sides = [Scenario(ledger, question, _days(hours_)) for hours_ in (compared, window)]
    moved = between_cells(sides[0], before, sides[1], after)
    main = max(moved.steps, key=lambda step: step.picos)
    return Anomaly(
        subject,
        window,
        compared,
        moved.to_picos,
        moved.from_picos,
        main.name if main.name in CAUSES else "price",
        _detail(main, moved, before, after),
        tuple(moved.steps),
    )


def _fell_silent(hours: _Hours, subject: Subject, window: Window, before: list[Cell]) -> Anomaly:
    begun = min(hours.cells)
    calls = hours.calls[subject]
    expected = sum(
        median(calls.get(at, 0) for at in same)
        for hour in range(*window)
        if (same := same_hours(hour, begun))
    )
    detail = f"no calls, where {round(expected):,} are usual: they stopped, or are not logged or not imported"
    return Anomaly(subject, window, None, 0, _cost(before), SILENT, detail, (), round(expected))


def _detail(main: Step, moved: Moved, before: list[Cell], after: list[Cell]) -> str:
    """The main cause in figures, and its part of the difference."""
    part = f"{show(main.picos)} of {show(moved.to_picos - moved.from_picos)}"
    told = _FIGURES.get(main.name)
    return f"{told(before, after)} ({part})" if told else f"{main.name} ({part})"


def _share(
    part: Callable[[Cell], int], whole: Callable[[Cell], int]
) -> Callable[[list[Cell], list[Cell]], str]:
    def told(before: list[Cell], after: list[Cell]) -> str:
        shares = [100 * sum(map(part, side)) / (sum(map(whole, side)) or 1) for side in (before, after)]
        return " to ".join(f"{share:.0f} %" for share in shares)

    return told


def _calls(cell: Cell) -> int:
    return cell.calls


def _prompt(cell: Cell) -> int:
    return int(cell.tokens.prompt)


def _each(tokens: Callable[[Vector], int], what: str) -> Callable[[list[Cell], list[Cell]], str]:
    def told(before: list[Cell], after: list[Cell]) -> str:
        sides = [
            sum(tokens(c.tokens) for c in side) // (sum(c.calls for c in side) or 1)
            for side in (before, after)
        ]
        return f"{sides[0]:,} to {sides[1]:,} {what} a call"

    return told


def _number(before: list[Cell], after: list[Cell]) -> str:
    return " to ".join(f"{sum(map(_calls, side)):,}" for side in (before, after)) + " calls"


def _grown(name: Callable[[Cell], str]) -> Callable[[list[Cell], list[Cell]], str]:
    """Whose share of the tokens grew most."""

    def told(before: list[Cell], after: list[Cell]) -> str:
        names = sorted({name(cell) for cell in after})
        shares = {
            one: [
                100
                * sum(sum(c.tokens) for c in side if name(c) == one)
                / (sum(sum(c.tokens) for c in side) or 1)
                for side in (before, after)
            ]
            for one in names
        }
        best = max(names, key=lambda one: shares[one][1] - shares[one][0])
        return f"{best} from {shares[best][0]:.0f} % to {shares[best][1]:.0f} % of tokens"

    return told


def _sku(field: str) -> Callable[[Cell], str]:
    return lambda cell: str(getattr(cell.sku.sku, field)) if isinstance(cell.sku, Resolved) else "unknown"


_CACHED = _share(lambda cell: cell.tokens.cache_read, _prompt)
_BATCHED = _share(lambda cell: cell.calls * (_sku("mode")(cell) == "batch"), _calls)
_FIGURES: dict[str, Callable[[list[Cell], list[Cell]], str]] = {
    "volume": _number,
    "prompt size": _each(lambda tokens: tokens.prompt, "prompt tokens"),
    "output size": _each(lambda tokens: tokens.output, "output tokens"),
    "tokenizer": _grown(_sku("model")),
    "model mix": _grown(_sku("model")),
    "endpoint mix": _grown(_sku("endpoint")),
    "batch and mode": lambda before, after: f"batch from {_BATCHED(before, after)} of calls",
    "cache": lambda before, after: f"read from the cache: {_CACHED(before, after)} of prompt tokens",
}


# --- hours and rows -------------------------------------------------------------------------------


def _hour_bits() -> list[Any]:
    """The hour of the day in five conditions: cells have no hour, but are told apart by conditions."""
    import narwhals.stable.v2 as nw

    return [(nw.col("at").dt.hour() // 2**bit) % 2 == 1 for bit in range(5)]


def _hour(cell: Cell) -> int:
    day = (date.fromisoformat(cell.keys[0]) - EPOCH.date()).days
    return day * DAY + sum(1 << bit for bit, is_set in enumerate(cell.flags) if is_set)


def _hour_of(at: datetime) -> int:
    return int((at - EPOCH).total_seconds() // 3600)


def at_hour(hour: int) -> datetime:
    return EPOCH + timedelta(hours=hour)


def _day(hour: int) -> date:
    return at_hour(hour).date()


def _days(window: Window) -> tuple[date, date]:
    return _day(window.start), _day(window.end - 1)


def _cost(found: Iterable[Cell]) -> int:
    return sum([cell.cost for cell in found])


def _row(found: Anomaly, question: Question) -> dict[str, Any]:
    since = at_hour(found.window.start).astimezone(question.zone)
    hours = found.window.end - found.window.start
    return {
        "what": str(found.subject),
        "since": f"{since:%Y-%m-%d %H:%M}",
        "hours": hours,
        "usd": found.cost,
        "usual_usd": found.usual,
        "extra_usd": found.extra,
        "hourly_usd": found.extra // hours,
        "cause": "silent" if found.cause == SILENT else CAUSES.get(found.cause, "price"),
        "cause_name": found.cause,
        "detail": found.detail,
        "steps": [{"name": step.name, "usd": step.picos} for step in found.steps],
        "compared_since": f"{at_hour(found.compared.start):%Y-%m-%dT%H:%MZ}" if found.compared else "",
        "see": see(found),
    }


def see(found: Anomaly) -> str:
    """The command that shows whose rows they are, of the days that the hours lie in."""
    first, last = _days(found.window)
    key, value = found.subject
    where = f" --where {shlex.quote(f'{key}={value}')}" if key else ""  # whoever tags calls chooses the value
    if found.cause == SILENT:
        return "farthing sync; farthing doctor"
    keys = _TELLING.get(found.cause, "model,principal")
    return f"farthing by {keys}{where} --since {first} --until {last} --tz UTC"


_TELLING = {
    "cache": "model,principal,meter",
    "prompt size": "principal,operation",
    "output size": "principal,operation",
    "volume": "principal,model",
}
