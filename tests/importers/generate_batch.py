"""Samples of batch results and of gateways: made-up calls."""

import csv
import io
import json
import runpy
from pathlib import Path

HERE = Path(__file__).parent
MAKE = runpy.run_path(str(HERE / "generate.py"))
TEXT, changed, converse, lines, message, usage = (
    MAKE[name] for name in ("TEXT", "changed", "converse", "lines", "message", "usage")
)
PROMPT = [{"role": "user", "content": TEXT}]
JOB = "arn:aws:bedrock:eu-west-1:111122223333:model-invocation-job/a1b2c3d4e5f6"
BATCH = "msgbatch_01Ab"


# --- batches -------------------------------------------------------------------------------------------------------


def job(**changes):
    """What `aws bedrock get-model-invocation-job` prints."""
    told = {
        "jobArn": JOB,
        "jobName": "summaries",
        "modelId": "anthropic.claude-sonnet-4-6",
        "roleArn": "arn:aws:iam::111122223333:role/batch",
        "status": "Completed",
        "submitTime": "2026-03-02T06:00:00.125000+00:00",
        "lastModifiedTime": "2026-03-02T09:30:00.500000+00:00",
        "endTime": "2026-03-02T09:30:00.500000+00:00",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://in/prompts.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://out/"}},
        "processedRecordCount": 6,
        "errorRecordCount": 2,
    }
    return changed(told, changes)


MANIFEST = {
    "totalRecordCount": 6,
    "processedRecordCount": 6,
    "successRecordCount": 4,
    "errorRecordCount": 2,
    "inputTokenCount": 330,
    "outputTokenCount": 65,
}


def result(n, answer=None, error=None):
    """A line of `*.jsonl.out`."""
    outcome = {"error": error} if error else {"modelOutput": answer}
    return {"recordId": f"CALL{n:07d}", "modelInput": {"messages": PROMPT}} | outcome


def invoke():
    """Messages; what failed; and counts that the cache would have."""
    yield result(1, message(1))
    yield result(2, message(2, **usage(10, 5, 900, 40, 60)))
    yield result(3, error={"errorCode": 400, "errorMessage": TEXT, "expired": False, "retryable": False})
    yield result(4, message(4, "refusal", **usage(100, 0)))
    yield result(5, message(5, "refusal", **usage(100, 20)))
    yield result(6, error={"errorCode": "InternalServerException", "errorMessage": TEXT})
    old = message(7, **usage(90, 9)) | {"usage": {"input_tokens": 90, "output_tokens": 9}}
    yield result(7, old)
    yield {"modelInput": {"messages": PROMPT}, "modelOutput": message(8), "recordId": "CALL0000008"}


def conversed():
    yield result(11, converse())
    yield result(12, converse(10, 5, 900, 100, [("1h", 100)]))
    yield result(13, converse(10, 5, 900, 100))
    yield result(14, converse(50, 0, stop="guardrail_intervened"))
    yield result(15, error={"errorCode": 500, "errorMessage": TEXT})


def broken():
    good = [json.dumps(result(n, message(n))).encode() for n in range(9)]
    yield good[1]
    yield good[2][:-40]
    yield good[3].replace(b'"output_tokens": 20', b'"output_tokens": -20')
    yield good[4].replace(b'"usage"', b'"used"')
    yield good[5].replace(b'"modelOutput"', b'"modelOut"')  # a line of a job's input has no outcome either
    yield b"7"
    yield good[6]


def batched(n, answer=None, kind="succeeded", **more):
    """A line of Anthropic's results."""
    told = {"message": answer} if answer else {}
    return {"custom_id": f"call-{n}", "result": {"type": kind} | told | more}


def anthropic():
    yield batched(
        1, message(1, **usage(100, 20, 500, service_tier="batch", inference_geo="us")) | {"id": "msg_1"}
    )
    yield batched(2, message(2, **usage(100, 20, service_tier="batch")) | {"id": "msg_2"})
    wrong = {"type": "error", "error": {"type": "invalid_request_error", "message": TEXT}}
    yield batched(3, kind="errored", error=wrong)
    yield batched(4, kind="canceled")
    yield batched(5, kind="expired")
    yield batched(6)


