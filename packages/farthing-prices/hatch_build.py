# ruff: noqa: INP001 - hatchling runs it by its path
"""Makes the package out of farthing's core: the catalogue, and the modules that read it, under another name."""

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    "money",
    "meters",
    "usage",
    "book",
    "rating",
)  # the standard library is all that they import to price
FRONT = '''"""Prices of Claude: `price` a call exactly, in picodollars, or read the catalogue itself with `book`."""

from farthing_prices.book import Book, Card, Unpriced
from farthing_prices.book import default_book as book
from farthing_prices.rating import Charge, Line
from farthing_prices.rating import rate as price
from farthing_prices.usage import Rejected, Sku

__all__ = ["Book", "Card", "Charge", "Line", "Rejected", "Sku", "Unpriced", "book", "price"]
'''


class CustomBuildHook(BuildHookInterface):
    """Runs before each build; in a source distribution, where the repository is missing, what it made is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        core = Path(self.root).parent.parent / "farthing"
        made = Path(self.root) / "farthing_prices"
        if not (core / "prices").is_dir():
            if not made.is_dir():
                raise FileNotFoundError(f"{core / 'prices'}: build it in the repository of farthing")
            return
        make(core, made)


def make(core: Path, made: Path) -> None:
    """Writes the package from farthing's folder, anew."""
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(core / "prices", made / "prices", ignore=shutil.ignore_patterns("*.md"))
    for name in MODULES:
        text = (core / f"{name}.py").read_text(encoding="utf-8")
        (made / f"{name}.py").write_text(text.replace("farthing.", "farthing_prices."), encoding="utf-8")
    shutil.copy(core.parent / "LICENSE", made)
    (made / "__init__.py").write_text(FRONT, encoding="utf-8")
    (made / "py.typed").touch()
