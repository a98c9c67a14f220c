"""Where a request goes and as what: to which upstream, translated or as it is, and what a policy changes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import msgspec

from farthing.book import Book
from farthing.gateway._autopilot_apply import Applied, WhyNot, apply
from farthing.gateway._autopilot_crew import REFUSING, THROTTLED, Flight
from farthing.gateway._keys import Key
from farthing.gateway._metadata import metadata_of, told
from farthing.gateway._reply import Failure
from farthing.gateway._settings import Settings, Target
from farthing.gateway._translate import model_for_bedrock, to_count_tokens, to_invoke
from farthing.gateway._upstream import Pairs, sent_on
from farthing.gateway.live import Live, Who
from farthing.outbox import Decision
from farthing.policy import Entry
from farthing.usage import Rejected, parse_model_id
from farthing.wire import Asked, Route, ask

METADATA_HEADER = "x-amzn-bedrock-request-metadata"
_RUNTIME = ("InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream", "CountTokens")
_BATCHES = ("Batch", "InvocationJob")
_NO_QUEUE = "this gateway has no queue of batches: --batch-queue"
log = logging.getLogger("farthing.gateway")


@dataclass(slots=True)
class Plan:
    """A request as it will be sent. `spoken` is the caller's route, `route` the upstream's: two if translated."""

    kind: str
    target: Target
    spoken: Route
    route: Route
    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes
    asked: Asked | None = None
    decisions: tuple[Decision, ...] = ()
    translated: bool = False
    changed: bool = False
    tags: Pairs = field(default_factory=list)
    flight: Flight | None = None
    original: Plan | None = None  # as it came, where a policy has changed it
    batch: Entry | None = None  # by which it goes into the queue of batches

    @property
    def streams(self) -> bool:
        return self.asked is not None and self.asked.stream


def plan(
    settings: Settings, targets: Mapping[str, Target], book: Book, key: Key, route: Route, method: str, path: str,
    query: str, headers: Pairs, said: Mapping[str, str], body: bytes,
) -> Plan:  # fmt: skip
    """Failure if there is no such upstream, Rejected if the body is no request."""
    if not key.batches and any(word in route.operation for word in _BATCHES):
        raise Failure(
            "forbidden", f"key {key.name} may not use batch jobs: `farthing gateway key add --batches`"
        )
    asked = ask(route, body, said) if route.billed else None
    model = asked.model if asked else _model(route, body)
    if asked and not _sayable(model):
        raise Failure("not_found", f"model: {model[:100]!r} is no model")
    kind = _kind(targets, key, route, model)
    target = targets.get(kind)
    if target is None:
        raise Failure(
            "not_found",
            f"{route.operation}: this gateway has no upstream for it (--{kind.replace('_', '-')})",
        )
    made = Plan(
        kind,
        target,
        route,
        route,
        method,
        path,
        query,
        sent_on(headers, said.get("connection", "")),
        body,
        asked,
    )
    if kind == "bedrock" and route.dialect == "anthropic":
        return _translated(made, settings, book, model, said)
    return made


def _model(route: Route, body: bytes) -> str:
    if route.operation != "CountTokens" or route.model:
        return route.model
    try:
        said = msgspec.json.decode(body, type=dict[str, msgspec.Raw]).get("model")
        return msgspec.json.decode(said, type=str) if said else ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"the body is no request of CountTokens: {error}"[:300]) from None


def _sayable(model: str) -> bool:
    """Whether it can stand in the outbox. Whether there is such a model is the upstream's to say."""
    return 0 < len(model) <= 2048 and model.isprintable()


def _kind(targets: Mapping[str, Target], key: Key, route: Route, model: str) -> str:
    if route.mantle:
        return "mantle"
    if route.dialect == "bedrock":
        return "bedrock" if route.operation in _RUNTIME else "control"
    if key.upstream:
        return key.upstream
    parsed = parse_model_id(model) if model else None
    if parsed and (parsed.base.startswith("anthropic.") or parsed.kind != "model") and "bedrock" in targets:
        return "bedrock"
    return next((kind for kind in ("anthropic", "claude_aws", "bedrock") if kind in targets), "anthropic")


def _translated(made: Plan, settings: Settings, book: Book, model: str, said: Mapping[str, str]) -> Plan:
    route = made.spoken
    if route.operation not in ("Messages", "CountTokens"):
        raise Failure("not_found", f"{route.operation}: Bedrock has no such operation")
    model = model_for_bedrock(model, book, settings.models, settings.routing, settings.upstream_region)
    if made.asked is None:
        sent = to_count_tokens(model, made.body, made.headers)
        asked = None
    else:
        sent = to_invoke(model, made.body, made.headers, stream=made.asked.stream)
        asked = ask(sent.route, sent.body, said)._replace(user=made.asked.user)
    return replace(
        made, route=sent.route, path=sent.path, query="", headers=sent.headers, body=sent.body, asked=asked,
        translated=True,
    )  # fmt: skip


