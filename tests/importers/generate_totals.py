"""Samples of control totals: made-up, in real shapes."""

import json

DAYS = ("2026-02-26", "2026-02-27", "2026-02-28")
SONNET, OPUS = "claude-sonnet-4-6", "claude-opus-4-6"


def printed(*documents):
    """As `curl | jq .` and the AWS CLI print: over many lines."""
    return "\n".join(json.dumps(document, indent=4) for document in documents).encode() + b"\n"


def lines(documents):
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


# --- Anthropic's reports -------------------------------------------------------------------------------------------


def page(buckets, following=None):
    return {"data": buckets, "has_more": following is not None, "next_page": following}


def bucket(day, *results, hours=24):
    end = f"{DAYS[DAYS.index(day) + 1]}T00:00:00Z" if hours == 24 else f"{day}T{hours:02d}:00:00Z"
    return {"starting_at": f"{day}T00:00:00Z", "ending_at": end, "results": list(results)}


def tokens(prompt, answer, read=0, short=0, long=0, searches=0, **dimensions):
    """A row of usage_report/messages: dimensions that were not asked for are null."""
    asked = ("api_key_id", "workspace_id", "account_id", "service_account_id", "model", "service_tier",
             "context_window", "inference_geo")  # fmt: skip
    return {
        "uncached_input_tokens": prompt,
        "cache_creation": {"ephemeral_1h_input_tokens": long, "ephemeral_5m_input_tokens": short},
        "cache_read_input_tokens": read,
        "output_tokens": answer,
        "server_tool_use": {"web_search_requests": searches},
        **dict.fromkeys(asked),
        **dimensions,
    }


def cost(amount, **dimensions):
    asked = ("description", "workspace_id", "cost_type", "context_window", "model", "service_tier",
             "token_type", "inference_geo")  # fmt: skip
    return {"currency": "USD", "amount": amount, **dict.fromkeys(asked), **dimensions}


def usage_by_model():
    """Pages by model, tier and geography, as they were printed one after another; an empty day between them."""
    first = page(
        [
            bucket(
                DAYS[0],
                tokens(1_500, 300, 20_000, 400, 50, 2, model=SONNET, service_tier="standard",
                       inference_geo="not_available"),
                tokens(9_000, 800, model=SONNET, service_tier="batch", inference_geo="us"),
                tokens(70, 7, model=OPUS, service_tier="priority", inference_geo="global"),
            ),
        ],
        "page_b",
    )  # fmt: skip
    return printed(first, page([bucket(DAYS[1])]))


def usage_by_key():
    """One page a line; in the second the context window tells rows apart that are alike otherwise."""
    keys = [
        tokens(10, 1, model=SONNET, api_key_id="apikey_01", workspace_id="wrkspc_01"),
        tokens(20, 2, model=SONNET, api_key_id="apikey_02"),
        tokens(30, 3, model=SONNET, api_key_id="apikey_02", workspace_id="wrkspc_01", account_id="acc_1"),
    ]
    windows = [
        tokens(40, 4, model=OPUS, context_window="0-200k", speed="fast", service_tier="standard"),
        tokens(50, 5, model=OPUS, context_window="200k-1M", speed="fast", service_tier="standard"),
    ]
    everything = tokens(60, 6, 7, 8, 9)
    return lines(
        [
            page([bucket(DAYS[0], *keys, hours=1)]),
            page([bucket(DAYS[0], *windows)]),
            page([bucket(DAYS[1], everything)]),
        ]
    )


def costs():
    """Amounts are cents."""
    rows = [
        cost("123.45", workspace_id="wrkspc_01", cost_type="tokens", token_type="output_tokens", model=SONNET,
             description="Claude Sonnet 4.6 Usage - Output Tokens", service_tier="standard",
             context_window="0-200k"),
        cost("0.0000015", cost_type="tokens", token_type="cache_read_input_tokens", model=SONNET,
             description="Claude Sonnet 4.6 Usage - Input Tokens, Cache Read", service_tier="standard"),
        cost("30", cost_type="web_search", description="Web Search Usage"),
    ]  # fmt: skip
    return lines([page([bucket(DAYS[0], *rows), bucket(DAYS[1])])])


