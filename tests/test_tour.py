"""One tour: a log line as Bedrock writes it, to the figure that a person reads."""

import json
from decimal import Decimal

import pytest

from farthing import cli

MTOK = Decimal(1_000_000)
USAGE = {
    "input_tokens": 412,
    "output_tokens": 650,
    "cache_read_input_tokens": 18_000,
    "cache_creation_input_tokens": 1_200,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 1_000},
}
RECORD = {
    "schemaType": "ModelInvocationLog",
    "schemaVersion": "1.0",
    "timestamp": "2026-05-29T23:14:05Z",
    "accountId": "123456789012",
    "identity": {"arn": "arn:aws:sts::123456789012:assumed-role/support/ada"},
    "region": "ap-northeast-1",
    "requestId": "6f1c77aa-0000-4000-8000-000000000001",
    "operation": "InvokeModel",
    "modelId": "arn:aws:bedrock:ap-northeast-1:123456789012:inference-profile/jp.anthropic.claude-sonnet-4-6",
    "requestMetadata": {"team": "support"},
    "input": {
        "inputContentType": "application/json",
        "inputBodyJson": {"messages": [{"role": "user", "content": "a secret"}]},
        "inputTokenCount": 412,
        "cacheReadInputTokenCount": 18_000,
        "cacheWriteInputTokenCount": 1_200,
    },
    "output": {
        "outputContentType": "application/json",
        "outputBodyJson": {"id": "msg_bdrk_01", "model": "claude-sonnet-4-6", "usage": USAGE},
        "outputTokenCount": 650,
    },
    "inferenceRegion": "ap-northeast-3",
}


def test_from_log_line_to_bill(tmp_path, capsys):
    log = tmp_path / "log.json"
    log.write_text(json.dumps(RECORD) + "\n")
    ledger = str(tmp_path / "ledger")

    def farthing(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--ledger", ledger, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out)

    done = farthing("import", str(log))
    assert (done["imported"], done["rejected"], done["unpriced"]) == (1, 0, 0)

    regional = {"input": "3.3", "output": "16.5", "read": "0.33", "write_5m": "4.125", "write_1h": "6.6"}
    paid = (
        412 * Decimal(regional["input"])
        + 650 * Decimal(regional["output"])
        + 18_000 * Decimal(regional["read"])
        + 200 * Decimal(regional["write_5m"])
        + 1_000 * Decimal(regional["write_1h"])
    ) / MTOK
    bill = farthing("bill")
    assert Decimal(bill["footer"]["usd"]) == paid
    assert bill["footer"]["assumed"] == []
    steps = {step["step"]: Decimal(step["usd"]) for step in bill["waterfall"]}
    plain = (19_612 * Decimal(3) + 650 * Decimal(15)) / MTOK
    assert steps["list"] == plain
    assert steps["endpoint_premium"] == plain / 10
    assert steps["cache_reads"] == -18_000 * (Decimal("3.3") - Decimal("0.33")) / MTOK
    assert steps["cache_writes"] == (200 * Decimal("0.825") + 1_000 * Decimal("3.3")) / MTOK
    assert steps["total"] == paid

    (row,) = farthing("by", "day,tag:team,routing,region,principal", "--tz", "Asia/Tokyo")["rows"]
    assert row["day"] == "2026-05-30"  # 08:14 there
    assert (row["tag:team"], row["routing"], row["region"]) == ("support", "geo:jp", "ap-northeast-1")
    assert row["principal"].endswith("assumed-role/support/ada")
    assert Decimal(row["usd"]) == paid

    exact = farthing("levers")["rows"]
    endpoint = next(row for row in exact if row["lever"] == "endpoint")
    assert Decimal(endpoint["missing_usd"]) == paid - paid / Decimal("1.1")

    kept = b"".join(path.read_bytes() for path in (tmp_path / "ledger").rglob("*") if path.is_file())
    assert b"a secret" not in kept
