"""Shadow evaluation: some calls are put to a cheaper model as well, behind the back of who made them.

The caller has its own answer, from the model that it asked for, and waits for nothing of this. A copy is a call of its
own in the outbox, with the tag `evaluation` and no other of the caller's, and is paid from a budget of its own. Texts
are in memory until they are graded; what is kept is in farthing.policy.Copies.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from farthing.book import Card
from farthing.gateway._autopilot_crew import instant
from farthing.gateway._ceiling import ceiling
from farthing.gateway._plan import METADATA_HEADER, Plan
from farthing.gateway._reply import Failure
from farthing.gateway._shadow_said import asked, said
from farthing.gateway._upstream import come_back
from farthing.gateway.live import Call, Refused, Who, new_id
from farthing.gateway.proxy import Exchange, Gateway
from farthing.meters import Vector
from farthing.money import from_usd, show
from farthing.outbox import apportion
from farthing.policy import SHADOWED, Copied, Copies, Entry, copies_path
from farthing.wire import Answer, Answers, ask

TAG = "evaluation"
MOST_WAITING = 8  # copies; what comes while so many wait is not copied
MOST_BYTES = 4 * 1024 * 1024  # of an answer that is graded
MOST_FAILED = 3  # in a row, and none is sent for an hour
MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
_GONE = frozenset({"content-length", METADATA_HEADER})

# A question, the answer of the model in use, that of the candidate; their scores.
Grade = Callable[[Mapping[str, Any], str, str], tuple[float, float]]

log = logging.getLogger("farthing.policy")


@dataclass(eq=False)
class Heard:
    """An answer that is listened to while it is passed on: an `Answers` for its gateway."""

    inner: Answers
    tell: Callable[[Heard, Answer], None]
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    told: bool = False

    @property
    def streamed(self) -> bool:
        return self.inner.streamed

    def feed(self, chunk: bytes) -> None:
        self.inner.feed(chunk)
        self.size += len(chunk)
        if self.size <= MOST_BYTES:
            self.chunks.append(chunk)

    def done(self) -> Answer:
        answer = self.inner.done()
        if not self.told:
            self.told = True
            self.tell(self, answer)
        return answer

    def body(self) -> bytes:
        """All of it; nothing of one that is too long, or packed."""
        whole = self.size <= MOST_BYTES and not self.inner.headers.get("content-encoding")
        return b"".join(self.chunks) if whole else b""

    @property
    def kind(self) -> str:
        return self.inner.headers.get("content-type", "")


@dataclass(frozen=True)
class _Case:
    """A call that was answered, to be put to the candidate."""

    entry: Entry
    model_id: str
    plan: Plan
    exchange: Exchange
    call: Call
    answer: Answer
    text: bytes
    kind: str
    ended_us: int


class Shadows:
    """Of one gateway process. Copies are sent one after the other."""

    def __init__(self, gateway: Gateway, grade: Grade | None = None) -> None:
        self.gateway, self.grade = gateway, grade
        self._waiting: deque[_Case] = deque()
        self._there = asyncio.Event()
        self._next_us: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    # --- beside the caller's answer, in microseconds

    def listen(self, x: Exchange, made: Plan, answers: Answers) -> Any:
        """What meters the caller's answer: as given, but for a call that is chosen to be copied."""
        try:
            chosen = self._chosen(x.call, made) if x.call is not None else None
        except Exception as error:  # noqa: BLE001 - none of the caller's business
            log.error("a call is not copied: %s", type(error).__name__)  # noqa: TRY400
            return answers
        if chosen is None or x.call is None:
            return answers
        return Heard(answers, partial(self._take, *chosen, made, x, x.call))

    def _chosen(self, call: Call, made: Plan) -> tuple[Entry, str] | None:
        flight = made.flight
        if flight is None or len(self._waiting) >= MOST_WAITING:
            return None
        for decided in flight.decided:
            entry = flight.entries.get(decided.entry)
            if decided.outcome != SHADOWED or decided.lever != "model" or entry is None or not entry.shadow:
                continue
            now = self.gateway.live.clock_us()
            drawn = int.from_bytes(blake2b(call.id.encode(), digest_size=8).digest(), "big") % 100
            if drawn < entry.shadow.sample and self._next_us.get(entry.name, 0) <= now:
                self._next_us[entry.name] = now + MINUTE_US // entry.shadow.per_minute
                return entry, str(decided.change["model_id"])
        return None

    def _take(
        self, entry: Entry, model_id: str, made: Plan, x: Exchange, call: Call, heard: Heard, answer: Answer
    ) -> None:
        if answer.status == 200 and answer.final and not answer.error:
            ended = self.gateway.live.clock_us()
            case = _Case(entry, model_id, made, x, call, answer, heard.body(), heard.kind, ended)
            self._waiting.append(case)
            self._there.set()

    # --- behind it

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._there.wait()
            while self._waiting:
                case = self._waiting.popleft()
                try:
                    await self._copy(case)
                except Exception as error:  # noqa: BLE001 - and no text of it
                    log.error("%s: a copy failed: %s", case.entry.name, type(error).__name__)  # noqa: TRY400
            self._there.clear()

    async def _copy(self, case: _Case) -> None:
        live = self.gateway.live
        made = copied(case.plan, case.model_id)
        assert made.asked is not None
        was = case.exchange.who or Who()
        who = Who(platform=was.platform, region=was.region, account=was.account, tags={TAG: case.entry.name})
        now = live.clock_us()
        most = ceiling(made.asked, made.body, live.book, live.resolve(who, made.asked), instant(now)).picos
        if most is None or live.policy is None:
            return
        copy = Copied(new_id(), case.entry.name, case.entry.use, now, most, "under way")
        store = Copies(copies_path(live.policy))
        budget = from_usd(case.entry.shadow.budget_usd)
        if not await asyncio.to_thread(store.hold, copy, budget):
            self._next_us[copy.entry] = now + HOUR_US
            self.gateway.metrics.add("farthing_evaluation_calls_total", entry=copy.entry, outcome="too dear")
            log.warning(
                "%s: a copy may cost up to %s, which is more than is left of budget_usd = %s: none for an hour",
                copy.entry, show(most), case.entry.shadow.budget_usd,
            )  # fmt: skip
            return
        call, heard = await self._sent(case, made, who, copy.id)
        copy = await self._told(case, copy, call, heard)
        await asyncio.to_thread(store.done, copy)
        failed = self._failed[copy.entry] = self._failed.get(copy.entry, 0) + 1 if copy.status else 0
        if failed >= MOST_FAILED:
            self._failed[copy.entry] = 0
            self._next_us[copy.entry] = live.clock_us() + HOUR_US
            log.error("%s: %s copies in a row failed (%s): none for an hour", copy.entry, failed, copy.status)
        outcome = "failed" if copy.status else "answered"
        self.gateway.metrics.add("farthing_evaluation_calls_total", entry=copy.entry, outcome=outcome)
        self.gateway.metrics.add("farthing_evaluation_usd_total", copy.picos or 0, entry=copy.entry)

    async def _sent(
        self, case: _Case, made: Plan, who: Who, name: str
    ) -> tuple[Call | str, tuple[Heard, Answer, Any] | None]:
        """The copy as a call of its own: held, recorded, sent, settled. Or why it was not sent."""
        gateway = self.gateway
        x = replace(
            case.exchange, route=made.route, who=who, call=None, settled=None, sent=False, begun=True,
            key=case.exchange.key,
        )  # fmt: skip
        call = await gateway.together.begin(who, made.route, made.asked, made.body, (), call_id=name)
        if isinstance(call, Refused):
            return f"refused: {call.reason}"[:200], None
        x.call, answer, settled, heard = call, Answer(0), None, None
        try:
            response = await gateway.send_on(x, made, [])
            _, told = come_back(response.raw_headers)
            heard = Heard(Answers(made.route, response.status, told), lambda *_: None)
            async for chunk in response.content.iter_any():
                heard.feed(chunk)
            answer = heard.done()
        except Failure as refused:  # by the disk: it was not sent, and holds nothing any more
            return f"refused: {refused}"[:200], None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            answer = heard.done() if heard else Answer(0, error=type(error).__name__)
        finally:
            if x.call is not None:
                settled = await gateway.together.settle(call, answer, sent=x.sent)
        return call, (heard, answer, settled) if heard else None

    async def _told(
        self, case: _Case, copy: Copied, call: Call | str, heard: tuple[Heard, Answer, Any] | None
    ) -> Copied:
        """What came of it, beside what came of the call that it is a copy of."""
        if isinstance(call, str):
            return copy._replace(status=call, held=0, picos=0)
        if heard is None:
            return copy._replace(status="no answer")
        listened, answer, settled = heard
        copy = copy._replace(picos=settled.picos, ms=(self.gateway.live.clock_us() - call.at_us) // 1000)
        if answer.status != 200 or not answer.parts:
            return copy._replace(status=answer.error or f"http_{answer.status}")
        mine, theirs = answer.parts[0].tokens, case.answer.parts[0].tokens
        texts = said(case.kind, case.text), said(listened.kind, listened.body())
        copy = copy._replace(
            status="",
            called_picos=self.gateway.live.price(case.call, case.answer.parts)[0],
            alike_picos=self._alike(call, mine, theirs),
            prompt=mine.prompt, called_prompt=theirs.prompt, output=mine.output, called_output=theirs.output,
            called_ms=(case.ended_us - case.call.at_us) // 1000,
        )  # fmt: skip
        if texts[0] is None or texts[1] is None:
            return copy
        copy = copy._replace(
            called_stop=texts[0].stop, stop=texts[1].stop, called_length=len(texts[0].text), length=len(texts[1].text)
        )  # fmt: skip
        return await self._graded(case, copy, texts[0].text, texts[1].text)

    def _alike(self, call: Call, mine: Vector, theirs: Vector) -> int | None:
        """The copy found an empty cache: what it would come to with its prompt cached as the call's was."""
        sizes = (theirs.input, theirs.cache_read, theirs.cache_write_5m, theirs.cache_write_1h)
        if call.sku is None or not theirs.prompt:
            return None
        plain, *cached = apportion(sizes, mine.prompt)
        tokens = Vector(plain, mine.output, *cached)
        card = self.gateway.live.book.find(call.sku, instant(call.at_us), mine.prompt)
        return tokens @ card.rates if isinstance(card, Card) else None

    async def _graded(self, case: _Case, copy: Copied, in_use: str, candidate: str) -> Copied:
        if self.grade is None:
            return copy
        body = (case.plan.original or case.plan).body
        question = {"id": copy.id, **asked(msgspec.json.decode(body))}
        try:
            called, score = await asyncio.to_thread(self.grade, question, in_use, candidate)
        except Exception as error:  # noqa: BLE001 - what a grader says may have text in it
            log.error("%s: a copy could not be graded: %s", copy.entry, type(error).__name__)  # noqa: TRY400
            return copy
        return copy._replace(called_score=called, score=score)


def copied(plan: Plan, model_id: str) -> Plan:
    """The request as it came, to another model, without what its client says of itself."""
    base = plan.original or plan
    body = msgspec.json.decode(base.body)
    for name in ("requestMetadata", "metadata"):
        body.pop(name, None)
    route, path = base.route, base.path
    if route.model:
        route = route._replace(model=model_id)
        path = f"/model/{quote(model_id, safe='')}/{path.rpartition('/')[2]}"
    else:
        body["model"] = model_id
    raw = msgspec.json.encode(body)
    headers = [pair for pair in base.headers if pair[0].lower() not in _GONE]
    return replace(
        base, route=route, path=path, headers=headers, body=raw, asked=ask(route, raw), decisions=(), flight=None,
        changed=True, original=None,
    )  # fmt: skip