def batch():
    """Anthropic's batch object."""
    return {
        "id": BATCH,
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 1, "expired": 1},
        "created_at": "2026-03-02T07:00:00.250000Z",
        "ended_at": "2026-03-02T08:00:00Z",
        "expires_at": "2026-03-03T07:00:00.250000Z",
        "results_url": None,
    }


# --- LiteLLM -------------------------------------------------------------------------------------------------------


def counted(prompt=100, answer=20, read=0, short=0, long=0, *, split=True):
    """LiteLLM's usage: its prompt holds the cached tokens too."""
    details = {"cached_tokens": read, "cache_creation_tokens": short + long, "text_tokens": prompt}
    if split:
        details["cache_creation_token_details"] = {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": long,
        }
    return {
        "prompt_tokens": prompt + read + short + long,
        "completion_tokens": answer,
        "total_tokens": prompt + answer + read + short + long,
        "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_tokens_details": details,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": read,
    }


def spent(n, used=None, **changes):
    """A row of LiteLLM_SpendLogs, as the database or `/spend/logs` gives it."""
    used = used or counted()
    row = {
        "request_id": f"chatcmpl-{n:04d}",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.000615,
        "total_tokens": used["total_tokens"],
        "prompt_tokens": used["prompt_tokens"],
        "completion_tokens": used["completion_tokens"],
        "startTime": f"2026-03-02T09:30:{n % 60:02d}.125000+00:00",
        "endTime": f"2026-03-02T09:30:{n % 60:02d}.937000+00:00",
        "completionStartTime": None,
        "model": "bedrock/eu.anthropic.claude-sonnet-4-6",
        "model_id": "e8f0",
        "model_group": "sonnet",
        "custom_llm_provider": "bedrock",
        "api_base": "https://bedrock-runtime.eu-west-1.amazonaws.com/model/eu.anthropic.claude-sonnet-4-6/converse",
        "user": "ann",
        "metadata": {
            "user_api_key": "88dc28d0",
            "user_api_key_alias": "search-prod",
            "user_api_key_team_alias": "Search",
            "usage_object": used,
            "additional_usage_values": {},
            "spend_logs_metadata": {"feature": "answers", "deep": {"x": 1}},
            "requester_metadata": {"prompt": TEXT},
            "status": "success",
        },
        "cache_hit": "False",
        "cache_key": "Cache OFF",
        "request_tags": ["env:prod", "nightly"],
        "team_id": "t-1",
        "organization_id": None,
        "end_user": "customer-7",
        "session_id": "s-1",
        "status": "success",
        "messages": {},
        "response": {},
        "proxy_server_request": json.dumps({"messages": PROMPT}),
    }
    return changed(row, changes)


