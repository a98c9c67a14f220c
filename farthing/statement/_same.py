"""The same money told more than once: files of one delivery, deliveries of one month, exports of one account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.statement._columns import fingerprint, projection
from farthing.statement._files import Source, opened

if TYPE_CHECKING:
    import duckdb

EXPORTS = ("cur2", "cur", "focus", "cost_explorer")  # which to believe of the same money, best first
BRANDS = "bedrock|claude|anthropic"


class Part(NamedTuple):
    """A file of a bill. Files of one folder are parts of one delivery."""

    source: Source
    export: str

    @property
    def folder(self) -> str:
        return self.source.folder


def told_once(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[str]:
    """Leave in `statement_lines` what is told for the first time. The answer says what was left out, and why."""
    return [*_retold(con, parts), *_corrected(con, parts), *_replaced(con, parts), *_same_money(con)]


_ACCOUNT = "coalesce(nullif(account, ''), payer)"


def _retold(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[str]:
    """Files of one folder are parts of a delivery, unless one has most lines of another: then the newer holds.

    So it is with one delivery in two forms, a later one laid beside it, and a member's export beside a payer's.
    """
    rows = con.execute(
        f"""WITH told AS (
                SELECT DISTINCT part, export, hash(usage_type, {_ACCOUNT}, day, line_type, product_code, quantity,
                                                   unblended) AS line
                FROM statement_lines WHERE unblended != 0
            ), sizes AS (SELECT part, count(*) AS size FROM told GROUP BY ALL)
            SELECT a.part, b.part FROM told a JOIN told b USING (line, export)
            JOIN sizes s ON s.part = a.part JOIN sizes t ON t.part = b.part
            WHERE a.part < b.part GROUP BY ALL HAVING 2 * count(*) >= least(any_value(s.size), any_value(t.size))
            ORDER BY ALL"""
    ).fetchall()
    notes = []
    for pair in rows:
        if parts[pair[0]].folder == parts[pair[1]].folder:
            old, new = _supersede(con, parts, pair)
            notes.append(f"{old.name}: tells the same money as {new.name}, which is newer and counts")
    return notes


def _supersede(
    con: duckdb.DuckDBPyConnection, parts: Sequence[Part], pair: Sequence[int]
) -> tuple[Source, Source]:
    """Of the accounts and months that both tell, the newer holds: which is the older, and which the newer."""
    old, new = sorted(pair, key=lambda part: (parts[part].source.modified_ns, part))
    con.execute(
        f"""DELETE FROM statement_lines WHERE part = ? AND ({_ACCOUNT}, month) IN
            (SELECT ({_ACCOUNT}, month) FROM statement_lines WHERE part = ?)""",
        [old, new],
    )
    return parts[old].source, parts[new].source


_NUMBERED = re.compile(r"^(?P<stem>.+?)-?(?P<number>\d{5})(?P<suffix>(\.[a-z]+)+)$")  # cur-00002.csv.gz


def _corrected(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[str]:
    """Files of one folder that tell the same lines with other amounts: AWS delivered the month anew.

    Line ids are unique in one delivery, so a file that has those of another is another delivery. Where lines have
    none, the same usage may stand in two parts of one delivery, so both count, and it is said.
    """
    told = con.execute(
        f"SELECT DISTINCT part, {_ACCOUNT}, month FROM statement_lines WHERE export != 'cost_explorer'"
    ).fetchall()
    places: dict[tuple[Any, ...], set[int]] = {}
    for part, account, month in told:
        places.setdefault((parts[part].folder, parts[part].export, account, month), set()).add(part)
    pairs = {pair for found in places.values() for pair in combinations(sorted(found), 2)}
    notes = []
    prints: dict[int, bool] = {}
    for pair in sorted(pairs):
        if _are_numbered(*(parts[part].source.name for part in pair)):
            continue
        for part in pair:
            if part not in prints:
                prints[part] = _fingerprinted(con, part, parts[part])
        if not _overlap(con, *pair):
            continue
        if all(prints[part] for part in pair):
            old, new = _supersede(con, parts, pair)
            notes.append(f"{old.name}: has the lines of {new.name} with other amounts; the newer counts")
        else:
            one, other = (parts[part].source.name for part in pair)
            notes.append(
                f"{one}: tells the same usage as {other} with other amounts, and no line ids that tell whether it is "
                "the same money: both count; leave one out if they are two deliveries of one month"
            )
    return notes


def _are_numbered(one: str, other: str) -> bool:
    """Whether their names tell that they are parts of one delivery."""
    first, second = _NUMBERED.match(one), _NUMBERED.match(other)
    return bool(first and second and first["stem"] == second["stem"] and first["number"] != second["number"])


def _fingerprinted(
    con: duckdb.DuckDBPyConnection,
    number: int,
    part: Part,
) -> bool:
    """What names the lines of a part goes into `statement_prints`. Whether AWS gave them ids."""
    relation = opened(con, part.source)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    con.register("statement_file", relation)
    print_, is_sure = fingerprint(part.export, types)
    con.execute("CREATE TEMP TABLE IF NOT EXISTS statement_prints (part INTEGER, print UBIGINT)")
    con.execute(
        f"INSERT INTO statement_prints SELECT DISTINCT {number}, print FROM "
        f"(SELECT {print_} AS print, {projection(part.export, types)} FROM statement_file) WHERE near"
    )
    return is_sure


def _overlap(con: duckdb.DuckDBPyConnection, one: int, other: int) -> bool:
    """Whether the smaller has half of its lines in the larger, or more."""
    sizes = con.execute(
        "SELECT count(*) FROM statement_prints WHERE part IN (?, ?) GROUP BY part", [one, other]
    ).fetchall()
    ((both,),) = con.execute(
        """SELECT count(*) FROM statement_prints a SEMI JOIN
           (SELECT print FROM statement_prints WHERE part = ?) b USING (print) WHERE a.part = ?""",
        [other, one],
    ).fetchall()
    return len(sizes) == 2 and 2 * both >= min(count for (count,) in sizes)


def _replaced(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[str]:
    """Of two deliveries of one export, account and month, the later holds: each tells the whole month anew.

    A delivery is a folder; loose files of one folder are its parts. Which is later: by the newest file in it.
    By account, since a member's export has its own lines and none of the payer's others.
    """
    months = con.execute(
        f"""SELECT part, export, {_ACCOUNT} AS account, month, list(DISTINCT day), any_value(payer)
            FROM statement_lines GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    found: dict[tuple[str, str, Any], dict[str, _Delivery]] = {}
    for part, export, account, month, days, payer in months:
        deliveries = found.setdefault((export, account, month), {})
        delivery = deliveries.setdefault(parts[part].folder, _Delivery(payer, [], set()))
        delivery.parts.append(part)
        delivery.days.update(days)
    notes: dict[str, None] = {}
    for (export, account, month), deliveries in found.items():
        newest = max(
            deliveries,
            key=lambda folder: max(parts[p].source.modified_ns for p in deliveries[folder].parts),
        )
        for folder, old in deliveries.items():
            new = deliveries[newest]
            moved = old.payer != new.payer and len(old.days & new.days) <= 1  # to another organisation
            if folder == newest or moved:
                continue
            con.execute(
                f"DELETE FROM statement_lines WHERE list_contains(?, part) AND {_ACCOUNT} = ? AND month = ?",
                [old.parts, account, month],
            )
            notes[f"{folder}: an earlier delivery of {month:%Y-%m} ({export}), replaced by {newest}"] = None
    return list(notes)