def code():
    """Claude Code analytics: the days of people and of keys."""

    def day(actor, *models, terminal="vscode", customer="api"):
        return {
            "date": f"{DAYS[0]}T00:00:00Z",
            "actor": actor,
            "organization_id": "org-1",
            "customer_type": customer,
            "terminal_type": terminal,
            "core_metrics": {"num_sessions": 5, "commits_by_claude_code": 2},
            "tool_actions": {"edit_tool": {"accepted": 4, "rejected": 1}},
            "model_breakdown": [
                {
                    "model": model,
                    "tokens": {"input": n, "output": n * 2, "cache_read": n * 3, "cache_creation": n * 4},
                    "estimated_cost": {"currency": "USD", "amount": n},
                }
                for model, n in models
            ],
        }

    person = {"type": "user_actor", "email_address": "ann@example.com"}
    key = {"type": "api_actor", "api_key_name": "nightly"}
    days = [
        day(person, (SONNET, 100), (OPUS, 7)),
        day(person, (SONNET, 9), terminal="tmux"),
        day(key, (OPUS, 1)),
    ]
    return printed(page(days))


def broken():
    """Each bad row is rejected by itself."""
    negative = tokens(-5, 1, model=SONNET)
    good = tokens(11, 1, model=SONNET)
    yield page([bucket(DAYS[0], negative, good, tokens(1.5, 1, model=OPUS), {"model": OPUS}, 7)])
    yield page([{"starting_at": "yesterday", "ending_at": None, "results": [good]}, bucket(DAYS[1], good)])
    yield page(
        [bucket(DAYS[0], cost("12.5", currency="EUR"), cost("much"), cost("0.00000000001"), cost("-3"))]
    )
    yield {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
    yield page("no list")
    yield page([bucket(DAYS[0], tokens(2**63, 0))])


def torn():
    """Two pages without a line between them, one that ends too early, and one after it."""
    pages = [
        printed(page([bucket(DAYS[0], tokens(n, 1, model=SONNET, api_key_id=f"k{n}"))])) for n in range(4)
    ]
    return pages[0].rstrip() + pages[1] + pages[2][:-60] + b"\n" + pages[3]


# --- CloudWatch ----------------------------------------------------------------------------------------------------

ACCOUNT, REGION = "111122223333", "eu-west-1"
PROFILE = "eu.anthropic.claude-sonnet-4-6"
OPAQUE = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1b2c3d4e5f6"


def series(label, *values, query="q1", days=DAYS, **more):
    times = [f"{day}T00:00:00+00:00" for day, _ in zip(days, values, strict=False)]
    return {
        "Id": query,
        "Label": label,
        "Timestamps": times,
        "Values": list(values),
        "StatusCode": "Complete",
    } | more


def whole_label(metric, model="", namespace="AWS/Bedrock", period=86400, stat="Sum"):
    return f"{ACCOUNT} {REGION} {namespace} {metric} {stat} {period} {model}".strip()


def metric_data():
    """As docs/coverage.md asks for it: both spellings of the cache's names, and the series without a model."""
    found = [
        series(whole_label("InputTokenCount", PROFILE), 1200.0, 300.0),
        series(whole_label("OutputTokenCount", PROFILE), 100.0, 20.0),
        series(whole_label("CacheReadInputTokenCount", PROFILE), 5000.0),
        series(whole_label("CacheWriteInputTokens", PROFILE), 700.0),
        series(whole_label("CacheWriteInputTokenCount", PROFILE), 700.0),
        series(whole_label("Invocations", PROFILE), 12.0, 3.0),
        series(whole_label("InvocationThrottles", PROFILE), 4.0),
        series(whole_label("InvocationClientErrors", PROFILE), 2.0),
        series(whole_label("InvocationServerErrors", PROFILE), 1.0),
        series(whole_label("InputTokenCount", OPAQUE), 50.0),
        series(whole_label("InputTokenCount", "amazon.nova-lite-v1:0"), 999.0),
        series(whole_label("InputTokenCount"), 2249.0, 300.0),
        series(whole_label("InvocationLatency", PROFILE), 812.5, query="q9")
        | {"Values": []}
        | {"Timestamps": []},
        series(whole_label("TotalInputTokens", "anthropic.claude-opus-4-6", "AWS/BedrockMantle"), 80.0),
        series(
            whole_label("InputTokens", "Project=search Model=anthropic.claude-opus-4-6", "AWS/BedrockMantle"),
            80,
        ),
    ]
    return printed({"MetricDataResults": found, "Messages": []})


def short_labels():
    """A search without a label of ours: the model and the metric; how long a period is shows in the times."""
    found = [
        series(f"{PROFILE} InputTokenCount", 10, 20),
        series(PROFILE, 1, 2, query="outputTokenCount"),
    ]
    times = {"Timestamps": [1772064000.0, 1772067600.0]}  # as numbers, an hour apart
    return printed({"MetricDataResults": [one | times for one in found]})


def stream():
    """A metric stream, which carries other services too."""

    def record(metric, total, namespace="AWS/Bedrock", **dimensions):
        return {
            "metric_stream_name": "usage",
            "account_id": ACCOUNT,
            "region": REGION,
            "namespace": namespace,
            "metric_name": metric,
            "dimensions": dimensions,
            "timestamp": 1772064060000,
            "value": {"max": 3.0, "min": 0.0, "sum": total, "count": 2.0},
            "unit": "Count",
        }

    yield record("CPUUtilization", 7.5, "AWS/EC2", InstanceId="i-1")
    yield record("InputTokenCount", 30.0, ModelId=PROFILE)
    yield record("InputTokenCount", 30.0)
    yield record("InvocationLatency", 800.25, ModelId=PROFILE)
    yield record("OutputTokenCount", 1.5, ModelId=PROFILE)
    yield record("OutputTokenCount", 4.0, ModelId=PROFILE)
    yield record("Inferences", 2.0, "AWS/BedrockMantle", Project="search")
    yield record(
        "OutputTokens", 5.0, "AWS/BedrockMantle", Project="search", Model="anthropic.claude-opus-4-6"
    )


def statistics():
    """get-metric-statistics: what it is of is not said."""
    points = [
        {"Timestamp": f"{day}T00:00:00+00:00", "Sum": 5.0 + i, "Unit": "Count"} for i, day in enumerate(DAYS)
    ]
    return printed({"Label": "InputTokenCount", "Datapoints": points})


def mistakes():
    return printed(
        {
            "MetricDataResults": [
                series(whole_label("InputTokenCount", PROFILE, stat="Average"), 1.0),
                series(whole_label("InputTokenCount", PROFILE), 1.0, -2.0),
                series(whole_label("OutputTokenCount", PROFILE), 1.0, 2.0) | {"Values": [1.0]},
                series(PROFILE, 1.0),
                series(f"{PROFILE} {OPAQUE} InputTokenCount", 1.0),
                series("denied", query="inputTokenCount", StatusCode="Forbidden"),
                series(whole_label("OutputTokenCount", PROFILE), 6.0),
            ]
        },
        {"MetricDataResults": [series(f"{PROFILE} InputTokenCount", 1.0)]},
    )


# --- files ---------------------------------------------------------------------------------------------------------


def samples():
    """The name and the content of every file."""
    for make in (usage_by_model, code):
        yield f"anthropic_usage.{make.__name__}.json", make()
    for make in (usage_by_key, costs, torn):
        yield f"anthropic_usage.{make.__name__}.jsonl", make()
    yield "anthropic_usage.broken.jsonl", lines(broken())
    for make in (metric_data, short_labels, statistics, mistakes):
        yield f"cloudwatch.{make.__name__}.json", make()
    yield "cloudwatch.stream.jsonl", lines(stream())
