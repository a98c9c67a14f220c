"""`farthing batch`: requests that may wait, at half price, by a deadline."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import write_json

if TYPE_CHECKING:
    from farthing.gateway.batch import Queue, Settings

_WHERE = Group("Where jobs run", sort_key=1)
_HOW = Group("How", sort_key=2)
_METER = Group("Metering", sort_key=3)
_SHOWN = 5  # of lines that are wrong

group = App(
    name="batch",
    help="Requests that may wait, in batches at half price, answered by a deadline (docs/batch.md).",
)
app.command(group)

Folder = Annotated[Path | None, Parameter(name="--queue", help="Folder of the queue; else one of your own.")]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON, exact.")]


@group.command
def submit(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True, help="JSON lines, a request each; `-` is stdin.")],
    /,
    *,
    deadline: Annotated[str, Parameter(help="90s, 30m, 6h, 2d, or a time with its zone.")] = "24h",
    model: Annotated[str, Parameter(help="Of lines that name none.")] = "",
    operation: Annotated[str, Parameter(help="InvokeModel, Converse or Messages, where lines do not say.")] = "",
    tag: Annotated[list[str] | None, Parameter(negative="", help="NAME=VALUE on every record; repeat it.")] = None,
    hits: Annotated[int | None, Parameter(help="Percent of prompts read from the cache, were they sent now.")] = None,
    queue: Folder = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Put requests into the queue. What is accepted is on disk, and is sent by `farthing batch run`.

    Handed in again under the same id, a request is known already and is not paid twice.
    """
    from farthing.gateway._batch_accept import Usual, due_us
    from farthing.gateway.batch import kept
    from farthing.gateway.batch import submit as accept
    from farthing.usage import Rejected

    with _opened(queue) as held:
        said = kept(held, {} if hits is None else {"hits": hits})
        try:
            due_us(deadline, 0)
        except Rejected as error:
            raise BadInput(f"--{error}") from error
        usual = Usual(held.now_us(), deadline, model, operation, said.region, said.hits, _tags(tag or ()))
        accepted, known, rejected, alone = accept(held, _lines(file), usual)
    for number, why in rejected[:_SHOWN]:
        print(f"farthing: {file}:{number}: {why}", file=sys.stderr)
    if len(rejected) > _SHOWN:
        print(f"farthing: {file}: {len(rejected) - _SHOWN} more lines are wrong", file=sys.stderr)
    reasons: dict[str, int] = {}
    for new in alone:
        reasons[new.reason] = reasons.get(new.reason, 0) + 1
    if json:
        told = [{"reason": reason, "requests": count} for reason, count in reasons.items()]
        write_json({"accepted": accepted, "known": known, "rejected": len(rejected), "not_batched": told})
    else:
        print(f"{accepted:,} accepted{f', {known:,} known already' if known else ''}; due in {deadline}")
        for reason, count in reasons.items():
            print(f"{count:,} not batched: {reason}")
    return 2 if rejected else 0


