"""What goes by itself instead of in a batch, sent by a process of its own: a death of the runner cuts no answer off."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from farthing.book import Book, default_book
from farthing.config import Config, load
from farthing.gateway._batch_accept import route_of
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_http import Http, Said
from farthing.gateway._batch_lock import only
from farthing.gateway._batch_plan import SEND_US
from farthing.gateway._batch_queue import SENDING, SYNC, Held, Queue
from farthing.gateway._batch_settings import Settings, kept
from farthing.gateway._metadata import metadata_of
from farthing.gateway._outbox import Outbox, OutboxError
from farthing.gateway.budgets import open_budgets
from farthing.gateway.live import Live, Refused, Who, new_id
from farthing.outbox import Decision
from farthing.wire import Answer, Answers, ask

SENDER_LOCK = "sender.lock"
LEASE_S = 32 * 86_400  # of a hold: no deadline is further away
AGAIN = (408, 429, 500, 502, 503, 504, 529)  # statuses that are not billed, and may pass
SOONEST_S, LATEST_S = 0.05, 1.0  # between two looks at the queue
IDLE_S = 5.0  # after which a sender without work ends
CUT = "cut off on its way, and perhaps paid: hand it in again to pay again, or set `again`"


def open_live(queue: Queue, settings: Settings, book: Book | None = None) -> Live:
    """Outbox and budgets of the queue, at its time."""
    config = load(settings.config) if settings.config else Config()
    budgets = open_budgets(config, settings.budgets) if settings.budgets else None
    return Live(
        book or default_book(),
        Outbox(settings.outbox_of(queue), name="batch"),
        budgets,
        profiles=config.profiles,
        clock_us=queue.now_us,
    )


def who_of(held: Held, settings: Settings, region: str) -> tuple[Who, tuple[Decision, ...]]:
    """Who asked, and what a policy had done with it before it was put into the queue."""
    said = msgspec.json.decode(held.who)
    decisions = msgspec.convert(said.pop("decisions", ()), tuple[Decision, ...])
    if held.group.platform == "bedrock":
        said |= {"region": region, "account": settings.account}
    return Who(platform=held.group.platform, **said), decisions


def _alone(decisions: tuple[Decision, ...], reason: str) -> tuple[Decision, ...]:
    """The same of what is sent by itself after all: the lever was not applied, and why."""
    return tuple(
        Decision(each.lever, f"refused: {reason or 'it is sent by itself'}: {each.reason}"[:300])
        if each.lever == "batch" and not each.shadow and not each.reason.startswith("refused:")
        else each
        for each in decisions
    )


class Sender:
    """Sends requests one by one, several at once, each with its own intent before and result after."""

    def __init__(self, queue: Queue, settings: Settings, live: Live) -> None:
        self.queue, self.settings, self.live = queue, settings, live
        self.http = Http(settings, settings.senders)
        self._sent = threading.Lock()
        self._took_us = int(queue.meta("send_us") or SEND_US)

    def run(self, idle_s: float = IDLE_S) -> None:
        """Until there has been nothing to send for a while."""
        for held in self.queue.sending():  # the process that sent them is gone
            self._cut(held)
        under_way: dict[Future[None], str] = {}
        idle_since = time.monotonic()
        with ThreadPoolExecutor(self.settings.senders) as pool:
            while under_way or time.monotonic() - idle_since < idle_s:
                free = self.settings.senders - len(under_way)
                taken = self.queue.to_send(free) if free else []
                for held in taken:
                    held = self._claim(held)
                    under_way[pool.submit(self._send, held)] = held.id
                if under_way:
                    idle_since = time.monotonic()
                    done, _ = wait(under_way, timeout=LATEST_S, return_when=FIRST_COMPLETED)
                    for future in done:
                        del under_way[future]
                        future.result()
                elif not taken:
                    time.sleep(SOONEST_S)

    def _claim(self, held: Held) -> Held:
        attempt = new_id()
        self.queue.set_request(held.id, state=SENDING, attempt=attempt, tries=held.tries + 1)
        return held._replace(attempt=attempt, tries=held.tries + 1)

    def _send(self, held: Held) -> None:
        route, began = route_of(held.group), self.queue.now_us()
        who, decisions = who_of(held, self.settings, self.http.region)
        call = self.live.begin(
            who, route, ask(route, held.body), held.body, _alone(decisions, held.reason), call_id=held.attempt
        )
        if isinstance(call, Refused):
            self._refused(held, call)
            return
        try:
            self.live.outbox.sync(call.position)
        except OutboxError as error:
            self.live.settle(call, Answer(0), sent=False)
            self._later(held, str(error))
            return
        said = self.http.send(held.group, held.body, metadata_of({}, call.intent.tags, call.id))
        answers = Answers(route, said.status, said.headers)
        answers.feed(said.body)
        answer = answers.done()
        settled = self.live.settle(call, answer, sent=said.sent)
        if said.status == 200 and not _is_whole(said.body):
            self._cut(held)
        elif said.status == 200:
            self._measure(self.queue.now_us() - began)
            self.queue.finish(held, output=said.body, mode="on_demand", picos=settled.picos)
        elif said.status in AGAIN or not said.sent:
            self._later(held, answer.error or said.fault or str(said.status))
        elif said.status == 0:
            self._cut(held)
        else:
            self.queue.finish(held, error=_error(said), mode="on_demand")

    def _refused(self, held: Held, refused: Refused) -> None:
        """By a budget: it has until its deadline to give way."""
        now = self.queue.now_us()
        if refused.denied is not None and now >= held.deadline_us:
            self.queue.finish(held, error=refused.reason, mode="")
            return
        after = refused.denied.retry_after_s if refused.denied else 5
        later = min(now + after * SECOND, max(held.deadline_us, now + SECOND))
        self.queue.back(held, refused.reason, state=SYNC, later_us=later)

    def _later(self, held: Held, reason: str) -> None:
        """Throttled, or not reached: again and again, at random, so that many do not come back at once."""
        most = min(30_000, 250 * 2 ** min(held.tries, 8))
        wait_us = (most // 2 + secrets.randbelow(most)) * 1000 * max(1, self.queue.clock.speed)
        self.queue.back(held, reason, state=SYNC, later_us=self.queue.now_us() + wait_us)

    def _cut(self, held: Held) -> None:
        if self.settings.again:
            self.queue.back(held, "was cut off on its way", state=SYNC)
        else:
            self.queue.finish(held, error=CUT, mode="on_demand", picos=None)

    def _measure(self, took_us: int) -> None:
        with self._sent:
            self._took_us += (took_us - self._took_us) // 8
            self.queue.set_meta("send_us", str(max(SECOND, self._took_us)))


def _is_whole(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.MsgspecError:
        return False
    return True


def _error(said: Said) -> str:
    text = said.body[:300].decode("utf-8", "replace")
    return f"{said.status}: {' '.join(text.split())}"


def send(folder: Path | str) -> None:
    """The sender's process: ends by itself, or at once where there is one already."""
    queue = Queue(folder)
    for _ in range(10):
        with only(queue.folder / SENDER_LOCK) as mine:
            if mine:
                settings = kept(queue)
                live = open_live(queue, settings)
                Sender(queue, settings, live).run()
                live.close()
                return
        time.sleep(SOONEST_S)


if __name__ == "__main__":
    send(sys.argv[1])
