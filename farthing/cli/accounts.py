"""Accounts: the templates that make them known, and what is known of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import console, default_ledger, is_ledger, load_config, write_json

if TYPE_CHECKING:
    from farthing.doctor import Check
    from farthing.ledger import Ledger

setup_app = App(name="setup", help="Print what makes an account known; nothing is applied.")
app.command(setup_app)


@setup_app.command
def aws(
    *,
    form: Annotated[
        Literal["terraform", "cloudformation", "cli"], Parameter(name="--print", help="Which form to print.")
    ],
    account: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Accounts to apply it in; the first is the one that pays.",
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        Parameter(negative="", consume_multiple=True, help="Regions in which Claude is called (us-east-1)."),
    ] = None,
    bucket: Annotated[str, Parameter(help="How bucket names begin; account and region follow.")] = "farthing",
    prefix: Annotated[str, Parameter(help="Of the keys of logs.")] = "bedrock",
    trusted_account: Annotated[
        str, Parameter(help="The account farthing runs in; the same if left out.")
    ] = "",
    external_id: Annotated[str, Parameter(help="What farthing must say to read.")] = "",
    team: Annotated[
        list[str] | None,
        Parameter(
            negative="", consume_multiple=True, help="Teams that get tagged inference profiles of their own."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Models of the teams' profiles; with a routing, or without.",
        ),
    ] = None,
    bodies: Annotated[
        bool, Parameter(help="Log the text of calls too; without it the lives of cache writes are unknown.")
    ] = True,
    kms: Annotated[bool, Parameter(negative="", help="Encrypt logs with a key of your own.")] = False,
    keep_days: Annotated[int, Parameter(help="Days after which logs are deleted.")] = 90,
) -> int:
    """Print logging, a reading role, a CUR 2.0 export and team profiles, as Terraform, CloudFormation or AWS CLI."""
    from farthing.setup import MODEL, Wanted, render

    wanted = Wanted(
        accounts=tuple(dict.fromkeys(account or ())),
        regions=tuple(dict.fromkeys(region or ["us-east-1"])),
        bucket=bucket,
        prefix=prefix,
        trusted_account=trusted_account,
        external_id=external_id,
        teams=tuple(dict.fromkeys(team or ())),
        models=tuple(dict.fromkeys(model or [MODEL])),
        bodies=bodies,
        kms=kms,
        keep_days=keep_days,
    )
    sys.stdout.write(render(form, wanted))
    return 0


@app.command
def doctor(
    *,
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
    config: Annotated[Path | None, Parameter(help="A farthing.toml elsewhere.")] = None,
    ledger: Annotated[str, Parameter(help="Ledger folder, or s3:// place.")] = "",
    profile: Annotated[str, Parameter(help="Named profile of the AWS configuration.")] = "",
    region: Annotated[
        list[str] | None, Parameter(negative="", consume_multiple=True, help="Only these regions.")
    ] = None,
    offline: Annotated[bool, Parameter(negative="", help="Ask AWS nothing.")] = False,
) -> int:
    """What of each account is on, missing or denied, what each gap hides in dollars, and what mends it. Only reads."""
    from farthing.doctor import examine, sick
    from farthing.usage import check_region

    regions = [check_region(name) for name in region or ()]
    settings = load_config(config)
    opened = _open(str(ledger or default_ledger(settings)), offline=offline)
    checks = []
    for check in examine(settings, opened, profile=profile, regions=regions, offline=offline):
        checks.append(check)
        if not json:
            _say(check)
    if json:
        write_json({"checks": [check.as_json() for check in checks]})
    return int(sick(checks))


def _open(place: str, *, offline: bool) -> Ledger | str:
    """The ledger, or why there is none: a doctor makes no ledger, and has something to say without."""
    from farthing.ledger import Ledger, LedgerError

    try:
        if offline and place.startswith("s3://"):
            return f"{place} was not opened: offline"
        return Ledger(place) if is_ledger(place) else f"no ledger at {place}"
    except (BadInput, LedgerError) as error:
        return str(error)


_SIGNS = {"ok": "ok", "missing": "MISSING", "denied": "DENIED", "unknown": "unknown", "not_asked": "–"}


def _say(check: Check) -> None:
    """A line a check as it is known, and the mend below it."""
    from farthing.money import show

    place = " ".join(filter(None, (check.account, check.region)))
    hides = f"  hides {show(check.blinds)}" if check.blinds and check.status != "ok" else ""
    costs = f"  about {show(check.costs)}" if check.costs is not None else ""
    out: Any = console()
    out.print(
        f"{_SIGNS[check.status]:<8} {check.name:<13} {place}  {check.says}{costs}{hides}".rstrip(),
        soft_wrap=True,
        markup=False,
    )
    if check.mend and check.status != "ok":
        out.print(f"{'':<8} {'':<13} mend: {check.mend}", soft_wrap=True, markup=False)
