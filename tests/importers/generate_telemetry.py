"""Samples of OpenTelemetry and of the outbox: made-up calls, in the shapes that collectors write."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from farthing.outbox import (
    Decision,
    Intent,
    Pass,
    Prefix,
    Prefixes,
    Result,
    Tokens,
    apportion,
    encode,
    prefix_hashes,
)

TEXT = "PROMPT TEXT, which must not be kept"
BEGIN = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
BOTOCORE = "opentelemetry.instrumentation.botocore.bedrock-runtime"
ANTHROPIC = "opentelemetry.instrumentation.anthropic"
SONNET = "eu.anthropic.claude-sonnet-4-6"


def lines(records):
    return b"".join(
        (one if isinstance(one, bytes) else json.dumps(one, separators=(",", ":")).encode()) + b"\n"
        for one in records
    )


def nanos(seconds):
    return str(int((BEGIN + timedelta(seconds=seconds)).timestamp()) * 10**9)


def value(said):
    kind = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}[type(said)]
    return {kind: str(said) if kind == "intValue" else said}


def pairs(said):
    """Attributes as OTLP has them, with a list and a text among them that nobody asked for."""
    found = [{"key": name, "value": value(one)} for name, one in said.items() if one is not None]
    return [*found, {"key": "gen_ai.input.messages", "value": value(TEXT)}]


RESOURCE = {
    "service.name": "shop",
    "team": "checkout",
    "host.name": "ip-10-0-0-1",
    "cloud.region": "eu-north-1",
}


def spans(*some, scope=BOTOCORE, version="0.66b2", resource=RESOURCE):
    """A line of a collector's file."""
    group = {"scope": {"name": scope, "version": version}, "spans": list(some)}
    return {"resourceSpans": [{"resource": {"attributes": pairs(resource)}, "scopeSpans": [group]}]}


def span(n, said, *, parent="", trace="t", start=None, status=None, took=2):
    begin = n if start is None else start
    return {
        "traceId": f"{trace:0>32}",
        "spanId": f"{n:016x}",
        "parentSpanId": parent if isinstance(parent, str) else f"{parent:016x}",
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": nanos(begin),
        "endTimeUnixNano": nanos(begin + took),
        "attributes": pairs(said),
        "status": status or {},
    }


def call(prompt=100, answer=20, read=None, written=None, model=SONNET, provider="aws.bedrock", **more):
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": answer,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": written,
        **{name.replace("__", "."): one for name, one in more.items()},
    }


def aws(n, **more):
    return {"aws.request_id": f"00000000-0000-4000-8000-{n:012d}", "cloud.region": "eu-west-1", **more}


# --- spans ---------------------------------------------------------------------------------------------------------


def instrumentations():
    """Whether input includes the cache: by scope and version, by the sums, or not known."""
    yield spans(span(1, call(12, 20, 1000, 300) | aws(1)))  # excludes, and is known to
    yield spans(span(2, call(5000, 20, 1000, 300) | aws(2)))  # excludes, though the sums would allow either
    yield spans(
        span(3, call(5000, 20, 1000, 300) | aws(3)), version="0.70b0"
    )  # a version nobody has looked at
    direct = call(1312, 40, 1000, 300, "claude-opus-4-8", "anthropic", gen_ai__response__id="msg_0104")
    yield spans(span(4, direct), scope=ANTHROPIC, version="0.62.4")  # includes
    bedrock = direct | {"gen_ai.request.model": SONNET, "gen_ai.response.id": "msg_bdrk_05"}
    yield spans(
        span(5, bedrock), scope=ANTHROPIC, version="0.62.4"
    )  # the SDK is Anthropic's, the seller is not
    old = {
        "gen_ai.system": "AWS",
        "llm.request.type": "chat",
        "gen_ai.request.model": SONNET,
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 20,
        "gen_ai.usage.cache_read_input_tokens": 700,
        "gen_ai.usage.cache_write_input_tokens": 50,
    }
    yield spans(span(6, old), scope="my.tracer", version="")  # the sums decide
    whole = call(900, 20, 700, 50) | {"gen_ai.usage.total_tokens": 1670}
    yield spans(span(7, whole), scope="strands.telemetry.tracer", version="")  # the total decides
    yield spans(span(8, call(900, 20, 700, 50)), scope="my.tracer", version="")  # nothing does
    yield spans(span(9, call(900, 20)), scope="my.tracer", version="")  # nothing to decide
    profile = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abc123"
    yield spans(span(10, call(model=profile, session__id="s-1", user__id="ann")))
    yield spans(span(11, call(model="gpt-5", provider="openai")))  # another vendor's
    yield spans(span(12, call(model=profile) | {"gen_ai.response.model": "amazon.nova-pro-v1:0"}))
    yield spans(span(13, call() | {"gen_ai.operation.name": "invoke_agent"}))  # a sum, and no call
    yield spans(span(14, {"http.method": "GET"}))
    yield spans(span(15, call() | {"server.address": "bedrock-runtime.us-east-1.amazonaws.com"}))
    own = {
        "span.type": "llm_request",
        "model": "claude-opus-4-8",
        "gen_ai.system": "anthropic",
        "gen_ai.request.model": "claude-opus-4-8",
        "input_tokens": 3,
        "output_tokens": 50,
        "cache_read_tokens": 20000,
        "cache_creation_tokens": 800,
        "request_id": "req_016",
        "gen_ai.response.id": "req_016",
        "session.id": "session-1",
        "user.email": "ann@example.com",
        "speed": "fast",
    }
    yield spans(span(16, own), scope="com.anthropic.claude_code.tracing", version="1.0.0")