def spend_logs():
    """Ids, counts and outcomes of rows."""
    yield spent(1, counted(100, 20, 5000, 300, 200), metadata__litellm_call_id="call-1")
    yield spent(2, counted(100, 20, 5000, 500, 0, split=False))
    message_id = {"request_id": "msg_bdrk_0003", "call_type": "anthropic_messages"}
    yield spent(3, metadata__litellm_call_id="call-3", **message_id)
    yield spent(4, custom_llm_provider="anthropic", model="anthropic/claude-opus-4-8", api_base="", user="")
    yield spent(5, custom_llm_provider="bedrock_converse", model="bedrock/us-east-2/anthropic.claude-v2")
    profile = "arn:aws:bedrock:us-west-2:111122223333:application-inference-profile/abc123"
    yield spent(6, model=f"bedrock/converse/{profile}")
    yield spent(7, cache_hit="True", request_id="chatcmpl-0001_cache_hit1772443800.5", spend=0.0)
    failed = {"error_class": "RateLimitError", "error_code": "429", "error_message": TEXT}
    zero = counted(0, 0)
    yield spent(
        8, zero, status="failure", metadata__status="failure", metadata__error_information=failed, spend=0
    )
    yield spent(9, zero, status="failure", metadata__status="failure", metadata__usage_object=None)
    more = {"cache_read_input_tokens": 5000, "cache_creation_input_tokens": 500}
    yield spent(
        10, counted(100, 20, 5500), metadata__usage_object=None, metadata__additional_usage_values=more
    )
    yield spent(11, metadata__usage_object=None)
    yield spent(12, custom_llm_provider="openai", model="gpt-5.6")
    yield spent(13, model="bedrock/amazon.nova-pro-v1:0")
    yield spent(14, custom_llm_provider="vertex_ai", model="vertex_ai/claude-sonnet-4-6")
    yield spent(15, call_type="aretrieve_batch", request_id="0f1e", spend=1.5)
    yield spent(
        16,
        metadata__usage_object__service_tier="priority",
        custom_llm_provider="anthropic",
        model="claude-opus-4-8",
    )


def broken_rows():
    good = [json.dumps(spent(n)).encode() for n in range(12)]
    yield good[1]
    yield good[2][:-30]
    yield good[3].replace(b'"prompt_tokens": 100', b'"prompt_tokens": -100')
    yield good[4].replace(b'"startTime": "2026', b'"startTime": "26')
    yield json.dumps(
        spent(5, metadata__usage_object=None, prompt_tokens=None, completion_tokens=None)
    ).encode()
    yield b"[1]"
    yield json.dumps(spent(6, request_id=None)).encode()
    yield good[7].replace(b"search-prod", b"\\ud800")  # half of a pair
    yield good[8].replace(b'["env:prod", "nightly"]', b'"[broken"')
    yield good[9]


def payload(n, answer, used=None, **changes):
    """The standard payload that callbacks get (and write to S3, GCS, a log)."""
    used = used or counted()
    told = {
        "id": f"chatcmpl-{n:04d}",
        "trace_id": f"trace-{n}",
        "call_type": "acompletion",
        "stream": True,
        "response_cost": 0.000615,
        "status": "success",
        "custom_llm_provider": "bedrock",
        "total_tokens": used["total_tokens"],
        "prompt_tokens": used["prompt_tokens"],
        "completion_tokens": used["completion_tokens"],
        "startTime": 1772443800.125 + n,
        "endTime": 1772443800.937 + n,
        "model": "eu.anthropic.claude-sonnet-4-6",
        "metadata": {"user_api_key_hash": "88dc28d0", "user_api_key_user_id": "ann", "usage_object": used},
        "cache_hit": None,
        "request_tags": [],
        "end_user": "",
        "messages": PROMPT,
        "response": answer,
        "hidden_params": {
            "litellm_call_id": f"call-{n}",
            "additional_headers": {"llm_provider-x-amzn-requestid": f"00000000-0000-4000-8000-{n:012d}"},
        },
    }
    return changed(told, changes)


def callbacks():
    chat = {"id": "chatcmpl-x", "choices": [{"message": {"content": TEXT}}]}
    yield payload(1, chat | {"usage": counted()})
    split = message(2, **usage(100, 20, 5000, 300, 200))
    yield payload(2, split, counted(100, 20, 5000, 500, split=False), id="msg_bdrk_0002")
    yield payload(3, message(3, **usage(7, 9, 50)), metadata__usage_object=None)
    yield payload(4, chat, cache_hit=True)
    yield payload(5, None, status="failure", error_information={"error_class": "Timeout"}, hidden_params=None)
    yield payload(6, TEXT, counted(1, 2), custom_llm_provider="anthropic", model="claude-opus-4-8")


