"""Calls put to a cheaper model as well: paid from a budget of their own, and nothing of it reaches the caller."""

import http.client
import json
import sqlite3
from base64 import b64encode
from contextlib import closing
from urllib.parse import urlsplit

import msgspec
import pytest

from farthing.cli import main
from farthing.cli._grading import pair_grader
from farthing.emulator import running as emulating
from farthing.gateway._running import running
from farthing.gateway._settings import Settings
from farthing.gateway._shadow_said import Said, said
from farthing.money import from_usd
from farthing.outbox import Result, decode
from farthing.policy import Copied, Copies, copies_path, load
from farthing.wire import encode, event
from tests.gateways import message, reply, upstream
from tests.piloted import BOOK, HEAD, MODEL, SECOND, Clock, entry, turn, words

HAIKU = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
NAME = "support/claude-sonnet-4-6/model"
SAID = {"X-Amzn-Bedrock-Request-Metadata": '{"app":"support"}', "Content-Type": "application/json"}


def shadow(sample=100, budget="1", per_minute=600) -> str:
    says = (
        'model = "claude-sonnet-4-6"\nuse = "claude-haiku-4-5"\nstate = "shadow"\n'
        f'shadow = {{sample = {sample}, budget_usd = "{budget}", per_minute = {per_minute}}}'
    )
    return HEAD + entry("model", says)


class Line:
    """A gateway before a service, and a client of it; each call is a second after the last."""

    def __init__(self, url, policy, clock, outbox) -> None:
        self.policy, self.clock, self.outbox = policy, clock, outbox
        self.http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def ask(self, body, action="invoke", headers=SAID):
        self.clock.now_us += SECOND
        self.http.request("POST", f"/model/{MODEL}/{action}", body, headers)
        answered = self.http.getresponse()
        return answered.status, answered.read()

    def copied(self, count: int) -> list[Copied]:
        """Once so many are settled. The gateway is asked for its health in between, so it has its turn."""
        store = Copies(copies_path(self.policy))
        found: list[Copied] = []
        for _ in range(2_000):
            found = store.of(load(self.policy).entries[0])
            if len(found) >= count and not any(row.status == "under way" for row in found):
                return found
            self.http.request("GET", "/healthz")
            self.http.getresponse().read()
        raise AssertionError(f"{len(found)} copies")

    def results(self) -> list[Result]:
        lines = [
            line for file in sorted(self.outbox.glob("*.jsonl")) for line in file.read_bytes().splitlines()
        ]
        return [record for record in map(decode, lines) if isinstance(record, Result)]


