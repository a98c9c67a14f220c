"""What a person at a terminal of 80 columns sees: nothing is wider, nothing is cut, colours only where there are some.

Names are the worst that logs can hold: long, wide, of other scripts, with escape sequences; counts are a trillion
tokens and a single one.
"""

import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from farthing import cli
from farthing.cli._showcase import bill_of
from farthing.ledger import Ledger
from farthing.reports import REPORTS
from farthing.usage import EPOCH, Facts, Usage
from tools import docs

WIDTH = 80
ROLE = "arn:aws:sts::{}:assumed-role/{}/{}"
TEAMS = (
    "support",
    "the-team-of-the-people-who-look-after-everything-that-nobody-else-looks-after-in-the-northern-region",
    "検索とおすすめの基盤を作るチーム",
    "\x1b[31mred\x1b]0;title\x07 \u202e[bold]team[/bold]",
)
MODELS = (
    "global.anthropic.claude-sonnet-4-6",
    "eu.anthropic.claude-opus-4-8",
    "anthropic.claude-nobody-knows-9-v1:0",
)
COUNTS = ((1, 1, 0, 0, 0), (10**12, 10**11, 3 * 10**12, 10**10, 10**9), (5_000, 900, 40_000, 2_000, 100))
CONFIG = """
ledger = "ledger"
[[residency]]
allow = ["geo:us"]
[[budgets]]
name = "the budget of everything that everybody does at any time in the northern region, by month"
usd = 0.01
[[budgets]]
name = "held"
usd = 1
hold = "soft"
each = "key"
[workloads.the-workload-of-the-people-who-look-after-everything]
owner = "Grace"
tags = ["team=support"]
allow = ["global"]
cache = true
[journal]
debit = "6100"
credit = "2100"
"""
COMMANDS = {  # beside the reports, which are all there
    "allocate": "allocate --month 2026-10",
    "audit": "audit",
    "budget list": "budget list",
    "close": "close 2026-10 --accrue --again --reason wider",
    "closings list": "closings list",
    "closings show": "closings show 2026-10 --by team,kind",
    "contract": "contract --contract offers.toml",
    "count": "count farthing.toml",
    "doctor": "doctor --offline",
    "estimate": "estimate --requests 1000000000 --input-tokens 5000 --output-tokens 300",
    "faults": "faults --statement cur.csv",
    "gateway key list": "gateway key list",
    "ledger info": "ledger info",
    "ledger verify": "ledger verify",
    "migrate": "migrate --from claude-opus-4-8",
    "platform compare": "platform compare",
    "platform runtime": "platform runtime",
    "prices at-risk": "prices at-risk",
    "prices diff": "prices diff shipped shipped",
    "prices history": "prices history claude-sonnet-5-5",
    "prices list": "prices list --model claude-opus-5",
    "prices show": "prices show eu.anthropic.claude-haiku-5-5",
    "rate": "rate eu.anthropic.claude-opus-5-5 --input 12000 --output 800 --explain",
    "reconcile": "reconcile --statement cur.csv --month 2026-10",
    "savings": "savings",
    "statement": "statement cur.csv",
    "statement by": "statement cur.csv --by account,model",
    "team-statements": "team-statements --month 2026-10",
    "why": "why --from 2026-10-01..2026-10-05 --to 2026-10-06..2026-10-10",
}
OFFER = """
[[offers]]
name = "The offer of everything to everybody, with a very long name of its own"
signed = 2026-08-20
starts = 2026-09-01
[[offers.rates]]
percent_off = "5"
"""


