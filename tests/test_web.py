"""The dashboard's pages: each is a report, in JSON and CSV, with its filters, its links and its faults in one line."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from farthing import cli
from farthing.cells import Question, cells, parse_where
from farthing.ledger import Ledger
from farthing.money import usd
from farthing.reports import REPORTS, as_json
from farthing.statement import Statement
from farthing.usage import Facts, Usage
from farthing.web._books import ORDER
from farthing.web._page import PAGES
from farthing.web._static import Assets
from tests import bills, faults
from tests.traffic import MONDAY, usages
from tests.web_server import NOW, Site, site

HOURS = 24 * 10
CONFIG = """
[[budgets]]
name = "search"
usd = 5000
where = ["team=search"]

[[budgets]]
name = "everything"
usd = 1000000

[workloads.nightly]
owner = "Grace"
tags = ["team=nightly"]
deadline = "2d"
allow = ["global"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    ledger = Ledger(folder / "ledger")
    ledger.append(list(usages(hours=HOURS, start=MONDAY)))
    unknown = Facts("bedrock_log", "bedrock", "anthropic.claude-from-tomorrow", region="us-east-1")
    later = int(MONDAY.timestamp() + 86_400) * 1_000_000
    ledger.append([Usage(later, "strange", "", ((unknown, (5, 5, 0, 0, 0)),), (("team", "ads"),))])
    (folder / "farthing.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def served(place):
    with site(place / "ledger", config=place / "farthing.toml") as made:
        yield made


def question(place: Path, *where: str) -> Question:
    from farthing.config import load

    return Question(where=tuple(map(parse_where, where)), config=load(place / "farthing.toml"))


def amounts(rows: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(row["usd"]) for row in rows if row["usd"] is not None), Decimal(0))


# --- every page ------------------------------------------------------------------------------------------------------


def test_every_page_is_there():
    assert sorted(PAGES) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_every_page_has_the_schema(served: Site, name):
    answer = served.get(f"/{name}.json")
    assert answer.status == 200
    said = answer.json
    assert said["page"] == name
    assert said["title"]
    assert (said["tz"], said["currency"]) == ("UTC", "USD")
    assert said["generated_at"] == f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    assert bool(said["tables"]) != ("missing" in said)
    for table in said["tables"].values():
        names = {column["name"] for column in table["columns"]}
        kinds = {column["name"]: column["kind"] for column in table["columns"]}
        assert set(kinds.values()) <= {
            "text",
            "count",
            "usd",
            "money",
            "share",
            "rate",
            "day",
            "time",
            "flag",
        }
        for row in table["rows"]:
            assert names <= row.keys() | {"low_usd", "high_usd", "least_usd", "most_usd"}
            for column, kind in kinds.items():
                if kind == "usd" and row.get(column) is not None:
                    Decimal(row[column])  # exact text, never a float
                if kind == "count" and row.get(column) is not None:
                    assert isinstance(row[column], int)


@pytest.mark.parametrize("name", ORDER)
def test_every_page_is_csv_too(served: Site, name):
    said, answer = served.get(f"/{name}.json").json, served.get(f"/{name}.csv")
    if "missing" in said:
        assert answer.status == 400
        assert answer.json["mend"]
        return
    for table in said["tables"]:
        rows = list(csv.DictReader(io.StringIO(served.get(f"/{name}.csv?table={table}").body.decode())))
        wanted = said["tables"][table]
        assert len(rows) == len(wanted["rows"])
        for column in wanted["columns"]:
            shown = [
                "" if row.get(column["name"]) is None else str(row[column["name"]]) for row in wanted["rows"]
            ]
            assert [row[column["name"]].removeprefix("'") for row in rows] == shown


@pytest.mark.parametrize("name", ORDER)
def test_every_page_is_a_page(served: Site, name):
    answer = served.get(f"/{name}", accept="text/html")
    assert answer.headers["content-type"].startswith(
        ("text/html", "application/json")
    )  # where the browser's part is not built
    assert (
        "'unsafe-inline'"
        not in answer.headers["content-security-policy"].partition("script-src")[2].partition(";")[0]
    )
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_root_leads_to_the_bill(served: Site):
    answer = served.get("/")
    assert (answer.status, answer.headers["location"]) == (307, "/bill")


# --- pages are reports -----------------------------------------------------------------------------------------------


def test_the_bill_is_the_report(served: Site, place):
    said = served.get("/bill.json").json
    report = as_json(REPORTS["bill"].make(Ledger(place / "ledger"), question(place)))
    assert [row["usd"] for row in said["tables"]["waterfall"]["rows"]] == [
        step["usd"] for step in report["waterfall"]
    ]
    assert [
        {k: v for k, v in row.items() if k != "_rows"} for row in said["tables"]["models"]["rows"]
    ] == report["rows"]
    assert said["kpis"][0]["value"] == report["footer"]["usd"]
    assert said["unpriced"] == {"calls": 1, "reasons": report["footer"]["unpriced_reasons"]}
    for table in ("daily", "teams", "models", "flows"):
        assert amounts(said["tables"][table]["rows"]) == Decimal(report["footer"]["usd"])


@pytest.mark.parametrize(
    "where", ["team=search", "model=claude-haiku-*", "mode!=batch", "tag:team=ads,legal"]
)
def test_filters_are_those_of_the_command_line(served: Site, place, where):
    said = served.get("/explore.json", [("keys", "day,team"), ("where", where), ("until", "2026-09-12")]).json
    asked = question(place, where)
    asked = Question(until=date(2026, 9, 12), where=asked.where, config=asked.config)
    report = REPORTS["by"].make(Ledger(place / "ledger"), asked, keys=("day", "team"))
    assert amounts(said["tables"]["groups"]["rows"]) == Decimal(usd(report.footer["usd"]))
    assert len(said["tables"]["groups"]["rows"]) == len(report.rows) > 0
    assert said["question"]["where"] == [where]


def test_links_carry_every_filter_and_lead_to_the_same_money(served: Site):
    query = [("since", "2026-09-08"), ("where", "team!=ads"), ("tz", "Europe/Berlin")]
    said = served.get("/bill.json", query).json
    for table in ("daily", "teams", "models"):
        for row in said["tables"][table]["rows"][:3]:
            path, asked = urlsplit(row["_rows"]).path, parse_qsl(urlsplit(row["_rows"]).query)
            assert path == "/explore"
            assert {("where", "team!=ads"), ("tz", "Europe/Berlin")} <= set(asked)
            found = served.get("/explore.json", asked).json["tables"]
            assert amounts(found["groups"]["rows"]) == Decimal(row["usd"])
            assert amounts(found["rates"]["rows"]) == Decimal(row["usd"])


def test_rates_times_tokens_are_the_cost(served: Site):
    for row in served.get("/explore.json").json["tables"]["rates"]["rows"]:
        assert row["tokens"] * Decimal(row["usd_per_million"]) / 10**6 == Decimal(row["usd"])


def test_calls_are_told_one_by_one(served: Site, place):
    query = [("keys", "team"), ("where", "team=legal"), ("calls", "40")]
    seen: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    path = "/explore.json"
    while path:
        said = served.get(path, query).json
        groups = said["tables"]["groups"]["rows"]
        rows = said["tables"]["calls"]["rows"]
        assert len(rows) <= 40
        seen += rows
        path, query = (said["next"].replace("/explore?", "/explore.json?"), []) if said["next"] else ("", [])
    assert len({row["id"] for row in seen}) == len(seen) == groups[0]["calls"]
    assert amounts(seen) == Decimal(groups[0]["usd"])
    assert [row["at"] for row in seen] == sorted((row["at"] for row in seen), reverse=True)
    assert {row["team"] for row in seen} == {"legal"}
    assert all(row["card"].startswith("bedrock/claude-opus-4-6/regional") for row in seen)


def test_a_call_without_a_price_says_why(served: Site):
    said = served.get(
        "/explore.json", [("where", "model=anthropic.claude-from-tomorrow"), ("calls", "5")]
    ).json
    (row,) = said["tables"]["calls"]["rows"]
    assert row["usd"] is None
    assert "claude-from-tomorrow" in row["why"]


def test_a_call_taken_back_is_not_told(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    facts = Facts("claude_code", "bedrock", "global.anthropic.claude-sonnet-4-6", region="us-east-1")
    at = int(MONDAY.timestamp()) * 1_000_000
    ledger.append([Usage(at, "r1", "m1", ((facts, (9, 1, 0, 0, 0)),), sidechain=True)])
    ledger.append([Usage(at, "r1", "m1", ((facts._replace(source="bedrock_log"), (10, 2, 0, 0, 0)),))])
    with site(tmp_path / "ledger") as made:
        rows = made.get("/explore.json?calls=9").json["tables"]["calls"]["rows"]
    assert [(row["id"], row["input"], row["output"]) for row in rows] == [("r1", 10, 2)]


def test_no_page_says_what_was_prompted(served: Site):
    """Columns are names, counts and money; nothing of a page is longer than a name."""
    for name in ORDER:
        for table in served.get(f"/{name}.json?").json["tables"].values():
            for row in table["rows"]:
                texts = [
                    v for k, v in row.items() if isinstance(v, str) and k not in ("before", "after", "_rows")
                ]
                assert all(len(text) < 1_000 for text in texts)


def test_why_sums_to_the_difference(served: Site, place):
    said = served.get(
        "/why.json", [("from", "2026-09-07..2026-09-09"), ("to", "2026-09-10..2026-09-12")]
    ).json
    rows = said["tables"]["steps"]["rows"]
    steps = sum(Decimal(row["usd"]) for row in rows[1:-1])
    assert Decimal(rows[0]["usd"]) + steps == Decimal(rows[-1]["usd"])
    asked = parse_qsl(urlsplit(rows[0]["_rows"]).query)
    assert amounts(served.get("/explore.json", asked).json["tables"]["groups"]["rows"]) == Decimal(
        rows[0]["usd"]
    )


def test_endpoints_and_batch_come_to_the_bill(served: Site):
    whole = Decimal(served.get("/bill.json").json["footer"]["usd"])
    for name in ("endpoints", "batch"):
        assert amounts(served.get(f"/{name}.json").json["tables"][name]["rows"]) == whole


def test_the_premium_is_a_tenth_of_what_regional_endpoints_cost(served: Site):
    rows = served.get("/endpoints.json").json["tables"]["endpoints"]["rows"]
    (legal,) = (row for row in rows if row["model"] == "claude-opus-4-6")
    assert legal["endpoint"] == "regional"
    assert Decimal(legal["premium_usd"]) * 11 == Decimal(legal["usd"])
    assert all(Decimal(row["premium_usd"]) == 0 for row in rows if row["endpoint"] == "global" and row["usd"])


def test_a_premium_over_what_is_not_sold_is_unknown(tmp_path):
    old = Facts("bedrock_log", "bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", region="us-east-1")
    at = int(MONDAY.timestamp()) * 1_000_000
    Ledger(tmp_path / "ledger").append([Usage(at, "r", "", ((old, (1_000, 10, 0, 0, 0)),))])
    with site(tmp_path / "ledger") as made:
        said = made.get("/endpoints.json").json
    (row,) = said["tables"]["endpoints"]["rows"]
    assert Decimal(row["usd"]) > 0
    assert row["premium_usd"] is None
    assert said["kpis"][0]["value"] is None
    assert "none at a global endpoint" in said["notes"][0]


def test_budgets_are_those_of_the_file(served: Site):
    said = served.get("/budgets.json").json
    assert [row["budget"] for row in said["tables"]["budgets"]["rows"]] == ["search", "everything"]


def test_prices_show_models_in_use_and_the_dates_of_their_rates(served: Site):
    tables = served.get("/prices.json").json["tables"]
    assert {row["model"] for row in tables["now"]["rows"]} == {
        "claude-sonnet-4-6",
        "claude-haiku-4-5",
        "claude-opus-4-6",
    }
    first = [
        row
        for row in tables["history"]["rows"]
        if (row["model"], row["endpoint"]) == ("claude-sonnet-4-6", "global")
    ]
    assert {row["meter"]: row["usd_per_million"] for row in first if row["platform"] == "bedrock"} == {
        "input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
    }  # fmt: skip


def test_cache_gaps_count_every_call_that_follows_one(served: Site, place):
    tables = served.get("/cache.json").json["tables"]
    gaps = tables["gaps"]["rows"]
    assert [row["from_s"] for row in gaps] == [0, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 86400]
    found = cells(Ledger(place / "ledger"), question(place), ("day",))
    last = sorted({cell.keys[0] for cell in found})[-7:]
    calls = sum(cell.calls for cell in found if cell.keys[0] in last)
    assert calls - 10 <= sum(row["calls"] for row in gaps) < calls  # all but the first of each caller
    read = sum(cell.tokens.cache_read for cell in found)
    assert sum(row["cache_read"] for row in tables["days"]["rows"]) == read > 0


def test_reconcile_wants_a_bill(served: Site):
    missing = served.get("/reconcile.json").json["missing"]
    assert "--statement" in missing["mend"]


def test_reconcile_names_every_dollar(tmp_path, shared):
    rates = bills.Rates(shared / "facts" / "rates.json")
    month = faults.month(random.Random(5), rates, date(2026, 9, 1))
    month.apart.append(bills.apart("Tax", "3.25"))
    Ledger(tmp_path / "ledger").append(month.usages())
    bill = [str(month.write(tmp_path / "cur.csv"))]
    with site(tmp_path / "ledger", statement_of=lambda _: Statement(bill)) as made:
        said = made.get("/reconcile.json").json
        filtered = made.get("/reconcile.json?where=model%3Dx").json
    sides = {row["side"]: Decimal(row["usd"]) for row in said["tables"]["sides"]["rows"]}
    assert sides["AWS's"] - sides["ours"] == sides["difference"] == Decimal("3.25")
    assert [(row["cause"], row["usd"]) for row in said["tables"]["causes"]["rows"]] == [
        ("apart: tax", "3.25")
    ]
    assert said["span_compared"] == {"since": "2026-09-01", "until": "2026-09-30"}
    assert "take the filters away" in filtered["missing"]["mend"]


def test_another_currency_stands_beside_by_the_rate_of_each_day(place, tmp_path):
    (tmp_path / "rates.csv").write_text("date,currency,per_usd\n2026-09,EUR,0.5\n")
    (tmp_path / "farthing.toml").write_text('fx = "rates.csv"\n')
    with site(place / "ledger", config=tmp_path / "farthing.toml") as made:
        said = made.get("/bill.json?currency=EUR").json
        stays = made.get("/savings.json?currency=EUR").json
        fault = made.get("/bill.json?currency=GBP")
    for table in ("waterfall", "daily", "teams", "models"):
        rows = said["tables"][table]["rows"]
        assert {"name": "eur", "title": "eur", "kind": "money"} in said["tables"][table]["columns"]
        assert all(
            abs(Decimal(row["eur"]) * 2 - Decimal(row["usd"])) < Decimal("1e-9") for row in rows if row["usd"]
        )
    assert said["currency"] == said["footer"]["currency"] == "EUR"
    assert said["kpis"][0]["kind"] == "money"
    assert any("in USD" in note for note in stays["notes"])
    assert (fault.status, "GBP" in fault.json["error"]) == (400, True)


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/bill.json?since=2026-13-01", 400, "is no day"),
        ("/bill.json?since=2026-09-09&until=2026-09-08", 400, "turn them round"),
        ("/bill.json?where=colour%3Dred", 400, "cannot filter by"),
        ("/bill.json?tz=Mars/Olympus", 400, "unknown time zone"),
        ("/bill.json?assume=ttl%3D2h", 400, "5m or 1h"),
        ("/bill.json?currency=EUR", 400, "needs rates"),
        ("/bill.json?since=2026-09-08&since=2026-09-09", 400, "twice"),
        ("/bill.json?colour=red", 400, "no parameter 'colour'"),
        ("/bill.csv?table=none", 400, "no table 'none'"),
        ("/explore.json?keys=colour", 400, "cannot group by 'colour'"),
        ("/explore.json?calls=many", 400, "calls 'many'"),
        ("/explore.json?calls=5&after=x", 400, "after 'x'"),
        ("/why.json?from=yesterday", 400, "from 'yesterday'"),
        ("/nowhere.json", 404, "/bill, explore".removeprefix("/")),
        ("/a/b/c", 404, "no page"),
        ("/static/../app.py", 404, "no such file"),
        ("/static/%2e%2e/app.py", 404, "no such file"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_mend(served: Site, path, status, said):
    answer = served.get(path)
    assert answer.status == status
    assert set(answer.json) == {"error", "mend"}
    assert said in " ".join(answer.json.values())
    assert all(value and "\n" not in value for value in answer.json.values())


def test_who_came_with_a_browser_is_told_on_a_page(served: Site, monkeypatch, tmp_path):
    lost = served.get("/nowhere", accept="text/html,*/*")
    assert (lost.status, lost.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"<p>No page nowhere.</p>" in lost.body
    (tmp_path / "index.html").touch()  # a clone in which `make web` never ran
    monkeypatch.setattr(served.web, "assets", Assets(tmp_path))
    bare = served.get("/bill", accept="text/html")
    assert (bare.status, b"<code>make web</code>" in bare.body) == (404, True)


def test_another_name_for_this_machine_is_not_answered(served: Site):
    """A page elsewhere that makes its own name lead here reads nothing."""
    assert served.get("/bill.json", host="evil.example").status == 421
    assert served.get("/bill.json", host=f"localhost:{served.port}").status == 200


def test_names_that_a_spreadsheet_would_run_are_quoted(tmp_path):
    facts = Facts(
        "claude_code", "bedrock", "global.anthropic.claude-sonnet-4-6", region="us-east-1", project="=1+1"
    )
    Ledger(tmp_path / "ledger").append(
        [Usage(int(MONDAY.timestamp()) * 1_000_000, "r", "", ((facts, (9, 1, 0, 0, 0)),))]
    )
    with site(tmp_path / "ledger") as made:
        assert "'=1+1" in made.get("/explore.csv?keys=project").body.decode()


def test_an_empty_ledger_has_pages_too(tmp_path):
    Ledger(tmp_path / "ledger")
    with site(tmp_path / "ledger") as made:
        for name in ORDER:
            assert made.get(f"/{name}.json").status == 200


# --- files, freshness, the command -----------------------------------------------------------------------------------


def test_files_are_known_again(served: Site):
    folder = served.web.assets.folder
    names = [path.name for path in sorted(folder.glob("*.js"))] if folder.is_dir() else []
    if not names:
        pytest.skip("the browser's part was not built: make web")
    plain = served.get(f"/static/{names[0]}")
    packed = served.get(f"/static/{names[0]}", accept_encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body)
    assert served.get(f"/static/{names[0]}", if_none_match=plain.headers["etag"]).status == 304


def test_new_calls_appear(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(list(usages(hours=20)))
    with site(tmp_path / "ledger", fresh_s=0) as made:
        before = made.get("/bill.json").json
        ledger.append(list(usages(hours=30, first=20)))
        after = made.get("/bill.json").json
    assert after["kpis"][1]["value"] > before["kpis"][1]["value"]
    assert after["ledger_version"] != before["ledger_version"]


def test_many_at_once_are_told_the_same(tmp_path):
    """Threads that ask all pages while calls come in: each answer is of some state of the ledger, and none fails."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(list(usages(hours=24)))
    paths = [f"/{name}.json?where=mode%3D{mode}" for name in ORDER for mode in ("batch", "on_demand")]
    with site(tmp_path / "ledger", fresh_s=0) as made, ThreadPoolExecutor(6) as threads:
        answers = threads.map(made.get, paths * 2)
        for hour in range(24, 30):
            ledger.append(list(usages(hours=hour + 1, first=hour)))
        assert {answer.status for answer in answers} == {200}
        last = made.get("/bill.json?where=mode%3Dbatch").json
    found = cells(Ledger(tmp_path / "ledger"), Question(where=(parse_where("mode=batch"),)))
    assert last["footer"]["usd"] == usd(sum(cell.cost for cell in found))


def test_without_a_ledger_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["web", "--no-open", "--port", "0", "--ledger", "none"])
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (2, 1)
    assert "farthing import" in said
    assert "--demo" in said


def test_the_command_serves_and_ends(place, tmp_path):
    command = [
        sys.executable,
        "-m",
        "farthing",
        "web",
        "--port",
        "0",
        "--no-open",
        "--ledger",
        str(place / "ledger"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}
    ) as made:
        try:
            assert made.stdout is not None
            url = json.loads(made.stdout.readline())["listening"]
            with urllib.request.urlopen(f"{url}/bill.json", timeout=60) as answer:
                assert json.load(answer)["page"] == "bill"
            begun = time.monotonic()
            made.send_signal(signal.SIGTERM)
            assert made.wait(timeout=10) == 0
            assert time.monotonic() - begun < 8
        finally:
            made.kill()


def test_a_name_with_stars_and_commas_leads_to_its_calls_alone(tmp_path):
    names = ("*", "a*", "ab", "?", "[*]", "x", "a,b", ",", "[a,", "a.b")
    facts = Facts("bedrock_log", "bedrock", "global.anthropic.claude-sonnet-4-6", region="us-east-1")
    at = int(MONDAY.timestamp()) * 1_000_000
    Ledger(tmp_path / "ledger").append(
        [
            Usage(at + i, name, "", ((facts, (i + 1, 0, 0, 0, 0)),), (("team", name),))
            for i, name in enumerate(names)
        ]
    )
    with site(tmp_path / "ledger") as made:
        rows = made.get("/explore.json?keys=team").json["tables"]["groups"]["rows"]
        assert {row["team"] for row in rows} == set(names)
        for row in rows:
            path = row["_rows"].replace("/explore?", "/explore.json?")
            calls = made.get(path).json["tables"]["calls"]["rows"]
            assert [call["team"] for call in calls] == [row["team"]]
        asked = Question(where=(parse_where("team=[*],[?]"),))
        slow = REPORTS["by"].make(Ledger(tmp_path / "ledger"), asked, keys=("team",))
    assert {row["team"] for row in slow.rows} == {"*", "?"}
