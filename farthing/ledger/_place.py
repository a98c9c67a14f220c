"""Where a ledger lies: a folder or an s3:// prefix, and the few operations in which the two differ."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from farthing.aws import SCHEME, Access, Body, Keys, explained, is_s3, keys, objects, split, store
from farthing.ledger._limits import longest_file

MARKER = "farthing.json"
_UNFIT = re.compile(r"[][%*?{}|^\\]")  # in a path: Delta Lake fails on some, DuckDB takes others for patterns
_LEFT_SECONDS = 3600  # a copy that no table names any more may still be read by another process
_AT_ONCE = 16
_CHUNK_BYTES = 1 << 20


class Place(Protocol):
    """What a ledger asks of the place it lies in. OSError if it cannot be had."""

    def marker(self) -> str | None:
        """The text of the marker; None if there is none."""

    def begin(self, text: str) -> bool:
        """Write the marker, in one step, where it is missing. False if something else is here."""

    def mark(self, text: str) -> None:
        """Write the marker anew, in one step."""

    def has(self, table: str) -> bool:
        """Whether the table was ever made, or may have been."""

    def is_newest(self, table: str, version: int) -> bool:
        """Whether nothing was committed after this version, and the table is still the same."""

    def address(self, table: str) -> tuple[str, dict[str, str] | None]:
        """Delta Lake's address of a table, and what it needs to get there."""

    def make(self, table: str, create: Callable[[str], object]) -> None:
        """Make a table in one step, by `create(folder)`, unless another writer was quicker: that is an OSError too."""

    def files(self, table: str, delta: Any) -> list[str]:
        """The table's data, as files on this machine."""

    def opened(self, table: str) -> tuple[Keys, str] | None:
        """What opens a table's objects for other machines, and how their keys begin; None where all see a folder."""

    def sizes(self, table: str) -> dict[str, int]:
        """What lies in a table's folder, with its size in bytes."""

    def tidy(self) -> int:
        """Remove what killed processes left half made; how much there was."""

    def lacks(self, need: int) -> str:
        """Why so many bytes cannot be written here; "" if they can."""

    def reason(self, error: Exception, action: str) -> str:
        """One line on what went wrong: at s3:GetObject or s3:PutObject."""


