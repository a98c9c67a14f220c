"""`farthing batch` from the outside: what is handed in, how it stands, what comes out; and what cannot be handed in."""

import json
import os
import subprocess
import sys

import pytest

from farthing import cli
from farthing.gateway.batch import Queue
from tests import batches
from tests.batches import DIRECT, SONNET, request, service

credentials = batches.credentials


@pytest.fixture
def queue(tmp_path):
    return tmp_path / "queue"


def farthing(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", *map(str, argv)])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def written(path, requests):
    path.write_text("".join(json.dumps(each) + "\n" for each in requests))
    return path


def test_from_a_file_to_answers(capsys, queue, tmp_path, moto):
    file = written(tmp_path / "night.jsonl", [request(n) for n in range(100)])
    Queue(queue, speed=200).close()
    with service(moto, step_ms=5) as found:
        said = {name: value for name, value in found.settings.items() if name != "margin_s"}
        code, out, _ = farthing(capsys, "submit", file, "--deadline", "6h", "--queue", queue)
        assert (code, out) == (0, "100 accepted; due in 6h\n")
        options = [part for name, value in said.items() for part in (f"--{name.replace('_', '-')}", value)]
        argv = [sys.executable, "-m", "farthing", "batch", "run", "--until-done", "--queue", queue, *options]
        subprocess.run(argv, check=True, timeout=60, env=os.environ)
        assert len(found.calls()) == 100
    code, out, _ = farthing(capsys, "status", "--queue", queue, "--json")
    assert json.loads(out)["requests"]["done"] == 100
    answers = tmp_path / "answers.jsonl"
    assert farthing(capsys, "collect", "--out", answers, "--queue", queue)[0] == 0
    told = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [each["id"] for each in told] == [f"r{n}" for n in range(100)]
    assert {(each["mode"], each["late"]) for each in told} == {("batch", False)}
    usage = told[0]["output"]["usage"]
    picos = (
        usage["input_tokens"] * 1_500_000 + usage["output_tokens"] * 7_500_000
    )  # $1.50 and $7.50 a million
    assert told[0]["cost_usd"].replace(".", "").lstrip("0").rstrip("0") == str(picos).rstrip("0")
    assert farthing(capsys, "status", "--queue", queue)[1] == "nothing in the queue\n"


def test_lines_as_bedrock_and_anthropic_write_them(capsys, queue, tmp_path):
    body = request(1)["body"]
    direct = {"max_tokens": 9, "messages": [{"role": "user", "content": "Where?"}]}
    file = written(
        tmp_path / "in.jsonl",
        [
            {"recordId": "a", "modelInput": body},
            {"custom_id": "b", "params": direct | {"model": DIRECT}},
            {"id": "c", "model": SONNET, "body": body, "deadline": "2h"},
        ],
    )
    code, out, _ = farthing(capsys, "submit", file, "--model", SONNET, "--queue", queue, "--json")
    assert (code, json.loads(out)["accepted"]) == (0, 3)
    held = Queue(queue)
    assert [(row.id, row.group.platform, row.group.kind) for row in held.waiting()] == [
        ("c", "bedrock", "InvokeModel"),
        ("a", "bedrock", "InvokeModel"),
        ("b", "anthropic", "Messages"),
    ]
    held.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "no request"),
        ('{"model": "claude-sonnet-4-6", "body": {}}', 'no "id"'),
        ('{"id": "a"}', 'no "body"'),
        ('{"id": "a", "body": 7}', "no object"),
        ('{"id": "a", "body": {"messages": [{}], "anthropic_version": "x"}}', 'no "model"'),
        ('{"id": "a", "model": "../x", "body": {"messages": [{}]}}', 'no "model"'),
        ('{"id": "a", "model": "claude-sonnet-4-6", "body": {}}', 'no "messages"'),
        ('{"id": "a", "model": "claude-sonnet-4-6", "body": {"messages": [{}], "stream": true}}', "stream"),
        ('{"id": "a", "model": "m", "body": {"messages": [{}], "max_tokens": 5}}', "anthropic_version"),
        ('{"id": "a", "model": "m", "operation": "Guess", "body": {"messages": [{}]}}', "operation"),
        ('{"id": "a", "model": "claude-x", "deadline": "soon", "body": {"messages": [{}]}}', "deadline"),
        ('{"id": "a", "model": "claude-x", "body": {"messages": [{}], "max_tokens": -1}}', "max_tokens"),
    ],
)
def test_a_bad_line_is_named_and_the_good_ones_count(capsys, queue, tmp_path, line, says):
    file = tmp_path / "in.jsonl"
    file.write_text(f"{json.dumps(request(1, DIRECT))}\n\n{line}\n")
    code, out, err = farthing(capsys, "submit", file, "--queue", queue)
    assert code == 2
    assert out.startswith("1 accepted")
    assert "in.jsonl:3: " in err
    assert says in err
    assert len(err.splitlines()) == 1


