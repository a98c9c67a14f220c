"""Pages of what could be saved: savings with what is in force, and the prompt cache."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from farthing.cells import cells
from farthing.money import show
from farthing.policy import Entry, PolicyError, instant, load, versions
from farthing.reports import footer, heading
from farthing.web._calls import selected
from farthing.web._page import DAY, Kpi, Page, Row, Sheet, View, page, total
from farthing.web._usage import share

if TYPE_CHECKING:
    from farthing.optimise import Advice, Plan

MOST_ADVICE = 500
GAP_DAYS = 7  # of the end, which tell how far calls are apart
_EDGES_S = (10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 86_400)


def plan_of(view: View) -> Plan:
    """The cheapest plan of the view's calls."""
    from farthing.optimise import savings as planned  # it brings a compiler: a server starts without

    question = view.question
    if view.scope and view.days:  # a plan is of so many days: of theirs, not of the whole ledger's
        first, last = view.days
        question = replace(question, since=max(question.since or first, first), until=question.until or last)
    found: Plan = view.keep("plan", lambda: planned(view.ledger, question))
    return found


# --- savings ---------------------------------------------------------------------------------------------------------


@page("The cheapest plan that owners allow, its proof, and what is in force.", slow=True)
def savings(view: View) -> Page:
    plan = plan_of(view)
    steps: list[Row] = [{"label": "Now", "usd": plan.billed, "lever": ""}]
    steps += [
        {"label": step.lever, "usd": -step.saved.mid, "low_usd": -step.saved.high, "high_usd": -step.saved.low,
         "lever": step.lever}
        for step in plan.waterfall
    ]  # fmt: skip
    steps.append({"label": "With all that is allowed", "usd": plan.advised.mid, "lever": ""})
    tables = {
        "waterfall": Sheet("From now to what is allowed", ("label", "usd", "low_usd", "high_usd"), steps),
        "advice": _advice(view, plan),
        "rules": _rules(plan),
        **_in_force(view),
    }
    return Page(
        "Savings", tables, _kpis(plan), plan.heading, _under(view), plan.notes,
        extra={"policy_path": "" if view.scope else view.policy, "semantics": plan.semantics, "quarter": plan.quarter},
    )  # fmt: skip


def _kpis(plan: Plan) -> list[Kpi]:
    saved = plan.billed - plan.advised.mid
    worth = sum(one.worth.mid for one in plan.workloads)
    ends = (
        ""
        if plan.advised.low == plan.advised.high
        else f"{show(plan.advised.low)} to {show(plan.advised.high)}"
    )
    return [
        Kpi("now", "Now", "usd", plan.billed, f"{plan.since} to {plan.until}"),
        Kpi("allowed", "With all that is allowed", "usd", plan.advised.mid, ends),
        Kpi("saved", "Saved by it", "usd", saved, f"{saved * 100 // plan.billed} %" if plan.billed else ""),
        Kpi("worth", "If owners allowed, and proved, the rest too", "usd", worth),
        Kpi("bound", "Bound", "usd", plan.bound, "the least of any caching, with what is allowed"),
    ]


def _advice(view: View, plan: Plan) -> Sheet:
    columns = (
        "workload", "model", "lever", "says", "saved_usd", "low_usd", "high_usd", "bound_usd", "calibration",
        "permitted", "counts", "why_not", "evidence",
    )  # fmt: skip
    rows = [_advised(view, one) for one in plan.advice[:MOST_ADVICE]]
    kinds = {"permitted": "flag", "counts": "flag"}
    empty = "nothing to advise on this usage"
    return Sheet("Advice", columns, rows, ("workload", "model"), kinds=kinds, empty=empty)


def _advised(view: View, one: Advice) -> Row:
    ends = one.saved
    return {
        "name": advice_name(one), "workload": one.workload, "model": one.model, "lever": one.lever, "says": one.says,
        "saved_usd": ends and ends.mid, "low_usd": ends and ends.low, "high_usd": ends and ends.high,
        "billed_usd": one.billed, "replayed_usd": one.replayed, "bound_usd": one.bound,
        "advised_usd": one.advised and one.advised.mid, "calibration": one.calibration, "sessions": one.sessions,
        "captured": one.captured, "resolved": one.resolved, "permitted": one.permitted, "final": one.final,
        "counts": one.counts, "why_not": one.why_not, "exact": one.exact, "evidence": one.evidence, "risk": one.risk,
        "before": one.change.before, "after": one.change.after, "change": one.change.says,
    }  # fmt: skip


