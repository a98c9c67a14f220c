"""The quality gate: is a cheaper model as good, but for a margin? Outcomes in pairs, evidence, a verdict."""

from farthing.evaluate._outcomes import OutcomeError, read_outcomes
from farthing.evaluate._run import GRADES, Question, converse, grader, read_questions, run
from farthing.evaluate._verdict import (
    ALPHA,
    INFERIOR,
    MARGIN,
    NOT_INFERIOR,
    UNDECIDED,
    Pair,
    Size,
    Verdict,
    judge,
    size,
)

__all__ = [
    "ALPHA", "GRADES", "INFERIOR", "MARGIN", "NOT_INFERIOR", "UNDECIDED", "OutcomeError", "Pair", "Question", "Size",
    "Verdict", "converse", "grader", "judge", "read_outcomes", "read_questions", "run", "size",
]  # fmt: skip
