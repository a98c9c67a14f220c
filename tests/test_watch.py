"""The watch: what happens is told once, to everyone who asked, whatever fails in between."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from farthing.cells import Question
from farthing.cli import main
from farthing.config import Budget, Channel, Config, Smtp, Source, load
from farthing.ledger import Ledger
from farthing.watch import _told, look, round_of, text, try_out
from tests.test_notify import free_port, hook, post_office
from tests.traffic import COMPANY, HOUR, MONDAY, since, usages

BUSY = [replace(work, calls=work.calls * 16) for work in COMPANY[:2]]
WEEKS = 15 * 24  # hours that are quiet
NINE = MONDAY + timedelta(days=15, hours=9)
NOW = NINE + timedelta(hours=2, minutes=5)
AT_ONCE = (0.0, 0.0)
BROKEN = since("search", NINE, read=0)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet") / "ledger"
    Ledger(folder).append(list(usages(BUSY, hours=WEEKS + 9)))
    return folder


@pytest.fixture
def books(quiet, tmp_path):
    """A ledger in which search's cache broke at nine."""
    made = Ledger(shutil.copytree(quiet, tmp_path / "ledger"))
    made.append(hours_of(BROKEN, 9, 11))
    return made


def hours_of(change, first, last):
    return list(usages(BUSY, first=WEEKS + first, hours=WEEKS + last, change=change))


def channel(url, name="ops", kind="webhook", **more):
    return Channel(name, kind, url=url, **more)


def rounds(books, *channels, now=NOW, budgets=(), sources=()):
    config = Config(notify=channels, budgets=budgets, sources=sources)
    return round_of(books, Question(config=config), now, pauses=AT_ONCE)


def titles(got):
    return [event["title"] for one in got for event in json.loads(one.body)["events"]]


# --- once -----------------------------------------------------------------------------------------


def test_an_anomaly_is_told_once(books):
    with hook(200) as (url, got):
        for minutes in (0, 15, 30):
            rounds(books, channel(url), now=NOW + timedelta(minutes=minutes))
        rounds(Ledger(books.folder), channel(url))  # after a restart
    (title,) = titles(got)
    assert title.startswith("team search costs $")
    assert title.endswith(" an hour more than usual: cache broken")


def test_it_is_told_again_once_it_was_over(books):
    with hook(200) as (url, got):
        rounds(books, channel(url))
        books.append(hours_of(since("search", NINE, NINE + 2 * HOUR), 11, 24 + 24))
        over = rounds(books, channel(url), now=NOW + timedelta(days=1, hours=12))
        assert over.cleared == 1
        books.append(hours_of(since("search", NINE + timedelta(days=2), read=0), 24 + 24, 24 + 24 + 11))
        rounds(books, channel(url), now=NOW + timedelta(days=2))
    assert len(titles(got)) == 2


def test_late_data_is_no_second_alarm(books):
    """Hours before and after the first alarm arrive later: it is the same event."""
    with hook(200) as (url, got):
        rounds(books, channel(url))
        books.append(hours_of(BROKEN, 11, 12))
        hour = timedelta(hours=1).total_seconds() * 10**6
        earlier = [c for c in hours_of(BROKEN, 9, 11) if ("team", "search") in c.tags]
        books.append([c._replace(request_id=f"l{c.request_id}", at_us=int(c.at_us - hour)) for c in earlier])
        rounds(books, channel(url), now=NOW + HOUR)
    assert len(titles(got)) == 1


def test_what_is_old_when_it_is_first_seen_is_no_news(books):
    with hook(200) as (url, got):
        books.append(hours_of(since("search", NINE, NINE + 2 * HOUR), 11, 24 * 3))
        rounds(books, channel(url), now=NOW + timedelta(days=2, hours=14))
    assert got == []


def test_two_watchers_tell_it_once(books):
    with hook(200) as (url, got):
        together = threading.Barrier(4)

        def watch(_):
            mine = Ledger(books.folder)
            together.wait()
            return rounds(mine, channel(url))

        with ThreadPoolExecutor(4) as threads:
            done = list(threads.map(watch, range(4)))
    assert len(titles(got)) == 1
    assert sum(len(one.told) for one in done) == 1


