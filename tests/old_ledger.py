"""A ledger as farthing wrote them in format 1: no ids of gateways, no digests of files, no totals."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from farthing.ledger._tables import CONTEXTS, FILES, TAGS, USAGE, Rows, arrow, transposed
from farthing.meters import METERS
from farthing.usage import Facts, Usage

_USAGE = {name: kind for name, kind in USAGE.items() if name not in ("gateway_id", "also")}
_FILES = {name: kind for name, kind in FILES.items() if name != "digest"}


def write(folder: Path, batches: Iterable[Sequence[Usage]], files: Sequence[str] = ()) -> None:
    """A commit a batch, with the contexts and tags it needs; every file is noted as read whole."""
    folder.mkdir()
    tables = {"usage": _USAGE, "contexts": CONTEXTS, "tags": TAGS, "files": _FILES}
    for name, columns in tables.items():
        schema = arrow({column: [] for column in columns}, columns).schema
        partitions = ["month"] if name == "usage" else None
        DeltaTable.create(str(folder / name), schema, partition_by=partitions)
    for number, batch in enumerate(batches, 1):
        rows = Rows()
        rows.extend(batch)
        given = [(code, *facts) for facts, code in rows.contexts.items()]
        pairs = [(code, *pair) for tags, code in rows.tagsets.items() for pair in tags]
        _add(folder, "contexts", transposed(given, CONTEXTS), CONTEXTS)
        _add(folder, "tags", transposed(pairs, TAGS), TAGS)
        properties = CommitProperties(app_transactions=[Transaction("farthing", number)])
        data = arrow(rows.columns, _USAGE)
        write_deltalake(str(folder / "usage"), data, mode="append", commit_properties=properties)
    noted = [(path, 1, 1, "claude_code", 0, 1, 0, "[]") for path in files]
    _add(folder, "files", transposed(noted, _FILES), _FILES)
    (folder / "farthing.json").write_text(json.dumps({"format": 1}))


def _add(folder: Path, name: str, columns: dict, types: dict[str, str]) -> None:
    if next(iter(columns.values())):
        write_deltalake(str(folder / name), arrow(columns, types), mode="append")


def call(number: int, *, day: int = 0, tags: tuple[tuple[str, str], ...] = (), **facts: str) -> Usage:
    """Call number so-and-so, some days after 2026-09-21; the counts are its number."""
    said = Facts(facts.pop("source", "claude_code"), model_id="anthropic.claude-opus-5", **facts)
    tokens = dict.fromkeys(METERS, number) | {"input": 1}
    at_us = 1_790_000_000_000_000 + day * 86_400_000_000 + number
    return Usage(at_us, f"r{number}", f"m{number}", ((said, (*tokens.values(),)),), tags)  # type: ignore[arg-type]
