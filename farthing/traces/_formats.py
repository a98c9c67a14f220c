"""The formats of traces: the files of this folder."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from farthing.traces._log import Format


def formats() -> dict[str, Format]:
    """Every format by its name."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    names = sorted(each.name for each in found if each.name[0] != "_")
    return {name: cast("Format", importlib.import_module(f"farthing.traces.{name}")) for name in names}