def test_who_is_killed_before_it_is_told_leaves_it_to_the_next(books):
    (event,) = look(books, Question(), NOW).events
    assert _told.claim(books, [(event.key, "ops")], NOW)
    with hook(200) as (url, got):
        rounds(books, channel(url), now=NOW + timedelta(minutes=5))
        assert got == []  # the other may still be at it
        rounds(books, channel(url), now=NOW + timedelta(minutes=20))
    assert len(titles(got)) == 1


def test_marks_of_a_budget_are_told_each_once(books):
    budget = Budget("search", 2500, where=("team=search",), alert_at=(10, 50), forecast=False)
    with hook(200) as (url, got):
        only = channel(url, events=("budget",))
        rounds(books, only, budgets=(budget,))
        rounds(books, only, budgets=(budget,), now=NOW + HOUR)
        told = titles(got)
        books.append(
            [
                call._replace(request_id=f"{n}-{call.request_id}")
                for n in range(9)
                for call in hours_of(BROKEN, 9, 11)
            ]
        )
        rounds(books, only, budgets=(budget,))
    assert len(told) == 1
    assert len(titles(got)) in (1, 2)
    assert all(title.startswith("budget search: $") for title in titles(got))


# --- what fails -----------------------------------------------------------------------------------


def test_a_channel_that_fails_holds_up_no_other_and_is_asked_again(books):
    with hook(503, 503, 503, 200) as (down, late), hook(200) as (up, got):
        first = rounds(books, channel(down, "down"), channel(up, "up"))
        assert len(first.failures) == 1
        assert first.failures[0].startswith("down: webhook at 127.0.0.1: answered 503")
        assert len(titles(got)) == 1
        second = rounds(books, channel(down, "down"), channel(up, "up"), now=NOW + HOUR)
        assert second.failures == []
        assert len(late) == 4
        assert len(got) == 1


def test_a_source_that_fails_is_an_event_until_it_works(books, tmp_path):
    source = Source(str(tmp_path / "gone"))
    with hook(200) as (url, got):
        only = channel(url, events=("sync",))
        assert rounds(books, only, sources=(source,)).imported.errors
        assert rounds(books, only, sources=(source,), now=NOW + timedelta(minutes=15)).told == []
        (title,) = titles(got)
        assert title == f"importing {source.path} failed"
        shutil.copytree(Path(__file__).parent / "importers", source.path, ignore=_all_but_one)
        assert rounds(books, only, sources=(source,), now=NOW + timedelta(minutes=30)).cleared == 1
        shutil.rmtree(source.path)
        rounds(books, only, sources=(source,), now=NOW + HOUR)
    assert len(titles(got)) == 2


def _all_but_one(_, names):
    return [name for name in names if name != "bedrock_log.facts.jsonl"]


def test_a_budget_that_cannot_be_asked_is_an_event_and_anomalies_are_told_all_the_same(books):
    with hook(200) as (url, got):
        rounds(books, channel(url), budgets=(Budget("odd", 5, where=("colour=red",)),))
    assert sorted(title.split(" ")[0] for title in titles(got)) == ["budgets", "team"]


@pytest.mark.parametrize("calls", [[], "day", "future"])
def test_ledgers_with_nothing_one_day_or_a_future(calls, tmp_path):
    made = Ledger(tmp_path / "ledger")
    day = list(usages(BUSY, hours=12))
    made.append(day if calls == "day" else [c._replace(at_us=c.at_us + 10**15) for c in day] if calls else [])
    done = rounds(made, now=MONDAY + 12 * HOUR, budgets=(Budget("all", 10**6),))
    assert (done.events, done.failures) == ([], [])


# --- channels -------------------------------------------------------------------------------------


def test_channels_get_what_they_ask_for(books):
    budget = Budget("ads", 1, where=("team=ads",))
    with hook(200) as (one, all_), hook(200) as (two, ads), hook(200) as (three, money):
        rounds(
            books,
            channel(one, "all"),
            channel(two, "ads", teams=("ads",)),
            channel(three, "money", events=("budget",)),
            budgets=(budget,),
        )
    assert [title.split(" ")[0] for title in titles(all_)] == ["team", "budget"]
    assert [title.split(":")[0] for title in titles(ads)] == ["budget ads exceeded"]
    assert [title.split(":")[0] for title in titles(money)] == ["budget ads exceeded"]


