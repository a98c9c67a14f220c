"""`farthing savings`: the cheapest plan for the traffic as it is, and its proof."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import faults, read_statement
from farthing.cli._engine import OnEngine
from farthing.cli._offered import offers_json, print_offers, taken_off
from farthing.cli._opened import hashing_key, sources
from farthing.cli._policies import Applying, put_into_force
from farthing.cli._shared import Asked, console, ledger_to_read, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.optimise import Advice, Interval, Outcome, Plan, Worked

MOST_SHOWN = 6  # pieces of advice, and workloads, on the screen; --all and --json have all
MOST_TOLD = 5  # lines that could not be read

group = App(name="savings", help="The cheapest plan that the owners of workloads allow, with its proof.")
app.command(group)


@group.default
def savings(
    *,
    asked: Asked = Asked(),  # noqa: B008 - it is not changed
    applying: Applying = Applying(),  # noqa: B008
    engine: OnEngine = OnEngine(),  # noqa: B008
    bodies: Annotated[
        str,
        Parameter(
            help="Invocation logs with bodies: a file, a folder or s3://. They tell which prefixes repeat."
        ),
    ] = "",
    statement: Annotated[
        list[str] | None,
        Parameter(negative="", help="The AWS bill of the same days: its dollars instead of computed ones."),
    ] = None,
    all: Annotated[  # noqa: A002 - as the option is called
        bool, Parameter(negative="", help="Every piece of advice, with its exact change.")
    ] = False,
) -> int:
    """What today's traffic would cost under the cheapest plan that its owners allow: replayed, bounded, explained."""
    from farthing.levers import to_platform
    from farthing.optimise import Scenario, whatif
    from farthing.optimise import savings as plan_of
    from farthing.usage import PLATFORMS

    applying.check()
    question = asked.question()
    wrong: list[str] = []
    billed, heading, code = None, "", 0
    with ledger_to_read(asked.ledger, question.config) as ledger, engine.summing(ledger):
        if statement:
            found = read_statement(statement, "unblended", "", days=_days(ledger, question))
            billed, code = found.billed_picos, faults(found)
            heading = "billed by AWS, and each part of it in the same proportion"
        opened = sources(bodies, wrong) if bodies else ()
        plan = plan_of(ledger, question, bodies=opened, key=hashing_key(), billed=billed, heading=heading)
        sellers = [Scenario(name, (to_platform(name),)) for name in PLATFORMS]
        elsewhere = [one for one in whatif(ledger, question, sellers) if one.moved]
        taken = taken_off(ledger, question)
    if asked.json:
        write_json(as_json(plan) | {"platforms": [_elsewhere(one) for one in elsewhere]} | offers_json(taken))
    else:
        _print(plan, whole=all)
        for one in elsewhere:
            print(
                f"on {one.name}, at the prices there: {show(one.cost)}; farthing platform compare has the rest"
            )
        print_offers(taken)
    put_into_force(plan.advice, applying, question)
    wrong += plan.faults
    for line in wrong[:MOST_TOLD]:
        print(f"farthing: {line}", file=sys.stderr)
    if len(wrong) > MOST_TOLD:
        print(f"farthing: and {len(wrong) - MOST_TOLD:,} lines more", file=sys.stderr)
    return 2 if wrong else code


def _days(ledger: Ledger, question: Question) -> tuple[date | None, date | None]:
    """The days of the bill that the ledger has calls of: what else was billed is no part of the plan."""
    if question.where:
        raise BadInput("--statement has all calls of these days, and --where some: leave one of them out")
    used = ledger.days()
    if used is None:
        return question.since, question.until
    return question.since or used[0].date(), question.until or (used[1] - timedelta(microseconds=1)).date()


# --- as JSON -------------------------------------------------------------------------------------------------------