def nested():
    """One call seen by a framework and by the SDK below it."""
    yield spans(  # the inner one first, as it ends first, in a batch of its own
        span(1, call(12, 20, 1000, 300) | aws(1), parent=2, trace="a"),
    )
    framework = call(1312, 20, 1000, 300, session__id="s-1", enduser__id="ann")
    yield spans(
        span(2, framework, parent=3, trace="a"), scope="framework", version="1", resource={"team": "b"}
    )
    yield spans(
        span(3, call(1312, 20) | {"gen_ai.operation.name": "invoke_agent"}, trace="a"), scope="framework"
    )
    # A graph over a chat over an HTTP span over the SDK, the outer ones first.
    yield spans(
        span(4, call(12, 21), trace="b", start=1),
        span(5, call(12, 21), parent=4, trace="b", start=2),
        span(6, {"http.method": "POST"}, parent=5, trace="b", start=3),
        span(7, call(12, 21) | aws(7), parent=6, trace="b", start=4),
    )
    # The same counts, but calls of their own: beside each other, or with other ids.
    yield spans(
        span(8, call(12, 22) | aws(8), parent=11, trace="c"),
        span(9, call(12, 22) | aws(9), parent=11, trace="c"),
        span(10, call(12, 22), parent=11, trace="c"),
        span(11, {}, trace="c"),
        span(12, call(12, 22) | aws(12), parent=8, trace="c"),
    )
    # A chat that sums up two turns below it, and one that counts but a part of what its own call read.
    yield spans(
        span(13, call(30, 9) | aws(13), parent=15, trace="d"),
        span(14, call(40, 8) | aws(14), parent=15, trace="d"),
        span(15, call(70, 17, session__id="s-2"), trace="d"),
        span(16, call(12, 33), parent=17, trace="d"),  # an instrumentation that knows no cache
        span(17, call(12, 33, 500), trace="d"),
    )
    failed = {"code": 2}
    yield spans(  # the first try failed, and the framework saw the second one
        span(
            18,
            call(None, None) | aws(18) | {"error.type": "ThrottlingException"},
            parent=20,
            trace="e",
            status=failed,
        ),
        span(19, call(12, 44) | aws(19), parent=20, trace="e"),
        span(20, call(12, 44), trace="e"),
        span(
            21,
            call(None, None) | aws(21) | {"error.type": "ValidationException"},
            parent=22,
            trace="e",
            status=failed,
        ),
        span(22, call(None, None) | {"error.type": "ClientError"}, trace="e", status=failed),
    )
    yield spans(span(1, call(12, 20, 1000, 300) | aws(1), parent=2, trace="a"))  # a batch delivered again
    yield spans(
        span(23, call(1, 1), parent=24, trace="f"), span(24, call(1, 2), parent=23, trace="f")
    )  # a circle


def alone():
    """Spans on lines of their own, as CloudWatch holds them, and lists of them."""
    one = span(1, call(12, 20, 1000) | aws(1))
    one["attributes"] = {pair["key"]: next(iter(pair["value"].values())) for pair in one["attributes"]}
    one |= {"scope": {"name": BOTOCORE, "version": "0.66b2"}, "resource": {"attributes": {"team": "a"}}}
    yield {**one, "startTimeUnixNano": int(one["startTimeUnixNano"])}
    two, three = span(2, call(12, 20) | aws(2)), span(3, call(12, 20) | aws(3))
    yield [two, three]


