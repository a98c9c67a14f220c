"""`farthing emulate`: a local Bedrock and Anthropic API that bills by the rules, for tests and dry runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput, app

if TYPE_CHECKING:
    from farthing.emulator import Faults, World

_WRITTEN = Group("Written", sort_key=1)
_TIME = Group("Time", sort_key=2)
_WRONG = Group("What goes wrong", sort_key=3)

_Every = Annotated[int, Parameter(group=_WRONG)]


@app.command
def emulate(
    *,
    port: Annotated[int, Parameter(help="Port on 127.0.0.1; 0 takes any that is free.")] = 0,
    account: Annotated[str, Parameter(help="Account of callers that no ARN or identity names.")] = "111122223333",
    region: Annotated[str, Parameter(help="Region of callers that sign no request.")] = "us-east-1",
    output_tokens: Annotated[int, Parameter(help="Length of each answer; 0: 16 to 64, by its request.")] = 0,
    log_dir: Annotated[Path | None, Parameter(group=_WRITTEN, help="Folder of invocation logs, as in S3.")] = None,
    log_bucket: Annotated[str, Parameter(group=_WRITTEN, help="s3://bucket/prefix of invocation logs.")] = "",
    cur_dir: Annotated[Path | None, Parameter(group=_WRITTEN, help="Folder of the AWS bill, month by month.")] = None,
    cur_form: Annotated[Literal["cur2", "legacy"], Parameter(group=_WRITTEN, help="Names of its columns.")] = "cur2",
    s3_endpoint: Annotated[str, Parameter(group=_WRITTEN, help="Where S3 is; else $AWS_ENDPOINT_URL_S3.")] = "",
    clock: Annotated[str, Parameter(group=_TIME, help="When it begins: 2026-11-22T08:00:00Z; else now.")] = "",
    speed: Annotated[int, Parameter(group=_TIME, help="Emulated seconds to a real one; 0 stands still.")] = 1,
    batch_minimum: Annotated[int, Parameter(help="Records that a batch job must have.")] = 100,
    batch_step_ms: Annotated[int, Parameter(group=_TIME, help="Of each step of a batch.")] = 50,
    faults: Annotated[str, Parameter(group=_WRONG, help="JSON, or a file of it: docs/emulator.md.")] = "",
    throttle_every: Annotated[int, Parameter(group=_WRONG, help="Throttle every so manyth call.")] = 0,
    error_every: Annotated[int, Parameter(group=_WRONG, help="Answer every so manyth call with 500.")] = 0,
    rate_per_s: Annotated[int, Parameter(group=_WRONG, help="Throttle calls above so many a second.")] = 0,
    latency_ms: Annotated[int, Parameter(group=_WRONG, help="Before an answer in one piece.")] = 0,
    first_token_ms: Annotated[int, Parameter(group=_WRONG, help="Before the first event of a stream.")] = 0,
    event_ms: Annotated[int, Parameter(group=_WRONG, help="Between events of a stream.")] = 0,
    downgrade_1h: Annotated[
        bool, Parameter(group=_WRONG, negative="", help="Keep and bill 1h cache writes as 5m, silently.")
    ] = False,
) -> int:  # fmt: skip
    """A local Bedrock Runtime and Anthropic API: made-up answers, real billing, logs and bills as AWS writes them.

    Prints {"listening": "http://127.0.0.1:N"} when it is ready, and ends on SIGTERM with its logs written.
    """
    try:
        from farthing.emulator import Server
    except ImportError as error:
        raise BadInput(f"the emulator needs more: pip install 'farthing[gateway]' ({error})") from error

    if min(port, output_tokens, speed, batch_minimum, batch_step_ms) < 0 or port > 65_535:
        raise BadInput("ports, tokens, speeds and times count from 0, ports to 65535")
    flags = {
        "latency_ms": latency_ms, "first_token_ms": first_token_ms, "event_ms": event_ms,
        "rate_per_s": rate_per_s, "downgrade_1h": downgrade_1h,
    }  # fmt: skip
    s3 = _s3(s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3", ""))
    if log_bucket and s3 is None:
        raise BadInput("--log-bucket needs to know where S3 is: give --s3-endpoint")
    world = _world(
        account, region, output_tokens, clock, speed, _faults(faults, throttle_every, error_every, flags)
    )
    from farthing.emulator import Logs

    world.logs = Logs(log_dir, log_bucket, s3)
    server = Server(
        world,
        s3=s3,
        cur_folder=cur_dir,
        cur_form=cur_form,
        batch_minimum=batch_minimum,
        step_ms=batch_step_ms,
    )
    return _serve(server, port)


def _serve(server: Any, port: int) -> int:
    import asyncio
    import logging

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a client that goes away is no news
    # While it listens, signals are the server's own. It raises them once more when it has ended: all is written then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None if server.listened else os._exit(0))
    try:
        asyncio.run(server.run(port, lambda url: print(json.dumps({"listening": url}), flush=True)))
    except OSError as error:
        raise BadInput(f"port {port}: {error.strerror or error}") from error
    return 0


def _world(account: str, region: str, output_tokens: int, clock: str, speed: int, faults: Faults) -> World:
    from farthing.book import default_book
    from farthing.emulator import Clock, Failing, World, moment

    if not (account.isdigit() and len(account) == 12):
        raise BadInput(f"--account {account!r} is no account: twelve digits")
    begin = moment(clock) if clock else None
    return World(default_book(), Clock(begin, speed), account, region, output_tokens, failing=Failing(faults))


def _faults(text: str, throttle_every: int, error_every: int, flags: dict[str, Any]) -> Faults:
    """Those of the file, and those of the flags beside them."""
    from farthing.emulator import as_json, read_faults

    if text and not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise BadInput(f"--faults {text}: {error.strerror}") from error
    told = as_json(read_faults(text or "{}"))
    told |= {name: value for name, value in flags.items() if value}
    told["plan"] = [
        *told["plan"],
        *(
            {"do": do, "every": every}
            for do, every in (("throttle", throttle_every), ("error", error_every))
            if every
        ),
    ]
    return read_faults(json.dumps(told))


def _s3(endpoint: str) -> Any:
    """A client for it; None where no address was given. Without credentials of one's own, any will do."""
    if not endpoint:
        return None
    try:
        import boto3
    except ImportError as error:
        raise BadInput(f"S3 needs more: pip install 'farthing[aws]' ({error})") from error
    own = {"aws_access_key_id": "EMULATED", "aws_secret_access_key": "EMULATED", "region_name": "us-east-1"}
    known = "AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ
    return boto3.client("s3", endpoint_url=endpoint, **({} if known else own))
