"""Client keys: who calls, what the key may ask for, and the file that holds them (docs/gateway.md).

A token is 256 random bits, so its plain SHA-256 is what the file keeps: there is nothing to guess, and a slow hash
would cost more than the call. A secret for Signature Version 4 must be kept itself, since it is what signs.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

NAME = "farthing-keys.json"
Platform = Literal["", "bedrock", "anthropic", "claude_aws"]
_TOKEN, _KEY_ID = "ftg_", "FTGK"
_SHOWN = 12  # characters of a token, to tell which it is
_PRIVATE = 0o600

Text = Annotated[str, msgspec.Meta(max_length=300)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class KeysError(ValueError):
    """A key file at fault, or a request of the command line that makes no sense: one line with the mend."""


class NoSuchKey(KeysError):
    """None of the name is in force."""


class NameTaken(KeysError):
    """One of the name is in force."""


class Key(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One secret and what it opens. Several of one name are one key while it is rotated. Empty lists allow all."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]*$")]
    shown: Text  # the beginning of the token, or the whole access key id
    digest: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    secret: Text = ""  # of an access key id
    created: Time
    expires: Time | None = None
    revoked: Time | None = None
    team: Text = ""
    teams: tuple[Text, ...] = ()  # that it may act for, by x-farthing-team
    project: Text = ""
    tags: dict[Text, Text] = {}
    models: tuple[Text, ...] = ()  # patterns, of ids as called
    endpoints: tuple[Text, ...] = ()  # patterns of routings: global, geo:eu, in_region
    upstream: Platform = ""  # where its Messages go
    role_arn: Text = ""  # assumed for its calls
    pinned: bool = False  # policies may not take it out of its region
    batches: bool = False  # it may use batch jobs: no budget holds them back, and all keys see the same ones
    admin: bool = False

    def holds(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = 1
    keys: tuple[Key, ...] = ()


class Denied(NamedTuple):
    """Why a caller may not: 401 if nobody known, else 403."""

    status: int
    reason: str


def may(key: Key, model: str, routing: str, team: str) -> str:
    """Why the key may not call that; "" if it may."""
    if key.models and not any(fnmatchcase(model, pattern) for pattern in key.models):
        return f"key {key.name} may not call {model[:100]}: it has {', '.join(key.models)}"
    if key.endpoints and not any(fnmatchcase(routing, pattern) for pattern in key.endpoints):
        return f"key {key.name} may not call {routing or 'an unknown endpoint'}: it has {', '.join(key.endpoints)}"
    if team and team != key.team and team not in key.teams:
        return f"key {key.name} may not act for team {team[:100]}"
    return ""


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path | str) -> tuple[Key, ...]:
    """The keys of a file; none if there is no file. KeysError names what is wrong, and never a secret."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror or error}") from None
    try:
        read = msgspec.json.decode(text, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: {error}") from None
    if read.version != 1:
        raise KeysError(f"{path}: of version {read.version}; this farthing reads 1: update it")
    return read.keys


class Keys:
    """The keys in force, read again whenever the file has changed. `fault` says why what is there now is not."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.fault = ""
        self._stamp: tuple[int, ...] = (-1,)
        self._by_digest: Mapping[str, Key] = {}
        self._by_id: Mapping[str, Key] = {}
        self.refresh()

    def refresh(self) -> None:
        """A file at fault changes nothing: what was in force stays. One that is gone leaves nobody."""
        stamp: tuple[int, ...] = ()
        try:
            found = os.stat(self.path)  # noqa: PTH116 - asked before every call
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            pass
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            keys = load(self.path)
        except KeysError as error:
            self.fault = str(error)
            return
        self.fault = ""
        self._by_digest = {key.digest: key for key in keys if key.digest}
        self._by_id = {key.shown: key for key in keys if key.secret}

    def of_token(self, token: str, now: datetime) -> Key | None:
        """Whose token it is. The look-up is of its digest, of which nobody can choose the first bytes."""
        return self.of_digest(digest(token), now)

    def of_digest(self, said: str, now: datetime) -> Key | None:
        """The same, for who has kept no more of it."""
        self.refresh()
        key = self._by_digest.get(said)
        return key if key is not None and key.holds(now) else None

    def of_id(self, key_id: str, now: datetime) -> Key | None:
        """Whose access key id it says it is: to be believed only once its signature is verified."""
        self.refresh()
        key = self._by_id.get(key_id)
        return key if key is not None and key.holds(now) else None

    def __len__(self) -> int:
        return len(self._by_digest) + len(self._by_id)


def digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def shown(key: Key, now: datetime) -> dict[str, Any]:
    """A key without its secret."""
    said: dict[str, Any] = msgspec.to_builtins(key)
    return {
        name: value for name, value in said.items() if name not in ("digest", "secret") and value not in ("", [], {})
    } | {"in_force": key.holds(now)}  # fmt: skip


# --- writing ----------------------------------------------------------------------------------------------------------


class Issued(NamedTuple):
    """A secret, told once: a token, or an access key id with its secret."""

    key: Key
    token: str = ""
    secret: str = ""


def issue(like: Key, now: datetime, *, sigv4: bool = False) -> Issued:
    """A fresh secret with the rights of `like`."""
    if sigv4:
        key_id, secret = _KEY_ID + secrets.token_hex(8).upper(), secrets.token_urlsafe(30)
        made = msgspec.structs.replace(like, shown=key_id, secret=secret, digest="", created=now)
        return Issued(made, secret=secret)
    token = _TOKEN + secrets.token_urlsafe(32)
    made = msgspec.structs.replace(like, shown=token[:_SHOWN], digest=digest(token), secret="", created=now)
    return Issued(made, token=token)


def add(path: Path, like: Key, now: datetime, *, sigv4: bool = False) -> Issued:
    """A new key. KeysError if the name is taken."""
    issued = issue(like, now, sigv4=sigv4)

    def change(keys: Sequence[Key]) -> Sequence[Key]:
        if any(key.name == like.name and key.holds(now) for key in keys):
            raise NameTaken(f"{path}: there is a key {like.name}: rotate or revoke it")
        return [*keys, issued.key]

    _rewrite(path, change)
    return issued


def rotate(path: Path, name: str, until: datetime, now: datetime) -> Issued:
    """A fresh secret for a key; the old ones hold until then."""
    issued: list[Issued] = []

    def change(keys: Sequence[Key]) -> Sequence[Key]:
        held = [key for key in keys if key.name == name and key.holds(now)]
        if not held:
            raise NoSuchKey(f"{path}: no key {name} is in force")
        newest = max(held, key=lambda key: key.created)
        issued.append(issue(newest, now, sigv4=bool(newest.secret)))
        return [*(_ending(key, until) if key in held else key for key in keys), issued[0].key]

    _rewrite(path, change)
    return issued[0]


def _ending(key: Key, until: datetime) -> Key:
    return msgspec.structs.replace(key, expires=min(key.expires or until, until))


def revoke(path: Path, name: str, now: datetime) -> int:
    """All secrets of the name, or the one that begins so; how many there were. KeysError if none."""
    count = 0

    def change(keys: Sequence[Key]) -> Sequence[Key]:
        nonlocal count
        meant = [key for key in keys if name in (key.name, key.shown) and key.revoked is None]
        if not meant:
            raise NoSuchKey(f"{path}: no key {name} is in force")
        count = len(meant)
        return [msgspec.structs.replace(key, revoked=now) if key in meant else key for key in keys]

    _rewrite(path, change)
    return count


def _rewrite(path: Path, change: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
    """Under a lock, in one step, and readable by its owner alone."""
    try:
        with _locked(path):
            text = msgspec.json.format(msgspec.json.encode(_File(keys=tuple(change(load(path))))), indent=1)
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "wb") as out:
                    os.fchmod(handle, _PRIVATE)
                    out.write(text + b"\n")
                    out.flush()
                    os.fsync(handle)
                Path(draft).replace(path)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror or error}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # which not every system has

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