def advice_name(one: Advice) -> str:
    """By which an advice is applied: its workload, model and lever."""
    return f"{one.workload}/{one.model}/{one.lever}"


def _rules(plan: Plan) -> Sheet:
    rows = [
        {"rule": rule.rule, "says": rule.says, "worth_usd": rule.worth.mid, "permitted_usd": rule.permitted.mid,
         "note": rule.note}
        for rule in plan.rules
    ]  # fmt: skip
    columns = ("rule", "says", "worth_usd", "permitted_usd", "note")
    return Sheet("Four rules of thumb, each alone (they overlap)", columns, rows)


def _in_force(view: View) -> dict[str, Sheet]:
    """The policy file: its entries and what they do now, and its versions. It is of all teams, so for those who are."""
    if view.scope:
        return {}
    never = "no policy yet: apply an advice, and it begins"
    history = [
        {
            "version": one.number,
            "at": one.policy.at,
            "by": one.policy.by,
            "what": one.fault or one.policy.what,
        }
        for one in reversed(versions(view.policy))
    ]
    empty = "nothing is in force: what there was is taken back" if history else never
    try:
        entries = [_entry(view, entry) for entry in load(view.policy).entries]
    except PolicyError as error:
        entries, empty = [], str(error)
    columns = ("name", "lever", "workload", "model", "state", "approver", "expires", "now")
    return {
        "policy": Sheet("In force", columns, entries, empty=empty),
        "versions": Sheet("Versions of the policy", ("version", "at", "by", "what"), history, empty=never),
    }


def _entry(view: View, entry: Entry) -> Row:
    said = {
        key: getattr(entry, key)
        for key in ("name", "lever", "workload", "model", "state", "approver", "expires")
    }
    return said | {"now": _now(view, entry)}


def _now(view: View, entry: Entry) -> str:
    if entry.state == "off":
        return "off"
    if not entry.approver:
        return "nobody has approved it"
    if view.now < instant(entry.approved_at):
        return f"begins at {entry.approved_at}"
    if view.now >= instant(entry.expires):
        return "expired"
    return "in shadow" if entry.state == "shadow" else "in force"


def _under(view: View) -> Row:
    return footer(view.ledger, view.question, cells(view.ledger, view.question))


# --- cache -----------------------------------------------------------------------------------------------------------


@page(
    "How much of prompts is read from the cache, how far calls are apart, and what any plan could save.",
    slow=True,
)
def cache(view: View) -> Page:
    found = cells(view.ledger, view.question, ("day",))
    days: dict[str, Row] = {}
    for cell in found:
        row = days.setdefault(cell.keys[0], {"day": cell.keys[0], "prompt": 0, "cache_read": 0, "written": 0})
        row["prompt"] += cell.tokens.prompt
        row["cache_read"] += cell.tokens.cache_read
        row["written"] += cell.tokens.cache_write_5m + cell.tokens.cache_write_1h
    rows = [row | {"share": share(row["cache_read"], row["prompt"])} for _, row in sorted(days.items())]
    plan = plan_of(view)
    counts = {"prompt": "count", "written": "count", "from_s": "count", "to_s": "count", "lost": "count"}
    tables = {
        "days": Sheet(
            "Hit rate by day",
            ("day", "prompt", "cache_read", "written", "share"),
            rows,
            ("day",),
            kinds=counts,
        ),
        "gaps": Sheet(
            "How long after the call before", ("from_s", "to_s", "calls", "tokens"), _gaps(view), kinds=counts
        ),
        "broken": _broken(view, counts),
        "bound": _bound(plan),
    }
    whole = total(rows, "prompt", "cache_read")
    kpis = [
        Kpi(
            "hit_rate",
            "Cache hit rate",
            "share",
            share(whole["cache_read"], whole["prompt"]),
            "of prompt tokens",
        ),
        Kpi("now", "Now", "usd", plan.billed),
        Kpi(
            "bound", "Bound", "usd", plan.bound, "no caching of these calls, with what is allowed, costs less"
        ),
    ]
    under = footer(view.ledger, view.question, found)
    notes = [
        f"gaps and broken prefixes are of the last {GAP_DAYS} days, from counts of tokens: no text was read"
    ]
    return Page("Prompt cache", tables, kpis, heading(found), under, notes)


