"""`--csv` of commands that have `--json` alone: the rows of their answer, as a spreadsheet takes them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_ANSWERS: ContextVar[list[Mapping[str, Any]] | None] = ContextVar("answers", default=None)


@contextmanager
def as_csv() -> Iterator[None]:
    """What is answered in the block is written as CSV at its end: one answer's rows, or several as a row each."""
    answers: list[Mapping[str, Any]] = []
    token = _ANSWERS.set(answers)
    try:
        yield
    finally:
        _ANSWERS.reset(token)
        if answers:
            sys.stdout.write(_table(_rows(answers[0]) if len(answers) == 1 else answers))


def write_json(answer: Mapping[str, Any]) -> None:
    """An answer on stdout, as one line of JSON or as CSV."""
    if (answers := _ANSWERS.get()) is not None:
        answers.append(answer)
    else:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False, separators=(", ", ": ")) + "\n")


def _rows(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """`rows`, else the first list of objects; an answer without one is a row itself."""
    lists = [value for value in answer.values() if isinstance(value, list)]
    if isinstance(named := answer.get("rows"), list):
        return named
    if len(lists) == len(answer) == 1:
        return lists[0]
    return next((each for each in lists if each and isinstance(each[0], Mapping)), [answer])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    from farthing.reports import inert

    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    return inert(value)
