"""What each team is told of its month, in every form, and that it gets there by mail, once."""

import csv
import io
import json
import os
import re
import socket
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes, policy
from fractions import Fraction
from html.parser import HTMLParser

import pytest

from farthing import aws
from farthing.allocate import Exchange, Record, allocate, team_statement, to_csv, to_html, to_json, to_text
from farthing.cells import Question
from farthing.cli import main
from farthing.cli._sharing import changes
from farthing.config import Config, Pool, Team
from farthing.fx import Rates
from farthing.ledger import Ledger
from farthing.usage import EPOCH, Facts, Usage

OCTOBER = (date(2026, 10, 1), date(2026, 10, 31))
MODEL = "global.anthropic.claude-opus-5"  # $5 and $25 a million; reads $0.50, 5-minute writes $6.25
PERSON = "arn:aws:sts::111122223333:assumed-role/dev/ada@example.com"
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


def call(number, team, tokens, month=10, day=1, model=MODEL) -> Usage:
    at = datetime(2026, month, day, 12, tzinfo=UTC) - EPOCH
    facts = Facts("bedrock_log", "bedrock", model, "", "us-east-1", "111122223333", PERSON, session="s-ada")
    tags = (("team", team),) if team else ()
    return Usage(at // timedelta(microseconds=1), f"r{number}", "", ((facts, tokens),), tags)


CALLS = (
    call(0, "search", (1_000_000, 0, 0, 0, 0), month=9),  # $5
    call(1, "search", (1_000_000, 100_000, 4_000_000, 400_000, 0)),  # 5 + 2.5 + 2 + 2.5 = $12
    call(2, "search", (200_000, 0, 0, 0, 0), day=3, model="anthropic.claude-opus-5"),  # $1.10 at a region
    call(3, "search", (77, 7, 0, 0, 0), model="anthropic.claude-unheard-of"),
    call(4, "ads", (600_000, 0, 0, 0, 0)),  # $3
    call(5, "", (400_000, 0, 0, 0, 0)),  # $2
)
TEAMS = {
    "search": Team(owner="Grace", email="search@example.com", cost_centre="4711", tags=("team=search",)),
    "ads": Team(email="ads@example.com, boss@example.com", tags=("team=ads",)),
    "idle": Team(tags=("team=idle",)),
}
POOL = Pool(name="unclaimed", where=("team=unassigned",), split="fixed", shares={"search": 3, "ads": 1})
CONFIG = Config(teams=TEAMS, pools=(POOL,))


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "ledger")
    made.append(CALLS)
    return made


def statement(ledger, team="search", config=CONFIG, exchange=None, version=""):
    asked = Question(*OCTOBER, config=config)
    made = allocate(ledger, asked, None, exchange)
    return team_statement(made, asked, team, version=version, moved=changes(ledger, asked).get(team))


def usd(picos: int) -> Decimal:
    return Decimal(picos).scaleb(-12)


def test_what_a_team_bears_and_why(ledger):
    made = statement(ledger)
    assert usd(made.money.picos) == Decimal("14.6")
    assert [(part.name, usd(part.money.picos), usd(part.whole.picos)) for part in made.parts] == [
        ("direct", Decimal("13.1"), Decimal("16.1")),
        ("unclaimed", Decimal("1.5"), Decimal(2)),
    ]
    assert [(model.name, model.calls, usd(model.money.picos)) for model in made.models] == [
        ("claude-opus-5", 2, Decimal("13.1")),
        ("anthropic.claude-unheard-of", 1, Decimal(0)),
    ]
    assert [(day, usd(money.picos)) for day, money in made.days] == [
        ("2026-10-01", Decimal(12)),
        ("2026-10-03", Decimal("1.1")),
    ]


