"""Open intents and the invocation log: a call that a gateway sent and never saw answered counts once."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farthing.api import import_paths
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.outbox import Intent, Record, Result, Tokens, encode

AT = datetime(2026, 3, 2, 9, 30, 0, 700_000, tzinfo=UTC)
NOW = datetime(2026, 3, 3, tzinfo=UTC)
MODEL = "global.anthropic.claude-sonnet-4-6"


def intent(name: str, after_s: float = 0, **more: object) -> Intent:
    said = {
        "model": MODEL,
        "platform": "bedrock",
        "region": "eu-west-1",
        "operation": "Converse",
        "tags": {"team": "a"},
    }
    at = AT + timedelta(seconds=after_s)
    return Intent(**{"gateway_id": name, "at": at, "expected": Tokens(400, 100)} | said | more)  # type: ignore[arg-type]


def log(request: str, after_s: float = 0, more: dict[str, object] | None = None) -> str:
    said = {
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "region": "eu-west-1", "accountId": "111122223333",
        "timestamp": f"{AT + timedelta(seconds=after_s):%Y-%m-%dT%H:%M:%SZ}", "requestId": request,
        "operation": "Converse", "modelId": MODEL,
        "input": {"inputTokenCount": 90}, "output": {"outputTokenCount": 20},
    }  # fmt: skip
    return json.dumps(said | (more or {}))


def taken(folder: Path, records: list[Record], logs: list[str], *, first: str = "outbox") -> Ledger:
    (folder / "outbox.jsonl").write_bytes(b"".join(map(encode, records)))
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in logs))
    ledger = Ledger(folder / "ledger")
    names = ["outbox.jsonl", "log.jsonl"] if first == "outbox" else ["log.jsonl", "outbox.jsonl"]
    for name in names:
        import_paths(ledger, [folder / name], now=NOW)
    return ledger


def standing(ledger: Ledger) -> list[tuple[object, ...]]:
    ledger.rows().create_view("u", replace=True)
    ledger.contexts().create_view("c", replace=True)
    sums = ", ".join(f"sum({meter})::INT" for meter in METERS[:2])
    return ledger.connection.execute(
        f"SELECT source, gateway_id, request_id, {sums} FROM u JOIN c USING (ctx) GROUP BY ALL HAVING sum(calls) > 0 "
        "ORDER BY ALL"
    ).fetchall()


@pytest.mark.parametrize("first", ["outbox", "log"])
def test_an_open_intent_is_the_logs_call(tmp_path: Path, first: str) -> None:
    ledger = taken(tmp_path, [intent("g1")], [log("r1")], first=first)
    assert standing(ledger) == [("bedrock_log", "g1", "r1", 90, 20)]
    ledger.table("tags").create_view("t", replace=True)
    query = "SELECT key, value FROM u JOIN t USING (tags) WHERE calls = 1 AND gateway_id = 'g1' AND request_id = 'r1'"
    assert ledger.connection.execute(query).fetchall() == [("team", "a")]


def test_each_record_is_taken_once_by_the_nearest(tmp_path: Path) -> None:
    ledger = taken(
        tmp_path, [intent("g1"), intent("g2", 3), intent("g3", 60)], [log("r1"), log("r2", 3), log("r4", 200)]
    )
    assert standing(ledger) == [
        ("bedrock_log", "", "r4", 90, 20),
        ("bedrock_log", "g1", "r1", 90, 20),
        ("bedrock_log", "g2", "r2", 90, 20),
        ("outbox_intent", "g3", "", 400, 100),
    ]
    before = standing(ledger)
    again = import_paths(ledger, [tmp_path / "outbox.jsonl", tmp_path / "log.jsonl"], now=NOW)
    assert (again.imported, again.settled, standing(ledger)) == (0, 0, before)


@pytest.mark.parametrize(
    "other",
    [
        {"modelId": "eu.anthropic.claude-sonnet-4-6"},
        {"operation": "InvokeModel"},
        {"region": "us-east-1"},
        {"input": {"inputTokenCount": 401}},  # more than the ceiling: another call
        {"output": {"outputTokenCount": 101}},
        {"errorCode": "ThrottlingException"},
        {"timestamp": "2026-03-02T09:29:58Z"},  # before the intent
        {"requestMetadata": {"farthing_id": "another"}},
    ],
)
def test_what_does_not_fit_stays_two(tmp_path: Path, other: dict[str, object]) -> None:
    assert len(standing(taken(tmp_path, [intent("g1")], [log("r1", 0, other)]))) == 2


def test_an_intent_with_its_result_is_not_open(tmp_path: Path) -> None:
    given = intent("g1")
    told = {name: getattr(given, name) for name in given.__struct_fields__ if name not in ("v", "expected")}
    result = Result(**told, request_id="r1", tokens=Tokens(90, 20))
    ledger = taken(tmp_path, [given, result], [log("r1"), log("r2")])
    assert standing(ledger) == [("bedrock_log", "", "r2", 90, 20), ("outbox", "g1", "r1", 90, 20)]