def broken():
    """Spans, each of which costs itself and no other."""
    good = spans(span(1, call() | aws(1)))
    yield good
    for n, said in enumerate((call(-1), call("many"), call(7.5), call(read=2**36)), 2):
        yield spans(span(n, said), span(n + 100, call() | aws(n)))
    yield spans({**span(7, call()), "startTimeUnixNano": "0"})
    yield spans({**span(8, call()), "startTimeUnixNano": "soon"})
    yield spans(span(9, call() | {"cloud.region": "mars-1"}))
    yield spans({**span(10, call()), "startTimeUnixNano": "9" * 19})
    yield b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":'
    yield b'{"resourceSpans":7}'
    yield b"[7]"
    yield b"7"
    yield {"resourceSpans": [{"scopeSpans": None}, {"resource": None, "scopeSpans": [{"spans": None}]}]}
    yield lines([spans(span(11, call() | aws(11)))]).replace(b"PROMPT", b"half a pair: \\ud83d").strip()


# --- Claude Code ---------------------------------------------------------------------------------------------------

LAPTOP = {
    "service.name": "claude-code",
    "service.version": "2.1.224",
    "os.type": "linux",
    "host.arch": "amd64",
    "team": "checkout",
    "cost_center": "eng-123",
}
ANN = {
    "user.id": "f00d",
    "user.email": "ann@example.com",
    "user.account_uuid": "11111111-0000-4000-8000-000000000001",
    "organization.id": "22222222-0000-4000-8000-000000000002",
    "session.id": "session-1",
    "terminal.type": "tmux",
}
BOB = {
    "user.id": "beef",
    "enduser.id": "bob@example.com",
    "session.id": "session-2",
}  # on Bedrock, without a login
ON_BEDROCK = {"cloud.account.id": "111122223333", "cloud.region": "eu-west-1"}


def events(*some, resource=LAPTOP, scope="com.anthropic.claude_code.events"):
    group = {"scope": {"name": scope, "version": "2.1.224"}, "logRecords": list(some)}
    return {"resourceLogs": [{"resource": {"attributes": pairs(resource)}, "scopeLogs": [group]}]}


