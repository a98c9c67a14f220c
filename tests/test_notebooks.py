"""Results where people work: reports and pages show themselves, and the worked notebook says what it said."""

import html
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

import farthing
from farthing import demo, estimate
from farthing.book import default_book
from farthing.money import show
from farthing.reports import as_json, bill, by, daily
from farthing.usage import Facts, Usage

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "cost-of-a-month.ipynb"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER = farthing.Question(date(2026, 10, 1), date(2026, 10, 31))
EVIL = "<script>alert('x')</script>&\"'"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("month")
    demo.write_logs(folder / "logs", calls=400, seed=11)
    made = farthing.Ledger(folder / "ledger")
    farthing.import_paths(made, [folder / "logs"], now=NOW)
    return made


def shown(result) -> tuple[str, str]:
    """What a notebook is given: HTML and a line, by the protocol of IPython, which marimo speaks too."""
    bundle = result._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/html", "text/plain"}
    return bundle["text/html"], bundle["text/plain"]


def words(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_a_report_shows_all_that_it_says(ledger):
    table = bill(ledger, OCTOBER)
    page, line = shown(table)
    total = table.parts["waterfall"][-1]["usd"]
    assert show(total) in words(page)
    for row in table.rows:
        assert row["model"].rsplit(":", 1)[-1] in page
        assert (show(row["usd"]) if row["usd"] is not None else "unpriced") in page
    for step in table.parts["waterfall"]:
        assert step["label"] in page
    assert f"price book {OCTOBER.book.digest}" in page  # the footer
    assert line == f"The bill: {len(table.rows)} rows, ${as_json(table)['footer']['usd']}"


def test_days_are_a_chart_whose_bars_are_as_high_as_they_are_dear(ledger):
    table = daily(ledger, OCTOBER)
    page, _ = shown(table)
    heights = [
        int(part.replace(".", "")) for part in re.findall(r'height="([\d.]+)%"', page) if part != "100"
    ]
    costs = [row["usd"] for row in table.rows]
    assert len(heights) == len(costs)
    for height, cost in zip(heights, costs, strict=True):
        assert abs(height * max(costs) - cost * max(heights)) <= 2 * max(
            costs
        )  # to a thousandth of the chart
    assert "<svg" in page


@pytest.mark.parametrize("keys", [["team"], ["tag:team", "model"], ["model", "meter"]])
def test_what_has_no_day_has_bars_in_its_rows(ledger, keys):
    table = by(ledger, OCTOBER, keys)
    page, _ = shown(table)
    assert "<svg" not in page
    dear = [row["usd"] for row in table.rows[:31] if row["usd"]]
    assert page.count('role="presentation"') == len(dear)


def test_it_sets_no_colours_of_text_or_ground(ledger):
    """A dark notebook stays dark: what is coloured is bars and keys of legends."""
    for table in (bill(ledger, OCTOBER), daily(ledger, OCTOBER, breakdown=True)):
        page, _ = shown(table)
        assert "background:none" in page
        assert not re.search(r"background:(?!none)|<style|class=.card", page)
        assert re.findall(r'[^-]color:(?!#[0-9a-f]{6}">&#9632;)', page) == []
        assert set(re.findall(r"<text[^>]* fill=\"(\w+)\"", page)) <= {"currentColor"}


def test_names_are_text(tmp_path):
    ledger = farthing.Ledger(tmp_path / "ledger")
    facts = Facts("outbox", "bedrock", f"anthropic.{EVIL}", region="us-east-1", account="1", session=EVIL)
    at = int(datetime(2026, 10, 2, tzinfo=UTC).timestamp()) * 1_000_000
    ledger.append([Usage(at, f"r{n}", "", ((facts, (10, 10, 0, 0, 0)),), (("team", EVIL),)) for n in (1, 2)])
    results = [
        by(ledger, OCTOBER, ["day", "tag:team"]),
        by(ledger, OCTOBER, ["session"]),
        bill(ledger, OCTOBER),
    ]
    for result in (*results, farthing.page("bill", ledger, OCTOBER, now=NOW)):
        page, _ = shown(result)
        assert "<script" not in page
        assert "&lt;script&gt;" in page
    frame = results[0].frame()._repr_html_()
    assert "<script" not in frame
    assert "&lt;script&gt;" in frame


def test_pages_of_the_dashboard_show_themselves(ledger):
    found = farthing.page(
        "why", ledger, OCTOBER, now=NOW, from_="2026-10-01..2026-10-10", to="2026-10-11..2026-10-20"
    )
    page, line = shown(found)
    assert "2026-10-01..2026-10-10" in page
    assert line.startswith("Why it moved: ")
    for step in found.tables["steps"].rows[1:-1]:
        assert step["name"] in words(page)
    with pytest.raises(ValueError, match="no page 'bil': there are batch, bill,"):
        farthing.page("bil", ledger)
    with pytest.raises(ValueError, match="no parameter 'team' here: there are none"):
        farthing.page("bill", ledger, team="x")


def test_ways_to_run_a_workload_have_no_sum():
    work = estimate.Workload(requests=10, input_tokens=100, output_tokens=10, model=("claude-haiku-4-5",))
    ways = estimate.scenarios(work, default_book(), NOW)
    page, _ = shown(estimate.table(ways, default_book()))
    first = estimate.cheapest(ways)
    assert first
    assert show(first.monthly or 0) in page
    assert "in all" not in page
    assert "ruled out" in page


def test_the_notebook_runs_and_says_what_it_said(tmp_path, golden):
    """Every cell, in a kernel of its own; `--golden` writes what it says now into the notebook."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    read = nbformat.read(NOTEBOOK, as_version=4)
    made = client.NotebookClient(
        read,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
        record_timing=False,
    ).execute()
    made.metadata.pop("language_info", None)
    outputs = [output for cell in made.cells for output in cell.get("outputs", [])]
    assert [output.output_type for output in outputs if output.output_type != "execute_result"] == []
    for output in outputs:  # a book's name changes with every price that is added
        for kind, text in output.data.items():
            output.data[kind] = re.sub(r"price book \w{12}", "price book ...", text)
    said = "".join(output.data["text/plain"] for output in outputs)
    assert "1,500 calls imported" in said
    assert "(18024600000, 'bedrock/claude-sonnet-4-6/regional/on_demand@2026-03-13')" in said
    golden(NOTEBOOK, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
