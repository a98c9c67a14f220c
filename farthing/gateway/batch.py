"""Batches that keep a deadline: a durable queue, jobs at half price, and what they leave sent in time (docs/batch.md).

`Runner` moves requests from the queue through jobs, one step at a time; a crash between any two steps costs nothing,
since each is noted before and found again after. What cannot wait for a job is sent by `Sender`, a process of its own,
which a death of the runner does not cut off in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.book import Book, default_book
from farthing.gateway._batch_accept import Usual, read_line, route_of
from farthing.gateway._batch_bedrock import Bedrock
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_far import Declined, Fault, Outcome
from farthing.gateway._batch_http import Http
from farthing.gateway._batch_limits import MESSAGES, ask_quotas, limits_of
from farthing.gateway._batch_lock import RUNNER_LOCK, is_held, only
from farthing.gateway._batch_messages import Messages
from farthing.gateway._batch_plan import Limits, Margin, Pace, cutoff_us, plan
from farthing.gateway._batch_queue import (
    COLLECTED,
    CREATED,
    DISSOLVED,
    DONE,
    ENDED,
    FAILED,
    LIVE_JOBS,
    OPEN,
    PLANNED,
    READY,
    SENDING,
    SYNC,
    WAITING,
    End,
    Group,
    Held,
    Job,
    New,
    Queue,
    QueueError,
)
from farthing.gateway._batch_sender import CUT, LEASE_S, SENDER_LOCK, SOONEST_S, open_live, who_of
from farthing.gateway._batch_settings import Settings, kept, margin_of, pace_of
from farthing.gateway._ceiling import Ceiling
from farthing.gateway._outbox import OutboxError
from farthing.gateway.live import Call, Live, Refused, Who, new_id
from farthing.meters import Vector
from farthing.outbox import Intent
from farthing.usage import EPOCH, Rejected
from farthing.wire import Answer, Answers, Asked, ask

__all__ = [
    "Answered",
    "Queue",
    "QueueError",
    "Runner",
    "Settings",
    "arun",
    "kept",
    "open_live",
    "run",
    "submit",
]

COLLECTED_AT_ONCE = 200  # results that are written to the queue in one step
LATEST_S = 1.0  # between two looks at the queue
_MOST_BACKOFF_S = 300
_DECODE = msgspec.json.decode


# --- the runner ------------------------------------------------------------------------------------------------------


class Runner:
    """Works on a queue. Only the holder of its lock may call `step`; `run` sees to that."""

    def __init__(self, queue: Queue, settings: Settings, live: Live) -> None:
        self.queue, self.settings, self.live = queue, settings, live
        self.http = Http(settings)
        self._far: dict[str, Bedrock | Messages] = {}
        self._sender: subprocess.Popen[bytes] | None = None
        self._release_at = 0.0

    def far(self, platform: str) -> Bedrock | Messages:
        """The service. Fault if the settings do not say where."""
        if platform not in self._far:
            if platform == "bedrock" and not (self.settings.s3 and self.settings.role_arn):
                raise Fault("jobs of Bedrock need a bucket and a role: give --s3 and --role-arn")
            made = (
                Messages(self.http) if platform == "anthropic" else Bedrock(self.settings, self.http.region)
            )
            self._far[platform] = made
        return self._far[platform]

    def run(self, until: Callable[[], bool], progress: Callable[[], None] = lambda: None) -> None:
        """Until that is so. While another runner works on the queue, it only looks, and takes over when that ends."""
        while not until():
            with only(self.queue.folder / RUNNER_LOCK) as mine:
                while not until():
                    wait_us = self.step() if mine else SECOND
                    progress()
                    speed = max(1, self.queue.clock.speed)
                    time.sleep(min(LATEST_S, max(SOONEST_S, wait_us / SECOND / speed)))
                    if not mine:
                        break
        if self._sender is not None:
            self._sender.poll()

    def step(self) -> int:
        """Everything that can be done now; how many µs of the queue's time nothing else will be."""
        if time.monotonic() >= self._release_at:
            self._release()
        for job in self.queue.jobs(*LIVE_JOBS):
            if job.next_us <= self.queue.now_us():
                self._advance(job)
        self._start_sender()
        soonest = min((job.next_us for job in self.queue.jobs(*LIVE_JOBS)), default=1 << 62)
        return max(0, soonest - self.queue.now_us())

    # --- which leave the queue

    def margin(self) -> Margin:
        return margin_of(self.queue, self.settings)

    def _release(self) -> None:
        open_jobs: dict[str, int] = {}
        for job in self.queue.jobs(*LIVE_JOBS):
            open_jobs[job.group.model] = open_jobs.get(job.group.model, 0) + 1
        waiting = self.queue.waiting()
        self._release_at = time.monotonic() + len(waiting) // 10_000  # it takes long where many wait
        released = plan(
            waiting, self.queue.now_us(), limits=self.limits, paces=self.pace, margin=self.margin(),
            open_jobs=open_jobs, size=self.settings.size,
        )  # fmt: skip
        for each in released:
            if each.as_job:
                name = f"farthing-{secrets.token_hex(8)}"
                self.queue.place(name, each.group, [(request, new_id()) for request in each.ids])
            else:
                self.queue.to_sync(each.ids, each.reason)

    def limits(self, group: Group) -> Limits:
        """As set, else as Service Quotas says, else as published."""
        said = self.settings
        if group.platform == "anthropic":
            known = MESSAGES
        else:
            known = Limits()
            with contextlib.suppress(Fault):
                far = self.far("bedrock")
                assert isinstance(far, Bedrock)
                resolved = self.live.book.resolve(group.model, platform="bedrock")
                model = getattr(getattr(resolved, "sku", None), "model", "")
                name = str(self.live.book.models[model].data.get("name", "")) if model else ""
                known = limits_of(far.ask_quotas(ask_quotas), name)
        return Limits(
            said.least or known.least, said.most or known.most, known.most_bytes, said.jobs or known.jobs
        )

    def pace(self, group: Group) -> Pace:
        return pace_of(self.queue, group)

    # --- a job's life

    def _advance(self, job: Job) -> None:
        try:
            _STEPS[job.state](self, job)
        except (Fault, OutboxError) as fault:
            later = min(_MOST_BACKOFF_S, 2 ** min(job.faults, 8)) * SECOND
            self.queue.set_job(
                job.name, faults=job.faults + 1, message=str(fault)[:300], next_us=self.queue.now_us() + later
            )

    def _hold(self, job: Job) -> None:
        """Money is held and an intent is on disk for every record, before the job is begun."""
        done: list[tuple[str, bytes]] = []
        for held in self.queue.of_job(job.name):
            begun = self._begun(held, "batch")
            if isinstance(begun, Call):
                done.append((held.id, msgspec.json.encode(begun.intent)))
                continue
            if begun.denied is None:
                raise OutboxError(begun.reason)
            later = self.queue.now_us() + begun.denied.retry_after_s * SECOND
            self.queue.back(held, begun.reason, later_us=later)
        self.live.outbox.sync()
        with self.queue.change():
            for name, intent in done:
                self.queue.set_request(name, intent=intent)
            self.queue.set_job(job.name, state=READY, records=len(done), next_us=0, faults=0)
        self._advance(self._again(job))

    def _begun(self, held: Held, mode: str) -> Call | Refused:
        route = route_of(held.group)
        body = held.body
        if mode and held.group.platform == "bedrock":  # a job caches nothing, whatever is marked
            body = body.replace(b'"cache_control"', b'"cache_contro_"').replace(
                b'"cachePoint"', b'"cachePoin_"'
            )
        who, decisions = who_of(held, self.settings, self.http.region)
        return self.live.begin(
            who, route, ask(route, body), body, decisions, mode=mode, call_id=held.attempt, lease_s=LEASE_S
        )

    def _again(self, job: Job) -> Job:
        return next(each for each in self.queue.jobs(*LIVE_JOBS) if each.name == job.name)

    def _begin(self, job: Job) -> None:
        """Begun once: one that may have been begun before is looked for first."""
        records = self.queue.of_job(job.name)
        now = self.queue.now_us()
        far = None
        with contextlib.suppress(Fault):
            far = self.far(job.group.platform)
        if job.tried and far is not None:
            known = [row[0] for row in self.queue.rows("SELECT remote FROM jobs WHERE remote <> ''")]
            remote = far.find(job, [held.attempt for held in records], known, now)
            if remote:
                self.queue.set_job(
                    job.name, state=CREATED, remote=remote, created_us=job.made_us, next_us=0, faults=0
                )
                return
        cancelled = [held for held in records if held.cancelled]
        too_late = now + self.pace(job.group).likely_us >= self._cutoff(records)
        if too_late or cancelled or len(records) < self.limits(job.group).least:
            self._dissolve(job, records)
            return
        far = self.far(job.group.platform)
        self.queue.set_job(job.name, tried=now)
        try:
            remote = far.begin(job, [(held.attempt, held.body) for held in records])
        except Declined:
            self.queue.set_job(job.name, tried=0)
            raise
        self.queue.set_job(
            job.name,
            state=CREATED,
            remote=remote,
            created_us=now,
            next_us=now + 5 * SECOND,
            faults=0,
            message="",
        )

    def _cutoff(self, records: Sequence[Held]) -> int:
        return cutoff_us([held.deadline_us for held in records], self.margin())

    def _dissolve(self, job: Job, records: Sequence[Held]) -> None:
        """It was not begun, and will not be: its requests wait again."""
        for held in records:
            self.live.settle(self._call(held), Answer(0), sent=False)
        with self.queue.change():
            for held in records:
                self.queue.back(held, job.message)
            self.queue.set_job(job.name, state=DISSOLVED)

    def _look(self, job: Job) -> None:
        far, now = self.far(job.group.platform), self.queue.now_us()
        status = far.status(job)
        if status.ended:
            done = -1 if status.paid is None else status.paid
            self.queue.set_job(
                job.name, state=ENDED, status=status.name, message=status.message, ended_us=now, done=done,
                next_us=0, faults=0,
            )  # fmt: skip
            self._advance(self._again(job))
            return
        records = self.queue.of_job(job.name)
        cutoff = self._cutoff(records)
        stop = now >= cutoff or all(held.cancelled for held in records)
        if stop and not job.stopping:
            far.stop(job)
        since = max(5 * SECOND, (now - job.created_us) // 10)
        soon = 5 * SECOND if stop else min(self.settings.poll_s * SECOND, since, max(SECOND, cutoff - now))
        self.queue.set_job(
            job.name, status=status.name, done=status.done, stopping=int(stop or job.stopping), next_us=now + soon,
            faults=0, message="",
        )  # fmt: skip

    def _collect(self, job: Job) -> None:
        """Results to their requests, in any order. What has none waits again: only that is sent once more."""
        far = self.far(job.group.platform)
        open_ = {held.attempt: held for held in self.queue.of_job(job.name)}
        answered = job.records - len(open_)
        for some in _chunks(far.results(job), COLLECTED_AT_ONCE):
            with self.queue.change():
                for outcome in some:
                    held = open_.pop(outcome.attempt, None)
                    if held is not None:
                        self._take(job, held, outcome)
                        answered += bool(outcome.output)
        lost = max(0, job.done - answered) if job.done > 0 else 0
        with self.queue.change():
            for held in open_.values():
                self._left(job, held, paid=bool(lost))
            self.queue.set_job(job.name, state=COLLECTED, message=job.message)
        with contextlib.suppress(Fault):
            far.clean(job)

    def _take(self, job: Job, held: Held, outcome: Outcome) -> None:
        call = self._call(held, job.ended_us)
        if outcome.output:
            answers = Answers(route_of(held.group), 200, {"content-type": "application/json"})
            answers.feed(outcome.output)
            settled = self.live.settle(call, answers.done())
            self.queue.finish(held, output=outcome.output, mode="batch", picos=settled.picos)
            return
        self.live.settle(call, Answer(400, error=outcome.error.partition(":")[0] or "error"))
        if outcome.done and (outcome.final or held.failures):
            self.queue.finish(held, error=outcome.error, mode="batch")
        else:
            self.queue.back(held, outcome.error, failed=outcome.done)

    def _left(self, job: Job, held: Held, *, paid: bool) -> None:
        """A record without a result. `paid`: the job was paid for more records than it gave answers."""
        self.live.settle(self._call(held, job.ended_us), Answer(0), sent=paid)
        if paid and not self.settings.again:
            self.queue.finish(held, error=f"the job ended {job.status}: {CUT}", mode="batch", picos=None)
        else:
            said = f"the job ended {job.status}{f': {job.message}' if job.message else ''}"
            failed = job.status in ("Completed", "ended", "Failed")  # the others ran out of time
            self.queue.back(held, said, failed=failed, state=SYNC if failed and held.failures else WAITING)

    def _call(self, held: Held, at_us: int = 0) -> Call:
        """The call of an attempt, from its intent. `at_us`: a batch ran when its job ended."""
        intent = _DECODE(held.intent, type=Intent)
        asked = Asked(intent.model, False, inference_geo=intent.inference_geo)
        who = Who(platform=intent.platform, region=intent.region)
        if at_us:
            at = datetime.fromtimestamp(at_us // SECOND, UTC)
            intent = msgspec.structs.replace(intent, at=max(at, intent.at))
        return Call(
            intent.gateway_id, intent, (intent.at - EPOCH) // _MICROSECOND,
            self.live.resolve(who, asked, intent.mode), Ceiling(Vector(*intent.expected.five), None),
            holds=intent.holds,
        )  # fmt: skip

    # --- what goes by itself

    def _start_sender(self) -> None:
        """A process of its own, in a session of its own: what ends this one does not cut its calls."""
        if self._sender is not None and self._sender.poll() is not None:
            self._sender = None
        if self._sender is not None or not self.queue.rows(
            "SELECT 1 FROM requests WHERE state IN (?, ?) LIMIT 1", (SYNC, SENDING)
        ):
            return
        if is_held(self.queue.folder / SENDER_LOCK):
            return
        log = self.queue.folder / "sender.log"
        with log.open("ab") as told:
            self._sender = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "farthing.gateway._batch_sender", str(self.queue.folder)],
                stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True,
            )  # fmt: skip


