"""What farthing init finds, what it asks, and the file it writes of both."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as IniError
from pathlib import Path
from typing import Any

import msgspec

from farthing.cli._app import BadInput
from farthing.cli._shared import transcript_folders
from farthing.config import Account, Config, Privacy, Residency, Source, Team

Ask = Callable[[str, str], str]  # the question and what holds if nothing is answered -> the answer


def take(_question: str, default: str) -> str:
    """Ask nobody."""
    return default


def ask(question: str, default: str) -> str:
    """Ask the person at the terminal, on stderr; the end of input is no answer."""
    print(f"{question}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() or default


# --- looking ------------------------------------------------------------------------------------------------------


def look(paths: Sequence[str], folder: Path) -> Config:
    """What this machine tells, without any network: transcripts, paths named, and AWS profiles with an account."""
    sources = [Source(_from_home(found)) for found in transcript_folders()]
    sources += [Source(_named(path, folder)) for path in paths]
    accounts: dict[str, Account] = {}
    for profile, said in aws_profiles().items():
        role = re.fullmatch(r"arn:aws[a-z-]*:iam::(\d{12}):role/.+", said.get("role_arn", ""))
        account = role[1] if role else said.get("sso_account_id", "")
        if re.fullmatch(r"\d{12}", account):
            regions = (said["region"],) if said.get("region") else ()
            accounts.setdefault(account, Account(name=profile, profile=profile, regions=regions))
    unlike = dict.fromkeys(sources)  # each once
    return Config(timezone=_zone(), sources=tuple(unlike), accounts=dict(sorted(accounts.items())))


def aws_profiles() -> dict[str, dict[str, str]]:
    """Profiles of the AWS configuration file by name. Its credentials file is not opened."""
    file = Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, IniError):
        return {}
    names = {name: name.removeprefix("profile ").strip() for name in parser.sections()}
    return {
        short: dict(parser[name])
        for name, short in names.items()
        if name == "default" or name.startswith("profile ")
    }


def _named(path: str, folder: Path) -> str:
    """A path of the command line as the file will say it: from its own folder where it lies below."""
    if "://" in path:
        if not re.fullmatch(r"s3://[a-z0-9.-]+(/.*)?", path):
            raise BadInput(f"{path}: a bucket is written s3://BUCKET/PREFIX")
        return path
    there = Path(path).expanduser().absolute()
    if not there.exists() and not glob.has_magic(path):
        raise BadInput(f"{path}: no such file or folder")
    return str(there.relative_to(folder) if there.is_relative_to(folder) else there)


def _from_home(folder: Path) -> str:
    return f"~/{folder.relative_to(Path.home())}" if folder.is_relative_to(Path.home()) else str(folder)


def _zone() -> str:
    """The time zone of this machine, where it has a name."""
    link = Path("/etc/localtime")
    named = os.environ.get("TZ", "").lstrip(":") or (str(link.resolve()) if link.is_symlink() else "")
    name = named.partition("zoneinfo/")[2] or named
    return name if re.fullmatch(r"[A-Z]\w+/[\w/+-]+", name) and not name.startswith("Etc/") else "UTC"


# --- looking at AWS -----------------------------------------------------------------------------------------------


def look_at_aws(found: Config, regions: Sequence[str], notes: list[str]) -> Config:
    """What each profile of this machine may see in AWS, besides what was found already. Every call of it only reads.

    What cannot be seen is a line of `notes`: profile, region, and the missing permission.
    """
    from farthing.aws import Access, AwsError, session

    accounts, sources, models = dict(found.accounts), list(found.sources), dict(found.profiles)
    for name, said in (aws_profiles() or {"": {}}).items():
        profile = "" if name == "default" else name
        try:
            made = session(Access(profile=profile))
            asked_in = tuple(dict.fromkeys(filter(None, (said.get("region") or made.region_name, *regions))))
            identity = _ask_aws(made, "sts", "get_caller_identity", (asked_in or ("us-east-1",))[0])
        except AwsError as error:
            notes.append(f"profile {name or 'default'}: {error}")
            continue
        if not asked_in:
            notes.append(f"profile {name or 'default'}: it has no region: name some with --region")
        account = identity["Account"]
        known = accounts.get(account, Account(name=name, profile=profile))
        accounts[account] = msgspec.structs.replace(
            known, regions=tuple(dict.fromkeys((*known.regions, *asked_in)))
        )
        for region in asked_in:
            where = f"account {account}, {region}"
            try:
                sources += _logs(made, region, account, profile, where, notes)
                models |= _inference_profiles(made, region)
            except AwsError as error:
                notes.append(f"{where}: {error}")
    unlike = dict.fromkeys(sources)
    return msgspec.structs.replace(
        found,
        accounts=dict(sorted(accounts.items())),
        sources=tuple(unlike),
        profiles=dict(sorted(models.items())),
    )


_ACTIONS = {
    "get_caller_identity": "sts:GetCallerIdentity",
    "get_model_invocation_logging_configuration": "bedrock:GetModelInvocationLoggingConfiguration",
    "list_inference_profiles": "bedrock:ListInferenceProfiles",
}


def _ask_aws(made: Any, service: str, operation: str, region: str, **said: str) -> dict[str, Any]:
    """One answer; AwsError, with the permission that is missing, where there is none."""
    from botocore.config import Config as Patience

    from farthing.aws import explained

    patience = Patience(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2})
    try:
        client = made.client(service, region_name=region, config=patience)
        answer: dict[str, Any] = getattr(client, operation)(**said)
    except Exception as error:
        raise explained(error, _ACTIONS[operation], "*") from error
    return answer


def _logs(
    made: Any, region: str, account: str, profile: str, where: str, notes: list[str]
) -> Iterator[Source]:
    """Where the region's calls are logged."""
    answer = _ask_aws(made, "bedrock", "get_model_invocation_logging_configuration", region)
    logging = answer.get("loggingConfig") or {}
    bucket = logging.get("s3Config") or {}
    if bucket.get("bucketName"):
        prefix = f"{bucket['keyPrefix'].strip('/')}/" if bucket.get("keyPrefix") else ""
        path = f"s3://{bucket['bucketName']}/{prefix}AWSLogs/{account}/BedrockModelInvocationLogs/{region}"
        yield Source(path, profile=profile)
    elif logging.get("cloudWatchConfig"):
        notes.append(f"{where}: calls are logged to CloudWatch only: farthing reads logs in S3")
    else:
        notes.append(f"{where}: calls are not logged: see farthing setup aws")


