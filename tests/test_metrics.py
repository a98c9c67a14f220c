"""Metrics of the ledger; a dashboard and alerts that ask for nothing which is not told; a page that lists all of it."""

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from farthing import cli
from farthing.cells import Question
from farthing.exporters import grafana, prometheus
from farthing.gateway import _metrics
from farthing.ledger import Ledger, SourceFile
from farthing.reports import by
from farthing.usage import EPOCH, Facts, Usage
from tests.gateways import BODY, INVOKE, gateway, message, reply, request, upstream

ROOT = Path(__file__).resolve().parent.parent
NOW = datetime(2026, 10, 14, 15, 30, tzinfo=UTC)
SETTINGS = """
[[budgets]]
name = "all of \\"it\\""
usd = 10
[[budgets]]
name = "search"
usd = 2
where = ["team=search"]
"""


def calls(model: str, endpoint: str, team: str, times: int) -> Iterator[Usage]:
    """One an hour back from NOW."""
    facts = Facts("bedrock_log", "bedrock", f"{endpoint}anthropic.{model}", region="us-east-1")
    for n in range(times):
        at = NOW - timedelta(hours=n, minutes=1)
        name = f"{model}{endpoint}{team}{n}"
        tokens = (3_001, 507, 10_009, 101, 0)
        yield Usage(
            (at - EPOCH) // timedelta(microseconds=1), name, "", ((facts, tokens),), (("team", team),)
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With the settings, and the ledger."""
    made = tmp_path_factory.mktemp("metrics")
    (made / "farthing.toml").write_text(SETTINGS)
    return made


@pytest.fixture(scope="module")
def ledger(folder):
    made = Ledger(folder / "ledger")
    made.append([
        *calls("claude-sonnet-4-6", "us.", "search", 400), *calls("claude-sonnet-4-6", "global.", "chat", 40),
        *calls("claude-opus-4-8", "us.", 'the "new"\\team\n', 3), *calls("claude-nobody-knows", "us.", "chat", 5),
    ])  # fmt: skip
    made.note_files([SourceFile("log.json", 1, 1, "bedrock_log", 448, 2)], NOW - timedelta(hours=1))
    return made


def told(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], Decimal]]:
    """By name and labels, as OpenMetrics and as the older format: they must agree."""
    series: dict[str, dict[tuple[tuple[str, str], ...], Decimal]] = {}
    for family in openmetrics.text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            series.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = Decimal(
                str(sample.value)
            )
    older = [sample.name for each in text_string_to_metric_families(text) for sample in each.samples]
    assert set(older) == series.keys()
    return series


def test_the_sums_are_those_of_the_reports(ledger):
    question = Question()
    series = told(prometheus.text(ledger, question, NOW, [prometheus.Budget("x", 3, 4)], "1.0"))
    for name, since in (("day", NOW.date()), ("month", NOW.date().replace(day=1))):
        asked = Question(since=since, until=NOW.date())
        expected = {
            (("endpoint", row["endpoint"]), ("model", row["model"]), ("team", row["team"])): row["usd"]
            for row in by(ledger, asked, ("model", "endpoint", "team")).rows
            if row["usd"] is not None
        }
        found = series[f"farthing_ledger_{name}_cost_usd"]
        assert {key: round(value * 10**12) for key, value in found.items()} == expected
        assert len(found) == 3
    assert series["farthing_ledger_month_unpriced_calls"] == {(): 5}
    assert series["farthing_ledger_month_tokens"][(("meter", "cache_write_5m"),)] == 101 * (328 + 40 + 3 + 5)
    assert series["farthing_budget_used_ratio"] == {(("budget", "x"),): Decimal("1.333333")}
    last = series["farthing_ledger_last_call_timestamp_seconds"][()]
    assert NOW.timestamp() - float(last) == 60
    assert series["farthing_ledger_last_import_timestamp_seconds"] == {(): int(NOW.timestamp()) - 3600}
    assert series["farthing_ledger_rejected_lines"] == {(): 2}


def test_tags_cannot_flood_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr(prometheus, "MOST_SERIES", 4)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call for n in range(9) for call in calls("claude-opus-4-8", "us.", f"team-{n}", n + 1)])
    series = told(prometheus.text(ledger, Question(), NOW, [], "1.0"))["farthing_ledger_month_cost_usd"]
    assert len(series) == 5
    assert round(sum(series.values()) * 10**12) == by(ledger, Question(), ("model",)).rows[0]["usd"]
    assert series[(("endpoint", "other"), ("model", "other"), ("team", "other"))] > 0


@pytest.fixture
def run(ledger, folder, monkeypatch, capsys):
    """run(*words): exit code, stdout, stderr, in the folder of the settings."""

    def command(*words):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    return command


def test_a_file_for_the_collector_and_budgets_of_the_settings(run, tmp_path):
    out = tmp_path / "farthing.prom"
    assert run("export", "prometheus", out, "--ledger", "ledger") == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["farthing.prom"]
    series = told(out.read_text())
    assert series["farthing_budget_limit_usd"] == {
        (("budget", 'all of "it"'),): 10,
        (("budget", "search"),): 2,
    }
    assert series.keys() >= prometheus.METRICS.keys() - {
        "farthing_ledger_day_cost_usd", "farthing_ledger_month_cost_usd",  # of days that are over
    }  # fmt: skip
    code, _, err = run("export", "prometheus", tmp_path / "no" / "x.prom", "--ledger", "ledger")
    assert (code, len(err.splitlines())) == (2, 1)
    assert run("export", "prometheus", "--since", "2026-10-01", "--ledger", "ledger")[0] == 2


# --- dashboard and alerts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(ledger, tmp_path_factory) -> dict[str, set[str]]:
    """Every name that is told, by the real gateway and by the export, with its labels."""
    answers = [[reply(message())], [reply(b"{}", "500 Oops")]]
    with (
        upstream(lambda _: answers.pop(0) if answers else [reply(message())]) as up,
        gateway(tmp_path_factory.mktemp("outbox"), "--bedrock", up.url, "--no-auth") as made,
    ):
        for _ in range(3):
            made.post(INVOKE, BODY)
        text = made.raw(request("GET", "/metrics")).decode().split("\r\n\r\n", 1)[1]
    found: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    for line in text.splitlines():
        if match := re.match(r"(farthing_\w+)(?:\{(.*)\})? [\d.]+$", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    export = prometheus.text(ledger, Question(), NOW, [prometheus.Budget("x", 1, 1)], "1.0")
    for name, series in told(export).items():
        found[name] = {label for labels in series for label, _ in labels}
    return found | {name: found.get(name, set()) | labels for name, labels in labels_in_code().items()}


def labels_in_code() -> dict[str, set[str]]:
    """Of what no test calls for here: alarms of the cache's guard, denials."""
    labels: dict[str, set[str]] = {}
    for path in (ROOT / "farthing" / "gateway").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add"
            ):
                name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
                if str(name).startswith("farthing_"):
                    labels.setdefault(str(name), set()).update(each.arg or "" for each in node.keywords)
    return labels


