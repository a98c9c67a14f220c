"""Writes docs/reference.md from the code: commands, reports, levers, keys, settings, formats, names, the Python API."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from rich.console import Console

import farthing
from farthing import cells, cli, importers
from farthing.config import Config
from farthing.levers import LEVERS
from farthing.reports import REPORTS
from tools import figures

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
        "Whatever has `--json` has `--csv`, too: the rows of that answer.",
        *(f"### farthing {name}\n\n```text\n{help_of(name)}\n```" for name in commands()),
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
        "## Settings",
        "Of [farthing.toml](configuration.md); what is not said is as given here.",
        *settings(),
        "## Environment variables",
        "\n".join(f"- `{name}`" for name in sorted(written(r"\bFARTHING_[A-Z]+(?:_[A-Z]+)*\b") - _EXAMPLES)),
        "## Headers of the gateway",
        "\n".join(f"- `{name}`" for name in sorted(written(r"\bx-farthing-[a-z]+(?:-[a-z]+)*"))),
        "[The gateway](gateway.md) says what each means.",
        "## Formats",
        "\n".join(f"- `{name}`: {says}" for name, says in formats().items()),
        "## Python",
        *(
            f"### farthing.{name}\n\n```text\n{_signature(name)}\n```\n\n{_doc(name)}"
            for name in sorted(_public())
        ),
    ]
    return "\n\n".join(parts) + "\n"


_EXAMPLES = {"FARTHING_X"}  # FARTHING_X__Y stands for any setting


def settings() -> list[str]:
    """A table of each table of farthing.toml: key, type, what it is if left out, and the comment beside it."""
    parts, done = [], set()
    waiting: list[tuple[str, Any]] = [("", Config)]
    while waiting:
        where, table = waiting.pop(0)
        if (where, table) in done:
            continue
        done.add((where, table))
        says = _comments(table)
        rows = []
        for field in msgspec.structs.fields(table):
            key = field.encode_name
            if (table, key) == (Config, "path"):  # where it is from, which nobody writes
                continue
            inner, shape = _table_of(field.type)
            if inner:
                waiting.append((f"{where}.{key}{shape}".lstrip("."), inner))
            kind = "table" if inner else _type(field.type)
            rows.append(f"| `{key}` | {kind} | {_default(field)} | {says.get(key, '')} |")
        head = f"### `[{where}]`" if where else "### At the top"
        parts.append("\n".join([head, "", "| key | type | left out | |", "|---|---|---|---|", *rows]))
    return parts


def _table_of(kind: Any) -> tuple[Any, str]:
    """The class of a table's rows, and how its name goes on: `.NAME` for named ones, nothing for a list."""
    told = [
        one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, msgspec.Struct)
    ]
    return (told[0], ".NAME" if get_origin(kind) is dict else "") if told else (None, "")


def _type(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return "`" + re.sub(r"typing\.|decimal\.|, \.\.\.", "", text).replace("|", "or") + "`"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be said"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return "" if isinstance(value, msgspec.Struct) or value in ("", (), {}, None) else f"`{value}`"


def _comments(table: Any) -> dict[str, str]:
    """What stands behind a field in the source, of this class and those it is made from."""
    found: dict[str, str] = {}
    for one in reversed(table.__mro__[:-1]):
        if one.__module__.startswith("farthing"):
            lines = re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(one), flags=re.MULTILINE)
            found |= {name: says.replace("|", "\\|") for name, says in lines}
    return found


def written(pattern: str) -> set[str]:
    """Names that the code has: what it reads of the environment, what it sends."""
    paths = Path(farthing.__file__).parent.rglob("*.py")
    return {name for path in paths for name in re.findall(pattern, path.read_text(encoding="utf-8"))}


def _public() -> list[str]:
    """The public names; of a module its functions."""
    names = [name for name in farthing.__all__ if not name.startswith("__")]
    return [each for name in names for each in _functions(name)]


def _functions(name: str) -> list[str]:
    thing = getattr(farthing, name)
    if not inspect.ismodule(thing):
        return [name]
    return [f"{name}.{inner}" for inner in thing.__all__ if inspect.isfunction(getattr(thing, inner))]


def help_of(name: str) -> str:
    out = io.StringIO()
    cli.app.help_print(
        name.split(), console=Console(file=out, width=100, force_terminal=False, color_system=None)
    )
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def options(name: str) -> set[str]:
    """The options of a command, by their long names."""
    command = cli.app
    for word in name.split():
        command = command[word]
    default = command.default_command
    told = command.assemble_argument_collection() if default else ()
    return {name for argument in told for name in argument.names if name.startswith("--")}


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
    figures.write()
    print(f"wrote {TARGET.name} and figures")
