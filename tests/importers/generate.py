"""Samples of this folder, as `make golden` writes them: made-up calls, in real shapes."""

import base64
import json

TEXT = "PROMPT TEXT, which must not be kept"  # the tests look for it where it must not be
AT = "2026-03-02T09:30:{:02d}Z"


def changed(record, changes):
    """`a__b=1` sets record["a"]["b"]; a change to None takes the field away."""
    for path, value in changes.items():
        *outer, name = path.split("__")
        inner = record
        for key in outer:
            inner = inner[key]
        inner[name] = value
        if value is None:
            del inner[name]
    return record


# --- Bedrock invocation logs ---------------------------------------------------------------------------------------


def log(n, answer=None, **changes):
    """A record with `answer` as its body."""
    record = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": AT.format(n % 60),
        "accountId": "111122223333",
        "identity": {"arn": "arn:aws:sts::111122223333:assumed-role/app/ann"},
        "region": "eu-west-1",
        "requestId": f"00000000-0000-4000-8000-{n:012d}",
        "operation": "InvokeModel",
        "modelId": "eu.anthropic.claude-sonnet-4-6",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": {"messages": [{"role": "user", "content": TEXT}]},
            "inputTokenCount": 100,
        },
        "output": {"outputContentType": "application/json", "outputBodyJson": answer, "outputTokenCount": 20},
        "inferenceRegion": "eu-central-1",
    }
    return changed(record, changes)


def top(n, answer=None, *, read=0, written=0, **changes):
    """A newer record, which has the cache's counts at its top."""
    cached = {"input__cacheReadInputTokenCount": read, "input__cacheWriteInputTokenCount": written}
    return log(n, answer, **cached, **changes)


def usage(prompt=100, answer=20, read=0, short=0, long=0, **more):
    return {
        "input_tokens": prompt,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": answer,
        **more,
    }


def message(n, stop="end_turn", **block):
    return {
        "id": f"msg_bdrk_{n:04d}",
        "model": "claude-sonnet-4-6",
        "type": "message",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": stop,
        "usage": block or usage(),
    }


def converse(prompt=100, answer=20, read=0, written=0, details=None, stop="end_turn", **more):
    block = {"inputTokens": prompt, "outputTokens": answer, "totalTokens": prompt + answer + read + written}
    block |= {"cacheReadInputTokens": read, "cacheReadInputTokenCount": read}
    block |= {"cacheWriteInputTokens": written, "cacheWriteInputTokenCount": written, "serverToolUsage": {}}
    if details is not None:
        block["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in details]
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
        "stopReason": stop,
        "metrics": {"latencyMs": 812},
        "usage": block,
        **more,
    }


def stream(n, start, final, pieces=12, done=True, **metrics):
    """The events of a streamed answer: what it starts with, and its cumulative end."""
    events = [{"type": "message_start", "message": message(n, None, **start)}]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
        for _ in range(pieces)
    ]
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": final})
    stop: dict[str, object] = {"type": "message_stop"}
    if metrics:
        stop["amazon-bedrock-invocationMetrics"] = {
            "invocationLatency": 1500,
            "firstByteLatency": 300,
            **metrics,
        }
    return [*events, stop, *(["[DONE]"] if done else [])]


def operations():
    """All four, in the key order of S3 and of CloudWatch."""
    yield top(1, message(1, **usage(100, 20, 5000, 300, 200)), read=5000, written=500)
    yield top(
        2,
        stream(
            2, usage(100, 1, 5000, 0, 700), {"output_tokens": 20}, inputTokenCount=100, outputTokenCount=20
        ),
        read=5000,
        written=700,
        operation="InvokeModelWithResponseStream",
    )
    yield top(
        3,
        converse(100, 20, 5000, 600, [("1h", 400), ("5m", 200)]),
        read=5000,
        written=600,
        operation="Converse",
    )
    yield top(4, converse(), operation="ConverseStream")
    cloudwatch = log(5, message(5))
    yield {key: cloudwatch[key] for key in [*list(cloudwatch)[2:], "schemaType", "schemaVersion"]}
    yield dict(sorted(log(6, message(6)).items()))


