"""A month on one page: what it says is what the reports say, it asks for nothing, and it survives mail and paper."""

import html
import json
import re
import shutil
import sys
from datetime import UTC, date, datetime
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from farthing import cli, demo
from farthing.api import import_paths
from farthing.book import default_book
from farthing.cells import Question
from farthing.cli import _pdf, _showcase
from farthing.config import load
from farthing.fx import Rates, amount
from farthing.ledger import Ledger
from farthing.money import show
from farthing.reports import _draw as draw
from farthing.reports import bill, by
from farthing.statement import Statement
from farthing.usage import Facts, Usage
from farthing.web import _report
from farthing.web._page import View

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER = date(2026, 10, 1), date(2026, 10, 31)
EVIL = "</title><script>alert('x')</script>&\"'<img src=x onerror=y>\u202etfel"


class Page(HTMLParser):
    """The text of a page, its lines, and everything by which it could ask for something."""

    def __init__(self, text):
        super().__init__()
        self.asks: list[str] = []
        self.open: list[str] = []
        self.lines: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe", "object", "form", "base", "embed"):
            self.asks.append(tag)
        self.asks += [
            f"{name}={value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "background") or name.startswith("on")
        ]
        if tag in ("tr", "h1", "h2", "p", "li", "text", "title"):
            self.lines.append([])
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.lines[-1].append(data.strip())


