"""Overlays: what a price list gives rise to, laid on the book, and what is wrong with one written by hand."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import Card, default_book
from farthing.cli import main
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.money import mtok_usd
from farthing.pricelist import (
    Comparison,
    PriceListError,
    Quote,
    Reading,
    compare,
    load_book,
    overlaid,
    overlay_text,
    read_price_lists,
)
from farthing.pricelist._overlay import laid as laid_text
from farthing.usage import Facts, Sku, Usage
from tests.price_lists import OPUS_5, Listed, all_meters, changed, offer, written

BOOK = default_book()
AT = datetime(2026, 11, 20, tzinfo=UTC)
READ = date(2026, 11, 22)


def found(tmp_path: Path, *rows: Listed) -> Comparison:
    reading = read_price_lists([written(tmp_path / "index.json", offer(rows))], BOOK)
    return compare(BOOK, reading, AT)


def opus(endpoint: str = "regional", mode: str = "on_demand") -> Sku:
    return Sku("bedrock", "claude-opus-5", endpoint, "", mode)


def laid(tmp_path: Path, comparison: Comparison) -> tuple[str, dict[str, str]]:
    """The overlay's text, and what the book with it has otherwise on the day."""
    text = overlay_text(BOOK, comparison, READ)
    path = tmp_path / "overlay.toml"
    path.write_text(text, encoding="utf-8")
    book = overlaid(BOOK, path)
    differs = {}
    for card in book.cards():
        if card.starts <= AT < card.ends:
            old = BOOK.find(card.sku, AT, card.prompt_from)
            for meter, rate in card.rates._asdict().items():
                if not isinstance(old, Card) or getattr(old.rates, meter) != rate:
                    differs[f"{card.sku} {meter}"] = mtok_usd(rate)
    return text, differs


def test_an_overlay_has_what_changed_and_nothing_else(tmp_path: Path):
    comparison = found(tmp_path, *changed(OPUS_5, "0.6", meter="cache_read", endpoint="regional"))
    text, differs = laid(tmp_path, comparison)
    assert differs == {"bedrock/claude-opus-5/regional/on_demand cache_read": "0.6"}
    assert 'source = "AmazonBedrockFoundationModels of 2026-11-20"' in text


def test_a_cut_that_follows_the_usual_factors_is_one_row(tmp_path: Path):
    rows = [
        *all_meters("Claude Opus 5", "4 20 0.4 5 8", endpoint="global"),
        *all_meters("Claude Opus 5", "4.4 22 0.44 5.5 8.8"),
        *all_meters("Claude Opus 5", "2 10", endpoint="global", mode="batch"),
        *all_meters("Claude Opus 5", "2.2 11", mode="batch"),
        *all_meters("Claude Opus 5", "4.8 24 0.48 6 9.6", region="us-gov-west-1"),
        *all_meters("Claude Opus 5", "2.4 12", region="us-gov-west-1", mode="batch"),
    ]
    text, differs = laid(tmp_path, found(tmp_path, *rows))
    assert text.count("[[claude-opus-5.price]]") == 1
    assert "endpoints" not in text.split("[[", 1)[1]
    assert differs["bedrock/claude-opus-5/global/on_demand input"] == "4"
    assert differs["bedrock/claude-opus-5/govcloud/batch output"] == "12"
    assert all(name.startswith("bedrock/claude-opus-5/") for name in differs)


def test_the_past_keeps_its_price(tmp_path: Path):
    comparison = found(tmp_path, *changed(OPUS_5, "6", meter="input", endpoint="regional", mode="on_demand"))
    path = tmp_path / "overlay.toml"
    path.write_text(overlay_text(BOOK, comparison, READ))
    book = load_book(path)
    before, after = (book.find(opus(), datetime(2026, 11, day, tzinfo=UTC)) for day in (19, 20))
    assert isinstance(before, Card)
    assert isinstance(after, Card)
    assert (before.rates.input, after.rates.input) == (5_500_000, 6_000_000)
    assert book.digest != BOOK.digest
    assert len({card.id for card in book.cards()}) == len(book.cards())