def queries() -> list[str]:
    panels = [panel for panel in grafana.dashboard()["panels"] if panel["type"] != "row"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load(grafana.rules())["groups"][0]["rules"]
    return [*asked, *(rule["expr"] for rule in rules)]


def test_every_metric_and_label_that_is_asked_for_is_told(exported):
    for query in queries():
        names = re.findall(r"farthing_\w+", query)
        assert names, query
        missing = [name for name in names if name not in exported]
        assert not missing, query
        labels = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        labels |= set(re.findall(r'(\w+)!?="', query))
        assert labels <= set().union(*(exported[name] for name in names)), query
    legends = {
        (label, target["expr"])
        for panel in grafana.dashboard()["panels"]
        for target in panel.get("targets", [])
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }
    for label, query in legends:
        assert label in set().union(*(exported[name] for name in re.findall(r"farthing_\w+", query))), query


def test_the_dashboard_is_one_that_grafana_lays_out(run):
    code, out, _ = run("export", "grafana")
    board = json.loads(out)
    assert (code, board["uid"]) == (0, "farthing-costs")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_alerts_are_rules_of_prometheus(run):
    code, out, _ = run("export", "alerts")
    rules = yaml.safe_load(out)["groups"][0]["rules"]
    assert code == 0
    assert {rule["alert"] for rule in rules} == {alert.name for alert in grafana.ALERTS}
    for rule in rules:
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_every_metric_is_documented():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in (*prometheus.METRICS, *_metrics._HELP):
        assert f"| `{name}` |" in page, name
    for name in re.findall(r"`(farthing_\w+)`", page):
        assert name in prometheus.METRICS or name in _metrics._HELP, f"{name} is not exported"
