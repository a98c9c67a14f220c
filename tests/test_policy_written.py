"""The policy file written: in one step, with what people wrote left alone; every version kept, undone at once."""

import hashlib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.cli import main
from farthing.config import Config, Workload
from farthing.ledger import Ledger
from farthing.policy import (
    APPLIED,
    Marker,
    PolicyError,
    Shadow,
    adopt,
    decide,
    history_of,
    load,
    periods,
    reload,
    undo,
    versions,
    write,
)
from farthing.policy._file import sign
from farthing.usage import EPOCH, Facts, Usage
from tests.policies import CALL, CONFIG, DAY, GLOBAL, GOOD, NOW, advice, put

BOOK = default_book()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "farthing-policy.toml"


# --- advice into the file --------------------------------------------------------------------------------------------


def test_advice_that_counts_becomes_entries_with_what_they_rest_on(path):
    cached = {"policy": "system_end_1h", "system_ttl": "1h", "end_ttl": "1h", "was": "none"}
    done, skipped = put(
        path, advice(), advice("cache_markers", cached, "cache"), advice("settings", {}, "cache"),
        advice("batch", {"deadline": "6h"}, "channel", counts=False), share=10, reason="ticket 7",
    )  # fmt: skip
    assert done.version == 1
    assert [(each.name, each.why) for each in skipped] == [
        (
            "support/claude-sonnet-4-6/cache",
            "no policy does that, it is done by hand: call the global profile",
        ),
        ("support/claude-sonnet-4-6/channel", "its owner does not allow it"),
    ]
    endpoint, cache = load(path).entries
    assert cache.markers == (Marker("system", "1h"), Marker("end", "1h"))
    assert (endpoint.approver, endpoint.approved_at, endpoint.expires) == (
        "Ada",
        "2026-11-23T09:00:00Z",
        "2027-02-01",
    )
    assert (endpoint.share, endpoint.reason, endpoint.book, endpoint.calibration) == (
        10,
        "ticket 7",
        "b00c",
        "1.5",
    )
    assert endpoint.estimate.mid == "2"
    assert endpoint.estimate.of == "20"
    assert len(endpoint.evidence) == 12
    assert load(path).workloads["support"].tags == ("app=support",)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"policy": "system_1h_end_5m", "system_ttl": "1h", "end_ttl": "5m"},
            (Marker("system", "1h"), Marker("end")),
        ),
        ({"policy": "end_5m", "end_ttl": "5m"}, (Marker("end"),)),
        ({"policy": "adaptive_unpinged", "system_ttl": "5m", "end_ttl": "5m"}, "adaptive_unpinged"),
    ],
)
def test_markers_are_written_where_they_always_stand_and_else_the_policy_by_name(path, data, says):
    put(path, advice("cache_markers", data, "cache"))
    (entry,) = load(path).entries
    assert (entry.cache_policy or entry.markers) == says


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            advice("cache_markers", {"policy": "none"}, "cache"),
            "only the client can take its cache points away",
        ),
        (advice("ttl", {"system_ttl": "1h", "end_ttl": "5m"}, "cache"), "live for different times by place"),
        (advice("model", {"to_model": "claude-haiku-4-5"}, "model"), "no verdict of the quality gate"),
        (advice("model", {"to_model": "claude-haiku-4-5"}, "model + cache"), "pay only together"),
        (advice("batch", {"deadline": ""}, "channel"), "deadline '' is no time to wait"),
    ],
)
def test_what_no_policy_can_do_is_left_out_with_the_reason(path, made, why):
    done, (skipped,) = put(path, made)
    assert why in skipped.why
    assert (done.written, path.exists()) == ((), False)


def test_a_tier_goes_with_the_gates_verdict_attached(path, tmp_path):
    gate = tmp_path / "verdict.json"
    gate.write_text("{}")
    config = Config(
        workloads={"support": Workload(tags=("app=support",), models=("claude-haiku-4-5",), gate=str(gate))}
    )
    write(
        [advice("model", {"to_model": "claude-haiku-4-5"}, "model")],
        path,
        "Ada",
        "2027-02-01",
        now=NOW,
        config=config,
    )
    assert load(path).entries[0].verdict.startswith("verdict.json sha256:44136fa355b3")


