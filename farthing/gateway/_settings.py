"""What a gateway is told at its start."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

AWS_HOST = re.compile(
    r"(?P<service>bedrock-runtime|bedrock|bedrock-mantle|aws-external-anthropic)(-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(amazonaws\.com(\.cn)?|api\.aws)"
)


class SettingError(ValueError):
    """A setting that makes no sense: one line with the mend."""


class Target(NamedTuple):
    """Where calls of one kind go. `base` ends without a slash, in `prefix`; `service` is what signatures are for."""

    platform: str
    base: str
    host: str
    prefix: str = ""
    service: str = ""
    region: str = ""


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and counts."""

    body_bytes: int = 32 * 1024 * 1024
    head_s: float = 20.0  # for a request's head to arrive
    body_s: float = 60.0  # and its body
    connect_s: float = 10.0
    silence_s: float = 900.0  # of the upstream, before an answer that is not streamed
    stream_silence_s: float = 300.0  # between two events
    client_s: float = 120.0  # a client takes nothing of its answer for so long: it is gone
    drain_s: float = 120.0
    calls: int = 4096  # at once
    connect_retries: int = 2
    retries: int = 0  # of 429, 503 and 529, before an answer has begun
    most_retry_after_s: float = 20.0


@dataclass(frozen=True)
class Settings:
    """`routing` is put before Anthropic's model names when their calls go to Bedrock: global, eu, in_region ...

    `tag` is where the call's id is put for the invocation log: the header of InvokeModel, all (the body of Converse
    too), or none.
    """

    outbox: Path
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 1
    bedrock: str = ""
    control: str = ""
    mantle: str = ""
    anthropic: str = ""
    claude_aws: str = ""
    region: str = ""
    account: str = ""
    profile: str = ""
    role_arn: str = ""
    routing: str = ""
    models: Mapping[str, str] = field(default_factory=dict)  # as called -> as called upstream
    auth: bool = True
    keys: Path | None = None
    budgets: str = ""
    when_down: str = "refuse"
    policy: Path | None = None
    config: Path | None = None
    fsync: Literal["call", "second", "os"] = "call"
    on_full: Literal["refuse", "pass"] = "refuse"
    tag: Literal["header", "all", "none"] = "header"
    book: str = ""
    queue: Path | None = None  # of calls that may wait
    certificate: Path | None = None
    private_key: Path | None = None
    limits: Limits = Limits()
    grade: Callable[[Mapping[str, Any], str, str], tuple[float, float]] | None = None  # answers of two models

    @property
    def upstream_region(self) -> str:
        """Said, or in the upstream's name, or the environment's."""
        found = AWS_HOST.fullmatch(urlsplit(self.bedrock).hostname or "")
        named = found["region"] if found else ""
        return (
            self.region or named or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
        )

    def targets(self) -> dict[str, Target]:
        """By kind: bedrock, control, mantle, anthropic, claude_aws; those that there are. SettingError."""
        region = self.upstream_region
        said = {
            "bedrock": (self.bedrock, "bedrock", "bedrock"),
            "control": (self.control or _sibling(self.bedrock, "bedrock"), "bedrock", "bedrock"),
            "mantle": (self.mantle or _sibling(self.bedrock, "bedrock-mantle"), "bedrock", "bedrock-mantle"),
            "anthropic": (self.anthropic, "anthropic", ""),
            "claude_aws": (self.claude_aws, "claude_aws", "aws-external-anthropic"),
        }
        return {kind: _target(*each, region) for kind, each in said.items() if each[0]}


def _target(url: str, platform: str, service: str, region: str) -> Target:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingError(
            f"{url!r} is no upstream: write https://bedrock-runtime.eu-central-1.amazonaws.com"
        )
    if parts.username or parts.password:
        raise SettingError(
            f"an upstream with a password in its URL ({parts.hostname}): credentials go elsewhere"
        )
    named = AWS_HOST.fullmatch(parts.hostname)
    return Target(
        platform,
        url.rstrip("/"),
        parts.netloc,
        parts.path.rstrip("/"),
        service,
        named["region"] if named else region,
    )


def _sibling(url: str, service: str) -> str:
    """The same region's host for another service; elsewhere (a proxy, an emulator) the same host has all."""
    host = urlsplit(url).hostname or ""
    found = AWS_HOST.fullmatch(host)
    if found is None or found["service"] == service:
        return url
    if service == "bedrock-mantle":
        return f"https://bedrock-mantle.{found['region']}.api.aws"
    return url.replace(f"{found['service']}.", f"{service}.", 1)


def is_loopback(host: str) -> bool:
    """By its address alone: a name that begins with 127 may be anybody's.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("127.0.0.1.example.com")
    (True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