def bodies():
    """An answer as an object, text, base64, events as text, elsewhere, absent, of another vendor, or nonsense."""
    answer = message(1, **usage(short=0, long=50))
    yield top(1, json.dumps(answer), written=50)
    yield top(2, base64.b64encode(json.dumps(answer).encode()).decode(), written=50)
    yield top(
        3, [json.dumps(event) for event in stream(3, usage(long=50), {"output_tokens": 20})[:-1]], written=50
    )
    yield top(
        4,
        written=50,
        output__outputBodyJson=None,
        output__outputBodyS3Path="s3://b/p/09/data/4_output.json.gz",
    )
    yield top(
        5,
        written=50,
        output__outputBodyJson=None,
        output__outputBodyS3Path="s3://b/p/09/data/5_output.json.gz",
    )
    yield top(6, written=50, output__outputBodyJson=None)
    yield top(7, "neither JSON nor base64", written=50)
    yield top(8, {"usage": "none of your business", "content": 7}, written=50)
    yield top(9, [0.25, 0.5], written=50)
    yield top(10, 7, written=50)
    yield top(11, stream(11, usage(long=50), {"output_tokens": 20}, pieces=0), written=50)
    yield log(12, None, output=None, input__inputTokenCount=33)


def precedence():
    """The top decides; the answer splits cache writes, and fills in what the top leaves out."""
    yield log(1, message(1, **usage(100, 20, 5000, 300, 200)))  # an older record: no cache counts at the top
    yield log(2, stream(2, usage(100, 1, 5000, 0, 500), usage(100, 20, 5000, 0, 500)))
    yield top(3, message(3, **usage(77, 7)))  # the answer says otherwise
    yield top(4, message(4, **usage(short=100, long=100)), written=300)  # 100 of untold lifetime
    yield top(5, message(5, **usage(short=100, long=100)), written=150)
    yield top(6, message(6, **usage(short=100, long=100)), written=0)
    yield log(7, converse(100, 20, 0, 300, [("1h", 100), ("30m", 50)]))  # a lifetime not known here
    yield log(8, converse(100, 20, 0, 300))
    compaction = usage(100, 82, 0, 0, 55096) | {"type": "compaction"}
    last = usage(180, 8) | {"type": "message"}
    passes = message(9, **usage(180, 8), iterations=[compaction, last])
    yield log(9, passes, input__inputTokenCount=180, output__outputTokenCount=8)
    advisor = usage(2518, 22) | {"type": "advisor_message", "model": "claude-opus-4-8"}
    own = usage(100, 20) | {"type": "message", "model": "claude-sonnet-4-6"}
    yield log(10, message(10, **usage(), iterations=[own, advisor]))
    yield log(11, message(11, **usage(), iterations=[usage(10, 2), usage(10, 2)]))  # less than the top says
    yield log(12, message(12, **usage(), iterations=[]))
    metrics = {"inputTokenCount": 100, "outputTokenCount": 20, "cacheWriteInputTokenCount": 40}
    only = [{"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}]
    yield log(13, only, input__inputTokenCount=None, output__outputTokenCount=None)
    yield log(14, message(14), input__inputTokenCount=None, output__outputTokenCount=None)


def outcomes():
    """Errors, refusals, guardrails, and what is no call."""
    yield log(1, None, errorCode="ThrottlingException", input__inputTokenCount=None, output=None)
    yield log(2, None, errorCode="ValidationException", output__outputTokenCount=None)
    yield log(3, message(3, "refusal", **usage(100, 0)), output__outputTokenCount=0)
    yield log(4, message(4, "refusal", **usage(100, 20)))
    yield log(
        5, converse(0, 0, stop="guardrail_intervened"), input__inputTokenCount=0, output__outputTokenCount=0
    )
    yield log(6, message(6) | {"amazon-bedrock-guardrailAction": "INTERVENED"})
    yield log(7, message(7) | {"amazon-bedrock-guardrailAction": "NONE"})
    yield log(8, {"inputTokens": 100}, operation="CountTokens", output__outputTokenCount=None)
    yield {"schemaType": "GuardrailTrace", "timestamp": AT.format(9), "text": TEXT}
    yield {"hello": "world"}
    yield log(10, converse(stop="refusal", answer=0), output__outputTokenCount=0)


def facts():
    """Who, where, which model, how, and when, as far as a record says."""
    arn = "arn:aws:bedrock:eu-west-1:111122223333:"
    yield log(1, message(1), modelId=f"{arn}inference-profile/eu.anthropic.claude-opus-4-8")
    yield log(2, message(2), modelId=f"{arn}application-inference-profile/a1b2c3d4e5f6")
    yield log(3, converse(), modelId="amazon.nova-lite-v1:0", operation="Converse")
    yield log(4, {"embeddings": [[0.1]]}, modelId="cohere.embed-v4:0", output__outputTokenCount=None)
    yield log(
        5,
        {"images": [TEXT]},
        modelId="stability.sd3-large-v1:0",
        input__inputTokenCount=None,
        output__outputTokenCount=None,
    )
    metadata = {"team": "search", "session": "s-1", "retries": 2, "flags": {"b": [True, None]}}
    yield log(6, message(6), requestMetadata=metadata)
    yield log(7, message(7), requestMetadata={"session_id": "s-2", "session": 7})
    yield log(8, converse(serviceTier={"type": "priority"}), operation="Converse")
    yield log(9, converse(performanceConfig={"latency": "optimized"}), operation="Converse")
    yield log(10, message(10, **usage(), service_tier="flex"))
    yield log(11, message(11, **usage(), service_tier="standard"), serviceTier="default")
    yield log(12, message(12), serviceTier="reserved", performanceConfig={"latency": "standard"})
    yield log(13, message(13, **usage(), service_tier="batch"))
    yield log(14, message(14), identity=None, accountId=None, inferenceRegion=None, region=None)
    yield log(15, message(15), timestamp="2026-03-02T09:30:15.250Z")
    yield log(16, message(16), timestamp="2026-03-02T10:30:16.5+01:00")
    yield log(17, message(17), timestamp="2026-03-02T09:30:17")
    yield log(
        18, message(18), region="us-gov-west-1", modelId="us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0"
    )
    yield log(19, converse(), requestId=None)  # no id at all
    yield log(20, message(20) | {"content": [{"type": "text", "text": "half a pair: \ud83d"}]})
    yield log(21, converse() | {"metrics": {"latencyMs": "fast"}})


def broken():
    """Lines, each of which costs itself and no other. The good ones are 1, 7 and the last."""
    good = [json.dumps(log(n, message(n))).encode() for n in range(40)]
    yield good[1]
    yield b""
    yield b"   \r"
    yield b"no JSON"
    yield good[2][:-30]
    yield good[3][30:]
    yield good[4].replace(b"PROMPT", b"\xff\xfe")  # counts: nobody reads the prompt
    yield good[5].replace(b"eu-west-1", b"eu-\xff-1")
    yield good[6].replace(b"PROMPT", b"\0")
    yield b"\0" * 50
    yield b"[" + good[7] + b"]"
    yield b'"text"'
    yield b"12"
    yield b'{"schemaType":"ModelInvocationLog","x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for count in (
        b"-1",
        b"1.5",
        b"1e3",
        b'"100"',
        b"true",
        b"[]",
        str(2**35 + 1).encode(),
        str(2**70).encode(),
    ):
        yield good[8].replace(b'"inputTokenCount": 100', b'"inputTokenCount": ' + count)
    for count in (b"-1", b"1.5", str(2**36).encode()):
        older = json.dumps(log(9, message(9, **usage(read=7)))).encode()
        yield older.replace(b'"cache_read_input_tokens": 7', b'"cache_read_input_tokens": ' + count)
    for at in (
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2022-12-31T23:59:59Z",
        "soon",
        "",
        1772443800,
    ):
        yield json.dumps(log(10, message(10), timestamp=at)).encode()
    yield json.dumps(log(11, message(11), timestamp=None)).encode()
    for region in ("mars-north-1", "eu-west", "EU-WEST-1", "eu-west-1; drop"):
        yield json.dumps(log(12, message(12), region=region)).encode()
    yield json.dumps(log(13, message(13), modelId=None)).encode()
    yield json.dumps(log(14, message(14), requestId=5)).encode()
    yield json.dumps(log(15, message(15), output=[1])).encode()
    yield json.dumps(log(16, None, input__inputTokenCount=None, output__outputTokenCount=None)).encode()
    yield json.dumps(log(17, message(17, **usage(), iterations=[7]))).encode()
    yield json.dumps(log(18, message(18, **usage(), iterations=[usage(-4)]))).encode()
    yield good[19]


def lines(records):
    return b"".join(
        record if isinstance(record, bytes) else json.dumps(record).encode() for record in joined(records)
    )


def joined(records):
    for record in records:
        yield record
        yield b"\n"


def delivery(records):
    events = [
        {"id": str(n), "timestamp": 1772443800000, "message": json.dumps(one)}
        for n, one in enumerate(records)
    ]
    head = {
        "messageType": "DATA_MESSAGE",
        "owner": "111122223333",
        "logGroup": "bedrock",
        "logStream": "aws/bedrock",
    }
    return json.dumps(head | {"logEvents": events}).encode()


def cloudwatch():
    """What CloudWatch makes of records: an export, query results printed over lines and not, and deliveries."""
    some = list(operations())
    probe = b"2026-03-02T09:00:00.000Z Permissions are correctly set for Amazon Bedrock logs.\n"
    export = b"".join(b"2026-03-02T09:30:00.000Z " + json.dumps(one).encode() + b"\n" for one in some)
    tail = b"2026-03-02T09:30:00+00:00 aws/bedrock/modelinvocations " + json.dumps(some[0]).encode() + b"\n"
    yield "export.jsonl.gz", probe + tail + export + b"2026-03-02T09:31:00.000Z {cut\n"
    events = [
        {"timestamp": 1772443800000, "message": json.dumps(one), "eventId": str(n)}
        for n, one in enumerate(some)
    ]
    found = {"events": events, "searchedLogStreams": [], "nextToken": None}
    yield "filter.json", json.dumps(found, indent=4).encode()
    yield "filter-lines.jsonl", json.dumps(found).encode() + b"\n" + lines(events)
    rows = [
        [{"field": "@message", "value": json.dumps(one)}, {"field": "@ptr", "value": "Cm"}] for one in some
    ]
    yield "insights.json", json.dumps({"results": rows, "status": "Complete"}, indent=4).encode()
    cells = [{"@timestamp": "2026-03-02 09:30:00.000", "@message": one} for one in some]
    yield "insights-lines.jsonl", json.dumps({"results": rows}).encode() + b"\n" + lines(cells)
    control = (
        b'{"messageType":"CONTROL_MESSAGE","logEvents":[{"id":"","timestamp":1,"message":"checking health"}]}'
    )
    yield (
        "firehose.jsonl.gz",
        control + delivery(some[:2]).replace(b'": ', b'":') + delivery(some[2:]).replace(b'": ', b'":'),
    )
    yield "several-lines.json", json.dumps(some[0], indent=2).encode()


# --- Claude Code transcripts ---------------------------------------------------------------------------------------


def said(n, block=None, *, model="claude-opus-4-8", copy=0, **changes):
    """An assistant's record."""
    record = {
        "parentUuid": "p",
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ann/shop",
        "sessionId": "session-1",
        "version": "2.1.39",
        "gitBranch": "main",
        "message": {
            "model": model,
            "id": f"msg_01{n:04d}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": None,
            "usage": block or usage(service_tier="standard", inference_geo="not_available"),
        },
        "requestId": f"req_01{n:04d}",
        "type": "assistant",
        "uuid": f"{n}-{copy}",
        "timestamp": f"2026-03-02T09:30:{n % 60:02d}.{copy:03d}Z",
    }
    return changed(record, changes)


def progress(n, **changes):
    """A subagent's record inside one of its session."""
    inner = said(n, **changes)
    kept = {key: inner[key] for key in ("type", "timestamp", "message", "requestId", "uuid") if key in inner}
    outer = {
        "type": "progress",
        "cwd": "/home/ann/shop",
        "sessionId": "session-1",
        "timestamp": AT.format(59),
    }
    return outer | {"data": {"type": "agent_progress", "prompt": TEXT, "message": kept}, "isSidechain": False}


def session():
    """Copies that grow, a side chain, subagents, and lines of every other kind."""
    yield {"type": "summary", "summary": TEXT, "leafUuid": "x"}
    yield {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}, "isSnapshotUpdate": False}
    yield {
        "type": "user",
        "message": {"role": "user", "content": TEXT},
        "uuid": "u",
        "sessionId": "session-1",
    }
    yield said(1, usage(3, 1, 20000, 0, 900))
    yield said(1, usage(3, 1, 20000, 0, 900), copy=1)
    yield said(1, usage(3, 250, 20000, 0, 900), copy=2)
    yield said(2, usage(3, 90))
    yield said(2, usage(3, 7), copy=1)  # an older copy, met later
    yield said(2, usage(3, 90), requestId="req_other", isSidechain=True)
    yield progress(3)
    yield progress(4, requestId=None)
    yield {"type": "progress", "data": {"type": "hook_progress", "message": TEXT}, "sessionId": "session-1"}
    yield {"type": "progress", "data": {"message": {"type": "user", "message": {"content": TEXT}}}}
    yield {
        "type": "user",
        "toolUseResult": {"usage": usage()},
        "message": {"content": []},
        "sessionId": "session-1",
    }
    yield {"type": "system", "content": '"usage"', "sessionId": "session-1", "level": 7}
    yield {"type": "queue-operation", "content": [{"text": TEXT}], "sessionId": "session-1", "message": 5}