_MICROSECOND = timedelta(microseconds=1)
_STEPS: dict[str, Callable[[Runner, Job], None]] = {
    PLANNED: Runner._hold,  # noqa: SLF001
    READY: Runner._begin,  # noqa: SLF001
    CREATED: Runner._look,  # noqa: SLF001
    ENDED: Runner._collect,  # noqa: SLF001
}


def _chunks(items: Iterable[Outcome], size: int) -> Iterator[list[Outcome]]:
    some: list[Outcome] = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    yield some


# --- for programs ----------------------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """How a request ended. `output` is the API's answer; `mode` batch or on_demand; `picos` None where unknown."""

    id: str
    output: Any
    error: str
    mode: str
    picos: int | None
    late: bool
    reason: str


def answered(end: End) -> Answered:
    output = _DECODE(end.output) if end.output else None
    return Answered(end.id, output, end.error, end.mode, end.picos, end.late, end.reason)


def submit(
    queue: Queue, lines: Iterable[bytes], usual: Usual, book: Book | None = None
) -> tuple[int, int, list[tuple[int, str]], list[New]]:
    """(accepted, known already, rejected lines with their numbers, what was accepted to be sent by itself)."""
    news: list[New] = []
    numbers: dict[str, int] = {}
    rejected: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            new = read_line(line, usual, book or default_book())
            if new.id in numbers:
                raise Rejected(f"id {new.id[:60]!r} is on line {numbers[new.id]} already")
        except Rejected as error:
            rejected.append((number, str(error)))
            continue
        numbers[new.id] = number
        news.append(new)
    accepted, known, clashes = queue.accept(news)
    rejected += [(numbers[name], f"id {name[:60]!r} is another request's in the queue") for name in clashes]
    return accepted, known, sorted(rejected), [new for new in news if new.reason]