def test_a_later_price_of_the_book_stays(tmp_path: Path):
    """Reads of Sonnet 5.5 became cheaper on 2026-10-07, which a list of the first could not know."""
    rows = all_meters("Claude Sonnet 5.5", "2.3 11 0.22 2.75 4.4")
    reading = read_price_lists([written(tmp_path / "old.json", offer(rows, published="2026-10-01"))], BOOK)
    path = tmp_path / "overlay.toml"
    path.write_text(overlay_text(BOOK, compare(BOOK, reading, datetime(2026, 10, 1, tzinfo=UTC)), READ))
    book, sku = load_book(path), Sku("bedrock", "claude-sonnet-5-5", "regional", "", "on_demand")
    found = [book.find(sku, datetime(2026, *day, tzinfo=UTC)) for day in ((9, 30), (10, 1), (10, 7))]
    assert [card.rates.input for card in found if isinstance(card, Card)] == [2_200_000, 2_300_000, 2_200_000]
    assert [card.rates.cache_read for card in found if isinstance(card, Card)] == [220_000, 220_000, 110_000]


def test_a_batch_price_that_is_new_has_no_cache_rates(tmp_path: Path):
    comparison = found(tmp_path, *all_meters("Claude Opus 4.8", "2.75 13.75", mode="batch"))
    _, differs = laid(tmp_path, comparison)
    assert differs == {
        f"bedrock/claude-opus-4-8/regional/batch {meter}": usd
        for meter, usd in zip(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"),
                              ("2.75", "13.75", "0", "0", "0"), strict=True)
    }  # fmt: skip
    card = load_book(tmp_path / "overlay.toml").find(
        Sku("bedrock", "claude-opus-4-8", "regional", "", "batch"), AT
    )
    assert isinstance(card, Card)
    assert not card.cached


def test_a_new_price_without_its_other_half_is_told_and_not_dropped(tmp_path: Path):
    """A row needs input and output. Alone or beside rows, it stands in the overlay as a comment."""
    half = Listed("Claude Opus 4.8", "input", "2.75", mode="batch")
    says = (
        "# new: bedrock/claude-opus-4-8/regional/batch input $2.75: no row, which needs both input and output"
    )
    alone, differs = laid(tmp_path, found(tmp_path, half))
    assert (says in alone.splitlines(), differs) == (True, {})
    beside, differs = laid(
        tmp_path, found(tmp_path, half, *changed(OPUS_5, "6", meter="input", mode="batch"))
    )
    assert says in beside.splitlines()
    assert set(differs.values()) == {"6"}


def test_bands_survive_an_overlay(tmp_path: Path):
    rows = all_meters("Claude Haiku 5.5", "0.11 0.5 0.011 0.1375 0.22")
    _, differs = laid(tmp_path, found(tmp_path, *rows))
    assert differs == {"bedrock/claude-haiku-5-5/regional/on_demand output": "0.5"}


def test_nothing_to_say_is_no_overlay(tmp_path: Path):
    assert overlay_text(BOOK, found(tmp_path, *OPUS_5), READ) == ""


def test_what_no_row_says_is_a_comment(tmp_path: Path):
    rows = [*changed(OPUS_5, "6", meter="input", endpoint="regional"), Listed("Claude Opus 9", "input", "9")]
    text = overlay_text(BOOK, found(tmp_path, *rows), READ)
    assert "# unmatched: USE1-MP:USE1_input_tokens_standard-Units (Claude Opus 9" in text


NEW_MODEL = """
[claude-opus-9]
name = "Claude Opus 9"
released = 2026-11-01
ids = ["claude-opus-9", "anthropic.claude-opus-9"]
sources = ["X"]
accessed = 2026-11-22
confidence = "medium"
[[claude-opus-9.price]]
input = 4
output = 20
[claude-opus-9.bedrock]
endpoints = { global = 1, regional = 1.1 }
batch = "none"
batch_source = "none seen"
profiles = ["global"]
"""


