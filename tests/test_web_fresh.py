"""Pages that take long are served as they were while they are made anew; transcripts that grow are seen."""

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from farthing.cells import Question, cells
from farthing.cli import serving
from farthing.ledger import Ledger
from farthing.web._access import Who
from farthing.web._books import KEPT_SLOW_S, Books
from tests.traffic import usages
from tests.web_server import NOW

VIEWER = Who("vic", "viewer")
SONNET = {
    "input_tokens": 10,
    "output_tokens": 20,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
}


@pytest.fixture
def books(tmp_path) -> Books:
    Ledger(tmp_path / "ledger").append(list(usages(hours=24)))
    config = tmp_path / "farthing.toml"
    config.write_text('[[budgets]]\nname = "all"\nusd = 5000\n')
    return Books(
        str(tmp_path / "ledger"), serving._Asking(config, ""), tmp_path / "policy.toml", config=str(config),
        clock=lambda: NOW, fresh_s=0,
    )  # fmt: skip


def asked(books: Books, name: str = "budgets") -> dict:
    return json.loads(books.json(name, (), VIEWER).plain)


def made_anew() -> None:
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread() and "work" in thread.name:
            thread.join(30)


def test_what_takes_long_is_shown_as_it_was_while_it_is_made_anew(books):
    first = asked(books)
    assert first["fresh"] is True
    Ledger(books.folder).append(list(usages(hours=30, first=24)))
    second = asked(books)
    assert second["fresh"] is False
    assert second["generated_at"] == first["generated_at"]
    assert second["tables"] == first["tables"]
    made_anew()
    third = asked(books)
    assert third["fresh"] is True
    assert third["ledger_version"] != first["ledger_version"]
    assert not books.busy


def test_what_is_made_of_sums_is_always_as_the_ledger_stands(books):
    first = asked(books, "bill")
    Ledger(books.folder).append(list(usages(hours=30, first=24)))
    second = asked(books, "bill")
    assert second["fresh"] is True
    assert second["footer"]["usd"] != first["footer"]["usd"]


def test_csv_and_what_somebody_changed_are_never_old(books):
    books.csv("budgets", (), VIEWER)
    asked(books)
    Ledger(books.folder).append(list(usages(hours=30, first=24)))
    Path(books.config).write_text('[[budgets]]\nname = "another"\nusd = 70\n')
    found = asked(books)
    assert found["fresh"] is True
    assert [row["budget"] for row in found["tables"]["budgets"]["rows"]] == ["another"]
    assert books.csv("budgets", (), VIEWER).plain.count(b"another") == 1


def test_an_old_answer_is_made_anew_after_its_time(books):
    asked(books)
    books.clock = lambda: NOW + timedelta(seconds=KEPT_SLOW_S + 1)
    assert asked(books)["fresh"] is False
    made_anew()
    assert asked(books)["fresh"] is True


def gone(query):
    raise ValueError("the file is gone: bring it back")


def test_what_can_no_longer_be_made_is_told(books):
    asked(books)
    Ledger(books.folder).append(list(usages(hours=30, first=24)))
    books.ask = gone
    assert asked(books)["fresh"] is False
    made_anew()
    with pytest.raises(ValueError, match="bring it back"):
        asked(books)


def test_several_ask_and_it_is_made_once(books, monkeypatch):
    asked(books)
    Ledger(books.folder).append(list(usages(hours=30, first=24)))
    begun = threading.Event()
    times = []

    def make(*_):
        times.append(1)
        begun.wait(20)

    monkeypatch.setattr(books, "_make", make)
    assert [asked(books)["fresh"] for _ in range(5)] == [False] * 5
    begun.set()
    made_anew()
    assert times == [1]


def line(number: int) -> str:
    message = {
        "id": f"msg_{number}",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
        "usage": SONNET,
    }
    said = {
        "type": "assistant",
        "sessionId": "s",
        "requestId": f"req_{number}",
        "uuid": f"u{number}",
        "cwd": "/me/p",
    }
    return json.dumps(said | {"timestamp": "2026-10-30T10:00:00Z", "message": message}) + "\n"


def test_transcripts_that_grow_are_seen(tmp_path, monkeypatch):
    file = tmp_path / "projects" / "p" / "s.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(line(1))
    place = str(tmp_path / "ledger")
    folders = [tmp_path / "projects"]
    seen = serving._stamps(folders)
    assert serving._imported(place, folders)
    monkeypatch.setattr(serving, "LOOK_S", 0.02)
    done = threading.Event()
    imported = serving._imported

    def once(*given):
        found = imported(*given)
        done.set()
        return found

    monkeypatch.setattr(serving, "_imported", once)
    with serving._kept_up(place, folders, seen):
        with file.open("a") as more:
            more.write(line(2))
        assert done.wait(30)
    assert sum(cell.calls for cell in cells(Ledger(place), Question())) == 2
