"""`farthing mcp`, asked by the real client over stdio: the answers of the commands, and nothing else."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from farthing import cli
from farthing.ledger import Ledger
from farthing.usage import EPOCH, Facts, Usage

pytest.importorskip("mcp", reason="no mcp package: pip install 'farthing[mcp]'")

from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters

ACCOUNT = "111122223333"
SONNET, OPUS = "eu.anthropic.claude-sonnet-4-6", "global.anthropic.claude-opus-4-8"
SETTINGS = (
    'timezone = "Europe/Berlin"\n[teams.search]\ntags = ["team=search"]\n[teams.chat]\ntags = ["team=chat"]\n'
)


def calls(month: int, model: str, team: str, each: int) -> Iterator[Usage]:
    for n in range(each):
        at = datetime(2026, month, 3, tzinfo=UTC) + timedelta(hours=n)
        facts = Facts("bedrock_log", "bedrock", model, region="eu-west-1", account=ACCOUNT)
        tokens = (20_001, 4_003, 100_007, 1_009, 0)
        name = f"{model}-{team}-{at}"
        yield Usage(
            (at - EPOCH) // timedelta(microseconds=1), name, "", ((facts, tokens),), (("team", team),)
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A ledger of two teams and two months, and its settings."""
    folder = tmp_path_factory.mktemp("mcp")
    usages = [*calls(9, SONNET, "search", 20), *calls(10, SONNET, "search", 30), *calls(10, OPUS, "chat", 10)]
    Ledger(folder / "ledger").append([*usages, *calls(10, "anthropic.claude-nobody-knows", "chat", 3)])
    (folder / "farthing.toml").write_text(SETTINGS)
    return folder


def content(folder) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def options(place) -> list[str]:
    return [f"--ledger={place / 'ledger'}", f"--config={place / 'farthing.toml'}"]


@pytest.fixture(scope="module")
def portal():
    with start_blocking_portal() as running:
        yield running


@pytest.fixture(scope="module", params=["", "search"], ids=["everyone", "a team"])
def served(request, place, portal):
    """The team whose server it is, and a client of it."""
    words = [
        "-m",
        "farthing",
        "mcp",
        *options(place),
        *([f"--team={request.param}"] if request.param else []),
    ]
    environment = {"HOME": str(place), "PATH": os.environ["PATH"]}
    program = StdioServerParameters(command=sys.executable, args=words, env=environment, cwd=str(place))
    with portal.wrap_async_context_manager(Client(program)) as client:
        yield request.param, client


@pytest.fixture
def ask(served, portal):
    """ask(tool, **arguments): whether it is an error, and what was answered."""

    def asked(tool, **arguments):
        answer = portal.call(served[1].call_tool, tool, arguments)
        text = answer.content[0].text
        if not answer.is_error:
            assert json.loads(text) == answer.structured_content
        return answer.is_error, text if answer.is_error else answer.structured_content

    return asked


@pytest.fixture
def command(place, capsys):
    """command(*words): the JSON that it prints, of what this team may see."""

    def run(*words):
        with pytest.raises(SystemExit):
            cli.main([*words, "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def test_tools_are_described_and_read_only(served, portal):
    tools = portal.call(served[1].list_tools).tools
    assert {tool.name for tool in tools} == {"bill", "by", "why", "savings", "estimate", "rate", "prices"}
    for tool in tools:
        assert tool.description
        assert tool.annotations.read_only_hint
        assert not tool.annotations.open_world_hint
        assert tool.input_schema["additionalProperties"] is False
        for name, argument in tool.input_schema["properties"].items():
            assert argument.get("type") or argument.get("anyOf"), (tool.name, name)
            assert argument.get("description") or argument.get("minimum") == 0, (tool.name, name)
        assert not tool.input_schema["properties"].keys() & {"ledger", "config", "book", "profiles", "apply"}


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("bill", {"since": "2026-10-01"}, ["bill", "--since=2026-10-01"]),
        ("by", {"keys": ["model", "tag:team"]}, ["by", "model,tag:team"]),
        ("why", {"earlier": "2026-09", "later": "2026-10"}, ["why", "--from", "2026-09", "--to", "2026-10"]),
        ("savings", {"where": [f"account={ACCOUNT}"]}, ["savings"]),
    ],
)
def test_a_tool_answers_what_its_command_prints(served, place, ask, command, tool, arguments, words):
    """To the picodollar and of the team's calls alone; the ledger stays as it is, byte for byte."""
    team, _ = served
    before = content(place)
    error, answer = ask(tool, **arguments)
    assert not error, answer
    assert content(place) == before
    expected = command(*words, *options(place), *([f"--where=team={team}"] if team else []))
    if team and "footer" in expected:
        expected["footer"] = {
            name: value
            for name, value in expected["footer"].items()
            if name not in ("read", "rejected", "rejected_reasons")
        }
    assert answer == expected
    if "footer" in answer:
        assert Decimal(answer["footer"]["usd"]) > 0
        assert answer["footer"]["unpriced"] == (0 if team else 3)
        assert answer["footer"]["tz"] == "Europe/Berlin"
    assert ("chat" in json.dumps(answer)) is (not team and tool == "by")


def test_a_filter_does_not_lead_out_of_the_team(served, ask):
    team, _ = served
    error, answer = ask("by", keys=["team"], where=["team=chat,search"])
    assert not error
    assert {row["team"] for row in answer["rows"]} == ({"search"} if team else {"search", "chat"})


def test_tools_that_need_no_ledger(ask, command):
    error, answer = ask("rate", model=SONNET, input=1_000, cache_write_1h=7, at="2026-10-03")
    assert (error, answer["picodollars"]) == (False, 1_000 * 3_300_000 + 7 * 6_600_000)
    assert answer["cost_usd"] == "0.0033462"
    work = {"requests": 1000, "input_tokens": 5000, "output_tokens": 300, "deadline_hours": 24}
    error, answer = ask("estimate", **work, limit=5)
    assert not error
    assert len(answer["scenarios"]) == 5
    assert answer["rows_left_out"]["scenarios"] > 5
    words = ["--requests=1000", "--input-tokens=5000", "--output-tokens=300", "--deadline=24"]
    assert answer["cheapest_monthly_usd"] == command("estimate", *words)["cheapest_monthly_usd"]
    assert ask("prices", model="claude-opus-4-8", at="2026-10-01")[1] == command(
        "prices", "show", "claude-opus-4-8", "--at", "2026-10-01"
    )


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("bill", {"since": "yesterday"}, "--since 'yesterday' is no day: write 2026-11-22"),
        ("by", {"keys": ["moon"]}, "cannot group by 'moon'"),
        ("by", {"keys": ["--ledger=/elsewhere"]}, "cannot group by '--ledger=/elsewhere'"),
        ("bill", {"where": ["--help"]}, "cannot filter by '--help'"),
        ("why", {"earlier": "2026-13", "later": "2026-10"}, "--from '2026-13'"),
        ("rate", {"model": "gpt-4", "platform": "moon"}, "Invalid value"),
        ("rate", {"model": "x", "input": -1}, "input: Input should be greater than or equal to 0"),
        ("rate", {}, "model: Field required"),
        ("bill", {"model": "claude-opus-4-8"}, "model: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(ask, tool, arguments, says):
    error, text = ask(tool, **arguments)
    assert error
    assert text.startswith(says)
    assert len(text.splitlines()) == 1


def test_no_price_is_an_answer_and_not_nothing(ask):
    error, answer = ask("rate", model="anthropic.claude-nobody-knows", input=1)
    assert not error
    assert answer.keys() == {"unpriced"}