def test_an_overlay_may_bring_a_model(tmp_path: Path):
    path = tmp_path / "new.toml"
    path.write_text(NEW_MODEL)
    card = load_book(path).find(Sku("bedrock", "claude-opus-9", "regional", "", "on_demand"), AT)
    assert isinstance(card, Card)
    assert card.rates.input == 4_400_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[claude-opus-5.price]\n", ":1: no TOML"),
        ("\n[[claude-opus-55.price]]\nfrom = 2026-11-01\n", ":2: claude-opus-55: no model of the book"),
        ("[[claude-opus-5.price]]\ninput = 1\noutput = 2\n", "from which day"),
        (NEW_MODEL.replace("output = 20", ""), "a row needs output"),
        (NEW_MODEL.replace("output = 20", "output = nan"), "not written as a row of prices"),
        (NEW_MODEL.replace("output = 20", "output = inf"), "not written as a row of prices"),
        ("[[claude-opus-5.price]]\nfrom = 2026-11-01\ninputs = 1\noutput = 2\n", "did you mean `input`?"),
        ("[[claude-opus-5.price]]\nfrom = 2026-11-01\ninput = 0\noutput = 2\n", "above zero"),
        ('[[claude-opus-5.price]]\nfrom = "2026-11-01"\ninput = 1\noutput = 2\n', "is no day"),
        ("[[claude-opus-5.price]]\nfrom = 2026-11-01\ninput = 1\n", "a row needs output"),
        ("[claude-opus-5]\nids = ['x']\n", "and nothing else"),
        (
            '[[claude-opus-5.price]]\nfrom = 2026-11-01\nendpoints = ["regional"]\ninput = 1\noutput = 2\n',
            "platforms too",
        ),
        (NEW_MODEL.replace('"claude-opus-9", ', '"claude-opus-5", '), "is claimed by"),
    ],
)
def test_an_overlay_that_is_wrong_says_where(tmp_path: Path, text: str, says: str):
    path = tmp_path / "overlay.toml"
    path.write_text(text)
    with pytest.raises(PriceListError) as error:
        overlaid(BOOK, path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# --- the law of overlays -------------------------------------------------------------------------------------------

LAID = [card for card in BOOK.cards() if card.sku.platform == "bedrock" and card.starts <= AT < card.ends]
MODELS = (
    "claude-opus-5",
    "claude-haiku-5-5",
    "claude-sonnet-4",
    "claude-instant-1.2",
    "claude-3-5-sonnet-v2",
)


@st.composite
def lists(draw: st.DrawFn) -> dict[tuple[Sku, str], int]:
    """Rates that a list has otherwise than the book, of some SKUs of some models."""
    model = draw(st.sampled_from(MODELS))
    cards = [card for card in LAID if card.sku.model == model and card.prompt_from == 0]
    chosen = draw(st.lists(st.sampled_from(cards), min_size=1, max_size=5, unique_by=lambda card: card.sku))
    return {
        (card.sku, meter): getattr(card.rates, meter) * draw(st.integers(1, 19))
        + draw(st.sampled_from([0, 1]))
        for card in chosen
        for meter in draw(
            st.lists(st.sampled_from(METERS if card.cached else METERS[:2]), min_size=1, unique=True)
        )
    }


@given(lists())
@settings(max_examples=40)
def test_with_its_overlay_the_book_has_what_the_list_has(rates: dict[tuple[Sku, str], int]):
    """And is otherwise as it was: before that day, at other SKUs, meters and prompt sizes."""
    reading = Reading("made up", AT.date())
    for (sku, meter), rate in rates.items():
        reading.add(Quote(sku, meter, False, rate, "us-east-1", "said"))
    comparison = compare(BOOK, reading, AT)
    taken = {(change.sku, change.meter): change.theirs for change in comparison.of("new", "changed")}
    text = overlay_text(BOOK, comparison, READ)
    book = laid_text(BOOK, text) if text else BOOK
    for old in BOOK.cards():
        new = book.find(old.sku, max(old.starts, AT) if old.ends > AT else old.starts, old.prompt_from)
        assert isinstance(new, Card)
        for meter in METERS:
            listed = None if old.prompt_from or old.ends <= AT else taken.get((old.sku, meter))
            assert getattr(new.rates, meter) == (getattr(old.rates, meter) if listed is None else listed)
        assert new.cached == old.cached
        if old.starts < AT:
            before = book.find(old.sku, old.starts, old.prompt_from)
            assert isinstance(before, Card)
            assert before.rates == old.rates
    again = compare(book, reading, AT)
    assert again.of("new", "changed") == []


def test_reports_are_priced_by_the_book_that_is_asked_for(tmp_path: Path, capsys, monkeypatch):
    """By name, and by the environment, which `statement`, `reconcile` and the rest go by too."""
    text, _ = laid(tmp_path, found(tmp_path, *changed(OPUS_5, "0.6", meter="input", endpoint="regional")))
    (tmp_path / "new.toml").write_text(text, encoding="utf-8")
    facts = Facts("bedrock_log", "bedrock", "anthropic.claude-opus-5", region="eu-west-1")
    calls = [Usage(int(AT.timestamp()) * 10**6, "r1", "", ((facts, (1_000_000, 0, 0, 0, 0)),))]
    Ledger(tmp_path / "ledger").append(calls)

    def billed(*more: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["bill", "--ledger", str(tmp_path / "ledger"), "--json", *more])
        assert ended.value.code == 0
        return str(json.loads(capsys.readouterr().out)["footer"]["usd"])

    assert billed() == "5.5"
    assert billed("--book", str(tmp_path / "new.toml")) == "0.6"
    monkeypatch.setenv("FARTHING_BOOK", str(tmp_path / "new.toml"))
    assert billed() == "0.6"