def _inference_profiles(made: Any, region: str) -> dict[str, str]:
    """Application profiles and what they were made from."""
    from farthing.profiles import from_answers

    models: dict[str, str] = {}
    more: dict[str, str] = {"typeEquals": "APPLICATION"}
    while True:
        page = _ask_aws(made, "bedrock", "list_inference_profiles", region, **more)
        models |= from_answers(page.get("inferenceProfileSummaries", ()))
        if not page.get("nextToken"):
            return models
        more["nextToken"] = page["nextToken"]


# --- asking -------------------------------------------------------------------------------------------------------


def settle(found: Config, answer: Ask) -> Config:
    """What was found, as the person wants it."""
    folder = answer("Ledger, a folder or s3://BUCKET/PREFIX (empty: the user's own)", found.ledger)
    zone = _until(answer, "Time zone of days", found.timezone, _zone_fault)
    sources = [source for source in found.sources if _yes(answer, f"Import {source.path}?")]
    while path := answer("Another folder, file or s3://BUCKET/PREFIX with usage (empty: no more)", ""):
        sources.append(Source(path))
    teams: dict[str, Team] = dict(found.teams)
    while name := answer("A team's name (empty: no more)", ""):
        asked = f"Members of {name}: KEY=VALUE tags, roles or users, profiles, accounts; commas between"
        if members := [member.strip() for member in answer(asked, "").split(",") if member.strip()]:
            teams[name] = _team(members)
    return msgspec.structs.replace(found, ledger=folder, timezone=zone, sources=tuple(sources), teams=teams)


def _yes(answer: Ask, question: str) -> bool:
    return answer(question, "yes").lower() in ("yes", "y")