def place(name: Path | str) -> Place:
    """The place of that name; ValueError if it can be none."""
    if is_s3(str(name)):
        return Bucket(str(name))
    found = Path(os.path.realpath(name))  # a link may lead elsewhere tomorrow: a commit is of one ledger
    if _UNFIT.search(found.as_posix()):
        raise ValueError(f"a ledger's path has none of {_UNFIT.pattern[1:-1]}; name another folder")
    return Folder(found)


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def marker(self) -> str | None:
        marker = self._path / MARKER
        return marker.read_text() if marker.exists() else None

    def begin(self, text: str) -> bool:
        """This process may be killed, and others may look."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise OSError("no folder, or a link that leads to none: name another") from None
        marker = self._path / MARKER
        strange = [path for path in self._path.iterdir() if not path.name.startswith(MARKER)]
        if strange and not marker.exists():
            return False
        self.mark(text)
        return True

    def mark(self, text: str) -> None:
        draft = self._draft()
        draft.write_text(text)
        draft.replace(self._path / MARKER)

    def has(self, table: str) -> bool:
        return (self._path / table).exists()

    def is_newest(self, table: str, version: int) -> bool:
        log = self._path / table / "_delta_log"
        return (log / f"{version:020}.json").exists() and not (log / f"{version + 1:020}.json").exists()

    def address(self, table: str) -> tuple[str, dict[str, str] | None]:
        return str(self._path / table), None

    def make(self, table: str, create: Callable[[str], object]) -> None:
        """Delta lets both of two who make a table succeed, so it is renamed into its place."""
        draft = self._draft()
        try:
            create(str(draft))
            draft.rename(self._path / table)  # only if no other writer was quicker
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def files(self, table: str, delta: Any) -> list[str]:
        return [unquote(uri) for uri in delta.file_uris()]

    def opened(self, table: str) -> tuple[Keys, str] | None:
        return None

    def sizes(self, table: str) -> dict[str, int]:
        folder = self._path / table
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file()
        }

    def tidy(self) -> int:
        oldest = time.time() - _LEFT_SECONDS
        drafts = [path for path in self._path.glob(f"{MARKER}.*") if path.stat().st_mtime < oldest]
        for draft in drafts:
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)
        return len(drafts)

    def lacks(self, need: int) -> str:
        free = shutil.disk_usage(self._path).free
        if free < need:
            return f"{free:,} bytes free on the disk, {need:,} needed"
        most = longest_file()
        return (
            f"files of {most:,} bytes at most are allowed here (ulimit -f), {need:,} needed"
            if most < need
            else ""
        )

    def reason(self, error: Exception, action: str) -> str:
        return os_reason(error)

    def _draft(self) -> Path:
        """A name for something that will be renamed once it is whole; what a killed process leaves of it is ignored."""
        return self._path / f"{MARKER}.{os.urandom(8).hex()}"


class Bucket:
    """A prefix in a bucket, reached as boto3 would reach it. Commits are conditional puts: the first one wins.

    Data files never change, so what has been read is kept in this user's cache, and DuckDB reads it there.
    """

    def __init__(self, url: str) -> None:
        self._bucket, prefix = split(url.rstrip("/"))
        self._prefix = f"{prefix}/" if prefix else ""
        self._access = Access()

    def marker(self) -> str | None:
        key = self._prefix + MARKER
        found = next(
            objects(self._access, self._bucket, key), None
        )  # asked first: it tells the bucket's region
        return Body(self._keys(), key).all().decode() if found and found.key == key else None

    def begin(self, text: str) -> bool:
        for one in objects(self._access, self._bucket, self._prefix):
            if one.key not in (self._prefix, self._prefix + MARKER):
                return False
        self._put(self._prefix + MARKER, text.encode())
        return True

    def mark(self, text: str) -> None:
        import obstore

        try:
            obstore.put(store(self._keys()), self._prefix + MARKER, text.encode())
        except Exception as error:  # noqa: BLE001 - obstore's and Python's own
            raise explained(error, "s3:PutObject", self._bucket) from None

    def has(self, table: str) -> bool:
        key = f"{self._prefix}{table}/_delta_log/"
        return next(objects(self._access, self._bucket, key), None) is not None

    def is_newest(self, table: str, version: int) -> bool:
        import obstore

        log = f"{self._prefix}{table}/_delta_log"
        last, following = f"{log}/{version:020}.json", f"{log}/{version + 1:020}.json"
        try:
            pages = obstore.list(store(self._keys()), log, offset=last[:-1], chunk_size=1000)
            later = {
                one["path"] for one in next(iter(pages), [])
            }  # in the order of keys: both are on the first page
        except Exception as error:  # noqa: BLE001 - obstore's and Python's own
            raise explained(error, "s3:ListBucket", self._bucket) from None
        return last in later and following not in later

    def address(self, table: str) -> tuple[str, dict[str, str] | None]:
        held = self._keys()
        options = {
            "AWS_ACCESS_KEY_ID": held.key_id,
            "AWS_SECRET_ACCESS_KEY": held.secret,
            "AWS_REGION": held.region,
            "AWS_ENDPOINT_URL": held.endpoint,
            "AWS_ALLOW_HTTP": str(held.endpoint.startswith("http:")).lower(),
            "AWS_CONDITIONAL_PUT": "etag",
        }
        if held.token:
            options["AWS_SESSION_TOKEN"] = held.token
        return f"{SCHEME}{self._bucket}/{self._prefix}{table}", options

    def make(self, table: str, create: Callable[[str], object]) -> None:
        """Its first log entry is made here, and put there if there is none."""
        with tempfile.TemporaryDirectory(prefix="farthing-") as folder:
            create(folder)
            first = Path(folder) / "_delta_log" / f"{0:020}.json"
            self._put(f"{self._prefix}{table}/_delta_log/{first.name}", first.read_bytes())

    def files(self, table: str, delta: Any) -> list[str]:
        actions = delta.get_add_actions(flatten=True)
        wanted = dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))
        folder = self._cache() / table
        copies = {path: _inside(folder, unquote(path)) for path in wanted}
        missing = [path for path, copy in copies.items() if _size(copy) != wanted[path]]
        if missing:
            from concurrent.futures import ThreadPoolExecutor  # a ledger in a folder needs none

            held = self._keys()
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                names = [f"{self._prefix}{table}/{path}" for path in missing]
                list(threads.map(lambda name, path: _copy(held, name, copies[path]), names, missing))
            _prune(folder, set(copies.values()))
        return [str(copy) for copy in copies.values()]

    def opened(self, table: str) -> tuple[Keys, str] | None:
        return self._keys(), f"{self._prefix}{table}/"

    def sizes(self, table: str) -> dict[str, int]:
        prefix = f"{self._prefix}{table}/"
        return {
            unquote(one.key.removeprefix(prefix)): one.size
            for one in objects(self._access, self._bucket, prefix)
        }

    def tidy(self) -> int:
        return 0  # an object is whole or is not there

    def lacks(self, need: int) -> str:
        return ""

    def reason(self, error: Exception, action: str) -> str:
        return str(explained(error, action, self._bucket))

    def _keys(self) -> Keys:
        return keys(self._access, self._bucket)

    def _put(self, key: str, data: bytes) -> None:
        """Where there is nothing; another writer's is as good."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            obstore.put(store(self._keys()), key, data, mode="create")
        except AlreadyExistsError:
            return
        except Exception as error:  # noqa: BLE001 - obstore's and Python's own
            raise explained(error, "s3:PutObject", self._bucket) from None

    def _cache(self) -> Path:
        import platformdirs

        held = self._keys()
        name = hashlib.blake2b(f"{held.endpoint} {self._bucket} {self._prefix}".encode(), digest_size=12)
        folder = Path(platformdirs.user_cache_dir("farthing", appauthor=False)) / "ledgers" / name.hexdigest()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _inside(folder: Path, name: str) -> Path:
    """Where a copy goes. Who can write the bucket says the names, and must not reach the rest of this machine."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise OSError(
            f"a file of the ledger is called {name!r}, which leads out of it: somebody changed its log"
        )
    return folder / name


def _copy(held: Keys, key: str, copy: Path) -> None:
    """Written under another name first: a copy is whole, or is not there."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f"{copy.name}.{os.urandom(4).hex()}")
    body = Body(held, unquote(key))
    try:
        with draft.open("wb") as file:
            while data := body.read(_CHUNK_BYTES):
                file.write(data)
        draft.replace(copy)
    finally:
        draft.unlink(missing_ok=True)


def _prune(folder: Path, wanted: set[Path]) -> None:
    """Drop copies that the table no longer has, so that the cache is never larger than the ledger for long."""
    oldest = time.time() - _LEFT_SECONDS
    for path in folder.rglob("*"):
        if path not in wanted and path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def os_reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