def test_slack_says_what_how_much_since_when_why_and_what_to_run(books):
    with hook(200) as (url, got):
        rounds(books, channel(url, kind="slack"))
    said = json.loads(got[0].body)
    assert said["text"].startswith("farthing: team search costs $")
    (block,) = said["blocks"]
    lines = dict(line.strip("*").split("*", 1) for line in block["text"]["text"].splitlines()[1:])
    assert lines["since"].strip() == "Tue 2026-09-22 09:00 UTC, 2 hours, and it goes on"
    assert " instead of $" in lines["cost"]
    assert lines["if it goes on"].strip().endswith(" a day")
    assert "read from the cache: 80 % to 0 % of prompt tokens" in lines["why"]
    assert "`farthing by model,principal,meter --where team=search --since 2026-09-22" in lines["run"]
    assert len(block["text"]["text"]) < 3000


def test_names_cannot_write_slack_s_markup(books):
    made = hours_of(since("ads", NINE, calls=lambda calls: 9 * calls), 9, 11)
    books.append(
        [call._replace(request_id=f"x{call.request_id}", tags=(("team", "<!channel> *x*"),)) for call in made]
    )
    with hook(200) as (url, got):
        rounds(books, channel(url, kind="slack"))
    assert "<!channel>" not in got[0].body.decode()
    assert "&lt;!channel&gt;" in got[0].body.decode()


def test_mail_and_sns_say_the_same(books, moto, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    sns, sqs = (boto3.client(name, "eu-west-1", endpoint_url=moto) for name in ("sns", "sqs"))
    topic = sns.create_topic(Name="watched")["TopicArn"]
    queue = sqs.create_queue(QueueName="watched")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    with post_office() as (port, mails):
        config = Config(
            smtp=Smtp("localhost", port, "none", "costs@example.com"),
            notify=(
                Channel("mail", "mail", to=("ada@example.com",)),
                Channel("topic", "sns", topic_arn=topic, endpoint_url=moto),
            ),
        )
        done = round_of(books, Question(config=config), NOW, pauses=AT_ONCE)
    assert done.failures == []
    mailed = mails[0].message.get_content()
    published = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert mails[0].message["Subject"].startswith("[farthing] team search costs $")
    assert mailed.split() == published["Message"].split() == text(done.events).split()


def test_a_test_goes_to_each_channel(monkeypatch):
    with hook(200) as (url, got):
        monkeypatch.setenv("HOOK", url)
        config = Config(
            notify=(
                Channel("a", "slack", url_env="HOOK"),
                Channel("b", "webhook", url=f"http://127.0.0.1:{free_port()}/"),
                Channel("c", "slack", url_env="NO_SUCH_VARIABLE"),
            )
        )
        results = try_out(config, NOW, AT_ONCE)
    assert results["a"] == ""
    assert "refused" in results["b"]
    assert results["c"].startswith("$NO_SUCH_VARIABLE is not set")
    assert json.loads(got[0].body)["text"] == "farthing: this is a test of farthing watch"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A folder with farthing.toml and a ledger of one call."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARTHING_CONFIG", raising=False)
    monkeypatch.delenv("FARTHING_LEDGER", raising=False)
    shutil.copytree(Path(__file__).parent / "importers", "logs", ignore=_all_but_one)

    def write(more=""):
        toml = f'ledger = "books"\n[[sources]]\npath = "logs"\n{more}'
        Path("farthing.toml").write_text(toml, encoding="utf-8")

    write()
    return write


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main(["watch", *words])
    return ended.value.code


def test_one_round(configured, capsys):
    assert run("--once") == 0
    assert " calls imported, 0 events, 0 told" in capsys.readouterr().out
    assert run("--dry-run") == 0
    assert capsys.readouterr().out == "nothing to tell\n"