def _until(answer: Ask, question: str, default: str, fault: Callable[[str], str]) -> str:
    """The first answer without a fault; after some, what was found."""
    for _ in range(3):
        said = answer(question, default)
        if not (wrong := fault(said)):
            return said
        print(f"farthing: {wrong}", file=sys.stderr)
    return default


def _zone_fault(name: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return f"unknown time zone {name!r}: use a name such as Europe/Berlin"
    return ""


def _team(members: Sequence[str]) -> Team:
    """Members by what they look like."""
    kinds: dict[str, list[str]] = {}
    for member in members:
        is_profile = "inference-profile/" in member
        kind = "profiles" if is_profile else "tags" if "=" in member else "principals"
        kinds.setdefault("accounts" if re.fullmatch(r"\d{12}", member) else kind, []).append(member)
    return msgspec.convert(kinds, Team)


# --- writing ------------------------------------------------------------------------------------------------------

_HEAD = """\
# What farthing reads, whose it is and what holds for it. Written by `farthing init`; yours to edit.
# docs/configuration.md has every key. Everything may be left out. Then: farthing sync
"""
_SAYS = {
    "ledger": "Where usage is kept: a folder, or s3://BUCKET/PREFIX. Left out: a folder of the user's own.",
    "timezone": "Of the days in reports.",
    "profiles": "Application inference profiles, and what each was made from.",
    "sources": "Usage to import: a folder, file, pattern or s3:// prefix; for a bucket, who may read it.",
    "accounts": "Accounts that call Claude, and in which regions.",
    "teams": "Who pays. A call is a team's by tag, else by profile, else by principal, else by account.",
    "residency": "Where calls may run.",
    "privacy": "Of reports made with --shared.",
}
_EXAMPLES = {
    "ledger": 'ledger = "s3://costs/ledger"',
    "sources": '[[sources]]\npath = "s3://logs-eu/AWSLogs"\nprofile = "audit"',
    "accounts": '[accounts.111122223333]\nname = "production"\nregions = ["eu-west-1"]',
    "teams": '[teams.search]\nowner = "Ada"\ntags = ["team=search"]\nprincipals = ["*:assumed-role/search-*"]',
    "residency": '[[residency]]\nallow = ["in_region:eu-*", "geo:eu"]',
    "privacy": "[privacy]\nminimum_group = 5",
}


def write(file: Path, config: Config) -> None:
    """The file, whole or not at all. BadInput where an answer makes no sense or the place cannot be written."""
    from farthing.config import ConfigError, load

    draft = file.with_name(f".{file.name}.{os.urandom(8).hex()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(as_toml(config), encoding="utf-8", newline="\n")
        load(draft)
        draft.replace(file)
    except ConfigError as error:
        raise BadInput(str(error).replace(str(draft), str(file))) from error
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def as_toml(config: Config) -> str:
    """A commented file that says what the Config does; what it does not say is shown as an example."""
    blocks = [_HEAD.strip()]
    for name in ("ledger", "timezone", "profiles", "sources", "accounts", "teams", "residency", "privacy"):
        value = getattr(config, name)
        lines = list(_block(name, value)) if value not in ("", (), {}, Privacy()) else []
        lines = lines or [f"# {line}" for line in _EXAMPLES.get(name, "").splitlines()]
        if lines:
            blocks.append("\n".join([f"# {_SAYS[name]}", *lines]))
    return "\n\n".join(blocks) + "\n"


def _block(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{name} = {_text(value)}"
    elif isinstance(value, tuple):
        for number, entry in enumerate(value):
            yield from ([""] if number else [])
            yield from (f"[[{name}]]", *_fields(entry))
    elif name == "profiles":
        yield "[profiles]"
        yield from (f"{_text(key)} = {_text(text)}" for key, text in value.items())
    elif isinstance(value, dict):
        for number, (key, entry) in enumerate(value.items()):
            yield from ([""] if number else [])
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            yield from (f"[{name}.{key if bare else _text(key)}]", *_fields(entry))
    else:
        yield from (f"[{name}]", *_fields(value))


def _fields(struct: Source | Account | Team | Residency | Privacy) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if field.required or value != field.default:
            yield f"{field.name} = {_text(value)}"


def _text(value: str | bool | int | tuple[str, ...]) -> str:
    """A TOML value. Its text is JSON's but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