def table(rows):
    """What `COPY ... TO ... CSV HEADER` writes."""
    text = io.StringIO()
    rows = list(rows)
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {
            name: json.dumps(cell) if isinstance(cell, dict | list) else cell for name, cell in row.items()
        }
        at = row["startTime"].replace("T", " ").replace("000+00:00", "")
        writer.writerow(cells | {"startTime": at, "model_group": "over\ntwo lines"})
    return text.getvalue().encode() + b"cut,short\n"


# --- Langfuse ------------------------------------------------------------------------------------------------------


def observation(n, used=None, **changes):
    """A generation, as the API and the exports of its pages give it."""
    told = {
        "id": f"obs-{n}",
        "traceId": f"trace-{n}",
        "type": "GENERATION",
        "name": "answer",
        "startTime": f"2026-03-02T09:30:{n % 60:02d}.125Z",
        "endTime": f"2026-03-02T09:30:{n % 60:02d}.937Z",
        "model": "eu.anthropic.claude-sonnet-4-6",
        "environment": "prod",
        "userId": "ann",
        "sessionId": "s-1",
        "tags": ["team:search", "nightly"],
        "input": PROMPT,
        "output": {"role": "assistant", "content": TEXT},
        "metadata": {"feature": "answers", "last_message": TEXT, "apiKey": "sk-1", "cost_center": 7},
        "usageDetails": {"input": 100, "output": 20, "total": 120} if used is None else used,
        "costDetails": {"total": 0.0006},
        "level": "DEFAULT",
        "statusMessage": None,
    }
    return changed(told, changes)


def cached(prompt=100, answer=20, read=5000, **more):
    return {"input": prompt, "output": answer, "cache_read_input_tokens": read, **more}


def observations():
    """Ids, systems and outcomes."""
    yield observation(1, cached(input_cache_creation_5m=300, input_cache_creation_1h=200, total=5620))
    yield observation(2, id="time-09-30-02-125000_chatcmpl-0002", metadata__user_api_key_alias="search-prod")
    yield observation(3, id="time-09-30-03-125000_msg_bdrk_0003")
    yield observation(4, output={"id": "msg_bdrk_0004", "content": TEXT}, model="claude-sonnet-4-6")
    traced = {"gen_ai.system": "aws.bedrock", "aws.request_id": "00000000-0000-4000-8000-000000000005"}
    yield observation(5, metadata__attributes=traced, model="claude-sonnet-4-6")
    headers = {
        "additional_headers": {"llm_provider-x-amzn-requestid": "00000000-0000-4000-8000-000000000006"}
    }
    yield observation(6, metadata__hidden_params=headers)
    yield observation(7, metadata={"ls_provider": "anthropic"}, model="claude-opus-4-8")
    yield observation(8, type="SPAN")
    yield observation(9, model="gpt-5.6")
    yield observation(10, metadata={"ls_provider": "google_vertexai"}, model="claude-sonnet-4-6")
    yield observation(11, {}, level="ERROR", statusMessage=TEXT)
    yield observation(12, metadata__cache_hit=True)


def kinds():
    """Which names the kinds of token go by, and what the total gives away."""
    yield observation(1, cached(cache_creation_input_tokens=500))
    yield observation(2, {"input": 100, "input_cached_tokens": 5000, "output": 20, "total": 5120})
    yield observation(3, {"input_tokens": 100, "output_tokens": 20, "input_cache_read": 7, "total": 127})
    yield observation(4, cached(5600, 20, 5000, cache_creation_input_tokens=500, total=5620))
    yield observation(5, cached(600, 20, 5000, cache_creation_input_tokens=500, total=5620))
    yield observation(6, cached(100, 20, 5000, total=120))  # too small a prompt to hold what was cached
    yield observation(7, {"input": 100, "output": 20, "output_reasoning_tokens": 30, "total": 150})
    yield observation(8, {"input": 100, "output": 50, "output_reasoning_tokens": 30, "total": 150})
    yield observation(
        9, usageDetails=None, usage={"input": 100, "output": 20, "total": 120, "unit": "TOKENS"}
    )
    yield observation(10, {"input": "100", "output": 20.0, "total": "120"})
    yield observation(11, {"input": 0, "output": 0, "total": 0})