def test_what_was_avoided_is_list_without_a_cache_less_what_it_cost(ledger):
    """4.4 million cached tokens would have cost $22 as input; read and written they cost $4.50."""
    made = statement(ledger)
    ((label, money),) = made.avoided
    assert "caching" in label
    assert usd(money.picos) == Decimal("17.5")
    assert sum(money.picos for _, money in made.layers[:-1]) == made.layers[-1][1].picos
    assert usd(made.layers[-1][1].picos) == Decimal("13.1")


def test_the_change_is_explained_and_sums(ledger):
    moved = statement(ledger).moved
    assert moved
    assert (usd(moved.before), usd(moved.after)) == (Decimal(5), Decimal("13.1"))
    assert sum(picos for _, picos in moved.steps) == moved.after - moved.before
    assert "volume" in dict(moved.steps)
    assert statement(ledger, "ads").moved is None  # it had no calls then


def test_calls_without_a_price_are_told_and_in_no_amount(ledger):
    (note,) = [note for note in statement(ledger).notes if "no price" in note]
    assert note.startswith("1 calls have no price and are in no amount: ")
    assert "claude-unheard-of" in note


class Page(HTMLParser):
    """The text of a page, and everything by which it could ask for something."""

    def __init__(self, text):
        super().__init__()
        self.words: list[str] = []
        self.asks: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe", "object", "svg", "form", "base"):
            self.asks.append(tag)
        self.asks += [
            f"{name}={value}" for name, value in attrs if name in ("src", "href") or name.startswith("on")
        ]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("version", ["", "2026-10.2"])
def test_every_form_tells_the_same_and_no_people(ledger, version):
    made = statement(ledger, version=version)
    page = Page(to_html(made))
    assert page.open == page.asks == []
    assert not re.search(r"@import|url\(", to_html(made))
    html, text = " ".join(page.words), to_text(made)
    for said in ("search", "October 2026", "$14.60", "$13.10", "$17.50", "4711", "Grace", "unclaimed", "claude-opus-5",
                 "closed (2026-10.2)" if version else "not closed", "no price", "price book"):  # fmt: skip
        assert said in html
        assert said in text
    for form in (to_html(made), text, to_csv([made]), json.dumps(to_json(made))):
        assert "ada" not in form.lower().replace("adapt", "")
        assert "assumed-role" not in form


def test_lines_of_text_fit_and_amounts_stand_in_a_column(ledger):
    lines = to_text(statement(ledger)).splitlines()
    assert max(map(len, lines)) <= 80
    assert {len(line) for line in lines if line.endswith(("$13.10", "$1.50"))} == {78}


def test_the_csv_sums_to_what_the_team_bears(ledger):
    rates = Rates("r.csv", "0", {"EUR": {"2026-10-01": Fraction(9, 10), "2026-10-03": Fraction(8, 10)}})
    made = statement(ledger, exchange=Exchange(rates, "EUR"))
    rows = list(csv.DictReader(io.StringIO(to_csv([made]))))
    assert sum(Decimal(row["usd"]) for row in rows) == Decimal("14.6")
    assert sum(Decimal(row["eur"]) for row in rows) == 12 * Decimal("0.9") + Decimal("1.1") * Decimal(
        "0.8"
    ) + Decimal("1.5") * Decimal("0.9")
    assert {row["part"] for row in rows} == {"direct", "unclaimed"}
    assert "€13.03" in to_text(made)
    assert "€13.03" in to_html(made)
    assert "rates of 2026-10-01 to 2026-10-03" in to_html(made)


def test_a_name_cannot_become_markup_or_a_formula(tmp_path):
    name = "=<script>alert('x')</script>&"
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call(0, name, (1000, 0, 0, 0, 0))])
    made = statement(ledger, name, Config())
    page = Page(to_html(made))
    assert page.asks == []
    assert any(name in words for words in page.words)
    assert next(csv.DictReader(io.StringIO(to_csv([made]))))["team"] == f"'{name}"


# --- commands ------------------------------------------------------------------------------------------------------

