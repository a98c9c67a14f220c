"""`farthing completion` and `farthing man`: for the shell."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from farthing.cli._app import app


@app.command
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Whose script.")],
) -> int:
    """A script that completes commands, options and values at the press of Tab (docs/shell.md)."""
    sys.stdout.write(app.generate_completion(prog_name="farthing", shell=shell))
    return 0


@app.command
def man() -> int:
    """The manual page farthing(1): `farthing man | man -l -`, or into a folder of man pages (docs/shell.md)."""
    from farthing.cli._manual import page

    sys.stdout.write(page())
    return 0