def test_an_id_may_be_there_once(capsys, queue, tmp_path):
    file = written(tmp_path / "in.jsonl", [request(1, DIRECT)] * 2)
    code, _, err = farthing(capsys, "submit", file, "--queue", queue)
    assert (code, "is on line 1 already" in err) == (2, True)


def test_what_is_not_batched_is_said(capsys, queue, tmp_path):
    file = written(tmp_path / "in.jsonl", [request(n) for n in range(3)])
    long = request(9)
    long["body"]["system"] = "a rule. " * 5_000
    written(file, [*[request(n) for n in range(3)], long])
    _, out, _ = farthing(capsys, "submit", file, "--hits", "95", "--queue", queue)
    assert "1 not batched: cached and at once it costs $" in out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("submit", "none.jsonl"), "No such file"),
        (("submit", "-", "--deadline", "soon"), "deadline"),
        (("submit", "-", "--tag", "team"), "NAME=VALUE"),
        (("run", "--s3", "bucket"), "s3://BUCKET/PREFIX"),
        (("run", "--size", "0"), "count from 1"),
        (("cancel",), "--all"),
    ],
)
def test_what_makes_no_sense_is_one_line(capsys, queue, argv, says):
    code, _, err = farthing(capsys, *argv, "--queue", queue)
    assert (code, says in err, len(err.splitlines())) == (2, True, 1)


def test_what_is_needed_is_asked_for_before_it_is_too_late(capsys, queue, tmp_path, monkeypatch):
    farthing(capsys, "submit", written(tmp_path / "a.jsonl", [request(1)]), "--queue", queue)
    assert "--role-arn" in farthing(capsys, "run", "--queue", queue)[2]
    farthing(capsys, "cancel", "--all", "--queue", queue)
    farthing(capsys, "submit", written(tmp_path / "b.jsonl", [request(2, DIRECT)]), "--queue", queue)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "ANTHROPIC_API_KEY" in farthing(capsys, "run", "--queue", queue)[2]


def test_cancelled(capsys, queue, tmp_path):
    farthing(
        capsys, "submit", written(tmp_path / "a.jsonl", [request(n) for n in range(3)]), "--queue", queue
    )
    assert farthing(capsys, "cancel", "r1", "--queue", queue)[:2] == (0, "1 cancelled\n")
    assert farthing(capsys, "cancel", "r1", "--queue", queue)[0] == 1
    code, out, _ = farthing(capsys, "collect", "--queue", queue)
    assert (code, json.loads(out)["error"]) == (1, "cancelled")
    assert "2 waiting" in farthing(capsys, "status", "--queue", queue)[1]


def test_a_queue_of_a_later_version_is_left_alone(capsys, queue):
    held = Queue(queue)
    held.set_meta("version", "9")
    held.close()
    code, _, err = farthing(capsys, "status", "--queue", queue)
    assert (code, "version 9" in err) == (2, True)


def test_a_file_where_the_queue_should_be(capsys, tmp_path):
    (tmp_path / "queue").write_text("no folder")
    code, _, err = farthing(capsys, "status", "--queue", tmp_path / "queue")
    assert (code, "no queue can be kept there" in err) == (2, True)
