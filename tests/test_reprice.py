"""`farthing reprice`: what a corrected catalogue changes in history, and closed months that stay closed."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing import cli
from farthing.book import PRICES, Book, default_book
from farthing.cells import Question
from farthing.close import Asked, close
from farthing.config import Config
from farthing.ledger import Ledger
from farthing.reprice import BILL, COMPUTED, reprice
from farthing.usage import EPOCH, Facts, Usage
from tests.closing import OCTOBER, billed, delivered, shut

OPUS, SONNET = "global.anthropic.claude-opus-5", "global.anthropic.claude-sonnet-4-6"
US_OPUS = "us.anthropic.claude-opus-5"
ACCOUNT = "111122223333"
TOKENS = (1_000_000, 200_000, 3_000_000, 0, 0)


def call(day: str, model: str = OPUS, tokens=TOKENS, mode: str = "") -> Usage:
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", account=ACCOUNT, mode=mode)
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    name = f"{day}-{model}-{mode}-{tokens}"
    return Usage((at - EPOCH) // timedelta(microseconds=1), name, "", ((facts, tuple(tokens)),))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """corrected(old, new): the shipped catalogue with one text of its Opus prices replaced, as a folder."""
    made = iter(range(100))

    def make(old: str, new: str, file: str = "opus.toml"):
        folder = tmp_path_factory.mktemp(f"book{next(made)}")
        for path in PRICES.glob("*.toml"):
            text = path.read_text(encoding="utf-8")
            if path.name == file:
                assert old in text
                text = text.replace(old, new, 1)
            (folder / path.name).write_text(text, encoding="utf-8")
        return folder

    return make


CHEAPER = (
    "[[claude-opus-5.price]]\ninput = 5\noutput = 25\n",
    "[[claude-opus-5.price]]\ninput = 5\noutput = 20\n",
)


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    made = Ledger(tmp_path / "ledger")
    made.append(
        [call("2026-08-10"), call("2026-09-10"), call("2026-09-11", US_OPUS), call("2026-09-12", SONNET)]
    )
    return made


def test_a_correction_changes_its_model_and_meter_by_month(ledger, corrected):
    """Output of Opus 5 at $20 instead of $25: $5 a million, 10 % more at the regional endpoint; nothing else moves."""
    found = reprice(ledger, Question(), Book.load(corrected(*CHEAPER)))
    assert [(c.month, c.model, c.meter, c.tokens, c.difference) for c in found.changes] == [
        ("2026-08", "claude-opus-5", "output", 200_000, -(10**12)),
        ("2026-09", "claude-opus-5", "output", 400_000, -21 * 10**11),
    ]
    assert found.after - found.before == found.difference == -31 * 10**11
    assert not found.kept


def test_of_a_month_only_the_days_that_cost_otherwise_count(tmp_path):
    """A price from the 11th leaves the tokens of the 10th out of the change."""
    from farthing.pricelist import load_book

    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call("2026-09-10"), call("2026-09-11"), call("2026-09-30T23:59:59")])
    overlay = tmp_path / "overlay.toml"
    overlay.write_text(
        '[[claude-opus-5.price]]\nfrom = 2026-09-11\nplatforms = ["bedrock"]\ninput = 5\noutput = 20\n'
        'cache_read = 0.5\ncache_write_5m = 6.25\ncache_write_1h = 10\nsource = "X"\naccessed = 2026-11-22\n'
    )
    found = reprice(ledger, Question(), load_book(overlay))
    assert [(c.month, c.meter, c.tokens, c.before, c.after) for c in found.changes] == [
        ("2026-09", "output", 400_000, 10**13, 8 * 10**12)
    ]


def test_the_same_book_changes_nothing(ledger):
    found = reprice(ledger, Question(), default_book())
    assert (found.changes, found.difference) == ([], 0)


def test_what_rises_does_not_hide_what_falls(tmp_path, corrected):
    """Global falls by what regional rises: the sum is nothing, and the change is told."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call("2026-09-10", tokens=(11_000_000, 0, 0, 0, 0)),
                   call("2026-09-11", US_OPUS, tokens=(10_000_000, 0, 0, 0, 0))])  # fmt: skip
    table = default_book().models["claude-opus-5"].data["bedrock"]["endpoints"]
    assert (str(table["global"]), str(table["regional"])) == ("1", "1.1")
    text = (PRICES / "opus.toml").read_text(encoding="utf-8")
    head = text[text.index("[claude-opus-5.bedrock]") :]
    line = head[head.index("endpoints") : head.index("\n", head.index("endpoints"))]
    new = line.replace("global = 1,", "global = 0.9,").replace("regional = 1.1", "regional = 1.21")
    assert new != line
    book = Book.load(corrected(f"[claude-opus-5.bedrock]\n{line}", f"[claude-opus-5.bedrock]\n{new}"))
    (change,) = reprice(ledger, Question(), book).changes
    assert (change.tokens, change.difference) == (21_000_000, 0)


