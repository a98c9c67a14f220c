"""While a wheel is made: the browser's libraries are built first, so that they ship in it.

Where there is no Node, the build asks for the Python package that has it: a machine with only Python can build.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_spec = importlib.util.spec_from_file_location("web_build", Path(__file__).with_name("build.py"))
assert _spec
assert _spec.loader
_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_build)


class BrowserLibraries(BuildHookInterface):
    """Hatch finds it by its base class: this is the one seam that asks for one."""

    def dependencies(self) -> list[str]:
        """What the build wants installed beside itself."""
        return [] if _build.is_built() or _build.has_node() else [_build.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable install is made ready by `make web`; a wheel is not made without them."""
        if version != "editable" and not _build.is_built():
            _build.build()