def test_what_a_person_wrote_stays_and_a_conflict_is_named(path):
    put(path, advice(), advice("batch", {"deadline": "6h"}, "channel"))
    edited = path.read_text().replace('lever = "endpoint"', 'lever = "endpoint"  # Grace: slowly\nshare = 5')
    path.write_text(edited + '\n# by hand\n[[entries]]\nworkload = "other"\nlever = "ttl"\nttl = "1h"\n')
    done, _ = put(path, advice(), advice("batch", {"deadline": "2h"}, "channel"), now=NOW + DAY)
    assert done.written == ("support/claude-sonnet-4-6/batch",)
    assert done.conflicts[0].startswith(
        "support/claude-sonnet-4-6/endpoint was written by hand and stays as it is"
    )
    kept = {entry.name: entry for entry in load(path).entries}
    assert kept["support/claude-sonnet-4-6/endpoint"].share == 5
    assert kept["support/claude-sonnet-4-6/batch"].deadline == "2h"
    assert "# Grace: slowly" in path.read_text()
    assert '# by hand\n[[entries]]\nworkload = "other"' in path.read_text()
    # the edit is a version of its own, so that nothing that was in force is lost
    assert [(version.number, version.policy.version) for version in versions(path)] == [
        (1, 1),
        (2, 1),
        (3, 3),
    ]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text == text.strip()
)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3, unique=True), texts, texts)
def test_whatever_names_and_reasons_hold_the_file_comes_back_as_it_was(
    tmp_path_factory, names, approver, reason
):
    path = tmp_path_factory.mktemp("policy") / "p.toml"
    config = Config(workloads={name: Workload(tags=(f"app=x{n}",)) for n, name in enumerate(names)})
    made = [advice(workload=name) for name in names]
    write(made, path, approver, "2027-02-01", now=NOW, config=config, reason=reason)
    again = load(path)
    assert [(entry.workload, entry.reason, entry.approver) for entry in again.entries] == [
        (name, reason, approver) for name in names
    ]
    assert [*again.workloads] == names
    assert [each.tags for each in again.workloads.values()] == [(f"app=x{n}",) for n in range(len(names))]
    done, _ = write(made, path, approver, "2027-02-01", now=NOW + DAY, config=config, reason=reason)
    assert (len(done.written), done.conflicts) == (len(names), ())


def test_a_dry_run_writes_nothing(path):
    done, _ = put(path, advice(), dry=True)
    assert 'endpoint = "global"' in done.after
    assert not path.exists()
    assert not history_of(path).exists()


def test_an_expiry_that_is_none_or_over_is_refused(path):
    for expires, says in (("soon", "is no time"), ("2026-11-01", "is over already"), ("", "is no time")):
        with pytest.raises(PolicyError, match=says):
            write([advice()], path, "Ada", expires, now=NOW)


def test_a_proposal_does_nothing_until_somebody_adopts_it(path, tmp_path):
    proposal = tmp_path / "proposed.toml"
    write([advice()], proposal, "", "2027-02-01", now=NOW, config=CONFIG)
    assert decide(load(proposal), CALL, NOW)[0].reason == "nobody has approved it"
    done = adopt(proposal, path, approver="Grace", expires="2027-01-01", now=NOW)
    assert done.written == ("workloads.support", "support/claude-sonnet-4-6/endpoint")
    assert decide(load(path), CALL, NOW)[0].outcome == APPLIED
    assert (load(path).by, load(path).entries[0].approver) == ("Grace", "Grace")


# --- undone ----------------------------------------------------------------------------------------------------------


def outcomes(path, now=NOW):
    return {made.lever: made.outcome for made in decide(load(path), CALL, now)}


def test_undo_takes_the_last_writing_back_and_can_be_undone(path):
    put(path, advice())
    put(path, advice("batch", {"deadline": "6h"}, "channel"))
    assert outcomes(path) == {"batch": APPLIED, "endpoint": APPLIED}
    assert undo(path, by="Bob", now=NOW).version == 3
    assert outcomes(path) == {"endpoint": APPLIED}
    assert (load(path).by, load(path).what) == ("Bob", "undo to version 1")
    undo(path, now=NOW)
    assert outcomes(path) == {"batch": APPLIED, "endpoint": APPLIED}
    undo(path, "1", now=NOW)
    assert outcomes(path) == {"endpoint": APPLIED}