@group.command(name="run")
def run_(
    *,
    s3: Annotated[str, Parameter(group=_WHERE, help="s3://BUCKET/PREFIX for the files of Bedrock's jobs.")] = "",
    role_arn: Annotated[str, Parameter(group=_WHERE, help="The role that Bedrock reads and writes them as.")] = "",
    region: Annotated[str, Parameter(group=_WHERE, help="Of Bedrock.")] = "",
    account: Annotated[str, Parameter(group=_WHERE, help="The AWS account that pays, for the records.")] = "",
    profile: Annotated[str, Parameter(group=_WHERE, help="AWS profile.")] = "",
    bedrock: Annotated[str, Parameter(group=_WHERE, help="Another URL for Bedrock's control plane.")] = "",
    runtime: Annotated[str, Parameter(group=_WHERE, help="Another URL for Bedrock Runtime.")] = "",
    s3_endpoint: Annotated[str, Parameter(group=_WHERE, help="Another URL for S3.")] = "",
    anthropic: Annotated[str, Parameter(group=_WHERE, help="Another URL for Anthropic's API.")] = "",
    size: Annotated[int | None, Parameter(group=_HOW, help="Requests of a job, where nothing presses.")] = None,
    margin_s: Annotated[int | None, Parameter(group=_HOW, help="Seconds kept free before a deadline.")] = None,
    poll_s: Annotated[int | None, Parameter(group=_HOW, help="Seconds between looks at a job, at most.")] = None,
    senders: Annotated[int | None, Parameter(group=_HOW, help="Requests sent at once, by themselves.")] = None,
    least: Annotated[int | None, Parameter(group=_HOW, help="Records a job must have; else by Service Quotas.")] = None,
    most: Annotated[int | None, Parameter(group=_HOW, help="Records a job may have; else by Service Quotas.")] = None,
    jobs: Annotated[int | None, Parameter(group=_HOW, help="Jobs of a model at once; else by Service Quotas.")] = None,
    again: Annotated[bool | None, Parameter(group=_HOW, help="Send again what was cut off, paid or not.")] = None,
    outbox: Annotated[Path | None, Parameter(group=_METER, help="Folder for records of calls.")] = None,
    budgets: Annotated[str, Parameter(group=_METER, help="Their store: a file, or postgresql://...")] = "",
    config: Annotated[Path | None, Parameter(group=_METER, help="farthing.toml.")] = None,
    until_done: Annotated[bool, Parameter(negative="", help="End when nothing is left to do.")] = False,
    queue: Folder = None,
) -> int:  # fmt: skip
    """Work on the queue: jobs begun, looked after and collected; what they leave, sent in time. Ends on SIGTERM.

    Options are kept with the queue. A second one waits, and takes over when the first ends.
    """
    said = {
        "s3": s3, "role_arn": role_arn, "region": region, "account": account, "profile": profile, "bedrock": bedrock,
        "runtime": runtime, "s3_endpoint": s3_endpoint, "anthropic": anthropic, "budgets": budgets,
        "outbox": str(outbox.absolute()) if outbox else "", "config": str(config.absolute()) if config else "",
    }  # fmt: skip
    counts = {
        "size": size, "margin_s": margin_s, "poll_s": poll_s, "senders": senders, "least": least, "most": most,
        "jobs": jobs, "again": again,
    }  # fmt: skip
    changes: dict[str, Any] = {name: value for name, value in said.items() if value}
    changes |= {name: value for name, value in counts.items() if value is not None}
    from farthing.gateway.batch import Runner, kept, open_live

    with _opened(queue) as held:
        settings = kept(held, changes)
        _check(held, settings)
        live = open_live(held, settings)
        try:
            with _bar() as show:
                Runner(held, settings, live).run(
                    lambda: until_done and not _open(held), lambda: show(*_progress(held))
                )
        except KeyboardInterrupt:
            return 130
        finally:
            live.close()
        print(_summary(held))
        return _late(held)


@group.command
def status(*, queue: Folder = None, json: Json = False) -> int:
    """How the queue stands: what waits, what is in which job and until when, what is over."""
    from farthing.gateway.batch import standing

    with _opened(queue) as held:
        told = standing(held)
    if json:
        write_json(told)
        return 0
    counts = ", ".join(f"{count:,} {state}" for state, count in told["requests"].items() if count)
    print(counts or "nothing in the queue")
    if told["next_deadline_s"] is not None:
        print(f"next deadline in {_span(told['next_deadline_s'])}")
    for job in told["jobs"]:
        eta = f", done in about {_span(job['eta_s'])}" if job["eta_s"] is not None else ""
        said = f": {job['message']}" if job["message"] else ""
        print(
            f"{job['name']}  {job['model']}  {job['status']}  {job['done']:,} of {job['records']:,}{eta}{said}"
        )
    for reason, count in told["reasons"].items():
        print(f"{count:,} not in a batch: {reason}")
    return 0


@group.command
def collect(
    *,
    out: Annotated[Path | None, Parameter(help="Append to this file; else stdout.")] = None,
    keep: Annotated[bool, Parameter(negative="", help="Leave them in the queue, too.")] = False,
    queue: Folder = None,
) -> int:
    """Answers as JSON lines: id, model, output or error, mode, cost. They leave the queue when they are written.

    What a client waits for on the line is the gateway's to answer. Exit code 1 if some requests have an error instead.
    """
    from farthing.money import usd

    with _opened(queue) as held:
        ends = [end for end in held.ends() if not end.is_held]
        lines = []
        for end in ends:
            told = {"id": end.id, "model": end.model, "mode": end.mode, "late": end.late}
            told |= {"cost_usd": None if end.picos is None else usd(end.picos)}
            told |= {"error": end.error} if end.error else {"output": json.loads(end.output)}
            lines.append(json.dumps(told, ensure_ascii=False) + "\n")
        _write("".join(lines), out)
        if not keep:
            held.forget(end.id for end in ends)
    return int(any(end.error for end in ends))


