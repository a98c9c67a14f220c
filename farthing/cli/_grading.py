"""Grades of two answers to one question, as a gateway gives them to copies in shadow."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from farthing.cli._app import BadInput


def pair_grader(
    how: str, command: str
) -> Callable[[Mapping[str, Any], str, str], tuple[float, float]] | None:
    """By a command that scores each answer; or by how the candidate's agrees with the one in use, which is then right.

    None where neither is said.
    """
    if not how and not command:
        return None
    from farthing.evaluate import GRADES, Question, grader

    if how and (command or how not in GRADES):
        raise BadInput(f"--grade {how!r}: use one of {', '.join(GRADES)}, or --grade-command alone")
    grade = grader(how, shlex.split(command))

    def graded(asked: Mapping[str, Any], in_use: str, candidate: str) -> tuple[float, float]:
        question = Question(asked["id"], asked["messages"], asked["system"], in_use)
        return (grade(question, in_use) if command else 1.0), grade(question, candidate)

    return graded