def test_channels_are_tried(configured, capsys):
    with hook(200) as (url, got):
        configured(f'[[notify]]\nname = "ops"\nkind = "slack"\nurl = "{url}"\n')
        assert run("--test") == 0
    assert capsys.readouterr().out == "ops: sent\n"
    assert len(got) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--every", "soon"), "--every 'soon' is no time"),
        (("--every", "1s"), "at least 10s"),
        (("--test",), r"no channels: add \[\[notify\]\]"),
        (("--config", "none.toml"), "none.toml"),
    ],
)
def test_what_cannot_be_is_one_line(words, says, configured, capsys):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert says.replace("\\", "") in error


def test_without_a_file_there_is_nothing_to_watch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARTHING_CONFIG", raising=False)
    assert run("--once") == 2
    assert "run `farthing init`" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number, configured):
    program = [sys.executable, "-c", "from farthing.cli import main; main()", "watch"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout
        first = watch.stdout.readline()
        watch.send_signal(number)
        out, err = watch.communicate(timeout=60)
    assert "calls imported" in first
    assert (watch.returncode, out, err) == (0, "", "")


def test_the_file_has_channels_and_budgets(configured):
    configured(
        """
[smtp]
host = "mail.example.com"
sender = "costs@example.com"
[[notify]]
name = "finops"
kind = "mail"
to = ["finops@example.com"]
events = ["budget"]
[[budgets]]
name = "all"
usd = 20000
alert_at = [50, 80, 100]
"""
    )
    config = load()
    assert config.notify[0].to == ("finops@example.com",)
    assert config.budgets[0].alert_at == (50, 80, 100)


CHANNEL = '[[notify]]\nname = "ops"\nkind = "slack"\nurl_env = "HOOK"\n'
SMTP = '[smtp]\nhost = "mail.example.com"\nsender = "costs@example.com"\n'
BUDGET = '[[budgets]]\nname = "all"\nusd = 5\n'


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (CHANNEL.replace("slack", "pigeon"), "kind: 'pigeon' is none of slack, webhook, sns, mail"),
        (CHANNEL.replace("url_env", "to"), "not a list"),
        (CHANNEL.replace('url_env = "HOOK"', ""), "slack needs url or url_env"),
        (CHANNEL + 'url = "https://x.example.com/secret"\n', "are both given"),
        (CHANNEL.replace("HOOK", "https://x.example.com/secret"), "is no name of a variable"),
        (CHANNEL.replace("url_env", "url").replace("HOOK", "secret"), "is no address"),
        (CHANNEL + CHANNEL, "'ops' is taken"),
        (CHANNEL + 'events = ["storm"]\n', "'storm' is none of anomaly, budget, price, sync"),
        (CHANNEL + 'teams = ["nobody"]\n[teams.ads]\ntags = ["team=ads"]\n', "no team 'nobody'"),
        ('[[notify]]\nname = "m"\nkind = "mail"\nto = ["a@example.com"]\n', "add [smtp]"),
        (SMTP + '[[notify]]\nname = "m"\nkind = "mail"\nto = ["nobody"]\n', "'nobody' is no mail address"),
        ('[[notify]]\nname = "t"\nkind = "sns"\ntopic_arn = "costs"\n', "is no topic"),
        (SMTP.replace("costs@example.com", "costs"), "'costs' is no mail address"),
        (SMTP + 'security = "tls"\n', "'tls' is none of starttls, ssl, none"),
        (SMTP + 'security = "none"\nuser = "ada"\n', "would go in the clear"),
        (SMTP + 'password_env = "hunter 2"\n', "is no name of a variable"),
        (SMTP + "port = 99999\n", "99999 is no port"),
        ('[smtp]\nsender = "costs@example.com"\n', "`host` is missing"),
        (BUDGET.replace("5", "0"), "0 is no budget"),
        (BUDGET + 'period = "year"\n', "'year' is none of month, week, day"),
        (BUDGET + "alert_at = [0]\n", "0 is no percentage"),
        (BUDGET + 'where = ["search"]\n', "'search' is no filter"),
        (BUDGET + BUDGET, "'all' is taken"),
    ],
)
def test_a_file_that_cannot_be_is_one_line_without_a_secret(more, says, configured, capsys):
    configured(more)
    assert run("--once") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("farthing: farthing.toml:")
    assert "secret" not in error.replace("the secret itself", "")
    assert "hunter" not in error