def as_json(plan: Plan) -> dict[str, Any]:
    """The contract's keys first; amounts are exact strings."""
    return {
        "billed_usd": usd(plan.billed),
        "replayed_usd": usd(plan.replayed),
        "advised_usd": _ends(plan.advised),
        "bound_usd": usd(plan.bound),
        "levers": [_advice(one) for one in plan.advice],
        "workloads": [_worked(one) for one in plan.workloads],
        "waterfall": [{"lever": step.lever, "saved_usd": _ends(step.saved)} for step in plan.waterfall],
        "rules": [
            {"rule": rule.rule, "says": rule.says, "worth_usd": _ends(rule.worth),
             "permitted_usd": _ends(rule.permitted), "note": rule.note}
            for rule in plan.rules
        ],
        "quarter": plan.quarter,
        "heading": plan.heading,
        "computed_usd": usd(plan.computed),
        "semantics": plan.semantics,
        "since": plan.since,
        "until": plan.until,
        "notes": plan.notes,
    }  # fmt: skip


def _ends(found: Interval) -> dict[str, str]:
    return {"low": usd(found.low), "mid": usd(found.mid), "high": usd(found.high)}


def _advice(one: Advice) -> dict[str, Any]:
    return {
        "workload": one.workload, "model": one.model, "lever": one.lever, "says": one.says,
        "billed_usd": usd(one.billed),
        "replayed_usd": None if one.replayed is None else usd(one.replayed),
        "advised_usd": one.advised and _ends(one.advised),
        "saved_usd": one.saved and _ends(one.saved),
        "bound_usd": usd(one.bound),
        "cold_cache_usd": usd(one.cold_cache),
        "optimum_usd": None if one.optimum is None else usd(one.optimum),
        "captured_of_optimum": one.captured_of_optimum,
        "captured": one.captured, "calibration": one.calibration, "resolved": one.resolved,
        "permitted": one.permitted, "final": one.final, "counts": one.counts, "why_not": one.why_not,
        "exact": one.exact, "semantics": one.semantics, "evidence": one.evidence, "sessions": one.sessions,
        "risk": one.risk,
        "change": {name: getattr(one.change, name) for name in one.change.__struct_fields__},
    }  # fmt: skip


def _worked(one: Worked) -> dict[str, Any]:
    return {
        "workload": one.workload, "owner": one.owner, "named": one.named, "calls": one.calls, "models": one.models,
        "billed_usd": usd(one.billed), "replayed_usd": usd(one.replayed), "advised_usd": _ends(one.advised),
        "bound_usd": usd(one.bound), "worth_usd": _ends(one.worth), "traced": one.traced, "notes": one.notes,
        "allow": one.allow,
    }  # fmt: skip


def _elsewhere(one: Outcome) -> dict[str, str]:
    """Another seller: a comparison, which no plan contains. What has no price there stays as it is."""
    return {"platform": one.name, "usd": usd(one.cost)}


# --- for a person --------------------------------------------------------------------------------------------------


def _print(plan: Plan, *, whole: bool) -> None:
    out = console()
    out.print(f"Savings, {plan.since} to {plan.until}: {plan.heading}\n")
    _print_money(plan, out)
    done, open_ = ([one for one in plan.advice if one.counts is counts] for counts in (True, False))
    _print_advice(done, "What to do", out, whole=whole)
    _print_advice(open_, "Worth asking for, each by itself", out, whole=whole)
    _print_next(plan, open_, out, whole=whole)
    out.print("Four rules of thumb, each alone on this traffic (they overlap)")
    for rule in plan.rules:
        out.print(
            f"  {show(rule.worth.mid):>13}  {rule.rule}: {show(rule.permitted.mid)} of it allowed; {rule.note}"
        )
    out.print(f"  {'':>13}  under a quarter? {plan.quarter}")
    for note in plan.notes if whole else plan.notes[:1]:
        out.print(f"note: {note}", style="dim", markup=False)


def _print_money(plan: Plan, out: Any) -> None:
    worth = sum(one.worth.mid for one in plan.workloads)
    rows = [
        (plan.billed, "now", None),
        (plan.advised.mid, "with all that is allowed", plan.advised),
        (worth, "if owners allowed, and proved, the rest too", None),
        (plan.bound, "bound: the least of any caching, with what is allowed", None),
    ]
    for picos, says, ends in rows:
        less = plan.billed - picos
        told = f", {_share(less, plan.billed)} less" if less else ""
        out.print(f"  {show(picos):>13}  {says}{told}{_between(ends) if ends else ''}")
    out.print()
    if plan.waterfall:
        parts = [f"{step.lever} {show(step.saved.mid)}" for step in plan.waterfall]
        out.print(f"  {show(plan.billed)} less " + ", ".join(parts) + f" is {show(plan.advised.mid)}\n")


