"""Calls that may have been counted twice, and their settling."""

from __future__ import annotations

from farthing.cells import Question, QuestionError, cells
from farthing.ledger import Ledger
from farthing.reports._pairs import SECONDS, Copy, find_copies
from farthing.reports._table import Table, footer, heading, report
from farthing.usage import Usage


@report("Calls that two sources told of without a common id; --settle counts each once, for good.")
def duplicates(ledger: Ledger, question: Question, seconds: int = SECONDS, settle: bool = False) -> Table:
    """One row a copy; `usd` is what the total falls by when it is settled."""
    if not 0 <= seconds <= 3600:
        raise QuestionError(f"--seconds {seconds}: from 0 to 3600")
    copies = find_copies(ledger, question, seconds)
    if settle:
        ledger.append([copy.bridge for copy in copies if copy.bridge])
    found = cells(ledger, question)
    columns = (
        "at",
        "source",
        "id",
        "copy_source",
        "copy_id",
        "session",
        "tokens",
        "apart_ms",
        "usd",
        "settled",
    )
    parts = {"possible_duplicates_usd": sum(copy.usd for copy in copies if not (settle and copy.bridge))}
    table = Table(
        "Possible duplicates",
        heading(found),
        columns,
        [_row(copy, settle=settle) for copy in copies],
        footer(ledger, question, found),
        parts,
    )
    table.empty = "no two sources tell of calls that are alike in model, tokens and time"
    return table


def _row(copy: Copy, *, settle: bool) -> dict[str, object]:
    kept, other = copy.kept, copy.copy
    facts, told = kept.parts[0][0], other.parts[0][0]
    return {
        "at": _time(kept),
        "source": facts.source,
        "id": kept.ids[0] if kept.ids else "",
        "ids": kept.ids,
        "copy_at": _time(other),
        "copy_source": told.source,
        "copy_id": other.ids[0] if other.ids else "",
        "copy_ids": other.ids,
        "session": facts.session or told.session,
        "copy_session": told.session,
        "model": facts.model_id,
        "copy_model": told.model_id,
        "tokens": sum(sum(tokens) for _, tokens in other.parts),
        "apart_ms": abs(kept.at_us - other.at_us) // 1000,
        "usd": copy.usd,
        "settled": ("yes" if settle else "no") if copy.bridge else "cannot be",
    }


def _time(usage: Usage) -> str:
    return usage.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