def event(n, name="api_request", **said):
    stamp = (BEGIN + timedelta(seconds=n)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found = {"event.name": name, "event.timestamp": stamp, "event.sequence": n}
    return {
        "timeUnixNano": nanos(n),
        "observedTimeUnixNano": nanos(n),
        "body": value(f"claude_code.{name}"),
        "attributes": pairs(found | {key.replace("__", "."): one for key, one in said.items()}),
        "traceId": "",
        "spanId": "",
    }


def request(n, *, prompt=3, answer=50, read=20000, written=800, model="claude-opus-4-8", who=ANN, **more):
    said = {
        "model": model,
        "input_tokens": prompt,
        "output_tokens": answer,
        "cache_read_tokens": read,
        "cache_creation_tokens": written,
        "cost_usd": 0.0210788,
        "duration_ms": 1521,
        "request_id": f"req_01{n:04d}",
        "client_request_id": f"33333333-0000-4000-8000-{n:012d}",
        "speed": "normal",
        "query_source": "repl_main_thread",
    }
    return event(n, **who | said | more)


BEDROCK = {"model": SONNET, "who": BOB | ON_BEDROCK, "request_id": None, "client_request_id": None}


def calls():
    """Events of two laptops, one of them on Bedrock."""
    prompt = event(0, "user_prompt", prompt=TEXT, prompt_length=7, **ANN)
    yield events(prompt, request(1), event(2, "tool_result", tool_name="Bash", success="true", **ANN))
    yield events(request(3, speed="fast", query_source="compact", agent__name="Explore", skill__name="pdf"))
    texts = {
        name: str(count) for name, count in (("input_tokens", 3), ("output_tokens", 9), ("duration_ms", 5))
    }
    yield events(request(4, **texts, cache_read_tokens="0", cache_creation_tokens="0"))
    yield events(request(5, **BEDROCK), request(6, **BEDROCK | {"model": f"{SONNET}[1m]"}))
    profile = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abc123"
    yield events(request(7, **BEDROCK | {"model": profile}))
    yield events(request(5, **BEDROCK))  # delivered again
    yield events(request(8, model="claude-opus-4-8@20260301"))
    error = {
        "model": "claude-opus-4-8",
        "error": TEXT,
        "status_code": 429,
        "duration_ms": 80,
        "attempt": 2,
        **ANN,
    }
    yield events(event(9, "api_error", **error, request_id="req_010009"))
    yield events(
        event(10, "api_error", **error | {"status_code": None, "request_id": None}, client_request_id="c-10")
    )
    yield events(event(11, "api_retries_exhausted", **error))
    refusal = event(12, "api_refusal", request_id="req_010012", model="claude-opus-4-8", **ANN)
    yield events(request(12, answer=0), refusal)  # reported, and not billed
    yield events(request(13, answer=0))  # no answer, but no refusal either
    yield events(request(14), scope="another.program", resource={"service.name": "x"})
    other = event(15, input_tokens=5, output_tokens=5, model="gpt-5", session__id="s")
    yield events({**other, "body": value("codex.api_request")}, scope="codex", resource={})
    old = request(16)
    yield events({**old, "body": value(TEXT)})  # named by its attribute alone
    yield events(request(17, input_tokens=-3), request(18, model=None), request(19))
    none = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"))
    yield events(request(20, **none), request(21, input_tokens="many"))
    yield b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{'


def metrics(*some, resource=LAPTOP):
    group = {"scope": {"name": "com.anthropic.claude_code", "version": "2.1.224"}, "metrics": list(some)}
    return {"resourceMetrics": [{"resource": {"attributes": pairs(resource)}, "scopeMetrics": [group]}]}


def metric(name, *points, temporality=1):
    """`points` are (start, end, value, attributes)."""
    found = [
        {
            "startTimeUnixNano": nanos(start),
            "timeUnixNano": nanos(end),
            ("asDouble" if isinstance(count, float) else "asInt"): count
            if isinstance(count, float)
            else str(count),
            "attributes": pairs(said),
        }
        for start, end, count, said in points
    ]
    counted = {"dataPoints": found, "aggregationTemporality": temporality, "isMonotonic": True}
    return {"name": f"claude_code.{name}", "unit": "tokens", "sum": counted}


def counted(kind, **more):
    said = ANN | {"type": kind, "model": "claude-opus-4-8", **more}
    return {key.replace("__", "."): one for key, one in said.items() if one is not None}


def delta():
    """A minute after a minute."""
    usd = counted(None)
    first = [
        metric(
            "token.usage",
            (0, 60, 30.0, counted("input")),
            (0, 60, 12, counted("input", query_source="subagent", effort="high")),  # the same total, for us
            (0, 60, 500, counted("output")),
            (0, 60, 20000, counted("cacheRead")),
            (0, 60, 800, counted("cacheCreation")),
            (0, 60, 7, counted("output", speed="fast")),
        ),
        metric("cost.usage", (0, 60, 0.0210788, usd), (0, 60, 0.1, usd | {"query_source": "auxiliary"})),
        metric("session.count", (0, 60, 1, ANN)),
        {"name": "claude_code.active_time.total", "gauge": {"dataPoints": [{"asDouble": 1.5}]}},
    ]
    yield metrics(*first)
    yield metrics(*first)  # delivered again
    yield metrics(metric("token.usage", (60, 120, 5, counted("input"))))
    bedrock = BOB | ON_BEDROCK | {"type": "input", "model": SONNET}
    yield metrics(metric("token.usage", (60, 120, 9, bedrock)))
    yield metrics(
        metric("token.usage", (120, 180, 1, counted("thought")), (120, 180, 2, counted("output"))),
        metric("token.usage", (120, 180, 1.5, counted("input")), (120, 180, -2, counted("input"))),
        metric("cost.usage", (120, 180, "much", usd), temporality=1),
        metric("token.usage", (120, 180, 3, counted("input")), temporality=0),
    )


def growing(*points, **more):
    return metrics(
        metric("token.usage", *[(*point, counted("output", **more)) for point in points], temporality=2)
    )


def cumulative():
    """Counts since a start: of each, the last one is the whole."""
    yield growing((0, 60, 100))
    yield growing((0, 120, 250))
    yield growing((0, 120, 40), effort="low")  # a series of its own, in the same total
    yield growing((0, 90, 180))  # out of turn
    yield growing((600, 660, 30))  # started anew
    yield growing((0, 180, 20))  # fell without starting anew
    yield growing((0, 240, 60))
    yield growing((240, 240, 5))


def mixed():
    """All signals in one file, as when three pipelines share an exporter."""
    yield metrics(metric("token.usage", (0, 60, 50, counted("output"))))
    yield events(request(1))
    own: dict[str, Any] = {"span.type": "llm_request", "gen_ai.request.model": "claude-opus-4-8"}
    own |= {"input_tokens": 3, "output_tokens": 50, "cache_read_tokens": 20000, "cache_creation_tokens": 800}
    own["request_id"] = "req_010001"
    yield spans(span(1, own), scope="com.anthropic.claude_code.tracing", version="1.0.0", resource=LAPTOP)


# --- the outbox ----------------------------------------------------------------------------------------------------

KEY = b"a key of the organisation's own"


def intent(n, **more):
    said: dict[str, Any] = {
        "gateway_id": f"gw-{n:04d}",
        "at": BEGIN + timedelta(seconds=n, microseconds=123456),
        "model": SONNET,
        "platform": "bedrock",
        "region": "eu-west-1",
        "account": "111122223333",
        "principal": "arn:aws:sts::111122223333:assumed-role/app/ann",
        "session": "session-1",
        "operation": "InvokeModelWithResponseStream",
        "tags": {"team": "checkout"},
        "stream": True,
        "decisions": (Decision("caching", "two points"), Decision("batch", "not deferrable", shadow=True)),
        "holds": ("budget-checkout-2026-03",),
    }
    return Intent(**said | {"expected": Tokens(1400, 600)} | more)


def result(n, tokens=None, **more):
    known = {
        name: getattr(intent(n), name)
        for name in intent(n).__struct_fields__
        if name not in ("v", "expected")
    }
    ids = {"request_id": f"00000000-0000-4000-8000-{n:012d}", "message_id": f"msg_bdrk_{n:04d}"}
    tokens = tokens or Tokens(100, 20, 5000, 300, 200)
    times = {"latency_ms": 1500, "first_token_ms": 300, "served_model": "claude-sonnet-4-6"}
    return Result(**known | ids | times | {"tokens": tokens} | more)


def prefixes(tokens):
    blocks = [TEXT.encode() * 40, b"tools", b"a question"]
    shares = apportion([len(block) for block in blocks], tokens.prompt)
    long, none, short = prefix_hashes(KEY, blocks)
    points = (Prefix(long, shares[0], "1h"), Prefix(none, shares[1]), Prefix(short, shares[2], "5m"))
    return Prefixes("2026-01", points)


def outbox_calls():
    yield encode(intent(1))
    yield encode(intent(2))
    tokens = Tokens(100, 20, 5000, 300, 200)
    yield encode(result(1, tokens, prefixes=prefixes(tokens)))
    yield encode(intent(3))  # its result never came
    yield encode(result(2, Tokens(), status="ThrottlingException", message_id="", served_model=""))
    yield encode(
        result(4, passes=(Pass("claude-opus-5", Tokens(2518, 22)),))
    )  # whose intent is in another file
    yield encode(intent(5))
    yield encode(result(5, Tokens(), status="void", request_id="", message_id=""))
    direct = {"platform": "anthropic", "model": "claude-sonnet-4-6", "region": "", "web_searches": 3}
    yield encode(result(6, Tokens(1200, 300), **direct))
    torn = encode(result(3))
    yield torn[: len(torn) // 2]  # a crash while writing


def outbox_faults():
    good = encode(result(1))
    yield good
    swaps = (
        (b'"v":1', b'"v":2'),
        (b'"v":1,', b""),
        (b'"input":100', b'"input":-1'),
        (b'"input":100', b'"input":1.5'),
        (b'"input":100', b'"inputs":100'),
        (b'"gw-0001"', b'""'),
        (b"123456Z", b"123456"),
        (b'"bedrock"', b'"moon"'),
        (b'"result"', b'"reply"'),
        (b'"session-1"', b'"' + b"x" * 3000 + b'"'),
    )
    for old, new in swaps:
        assert good.count(old) == 1, old
        yield good.replace(old, new)
    tokens = Tokens(100)
    hashed = encode(result(2, tokens, prefixes=prefixes(tokens)))
    yield hashed.replace(b'"input":100', b'"input":101')
    yield hashed.replace(prefixes(tokens).blocks[0].hash.encode(), TEXT.encode())
    yield good[:200] + b"\n"  # torn, but not the last
    yield encode(result(3))


# --- files ---------------------------------------------------------------------------------------------------------


def samples():
    """The name and the content of every file."""
    for make in (instrumentations, nested, alone, broken):
        yield f"otel.{make.__name__}.jsonl", lines(make())
    for make in (calls, delta, cumulative, mixed):
        yield f"claude_code_events.{make.__name__}.jsonl", lines(make())
    yield "outbox.calls.jsonl", b"".join(outbox_calls())
    yield "outbox.faults.jsonl", b"".join(outbox_faults())
