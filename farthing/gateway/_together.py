"""Calls that begin or end at about the same time share a transaction of the budgets and a sync of the outbox.

Each alone would pay for both, and they are most of what a call costs here. What is asked for in one turn of the event
loop is done at its end; under load that waits a little, so that more come together. The disk syncs while budgets are
asked and requests are signed: so an intent is written first, if its budgets are likely to agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from farthing.gateway._outbox import OutboxError
from farthing.gateway.budgets import Denied
from farthing.gateway.live import Call, Live, Over, Ready, Refused, Settled, void
from farthing.outbox import Result
from farthing.usage import Rejected
from farthing.wire import Answer

MANY, GATHER_S = 16, 0.002  # from so many at once on, the next are waited for
SOON_S = 0.002  # after which budgets hear of a call that has ended, if no other call begins before
_MOST_NEAR = 10_000

log = logging.getLogger("farthing.gateway")


class Together:
    """Of one process and its event loop. `alone` tells whether there is nobody to wait for."""

    def __init__(self, live: Live, alone: Callable[[], bool] = lambda: False) -> None:
        self.live, self._alone = live, alone
        self._asked: list[tuple[Ready | Over, asyncio.Future[Any]]] = []
        self._last = 0
        self._near: set[str] = set()  # windows of budgets that come to their ends: they are asked first
        self._syncs: dict[str, asyncio.Future[None]] = {}  # by call
        self._beside: set[asyncio.Future[None]] = set()
        self._ended: list[Over] = []  # of which budgets hear soon
        self._soon: asyncio.TimerHandle | None = None

    async def begin(self, *args: Any, **more: Any) -> Call | Refused:
        """As Live.begin. The request may leave after `durable`.

        One that is cut off before its grant is given back.
        """
        if self._waits:
            return await self._begin_afar(lambda: self.live.begin(*args, **more))
        asked = self._in_turn(self.live.prepare(*args, **more))
        try:
            return await asked  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if not asked.cancelled() and asked.exception() is None and isinstance(asked.result(), Call):
                self._forget(asked.result().id)
                self.live.settle(asked.result(), Answer(0), sent=False)
            raise

    async def _begin_afar(self, begin: Callable[[], Call | Refused]) -> Call | Refused:
        """By a thread, which goes on if nobody waits for it any more."""
        asked = asyncio.ensure_future(self.live.run(begin))
        try:
            begun: Call | Refused = await asyncio.shield(asked)
        except asyncio.CancelledError:
            back = asyncio.ensure_future(self._given_back(asked))
            self._beside.add(back)
            back.add_done_callback(self._beside.discard)
            raise
        if isinstance(begun, Call) and begun.metered:
            self._sync([begun])
        return begun

    async def _given_back(self, asked: asyncio.Future[Any]) -> None:
        begun = await asked
        if isinstance(begun, Call):
            await self.live.run(lambda: self.live.settle(begun, Answer(0), sent=False))

    async def durable(self, call: Call) -> Call | Refused:
        """The call, whose intent is on disk; or that the disk refuses."""
        waiting = self._syncs.pop(call.id, None)
        self.catch_up()  # while the disk syncs
        if waiting is not None:
            try:
                await waiting
            except OutboxError as error:
                undone: Call | Refused = await self.live.run(self.live.undo, call, str(error))
                return undone
        return call

    async def settle(self, call: Call, answer: Answer, **more: Any) -> Settled:
        """As Live.settle; it is done even if nobody waits for it any more.

        Budgets hear of it within SOON_S, unless they may have something to tell.
        """
        self._forget(call.id)
        if self._waits:
            return await self.live.run(lambda: self.live.settle(call, answer, **more))  # type: ignore[no-any-return]
        over = self.live.ended(call, answer, **more)
        if over.settling is None:
            return self.live.settled(over, ())
        if call.near or not self._alone():
            return await self._in_turn(over)  # type: ignore[no-any-return]
        self._ended.append(over)
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self.catch_up)
        return self.live.settled(over, ())

    def catch_up(self) -> None:
        """Budgets hear of what has ended."""
        if not self._ended:
            return
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        ended, self._ended = self._ended, []
        try:
            for notices in self.live.told(ended):
                for notice in notices:
                    log.warning("%s", " ".join(notice.says.split()))
        except Exception as fault:  # noqa: BLE001 - their leases run out, and they count as their ceilings
            log.error("%d calls could not be settled: %s", len(ended), type(fault).__name__)  # noqa: TRY400

    def close(self) -> None:
        """What has ended and waits for its turn."""
        if self._asked:
            self._turn()
        self.catch_up()

    @property
    def _waits(self) -> bool:
        return self.live.budgets is not None and self.live.budgets.waits

    def _in_turn(self, asked: Ready | Over) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._asked.append((asked, future))
        if self._alone():
            self._turn()
        elif len(self._asked) == 1:
            if self._last >= MANY:
                loop.call_later(GATHER_S, self._turn)
            else:
                loop.call_soon(self._turn)
        return future

    def _turn(self) -> None:
        """All that was asked for: intents, budgets, other lines of the outbox, then the answers."""
        asked, self._asked = self._asked, []
        self._last = len(asked)
        begun: list[tuple[Call, asyncio.Future[Any]]] = []
        ended: list[tuple[asyncio.Future[Any], Any]] = []
        results: list[Result] = []
        begins = [each for each, _ in asked if isinstance(each, Ready)]
        try:
            announced = self._announced(begins)
            told = self._told([each for each, _ in asked])
        except Exception as fault:  # noqa: BLE001 - it is each waiter's to tell
            self._taken_back([each.call for each in begins])
            for _, future in asked:
                _answer(future, fault)
            return
        for (each, future), answer in zip(asked, told, strict=True):
            try:
                if isinstance(each, Over):
                    ended.append((future, self.live.settled(each, answer, results.append)))
                    continue
                call = self.live.granted(each, answer, results.append)
            except Exception as fault:  # noqa: BLE001
                _answer(future, fault)
                continue
            if isinstance(call, Refused) or not call.metered:
                self._forget(each.call.id)
                ended.append((future, call))
            else:
                begun.append((call, future))
        if results:
            self._written(results)
        for future, done in ended:
            _answer(future, done)
        if late := [call for call, _ in begun if call.id not in announced]:
            self._sync(late)
        self._release(begun)

    def _announced(self, begins: Sequence[Ready]) -> set[str]:
        """Those whose intents may be written already, and are on their way to the disk."""
        likely = [each for each in begins if self._near.isdisjoint(each.call.intent.holds)]
        if not likely or not self.live.announced(likely):
            return set()
        self._sync([each.call for each in likely])
        return {each.call.id for each in likely}

    def _told(self, asked: Sequence[Ready | Over]) -> list[Any]:
        """What the budgets answer. None is denied for want of what a call that has ended still holds."""
        told = self.live.told(asked)
        no = [at for at, each in enumerate(told) if isinstance(each, Denied)] if self._ended else []
        if no:
            self.catch_up()
            for at, again in zip(no, self.live.told([asked[at] for at in no]), strict=True):
                told[at] = again
        for each, answer in zip(asked, told, strict=True):
            if isinstance(each, Ready) and each.holding is not None:
                if isinstance(answer, Denied) or answer.near:
                    self._near.update(each.call.intent.holds)
                else:
                    self._near.difference_update(each.call.intent.holds)
        if len(self._near) > _MOST_NEAR:
            self._near.clear()
        return told

    def _taken_back(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._forget(call.id)
        self._written([void(call) for call in calls if call.position])

    def _written(self, results: Sequence[Result]) -> None:
        try:
            self.live.outbox.results(results)
        except Rejected as fault:  # its intent remains, as of a call that was never settled
            log.error("a call's result is no record: %s", type(fault).__name__)  # noqa: TRY400

    def _sync(self, begun: Sequence[Call]) -> None:
        alone = len(begun) == 1 and self._alone()
        waiting = self.live.outbox.syncing([call.position for call in begun], alone=alone)
        self._syncs.update((call.id, each) for call, each in zip(begun, waiting, strict=True) if each)

    def _forget(self, call_id: str) -> None:
        """Nobody waits for its sync any more."""
        waiting = self._syncs.pop(call_id, None)
        if waiting is not None:
            waiting.cancel()

    def _release(self, begun: Sequence[tuple[Call, asyncio.Future[Any]]]) -> None:
        for call, future in begun:
            if not future.cancelled():
                future.set_result(call)
            else:
                self._forget(call.id)
                self.live.settle(call, Answer(0), sent=False)


def _answer(future: asyncio.Future[Any], found: Any) -> None:
    if future.cancelled():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