def undrawn(page: str) -> str:
    """Without drawings, of which some lie in others."""
    while "<svg" in page:
        page = re.sub(r"<svg(?:(?!<svg).)*?</svg>", "", page, flags=re.DOTALL)
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A month with its bill, and a farthing.toml whose workloads allow something."""
    made = tmp_path_factory.mktemp("month")
    demo.write_logs(made / "logs", calls=500, seed=7)
    (made / "farthing.toml").write_text(_showcase.CONFIG, encoding="utf-8")
    ledger = Ledger(made / "ledger")
    import_paths(ledger, [made / "logs"], now=NOW)
    (made / "bill.csv").write_bytes(_showcase.bill_of(ledger))
    return made


def view(folder, *, billed=False, **more) -> View:
    asked = Question(*OCTOBER, config=load(folder / "farthing.toml"))
    found = (
        Statement([folder / "bill.csv"], book=default_book(), since=OCTOBER[0], until=OCTOBER[1])
        if billed
        else None
    )
    given: dict[str, Any] = {
        "policy": str(folder / "farthing-policy.toml"),
        "statement": lambda: found,
    } | more
    return View(given.pop("ledger", Ledger(folder / "ledger")), asked, NOW, **given)


@pytest.fixture(scope="module")
def made(folder):
    return _report.month(view(folder, billed=True))


@pytest.fixture(scope="module")
def page(made):
    return _report.to_html(made)


@pytest.fixture
def run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", "--ledger", "ledger", *map(str, words)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


# --- what it says ----------------------------------------------------------------------------------------------------


def test_it_reads_as_it_did(page, golden):
    """But for the drawings, whose figures stand in tables."""
    text = "\n".join(filter(None, (" | ".join(line) for line in Page(undrawn(page)).lines)))
    golden("tests/golden/report.txt", re.sub(r"([Pp])rice book \w{12}", r"\1rice book ...", text) + "\n")


def test_it_is_the_same_bytes_for_the_same_usage(page, folder):
    assert _report.to_html(_report.month(view(folder, billed=True))) == page


def test_its_figures_are_those_of_the_reports(page, folder):
    ledger, asked = Ledger(folder / "ledger"), Question(*OCTOBER, config=load(folder / "farthing.toml"))
    lines = [" | ".join(line) for line in Page(page).lines]
    table = bill(ledger, asked)
    for step in table.parts["waterfall"]:
        assert any(step["label"] in line and show(step["usd"]) in line for line in lines), step
    for row in (*by(ledger, asked, ["team"]).rows, *by(ledger, asked, ["day"]).rows):
        name = row.get("team") or row["day"]
        assert any(line.startswith(f"{name} | ") and show(row["usd"]) in line for line in lines), row
    footer = table.footer
    assert (
        f"{show(footer['assumed_usd'])} of it is assumed; {footer['unpriced']:,} calls have no price" in page
    )
    for reason in footer["unpriced_reasons"]:
        assert reason in html.unescape(page)


def test_the_bill_and_its_causes_are_there_if_one_was_named(made, page, folder):
    assert made.billed
    causes = made.billed.tables["causes"].rows
    listed = re.search(r"<h2>Against the AWS bill.*?</section>", html.unescape(page), re.DOTALL)
    assert listed
    for name in {cause["cause"] for cause in causes}:
        assert listed[0].count(f">{name}<") == 1  # one row each, however many lines of a bill show it
        assert amount(sum(cause["usd"] for cause in causes if cause["cause"] == name)) in listed[0]
    alone = _report.to_html(_report.month(view(folder), advised=False))
    for title in ("Against the AWS bill", "Savings found", "Advice"):
        assert f"<h2>{title}</h2>" in page
        assert f"<h2>{title}</h2>" not in alone


def test_money_in_another_currency(folder):
    rates = Rates("fx.csv", "d" * 12, {"EUR": {"2026-10": Fraction(2)}})
    text = _report.to_html(_report.month(view(folder, rates=rates, currency="EUR"), advised=False))
    ledger = Ledger(folder / "ledger")
    total = bill(ledger, Question(*OCTOBER)).parts["waterfall"][-1]["usd"]
    assert show(2 * total).replace("$", "€") in text
    assert "; in EUR; " in text


# --- what it is ------------------------------------------------------------------------------------------------------


def test_it_asks_for_nothing_and_runs_nothing(page):
    assert Page(page).asks == []
    assert not re.search(r"@import|url\(|https?:|javascript:", page)


def test_charts_and_tables_survive_what_mail_programs_take_away(page):
    """Styles in the head and drawings go: what is left has every figure, aligned, with bars, and is not cut."""
    left = re.sub(r"<style>.*?</style>", "", undrawn(page), flags=re.DOTALL)
    days = re.search(r"<h2>Day by day</h2>.*?</section>", left, re.DOTALL)
    assert days
    assert len(re.findall(r"<td[^>]*>2026-10-\d\d</td>", days[0])) == 31
    assert days[0].count("bgcolor=") == 31
    assert "style=text-align:right" in left
    assert len(page.encode()) < 102_000  # Gmail shows no more


def test_names_cannot_break_out(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    facts = Facts("outbox", "bedrock", f"anthropic.{EVIL}", region="us-east-1", account="1", principal=EVIL)
    priced = facts._replace(model_id="anthropic.claude-opus-4-8")
    at = int(datetime(2026, 10, 2, tzinfo=UTC).timestamp()) * 1_000_000
    tags = (("team", EVIL),)
    ledger.append(
        [
            Usage(at, f"r{n}", "", ((each, (10**6, 10, 0, 0, 0)),), tags)
            for n, each in enumerate((facts, priced))
        ]
    )
    (tmp_path / "farthing.toml").touch()
    text = _report.to_html(_report.month(view(tmp_path, ledger=ledger, scope=(EVIL,))))
    assert Page(text).asks == []
    assert text.count(html.escape(EVIL.replace("\u202e", "\ufffd"))) > 2  # what turns text round is seen
    assert EVIL not in text
    assert "\u202e" not in text


def test_a_month_of_no_priced_call_is_not_free(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    at = int(datetime(2026, 10, 2, tzinfo=UTC).timestamp()) * 1_000_000
    ledger.append([Usage(at, "r", "", ((Facts("outbox", "bedrock", "anthropic.x"), (10, 10, 0, 0, 0)),))])
    (tmp_path / "farthing.toml").touch()
    text = _report.to_html(_report.month(view(tmp_path, ledger=ledger)))
    assert "1 calls have no price and are in no figure" in text
    assert "unpriced" in text


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(0, [0, 1]), (7, [0, 2, 4, 6, 8]), (10**12, [n * 2 * 10**11 for n in range(6)]), (1, [0, 1])],
)
def test_an_axis_ends_at_or_above_the_dearest(most, ticks):
    assert draw._ticks(most) == ticks


def test_bands_beyond_the_colours_are_one_and_nothing_is_lost():
    found = {f"m{n}": {"a": n, "b": 1} for n in range(20)}
    series = draw.fold(found, ["a", "b"])
    assert len(series) == len(draw.SERIES)
    assert series[-1].name == draw.OTHERS
    assert [sum(values[at] for _, values in series) for at in (0, 1)] == [190, 20]


def test_a_flow_is_as_wide_as_it_is_dear():
    drawn = draw.flows({("a", "x"): 300, ("a", "y"): 100, ("b", "y"): 0}, "says")
    widths = [int(part) for part in re.findall(r"v(\d+)C", drawn)]
    assert widths == [525, 175]  # of 700, in proportion to 300 and 100


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_last_month_goes_into_a_file_of_its_name(run, folder):
    code, out, err = run("--no-savings")
    assert (code, out) == (0, "")
    assert err.endswith("written to farthing-2026-10.html\n")
    assert "<h1>Claude on Amazon Bedrock, October 2026</h1>" in (folder / "farthing-2026-10.html").read_text()


def test_days_and_stdout(run):
    code, out, _ = run("--since", "2026-10-05", "--until", "2026-10-06", "--no-savings", "--out", "-")
    assert code == 0
    assert "<h1>Claude on Amazon Bedrock, 2026-10-05 to 2026-10-06</h1>" in out
    assert "2026-10-07" not in out


def test_a_teams_page_has_no_other_team_in_it(run, folder):
    code, out, _ = run("--team", "search-rag", "--out", "-", "--config", "farthing.toml")
    assert code == 0
    assert "<h1>search-rag: Claude on Amazon Bedrock, October 2026</h1>" in out
    ledger = Ledger(folder / "ledger")
    others = {row["team"] for row in by(ledger, Question(), ["team"]).rows} - {"search-rag"}
    assert len(others) > 5
    assert [name for name in others if name in out] == []


def test_as_json_with_the_bill(run):
    code, out, _ = run("--json", "--statement", "bill.csv", "--no-savings", "--month", "2026-10")
    said = json.loads(out)
    assert code == 0
    assert said.keys() == {"title", "bill", "reconcile", "prices"}
    assert said["bill"]["tables"]["waterfall"]["rows"][-1]["usd"] == said["reconcile"]["kpis"][0]["value"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--month", "2026-13"), "--month '2026-13': write 2026-10"),
        (
            ("--month", "2026-12"),
            "no usage in December 2026 that fits: the ledger has 2026-10-01 to 2026-10-31",
        ),
        (("--month", "2026-10", "--since", "2026-10-02"), "say the month or the days"),
        (("--team", "nobody"), "--team 'nobody': no usage of it; there are analytics, "),
        (("--where", "model=gpt"), "no usage in October 2026 that fits"),
        (("--csv",), "--csv: each report has its own"),
        (("--shared",), "--shared: advice names the roles that call"),
        (("--no-savings", "--out", "nowhere/x.html"), "--out nowhere/x.html: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(run, words, fault):
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert fault in err


def test_pdf_without_a_browser_says_what_to_install(run, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, err = run("--pdf")
    assert (code, out) == (2, "")
    assert (
        err
        == "farthing: --pdf needs Chromium on the PATH: apt-get install chromium, or print the HTML to a file\n"
    )


def test_pdf_of_a_browser_that_fails_says_so(tmp_path, monkeypatch):
    (tmp_path / "chromium").write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no display')\n")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="chromium ended with 1 and no PDF: no display"):
        _pdf.to_pdf("<p>")


@pytest.mark.skipif(not any(map(shutil.which, _pdf.BROWSERS)), reason="no Chromium: apt-get install chromium")
def test_pdf_has_sheets(run, folder):
    code, _, err = run("--pdf", "--html", "--no-savings", "--out", "both.html")
    assert code == 0, err
    made = Path(folder / "both.pdf").read_bytes()
    assert made.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", made)) > 2
    assert (folder / "both.html").is_file()
