"""Writes docs/reference.md from the code: commands, options, reports, levers, keys, formats, the Python API."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console

import farthing
from farthing import cells, cli, importers
from farthing.levers import LEVERS
from farthing.reports import REPORTS

TARGET = Path(__file__).parent.parent / "docs" / "reference.md"


def formats() -> dict[str, str]:
    """Name and first docstring line of every importer."""
    names = sorted(
        found.name for found in pkgutil.iter_modules(importers.__path__) if not found.name.startswith("_")
    )
    return {name: _first_line(importlib.import_module(f"farthing.importers.{name}")) for name in names}


def commands() -> list[str]:
    """Every command, those of a group under its name."""
    return [" ".join(words) for words in _under(cli.app)]


def _under(app: Any, *group: str) -> Iterator[tuple[str, ...]]:
    for name in sorted(name for name in app if not name.startswith("-")):
        yield (*group, name)
        yield from _under(app[name], *group, name)


def reference() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "Written by `make docs` from the code; a test fails when it is stale.",
        "## Commands",
        *(f"### farthing {name}\n\n```text\n{_help(name)}\n```" for name in commands()),
        "## Reports",
        "\n".join(f"- `{made.name}`: {made.says}" for made in REPORTS.values()),
        "## Keys",
        "To group by, and (but for time and meter) to filter by: "
        + ", ".join(f"`{key}`" for key in (*cells.KEYS, *cells.TIME_KEYS, "meter", "tag:NAME"))
        + ".",
        "## Levers",
        "\n".join(
            f"- `{made.name}` ({'exact' if made.exact else 'upper limit'}): {made.says}"
            for made in LEVERS.values()
        ),
        "## Formats",
        "\n".join(f"- `{name}`: {says}" for name, says in formats().items()),
        "## Python",
        *(
            f"### farthing.{name}\n\n```text\n{_signature(name)}\n```\n\n{_doc(name)}"
            for name in sorted(_public())
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _public() -> list[str]:
    """The public names; of a module its functions."""
    names = [name for name in farthing.__all__ if not name.startswith("__")]
    return [each for name in names for each in _functions(name)]


def _functions(name: str) -> list[str]:
    thing = getattr(farthing, name)
    if not inspect.ismodule(thing):
        return [name]
    return [f"{name}.{inner}" for inner in thing.__all__ if inspect.isfunction(getattr(thing, inner))]


def _help(name: str) -> str:
    out = io.StringIO()
    cli.app.help_print(
        name.split(), console=Console(file=out, width=100, force_terminal=False, color_system=None)
    )
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


def _signature(name: str) -> str:
    return f"{name}{inspect.signature(_named(name))}"


def _doc(name: str) -> str:
    return inspect.getdoc(_named(name)) or ""


def _named(name: str) -> Any:
    return attrgetter(name)(farthing)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8", newline="\n")
    print(f"wrote {TARGET.name}")