def _followed(view: View) -> Any:
    """Calls of the last days with the call before them in their session, else by the same caller of the model."""
    used, con = view.days, view.ledger.connection
    assert used
    last = min(view.question.until or date.max, used[1])
    first = max(view.question.since or date.min, last - (GAP_DAYS - 1) * DAY)
    rows, _ = selected(view, min(first, last), last)
    con.register("gap_rows", rows)
    con.register("gap_contexts", view.ledger.contexts())
    return con.sql(
        """SELECT *, lag(at_us) OVER followed AS before_us, lag(cached) OVER followed AS before_cached FROM (
               SELECT epoch_us("at") AS at_us, r.ctx, model_id, project, session,
                      input + cache_read + cache_write_5m + cache_write_1h AS prompt,
                      cache_read + cache_write_5m + cache_write_1h AS cached, cache_read
               FROM gap_rows r JOIN gap_contexts USING (ctx)
               WHERE calls > 0 AND NOT sidechain
           ) WINDOW followed AS (PARTITION BY CASE WHEN session <> '' THEN hash(session, model_id) ELSE ctx END
                                 ORDER BY at_us)"""
    )


def _gaps(view: View) -> list[Row]:
    """So many calls, and tokens of their prompts, came so long after the one before."""
    if view.days is None:
        return []
    edges = (0, *_EDGES_S)
    cases = " ".join(f"WHEN gap < {edge} THEN {i}" for i, edge in enumerate(_EDGES_S))
    found = _followed(view).filter("before_us IS NOT NULL")
    counted = found.project(f"CASE {cases} ELSE {len(_EDGES_S)} END AS bin, prompt".replace(
        "gap", "(at_us - before_us) // 1000000"
    )).aggregate("bin, count(*), CAST(sum(prompt) AS BIGINT)").fetchall()  # fmt: skip
    sums = {at: (calls, tokens) for at, calls, tokens in counted}
    return [
        {"from_s": edges[i], "to_s": edges[i + 1] if i + 1 < len(edges) else None,
         "calls": sums.get(i, (0, 0))[0], "tokens": sums.get(i, (0, 0))[1]}
        for i in range(len(edges))
    ]  # fmt: skip


def _broken(view: View, kinds: dict[str, str]) -> Sheet:
    """Calls soon after another of their session that found less in the cache than that one left there."""
    columns = ("model", "project", "calls", "lost")
    empty = "no session found less in the cache than the call before had left there"
    rows: list[Row] = []
    if view.days is not None:
        found = _followed(view).filter(
            "session <> '' AND at_us - before_us < 300000000 AND before_cached > 0 AND cache_read * 2 < before_cached"
        )
        counted = found.aggregate(
            "model_id, project, count(*) AS calls, CAST(sum(before_cached - cache_read) AS BIGINT) AS lost"
        )
        rows = [
            dict(zip(columns, row, strict=True))
            for row in counted.order("lost DESC, calls, model_id, project").limit(100).fetchall()
        ]
    titles = {"lost": "tokens not found again"}
    return Sheet("Prefixes that broke", columns, rows, kinds=kinds, titles=titles, empty=empty)


def _bound(plan: Plan) -> Sheet:
    rows = [
        {"workload": one.workload, "calls": one.calls, "usd": one.billed, "replayed_usd": one.replayed,
         "advised_usd": one.advised.mid, "bound_usd": one.bound, "traced": one.traced, "notes": "; ".join(one.notes)}
        for one in plan.workloads
    ]  # fmt: skip
    columns = ("workload", "calls", "usd", "replayed_usd", "advised_usd", "bound_usd", "traced", "notes")
    titles = {"traced": "% with known prefixes", "replayed_usd": "replay of today"}
    return Sheet("What any plan could come to", columns, rows, ("workload",), titles)


def chosen(view: View, names: set[str]) -> list[Advice]:
    """The pieces of advice of these names, as the plan is now."""
    plan = plan_of(view)
    return [one for one in plan.advice if advice_name(one) in names]