@pytest.fixture
def made(tmp_path):
    """From a policy and a service to a line."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def line(policy, bedrock, **how):
            file = tmp_path / "policy.toml"
            file.write_text(policy)
            where = Settings(
                tmp_path / "outbox", bedrock=bedrock, region="eu-west-1", auth=False, policy=file, **how
            )
            clock = Clock()
            found = Line(stack.enter_context(running(where, BOOK, clock)), file, clock, tmp_path / "outbox")
            stack.callback(found.http.close)
            return found

        yield line


def answers(by_model):
    """A service whose models answer with a text each."""

    def answer(asked):
        haiku = "haiku" in asked.line
        content = {"content": [{"type": "text", "text": by_model[haiku]}], "stop_reason": "end_turn"}
        return [reply(json.dumps(json.loads(message()) | content).encode())]

    return answer


def test_the_caller_has_its_answer_and_the_copy_is_a_call_of_its_own(made, tmp_path, capsys):
    with emulating() as emulator:
        line = made(shadow(), emulator.url, grade=pair_grader("exact", ""))
        body = turn(words(2_000))
        status, answered = line.ask(body)
        assert (status, json.loads(answered)["model"]) == (200, "claude-sonnet-4-6")
        (copy,) = line.copied(1)
        mine, other = sorted(line.results(), key=lambda record: "haiku" in record.model)
        called, put = (call["model"] for call in emulator.calls())
    assert ("sonnet" in called, "haiku" in put) == (True, True)
    assert (mine.tags, other.tags) == ({"app": "support"}, {"evaluation": NAME})  # nothing of the caller's
    assert (other.model, other.session, other.tokens.input) == (HAIKU, "", 2_000)
    assert copy.id == other.gateway_id
    assert (copy.prompt, copy.called_prompt, copy.status) == (2_000, 2_000, "")
    assert copy.picos == 2_000 * 1_100_000 + copy.output * 5_500_000 == copy.alike_picos
    assert copy.called_picos == 2_000 * 3_300_000 + copy.called_output * 16_500_000
    assert copy.called_score == 1.0
    assert {copy.stop, copy.called_stop} <= {"end_turn", "max_tokens"}
    assert b"lorem" not in copies_path(line.policy).read_bytes()
    ledger = tmp_path / "ledger"
    told(capsys, "import", str(tmp_path / "outbox"), "--ledger", str(ledger))
    rows = json.loads(told(capsys, "by", "tag:evaluation", "--ledger", str(ledger), "--json")[1])["rows"]
    assert {row["tag:evaluation"]: from_usd(row["usd"]) for row in rows}[NAME] == copy.picos
    assert [row["calls"] for row in rows] == [1, 1]
    named = ("--policy", str(line.policy), "--ledger", str(ledger))
    report = json.loads(told(capsys, "savings", "report", *named, "--json")[1])
    assert from_usd(report["evaluation_usd"]) == copy.picos  # no part of what levers saved


def told(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def test_the_verdict_of_the_gate_is_put_to_the_entry(made, tmp_path, capsys):
    with upstream(answers({False: "yes", True: "yes"})) as up:
        line = made(shadow(), up.url, grade=pair_grader("exact", ""))
        assert line.ask(turn("a question"))[0] == 200
        (copy,) = line.copied(1)
    for n in range(99):
        Copies(copies_path(line.policy)).done(copy._replace(id=f"copy {n}"))
    named = ("--policy", str(line.policy))
    verdict = tmp_path / "verdict.json"
    code, out, _ = told(
        capsys, "policy", "shadow", NAME, *named, "--out", str(verdict), "--margin", "0.1", "--json"
    )
    (found,) = json.loads(out)["entries"]
    assert (code, found["copies"], found["compared"]["length"]) == (0, 100, [300, 300])
    assert found["stops"] == [{"end_turn": 100}] * 2
    assert found["verdict"]["verdict"] == "not inferior"
    assert told(capsys, "policy", "attach", NAME, str(verdict), *named, "--by", "Ada")[0] == 0
    (now,) = load(line.policy).entries
    assert now.verdict.endswith("not inferior but for 0.1 on 100 pairs")
    assert now.state == "shadow"
    shown = told(capsys, "policy", "shadow", *named)[1]
    assert "100 calls of claude-sonnet-4-6 put to claude-haiku-4-5, too" in shown
    verdict.write_text(json.dumps({**found["verdict"], "verdict": "inferior"}))
    assert told(capsys, "policy", "attach", NAME, str(verdict), *named)[0] == 2
    verdict.write_text(json.dumps({**found["verdict"], "to": "claude-opus-4-8"}))
    assert told(capsys, "policy", "attach", NAME, str(verdict), *named)[0] == 2


def test_a_model_that_answers_otherwise_is_found_out(made):
    with upstream(answers({False: "yes", True: "no"})) as up:
        line = made(shadow(), up.url, grade=pair_grader("exact", ""))
        assert b'"yes"' in line.ask(turn("question"))[1]
        (copy,) = line.copied(1)
    assert (copy.called_score, copy.score) == (1.0, 0.0)


def test_no_more_is_spent_than_the_budget(made):
    """A copy is not sent where all that it may cost would not be left."""
    copies: list[Copied] = []
    with emulating() as emulator:
        line = made(shadow(budget="0.01"), emulator.url)
        for n in range(12):
            line.ask(turn(words(1_000, f"{n}")))
            line.clock.now_us += 3_601 * SECOND  # what is spent up is looked at again after an hour
            copies = line.copied(min(n, 1))
        spent = sum(
            call["tokens"]["input"] * 1_100_000 for call in emulator.calls() if "haiku" in call["model"]
        )
    assert 0 < spent < sum(row.picos or 0 for row in copies) <= from_usd("0.01")
    assert len(copies) < 12


def test_copies_are_rare_as_they_are_told_to_be(made):
    with upstream(answers({False: "yes", True: "yes"})) as up:
        line = made(shadow(per_minute=6), up.url)
        for n in range(30):
            line.ask(turn(f"question {n}"))
            line.copied(1 + n // 10)
        assert len(line.copied(3)) == 3


def test_a_copy_that_fails_is_nothing_to_the_caller(made):
    def answer(asked):
        if "haiku" in asked.line:
            return [reply(b'{"message":"no"}', "403 Forbidden")]
        return [reply(message())]

    with upstream(answer) as up:
        line = made(shadow(), up.url)
        statuses, copies = [], list[Copied]()
        for n in range(6):
            statuses.append(line.ask(turn(f"question {n}"))[0])
            copies = line.copied(min(n + 1, 3))
    assert statuses == [200] * 6
    assert [row.status for row in copies] == ["http_403"] * 3  # and then none for an hour
    assert sum(row.picos or 0 for row in copies) == 0


def test_what_is_not_in_shadow_is_not_copied(made):
    with upstream(answers({False: "yes", True: "yes"})) as up:
        line = made(shadow(), up.url)
        line.ask(turn("whose?"), headers={"Content-Type": "application/json"})
        line.policy.write_text(shadow().replace('state = "shadow"', 'state = "off"'))
        line.ask(turn("off"))
        line.policy.write_text(shadow())
        line.ask(turn("now"))
        line.copied(1)
    assert ["haiku" in asked.line for asked in up.asked] == [False, False, False, True]


@pytest.mark.parametrize("action", ["converse", "converse-stream", "invoke-with-response-stream"])
def test_every_way_to_ask_is_copied_in_kind(made, action):
    with emulating() as emulator:
        line = made(shadow(), emulator.url, grade=pair_grader("exact", ""))
        if action.startswith("converse"):
            messages = [{"role": "user", "content": [{"text": words(500)}]}]
            body = json.dumps({"messages": messages, "requestMetadata": {"app": "support"}}).encode()
        else:
            body = turn(words(500))
        assert line.ask(body, action)[0] == 200
        (copy,) = line.copied(1)
    assert (copy.status, copy.prompt, copy.called_prompt) == ("", 500, 500)
    assert copy.length > 0
    assert "" not in (copy.stop, copy.called_stop)
    assert copy.score is not None


def test_a_grade_by_a_command(tmp_path):
    script = tmp_path / "grade.py"
    says = "print(float(said['answer'] in said['messages'][0]['content']))"
    script.write_text(f"import json, sys\nsaid = json.load(sys.stdin)\n{says}\n")
    grade = pair_grader("", f"python3 {script}")
    asked = {"id": "1", "system": "", "messages": [{"role": "user", "content": "yes or no?"}]}
    assert grade
    assert grade(asked, "yes", "perhaps") == (1.0, 0.0)


# --- what an answer said ---------------------------------------------------------------------------------------------


def test_texts_of_streams_are_put_together():
    parts = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "he"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    ]
    raw = [msgspec.json.encode(part) for part in parts]
    assert said("text/event-stream", b"".join(event("x", each) for each in raw)) == Said("hello", "end_turn")
    frames = [
        encode({":event-type": "chunk"}, json.dumps({"bytes": b64encode(each).decode()}).encode())
        for each in raw
    ]
    assert said("application/vnd.amazon.eventstream", b"".join(frames)) == Said("hello", "end_turn")
    assert said("application/json", b'{"output": {"mess') is None


# --- one budget for all processes ------------------------------------------------------------------------------------


def test_a_copy_that_nobody_came_back_from_counts_as_all_it_may_have_cost(tmp_path):
    store = Copies(tmp_path / "copies.db")
    assert store.hold(Copied("1", "e", "m", 1, 60), 100)
    assert not store.hold(Copied("2", "e", "m", 2, 60), 100)
    store.done(Copied("1", "e", "m", 1, 60, picos=10))
    assert store.hold(Copied("3", "e", "m", 3, 60), 100)
    assert store.hold(Copied("4", "another", "m", 3, 60), 100)
    with closing(sqlite3.connect(tmp_path / "copies.db")) as db:
        assert db.execute("SELECT count(*) FROM copies").fetchone() == (3,)
