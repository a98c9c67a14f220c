"""Calls that begin or end at about the same time share a transaction of the budgets and a sync of the outbox.

Each alone would pay for both, and they are most of what a call costs here. What is asked for in one turn of the event
loop is done at its end; under load that waits a little, so that more come together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from farthing.gateway._outbox import OutboxError
from farthing.gateway.live import Call, Live, Over, Ready, Refused, Settled
from farthing.outbox import Result
from farthing.usage import Rejected
from farthing.wire import Answer

MANY, GATHER_S = 2, 0.002  # from so many at once on, the next are waited for

log = logging.getLogger("farthing.gateway")


class Together:
    """Of one process and its event loop. `alone` tells whether there is nobody to wait for, or to keep waiting."""

    def __init__(self, live: Live, alone: Callable[[], bool] = lambda: False) -> None:
        self.live, self._alone = live, alone
        self._asked: list[tuple[Ready | Over, asyncio.Future[Any]]] = []
        self._last = 0
        self._syncs: set[asyncio.Task[None]] = set()

    async def begin(self, *args: Any, **more: Any) -> Call | Refused:
        """As Live.begin, and the intent is durable. One that is cut off before its grant is given back."""
        if self._waits:
            begun = await self.live.run(lambda: self.live.begin(*args, **more))
            return await self._durable(begun) if isinstance(begun, Call) and begun.metered else begun
        return await self._in_turn(self.live.prepare(*args, **more))  # type: ignore[no-any-return]

    async def settle(self, call: Call, answer: Answer, **more: Any) -> Settled:
        """As Live.settle; it is done even if nobody waits for it any more."""
        if self._waits:
            return await self.live.run(lambda: self.live.settle(call, answer, **more))  # type: ignore[no-any-return]
        over = self.live.ended(call, answer, **more)
        if over.settling is None:
            return self.live.settled(over, ())
        return await self._in_turn(over)  # type: ignore[no-any-return]

    def close(self) -> None:
        """What has ended and waits for its turn."""
        if self._asked:
            self._turn()

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
        """All that was asked for: budgets first, then the lines of the outbox, then the answers."""
        asked, self._asked = self._asked, []
        self._last = len(asked)
        begun: list[tuple[Call, asyncio.Future[Any]]] = []
        ended: list[tuple[asyncio.Future[Any], Settled]] = []
        results: list[Result] = []
        try:
            told = self.live.told([each for each, _ in asked])
        except Exception as fault:  # noqa: BLE001 - it is each waiter's to tell
            for _, future in asked:
                _answer(future, fault)
            return
        for (each, future), answer in zip(asked, told, strict=True):
            try:
                if isinstance(each, Over):
                    ended.append((future, self.live.settled(each, answer, results.append)))
                    continue
                call = self.live.granted(each, answer)
            except Exception as fault:  # noqa: BLE001
                _answer(future, fault)
                continue
            if isinstance(call, Refused) or not call.metered:
                _answer(future, call)
            else:
                begun.append((call, future))
        if ended:
            self._written(results)
            for future, settled in ended:
                _answer(future, settled)
        if begun:
            self._sync(begun)

    def _written(self, results: Sequence[Result]) -> None:
        try:
            self.live.outbox.results(results)
        except Rejected as fault:  # its intent remains, as of a call that was never settled
            log.error("a call's result is no record: %s", type(fault).__name__)  # noqa: TRY400

    def _sync(self, begun: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        outbox = self.live.outbox
        if outbox.fsync == "call" and not (len(begun) == 1 and self._alone()):
            task = asyncio.get_running_loop().create_task(self._synced(begun))
            self._syncs.add(task)
            task.add_done_callback(self._syncs.discard)
            return
        try:
            outbox.sync(max(call.position for call, _ in begun))
        except OutboxError as error:
            self._release([(self.live.undo(call, str(error)), future) for call, future in begun])
        else:
            self._release(begun)

    async def _synced(self, begun: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        try:
            await self.live.outbox.durable(max(call.position for call, _ in begun))
        except OutboxError as error:
            self._release([(self.live.undo(call, str(error)), future) for call, future in begun])
        else:
            self._release(begun)

    def _release(self, begun: Sequence[tuple[Call | Refused, asyncio.Future[Any]]]) -> None:
        for call, future in begun:
            if not future.cancelled():
                future.set_result(call)
            elif isinstance(call, Call):
                self.live.settle(call, Answer(0), sent=False)

    async def _durable(self, call: Call) -> Call | Refused:
        try:
            await self.live.outbox.durable(call.position)
        except OutboxError as error:
            undone: Call | Refused = await self.live.run(self.live.undo, call, str(error))
            return undone
        return call


def _answer(future: asyncio.Future[Any], found: Any) -> None:
    if future.cancelled():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
