"""The command line. Exit codes: 0 done, 1 the answer is no, 2 bad input. stdout is the answer, stderr the rest.

Every file of this folder without an underscore in front adds its commands to `app`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from farthing import __version__
from farthing.cli._ending import end_cleanly, leave
from farthing.cli._statusline import answer_quickly

if sys.argv[1:] == ["--version"]:  # asked by installers and scripts: nothing is loaded for it
    print(__version__, flush=True)
    os._exit(0)
end_cleanly(sys.argv[1:])
answer_quickly(sys.argv[1:])
if sys.argv[1:2] == ["import"]:
    from farthing.importers import begin

    begin(sys.argv[2:])  # options are no paths, or do no harm: what is started in vain ends with this process

from farthing.cli import _app  # noqa: E402 - cyclopts takes its time
from farthing.cli._app import BadInput  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App

    app: App

__all__ = ["BadInput", "app", "main"]

# Commands that people wait for most, by their first word, "" for none: of these only the file that has them is loaded.
_ALONE = {"": "importing", "import": "importing"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    words = sys.argv[1:] if argv is None else argv
    alone = _ALONE.get(words[0] if words else "", "") if argv is None else ""
    _load(alone)
    try:
        _app.main(words)
    except SystemExit as ended:
        if alone and isinstance(ended.code, int):
            leave(ended.code)
        raise


def _load(alone: str = "") -> None:
    """This file of commands, or every one."""
    names = [found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_"]
    for name in [alone] if alone else names:
        importlib.import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _load()
    return _app.app
