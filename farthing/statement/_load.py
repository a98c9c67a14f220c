"""Files of a bill into DuckDB: every export to the same columns, each delivery once, the same money once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.statement._columns import MONEY, TEXT, export_of, missing, projection

if TYPE_CHECKING:
    import duckdb

EXPORTS = ("cur2", "cur", "focus", "cost_explorer")  # which to believe of the same money, best first
_SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet", ".snappy.parquet", ".json")
# Lines of other services are counted, and left.
_BRANDS = "bedrock|claude|anthropic"
_OURS = f"{_BRANDS}|vendedlog|agentcore|mp:[a-z0-9_]*token"
_OPAQUE = "[a-z0-9]{20,}"  # a product code of AWS Marketplace


class StatementError(ValueError):
    """A bill cannot be read: one line that names the file and the mend."""


class Part(NamedTuple):
    """A file of a bill. Files of one folder are parts of one delivery."""

    path: Path
    export: str
    digest: str


class Loaded(NamedTuple):
    """What was read: lines of ours are in the table `statement_lines`; the rest is told here."""

    parts: list[Part]
    lines: int  # in all files
    ours: int
    notes: list[str]  # deliveries that were replaced, files that say the same
    bad: list[str]  # lines whose amounts are no numbers
    by_month: bool = False  # it tells no days


def load(con: duckdb.DuckDBPyConnection, paths: Sequence[Path | str]) -> Loaded:
    """Read the files and folders of these paths. StatementError where nothing in one of them is a bill."""
    files = [file for path in paths for file in _files(Path(path))]
    notes: list[str] = []
    seen: dict[str, Path] = {}
    parts: list[Part] = []
    con.execute(f"CREATE OR REPLACE TEMP TABLE statement_lines ({_SCHEMA})")
    lines = 0
    bad: list[str] = []
    for file in files:
        digest = _digest(file)
        if digest in seen:
            notes.append(f"{file}: the same as {seen[digest]}, and not read again")
            continue
        seen[digest] = file
        parts.append(Part(file, "", digest))
        export, count, faults = _read(con, file, len(parts) - 1)
        parts[-1] = parts[-1]._replace(export=export)
        lines += count
        bad += faults
    _by_product_code(con)
    notes += _retold(con, parts)
    notes += _replaced(con, parts)
    notes += _same_money(con)
    (ours,) = con.execute("SELECT count(*) FROM statement_lines").fetchall()[0]
    by_month = any(p.export == "cost_explorer" and _is_monthly(p.path) for p in parts)
    return Loaded(parts, lines, ours, notes, bad, by_month)


_SCHEMA = (
    "part INTEGER, export VARCHAR, "
    + ", ".join(f"{name} VARCHAR" for name in TEXT)
    + ", day DATE, month TIMESTAMP, quantity DECIMAL(38, 12), "
    + ", ".join(f"{name} DECIMAL(38, 12)" for name in MONEY)
    + ", negative BOOLEAN, lines BIGINT"
)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(_SUFFIXES))
        found = [p for p in found if "manifest" not in p.name.lower()]
        if not found:
            raise StatementError(f"{path}: no CSV, Parquet or JSON file of a bill in it")
        yield from found
    elif path.exists():
        yield path
    else:
        raise StatementError(f"{path}: no such file")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()


def _read(con: duckdb.DuckDBPyConnection, file: Path, part: int) -> tuple[str, int, list[str]]:
    import duckdb

    if file.name.endswith(".json"):
        rows = list(_cost_explorer(file))
        if rows:
            marks = ", ".join("?" * (1 + len(rows[0])))
            con.executemany(f"INSERT INTO statement_lines VALUES ({marks})", [(part, *row) for row in rows])
        return "cost_explorer", len(rows), []
    try:
        if file.suffix == ".parquet":
            relation = con.read_parquet(str(file))
        else:
            relation = con.read_csv(str(file), all_varchar=True, header=True, quotechar='"', escapechar='"')
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    except duckdb.Error as error:
        raise StatementError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    export = export_of(relation.columns)
    if not export:
        raise StatementError(
            f"{file}: no bill that is known here: neither CUR (line_item_usage_type ...) nor FOCUS "
            f"(BilledCost, ChargeCategory ...) columns, but {', '.join(relation.columns[:4])} ..."
        )
    if lacking := missing(export, relation.columns):
        raise StatementError(f"{file}: lacks {', '.join(lacking)}: export it with these columns")
    con.register("statement_file", relation)
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE statement_part AS {_summed(part, export, types)}")
        faults = [] if not _bad_lines(con) else con.execute(_faulty(export, types)).fetchall()
    except duckdb.Error as error:
        raise StatementError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    (count,) = con.execute("SELECT sum(lines + bad) FROM statement_part").fetchall()[0]
    con.execute(
        f"""INSERT INTO statement_lines SELECT * EXCLUDE (bad) FROM statement_part
            WHERE lines > 0 AND ({_IS_OURS} OR {_MAY_BE_OURS})"""
    )
    con.execute("DROP TABLE statement_part")
    return export, int(count or 0), [_fault(file, *row) for row in faults]


_NAMES = "usage_type, product_code, product_name, service_code, description"
_IS_OURS = f"regexp_matches(lower(concat_ws(' ', {_NAMES})), '{_OURS}')"
# Lines of a product that only other lines name: taxes, credits.
_MAY_BE_OURS = f"(lower(line_type) != 'usage' OR regexp_full_match(product_code, '{_OPAQUE}'))"
_IS_BAD = """(started IS NULL OR (unblended IS NULL AND unblended_text != '')
              OR (quantity IS NULL AND quantity_text != ''))"""


def _summed(part: int, export: str, types: dict[str, str]) -> str:
    """Lines that differ in nothing we tell apart, as one: ten million of them are some thousand."""
    sums = ", ".join(f"sum({name}) FILTER (NOT {_IS_BAD}) AS {name}" for name in ("quantity", *MONEY))
    return f"""SELECT {part} AS part, '{export}' AS export, {", ".join(TEXT)}, CAST(started AS DATE) AS day,
                      coalesce(month, date_trunc('month', started)) AS month,
                      {sums}, coalesce(unblended < 0, false) AS negative,
                      count(*) FILTER (NOT {_IS_BAD}) AS lines, count(*) FILTER ({_IS_BAD}) AS bad
               FROM (SELECT {projection(export, types)} FROM statement_file) GROUP BY ALL"""


def _bad_lines(con: duckdb.DuckDBPyConnection) -> bool:
    return bool(con.execute(f"SELECT 1 FROM statement_part WHERE bad > 0 AND {_IS_OURS} LIMIT 1").fetchall())


def _faulty(export: str, types: dict[str, str]) -> str:
    return f"""SELECT line, unblended_text, quantity_text, started IS NULL
               FROM (SELECT {projection(export, types)}, row_number() OVER () AS line FROM statement_file)
               WHERE {_IS_BAD} AND {_IS_OURS} LIMIT 100"""


def _fault(file: Path, line: int, cost: str, quantity: str, no_date: bool) -> str:
    what = "no usage start date" if no_date else f"not a number: cost {cost!r}, amount {quantity!r}"
    return f"{file}:{line + 1}: {what}"


def _cost_explorer(file: Path) -> Iterator[tuple[Any, ...]]:
    """GetCostAndUsage, grouped by SERVICE and USAGE_TYPE (and LINKED_ACCOUNT): `aws ce get-cost-and-usage`."""
    try:
        said = json.loads(file.read_text(encoding="utf-8-sig"))
        groups = [definition["Key"] for definition in said.get("GroupDefinitions", [])]
        periods = said["ResultsByTime"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StatementError(f"{file}: no answer of Cost Explorer's GetCostAndUsage ({error})") from None
    if "USAGE_TYPE" not in groups:
        raise StatementError(
            f"{file}: not grouped by USAGE_TYPE: ask for --group-by Type=DIMENSION,Key=USAGE_TYPE"
        )
    try:
        for period in periods:
            start = period["TimePeriod"]["Start"]
            for group in period.get("Groups", []):
                keys = dict(zip(groups, group["Keys"], strict=True))
                yield from _explored(start, keys, group["Metrics"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise StatementError(
            f"{file}: a group without its keys, or without the metrics UnblendedCost and UsageQuantity as numbers "
            f"({type(error).__name__}: {error}): ask for --metrics UnblendedCost UsageQuantity"
        ) from None


def _is_monthly(file: Path) -> bool:
    periods = json.loads(file.read_text(encoding="utf-8-sig"))["ResultsByTime"]
    spans = [[date.fromisoformat(p["TimePeriod"][end][:10]) for end in ("Start", "End")] for p in periods]
    return any((end - start).days > 1 for start, end in spans)


def _explored(start: str, keys: dict[str, str], metrics: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
    cost, quantity = metrics["UnblendedCost"], metrics["UsageQuantity"]
    net = metrics.get("NetUnblendedCost", {}).get("Amount")
    said = dict.fromkeys(TEXT, "") | {
        "usage_type": keys["USAGE_TYPE"],
        "product_name": keys.get("SERVICE", ""),
        "account": keys.get("LINKED_ACCOUNT", ""),
        "region": keys.get("REGION", ""),
        "unit": quantity.get("Unit", "") if quantity.get("Unit") != "N/A" else "",
        "currency": cost.get("Unit", ""),
        "line_type": keys.get("RECORD_TYPE", "Usage"),
    }
    month = f"{start[:7]}-01"
    amount = Decimal(cost["Amount"])
    yield ("cost_explorer", *said.values(), start[:10], month, Decimal(quantity["Amount"]), amount,
           net if net is None else Decimal(net), None, amount < 0, 1)  # fmt: skip


def _by_product_code(con: duckdb.DuckDBPyConnection) -> None:
    """Lines that tell no more than a Marketplace product code (taxes do) are of the product it stands for."""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE statement_codes AS
            SELECT product_code AS code, min(if(regexp_matches(lower(product_name), '{_BRANDS}'), product_name,
                                                description)) AS name
            FROM statement_lines WHERE regexp_full_match(product_code, '{_OPAQUE}')
            AND regexp_matches(lower(concat_ws(' ', product_name, description)), '{_BRANDS}') GROUP BY ALL"""
    )
    con.execute(
        f"""UPDATE statement_lines SET product_name = c.name FROM statement_codes c
            WHERE NOT regexp_matches(lower(concat_ws(' ', product_name, description)), '{_BRANDS}')
            AND (product_code = c.code OR contains(description, c.code))"""
    )
    con.execute(f"DELETE FROM statement_lines WHERE NOT {_IS_OURS}")


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
        one, other = (parts[part].path for part in pair)
        if one.parent != other.parent:
            continue
        old, new = sorted(pair, key=lambda part: (parts[part].path.stat().st_mtime_ns, part))
        con.execute(
            f"""DELETE FROM statement_lines WHERE part = ? AND ({_ACCOUNT}, month) IN
                (SELECT ({_ACCOUNT}, month) FROM statement_lines WHERE part = ?)""",
            [old, new],
        )
        notes.append(
            f"{parts[old].path}: tells the same money as {parts[new].path}, which is newer and counts"
        )
    return notes


def _replaced(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[str]:
    """Of two deliveries of one export, account and month, the later holds: each tells the whole month anew.

    A delivery is a folder; loose files of one folder are its parts. Which is later: by the newest file in it.
    By account, since a member's export has its own lines and none of the payer's others.
    """
    months = con.execute(
        f"""SELECT part, export, {_ACCOUNT} AS account, month, list(DISTINCT day), any_value(payer)
            FROM statement_lines GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    found: dict[tuple[str, str, Any], dict[Path, _Delivery]] = {}
    for part, export, account, month, days, payer in months:
        deliveries = found.setdefault((export, account, month), {})
        delivery = deliveries.setdefault(parts[part].path.parent, _Delivery(payer, [], set()))
        delivery.parts.append(part)
        delivery.days.update(days)
    notes: dict[str, None] = {}
    for (export, account, month), deliveries in found.items():
        newest = max(
            deliveries,
            key=lambda folder: max(parts[p].path.stat().st_mtime_ns for p in deliveries[folder].parts),
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
