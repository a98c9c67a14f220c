"""Usage in: import, profiles from Bedrock, and this machine's transcripts where no command is named."""

from __future__ import annotations

import importlib
import json as json_
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._engine import spark_session
from farthing.cli._shared import Asked, default_ledger, run_import, transcript_folders, write_json

if TYPE_CHECKING:
    from farthing.ledger import Ledger

# --- import ---------------------------------------------------------------------------------------


_BUCKETS = Group("Buckets", sort_key=1)


@Parameter(name="*", group=_BUCKETS)
@dataclass
class Reached:
    """How s3:// paths are reached; what is left out is found as the AWS command line finds it."""

    profile: Annotated[str, Parameter(help="Named profile of the AWS configuration.")] = ""
    role_arn: Annotated[str, Parameter(help="Role to assume, in this account or another.")] = ""
    external_id: Annotated[str, Parameter(help="What the role's trust policy asks for.")] = ""
    region: Annotated[str, Parameter(help="Region of the bucket, where it is not told.")] = ""
    endpoint_url: Annotated[str, Parameter(help="Another S3 endpoint.")] = ""
    full: Annotated[
        bool, Parameter(negative="", help="List buckets from the beginning, for what came late.")
    ] = False


@app.command(name="import")
def import_(
    *paths: Annotated[
        str,
        Parameter(help="Files, folders, globs, s3:// prefixes, or - for stdin.", allow_leading_hyphen=True),
    ],
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    ledger: Annotated[str, Parameter(help="Ledger: a folder, made if there is none, or s3://...")] = "",
    forced: Annotated[str, Parameter(name="--format", help="Read every file so, instead of guessing.")] = "",
    engine: Annotated[
        Literal["duckdb", "spark"],
        Parameter(help="What parses: this machine, or Spark's executors. The ledger is written here."),
    ] = "duckdb",
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
) -> int:
    """Read usage into the ledger: logs, batch outputs, transcripts, gateways, telemetry. Import twice adds nothing."""
    from farthing.aws import Access
    from farthing.ledger import Ledger

    if not paths:
        raise BadInput("name what to import: files, folders, globs, s3:// prefixes, or - for stdin")
    for path in paths:
        if path.startswith("--") and not Path(path).exists():
            raise BadInput(f"unknown option {path}; see farthing import --help")
    access = Access(
        reached.profile, reached.role_arn, reached.external_id, reached.region, reached.endpoint_url
    )
    place = Ledger(ledger or default_ledger())
    with spark_session() if engine == "spark" else nullcontext() as session:
        done = run_import(place, paths, forced, access=access, full=reached.full, engine=session)
    if json:
        write_json(done.as_json())
    else:
        print(done.sentence())
    return 2 if done.errors or done.rejected else 0


# --- profiles, and no command at all --------------------------------------------------------------


@app.command
def profiles(
    *,
    region: Annotated[str, Parameter(help="Region to ask.")],
    aws_profile: Annotated[str | None, Parameter(help="Named profile of the AWS configuration.")] = None,
    endpoint_url: Annotated[str | None, Parameter(help="Another Bedrock endpoint.")] = None,
) -> int:
    """Ask Bedrock what this account's application inference profiles were made from, as JSON for --profiles."""
    from farthing.profiles import fetch_profiles
    from farthing.usage import check_region

    check_region(region)
    try:
        found = fetch_profiles(region, aws_profile, endpoint_url)
    except ImportError as error:
        raise BadInput("this asks AWS, which needs boto3: pip install 'farthing[aws]'") from error
    except Exception as error:  # botocore's errors share no base class; each is one line for a person
        if not type(error).__module__.startswith("botocore"):
            raise
        raise BadInput(f"{region}: {error} (needs bedrock:ListInferenceProfiles)") from error
    print(json_.dumps(found, indent=2))
    return 0


@app.default
def bare() -> int:
    """The bill of this machine's Claude Code transcripts; elsewhere, what to do."""
    folders = transcript_folders()
    if not folders:
        print("farthing: no ledger and no Claude Code transcripts here. To start:\n"
              "  farthing demo                 a made-up month, to see what it does\n"
              "  farthing import PATH          Bedrock invocation logs or Claude Code transcripts\n"
              "  farthing bill                 then: the bill, layer by layer\n"
              "  farthing --help               everything else")  # fmt: skip
        return 0
    print(f"pricing the transcripts in {', '.join(map(str, folders))}", file=sys.stderr)
    from farthing.importers import begin

    begin([str(folder) for folder in folders])
    from farthing.ledger import Ledger

    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        ledger = Ledger(Path(temporary) / "ledger")
        done = run_import(ledger, [str(folder) for folder in folders], meanwhile=partial(_load_bill, ledger))
        from farthing.reports import REPORTS

        Asked().answer(REPORTS["bill"].make(ledger, Asked().question()))
    return 2 if done.errors or done.rejected else 0


def _load_bill(ledger: Ledger) -> None:
    """While transcripts are read: what makes the bill and prints it, or the ledger will need."""
    for name in ("deltalake", "rich.console", "rich.table", "farthing.reports", "farthing.render"):
        importlib.import_module(name)
    import narwhals.stable.v2 as nw

    nw.from_native(ledger.none("usage"))  # starts DuckDB, and loads what asks it
