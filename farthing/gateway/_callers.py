"""Who calls: by a token, by a signature that is verified, or by nobody's word where there is no auth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from farthing.gateway._keys import Key, Keys
from farthing.gateway._reply import Failure
from farthing.gateway._sign import ALGORITHM, Forged, verify
from farthing.gateway.live import Who

_LONGEST = 256
_NO_KEY = Key(name="none", shown="", created=datetime(1970, 1, 1, tzinfo=UTC), batches=True)


class Caller(NamedTuple):
    """`signed` is the access key id whose signature is still to be verified: that takes the body."""

    key: Key
    signed: str = ""


def caller(keys: Keys | None, headers: Mapping[str, str], now: datetime) -> Caller:
    """Whose the request says it is. Failure if nobody known says so."""
    if keys is None:
        return Caller(_NO_KEY)
    said = headers.get("authorization", "")
    if said.startswith(ALGORITHM):
        key_id = said.partition("Credential=")[2].partition("/")[0]
        if keys.of_id(key_id, now) is None:
            raise Failure(
                "unknown",
                "the access key id is none that this gateway issued: `farthing gateway key add --sigv4`",
            )
        return Caller(_NO_KEY, key_id)
    scheme, _, token = said.partition(" ")
    for each in (token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")):
        if each and (key := keys.of_token(each, now)) is not None:
            return Caller(key)
    raise Failure(
        "unknown", "no key of this gateway, or one that is over: `farthing gateway key add` issues them"
    )


def verified(
    keys: Keys, key_id: str, method: str, path: str, query: str, headers: Sequence[tuple[str, str]], body: bytes,
    now: datetime,
) -> Key:  # fmt: skip
    """The key that signed the request, body and all. Failure if it did not."""

    def secret(asked: str) -> str | None:
        found = keys.of_id(asked, now)
        return found.secret if found else None

    lowered = [(name.lower(), value) for name, value in headers]
    try:
        found = keys.of_id(verify(method, path, query, lowered, body, secret, now), now)
    except Forged as why:
        raise Failure("unknown", f"the signature does not count: {why}") from None
    if found is None:
        raise Failure("unknown", "the key is over")
    return found


def who_calls(
    key: Key, headers: Mapping[str, str], platform: str, region: str, account: str, user: str
) -> Who:
    """The caller as budgets and outbox know it. What its key fixes, no header changes."""
    named = key is not _NO_KEY
    return Who(
        key=key.name if named else "",
        team=_told(headers, "x-farthing-team") or key.team,
        project=key.project or _told(headers, "x-farthing-project"),
        run=_told(headers, "x-farthing-run"),
        account=account,
        region=region,
        session=_session(headers, user),
        platform=platform,
        tags={**key.tags, "key": key.name} if named else {},
    )


def _told(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "")[:_LONGEST]


def _session(headers: Mapping[str, str], user: str) -> str:
    """Claude Code names its session in a header, and in older versions behind the user's id."""
    return _told(headers, "x-claude-code-session-id") or user.partition("_session_")[2][:_LONGEST]