def versions():
    """Old and future ones: fields that are missing, new, or null."""
    yield said(1, usage(), requestId=None, costUSD=0.01)
    yield said(2, {"input_tokens": 4, "output_tokens": 6}, cwd=None, sessionId=None)
    yield said(3, usage(), version="9.0.0", novelty={"a": [1, {"b": None}]}, message__surprise=[])
    yield said(4, usage(), message__id=None, requestId=None)  # no id at all
    yield said(5, usage(), model="<synthetic>", isApiErrorMessage=True)
    yield said(6, None, message__usage=None, isApiErrorMessage=True)
    yield said(7, usage() | {"cache_creation": None, "cache_creation_input_tokens": 40})
    yield said(
        8, usage() | {"service_tier": None, "speed": None, "iterations": None, "server_tool_use": {"web": 1}}
    )
    yield {"message": said(9)["message"], "timestamp": AT.format(9), "type": "assistant"}
    yield said(10, message__content=[{"type": "text", "text": "half a pair: \udc00"}])


def platforms():
    """Who sold the call, and how it was sent."""
    yield said(1, message__id="msg_bdrk_0001", model="claude-sonnet-4-6")
    yield said(2, message__id="msg_vrtx_0002")
    yield said(3, usage(service_tier="priority"))
    yield said(4, usage(service_tier="standard", speed="fast"))
    yield said(5, usage(service_tier="batch"))
    yield said(6, usage(inference_geo="us"))
    yield said(7, usage(inference_geo="global"))
    advisor = usage(2518, 22) | {"type": "advisor_message", "model": "claude-opus-5"}
    yield said(8, usage(iterations=[usage() | {"type": "message"}, advisor]))
    yield said(9, usage(100, 0), message__stop_reason="refusal")
    yield said(10, usage(), message__stop_reason="refusal")
    yield said(11, usage(server_tool_use={"web_search_requests": 3}))


