"""By whose right calls go upstream: the gateway's own, or a role assumed per key with tags that AWS's bill keeps.

Signing must never wait for a network, so what will run out is fetched anew by a thread, minutes before it does.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from farthing.gateway._reply import Failure
from farthing.gateway._settings import AWS_HOST, SettingError, Settings, Target, is_loopback
from farthing.gateway._sign import Credentials, sign

_EARLY = timedelta(minutes=10)  # before they run out
_LEAST = timedelta(minutes=1)
_MOST_ROLES = 10_000
_NOT_IN_NAMES = re.compile(r"[^\w+=,.@-]")
_NOT_IN_TAGS = re.compile(r"[^\w \-.:/=+@]")
AUTH_HEADERS = frozenset(
    {"authorization", "x-api-key", "x-amz-security-token", "x-amz-date", "x-amz-content-sha256"}
)

Pairs = Sequence[tuple[str, str]]


class Role(NamedTuple):
    """A role as somebody's: the session is named for the key, and tagged."""

    arn: str
    name: str = ""
    tags: tuple[tuple[str, str], ...] = ()


class _Held(NamedTuple):
    credentials: Credentials
    expires: datetime


@dataclass
class Outbound:
    """What authorizes requests. `pass_on`: without rights of its own it sends on the caller's."""

    settings: Settings
    pass_on: bool
    _source: Any = None  # boto3's session
    _own: Credentials | None = None
    _roles: dict[Role, _Held] = field(default_factory=dict)
    _fetching: dict[Role, asyncio.Task[_Held]] = field(default_factory=dict)
    _fixed: Mapping[str, Pairs] = field(default_factory=dict)
    fault: str = ""

    @classmethod
    def open(cls, settings: Settings, targets: Mapping[str, Target]) -> Outbound:
        """Look for credentials where they may be asked for. SettingError where an upstream needs some, and none are."""
        made = cls(settings, pass_on=not settings.auth)
        made._fixed = _fixed_headers()
        for kind, target in targets.items():
            if (
                target.service
                and kind not in made._fixed
                and made._source is None
                and _signs(settings, target)
            ):
                made._open_source()
            if not target.service and kind not in made._fixed and not made.pass_on and not _is_near(target):
                raise SettingError(f"no credentials for {target.host}: set ANTHROPIC_API_KEY")
        return made

    def _open_source(self) -> None:
        try:
            import boto3
        except ImportError:
            raise SettingError("signing for AWS needs boto3: pip install 'farthing[gateway]'") from None
        try:
            self._source = boto3.Session(profile_name=self.settings.profile or None)
            self._refresh()
        except Exception as error:
            raise SettingError(f"AWS credentials: {error}") from error
        if self._own is None:
            raise SettingError(
                "no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, AWS_PROFILE or AWS_ACCESS_KEY_ID"
            )

    def _refresh(self) -> None:
        """Blocks while botocore fetches; otherwise it takes microseconds."""
        held = self._source.get_credentials()
        frozen = held.get_frozen_credentials() if held else None
        self._own = Credentials(frozen.access_key, frozen.secret_key, frozen.token or "") if frozen else None

    async def keep_fresh(self, every_s: float = 60.0) -> None:
        """For as long as the gateway runs."""
        while True:
            await asyncio.sleep(every_s)
            if self._source is not None:
                try:
                    await asyncio.to_thread(self._refresh)
                    self.fault = ""
                except Exception as error:  # noqa: BLE001 - those that are held go on holding until they run out
                    self.fault = f"AWS credentials: {type(error).__name__}"
            now = datetime.now(UTC)
            for role, held in list(self._roles.items()):
                if held.expires <= now:
                    del self._roles[role]

    async def authorize(
        self, kind: str, target: Target, method: str, path: str, query: str, headers: Pairs, body: bytes, role: Role,
        caller: Pairs,
    ) -> list[tuple[str, str]]:  # fmt: skip
        """The headers to add. `caller` are those by which the caller authorized itself to us."""
        if target.service and role.arn:
            credentials: Credentials | None = await self._assumed(role)
        elif kind in self._fixed:
            return list(self._fixed[kind])
        else:
            credentials = self._own if target.service else None
        if credentials is None:
            return list(caller) if self.pass_on else []
        signed = [("host", target.host)]
        for name, value in headers:
            lower = name.lower()
            if lower == "content-type" or lower.startswith("x-amz"):
                signed.append((lower, value))
        return sign(
            method, path, query, signed, body, credentials, target.region, target.service, datetime.now(UTC)
        )

    async def _assumed(self, role: Role) -> Credentials:
        """Kept until they run out; fetched anew before that, and meanwhile the old ones serve."""
        held, now = self._roles.get(role), datetime.now(UTC)
        if held is not None and held.expires - now > _EARLY:
            return held.credentials
        task = self._fetching.get(role)
        if task is None:
            task = self._fetching[role] = asyncio.create_task(self._fetch(role))
        if held is not None and held.expires - now > _LEAST:
            return held.credentials
        try:
            return (await asyncio.shield(task)).credentials
        except Exception as error:
            raise Failure("upstream", f"the role {role.arn} could not be assumed: {_code(error)}") from error

    async def _fetch(self, role: Role) -> _Held:
        try:
            held = await asyncio.to_thread(self._assume, role)
            if len(self._roles) >= _MOST_ROLES:
                self._roles.clear()
            self._roles[role] = held
            self.fault = ""
        except Exception as error:
            self.fault = f"sts:AssumeRole of {role.arn}: {_code(error)}"
            raise
        finally:
            del self._fetching[role]
        return held

    def _assume(self, role: Role) -> _Held:
        if self._source is None:
            self._open_source()
        region = self.settings.upstream_region or None
        tags = [{"Key": name, "Value": value} for name, value in role.tags]
        name = _NOT_IN_NAMES.sub("-", f"farthing-{role.name or 'gateway'}")[:64]
        answer = self._source.client("sts", region_name=region).assume_role(
            RoleArn=role.arn, RoleSessionName=name, **({"Tags": tags} if tags else {})
        )["Credentials"]
        found = Credentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])
        return _Held(found, answer["Expiration"])


