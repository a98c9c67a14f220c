"""The quality gate: verdicts that hold however often one looks, sample sizes that suffice, models asked for real."""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from farthing.cli import main
from farthing.evaluate import INFERIOR, NOT_INFERIOR, UNDECIDED, Pair, judge, size


def pairs(random_, difference, discordant, count):
    """Outcomes of two models that differ on a share of questions, and by so much in the mean."""
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    made = []
    for number in range(count):
        u = random_.random()
        scores = (0.0, 1.0) if u < better else (1.0, 0.0) if u < better + worse else (1.0, 1.0)
        made.append(Pair(str(number), *scores))
    return made


# --- the verdict -----------------------------------------------------------------------------------------------------


def test_a_model_that_is_worse_by_the_margin_seldom_passes_though_one_looks_after_every_answer():
    random_ = random.Random(7)
    passed = sum(judge(pairs(random_, -0.1, 0.2, 600), 0.1).verdict == NOT_INFERIOR for _ in range(120))
    assert passed <= 9  # 5 % of 120, and three more by chance


def test_the_sample_that_is_asked_for_suffices():
    random_ = random.Random(8)
    wanted = size(0.1, 0.2)
    passed = sum(
        judge(pairs(random_, 0, 0.2, wanted.at_most), 0.1).verdict == NOT_INFERIOR for _ in range(60)
    )
    assert passed >= 54
    assert wanted.fixed == 172  # 8.567 x 0.2 / 0.1^2: the formula of a fixed sample
    assert wanted.fixed < wanted.usual < wanted.at_most


def test_a_much_worse_model_is_called_inferior():
    assert judge(pairs(random.Random(1), -0.3, 0.4, 400), 0.05).verdict == INFERIOR


def test_a_much_better_model_passes_soon():
    assert judge(pairs(random.Random(1), 0.3, 0.4, 60), 0.05).verdict == NOT_INFERIOR


def test_few_pairs_decide_nothing_however_well_they_agree():
    agreeing = [Pair(str(i), 1.0, 1.0) for i in range(50)]
    assert judge(agreeing, 0.02).verdict == UNDECIDED


def test_answers_of_one_conversation_count_once():
    one = [Pair(str(i), 0.0, 1.0, "c1") for i in range(500)]
    found = judge(one, 0.02)
    assert (found.pairs, found.units, found.verdict) == (500, 1, UNDECIDED)


def test_the_interval_holds_the_difference_and_goes_with_the_verdict():
    found = judge(pairs(random.Random(3), 0, 0.1, 3000), 0.02)
    assert found.low < found.difference < found.high
    assert (found.low > -0.02) == (found.verdict == NOT_INFERIOR)


def test_scores_between_0_and_1_count_as_they_are():
    found = judge([Pair(str(i), 0.5, 0.75) for i in range(40)], 0.02)
    assert found.difference == pytest.approx(0.25)
    assert found.verdict == NOT_INFERIOR


# --- files -----------------------------------------------------------------------------------------------------------


def run(*argv):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in argv])
    return ended.value.code


def test_outcomes_from_csv_and_from_json_lines_give_one_verdict(tmp_path, capsys):
    made = pairs(random.Random(5), 0.2, 0.3, 200)
    lines = "".join(json.dumps({"id": p.id, "from": p.from_score, "to": p.to_score}) + "\n" for p in made)
    (tmp_path / "o.jsonl").write_text(lines)
    rows = "".join(f"{p.id},{'pass' if p.from_score else 'fail'},{p.to_score}\n" for p in made)
    (tmp_path / "o.csv").write_text("id,from,to\n" + rows)
    said = []
    for name in ("o.jsonl", "o.csv"):
        assert run("evaluate", "outcomes", tmp_path / name, "--out", tmp_path / "v.json", "--json") == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0]["verdict"] == NOT_INFERIOR
    assert said[0]["evidence"] == said[1]["evidence"]
    assert json.loads((tmp_path / "v.json").read_text())["evidence"] == said[0]["evidence"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no pairs in it"),
        ('{"id": "a", "from": 1}', ":1: no `to`"),
        ('{"id": "a", "from": 1, "to": 2}', "scores go from 0 to 1"),
        ('{"id": "a", "from": 1, "to": "good"}', "write a score from 0 to 1"),
        ('{"id": "a", "from": 1, "to": 1}\n{"id": "a", "from": 1, "to": 1}', ":2: the id 'a' is on line 1"),
        ('{"id": "a", "from": 1, "to": 1}\n{oops', ":2: not JSON"),
        ("id,from\na,1\n", ":1: no column to"),
    ],
)
def test_bad_outcomes_are_one_line(tmp_path, capsys, text, says):
    (tmp_path / "o").write_text(text)
    assert run("evaluate", "outcomes", tmp_path / "o") == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