@group.command
def cancel(
    ids: Annotated[list[str] | None, Parameter(help="Of the requests.", negative="")] = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every request that is open.")] = False,
    queue: Folder = None,
    json: Json = False,
) -> int:
    """Take requests back. Those in a job are over when it has been stopped; what it has done by then is paid."""
    if bool(ids) == all_:
        raise BadInput("name the ids to cancel, or --all")
    with _opened(queue) as held:
        count = held.cancel(None if all_ else ids)
    if json:
        write_json({"cancelled": count})
    else:
        print(f"{count:,} cancelled")
    return int(ids is not None and count < len(set(ids)))


# --- helpers ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(folder: Path | None) -> Iterator[Queue]:
    try:
        from farthing.gateway.batch import Queue, QueueError, default_folder
    except ImportError as error:
        raise BadInput(f"batches need {error.name}: pip install 'farthing[gateway]'") from error

    try:
        held = Queue(folder or default_folder())
        try:
            yield held
        finally:
            held.close()
    except QueueError as error:
        raise BadInput(str(error)) from error


def _lines(file: Path) -> Iterator[bytes]:
    if str(file) == "-":
        yield from sys.stdin.buffer
        return
    try:
        with file.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error


def _tags(pairs: list[str] | tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, is_pair, value = pair.partition("=")
        if not is_pair or not name or max(len(name), len(value)) > 300:
            raise BadInput(f"--tag {pair[:80]!r}: write NAME=VALUE")
        found[name] = value
    return found


def _check(held: Queue, settings: Settings) -> None:
    """What would only be found when it is too late."""
    waits = held.rows("SELECT 1 FROM requests WHERE platform = 'bedrock' AND state = 'waiting' LIMIT 1")
    if waits and not (settings.s3 and settings.role_arn):
        raise BadInput(
            "jobs of Bedrock need a bucket and a role: give --s3 s3://BUCKET/PREFIX and --role-arn"
        )
    direct = held.rows("SELECT 1 FROM requests WHERE platform = 'anthropic' LIMIT 1")
    if direct and not os.environ.get("ANTHROPIC_API_KEY"):
        raise BadInput("requests to Anthropic's API need its key: set ANTHROPIC_API_KEY")


def _open(held: Queue) -> int:
    counts = held.counts()
    return sum(counts.get(state, 0) for state in ("waiting", "placed", "sync", "sending"))


def _progress(held: Queue) -> tuple[int, int]:
    counts = held.counts()
    return counts.get("done", 0) + counts.get("failed", 0), sum(counts.values())


def _late(held: Queue) -> int:
    """1 if something that is over came too late, or not at all."""
    late = held.rows(
        "SELECT count(*) FROM requests WHERE state = 'failed' OR (state = 'done' AND done_us > deadline_us)"
    )
    return int(late[0][0] > 0)


def _summary(held: Queue) -> str:
    """What has ended, and what it came to."""
    from farthing.money import show

    ends = held.ends()
    modes = {mode: sum(end.mode == mode and not end.error for end in ends) for mode in ("batch", "on_demand")}
    failed, late = sum(bool(end.error) for end in ends), sum(end.late and not end.error for end in ends)
    said = f"{modes['batch']:,} answered in batches, {modes['on_demand']:,} sent by themselves"
    said += f", {failed:,} failed" * bool(failed) + f", {late:,} late" * bool(late)
    unknown = sum(end.picos is None for end in ends)
    return f"{said}: {show(sum(end.picos or 0 for end in ends))}" + (
        f", and {unknown:,} whose cost is not known" if unknown else ""
    )


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    from farthing.cli._shared import progress

    with progress("answered") as advance:
        yield advance or (lambda _done, _total: None)


def _write(text: str, out: Path | None) -> None:
    """On disk before it leaves the queue."""
    if out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        with open(out, "a", encoding="utf-8", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):
            out.chmod(0o600)  # if it was there before
    except OSError as error:
        raise BadInput(f"{out}: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _span(seconds: int) -> str:
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{sign}{hours} h {minutes} min" if hours else f"{sign}{minutes} min {seconds % 60} s"
