"""Counting tokens: by AWS where asked, by ctok where installed, else a guess that says so."""

import json
import sys
from fractions import Fraction
from types import SimpleNamespace

import pytest

from farthing.book import default_book
from farthing.cli import main
from farthing.count import CountError, call_id, count, measure, split
from tests.counting import NEWER, Counter, serve

BOOK = default_book()


@pytest.fixture
def aws(monkeypatch):
    with serve(monkeypatch) as url:
        yield url


@pytest.fixture
def no_ctok(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctok", None)


@pytest.fixture
def ctok(monkeypatch):
    """What ctok offers: a count of a text by the version of a tokenizer; here its characters, twice from 4.7 on."""
    asked = []

    def token_count(text, version="3.0"):
        asked.append(version)
        return len(text) * (2 if version in ("4.7", "5.5") else 1)

    monkeypatch.setitem(sys.modules, "ctok", SimpleNamespace(token_count=token_count))
    return asked


def run(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_aws_counts_what_it_is_asked_by_name(capsys, tmp_path, aws, no_ctok):
    path = tmp_path / "prompt.txt"
    path.write_text("one two three four", encoding="utf-8")
    code, out, err = run(
        capsys, "count", path, "--model", "claude-sonnet-5-5", "--endpoint-url", aws, "--json"
    )
    answer = json.loads(out)
    assert (code, answer["tokens"], answer["method"]) == (0, 6, "CountTokens"), err
    assert [model for model, _ in Counter.asked] == [NEWER]


def test_a_model_of_which_aws_counts_nothing(capsys, tmp_path, aws):
    path = tmp_path / "prompt.txt"
    path.write_text("one", encoding="utf-8")
    code, out, err = run(capsys, "count", path, "--model", "claude-opus-4-8", "--endpoint-url", aws)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "CountTokens refused anthropic.claude-opus-4-8: ValidationException" in err


def test_without_a_word_nothing_is_sent(capsys, tmp_path, aws, no_ctok):
    path = tmp_path / "prompt.txt"
    path.write_text("x" * 400, encoding="utf-8")
    code, out, _ = run(capsys, "count", path, "--model", "claude-sonnet-4-6", "--json")
    assert (code, json.loads(out)["tokens"], json.loads(out)["method"]) == (0, 100, "ratio")
    assert "a guess" in json.loads(out)["about"]
    assert Counter.asked == []


def test_the_newer_tokenizer_is_guessed_to_make_more(no_ctok):
    assert count("x" * 400, "claude-sonnet-5-5", BOOK).tokens == 130
    assert count("", "claude-sonnet-5-5", BOOK).tokens == 0


def test_ctok_is_asked_for_the_version_of_the_model(ctok):
    assert count("abc", "claude-opus-4-7", BOOK)[:2] == (6, "ctok")
    assert count("abc", "claude-3-5-sonnet-v2", BOOK).tokens == 3
    assert count("abc", "claude-sonnet-4", BOOK).tokens == 3
    assert ctok == ["4.7", "3.5", "4.0"]


def test_the_method_is_printed(capsys, tmp_path, ctok):
    path = tmp_path / "prompt.txt"
    path.write_text("abc", encoding="utf-8")
    code, out, _ = run(capsys, "count", path, "--model", "claude-opus-4-7")
    assert code == 0
    assert out.startswith("6 tokens for claude-opus-4-7  (ctok: ")


def test_what_ctok_does_not_know_is_guessed(monkeypatch):
    def token_count(text, version):
        raise NotImplementedError(version)

    monkeypatch.setitem(sys.modules, "ctok", SimpleNamespace(token_count=token_count))
    assert count("abcd", "claude-2.1", BOOK).method == "ratio"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_is_no_text(capsys, tmp_path, content):
    path = tmp_path / "prompt.txt"
    if content:
        path.write_bytes(content)
    code, out, err = run(capsys, "count", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(path) in err


def test_an_unknown_model(capsys, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("abc", encoding="utf-8")
    code, _, err = run(capsys, "count", path, "--model", "claude-9")
    assert (code, "unknown model" in err) == (2, True)


# --- measuring -------------------------------------------------------------------------------------------------------


def measured(texts):
    old, new = ((name, call_id(BOOK, name)) for name in ("claude-sonnet-4-6", "claude-sonnet-5-5"))
    return measure(texts, old, new, BOOK)


def test_a_measured_inflation_has_the_spread_of_its_pieces(monkeypatch, ctok):
    found = measured(["aaaa", "bb"])
    assert list(found[:3]) == [2, 2, 2]
    assert found.about == "2 pieces, 6 tokens, by ctok"
    monkeypatch.setitem(
        sys.modules,
        "ctok",
        SimpleNamespace(token_count=lambda text, version: len(text) + (version == "5.5") * 2),
    )
    found = measured(["aaaa", "bb"])
    assert list(found[:3]) == [Fraction(3, 2), Fraction(10, 6), 2]


def test_nothing_is_measured_by_a_ratio(no_ctok):
    with pytest.raises(CountError, match="--online"):
        measured(["some text"])


def test_a_sample_without_text(ctok):
    with pytest.raises(CountError, match="no text"):
        measured([" \n", ""])


def test_a_split_loses_nothing():
    text = "".join(f"line {i}\n" for i in range(21)) + "end"
    for pieces in range(1, 30):
        assert "".join(split(text, pieces)) == text
        assert len(split(text, pieces)) <= pieces