class _Delivery(NamedTuple):
    payer: str
    parts: list[int]
    days: set[Any]


def _same_money(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Exports that overlap tell the same money twice: of each account and month, one export counts.

    An export that names no accounts (Cost Explorer, not grouped by them) is of all of them.
    """
    rows = con.execute(
        f"""SELECT {_ACCOUNT} AS account, date_trunc('month', day) AS month, export,
                   coalesce(sum(unblended), 0) FROM statement_lines GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    whole: dict[tuple[Any, str], Any] = {}
    for account, month, export, cost in rows:
        found.setdefault((account, month), {})[export] = cost
        whole[month, export] = whole.get((month, export), 0) + cost
    for (account, month), exports in found.items():
        others = {export for of, export in whole if of == month} - exports.keys()
        if not account:
            exports.update({export: whole[month, export] for export in others})
    notes = []
    for (account, month), exports in found.items():
        best = min(exports, key=EXPORTS.index)
        for other in sorted(exports.keys() - {best}):
            con.execute(
                f"""DELETE FROM statement_lines WHERE export = ? AND {_ACCOUNT} = ?
                    AND date_trunc('month', day) = ?""",
                [other, account, month],
            )
            apart = exports[other] - exports[best]
            agrees = "agrees with" if not apart else f"is {apart:+f} off"
            where = f"{account} {month:%Y-%m}".strip()
            notes.append(f"{where}: {other} tells the same money as {best}; it {agrees} it")
    return notes
