"""The gateway, and its keys."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._grading import pair_grader
from farthing.cli._shared import load_config, write_json

if TYPE_CHECKING:
    from farthing.gateway._keys import Issued
    from farthing.gateway._settings import Settings

_UP = Group("Upstreams", sort_key=1)
_METER = Group("Metering", sort_key=3)
_SERVER = Group("Server", sort_key=4)

group = App(
    name="gateway", help="Pass calls on to Claude: metered, within budgets, and otherwise as they are."
)
key_group = App(name="key", help="Keys of the gateway's clients. The file holds no token, only digests.")
app.command(group)
group.command(key_group)

KeysFile = Annotated[
    Path | None, Parameter(name="--keys", help="The key file; else farthing-keys.json beside farthing.toml.")
]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Upstreams:
    """Where calls go, and by whose right."""

    bedrock: Annotated[str, Parameter(group=_UP, help="URL of Bedrock Runtime.")] = ""
    bedrock_control: Annotated[
        str, Parameter(group=_UP, help="URL of Bedrock's control plane; else the same region's, or host.")
    ] = ""
    mantle: Annotated[str, Parameter(group=_UP, help="URL of bedrock-mantle; else the same.")] = ""
    anthropic: Annotated[str, Parameter(group=_UP, help="URL of Anthropic's API.")] = ""
    claude_aws: Annotated[str, Parameter(group=_UP, help="URL of Claude Platform on AWS.")] = ""
    region: Annotated[str, Parameter(group=_UP, help="Of the upstream, where its URL does not say.")] = ""
    account: Annotated[str, Parameter(group=_UP, help="The AWS account that pays, for the records.")] = ""
    profile: Annotated[str, Parameter(group=_UP, help="AWS profile to sign with.")] = ""
    role_arn: Annotated[
        str, Parameter(group=_UP, help="Role to assume, with session tags for key, team and project.")
    ] = ""
    routing: Annotated[
        str, Parameter(group=_UP, help="Profile for Messages sent to Bedrock: global, eu, us, in_region ...")
    ] = ""
    model: Annotated[
        list[str] | None,
        Parameter(
            group=_UP, negative="", help="NAME=BEDROCK_ID of Messages sent to Bedrock; may be repeated."
        ),
    ] = None
    retries: Annotated[int, Parameter(group=_UP, help="Of throttled answers; clients usually do it.")] = 0
    silence_s: Annotated[
        int, Parameter(group=_UP, help="Seconds to wait for an answer that is no stream.")
    ] = 900
    stream_silence_s: Annotated[
        int, Parameter(group=_UP, help="Seconds to wait for a stream's next event.")
    ] = 300


@Parameter(name="*")
@dataclass(frozen=True)
class Metering:
    """What is counted, held and changed."""

    budgets: Annotated[
        str, Parameter(group=_METER, help="Their store: a file (SQLite), or postgresql://...")
    ] = ""
    budgets_down: Annotated[
        Literal["refuse", "pass"], Parameter(group=_METER, help="Calls while the store is out of reach.")
    ] = "refuse"
    policy: Annotated[
        Path | None,
        Parameter(group=_METER, help="The policy file; else farthing-policy.toml beside farthing.toml."),
    ] = None
    config: Annotated[Path | None, Parameter(group=_METER, help="farthing.toml.")] = None
    batch_queue: Annotated[
        Path | None, Parameter(group=_METER, help="Queue of calls that may wait (docs/batch.md).")
    ] = None
    book: Annotated[str, Parameter(group=_METER, help="Prices, as for reports.")] = ""
    fsync: Annotated[
        Literal["call", "second", "os"], Parameter(group=_METER, help="How soon records survive a power cut.")
    ] = "call"
    on_full: Annotated[
        Literal["refuse", "pass"], Parameter(group=_METER, help="Calls while the outbox has no room.")
    ] = "refuse"
    grade: Annotated[
        str, Parameter(group=_METER, help="Of copies in shadow, against the answer in use (docs/policy.md).")
    ] = ""
    grade_command: Annotated[
        str, Parameter(group=_METER, help="Grades them: it reads JSON and prints a score.")
    ] = ""
    tag: Annotated[
        Literal["header", "all", "none"],
        Parameter(group=_METER, help="Where calls carry their id for the log; all: Converse's body too."),
    ] = "header"


@Parameter(name="*")
@dataclass(frozen=True)
class Serving:
    """Who may call, and how."""

    host: Annotated[str, Parameter(group=_SERVER, help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Parameter(group=_SERVER, help="0: any that is free.")] = 0
    workers: Annotated[int, Parameter(group=_SERVER, help="Processes.")] = 1
    auth: Annotated[bool, Parameter(group=_SERVER, help="Whether callers need a key.")] = True
    keys: Annotated[
        Path | None,
        Parameter(group=_SERVER, help="The key file; else farthing-keys.json beside farthing.toml."),
    ] = None
    certificate: Annotated[Path | None, Parameter(group=_SERVER, help="For TLS: PEM.")] = None
    private_key: Annotated[Path | None, Parameter(group=_SERVER, help="For TLS: PEM.")] = None
    max_body_mb: Annotated[int, Parameter(group=_SERVER, help="Of a request.")] = 32
    max_calls: Annotated[int, Parameter(group=_SERVER, help="At once, a process.")] = 4096
    head_s: Annotated[int, Parameter(group=_SERVER, help="Seconds for a request's head to arrive.")] = 20
    body_s: Annotated[int, Parameter(group=_SERVER, help="Seconds for its body.")] = 60
    client_s: Annotated[
        int, Parameter(group=_SERVER, help="Seconds after which a client that takes nothing is gone.")
    ] = 120
    drain_s: Annotated[int, Parameter(group=_SERVER, help="Seconds for calls to finish at the end.")] = 120


@group.default
def gateway(
    *,
    outbox: Annotated[Path, Parameter(group=_METER, help="Folder for records of calls.")],
    up: Upstreams = Upstreams(),
    metering: Metering = Metering(),
    serving: Serving = Serving(),
) -> int:
    """Serve until SIGTERM. Prints {"listening": URL} once ready."""
    try:
        from farthing.gateway._serve import serve
        from farthing.gateway._settings import SettingError, is_loopback
        from farthing.gateway.budgets import StoreError
    except ImportError as error:
        raise BadInput(f"the gateway needs {error.name}: pip install 'farthing[gateway]'") from error
    from farthing.cli._shared import book_of

    settings = _settings(outbox, up, metering, serving)
    if not is_loopback(settings.host) and settings.certificate is None:
        print(f"farthing: {settings.host} without TLS: keys and prompts travel in the clear, unless what stands before "
              "it has TLS", file=sys.stderr)  # fmt: skip
    try:
        logging.basicConfig(level=logging.WARNING, format="farthing: %(message)s", stream=sys.stderr)
        return serve(settings, book_of(settings.book), lambda line: print(line, flush=True))
    except (SettingError, StoreError) as error:
        raise BadInput(str(error)) from error


def _settings(outbox: Path, up: Upstreams, metering: Metering, serving: Serving) -> Settings:
    from farthing.gateway._settings import Limits, Settings

    counts = (serving.max_body_mb, serving.max_calls, serving.head_s, serving.body_s, serving.client_s, up.silence_s,
              up.stream_silence_s)  # fmt: skip
    if min(counts) < 1 or min(serving.drain_s, up.retries, serving.port) < 0:
        raise BadInput(
            "sizes, counts and seconds are at least 1; --drain-s, --retries and --port count from 0"
        )
    limits = Limits(
        body_bytes=serving.max_body_mb * 1024 * 1024, head_s=serving.head_s, body_s=serving.body_s,
        silence_s=up.silence_s, stream_silence_s=up.stream_silence_s, client_s=serving.client_s,
        drain_s=serving.drain_s, calls=serving.max_calls, retries=up.retries,
    )  # fmt: skip
    return Settings(
        outbox=outbox, host=serving.host, port=serving.port, workers=serving.workers, bedrock=up.bedrock,
        control=up.bedrock_control, mantle=up.mantle, anthropic=up.anthropic, claude_aws=up.claude_aws,
        region=up.region, account=up.account, profile=up.profile, role_arn=up.role_arn, routing=up.routing,
        models=_pairs(up.model or (), "--model"), auth=serving.auth, keys=serving.keys, budgets=metering.budgets,
        when_down=metering.budgets_down, policy=metering.policy, config=metering.config, fsync=metering.fsync,
        on_full=metering.on_full, tag=metering.tag, book=metering.book, queue=metering.batch_queue,
        certificate=serving.certificate, private_key=serving.private_key, limits=limits,
        grade=pair_grader(metering.grade, metering.grade_command),
    )  # fmt: skip


# --- keys -------------------------------------------------------------------------------------------------------------


@key_group.command
def add(
    name: str,
    /,
    *,
    team: str = "",
    teams: Annotated[
        list[str] | None, Parameter(negative="", help="That it may act for by x-farthing-team.")
    ] = None,
    project: str = "",
    tag: Annotated[list[str] | None, Parameter(negative="", help="NAME=VALUE on its calls.")] = None,
    models: Annotated[list[str] | None, Parameter(negative="", help="It may call; * and ? match.")] = None,
    endpoints: Annotated[
        list[str] | None, Parameter(negative="", help="global, geo:eu, in_region; * matches.")
    ] = None,
    upstream: Annotated[
        Literal["", "bedrock", "anthropic", "claude_aws"], Parameter(help="Where its Messages go.")
    ] = "",
    role_arn: Annotated[str, Parameter(help="Role that its calls assume.")] = "",
    expires: Annotated[str, Parameter(help="2027-01-31 or 90d; left out: never.")] = "",
    pinned: Annotated[bool, Parameter(negative="", help="Policies keep it in its region.")] = False,
    batches: Annotated[
        bool, Parameter(negative="", help="It may use batch jobs, which no budget holds back.")
    ] = False,
    admin: Annotated[bool, Parameter(negative="", help="It may ask for metrics, budgets and keys.")] = False,
    sigv4: Annotated[
        bool, Parameter(negative="", help="An access key id and secret, for clients that sign.")
    ] = False,
    keys: KeysFile = None,
    json: Json = False,
) -> int:
    """A new key. Its secret is shown this once."""
    import msgspec

    from farthing.gateway._keys import Key, KeysError
    from farthing.gateway._keys import add as issue

    now = datetime.now(UTC)
    said = {
        "name": name, "shown": "", "created": now, "expires": _until(expires, now) if expires else None, "team": team,
        "teams": _split(teams), "project": project, "tags": _pairs(tag or (), "--tag"), "models": _split(models),
        "endpoints": _split(endpoints), "upstream": upstream, "role_arn": role_arn, "pinned": pinned,
        "batches": batches, "admin": admin,
    }  # fmt: skip
    try:
        issued = issue(_file(keys), msgspec.convert(said, Key), now, sigv4=sigv4)
    except (KeysError, msgspec.MsgspecError) as error:
        raise BadInput(str(error)) from error
    return _tell(issued, json=json)


@key_group.command(name="list")
def list_(*, keys: KeysFile = None, json: Json = False) -> int:
    """The keys, without their secrets."""
    from farthing.gateway._keys import KeysError, load

    now = datetime.now(UTC)
    try:
        found = load(_file(keys))
    except KeysError as error:
        raise BadInput(str(error)) from error
    if json:
        from farthing.gateway._keys import shown

        write_json({"path": str(_file(keys)), "keys": [shown(key, now) for key in found]})
        return 0
    for key in found:
        state = "revoked" if key.revoked else "in force" if key.holds(now) else "over"
        until = f", until {key.expires:%Y-%m-%d %H:%M}" if key.expires else ""
        print(f"{key.name:20} {key.shown:20} {state}{until}  team {key.team or '-'}")
    return 0


@key_group.command
def rotate(
    name: str, /, *, overlap: Annotated[str, Parameter(help="How long the old secret still holds.")] = "24h",
    keys: KeysFile = None, json: Json = False,
) -> int:  # fmt: skip
    """A fresh secret for a key; the old one holds for a while yet."""
    from farthing.gateway._keys import KeysError
    from farthing.gateway._keys import rotate as turn

    now = datetime.now(UTC)
    try:
        return _tell(turn(_file(keys), name, _until(overlap, now), now), json=json)
    except KeysError as error:
        raise BadInput(str(error)) from error


@key_group.command
def revoke(name: Annotated[str, Parameter(help="A key, or one secret of it as `list` shows it.")], /, *,
           keys: KeysFile = None, json: Json = False) -> int:  # fmt: skip
    """End a key at once: gateways that run see it at their next call."""
    from farthing.gateway._keys import KeysError
    from farthing.gateway._keys import revoke as end

    try:
        count = end(_file(keys), name, datetime.now(UTC))
    except KeysError as error:
        raise BadInput(str(error)) from error
    if json:
        write_json({"revoked": count})
    else:
        print(f"{name}: {count} revoked")
    return 0


def _file(keys: Path | None) -> Path:
    from farthing.gateway._keys import NAME

    if keys:
        return keys
    config = load_config()
    return Path(config.path).parent / NAME if config.path else Path(NAME)


def _tell(issued: Issued, *, json: bool) -> int:
    key = issued.key
    secret = (
        {"token": issued.token}
        if issued.token
        else {"access_key_id": key.shown, "secret_access_key": issued.secret}
    )
    if json:
        write_json({"name": key.name, **secret})
        return 0
    for name, value in secret.items():
        print(f"{name}: {value}")
    print("farthing: shown this once", file=sys.stderr)
    return 0


def _split(said: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for text in said or () for part in text.split(",") if part.strip())


def _pairs(said: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in said:
        name, is_pair, value = text.partition("=")
        if not (is_pair and name and value):
            raise BadInput(f"{option} {text!r}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def _until(said: str, now: datetime) -> datetime:
    """A day or a time, or so long from now."""
    if found := re.fullmatch(r"(\d{1,5})([mhd])", said):
        return now + timedelta(minutes=int(found[1]) * {"m": 1, "h": 60, "d": 1440}[found[2]])
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise BadInput(f"{said!r} is no time: write 2027-01-31, 24h or 90d") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
