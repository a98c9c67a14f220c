"""`farthing estimate --article`: the article's claims, which must come out as tests/article.toml has them."""

import json
import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from farthing.book import default_book
from farthing.cli import main
from farthing.estimate import article, decimal, say

VERDICTS = {
    claim["says"]: claim["verdict"]
    for claim in tomllib.loads((Path(__file__).parent / "article.toml").read_text(encoding="utf-8"))["claim"]
}
SAYS = {
    "tickets": "10,000 support tickets cost about $37 with Haiku 4.5",
    "quarter": "Sonnet 4.6 in batch costs less than a quarter of Sonnet 3.5, on the regional endpoint",
    "halves": "Going from Sonnet 3.5 to Sonnet 4.6 halves the cost",
    "thousands": "Batching 100,000 items saves thousands of dollars a month",
    "sessions": "Session hours can outweigh tokens",
    "reads": "One read repays a 5m write, two repay a 1h write",
    "few percent": "Batch and caching together bring the bill to a few percent",
    "global": "The global endpoint saves 10 %",
}


def claims(share="0"):
    return {claim.name: claim for claim in article(default_book(), Decimal(share))}


def figures(claim):
    return {figure.when: figure.value for figure in claim.figures}


def edges(claim):
    return {figure.when: figure.value for figure in claim.break_even}


def test_every_claim_has_the_verdict_of_the_list_and_a_break_even():
    found = claims()
    assert found.keys() == SAYS.keys()
    for name, claim in found.items():
        assert claim.verdict == VERDICTS[SAYS[name]], name
        assert claim.break_even


def test_tickets_cost_37_dollars_only_if_every_token_is_input():
    found = claims("0.3")["tickets"]
    assert figures(found)["0 % output"] == 37
    assert figures(found)["30 % output"] == 37 * (1 + 4 * Fraction("0.3"))
    assert figures(found)["regional, 30 % output"] == Fraction("1.1") * 37 * Fraction("2.2")
    assert [figure.when for figure in found.figures if figure.agrees] == ["0 % output"]


def test_the_share_at_which_it_is_no_longer_37_dollars():
    (edge,) = edges(claims()["tickets"]).values()
    assert 37 * (1 + 4 * edge) == Fraction("37.5")


def test_batch_is_exactly_a_quarter_and_not_less():
    found = claims()["quarter"]
    assert figures(found)["global batch against 6 / 30, input"] == Fraction(1, 4)
    assert figures(found)["global batch against 6 / 30, output"] == Fraction(1, 4)
    assert figures(found)["global batch against 3 / 15"] == Fraction(1, 2)
    (edge,) = edges(found).values()
    assert edge == Fraction(5, 9)  # 0.05 a + 0.5 (1 - a) = 0.25


def test_thousands_need_a_million_items_a_month():
    found = claims()["thousands"]
    assert figures(found)["100,000 a month, Haiku 4.5"] == 185
    assert figures(found)["100,000 a month, Sonnet 4.6"] == 555
    assert figures(found)["100,000 a day, 30 days, Haiku 4.5"] == 5_550
    assert edges(found)["items a month that save $2,000, Haiku 4.5"] == 1_081_082


def test_a_session_outweighs_fewer_than_80_000_tokens_an_hour():
    found = claims()["sessions"]
    assert edges(found)["tokens an hour below which the session outweighs them, Haiku 4.5"] == 80_000
    assert edges(found)["a session that never stops, 720 hours"] == Fraction("57.6")
    with_output = edges(claims("0.25")["sessions"])
    assert with_output["tokens an hour below which the session outweighs them, Haiku 4.5"] == 40_000


def test_reads_that_repay_a_write():
    assert [say(edge) for edge in claims()["reads"].break_even] == ["0.28 reads", "1.11 reads"]


def test_figures_are_rounded_only_to_be_shown():
    assert decimal(Fraction(1, 3), 4) == "0.3333"
    assert decimal(Fraction(37), 4) == "37"
    assert decimal(Fraction(1, 400), 2) == "0"


def run(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "--article", *map(str, argv)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_the_command(capsys, tmp_path):
    page = tmp_path / "article.html"
    code, out, _ = run(capsys, "--output-share", "0.1", "--json", "--html", page)
    answer = json.loads(out)
    assert code == 0
    tickets = answer["claims"][0]
    assert (answer["output_share"], tickets["verdict"]) == ("0.1", "one reading")
    assert {"when": "10 % output", "unit": "usd", "value": "51.8", "agrees": False} in tickets["figures"]
    assert page.read_text(encoding="utf-8").count("bgcolor=") > 1  # bars
    code, out, _ = run(capsys)
    assert (code, "break-even" in out, "$37.00" in out) == (0, True, True)


@pytest.mark.parametrize("share", ["1.1", "-0.1", "much", "nan"])
def test_a_share_that_is_none(capsys, share):
    code, out, err = run(capsys, f"--output-share={share}")
    assert (code, out, err.count("\n")) == (2, "", 1)
