"""Where a ledger's tables are: a folder of Delta tables, its marker, and DuckDB to read them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from farthing.ledger._tables import DUCK, TABLES, arrow

if TYPE_CHECKING:
    import duckdb

MARKER = "farthing.json"
FORMAT = 2  # of the folder; an older one is upgraded, a newer one refused
_ROOM_BYTES = 100_000  # that a commit may take beside its data: the log entry, footers, a block a file
_UNFIT = re.compile(r"[][%*?{}|^\\]")  # in a path: Delta Lake fails on some, DuckDB takes others for patterns


class LedgerError(Exception):
    """The ledger cannot be read or written: one line that names the folder and the mend."""


class Store:
    """The tables of one ledger. LedgerError if its folder cannot be used."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._con: duckdb.DuckDBPyConnection | None = None
        self._tables: dict[str, Any] = {}  # as last read
        if _UNFIT.search(self.folder.absolute().as_posix()):
            raise LedgerError(
                f"{folder}: a ledger's path has none of {_UNFIT.pattern[1:-1]}; name another folder"
            )
        marker = self.folder / MARKER
        try:
            if not marker.exists():
                self._begin(marker)
            found = json.loads(marker.read_text())
        except OSError as error:
            raise LedgerError(f"{folder}: {os_reason(error)}") from error
        except ValueError as error:
            raise LedgerError(f'{marker} is damaged: it should hold {{"format": {FORMAT}}}') from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise LedgerError(
                f"{folder}: a ledger of format {found.get('format') if isinstance(found, dict) else found!r}; this "
                f"farthing reads format {FORMAT}: use the farthing that wrote it, or import into another folder"
            )

    def _begin(self, marker: Path) -> None:
        """Mark a new or empty folder as a ledger, in one step: this process may be killed, and others may look."""
        self.folder.mkdir(parents=True, exist_ok=True)
        strange = [path for path in self.folder.iterdir() if not path.name.startswith(marker.name)]
        if strange and not marker.exists():
            raise LedgerError(f"{self.folder}: not empty and no farthing ledger; name another folder")
        draft = self._draft()
        draft.write_text(json.dumps({"format": FORMAT}))
        draft.replace(marker)

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The ledger's own DuckDB, in UTC; frames of this ledger join only here."""
        if self._con is None:
            import duckdb

            self._con = duckdb.connect()
            self._con.execute("SET TimeZone = 'UTC'")
        return self._con

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """A table as it stands; empty where nothing was written yet."""
        columns = TABLES[name]
        delta = self.delta(name)
        paths = [unquote(uri) for uri in delta.file_uris()] if delta else []
        if not paths:
            columns = {column: kind for column, kind in columns.items() if column != "month"}
            empty = ", ".join(f'CAST(NULL AS {DUCK[kind]}) AS "{column}"' for column, kind in columns.items())
            return self.connection.sql(f"SELECT {empty} LIMIT 0")
        import duckdb

        try:
            return self.connection.read_parquet(paths, hive_partitioning=False)
        except duckdb.Error as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {os_reason(error)}") from error

    def commit(self, name: str, columns: dict[str, Any], delta: Any = None, version: int = 0) -> bool:
        """Append columns to a table. With a version: False if another commit took it since `delta` was read."""
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        transactions = [Transaction("farthing", version)] if version else None
        data = arrow(columns, TABLES[name])
        need = data.nbytes + _ROOM_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < need:  # found out by the writer itself, this prints a stack trace of its own
            raise LedgerError(
                f"{self.folder}: cannot write: {free:,} bytes free on the disk, {need:,} needed"
            )
        try:
            write_deltalake(
                self.delta(name, make=True) if delta is None else delta,
                data,
                mode="append",
                writer_properties=WriterProperties(compression="ZSTD"),
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except (DeltaError, OSError) as error:
            if version and isinstance(error, CommitFailedError):
                return False
            raise LedgerError(f"{self.folder}: cannot write: {os_reason(error)}") from error
        return True

    def delta(self, name: str, *, make: bool = False) -> Any:
        """A table as it stands; None, or an empty one, if it was never written.

        It is made by itself, not by its first rows: then the first commit of rows is one like any other, and two
        writers who begin at once see each other. Delta lets both of two who make a table succeed, so it is renamed
        into its place.
        """
        path = self.folder / name
        if name in self._tables and _is_newest(path, self._tables[name].version()):
            return self._tables[name]
        if not make and not path.exists():
            return None
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            if path.exists():
                self._tables[name] = DeltaTable(str(path))
                return self._tables[name]
        except TableNotFoundError:
            pass
        except (DeltaError, OSError) as error:
            raise LedgerError(f"{self.folder}: cannot read {name}: {os_reason(error)}") from error
        if not make:
            return None
        columns = TABLES[name]
        schema = arrow({column: [] for column in columns}, columns).schema
        draft = self._draft()
        try:
            DeltaTable.create(str(draft), schema, partition_by=["month"] if "month" in columns else None)
            draft.rename(path)  # in one step, and only if no other writer was quicker
            return DeltaTable(str(path))
        except (DeltaError, OSError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            if found := self.delta(name):
                return found
            raise LedgerError(f"{self.folder}: cannot write: {os_reason(error)}") from error

    def _draft(self) -> Path:
        """A name for something that will be renamed once it is whole; what a killed process leaves of it is ignored."""
        return self.folder / f"{MARKER}.{os.urandom(8).hex()}"


def _is_newest(table: Path, version: int) -> bool:
    """Whether nothing was committed after this version: its log is still there, and that of the next one is not."""
    log = table / "_delta_log"
    return (log / f"{version:020}.json").exists() and not (log / f"{version + 1:020}.json").exists()


def os_reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
