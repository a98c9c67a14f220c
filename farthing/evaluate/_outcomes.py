"""Files of paired outcomes: JSON lines or CSV with `id`, `from` and `to`, and perhaps `cluster`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farthing.evaluate._verdict import Pair

_WORDS = {"true": 1.0, "false": 0.0, "pass": 1.0, "fail": 0.0, "yes": 1.0, "no": 0.0}


class OutcomeError(ValueError):
    """A file of outcomes or questions that cannot be used: one line with file, line and mend."""


def read_outcomes(path: Path | str) -> list[Pair]:
    """The pairs of a file, in its order. OutcomeError names the line that is wrong."""
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    for number, row in _rows(Path(path)):
        name = str(row.get("id") or f"line {number}")
        if name in seen:
            raise OutcomeError(f"{path}:{number}: the id {name!r} is on line {seen[name]} already")
        seen[name] = number
        before, after = (_score(row, key, f"{path}:{number}") for key in ("from", "to"))
        pairs.append(Pair(name, before, after, str(row.get("cluster") or "")))
    if not pairs:
        raise OutcomeError(f"{path}: no pairs in it: write a line a question, with id, from and to")
    return pairs


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OutcomeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if text.strip() and not text.lstrip().startswith("{"):
        reader = csv.DictReader(io.StringIO(text))
        missing = {"from", "to"} - set(reader.fieldnames or ())
        if missing:
            raise OutcomeError(f"{path}:1: no column {', '.join(sorted(missing))}: it wants id, from and to")
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OutcomeError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise OutcomeError(f'{path}:{number}: not an object: write {{"id": ..., "from": 1, "to": 0}}')
        yield number, row


def _score(row: dict[str, Any], key: str, place: str) -> float:
    """A score from 0 to 1; words for true and false are taken too."""
    said = row.get(key)
    if said is None or said == "":
        raise OutcomeError(f"{place}: no `{key}`: it wants the score of each model's answer, from 0 to 1")
    try:
        score = _WORDS[said.lower()] if isinstance(said, str) and said.lower() in _WORDS else float(said)
    except (TypeError, ValueError) as error:
        raise OutcomeError(f"{place}: `{key}` is {said!r}: write a score from 0 to 1") from error
    if not 0 <= score <= 1:
        raise OutcomeError(f"{place}: `{key}` is {said}: scores go from 0 to 1 (divide by the highest)")
    return score