# --- what a policy changes --------------------------------------------------------------------------------------------


def leveled(
    made: Plan, live: Live, who: Who, key: Key, no_batch: str | WhyNot = _NO_QUEUE, *, waits: bool = False
) -> Plan:
    """The plan with the levers of the policy in force. What cannot be done leaves the request as it was.

    `waits`: the client has said itself that it is to be a batch.
    """
    asked = made.asked
    if asked is None or live.policy is None:
        return made
    try:
        done = apply(
            live, who, made.route, asked, made.body, _tags(asked, who), pinned=key.pinned, no_batch=no_batch,
            waits=waits,
        )  # fmt: skip
        return _changed(made, done, asked)
    except Exception as error:  # noqa: BLE001 - a fault of ours leaves the call as it was
        log.error("a request is sent as it came: %s in its policy", type(error).__name__)  # noqa: TRY400
        return made


def _changed(made: Plan, done: Applied, asked: Asked) -> Plan:
    if done.flight is None and not done.decisions:
        return made
    changed = replace(made, decisions=done.decisions, flight=done.flight, batch=done.batch)
    if done.body is not made.body or done.model:
        changed.body, changed.changed, changed.original = done.body, True, made
        if done.model and made.route.model:
            changed.route = made.route._replace(model=done.model)
            changed.path = f"/model/{quote(done.model, safe='')}/{made.path.rpartition('/')[2]}"
        changed.asked = ask(changed.route, changed.body)._replace(metadata=asked.metadata, user=asked.user)
        changed.headers = [pair for pair in made.headers if pair[0].lower() != "content-length"]
    return changed


def is_ours(made: Plan, status: int) -> bool:
    """Whether an answer may be the policy's doing: then the call is made once more as it came."""
    moved = made.flight is not None and made.flight.moved
    return made.original is not None and (status in REFUSING or (moved and status in THROTTLED))


def again(made: Plan, status: int, live: Live, who: Who, key: Key) -> Plan:
    """The plan to try then: at the endpoint that was asked for, or with nothing changed at all."""
    assert made.original is not None
    if status in THROTTLED:
        return leveled(made.original, live, who, key, "it was sent at once before")
    said = tuple(
        each if each.shadow or each.reason.startswith("refused:")
        else Decision(each.lever, f"refused: with {status}, by the service: {each.reason}"[:300])
        for each in made.decisions
    )  # fmt: skip
    return replace(made.original, decisions=said, flight=made.flight.suspected() if made.flight else None)


def _tags(asked: Asked, who: Who) -> Mapping[str, str]:
    """As the records have them: what the key fixes stands over what a caller says."""
    known = {"team": who.team, "run": who.run}
    return {**asked.metadata, **{name: value for name, value in known.items() if value}, **who.tags}


# --- the call's id for the invocation log -----------------------------------------------------------------------------


def tagged(made: Plan, tags: Mapping[str, str], call_id: str, how: str) -> tuple[Pairs, bytes]:
    """Headers and body with the id, and the key's tags, where the log of Bedrock keeps them."""
    operation, asked = made.route.operation, made.asked
    if how == "none" or made.kind != "bedrock" or asked is None:
        return made.headers, made.body
    metadata = metadata_of(asked.metadata, tags, call_id)
    if operation.startswith("InvokeModel") and metadata:
        return _in_header(made.headers, asked, metadata), made.body
    if how == "all" and operation.startswith("Converse") and metadata:
        try:
            body = told(made.body, metadata)
        except (Rejected, ValueError, RecursionError, LookupError):
            return made.headers, made.body
        return [pair for pair in made.headers if pair[0].lower() != "content-length"], body
    return made.headers, made.body


def _in_header(headers: Pairs, asked: Asked, metadata: Mapping[str, str]) -> Pairs:
    """In the place of the client's, if it has one. One that cannot be read stays: the service says what is wrong."""
    said = msgspec.json.encode(metadata).decode()
    at = [number for number, (name, _) in enumerate(headers) if name.lower() == METADATA_HEADER]
    if not at:
        return [*headers, (METADATA_HEADER, said)]
    if len(at) > 1 or not asked.metadata:
        return headers
    return [*headers[: at[0]], (headers[at[0]][0], said), *headers[at[0] + 1 :]]