def _share(part: int, whole: int) -> str:
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "0 %"


def _between(found: Interval) -> str:
    return "" if found.low == found.high else f" ({show(found.low)} to {show(found.high)})"


def _print_advice(found: list[Advice], title: str, out: Any, *, whole: bool) -> None:
    if not found:
        return
    shown = found if whole else found[:MOST_SHOWN]
    out.print(title, style="bold")
    for one in shown:
        worth = show(one.saved.mid) if one.saved else "withheld"
        ends = _between(one.saved) if one.saved else ""
        needs = "" if one.counts else f"  [{', '.join(_needs(one))}]"
        out.print(f"  {worth:>13}  {one.workload}: {one.says}{ends}{needs}", markup=False)
        if whole:
            _print_proof(one, out)
        elif one.counts:
            after = one.change.after.splitlines()
            out.print(
                f"{' ' * 17}+ {after[0]}{' ...' if len(after) > 1 else ''}", style="green", markup=False
            )
    if len(found) > len(shown):
        rest = sum(one.saved.mid for one in found[len(shown) :] if one.saved)
        out.print(f"  {show(rest):>13}  in {len(found) - len(shown):,} more")
    out.print()


def _needs(one: Advice) -> list[str]:
    """What stands against an advice, in a word or two each."""
    return [
        said
        for said, holds in (
            ("not allowed", not one.permitted),
            ("quality not proved", not one.final),
            ("replay is off the bill", one.saved is None),
            ("not resolved", one.saved is not None and not one.resolved),
        )
        if holds
    ]


def _print_proof(one: Advice, out: Any) -> None:
    indent = " " * 17
    if one.why_not:
        out.print(f"{indent}not yet: {one.why_not}", markup=False)
    if one.calibration:
        out.print(
            f"{indent}replay of today against the bill: {one.calibration} off; {one.sessions:,} sessions"
        )
    if one.captured and one.counts:
        out.print(f"{indent}takes {one.captured} of what any plan could save")
    if one.cold_cache:
        out.print(f"{indent}less by {show(one.cold_cache)}: what is cached is written anew for another model")
    if one.optimum is not None and one.captured_of_optimum:
        out.print(
            f"{indent}takes {one.captured_of_optimum} of what batch or cache, chosen with hindsight, could save "
            f"({show(one.optimum)}, proved)"
        )
    for sign, style, text in (("-", "red", one.change.before), ("+", "green", one.change.after)):
        for line in text.splitlines():
            out.print(f"{indent}{sign} {line}", style=style, markup=False)
    if one.risk:
        out.print(f"{indent}{one.risk}", markup=False)
    out.print(f"{indent}{one.evidence}", style="dim", markup=False)


def _print_next(plan: Plan, open_: list[Advice], out: Any, *, whole: bool) -> None:
    """What to do to have more of it: the lines that allow, the verdicts, the bodies."""
    said = [one for one in plan.workloads if one.allow]
    out.print("Next", style="bold")
    if any(one.counts for one in plan.advice) and not whole:
        out.print("  farthing savings --all            every change, with its proof and the rows behind it")
    if said:
        out.print("  to allow what is not, in farthing.toml:")
        for one in said if whole else said[:1]:
            for line in one.allow.splitlines():
                out.print(f"      {line}", markup=False)
        if not whole and len(said) > 1:
            out.print(f"      ... and {len(said) - 1:,} workloads more: --all")
    untraced = [one for one in plan.workloads if any("no prefixes known" in note for note in one.notes)]
    if untraced:
        money = sum(one.billed for one in untraced)
        out.print(
            f"  farthing savings --bodies LOGS    of {len(untraced):,} workloads ({show(money)}) no prefixes known: "
            "their caching is not resolved"
        )
    if not any(one.final for one in open_) and open_:
        out.print("  farthing evaluate                 proves that a cheaper model is as good")
    out.print()
