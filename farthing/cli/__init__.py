"""The command line. Exit codes: 0 done, 1 the answer is no, 2 bad input. stdout is the answer, stderr the rest.

Every file of this folder without an underscore in front adds its commands to `app`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

from farthing import __version__
from farthing.cli._ending import end_cleanly
from farthing.cli._statusline import answer_quickly

if sys.argv[1:] == ["--version"]:  # asked by installers and scripts: nothing is loaded for it
    print(__version__, flush=True)
    os._exit(0)
end_cleanly(sys.argv[1:])
answer_quickly(sys.argv[1:])

from farthing.cli._app import BadInput, app, main  # noqa: E402 - cyclopts takes its time

__all__ = ["BadInput", "app", "main"]

for _found in pkgutil.iter_modules(__path__):
    if _found.name[0] != "_":
        importlib.import_module(f"{__name__}.{_found.name}")