def torn():
    """Lines, each of which costs itself and no other."""
    good = [json.dumps(said(n, usage(read=7))).encode() for n in range(20)]
    yield good[1]
    yield b"{"
    yield good[2][:-30]
    yield good[3].replace(b"PROMPT", b"\xff")  # counts: nobody reads the prompt
    yield good[4].replace(b"PROMPT", b"\0")
    yield b'{"type":"user","message":{"content":"\xff"},"sessionId":"s"}'  # no record, so not looked at
    yield b"[1, 2]"
    yield b"7"
    for count in (b"-7", b"7.0", b'"7"', b"false", b"{}", str(2**36).encode(), str(2**64).encode()):
        yield good[5].replace(b'"cache_read_input_tokens": 7', b'"cache_read_input_tokens": ' + count)
    for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday", None):
        yield json.dumps(said(6, timestamp=at)).encode()
    yield json.dumps(said(7, timestamp=5)).encode()
    yield json.dumps(said(8, message__usage=[1])).encode()
    yield json.dumps(said(9, message__usage={})).encode()
    yield json.dumps(said(10, sessionId=["s"])).encode()
    yield json.dumps(progress(11, message__usage={"input_tokens": -1})).encode()
    yield json.dumps(said(12, usage(iterations=[{"cache_creation": 5, "input_tokens": 1}]))).encode()
    yield good[13]


# --- files ---------------------------------------------------------------------------------------------------------


def samples():
    """The name and the content of every file."""
    for make in (operations, bodies, precedence, outcomes, facts, broken):
        yield f"bedrock_log.{make.__name__}.jsonl", lines(make())
    for name, content in cloudwatch():
        yield f"bedrock_log.{name}", content
    for make in (session, versions, platforms, torn):
        yield f"claude_code.{make.__name__}.jsonl", lines(make())
    yield "data/4_output.json.gz", json.dumps(message(4, **usage(long=50))).encode()
