"""Where the files of a bill are: folders, buckets, archives, and which of several deliveries of a month holds."""

from __future__ import annotations

import json
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from farthing.aws import Access, AwsError, is_s3
from farthing.statement._bucket import content, copied, listed

if TYPE_CHECKING:
    import duckdb

SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".csv.zip", ".zip", ".parquet", ".json")
_STATUS = "cost_and_usage_data_status"  # a table beside the data, for Athena

Progress = Callable[[int, int], None]


class StatementError(ValueError):
    """A bill cannot be read: one line that names the file and the mend."""


class Source(NamedTuple):
    """A file of a bill. `path` is where its bytes are; `name` what it is called, which may be s3://... or in a zip.

    Files of one `folder` are parts of one delivery.
    """

    path: Path
    name: str
    folder: str
    modified_ns: int


class Seen(NamedTuple):
    """A file that was met in a folder or bucket, and may be of a bill."""

    name: str
    size: int
    modified_ns: int
    etag: str = ""

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]


class Meter:
    """How far reading is, in bytes: of all that is known to come, which grows as it is found."""

    def __init__(self, progress: Progress | None) -> None:
        self.watched = progress is not None
        self._progress = progress
        self._lock = threading.Lock()
        self._done = self._all = 0

    def begin(self, size: int) -> Callable[[int], None]:
        """So many bytes more are to come; the answer is told how many did."""
        self._all += size
        return self._tell

    def _tell(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(min(self._done, self._all), self._all)


class Asked(NamedTuple):
    """Which bill: the paths, how buckets are reached, the days that count, where copies may lie."""

    paths: Sequence[Path | str]
    access: Access
    since: date
    until: date
    copies: Path
    meter: Meter


def sources(asked: Asked, notes: list[str]) -> Iterator[Source]:
    """Every file that counts, in the order of names. StatementError where a path leads to none."""
    for number, given in enumerate(asked.paths):
        path = _as_url(str(given))
        copies = asked.copies / str(number)
        if is_s3(path):
            yield from _in_bucket(path, asked, copies, notes)
            continue
        local = Path(path)
        if local.is_dir():
            seen = [_seen(file) for file in sorted(local.rglob("*")) if file.is_file()]
            for found in _chosen(path, seen, asked, lambda one: Path(one.name).read_bytes(), notes):
                yield from _unpacked(_source(Path(found.name), found), copies)
        elif local.exists():
            yield from _unpacked(_source(local, _seen(local)), copies)
        else:
            raise StatementError(f"{path}: no such file")


def _as_url(path: str) -> str:
    """A Path takes one of the slashes away."""
    return re.sub(r"^s3:/(?=[^/])", "s3://", path)


def _seen(file: Path) -> Seen:
    status = file.stat()
    return Seen(file.as_posix(), status.st_size, status.st_mtime_ns)


def _source(path: Path, seen: Seen) -> Source:
    return Source(path, seen.name, seen.folder, seen.modified_ns)


def _in_bucket(url: str, asked: Asked, copies: Path, notes: list[str]) -> Iterator[Source]:
    """Copies of the objects that count: whoever asks removes them."""
    try:
        seen = [Seen(*one) for one in listed(asked.access, url)]
        found = _chosen(url, seen, asked, lambda one: content(asked.access, one.name, one.etag), notes)
        tell = asked.meter.begin(sum(one.size for one in found))
        paths = copied(asked.access, [(one.name, one.etag) for one in found], copies, tell)
    except AwsError as error:
        raise StatementError(f"{url}: {error}") from error
    for one, path in zip(found, paths, strict=True):
        yield from _unpacked(_source(path, one), copies)


def _chosen(
    path: str, seen: Sequence[Seen], asked: Asked, read: Callable[[Seen], bytes], notes: list[str]
) -> list[Seen]:
    """The files of bills among these, of the days asked for, and of the deliveries that hold."""
    manifests = [one for one in seen if one.name.lower().endswith("manifest.json")]
    files = [one for one in seen if _is_bill(one)]
    if not files:
        raise StatementError(f"{path}: no CSV, Parquet or JSON file of a bill in it")
    asked_for = [one for one in files if _overlaps(one.name, asked.since, asked.until)]
    if not asked_for:
        notes.append(f"{path}: no billing period in it has days of {asked.since} to {asked.until}")
    manifests = [one for one in manifests if _overlaps(one.name, asked.since, asked.until)]
    return _current(asked_for, manifests, read, notes)


def _is_bill(one: Seen) -> bool:
    name = one.name.lower()
    return name.endswith(SUFFIXES) and "manifest" not in name.rpartition("/")[2] and _STATUS not in name


# --- billing periods and deliveries -------------------------------------------------------------------------------

_PERIODS = (
    re.compile(r"(?i)/billing_period=(?P<year>\d{4})-(?P<month>\d\d)/"),
    re.compile(r"/(?P<year>\d{4})(?P<month>\d\d)\d\d-\d{8}/"),
    re.compile(r"/year=(?P<year>\d{4})/month=(?P<month>\d{1,2})/"),
)


def _overlaps(name: str, since: date, until: date) -> bool:
    """Whether a file may have lines of these days: its name may tell the month that it is of."""
    match = next(filter(None, (pattern.search(name) for pattern in _PERIODS)), None)
    if not match or not 1 <= int(match["month"]) <= 12:
        return True
    first = date(int(match["year"]), int(match["month"]), 1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return first <= until and since <= last


def _current(
    files: Sequence[Seen], manifests: Sequence[Seen], read: Callable[[Seen], bytes], notes: list[str]
) -> list[Seen]:
    """Without what a manifest no longer names. AWS writes it last, so the newest one of a place tells what holds."""
    by_scope: dict[str, Seen] = {}
    for one in sorted(manifests, key=lambda one: (one.modified_ns, one.name)):
        by_scope[_scope(one)] = one
    kept = list(files)
    for scope in sorted(by_scope, key=len):  # the one above holds: it is of all deliveries of the month
        within = [one for one in kept if one.name.startswith(f"{scope}/")]
        keys = _keys(read(by_scope[scope])) if within else []
        named = [one for one in within if _is_named(one.name[len(scope) :], keys)]
        manifest = by_scope[scope].name
        if not within or not keys:
            continue
        if not named:
            notes.append(f"{manifest}: none of the files it names is here; those that are count")
            continue
        if len(named) < len(keys):
            notes.append(
                f"{manifest}: names {len(keys)} files, of which {len(named)} are here: the bill is not whole"
            )
        if dropped := [one for one in within if one not in named]:
            notes.append(
                f"{scope}: {len(dropped)} files of earlier deliveries, which {manifest} no longer names"
            )
        kept = [one for one in kept if one not in dropped]
    return kept


def _scope(manifest: Seen) -> str:
    """The folder whose files a manifest tells of: beside it, or, in Data Exports, data/ beside metadata/."""
    folder = manifest.folder
    match = re.match(r"(?P<top>.*)/metadata/(?P<period>[^/]*=[^/]*)(/.*)?$", folder)
    return f"{match['top']}/data/{match['period']}" if match else folder


def _keys(text: bytes) -> list[str]:
    """The files that a manifest names, wherever in it they stand: reportKeys, dataFiles."""
    try:
        said = json.loads(text)
    except ValueError:
        return []

    def strings(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for inner in value.values():
                yield from strings(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from strings(inner)
        elif isinstance(value, str):
            yield value

    return list(dict.fromkeys(text for text in strings(said) if text.lower().endswith(SUFFIXES)))


def _is_named(relative: str, keys: Iterable[str]) -> bool:
    return any(f"/{key}".endswith(relative) for key in keys)


# --- archives -----------------------------------------------------------------------------------------------------


_MOST_UNPACKED, _MOST_TIMES = 1 << 30, 200  # of bytes, and times what is packed; bills pack to a tenth


def _unpacked(source: Source, copies: Path) -> Iterator[Source]:
    """The file itself, or what is in it if it is a zip archive."""
    with source.path.open("rb") as opened:
        if opened.read(4) != b"PK\x03\x04":
            yield source
            return
    try:
        with zipfile.ZipFile(source.path) as archive:
            yield from _members(source, archive, copies)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise StatementError(f"{source.name}: cannot be unpacked: {error}; unpack it first") from error


def _members(source: Source, archive: zipfile.ZipFile, copies: Path) -> Iterator[Source]:
    members = [one for one in archive.infolist() if not one.is_dir() and _is_bill(Seen(one.filename, 0, 0))]
    if not members:
        raise StatementError(f"{source.name}: no CSV, Parquet or JSON file of a bill in it")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _MOST_UNPACKED and unpacked > _MOST_TIMES * source.path.stat().st_size:
        size = f"{unpacked >> 30} GiB"
        raise StatementError(
            f"{source.name}: would unpack to {size}, as no bill does; if it is one, unpack it first"
        )
    copies.mkdir(parents=True, exist_ok=True)
    for number, member in enumerate(members):
        inside = PurePosixPath(member.filename)
        target = copies / f"{abs(hash(source.name)):x}-{number}"
        with archive.open(member) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        below = (
            "" if inside.parent == PurePosixPath() else f"/{PurePosixPath(source.name).name}/{inside.parent}"
        )
        yield Source(target, f"{source.name}/{inside}", source.folder + below, source.modified_ns)


# --- how a file is read --------------------------------------------------------------------------------------------

_MOST_REJECTS = 1000  # a file with more of them is told by these
_Kind = Literal["json", "parquet", "gzip", "zstd", "none"]
_MAGIC: dict[bytes, _Kind] = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def kind_of(source: Source) -> _Kind:
    """How a file is read, by how it begins: names of files are often wrong."""
    with source.path.open("rb") as file:
        head = file.read(64)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StatementError(f"{source.name}: UTF-16 text: `iconv -f UTF-16 -t UTF-8 FILE` mends it")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") or source.name.lower().endswith(".json"):
        return "json"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "none")


def opened(con: duckdb.DuckDBPyConnection, source: Source) -> duckdb.DuckDBPyRelation:
    """The file as a relation: Parquet, or CSV in whatever compression, but for rows that are in `rejects`."""
    kind = kind_of(source)
    if kind == "parquet":
        return con.read_parquet(str(source.path))
    packed = cast("Literal['gzip', 'zstd', 'none']", kind)
    return con.read_csv(
        str(source.path),
        all_varchar=True,
        header=True,
        quotechar='"',
        escapechar='"',
        compression=packed,
        store_rejects=True,
        rejects_limit=_MOST_REJECTS,
    )


def rejects(con: duckdb.DuckDBPyConnection) -> list[tuple[int, str]]:
    """Line and fault of what was no row of the CSV files read since the last time this was asked."""
    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'").fetchall():
        return []
    found = con.execute(
        "SELECT line, arg_min(error_message, error_message) FROM reject_errors GROUP BY line ORDER BY line"
    ).fetchall()
    con.execute("DROP TABLE reject_errors")
    con.execute("DROP TABLE reject_scans")
    return [(line, " ".join(str(message).split())) for line, message in found]