def scheduled():
    """Rows of a blob storage export: names with underscores, naive times in UTC, JSON as text."""
    for n in (1, 2):
        yield {
            "id": f"blob-{n}",
            "trace_id": f"trace-{n}",
            "project_id": "p",
            "type": "GENERATION",
            "start_time": f"2026-03-02 09:30:0{n}.125000",
            "end_time": f"2026-03-02 09:30:0{n}.937000",
            "provided_model_name": "global.anthropic.claude-sonnet-4-6",
            "usage_details": {"input": "100", "output": "20", "input_cached_tokens": "50", "total": "170"},
            "input": json.dumps(PROMPT),
            "output": json.dumps({"id": f"msg_bdrk_000{n}", "content": TEXT}),
            "metadata": json.dumps({"feature": "answers"}),
            "user_id": "ann",
            "session_id": "s-1",
            "tags": ["team:search"],
            "level": "DEFAULT",
        }


def traces():
    """A trace with its observations, and one of a list, which has their ids."""
    inner = observation(1, userId=None, sessionId=None, tags=None)
    told = {
        "id": "trace-1",
        "projectId": "p",
        "name": "chat",
        "timestamp": "2026-03-02T09:30:00.000Z",
        "bookmarked": False,
        "userId": "ben",
        "sessionId": "s-2",
        "tags": ["team:chat"],
        "input": TEXT,
        "metadata": {"tier": "gold", "input": TEXT},
        "observations": [inner, observation(2, type="EVENT")],
    }
    yield told
    yield told | {"id": "trace-2", "observations": ["obs-7"]}


def broken_observations():
    good = [json.dumps(observation(n)).encode() for n in range(9)]
    yield good[1]
    yield good[2][:-30]
    yield json.dumps(observation(3, {"input": -1, "output": 20})).encode()
    yield json.dumps(observation(4, {"input": 1.5, "output": 20})).encode()
    yield json.dumps(observation(5, {}, usage=None)).encode()
    yield good[6].replace(b'"startTime": "2026', b'"startTime": "26')
    yield b"null"
    yield good[7]


# --- files ---------------------------------------------------------------------------------------------------------


def samples():
    """The name and the content of every file."""
    yield "bedrock_batch.job.json", json.dumps(job(), indent=4).encode()
    yield "bedrock_batch.manifest.json", json.dumps(MANIFEST).encode()
    yield "bedrock_batch.invoke.jsonl", lines(invoke())
    yield "bedrock_batch.converse.jsonl.gz", lines(conversed())
    yield "bedrock_batch.broken.jsonl", b"\n".join(broken()) + b"\n"
    yield "bedrock_batch.anthropic.jsonl", lines(anthropic())
    yield "bedrock_batch.anthropic_batch.json", json.dumps(batch(), indent=2).encode()
    yield "litellm.spend_logs.jsonl", lines(spend_logs())
    yield "litellm.printed.json", json.dumps(list(spend_logs())[:3], indent=2).encode()
    yield "litellm.page.json", json.dumps({"data": list(spend_logs())[:3], "total": 3, "page": 1}).encode()
    yield "litellm.broken.jsonl", b"\n".join(broken_rows()) + b"\n"
    yield "litellm.callbacks.jsonl", lines(callbacks())
    yield "litellm.table.csv.gz", table(spend_logs())
    yield "langfuse.observations.json", json.dumps(list(observations())).encode()
    yield "langfuse.kinds.json", json.dumps(list(kinds()), indent=2).encode()
    yield (
        "langfuse.page.json",
        json.dumps({"data": list(observations())[:2], "meta": {"page": 1}}, indent=4).encode(),
    )
    yield "langfuse.scheduled.jsonl", lines(scheduled())
    yield "langfuse.traces.json", json.dumps(list(traces())).encode()
    yield "langfuse.broken.jsonl", b"\n".join(broken_observations()) + b"\n"
