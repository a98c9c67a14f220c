"""`farthing savings`: the cheapest plan for the traffic as it is, and its proof."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import app
from farthing.cli._bills import faults, read_statement
from farthing.cli._opened import hashing_key, sources
from farthing.cli._shared import Asked, console, ledger_to_read, write_json
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.optimise import Advice, Interval, Plan, Worked

MOST_SHOWN = 8  # pieces of advice, and workloads, on the screen; --all and --json have all
MOST_TOLD = 5  # lines that could not be read

group = App(name="savings", help="The cheapest plan that the owners of workloads allow, with its proof.")
app.command(group)


@group.default
def savings(
    *,
    asked: Asked = Asked(),  # noqa: B008 - it is not changed
    bodies: Annotated[
        str, Parameter(help="Invocation logs with bodies: a file or folder. They tell which prefixes repeat.")
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
    from farthing.optimise import savings as plan_of

    question = asked.question()
    wrong: list[str] = []
    billed, heading, code = None, "computed at list prices, not yet proved against a bill", 0
    if statement:
        found = read_statement(statement, "unblended", "", days=(question.since, question.until))
        billed, heading, code = found.billed_picos, "billed by AWS; advice in the same dollars", faults(found)
    with ledger_to_read(asked.ledger, question.config) as ledger:
        opened = sources(bodies, wrong) if bodies else ()
        plan = plan_of(ledger, question, bodies=opened, key=hashing_key(), billed=billed, heading=heading)
    if asked.json:
        write_json(as_json(plan))
    else:
        _print(plan, whole=all)
    wrong += plan.faults
    for line in wrong[:MOST_TOLD]:
        print(f"farthing: {line}", file=sys.stderr)
    if len(wrong) > MOST_TOLD:
        print(f"farthing: and {len(wrong) - MOST_TOLD:,} lines more", file=sys.stderr)
    return 2 if wrong else code


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


# --- for a person --------------------------------------------------------------------------------------------------


def _print(plan: Plan, *, whole: bool) -> None:
    out = console()
    saving = plan.billed - plan.advised.mid
    out.print(f"Savings, {plan.since} to {plan.until} ({plan.heading})\n")
    out.print(f"  {show(plan.billed):>14}  now")
    out.print(
        f"  {show(plan.advised.mid):>14}  with what is allowed: {show(saving)} less ({_share(saving, plan.billed)})"
        + _between(plan.advised)
    )
    allowed = sum(one.worth.mid for one in plan.workloads)
    if allowed < plan.advised.mid:
        out.print(
            f"  {show(allowed):>14}  if owners allowed, and proved, all of it: {show(plan.billed - allowed)} less "
            f"({_share(plan.billed - allowed, plan.billed)})"
        )
    out.print(f"  {show(plan.bound):>14}  bound: no plan of those that are allowed is below it\n")
    if plan.waterfall:
        out.print("What is allowed, step by step:")
        for step in plan.waterfall:
            out.print(f"  {show(step.saved.mid):>14}  {step.lever}{_between(step.saved)}")
        out.print()
    _print_advice([one for one in plan.advice if one.counts], "Advice", out, whole=whole)
    _print_advice(
        [one for one in plan.advice if not one.counts], "Not in the plan, each by itself", out, whole=whole
    )
    _print_workloads(plan, out, whole=whole)
    out.print("Four rules of thumb, each alone on this traffic (they overlap):")
    for rule in plan.rules:
        out.print(
            f"  {show(rule.worth.mid):>14}  {rule.rule}; {show(rule.permitted.mid)} of it allowed: {rule.note}"
        )
    out.print(f"  Under a quarter? {plan.quarter}")
    for note in plan.notes[:MOST_TOLD]:
        out.print(f"  note: {note}")


def _share(part: int, whole: int) -> str:
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "0 %"


def _between(found: Interval) -> str:
    return "" if found.low == found.high else f" (between {show(found.low)} and {show(found.high)})"


def _print_advice(found: list[Advice], title: str, out: Any, *, whole: bool) -> None:
    if not found:
        return
    shown = found if whole else found[:MOST_SHOWN]
    out.print(f"{title}:")
    for one in shown:
        worth = show(one.saved.mid) if one.saved else "withheld"
        out.print(f"  {worth:>14}  {one.workload}: {one.says}" + (_between(one.saved) if one.saved else ""))
        if one.why_not:
            out.print(f"  {'':>14}  not yet: {one.why_not}", style="dim")
        if whole or one.counts:
            _print_proof(one, out)
    if len(found) > len(shown):
        rest = sum(one.saved.mid for one in found[len(shown) :] if one.saved)
        out.print(f"  {show(rest):>14}  in {len(found) - len(shown):,} more: --all")
    out.print()


def _print_proof(one: Advice, out: Any) -> None:
    indent = " " * 18
    if one.calibration:
        out.print(
            f"{indent}replay of today is {one.calibration} off what was billed ({one.sessions:,} sessions); captures "
            f"{one.captured or 'none'} of what any plan could save"
        )
    for line in one.change.before.splitlines():
        out.print(f"{indent}- {line}", style="red", markup=False)
    for line in one.change.after.splitlines():
        out.print(f"{indent}+ {line}", style="green", markup=False)
    if one.risk:
        out.print(f"{indent}{one.risk}", markup=False)
    out.print(f"{indent}{one.evidence}", style="dim", markup=False)


def _print_workloads(plan: Plan, out: Any, *, whole: bool) -> None:
    unnamed = [one for one in plan.workloads if one.allow]
    if unnamed:
        out.print("To allow more, in farthing.toml:")
        for one in unnamed if whole else unnamed[:1]:
            for line in one.allow.splitlines():
                out.print(f"  {line}", markup=False)
        if not whole and len(unnamed) > 1:
            out.print(f"  ... and {len(unnamed) - 1:,} workloads more: --all")
        out.print()
    untraced = [one for one in plan.workloads if any("no prefixes known" in note for note in one.notes)]
    if untraced:
        money = sum(one.billed for one in untraced)
        out.print(
            f"Caching is not resolved for {len(untraced):,} workloads ({show(money)}): no prefixes known. "
            "Give the logs with bodies: --bodies PATH\n"
        )
