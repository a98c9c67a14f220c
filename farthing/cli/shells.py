"""`farthing completion` and `farthing man`: for the shell."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from farthing.cli._app import app

# zsh runs the file `_farthing` when it first completes: what the file defines has to be called then, too.
ZSH_END = """
if [[ $funcstack[1] == _farthing ]]; then
  _cyclopts_farthing "$@"
fi
"""


@app.command
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Whose script.")],
) -> int:
    """A script that completes commands, options and values at the press of Tab (docs/shell.md)."""
    sys.stdout.write(app.generate_completion(prog_name="farthing", shell=shell))
    sys.stdout.write(ZSH_END if shell == "zsh" else "")
    return 0


@app.command
def man() -> int:
    """The manual page farthing(1): `farthing man | man -l -`, or into a folder of man pages (docs/shell.md)."""
    from farthing.cli._manual import page

    sys.stdout.write(page())
    return 0
