"""What prompt caching costs: the rules as a machine, policies played on it over a trace, and how little it could cost."""

from ._trace import Ints, Trace, faults, parents, radix, select

__all__ = ["Ints", "Trace", "faults", "parents", "radix", "select"]