def test_the_first_writing_can_be_undone_too(path):
    put(path, advice())
    undo(path, now=NOW)
    assert load(path).entries == ()


@pytest.mark.parametrize("what", ["endpoint", "support", "support/claude-sonnet-4-6/endpoint"])
def test_undo_by_name_switches_off_and_a_later_apply_switches_on(path, what):
    put(path, advice())
    undo(path, what, now=NOW)
    assert outcomes(path) == {}
    put(path, advice(), now=NOW + DAY)
    assert outcomes(path, NOW + DAY) == {"endpoint": APPLIED}


def test_undo_switches_off_what_a_person_wrote_and_leaves_the_rest_of_it(path):
    path.write_text(GOOD.replace("[[entries]]", "[[entries]]  # mine"))
    undo(path, "endpoint", now=NOW)
    assert '[[entries]]  # mine\nstate = "off"\n' in path.read_text()
    assert outcomes(path) == {}
    assert put(path, advice(model=""))[0].conflicts
    undo(path, now=NOW)
    assert outcomes(path) == {"endpoint": APPLIED}


def test_a_broken_file_is_undone_to_the_last_that_was_whole(path):
    put(path, advice())
    path.write_text(path.read_text()[:-30])
    with pytest.raises(PolicyError):
        put(path, advice())
    undo(path, now=NOW)
    assert outcomes(path) == {"endpoint": APPLIED}


def test_nothing_to_undo_is_said_in_one_line(path):
    with pytest.raises(PolicyError, match="no policy there: nothing to undo"):
        undo(path, now=NOW)
    put(path, advice())
    with pytest.raises(
        PolicyError, match="nothing there is called 'cach': it has support/claude-sonnet-4-6/endpoint"
    ):
        undo(path, "cach", now=NOW)
    with pytest.raises(PolicyError, match="no version 7 of it is kept; there are 1"):
        undo(path, "7", now=NOW)


def test_a_layout_that_cannot_be_kept_is_not_touched(path):
    text = 'entries = [{workload = "w", lever = "ttl", ttl = "1h"}]\n'
    path.write_text(text)
    with pytest.raises(PolicyError, match=r"write each entry under \[\[entries\]\]"):
        put(path, advice())
    assert path.read_text() == text


# --- when it was in force --------------------------------------------------------------------------------------------


def test_spans_are_from_adoption_to_undo_and_from_adoption_again(path):
    put(path, advice(), now=NOW)
    undo(path, "endpoint", now=NOW + DAY)
    put(path, advice(), now=NOW + 3 * DAY)
    (found,) = periods(path, NOW + 5 * DAY)
    assert found.spans == ((NOW, NOW + DAY), (NOW + 3 * DAY, NOW + 5 * DAY))
    assert periods(path, NOW + 500 * DAY)[0].spans[1][1] == datetime(2027, 2, 1, tzinfo=UTC)


def test_another_change_under_the_same_name_begins_anew(path):
    put(path, advice("batch", {"deadline": "6h"}, "channel"))
    put(path, advice("batch", {"deadline": "2h"}, "channel"), now=NOW + DAY)
    (found,) = periods(path, NOW + 2 * DAY)
    assert found.spans == ((NOW + DAY, NOW + 2 * DAY),)


def test_a_file_by_hand_is_in_force_from_its_approval(path):
    path.write_text(GOOD)
    assert periods(path, NOW)[0].spans == ((datetime(2026, 11, 20, tzinfo=UTC), NOW),)
    assert periods(path, NOW - 30 * DAY)[0].spans == ()


# --- several writers, and dead ones ----------------------------------------------------------------------------------


def test_writers_at_once_lose_nothing_and_readers_see_whole_files(path):
    done = threading.Event()
    faults: list[str] = []

    def read():
        held = reload(path, BOOK)
        while not done.is_set():
            held = reload(path, BOOK, held)
            faults.extend(filter(None, [held.fault]))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put(path, advice(workload=f"w{n}")), range(12)))
    done.set()
    reader.join()
    assert faults == []
    assert {entry.workload for entry in load(path).entries} == {f"w{n}" for n in range(12)}
    assert [version.number for version in versions(path)] == list(range(1, 13))
    assert [found.name for found in path.parent.iterdir() if found.name.startswith(".")] == []


