"""Who may see what: keys, sessions, roles, tokens against forged requests, a limit on guessing, the audit log.

On loopback nobody logs in: whoever is there is admin. Elsewhere a key, or a login at a provider, opens a session;
or a key goes along with each request as a bearer token. Who has no teams is a viewer of all; with teams one sees theirs
alone; an admin may also apply.
"""

from __future__ import annotations

import getpass
import hmac
import os
import secrets
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from farthing.cells import Where
from farthing.gateway._keys import Key, Keys

if TYPE_CHECKING:
    from farthing.web._oidc import Provider

KEYS_NAME = "farthing-web-keys.json"
AUDIT_NAME = "farthing-web-audit.jsonl"
SESSION_HOURS = 12
MOST_SESSIONS = 10_000
TRIES, TRIES_S = 5, 60  # of a wrong key, from one address
MOST_ADDRESSES = 10_000


class Who(NamedTuple):
    """Whoever asks. `teams` are all that is seen; () is no bound. `csrf` must come along with what changes things."""

    name: str
    role: str  # viewer or admin
    teams: tuple[str, ...] = ()
    csrf: str = ""
    digest: str = ""  # of the key's secret: a session ends with it; "" for who came from a provider

    @property
    def scope(self) -> tuple[Where, ...]:
        return (Where("team", self.teams),) if self.teams else ()

    @property
    def admin(self) -> bool:
        return self.role == "admin"


class OidcError(Exception):
    """Nobody is logged in: `problem` is what the login page explains, the text is for the server's log."""

    def __init__(self, problem: str, why: str) -> None:
        super().__init__(why)
        self.problem = problem


class Session(NamedTuple):
    who: Who
    ends: datetime


class Access:
    """`keys` None: no login, which `local` may have alone. `oidc` is another way in beside keys."""

    def __init__(
        self,
        keys: Keys | None,
        *,
        secure: bool = False,
        audit: Path | None = None,
        oidc: Provider | None = None,
    ) -> None:
        self.keys = keys
        self.oidc = oidc
        self.secure = secure
        self.local = Who(_user(), "admin", csrf=secrets.token_urlsafe(24))
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._tries: OrderedDict[str, tuple[int, datetime]] = OrderedDict()
        self._lock = threading.Lock()
        self._audit = audit

    @property
    def cookie(self) -> str:
        """With TLS under a name that a browser takes only from this very host."""
        return "__Host-farthing" if self.secure else "farthing"

    # --- who is it

    def who(self, cookie: str, authorization: str, now: datetime) -> Who | None:
        """Whose session or key it is; None for nobody's."""
        if self.keys is None:
            return self.local
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            key = self.keys.of_token(token.strip(), now)
            return _who(key) if key else None
        session = self._sessions.get(cookie) if cookie else None
        if session is None or now >= session.ends or not self._holds(session.who, now):
            return None
        return session.who

    def _holds(self, who: Who, now: datetime) -> bool:
        """A revoked key ends its sessions, and one that was given other teams does too."""
        if not who.digest:
            return True
        assert self.keys is not None
        key = self.keys.of_digest(who.digest, now)
        return key is not None and _who(key)[:3] == who[:3]

    def login(self, token: str, address: str, now: datetime) -> tuple[str, Who] | None:
        """A session for a key: its cookie. None if there is no such key in force; the try then counts."""
        assert self.keys is not None
        key = self.keys.of_token(token, now)
        if key is None:
            self.missed(address, now)
            return None
        return self.opened(_who(key), address, now)

    def opened(self, who: Who, address: str, now: datetime, hours: int = SESSION_HOURS) -> tuple[str, Who]:
        """A session of theirs: its cookie, and who it is of."""
        cookie = secrets.token_urlsafe(32)
        who = who._replace(csrf=secrets.token_urlsafe(24))
        with self._lock:
            self._tries.pop(address, None)
            self._sessions[cookie] = Session(who, now + timedelta(hours=hours))
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return cookie, who

    def logout(self, cookie: str) -> None:
        with self._lock:
            self._sessions.pop(cookie, None)

    def forged(self, who: Who, token: str) -> bool:
        """Whether what would change something comes without the token of the session.

        Who sends a key in a header has no session and needs none: no other site's page can make a browser do that.
        """
        return bool(who.csrf) and not hmac.compare_digest(who.csrf.encode(), token.encode())

    # --- guessing

    def missed(self, address: str, now: datetime) -> None:
        with self._lock:
            count, since = self._tries.pop(address, (0, now))
            if now - since >= timedelta(seconds=TRIES_S):
                count, since = 0, now
            self._tries[address] = (count + 1, since)
            while len(self._tries) > MOST_ADDRESSES:
                self._tries.popitem(last=False)

    def waits_s(self, address: str, now: datetime) -> int:
        """For how many seconds the address is not listened to."""
        count, since = self._tries.get(address, (0, now))
        left = TRIES_S - int((now - since).total_seconds())
        return max(0, left) if count >= TRIES else 0

    # --- what was done

    def note(self, now: datetime, who: str, what: str, **said: Any) -> None:
        """A line of the audit log; an OSError is the caller's: what cannot be recorded is not done."""
        if self._audit is None:
            return
        line = (
            msgspec.json.encode({"at": f"{now:%Y-%m-%dT%H:%M:%SZ}", "who": who, "what": what, **said}) + b"\n"
        )
        handle = os.open(self._audit, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def _who(key: Key) -> Who:
    teams = tuple(dict.fromkeys(filter(None, (key.team, *key.teams))))
    role = "admin" if key.admin and not teams else "viewer"  # what is applied is applied to all teams
    return Who(key.name, role, teams, digest=key.digest)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody of that number is known here
        return "local"
