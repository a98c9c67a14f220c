"""What prompt caching costs: the rules as a machine, policies played on it over a trace, and how little it could cost."""

from ._bound import saved
from ._compare import Comparison, Unpriceable, cards_for, compare
from ._engine import DOCUMENTED, Semantics
from ._plan import Plan, plan
from ._trace import Ints, Trace, faults, parents, radix, select
from ._values import Cards, accesses, bound, uncached, values

__all__ = [
    "DOCUMENTED",
    "Cards",
    "Comparison",
    "Ints",
    "Plan",
    "Semantics",
    "Trace",
    "Unpriceable",
    "accesses",
    "bound",
    "cards_for",
    "compare",
    "faults",
    "parents",
    "plan",
    "radix",
    "saved",
    "select",
    "uncached",
    "values",
]
