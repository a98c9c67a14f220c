"""`farthing mcp`: reports for assistants, over the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from farthing.cli._app import BadInput, app


@app.command
def mcp(
    *,
    ledger: Annotated[str, Parameter(help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    config: Annotated[Path | None, Parameter(help="farthing.toml: ledger, zone, profiles, teams.")] = None,
    team: Annotated[str, Parameter(help="Only this team's calls are seen.")] = "",
) -> int:
    """Serve bill, by, why, savings, estimate, rate and prices to an assistant over stdio, read-only (docs/mcp.md).

    Ends when stdin does.
    """
    try:
        from farthing.cli._mcp import Tools, server
    except ImportError as error:
        raise BadInput(f"farthing mcp needs {error.name}: pip install 'farthing[mcp]'") from error
    server(Tools(ledger, str(config or ""), team)).run("stdio")
    return 0
