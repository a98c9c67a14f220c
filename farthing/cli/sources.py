"""farthing.toml: written by init, imported by sync."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import default_ledger, load_config, progress, write_json

_FILE = Parameter(help="The file; farthing.toml here, or $FARTHING_CONFIG, if left out.")


@app.command
def sync(
    *,
    config: Annotated[Path | None, _FILE] = None,
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://...; else the one of the file.")] = "",
    full: Annotated[bool, Parameter(negative="", help="List buckets from their beginning.")] = False,
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
) -> int:
    """Import every source of farthing.toml. What fails is told, and the rest goes on; twice adds nothing."""
    from farthing.ledger import Ledger
    from farthing.sync import sync as sync_
    from farthing.sync import total

    said = load_config(config)
    if not said.path:
        raise BadInput("no farthing.toml here: run `farthing init`, which writes one, or name it by --config")
    if not said.sources:
        raise BadInput(f"{said.path}: no sources: add [[sources]] with a path (docs/configuration.md)")
    results = []
    into = Ledger(ledger or default_ledger(said))
    for result in sync_(into, said, now=datetime.now(UTC), full=full, watch=progress):
        results.append(result)
        for line in result.done.errors:
            print(f"farthing: {line}", file=sys.stderr)
        if not json:
            print(f"{result.source.path}: {result.done.sentence()}")
    every = total(results)
    if json:
        write_json({"sources": [result.as_json() for result in results], **every.as_json()})
    elif len(results) > 1:
        print(f"in all: {every.sentence()}")
    return 2 if every.errors or every.rejected else 0


@app.command
def init(
    *paths: Annotated[str, Parameter(help="Where else usage is: folders, files, patterns, s3:// prefixes.")],
    config: Annotated[Path | None, _FILE] = None,
    aws: Annotated[
        bool,
        Parameter(negative="", help="Ask AWS too: accounts, where calls are logged, inference profiles."),
    ] = False,
    region: Annotated[
        list[str] | None, Parameter(negative="", help="Regions to ask in, beside those of the profiles.")
    ] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Take what is found.")] = False,
    force: Annotated[bool, Parameter(negative="", help="Write the file anew, if there is one.")] = False,
) -> int:
    """Write farthing.toml by looking and asking. Asks no network but AWS, with --aws; and only reads there."""
    import os

    from farthing.cli import _init
    from farthing.config import NAME

    file = config or Path(os.environ.get("FARTHING_CONFIG") or NAME)
    if file.exists() and not force:
        raise BadInput(f"{file} is there already: edit it, or write it anew with --force")
    asking = sys.stdin.isatty() and sys.stderr.isatty() and not yes
    notes: list[str] = []
    found = _init.look(paths, file.absolute().parent)
    if aws:
        found = _init.look_at_aws(found, region or (), notes)
    for note in notes:
        print(f"farthing: {note}", file=sys.stderr)
    settled = _init.settle(found, _init.ask if asking else _init.take)
    _init.write(file, settled)
    parts = (("sources", settled.sources), ("accounts", settled.accounts), ("teams", settled.teams))
    counted = ", ".join(f"{len(part)} {name}" for name, part in parts)
    print(f"wrote {file}: {counted}")
    print(
        "next: farthing sync" if settled.sources else f"next: add [[sources]] to {file}, then farthing sync"
    )
    return 2 if notes else 0