FILE = """
ledger = "ledger"
[smtp]
host = "localhost"
port = {port}
security = "none"
sender = "costs@example.com"
[teams.search]
email = "search@example.com"
tags = ["team=search"]
[teams.ads]
email = "ads@example.com, boss@example.com"
tags = ["team=ads"]
[teams.idle]
tags = ["team=idle"]
[[pools]]
name = "unclaimed"
where = ["team=unassigned"]
split = "fixed"
shares = {{ search = 3, ads = 1 }}
"""


@pytest.fixture
def run(ledger, tmp_path, monkeypatch, capsys):
    """A command's exit code, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "farthing.toml").write_text(FILE.format(port=free_port()))

    def command(*argv):
        with pytest.raises(SystemExit) as done:
            main(list(argv))
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return command


def test_a_file_for_each_team_that_bears_something(run, tmp_path):
    code, out, _ = run("team-statements", "--month", "2026-10", "--format", "html", "--out", "pages")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == [
        "2026-10-ads.html",
        "2026-10-search.html",
    ]
    assert "pages/2026-10-search.html: $14.60" in out


def test_statements_on_the_terminal_as_csv_and_as_json(run):
    assert run("team-statements", "--month", "2026-10", "--team", "ads")[1].startswith(
        "ads: Claude on Amazon Bedrock"
    )
    rows = list(csv.DictReader(io.StringIO(run("team-statements", "--month", "2026-10", "--csv")[1])))
    assert sum(Decimal(row["usd"]) for row in rows) == Decimal("18.1")
    said = json.loads(run("team-statements", "--month", "2026-10", "--json")[1])["statements"]
    assert [(one["team"], one["usd"]) for one in said] == [("search", "14.6"), ("ads", "3.5")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--team", "sales"), "--team 'sales': no such team; there are search, ads, idle, unassigned"),
        (("--format", "html"), "name the folder for the pages"),
        (("--where", "team=ads"), "--where"),
        (("--currency", "EUR"), "needs rates"),
        (("--out", "farthing.toml"), "farthing.toml: File exists"),
    ],
)
def test_what_cannot_be_asked(run, options, says):
    code, _, err = run("team-statements", "--month", "2026-10", *options)
    assert code == 2
    assert says in err


def test_a_month_of_nothing(run):
    code, out, err = run("team-statements", "--month", "2025-01")
    assert (code, out) == (0, "")
    assert "no team bears anything of 2025-01" in err


# --- by mail -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def post_office(folder, refuse=()):
    """A mail server on the port of the farthing.toml there; what it took, as (recipients, message)."""
    controllers = pytest.importorskip("aiosmtpd.controller")
    got: list = []

    class Handler:
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
            if address in refuse:
                return "550 no such person"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
            return "250 OK"

    port = free_port()
    (folder / "farthing.toml").write_text(FILE.format(port=port))
    controller = controllers.Controller(Handler(), hostname="localhost", port=port)
    controller.start()
    try:
        yield got
    finally:
        controller.stop()


SEND = ("send", "statements", "--month", "2026-10")


def test_each_team_gets_its_own_statement_once(run, tmp_path):
    with post_office(tmp_path) as got:
        code, out, _ = run(*SEND)
        assert code == 0
        assert "search: $14.60 to search@example.com: sent" in out
        assert "idle" not in out  # it has nothing to be told
        assert [to for to, _ in got] == [["search@example.com"], ["ads@example.com", "boss@example.com"]]
        message = got[0][1]
        assert message["Subject"] == "Claude on Bedrock, October 2026: $14.60 (search)"
        assert "$14.60" in message.get_body(("plain",)).get_content()
        assert Page(message.get_body(("html",)).get_content()).asks == []
        (attached,) = message.iter_attachments()
        assert attached.get_filename() == "2026-10-search.csv"
        rows = csv.DictReader(io.StringIO(attached.get_content()))
        assert sum(Decimal(row["usd"]) for row in rows) == Decimal("14.6")
        assert "$3.50" not in message.as_string()  # what another team bears
        assert "boss@example.com" not in message.as_string()

        code, out, _ = run(*SEND)
        assert code == 0
        assert out.count("was sent at 20") == len(got) == 2
        assert run(*SEND, "--again", "--team", "ads")[0] == 0
        assert [to[0] for to, _ in got] == ["search@example.com", "ads@example.com", "ads@example.com"]


def test_a_dry_run_sends_nothing_and_notes_nothing(run, tmp_path):
    with post_office(tmp_path) as got:
        code, out, _ = run(*SEND, "--dry-run")
        assert code == 0
        assert (
            "search: $14.60 to search@example.com: would be sent, as 'Claude on Bedrock, October 2026" in out
        )
        assert not got
        run(*SEND)
        assert len(got) == 2
        assert "was sent at" in run(*SEND, "--dry-run")[1]


def test_a_team_without_an_address_is_named_and_the_others_get_theirs(run, tmp_path):
    with post_office(tmp_path) as got:
        path = tmp_path / "farthing.toml"
        path.write_text(path.read_text().replace('email = "search@example.com"', ""))
        code, _, err = run(*SEND)
        assert code == 1
        assert "search: has no email in farthing.toml; $14.60 untold" in err
        assert len(got) == 1


def test_what_was_refused_is_tried_again(run, tmp_path):
    with post_office(tmp_path, refuse=("search@example.com",)) as got:
        code, out, err = run(*SEND)
        assert code == 2
        assert "refused for search@example.com" in err
        assert "ads: $3.50" in out
    with post_office(tmp_path) as got:
        assert run(*SEND)[0] == 0
        assert [to for to, _ in got] == [["search@example.com"]]


def test_a_new_closing_is_sent_anew(run, tmp_path, ledger):
    with post_office(tmp_path) as got:
        run(*SEND, "--team", "ads")
        assert run("close", "2026-10", "--allow-unexplained", "--by", "test", "--accrue")[0] == 0
        run(*SEND, "--team", "ads")
        assert [message["Subject"] for _, message in got] == [
            "Claude on Bedrock, October 2026: $3.50 (ads)"
        ] * 2
        texts = [message.get_body(("plain",)).get_content() for _, message in got]
        assert "not closed" in texts[0]
        assert "closed (2026-10.1)" in texts[1]


def test_one_that_died_while_sending_asks_a_person(run, tmp_path, ledger):
    with post_office(tmp_path) as got:
        Record(ledger, "ads", "2026-10", "").begin(NOW)
        code, out, _ = run(*SEND, "--team", "ads")
        assert code == 2
        assert (
            "was being sent at 2026-11-02T09:00:00+00:00, and may have arrived: --again sends it again" in out
        )
        assert not got
        assert run(*SEND, "--team", "ads", "--again")[0] == 0
        assert len(got) == 1
        assert (
            run("ledger", "verify", "--ledger", "ledger")[0] == 0
        )  # the notes beside the tables are no damage


def test_without_a_mail_server_nothing_is_noted(run, tmp_path):
    path = tmp_path / "farthing.toml"
    path.write_text(re.sub(r"\[smtp\][^[]*", "", path.read_text()))
    code, _, err = run(*SEND)
    assert code == 2
    assert "add [smtp]" in err
    assert not (tmp_path / "ledger" / "sent").exists()


def test_of_two_at_once_one_sends(ledger):
    one, two = (Record(ledger, "R&D/EU", "2026-10", "2026-10.1") for _ in range(2))
    assert one.begin(NOW)
    assert not two.begin(NOW)
    one.failed()
    assert two.read() == ("", "")
    assert two.begin(NOW)
    two.done(NOW)
    assert one.read() == ("sent", "2026-11-02T09:00:00+00:00")


def test_the_record_of_a_ledger_in_a_bucket(moto, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": moto,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    aws._session.cache_clear()
    aws.session().client("s3").create_bucket(Bucket="statements-sent")
    test_of_two_at_once_one_sends(Ledger("s3://statements-sent/ledger"))
