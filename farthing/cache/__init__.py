"""What prompt caching costs: the rules as a machine, policies played on it over a trace, the least it could cost."""

from ._autopilot import Autopilot, Marked, Ping
from ._bound import FIVE_US, HOUR_US, saved
from ._cold import Cold, cold
from ._compare import Comparison, Unpriceable, cards_for, compare, warm
from ._engine import DOCUMENTED, Semantics
from ._hybrid import Hybrid, hybrid
from ._machine import Bill, Kept, Refused, Request, State, bill, replay
from ._plan import Plan, plan
from ._player import Policy
from ._policies import BEST, POLICIES, Replay, simulate
from ._trace import Ints, Trace, faults, parents, radix, select, take
from ._values import Cards, accesses, bound, uncached, values

__all__ = [
    "BEST",
    "DOCUMENTED",
    "FIVE_US",
    "HOUR_US",
    "POLICIES",
    "Autopilot",
    "Bill",
    "Cards",
    "Cold",
    "Comparison",
    "Hybrid",
    "Ints",
    "Kept",
    "Marked",
    "Ping",
    "Plan",
    "Policy",
    "Refused",
    "Replay",
    "Request",
    "Semantics",
    "State",
    "Trace",
    "Unpriceable",
    "accesses",
    "bill",
    "bound",
    "cards_for",
    "cold",
    "compare",
    "faults",
    "hybrid",
    "parents",
    "plan",
    "radix",
    "replay",
    "saved",
    "select",
    "simulate",
    "take",
    "uncached",
    "values",
    "warm",
]
