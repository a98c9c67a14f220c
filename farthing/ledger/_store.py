"""A ledger's tables: Delta tables in a folder or a bucket, the marker beside them, and DuckDB to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farthing.aws import is_s3
from farthing.ledger._limits import memory_for_rows, too_little_memory
from farthing.ledger._place import MARKER, os_reason, place
from farthing.ledger._tables import DUCK, TABLES, arrow, statistics, written
from farthing.ledger._upgrade import UPGRADED, add_columns, filled, late_columns

if TYPE_CHECKING:
    import duckdb

FORMAT = 2  # of the ledger; an older one is upgraded, a newer one refused
_ROOM_BYTES = 100_000  # that a commit may take beside its data: the log entry, footers, a block a file


class LedgerError(Exception):
    """The ledger cannot be read or written: one line that names the folder and the mend."""


class Store:
    """The tables of one ledger, in a folder or at an s3:// prefix. LedgerError if that cannot be used."""

    def __init__(self, folder: Path | str) -> None:
        self.folder: Any = str(folder).rstrip("/") if is_s3(str(folder)) else Path(folder)  # as users name it
        self._con: duckdb.DuckDBPyConnection | None = None
        self._tables: dict[str, tuple[Any, Any]] = {}  # as last read, and how they were reached
        if little := too_little_memory():
            raise LedgerError(f"{folder}: {little}")
        try:
            self.place = place(folder)
        except ValueError as error:
            raise LedgerError(f"{folder}: {error}") from error
        try:
            found = self.place.marker()
            if found is None:
                if not self.place.begin(json.dumps({"format": FORMAT})):
                    raise LedgerError(f"{folder}: not empty and no farthing ledger; name another folder")
                found = self.place.marker()
            said = json.loads(found or "")
        except OSError as error:
            raise LedgerError(f"{folder}: {os_reason(error)}") from error
        except ValueError as error:
            damaged = f'is damaged: it should hold {{"format": {FORMAT}}}'
            raise LedgerError(f"{self.folder}/{MARKER} {damaged}") from error
        if isinstance(said, dict) and said.get("format") in UPGRADED:
            said = self._upgrade()
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise LedgerError(
                f"{folder}: a ledger of format {said.get('format') if isinstance(said, dict) else said!r}; this "
                f"farthing reads format {FORMAT}: use the farthing that wrote it, or import into another folder"
            )

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The ledger's own DuckDB, in UTC; frames of this ledger join only here."""
        if self._con is None:
            import duckdb

            self._con = duckdb.connect()
            self._con.execute("SET TimeZone = 'UTC'")
            if most := memory_for_rows():
                self._con.execute(f"SET memory_limit = '{most}B'")
        return self._con

    def _upgrade(self) -> dict[str, int]:
        """Bring a ledger of an earlier format to this one. The mark comes last: killed before, it is done again."""
        from deltalake.exceptions import DeltaError

        try:
            for name in TABLES:
                add_columns(name, lambda name=name: self.delta(name))
            self.place.mark(json.dumps({"format": FORMAT}))
        except (DeltaError, OSError) as error:
            why = self.place.reason(error, "s3:PutObject")
            raise LedgerError(f"{self.folder}: cannot upgrade it: {why}") from error
        return {"format": FORMAT}

    def table(self, name: str, delta: Any = None, month: str = "") -> duckdb.DuckDBPyRelation:
        """A table as it stands, or as it was in `delta`, or a month of it; empty where nothing was written yet."""
        delta = delta or self.delta(name)
        try:
            paths = self.place.files(name, delta) if delta else []
            paths = [path for path in paths if f"/month={month}/" in path] if month else paths
        except OSError as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {os_reason(error)}") from error
        if not paths:
            return self.none(name)
        import duckdb

        try:
            late = late_columns(delta)
            rows = self.connection.read_parquet(paths, hive_partitioning=False, union_by_name=bool(late))
            return filled(rows, late)
        except duckdb.Error as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {os_reason(error)}") from error

    def none(self, name: str) -> duckdb.DuckDBPyRelation:
        """No row of a table."""
        columns = {column: kind for column, kind in TABLES[name].items() if column != "month"}
        empty = ", ".join(f'CAST(NULL AS {DUCK[kind]}) AS "{column}"' for column, kind in columns.items())
        return self.connection.sql(f"SELECT {empty} LIMIT 0")

    def commit(self, name: str, columns: dict[str, Any], delta: Any = None, version: int = 0) -> bool:
        """Append columns to a table. With a version: False if another commit took it since `delta` was read."""
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        transactions = [Transaction("farthing", version)] if version else None
        data = arrow(columns, TABLES[name])
        try:
            if full := self.place.lacks(
                data.nbytes + _ROOM_BYTES
            ):  # the writer itself would print a stack trace
                raise LedgerError(f"{self.folder}: cannot write: {full}")
            write_deltalake(
                self.delta(name, make=True) if delta is None else delta,
                data,
                mode="append",
                writer_properties=written(name),
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except (DeltaError, OSError) as error:
            overtaken = delta is not None and self._overtaken(name, delta.version())
            if version and (overtaken or isinstance(error, CommitFailedError)):
                return False
            why = self.place.reason(error, "s3:PutObject")
            raise LedgerError(f"{self.folder}: cannot write: {why}") from error
        return True

    def _overtaken(self, name: str, version: int) -> bool:
        try:
            return not self.place.is_newest(name, version)
        except OSError:  # the fault that made us ask is the one to tell
            return False

    def delta(self, name: str, *, make: bool = False) -> Any:
        """A table as it stands; None, or an empty one, if it was never written.

        It is made by itself, not by its first rows: then the first commit of rows is one like any other, and two
        writers who begin at once see each other.
        """
        found = self._read(name)
        if found is None and make:
            self._make(name)
            found = self._read(name)
        return found

    def _read(self, name: str) -> Any:
        try:
            address, options = self.place.address(name)
            held, reached = self._tables.get(name, (None, None))
            if held and reached == options and self.place.is_newest(name, held.version()):
                return held
            if not self.place.has(name):
                return None
        except OSError as error:
            raise LedgerError(f"{self.folder}: {os_reason(error)}") from error
        from deltalake import DeltaTable  # where there is something to read: a new ledger opens sooner
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            self._tables[name] = DeltaTable(address, storage_options=options), options
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            why = self.place.reason(error, "s3:GetObject")
            raise LedgerError(f"{self.folder}: cannot read {name}: {why}") from error
        return self._tables[name][0]

    def _make(self, name: str) -> None:
        """Make the table, unless another writer was quicker."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        columns = TABLES[name]
        schema = arrow({column: [] for column in columns}, columns).schema
        partitions = ["month"] if "month" in columns else None

        def create(folder: str) -> None:
            DeltaTable.create(folder, schema, partition_by=partitions, configuration=statistics(name))

        try:
            self.place.make(name, create)
        except (DeltaError, OSError) as error:
            if self._read(name) is None:
                why = self.place.reason(error, "s3:PutObject")
                raise LedgerError(f"{self.folder}: cannot write: {why}") from error