def test_a_model_that_gets_a_price_was_unpriced_and_not_free(tmp_path, corrected):
    """The catalogue learns an id: the row is told as unpriced before, under the name that the model has now."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call("2026-09-10", "global.anthropic.claude-opus-5-fresh")])
    old = 'ids = ["claude-opus-5", "anthropic.claude-opus-5"]'
    book = Book.load(corrected(old, old[:-1] + ', "anthropic.claude-opus-5-fresh"]'))
    found = reprice(ledger, Question(), book)
    assert [
        (c.model, c.meter, c.tokens, c.before, c.unpriced_before, c.unpriced_after) for c in found.changes
    ] == [
        ("claude-opus-5", "cache_read", 3_000_000, None, 3_000_000, 0),
        ("claude-opus-5", "input", 1_000_000, None, 1_000_000, 0),
        ("claude-opus-5", "output", 200_000, None, 200_000, 0),
    ]
    assert (
        found.difference == found.after == 1_000_000 * 5_000_000 + 200_000 * 25_000_000 + 3_000_000 * 500_000
    )


def test_closed_months_stay_closed_unless_asked(ledger, corrected, tmp_path):
    now = datetime(2026, 11, 3, tzinfo=UTC)
    question = Question(config=Config())
    close(ledger, "2026-08", question, {}, Asked(accrue=True), now)
    book = Book.load(corrected(*CHEAPER))
    found = reprice(ledger, question, book)
    assert [c.month for c in found.changes] == ["2026-09"]
    (kept,) = found.kept
    assert (kept.month, kept.closed, kept.closed_on, kept.difference) == (
        "2026-08",
        "2026-08.1",
        COMPUTED,
        -(10**12),
    )
    asked = reprice(ledger, question, book, closed=True)
    assert [c.month for c in asked.changes] == ["2026-08", "2026-09"]
    assert (asked.kept, asked.difference) == ([], asked.after - asked.before)


def test_a_month_closed_on_its_bill_says_so(tmp_path, corrected):
    """What AWS billed is booked: a catalogue changes what we compute of that month, and not what it cost."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(OCTOBER)
    shut(ledger, given=delivered(tmp_path, *billed(*OCTOBER)))
    old = "[[claude-sonnet-4-6.price]]\nfrom = 2026-03-13\ninput = 3\noutput = 1"
    found = reprice(ledger, Question(), Book.load(corrected(f"{old}5", f"{old}0", "sonnet.toml")))
    (kept,) = found.kept
    assert (kept.month, kept.meter, kept.closed, kept.closed_on) == ("2026-10", "output", "2026-10.1", BILL)
    assert (found.changes, found.difference) == ([], 0)


days, models = st.integers(1, 28), st.sampled_from((OPUS, US_OPUS, SONNET))
counts = st.lists(st.integers(0, 2**30), min_size=5, max_size=5)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(days, models, counts), min_size=1, max_size=6))
def test_the_changes_sum_to_the_difference_of_the_books(rows, corrected, tmp_path_factory):
    ledger = Ledger(tmp_path_factory.mktemp("law") / "ledger")
    ledger.append([call(f"2026-09-{day:02}", model, (*tokens,)) for day, model, tokens in rows])
    found = reprice(ledger, Question(), Book.load(corrected(*CHEAPER)))
    assert found.difference == found.after - found.before


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(ledger, capsys):
    def call_it(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["reprice", *words, "--ledger", str(ledger.folder)])
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return call_it


def test_json(run, corrected):
    code, out, _ = run("--book", str(corrected(*CHEAPER)), "--dry-run", "--json", "--since", "2026-09-01")
    said = json.loads(out)
    assert code == 0
    assert said["difference_usd"] == "-2.1"
    (change,) = said["changes"]
    assert (change["month"], change["meter"], change["from_usd"], change["to_usd"]) == (
        "2026-09",
        "output",
        "10.5",
        "8.4",
    )
    assert said["book"]["from"] == default_book().digest != said["book"]["to"]


def test_what_people_read(run, corrected):
    code, out, _ = run("--book", str(corrected(*CHEAPER)), "--dry-run")
    assert code == 0
    assert (
        "2026-08  claude-opus-5        output                 200,000 tokens         $5.00 ->        $4.00"
        in out
    )
    assert "-$3.10 of $" in out


def test_without_dry_run_it_says_what_it_is_for(run, corrected):
    code, out, err = run("--book", str(corrected(*CHEAPER)))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "add --dry-run" in err


def test_a_book_that_is_none_is_one_line(run, tmp_path):
    code, _, err = run("--book", str(tmp_path / "nowhere"), "--dry-run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no such book" in err