def run(
    requests: Iterable[Mapping[str, Any]],
    deadline: str = "24h",
    *,
    queue: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> list[Answered]:
    """Answers to requests ({"id", "model", "body"} each), in their order, by the deadline, as cheaply as that allows.

    After a crash the same call goes on where it was: what is paid is not paid again. `settings` are of docs/batch.md.
    ValueError names the first request that is none.
    """
    held = Queue(queue or default_folder())
    try:
        said = kept(held, settings)
        asked = [msgspec.json.encode(request) for request in requests]
        usual = Usual(held.now_us(), deadline, region=said.region, hits=said.hits)
        _, _, rejected, _ = submit(held, asked, usual)
        if rejected:
            raise ValueError(f"request {rejected[0][0]}: {rejected[0][1]}")
        ids = [read_line(line, usual, default_book()).id for line in asked]
        live = open_live(held, said)
        try:
            Runner(held, said, live).run(lambda: _all_over(held, ids), lambda: _tell(held, ids, progress))
        finally:
            live.close()
        ends = {end.id: answered(end) for end in held.ends(ids)}
        held.forget(ids)
        return [ends[name] for name in ids]
    finally:
        held.close()


async def arun(requests: Iterable[Mapping[str, Any]], deadline: str = "24h", **how: Any) -> list[Answered]:
    """`run`, in a thread, for who has an event loop."""
    return await asyncio.to_thread(run, requests, deadline, **how)


def _open(queue: Queue, ids: Sequence[str]) -> int:
    wanted = set(ids)
    return sum(row[0] in wanted for row in queue.rows(f"SELECT id FROM requests WHERE state IN {OPEN}"))


def _all_over(queue: Queue, ids: Sequence[str]) -> bool:
    return _open(queue, ids) == 0


def _tell(queue: Queue, ids: Sequence[str], progress: Callable[[int, int], None] | None) -> None:
    if progress is not None:
        progress(len(ids) - _open(queue, ids), len(ids))


def standing(queue: Queue) -> dict[str, Any]:
    """How the queue stands, for people and programs. Seconds are of the queue's time."""
    now = queue.now_us()
    first = queue.rows(f"SELECT min(deadline_us) FROM requests WHERE state IN {OPEN}")[0][0]
    jobs = []
    for job in queue.jobs(*LIVE_JOBS):
        spent, left = now - job.created_us, job.records - job.done
        known = job.state == CREATED and job.done > 0
        jobs.append({
            "name": job.name, "model": job.group.model, "status": job.status or job.state, "records": job.records,
            "done": max(0, job.done), "eta_s": spent * left // job.done // SECOND if known else None,
            "message": job.message, "remote": job.remote,
        })  # fmt: skip
    reasons = queue.rows("SELECT reason, count(*) FROM requests WHERE state = ? GROUP BY 1", (SYNC,))
    counts = queue.counts()
    states = (*OPEN, DONE, FAILED)
    return {
        "requests": {state: counts.get(state, 0) for state in states},
        "next_deadline_s": None if first is None else (first - now) // SECOND,
        "jobs": jobs,
        "reasons": dict(reasons),
    }


def default_folder() -> Path:
    """A folder of the user's own."""
    import platformdirs

    return Path(platformdirs.user_data_dir("farthing", appauthor=False)) / "batch"
