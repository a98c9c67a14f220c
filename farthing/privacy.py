"""Reports that others will read: people appear under pseudonyms, and small groups of them as one row.

A principal is a person, or leads to one, and so does a session. A shared report holds neither, in no column and
no footnote. Amounts stay as they are, so every total does too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from farthing.cells import KEYS, SKU_KEYS, TIME_KEYS, Question, cells
from farthing.costs import due_entries
from farthing.ledger import Ledger, arrow
from farthing.reports import Table

Row = dict[str, Any]
Hide = Callable[[str], str]

PEOPLE = ("principal", "session")  # kinds of names, which are columns of contexts and of control totals
_TOLD = {*SKU_KEYS, *TIME_KEYS, "routing", "region", "source", "meter"}  # there are no names in these columns
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HOME = re.compile(r"(?<![\w.])(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s:]+")
_FOLDER = re.compile(
    r"^.*?([^/\\]+:\d+: )|(?<!\S)(?:s3:/)?/\S*/(?=\S)"
)  # transcripts lie below user and project


def share(table: Table, ledger: Ledger, question: Question) -> Table:
    """The table as others may read it: by [privacy] of farthing.toml."""
    privacy = question.config.privacy
    if privacy.minimum_group > 1:
        table = replace(
            table, rows=_fold(table.rows, ledger, question), parts=_parts(table, ledger, question)
        )
    if not privacy.pseudonyms:
        return table
    free = {"parts": table.parts, "footer": table.footer}
    hide = _hider(ledger, _key(), set(_texts(table.rows)), set(_texts(free)))
    rows = [{name: _hidden(value, hide, name) for name, value in row.items()} for row in table.rows]
    return replace(table, rows=rows, **{name: _hidden(part, hide) for name, part in free.items()})


# --- small groups --------------------------------------------------------------------------------------------------


def _parts(table: Table, ledger: Ledger, question: Question) -> dict[str, Any]:
    def is_rows(part: Any) -> bool:
        return isinstance(part, list) and all(isinstance(row, dict) for row in part)

    return {
        name: _fold(part, ledger, question) if is_rows(part) else part for name, part in table.parts.items()
    }


def _fold(rows: Sequence[Row], ledger: Ledger, question: Question) -> list[Row]:
    """The rows, those of too few principals added up at the end. What tells nothing of groups stays as it is."""
    keys = [name for name in (rows[0] if rows else ()) if _is_key(name)]
    if not keys:
        return list(rows)
    least = question.config.privacy.minimum_group
    people: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    named = (*keys, "principal")
    found = [cell.keys for cell in cells(ledger, question, named)]
    for *group_keys, principal in found + [due.keys for due in due_entries(ledger, question, named)]:
        people[tuple(group_keys)].add(principal)
    kept: list[Row] = []
    small: list[Row] = []
    for row in rows:
        group = people.get(tuple(row.get(key) for key in keys))
        (small if group and len(group) < least else kept).append(row)
    nameless = dict.fromkeys(keys, "") | {keys[0]: f"fewer than {least} principals"}
    return kept + _added_up([row | nameless for row in small])


def _is_key(name: str) -> bool:
    return name in KEYS or name in TIME_KEYS or name.startswith("tag:")


def _added_up(rows: Iterable[Row]) -> list[Row]:
    """Rows that differ in numbers alone, as one."""
    sums: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        words = tuple((name, value) for name, value in row.items() if isinstance(value, str | bool))
        total = sums.setdefault(words, dict.fromkeys(row) | dict(words))
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):  # None is unknown, not nothing
                total[name] = value + (total[name] or 0)
    return list(sums.values())


# --- names ---------------------------------------------------------------------------------------------------------


def _texts(value: Any, column: str = "") -> Iterator[str]:
    """Every text that may hold a name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from () if name.isidentifier() else (name,)
            yield from _texts(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and column not in _TOLD:
        yield value


def _hidden(value: Any, hide: Hide, column: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name if name.isidentifier() else hide(name): _hidden(inner, hide, name)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hidden(inner, hide) for inner in value]
    return hide(value) if isinstance(value, str) and column not in _TOLD else value


def _hider(ledger: Ledger, key: bytes, values: set[str], free: set[str]) -> Hide:
    """What to write instead of a text: names replaced, and of paths what leads to a person left out."""

    def pseudonym(kind: str, name: str) -> str:
        return f"{kind}-{hmac.digest(key, name.encode(), hashlib.sha256).hex()[:12]}"

    named: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for text, kind, name in _names(ledger, values, free):
        named[text].append((name, pseudonym(kind, name)))

    @cache
    def hide(text: str) -> str:
        inside = dict(named.get(text, ()))
        if text in inside:
            return inside[text]
        if text in free:
            text = _FOLDER.sub(lambda match: match[1] or "", text)
        for name in sorted(inside, key=len, reverse=True):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", inside[name], text)
        return _MAIL.sub(lambda mail: pseudonym("principal", mail[0]), _HOME.sub("~", text))

    return hide


def _names(ledger: Ledger, values: set[str], free: set[str]) -> list[tuple[str, str, str]]:
    """(text, kind, name) for each name in a text. Sessions are many: in rows they are looked for as a whole."""
    con = ledger.connection
    con.register("said_contexts", ledger.contexts())
    con.register("said_totals", ledger.totals())
    con.register("said_entries", ledger.table("entries"))
    texts = sorted(values | free)
    columns = {"text": texts, "free": [text in free for text in texts]}
    con.register("said_texts", arrow(columns, {"text": "string", "free": "bool"}))
    named = " UNION ".join(
        f"SELECT '{kind}' AS kind, {kind} AS name FROM {table} WHERE {kind} <> ''"
        for kind in PEOPLE
        for table in ("said_contexts", "said_totals", "said_entries")
    )
    return con.execute(
        f"""WITH named AS MATERIALIZED ({named})
            SELECT text, kind, name FROM said_texts JOIN named ON text = name
            UNION SELECT text, kind, name FROM said_texts JOIN named ON contains(text, name)
            WHERE (kind = 'principal' OR free) AND length(name) > 2
            ORDER BY ALL"""
    ).fetchall()


def _key() -> bytes:
    """The secret that pseudonyms are made with, in the user's own configuration; made there once."""
    import platformdirs

    path = Path(platformdirs.user_config_dir("farthing", appauthor=False)) / "pseudonyms.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # another process was quicker: its key holds
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
