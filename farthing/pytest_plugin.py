"""Cost as a test: a pytest fixture that records what calls cost, a marker that limits it, and a replay without calls.

    def test_the_agent_stays_cheap(farthing_cost):
        with farthing_cost() as cost:
            agent.run("Where is order 7?", client=cost.watch(boto3.client("bedrock-runtime")))
        assert cost.usd < "0.02"
        assert cost.cache_hit >= 0.9

No prompt is kept, and nothing is sent: calls are the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import total_ordering
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import pytest

from farthing.meters import Vector
from farthing.money import PICOS_PER_USD, from_usd, show, usd

if TYPE_CHECKING:
    from farthing.emulator import Emulator

_RECORDED = pytest.StashKey[list["Cost"]]()
_CALLS = ("InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream")


@total_ordering
class Dollars:
    """An exact amount that compares with text and whole numbers: `cost.usd < "0.02"`."""

    def __init__(self, picos: int) -> None:
        self.picos = picos

    def __eq__(self, other: object) -> bool:
        return self.picos == _picos(other)

    def __lt__(self, other: object) -> bool:
        return self.picos < _picos(other)

    def __hash__(self) -> int:
        return hash(self.picos)

    def __repr__(self) -> str:
        return f"${usd(self.picos)}"


def _picos(amount: object) -> int:
    if isinstance(amount, Dollars):
        return amount.picos
    if isinstance(amount, float):
        raise TypeError(f'{amount!r} is no exact amount: write "{amount}"')
    if isinstance(amount, int | str | Decimal):
        return int(amount) * PICOS_PER_USD if isinstance(amount, int) else from_usd(amount)
    raise TypeError(f"{amount!r} is no amount of dollars")


class Call(NamedTuple):
    """One call that was recorded. `picos` is None where `unpriced` says why."""

    model: str
    tokens: Vector
    picos: int | None
    unpriced: str = ""


@dataclass
class Cost:
    """What was recorded: by `watch` from a boto3 client, by `add` from usage that a test has in hand."""

    calls: list[Call] = field(default_factory=list)
    at: datetime | None = None  # whose prices hold; None: those of the call's own time
    region: str = ""
    missing: list[str] = field(default_factory=list)  # calls whose answer had no usage
    _watched: list[tuple[Any, str, Callable[..., None]]] = field(default_factory=list)

    def add(self, usage: Any, model: str = "", **how: Any) -> Call:
        """A usage block of any dialect, an answer that has one (`usage`, `model`), or an SDK's object."""
        from farthing.rating import rate
        from farthing.usage import read_usage

        told = _plain(usage)
        block = told.get("usage", told) if isinstance(told, Mapping) else told
        named = model or str(told.get("model") or "")
        charge = rate(named, self.at or datetime.now(UTC), block, **({"region": self.region} | how))
        tokens = sum((part.tokens for part in read_usage(block).parts), Vector())
        call = Call(named, tokens, charge.cost, charge.unpriced)
        self.calls.append(call)
        return call

    def watch(self, client: Any) -> Any:
        """Record every call of a boto3 bedrock-runtime client from now on; the client is returned."""
        events, recorder = client.meta.events, self._recorder(client.meta.region_name or "")
        for name in _CALLS:
            for event, handler in (("before-parameter-build", _remember), ("after-call", recorder)):
                place = f"{event}.bedrock-runtime.{name}"
                events.register(place, handler)
                self._watched.append((events, place, handler))
        return client

    def stop(self) -> None:
        """Watch no longer."""
        while self._watched:
            events, place, handler = self._watched.pop()
            events.unregister(place, handler)

    def _recorder(self, region: str) -> Callable[..., None]:
        def record(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
            model = context.get("farthing_model", "")
            self._record(parsed, model, region)

        return record

    def _record(self, parsed: dict[str, Any], model: str, region: str) -> None:
        if "Error" in parsed:
            return
        if "stream" in parsed:
            parsed["stream"] = _Streamed(parsed["stream"], lambda block: self._found(block, model, region))
        elif "body" in parsed and hasattr(parsed["body"], "read"):
            parsed["body"], block = _peeked(parsed["body"])
            self._found(block, model, region)
        elif "body" in parsed:
            parsed["body"] = _Streamed(parsed["body"], lambda block: self._found(block, model, region))
        else:
            self._found(parsed.get("usage"), model, region)

    def _found(self, block: Any, model: str, region: str) -> None:
        if isinstance(block, Mapping):
            self.add(block, model, region=region)
        else:
            self.missing.append(model)

    # --- to assert ---

    @property
    def usd(self) -> Dollars:
        """What all calls cost. A call without a price or without usage fails here: unknown is not nothing."""
        unknown = [call.unpriced for call in self.calls if call.picos is None]
        unknown += [f"{model}: its answer told no usage" for model in self.missing]
        if unknown:
            raise AssertionError(f"the cost of {len(unknown)} calls is unknown: {unknown[0]}")
        return Dollars(sum(call.picos or 0 for call in self.calls))

    @property
    def tokens(self) -> Vector:
        """By meter."""
        total = Vector()
        for call in self.calls:
            total += call.tokens
        return total

    @property
    def cache_hit(self) -> float:
        """Reads among all tokens sent, 0 to 1."""
        return float(self.tokens.cache_read / (self.tokens.prompt or 1))

    def __repr__(self) -> str:
        known = sum(call.picos or 0 for call in self.calls)
        return (
            f"<{len(self.calls)} calls, {show(known, 4)}, {self.cache_hit:.1%} of the prompt read from cache>"
        )


def _plain(usage: Any) -> Any:
    """An SDK's object as what it would be in JSON."""
    for name in ("model_dump", "to_dict", "dict"):
        if not isinstance(usage, Mapping) and callable(getattr(usage, name, None)):
            return getattr(usage, name)()
    return usage


def _remember(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["farthing_model"] = unquote(str(params.get("modelId") or ""))


def _peeked(body: Any) -> tuple[Any, Any]:
    """An InvokeModel body to be read again by whoever called, and its usage block."""
    import io

    from botocore.response import StreamingBody

    data = body.read()
    try:
        block = json.loads(data).get("usage")
    except (ValueError, AttributeError):
        block = None
    return StreamingBody(io.BytesIO(data), len(data)), block


class _Streamed:
    """A stream that is handed on as it is; its usage is known when it ends."""

    def __init__(self, stream: Any, done: Callable[[Any], None]) -> None:
        self._stream, self._done = stream, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        block: dict[str, Any] = {}
        try:
            for event in self._stream:
                block |= _usage_of(event)
                yield event
        finally:
            self._done(block or None)


def _usage_of(event: dict[str, Any]) -> dict[str, Any]:
    """What an event of a stream tells of usage: Converse once, InvokeModel at the beginning and the end."""
    if "metadata" in event:
        return dict(event["metadata"].get("usage") or {})
    try:
        inner = json.loads(event.get("chunk", {}).get("bytes") or "{}")
    except ValueError:
        return {}
    block = inner.get("usage") or (inner.get("message") or {}).get("usage") or {}
    return {name: value for name, value in block.items() if value is not None}


# --- without any call ------------------------------------------------------------------------------------------------


def replay(
    requests: Iterable[Mapping[str, Any]],
    *,
    model: str = "",
    gap_s: int = 60,
    output: int = 0,
    region: str = "",
    at: datetime | None = None,
    platform: str = "",
) -> Cost:
    """What request bodies would be billed by the rules of prompt caching, sent in this order, `gap_s` apart.

    Four bytes count as a token, and each answer has `output` tokens. ValueError if the API would refuse one, or if
    nothing is known of the model's cache.
    """
    from farthing.book import default_book
    from farthing.lint import How, replayed, sent_of

    moment = at or datetime.now(UTC)
    sent = [
        sent_of(body, f"request {number}", model=model)._replace(region=region)
        for number, body in enumerate(requests, 1)
    ]
    cost = Cost(at=moment, region=region)
    for one, tokens, picos in replayed(
        sent, How(default_book(), moment.date(), platform, gap_s=gap_s), output
    ):
        cost.calls.append(Call(one.model, tokens, picos))
    return cost


# --- pytest ----------------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", 'max_usd(amount): fail if the calls that farthing_cost recorded cost more: max_usd("0.05")'
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """The test, and then its limit: what a test spends before it fails is not the point any more."""
    yield
    limit = item.get_closest_marker("max_usd")
    if limit:
        _check(item.stash.get(_RECORDED, None), limit.args)


@pytest.fixture
def farthing_cost(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`with farthing_cost() as cost:`, as often as wanted; the marker max_usd holds for all of them together."""
    recorded = request.node.stash.setdefault(_RECORDED, [])

    @contextmanager
    def record(*clients: Any, at: datetime | None = None, region: str = "") -> Iterator[Cost]:
        cost = Cost(at=at, region=region)
        recorded.append(cost)
        for client in clients:
            cost.watch(client)
        try:
            yield cost
        finally:
            cost.stop()

    return record


@pytest.fixture
def bedrock_emulator() -> Iterator[Emulator]:
    """A local Bedrock and Anthropic API for this test: `client()` is one of boto3, `url` is for all others."""
    try:
        from farthing.emulator import running
    except ImportError as error:
        pytest.fail(f"bedrock_emulator needs pip install 'farthing[gateway]' ({error})", pytrace=False)
    with running() as emulator:
        yield emulator


def _check(recorded: Sequence[Cost] | None, args: tuple[Any, ...]) -> None:
    if len(args) != 1:
        pytest.fail('max_usd takes one amount: @pytest.mark.max_usd("0.05")', pytrace=False)
    if recorded is None:
        pytest.fail("max_usd wants the fixture farthing_cost, which records the calls", pytrace=False)
    if not any(cost.calls or cost.missing for cost in recorded):
        pytest.fail("max_usd: no call was recorded, so nothing says what it cost", pytrace=False)
    spent = Dollars(sum(cost.usd.picos for cost in recorded))
    if spent > args[0]:
        count = sum(len(cost.calls) for cost in recorded)
        pytest.fail(f"{count} calls cost {spent}, more than max_usd ${args[0]}", pytrace=False)