# --- both models, asked for real -------------------------------------------------------------------------------------


class Converse(BaseHTTPRequestHandler):
    """Bedrock's Converse on the loopback: the cheap model errs on every question that ends in 7."""

    asked: list[str] = []  # noqa: RUF012 - set anew by the fixture

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"][0]["text"]
        self.asked.append(f"{self.path} {question}")
        number = question.removeprefix("Say ")
        wrong = "haiku" in self.path and number.endswith("7")
        answer = {
            "output": {"message": {"role": "assistant", "content": [{"text": "no" if wrong else number}]}},
            "stopReason": "end_turn", "metrics": {"latencyMs": 5},
            "usage": {"inputTokens": 1_000, "outputTokens": 100, "totalTokens": 1_100},
        }  # fmt: skip
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def bedrock(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    Converse.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Converse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(tmp_path, bedrock, count, *more):
    questions = [{"id": str(i), "prompt": f"Say {i}", "expected": str(i)} for i in range(count)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    return run(
        "evaluate", "run", tmp_path / "q.jsonl", "--from", "global.anthropic.claude-sonnet-4-6",
        "--to", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "--outcomes", tmp_path / "o.jsonl",
        "--endpoint-url", bedrock, "--json", *more,
    )  # fmt: skip


def test_models_are_asked_only_when_it_is_said(tmp_path, bedrock, capsys):
    assert ask(tmp_path, bedrock, 10) == 2
    assert "--yes" in capsys.readouterr().err
    assert not Converse.asked


def test_both_models_are_asked_graded_and_priced(tmp_path, bedrock, capsys):
    assert ask(tmp_path, bedrock, 30, "--yes", "--margin", "0.3") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["from_mean"], found["to_mean"]) == (30, 1.0, 0.9)
    assert found["from_usd"] == "0.135"  # 30 x (1,000 x $3 + 100 x $15) / 1M
    assert found["to_usd"] == "0.045"
    kept = (tmp_path / "o.jsonl").read_text()
    assert "Say" not in kept
    assert len(Converse.asked) == 60


def test_a_run_goes_on_where_it_was_broken_off(tmp_path, bedrock, capsys):
    ask(tmp_path, bedrock, 6, "--yes")
    whole = (tmp_path / "o.jsonl").read_text()
    (tmp_path / "o.jsonl").write_text(whole[:-20])  # killed while it wrote the last
    Converse.asked.clear()
    ask(tmp_path, bedrock, 8, "--yes")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["pairs"] == 8
    assert len(Converse.asked) == 6  # three questions, two models


def test_a_run_stops_when_the_evidence_suffices(tmp_path, bedrock, capsys):
    assert ask(tmp_path, bedrock, 400, "--yes", "--margin", "0.4") == 0
    assert json.loads(capsys.readouterr().out)["pairs"] < 100


def test_a_run_spends_no_more_than_it_may(tmp_path, bedrock, capsys):
    ask(tmp_path, bedrock, 100, "--yes", "--max-usd", "0.031")
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 5  # at $0.006 each


def test_a_command_may_grade(tmp_path, bedrock, capsys):
    grader = (
        "python3 -c 'import json, sys; said = json.load(sys.stdin); print(0.5 if said[\"answer\"] else 0)'"
    )
    ask(tmp_path, bedrock, 3, "--yes", "--grade-command", grader)
    assert json.loads(capsys.readouterr().out)["from_mean"] == 0.5


def test_a_grader_that_says_no_score_is_one_line(tmp_path, bedrock, capsys):
    assert ask(tmp_path, bedrock, 3, "--yes", "--grade-command", "echo fine") == 2
    assert "wanted a score from 0 to 1, and it said: fine" in capsys.readouterr().err


def test_a_bedrock_that_does_not_answer_is_one_line(tmp_path, capsys, bedrock, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert ask(tmp_path, "http://127.0.0.1:9", 3, "--yes") == 2
    assert "run it again to go on" in capsys.readouterr().err
