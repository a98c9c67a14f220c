"""A Grafana dashboard and Prometheus' alert rules: over `farthing export prometheus` and the gateway's /metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

UID = "farthing-costs"
_SOURCE = {"type": "prometheus", "uid": "${source}"}


class Panel(NamedTuple):
    """`queries` are PromQL with what the legend says. Width is of 24."""

    title: str
    kind: str  # stat, timeseries, bargauge, table
    unit: str
    width: int
    queries: tuple[tuple[str, str], ...]
    says: str = ""


_HIT_RATE = (
    'sum(farthing_ledger_month_tokens{meter="cache_read"})'
    ' / sum(farthing_ledger_month_tokens{meter!="output"})'
)
LEDGER = "The ledger: `farthing export prometheus`"
GATEWAY = "The gateway: /metrics"

PANELS: dict[str, tuple[Panel, ...]] = {
    LEDGER: (
        Panel("Today", "stat", "currencyUSD", 4, (("sum(farthing_ledger_day_cost_usd)", "today"),)),
        Panel("This month", "stat", "currencyUSD", 4, (("sum(farthing_ledger_month_cost_usd)", "month"),)),
        Panel("Read from the cache", "stat", "percentunit", 4, ((
            _HIT_RATE, "of prompts"),)),
        Panel("Without a price", "stat", "short", 4, (("sum(farthing_ledger_month_unpriced_calls)", "calls"),),
              "Calls of this month that are in no sum."),
        Panel("Assumed", "stat", "currencyUSD", 4, (("sum(farthing_ledger_month_assumed_usd)", "assumed"),),
              "What hangs on assumptions; `farthing bill` names the flag that settles each."),
        Panel("Since the last import", "stat", "s", 4, ((
            "time() - max(farthing_ledger_last_import_timestamp_seconds)", "ago"),)),
        Panel("Today by model", "timeseries", "currencyUSD", 12, ((
            "sum by (model) (farthing_ledger_day_cost_usd)", "{{model}}"),)),
        Panel("This month by team", "bargauge", "currencyUSD", 12, ((
            "sort_desc(sum by (team) (farthing_ledger_month_cost_usd))", "{{team}}"),)),
        Panel("This month by model and endpoint", "bargauge", "currencyUSD", 12, ((
            "sort_desc(sum by (model, endpoint) (farthing_ledger_month_cost_usd))", "{{model}} {{endpoint}}"),)),
        Panel("Budgets", "bargauge", "percentunit", 12, (("farthing_budget_used_ratio", "{{budget}}"),)),
    ),
    GATEWAY: (
        Panel("Dollars an hour", "timeseries", "currencyUSD", 12, ((
            "sum by (model) (rate(farthing_cost_usd_total[5m])) * 3600", "{{model}}"),)),
        Panel("Calls a second", "timeseries", "reqps", 12, ((
            "sum by (state) (rate(farthing_calls_total[5m]))", "{{state}}"),)),
        Panel("Tokens a second", "timeseries", "short", 12, ((
            "sum by (meter) (rate(farthing_tokens_total[5m]))", "{{meter}}"),)),
        Panel("To the first byte", "timeseries", "s", 12, (
            ("histogram_quantile(0.5, sum by (le) (rate(farthing_first_byte_seconds_bucket[5m])))", "median"),
            ("histogram_quantile(0.99, sum by (le) (rate(farthing_first_byte_seconds_bucket[5m])))", "99 %"))),
        Panel("Errors and denials", "timeseries", "reqps", 12, (
            ("sum by (error) (rate(farthing_upstream_errors_total[5m]))", "upstream {{error}}"),
            ("sum by (reason) (rate(farthing_denied_total[5m]))", "denied {{reason}}"))),
        Panel("On their way", "timeseries", "short", 6, (
            ("sum(farthing_open_calls)", "calls"), ("sum(farthing_open_streams)", "streams"))),
        Panel("Held", "timeseries", "currencyUSD", 6, (("sum(farthing_held_usd)", "held"),)),
    ),
}  # fmt: skip


class Alert(NamedTuple):
    name: str
    when: str
    lasts: str
    severity: str
    says: str


ALERTS = (
    Alert("FarthingBudgetOver", "farthing_budget_used_ratio > 1", "0m", "critical",
          "Budget {{ $labels.budget }} is over: {{ $value | humanizePercentage }} of it is used."),
    Alert("FarthingBudgetNearlyUsed", "farthing_budget_used_ratio > 0.9 and farthing_budget_used_ratio <= 1", "0m",
          "warning", "Budget {{ $labels.budget }}: {{ $value | humanizePercentage }} is used."),
    Alert("FarthingUnpricedCalls", "farthing_ledger_month_unpriced_calls > 0", "1h", "warning",
          "{{ $value }} calls of this month have no price and are in no sum: `farthing bill` names them."),
    Alert("FarthingImportOld", "time() - farthing_ledger_last_import_timestamp_seconds > 86400", "1h", "warning",
          "No source was read for {{ $value | humanizeDuration }}: is `farthing sync` still run?"),
    Alert("FarthingExportOld", "time() - farthing_ledger_export_timestamp_seconds > 10800", "0m", "warning",
          "The metrics of the ledger are {{ $value | humanizeDuration }} old."),
    Alert("FarthingCostDoubled",
          "sum(rate(farthing_cost_usd_total[1h])) > 2 * sum(rate(farthing_cost_usd_total[1d] offset 1h))", "30m",
          "warning", "The gateway's cost an hour is more than twice that of the day before."),
    Alert("FarthingUnmeteredCalls", "increase(farthing_unmetered_calls_total[15m]) > 0", "0m", "critical",
          "{{ $value }} calls went on without an intent: the outbox has no room."),
    Alert("FarthingOutboxWaiting", "farthing_outbox_waiting_lines > 0", "10m", "critical",
          "{{ $value }} results wait for room in the outbox."),
    Alert("FarthingPolicyFault", "farthing_policy_fault > 0", "5m", "warning",
          "The policy file cannot be read: what was in force before stays so."),
    Alert("FarthingCacheAlarm", "increase(farthing_cache_alarms_total[1h]) > 0", "0m", "warning",
          "The cache's guard found {{ $labels.kind }} at {{ $labels.entry }}."),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """To be imported into Grafana 10 or newer, which asks for the data source."""
    return {
        "uid": UID,
        "title": "Claude on Bedrock: cost",
        "tags": ["farthing", "cost"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_laid_out()),
    }


def _laid_out() -> Iterator[dict[str, Any]]:
    """Rows of panels, each where there is room."""
    number, y = 0, 0
    for row, panels in PANELS.items():
        number += 1
        yield {"id": number, "type": "row", "title": row, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}  # fmt: skip
        x, y, height = 0, y + 1, 0
        for panel in panels:
            tall = 4 if panel.kind == "stat" else 8
            if x + panel.width > 24:
                x, y = 0, y + height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": tall})
            x, height = x + panel.width, tall
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    now_only = panel.kind != "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "noValue": "nothing told"}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if now_only else {},
        "targets": [
            {
                "refId": chr(65 + i),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": now_only,
            }
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def rules() -> str:
    """A rule file of Prometheus."""
    lines = ["groups:", "  - name: farthing", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {alert.when}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.says)}",
        ]
    return "\n".join(lines) + "\n"
