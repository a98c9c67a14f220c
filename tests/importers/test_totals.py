"""Control totals: the same however a report is written down, exact to the picodollar, and no usage."""

import ast
import json
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farthing.api import import_paths
from farthing.importers import Reject, anthropic_usage, cloudwatch
from farthing.ledger import Ledger
from farthing.usage import Total

MAKE = runpy.run_path(str(Path(__file__).parent / "generate_totals.py"))
NOW = datetime(2026, 3, 3, tzinfo=UTC)
ONE_MONTH = MAKE["page"](
    [
        MAKE["bucket"](MAKE["DAYS"][0], MAKE["tokens"](1_000, 200, 30, 4, 5, model="claude-opus-4-6")),
        MAKE["bucket"](MAKE["DAYS"][1], MAKE["tokens"](7, 8, model="claude-sonnet-4-6")),
    ]
)


def read(form, content: bytes) -> list[Total | Reject]:
    return list(form.read(enumerate(content.splitlines(), 1)))


def good(form, content: bytes) -> list[Total]:
    found = [item for item in read(form, content) if isinstance(item, Total)]
    assert len(found) == len(read(form, content))
    return found


def totals(form, content: bytes) -> dict[str, int]:
    """What it comes to, by name."""
    sums: dict[str, int] = {}
    for item in good(form, content):
        sums[item.name] = sums.get(item.name, 0) + item.value
    return sums


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(ONE_MONTH),
        json.dumps(ONE_MONTH, indent=2),
        json.dumps(ONE_MONTH, indent="\t", sort_keys=True),
        "\ufeff" + json.dumps(ONE_MONTH, indent=2),
        json.dumps(ONE_MONTH, indent=2).replace("\n", "\r\n"),
        json.dumps([ONE_MONTH], indent=2),
        "\n".join(json.dumps(MAKE["page"]([bucket])) for bucket in ONE_MONTH["data"]),
        "".join(json.dumps(MAKE["page"]([bucket]), indent=2) for bucket in ONE_MONTH["data"]),
        "".join(json.dumps(MAKE["page"]([bucket])) for bucket in ONE_MONTH["data"]),
        "\n".join(json.dumps(bucket) for bucket in ONE_MONTH["data"]),
    ],
)
def test_a_report_is_the_same_however_it_is_written_down(written):
    expected = {"input": 1_007, "output": 208, "cache_read": 30, "cache_write_5m": 4, "cache_write_1h": 5}
    assert anthropic_usage.sniff(written.encode())
    assert totals(anthropic_usage, written.encode()) == expected | {"web_searches": 0}


@pytest.mark.parametrize(
    ("cents", "picodollars"),
    [("123.45", 1_234_500_000_000), ("0.0000000001", 1), ("0", 0), ("1e2", 10**12), (30, 300_000_000_000)],
)
def test_cents_are_exact(cents, picodollars):
    page = MAKE["lines"]([MAKE["page"]([MAKE["bucket"](MAKE["DAYS"][0], MAKE["cost"](cents))])])
    assert totals(anthropic_usage, page) == {"usd": picodollars}


def test_what_is_alike_in_a_bucket_is_added_and_what_a_report_tells_apart_is_not():
    row = MAKE["tokens"]
    page = MAKE["page"]([MAKE["bucket"](MAKE["DAYS"][0], row(1, 1, model="m"), row(2, 2, model="m"),
                                        row(4, 4, model="m", context_window="200k-1M"))])  # fmt: skip
    found = [item for item in good(anthropic_usage, MAKE["lines"]([page])) if item.name == "input"]
    assert sorted(item.value for item in found) == [3, 4]
    assert len({item.said for item in found}) == 2
    assert {item.scope.split()[0] for item in found} == {"messages:context_window+model"}


@pytest.mark.parametrize(
    "names", [("CacheReadInputTokens",), ("CacheReadInputTokenCount", "CacheReadInputTokens")]
)
def test_two_spellings_of_a_metric_are_one_count(tmp_path, names):
    found = [MAKE["series"](MAKE["whole_label"](name, MAKE["PROFILE"]), 500.0) for name in names]
    path = tmp_path / "metrics.json"
    path.write_bytes(MAKE["printed"]({"MetricDataResults": found}))
    ledger = Ledger(tmp_path / "ledger")
    import_paths(ledger, [path], now=NOW)
    assert ledger.totals().project("name, value").fetchall() == [("cache_read", 500)]


def test_reading_again_adds_nothing_and_a_later_count_replaces(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    path = tmp_path / "stream.jsonl"
    record = dict(list(MAKE["stream"]())[1])
    for total, fresh in ((30.0, 1), (30.0, 0), (45.0, 1)):
        path.write_bytes(MAKE["lines"]([record | {"value": {"sum": total}}]) + b"\n" * fresh)
        done = import_paths(ledger, [path], now=NOW.replace(hour=int(total) // 10))
        assert (done.totals, done.errors) == (fresh, [])
    assert ledger.totals().project("value").fetchall() == [(45,)]


def test_totals_are_no_usage(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    done = import_paths(ledger, [Path(__file__).parent / "cloudwatch.metric_data.json"], now=NOW)
    assert (done.totals > 0, done.imported, done.errors) == (True, 0, [])
    assert ledger.rows().fetchall() == []


def test_labels_are_read_in_any_order():
    words = MAKE["whole_label"]("OutputTokenCount", MAKE["PROFILE"]).split()
    found = [good(cloudwatch, MAKE["printed"]({"MetricDataResults": [MAKE["series"](" ".join(order), 5.0)]}))
             for order in (words, words[::-1])]  # fmt: skip
    assert found[0] == found[1]
    (total,) = found[0]
    assert (total.name, total.value, total.account, total.region) == (
        "output",
        5,
        "111122223333",
        "eu-west-1",
    )


# --- the vendor's own reading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cookbook(shared):
    """The functions of Anthropic's cookbook on these reports that only add up what they are given."""
    path = shared / "data/anthropic_admin_api/anthropic-cookbook_usage_cost_api.ipynb"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the shared data")
    wanted = {"analyze_usage_data", "analyze_cost_data"}
    found: dict = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            tree.body = [
                node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted
            ]
            exec(compile(tree, path.name, "exec"), found)
    return found


def test_the_vendors_cookbook_adds_up_to_the_same_tokens(cookbook):
    rows = cookbook["analyze_usage_data"](ONE_MONTH)
    ours = totals(anthropic_usage, json.dumps(ONE_MONTH).encode())
    theirs = {name: sum(row[name] for row in rows) for name in rows[0] if name != "date"}
    assert ours["input"] == theirs["uncached_input_tokens"]
    assert ours["output"] == theirs["output_tokens"]
    assert ours["cache_read"] == theirs["cache_reads"]
    assert ours["cache_write_5m"] + ours["cache_write_1h"] == theirs["cache_creation"]


def test_the_vendors_cookbook_adds_up_to_the_same_money(cookbook):
    for line in MAKE["costs"]().splitlines():
        cents = sum(row["cost_minor_units"] for row in cookbook["analyze_cost_data"](json.loads(line)))
        assert totals(anthropic_usage, line)["usd"] == pytest.approx(cents * 10**10)