WRITER = """
import sys
from datetime import UTC, datetime, timedelta
from farthing.policy import undo
while True:
    undo(sys.argv[1], now=datetime(2026, 11, 23, tzinfo=UTC))
"""


def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(path):
    put(path, advice())
    for round_ in range(
        4
    ):  # killed as soon as a version is in the history: about when it takes the file's place
        last = len(versions(path))
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            while not (history_of(path) / f"{last + 2 + round_:06d}.toml").exists():
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
        load(path)
        put(path, advice(workload=f"after {round_}"))
        assert f"after {round_}" in {entry.workload for entry in load(path).entries}
        assert not [version for version in versions(path) if version.fault]


# --- commands --------------------------------------------------------------------------------------------------------


def run(capsys, *argv):
    with pytest.raises(SystemExit) as done:
        main([str(each) for each in argv])
    out, err = capsys.readouterr()
    return done.value.code, out, err


def test_commands_show_check_adopt_and_undo(path, tmp_path, capsys):
    assert run(capsys, "policy", "check", path)[0] == 2
    proposal = tmp_path / "proposed.toml"
    write([advice()], proposal, "", "", now=NOW, config=CONFIG)
    code, out, _ = run(
        capsys,
        "policy",
        "adopt",
        proposal,
        "--approver",
        "Grace",
        "--expires",
        "2999-01-01",
        "--policy",
        path,
    )
    assert (code, "version 1" in out) == (0, True)
    code, out, _ = run(capsys, "policy", "check", path)
    assert (code, "1 entries, 1 of them in force" in out) == (0, True)
    code, out, _ = run(capsys, "savings", "undo", "endpoint", "--policy", path, "--by", "Bob")
    assert (code, "version 2" in out) == (0, True)
    assert run(capsys, "savings", "undo", "endpoint", "--policy", path)[0] == 1
    code, out, _ = run(capsys, "policy", "show", "--policy", path)
    assert "support/claude-sonnet-4-6/endpoint: the global endpoint; off" in out
    assert "Bob           undo endpoint" in out
    code, out, err = run(capsys, "savings", "undo", "nothing", "--policy", path)
    assert (code, err.count("\n")) == (2, 1)


def test_savings_applies_and_proposes_what_counts(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = Facts("bedrock_log", "bedrock", CALL.model_id, region="eu-west-1")
    at_us = (NOW - DAY - EPOCH) // timedelta(microseconds=1)
    Ledger("ledger").append(
        [
            Usage(at_us + n, f"r{n}", "", ((facts, (10_000, 500, 0, 0, 0)),), (("app", "support"),))
            for n in range(20)
        ]
    )
    (tmp_path / "farthing.toml").write_text(
        'ledger = "ledger"\n[workloads.support]\ntags = ["app=support"]\nallow = ["*"]\n'
    )
    code, _, err = run(capsys, "savings", "--apply")
    assert (code, err) == (2, "farthing: --apply wants --approver NAME: who answers for it\n")
    assert run(capsys, "savings", "--apply", "--approver", "Ada", "--propose")[0] == 2
    code, _, err = run(capsys, "savings", "--propose")
    assert "farthing policy adopt farthing-policy.proposed.toml" in err
    assert (code, (tmp_path / "farthing-policy.toml").exists()) == (0, False)
    code, out, err = run(
        capsys, "savings", "--apply", "--approver", "Ada", "--share", "10", "--shadow", "--json"
    )
    assert code == 0
    assert '"levers"' in out
    (entry,) = load("farthing-policy.toml").entries
    assert (entry.name, entry.share, entry.state) == ("support/claude-sonnet-4-6/endpoint", 10, "shadow")
    assert entry.estimate.mid == "0.075"
    assert entry.estimate.of == "0.825"


def test_keys_that_came_later_leave_the_sign_of_older_entries_as_it_was():
    """Else all that farthing has ever written would be a person's after an update."""
    said = msgspec.to_builtins(GLOBAL)
    del said["shadow"]
    assert sign(GLOBAL) == hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:12]
    shadowed = msgspec.structs.replace(GLOBAL, shadow=Shadow(5, "1"))
    assert sign(shadowed) != sign(GLOBAL)
