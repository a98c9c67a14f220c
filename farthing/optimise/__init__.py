"""The cheapest plan for real traffic that its owners allow, and the proof of it; and what-ifs over a ledger."""

from ._advice import KINDS, LEVERS_IN_ORDER, Advice, Change, Interval, Plan, Rule, Step, Worked
from ._savings import savings
from ._scenarios import Outcome, Scenario, whatif

__all__ = [
    "KINDS", "LEVERS_IN_ORDER", "Advice", "Change", "Interval", "Outcome", "Plan", "Rule", "Scenario", "Step", "Worked",
    "savings", "whatif",
]  # fmt: skip