def usages() -> list[Usage]:
    found = []
    for n in range(96):
        team, model, counts = TEAMS[n % 4], MODELS[n % 3], COUNTS[n % 3]
        account = ("111122223333", "444455556666")[n % 2]
        who = ROLE.format(
            account, "a-role-with-a-name-as-long-as-iam-lets-it-be-which-is-64", f"{team[:40]}-{n % 5}"
        )
        facts = Facts(
            "bedrock_log",
            "bedrock",
            model,
            region="us-east-1",
            account=account,
            principal=who,
            session=f"s-{n % 6}" * 12,
        )
        at = datetime(2026, 10, 1 + n % 10, n % 24, tzinfo=UTC)
        found.append(
            Usage(
                (at - EPOCH) // timedelta(microseconds=1), f"r-{n}", "", ((facts, counts),), (("team", team),)
            )
        )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    Ledger(place / "ledger").append(usages())
    (place / "farthing.toml").write_text(CONFIG)
    (place / "offers.toml").write_text(OFFER)
    (place / "cur.csv").write_bytes(bill_of(Ledger(place / "ledger")))
    ended = subprocess.run(
        [sys.executable, "-m", "farthing", "close", "2026-10", "--accrue"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode in (0, 1), ended.stderr
    return place


@pytest.fixture
def terminal(folder, monkeypatch):
    """terminal(*words): exit code and text of a command at a terminal."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        read: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(master, read))
        reader.start()
        with os.fdopen(slave, "w", encoding="utf-8") as screen, monkeypatch.context() as on:
            on.setattr(sys, "stdout", screen)
            on.setattr(sys, "__stdout__", screen)
            with pytest.raises(SystemExit) as ended:
                cli.main(words)
        reader.join()
        return int(str(ended.value.code or 0)), b"".join(read).decode().replace("\r\n", "\n")

    return run


def _drain(master: int, read: list[bytes]) -> None:
    """All that is written, until the last writer is gone."""
    while True:
        try:
            data = os.read(master, 65_536)
        except OSError:
            break
        if not data:
            break
        read.append(data)
    os.close(master)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("name", [*REPORTS, *COMMANDS])
def test_nothing_is_wider_than_the_terminal(name, terminal):
    words = COMMANDS[name].split() if name in COMMANDS else [name]
    words += ["tag:team,principal"] if name == "by" else []
    code, text = terminal(*words)
    assert code in (0, 1), text
    wide = [line for line in plain(text).split("\n") if cell_len(line.rstrip()) > WIDTH]
    assert not wide, "\n".join(wide)
    assert "\x1b]" not in text, "an escape sequence of a name reached the terminal"
    assert "\x1b[31mred" not in text
    assert "\u202e" not in text, "a name turned round what stands beside it"


def test_colours_are_for_terminals_and_may_be_refused(terminal, monkeypatch, capsys):
    assert "\x1b[" in terminal("bill")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    said = terminal("bill")[1]
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", said)
    monkeypatch.delenv("NO_COLOR")
    with pytest.raises(SystemExit):
        cli.main(["bill"])
    assert "\x1b" not in capsys.readouterr().out


def test_numbers_are_whole_and_stand_below_each_other(terminal):
    """The widest ones: 32,888,000,384,016 tokens a team, and their sum."""
    text = plain(terminal("by", "tag:team")[1])
    rows = [line.rstrip() for line in text.split("\n")]
    ends = {cell_len(line) for line in rows if re.search(r"\$[\d,.]+$", line)}
    assert len(ends) == 1, text
    assert text.count("32,888,000,384,016") == 4
    assert "131,552,001,536,064" in text


# Commands whose answer is text by nature: what they write is a file, a server's line, or what they changed.
WITHOUT_JSON = {
    "profiles",  # its answer is a JSON file
    "batch collect", "batch run", "completion", "export alerts", "export grafana", "export prometheus", "man", "mcp",
    "report", "statusline",
    "batch", "budget", "cache", "closings", "demo", "emulate", "evaluate", "export", "export focus", "export journal",
    "gateway", "gateway key", "gateway key add", "gateway key revoke", "gateway key rotate", "init", "ledger",
    "platform", "policy", "policy adopt", "prices", "savings undo", "send", "setup", "setup aws", "watch", "web",
    "web key", "web key add", "web key revoke",
}  # fmt: skip


def test_every_answer_is_there_for_programs():
    """`--json` on every command that answers, `--csv` on every report."""
    lacking = {name for name in docs.commands() if "--json" not in docs.options(name)}
    assert lacking <= WITHOUT_JSON, lacking - WITHOUT_JSON
    assert {name for name in REPORTS if "--csv" not in docs.options(name)} == set()


def test_what_has_json_has_its_rows_as_csv(monkeypatch, capsys):
    def printed(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        return out

    listed = json.loads(printed("prices", "list", "--json"))["rows"]
    rows = list(csv.DictReader(io.StringIO(printed("prices", "list", "--csv"))))
    assert [row["model"] for row in rows] == [row["model"] for row in listed]
    asked = ("rate", "claude-opus-5", "--input", "5", "--at", "2026-11-01")
    (one,) = csv.DictReader(io.StringIO(printed(*asked, "--csv")))
    assert one["cost_usd"] == json.loads(printed(*asked, "--json"))["cost_usd"]
    line = '{"model": "claude-opus-5", "at": "2026-11-01T00:00:00Z", "usage": {"input": 5}}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line.encode() * 2)))
    first, second = csv.DictReader(io.StringIO(printed("rate", "--csv")))
    assert first == second


def test_what_has_no_json_has_no_csv(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["man", "--csv"])
    assert (ended.value.code, capsys.readouterr().err) == (2, "farthing: Unknown option: --csv.\n")


def test_long_work_has_a_bar_with_rate_and_time_left(terminal, monkeypatch):
    """On stderr, where a person is looking; 5 MB read in a tenth of the whole."""
    from farthing.cli import _shared

    said = io.StringIO()
    monkeypatch.setattr(said, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", said)
    with _shared.progress("reading") as advance:
        assert advance
        for done in (0, 5 * 10**6, 10**7):
            advance(done, 10**8)
    assert "10 %" in plain(said.getvalue())
    assert "MB/s" in said.getvalue()