def role_for(settings: Settings, arn: str, key: str, team: str, project: str) -> Role:
    """The key's role, else the gateway's. Its tags are set by the key, never by what a caller says of itself."""
    arn = arn or settings.role_arn
    if not arn:
        return Role("")
    said = (("farthing:key", key), ("team", team), ("project", project))
    tags = tuple((name, _NOT_IN_TAGS.sub("-", value)[:256]) for name, value in said if value)
    return Role(arn, key, tags)


def _fixed_headers() -> dict[str, Pairs]:
    """Bearers and keys from the environment, by kind of target."""
    fixed: dict[str, Pairs] = {}
    if token := os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        bearer = (("authorization", f"Bearer {token}"),)
        fixed |= {"bedrock": bearer, "control": bearer, "mantle": bearer}
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        fixed["anthropic"] = (("x-api-key", key),)
    elif token := os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        fixed["anthropic"] = (("authorization", f"Bearer {token}"),)
    if key := os.environ.get("ANTHROPIC_AWS_API_KEY"):
        fixed["claude_aws"] = (("x-api-key", key),)
    return fixed


def _signs(settings: Settings, target: Target) -> bool:
    """Where credentials are there or needed. Looking for them may ask the network, so not for an emulator."""
    told = bool(settings.profile or os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE"))
    return told or AWS_HOST.fullmatch(target.host) is not None


def _is_near(target: Target) -> bool:
    return is_loopback(target.base.partition("//")[2].partition(":")[0].partition("/")[0])


def _code(error: Exception) -> str:
    """AWS's word for it; its whole text may name more than a caller should read."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", type(error).__name__))
    return type(error).__name__
