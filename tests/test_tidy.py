"""The shape of the house, as tests: layers, sizes, a core without floats or clocks, locks without addresses.

Each check takes a parsed file and yields what is wrong with it, in words. The first half of the tests points
the checks at the repository; the second half points them at small planted mistakes, so that a check which
finds nothing is known to be able to find something.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# An import goes to a strictly lower row. A new module is given its place here.
LAYERS = [
    {"money", "meters"},
    {"usage"},
    {"book"},
    {"rating"},
    {"frames", "config", "aws", "outbox", "wire", "offers", "fx", "notify"},
    {"ledger", "cache", "levers", "policy"},
    {"cells"},
    {"costs"},
    {"why"},
    {"importers", "exporters", "reports", "statement", "traces", "profiles"},
    {"gateway", "emulator", "demo", "render", "api", "contract", "setup", "privacy", "warehouse"}
    | {"reconcile", "billed", "allocate", "optimise", "evaluate", "lint", "pricelist"}
    | {"estimate", "migrate", "count"}
    | {"commitment", "reprice", "platforms"},
    {"sync", "doctor", "teach", "close", "pytest_plugin"},
    {"watch", "livedemo"},
    {"web"},
    {"cli"},
]
LAYER = {module: depth for depth, row in enumerate(LAYERS) for module in row}
RATING = LAYER["rating"]

# Inside a folder, files keep apart too, but for these rows, which go down in the same way.
FOLDERS = {
    "gateway": [
        {"protocol"},
        {"policy", "budgets"},
        {"live"},
        {"_autopilot_apply", "_together", "_attempt"},
        {"_plan", "_callers", "_spans", "_batch_sender"},
        {"proxy", "hooks", "batch"},
        {"_written", "_shadow"},
        {"_admin"},
        {"_serve"},
    ],
    "web": [{"app"}, {"_serve"}],
}

OUTSIDE_THE_LAYERS = {"__init__", "__main__"}  # the public names, and the way in
CORE = {"money", "meters", "usage", "book", "rating", "levers", "cache"}
CORE_LIBRARIES = sys.stdlib_module_names | {"farthing", "narwhals"}
CLOCKS = {"now", "utcnow", "today", "time_ns", "monotonic", "perf_counter"}

LINES_PER_FILE = 600
LINES_PER_FUNCTION = 70
LINES_PER_DECISION = 40

UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")


@dataclass(frozen=True)
class File:
    """A parsed file and the names that lead to it: farthing/gateway/proxy.py is ("gateway", "proxy")."""

    names: tuple[str, ...]
    text: str
    tree: ast.Module

    @classmethod
    def parse(cls, names: Iterable[str], text: str) -> "File":
        return cls(tuple(names), text, ast.parse(text))

    @property
    def module(self) -> str:
        """The name that has a layer: the file, or the folder it lives in."""
        return self.names[0]

    @property
    def place(self) -> str:
        return ".".join(self.names)


Check = Callable[[File], Iterator[str]]


# --- layers ----------------------------------------------------------------------------------------


def imports(file: File) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every import, also those inside functions: its line and the dotted name it may reach, as a tuple.

    `from a import b` may name a module or a thing in one: the longer name is given, and its reader decides.
    """
    here = ("farthing", *file.names)
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, alias.name)


def imports_up(file: File) -> Iterator[str]:
    """Imports of farthing that do not go strictly down."""
    if file.module in OUTSIDE_THE_LAYERS:
        return
    if file.module not in LAYER:
        yield f"{file.place} has no layer: give {file.module} one in LAYERS"
        return
    for line, (package, *names) in imports(file):
        target = names[0] if names else ""
        if package != "farthing" or target == "__version__":
            continue
        if target == file.module and len(file.names) > 1:
            yield from imports_across(file, line, names)
        elif target not in LAYER:
            yield f"{file.place}:{line} imports farthing.{target}, which is no module with a layer"
        elif LAYER[target] >= LAYER[file.module]:
            yield f"{file.place}:{line} imports up: {target}"


def imports_across(file: File, line: int, names: list[str]) -> Iterator[str]:
    """Inside a folder: the front imports any file; a file its private helpers and the rows below its own."""
    source, target = file.names[1], names[1] if len(names) > 1 else ""
    if source == "__init__" or (target.startswith("_") and target != "__init__"):
        return
    depth = {name: i for i, row in enumerate(FOLDERS.get(file.module, [])) for name in row}
    if not (source in depth and target in depth and depth[target] < depth[source]):
        yield f"{file.place}:{line} imports its sibling: {target or file.module}"


def imports_outside_the_core(file: File) -> Iterator[str]:
    """What layers 0 to 3 import beyond the standard library and narwhals."""
    if LAYER.get(file.module, RATING + 1) > RATING:
        return
    for line, (package, *_) in imports(file):
        if package not in CORE_LIBRARIES:
            yield f"{file.place}:{line} imports {package}: the core has the standard library and narwhals"


# --- the core: exact, and without a clock ----------------------------------------------------------


def inexact(file: File) -> Iterator[str]:
    """Float literals, float() and true division in the core; book may join paths."""
    if file.module not in CORE:
        return
    for node in ast.walk(file.tree):
        match node:
            case ast.Constant(value=float() | complex()):
                yield f"{file.place}:{node.lineno} has a float: {node.value!r}"
            case ast.Call(func=ast.Name(id="float")):
                yield f"{file.place}:{node.lineno} calls float()"
            case ast.BinOp(op=ast.Div()) if not (file.module == "book" and joins_path(node)):
                yield f"{file.place}:{node.lineno} divides"
            case ast.AugAssign(op=ast.Div()):
                yield f"{file.place}:{node.lineno} divides"


def joins_path(division: ast.BinOp) -> bool:
    """A slash with text on its right joins a path."""
    right = division.right
    return isinstance(right, ast.JoinedStr) or (
        isinstance(right, ast.Constant) and isinstance(right.value, str)
    )


def reads_clock(file: File) -> Iterator[str]:
    """Clocks in the core: now is a parameter."""
    if file.module not in CORE:
        return
    for node in ast.walk(file.tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield f"{file.place}:{node.lineno} reads the clock: {name}()"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="time")):
                yield f"{file.place}:{node.lineno} reads the clock: time.time()"
            case ast.ImportFrom(module="time"):
                yield f"{file.place}:{node.lineno} takes a clock from time"


# --- every file ------------------------------------------------------------------------------------


def oversized(file: File) -> Iterator[str]:
    """Files without a docstring, long files, long functions."""
    if not ast.get_docstring(file.tree):
        yield f"{file.place} does not say what it is for"
    if (lines := len(file.text.splitlines())) > LINES_PER_FILE:
        yield f"{file.place} has {lines} lines"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_PER_FUNCTION:
                yield f"{file.place}:{node.lineno} {node.name} has {lines} lines"


def unfinished(file: File) -> Iterator[str]:
    """Work left for later, and asserts that cannot fail."""
    for number, line in enumerate(file.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{file.place}:{number} is unfinished: {line.strip()}"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assert) and always_true(node.test):
            yield f"{file.place}:{node.lineno} asserts nothing"


def always_true(test: ast.expr) -> bool:
    """A true constant, text or a tuple that is not empty."""
    return (isinstance(test, ast.Constant) and bool(test.value)) or (
        isinstance(test, ast.Tuple) and bool(test.elts)
    )


# --- the checks, on the repository -----------------------------------------------------------------


def read(*folders: str) -> list[File]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [
        File.parse(path.relative_to(ROOT).with_suffix("").parts[1:], path.read_text(encoding="utf-8"))
        for path in paths
    ]


PACKAGE = read("farthing")
EVERYTHING = PACKAGE + read("tests", "tools", "bench")


@pytest.mark.parametrize("check", [imports_up, imports_outside_the_core, inexact, reads_clock])
def test_package(check: Check):
    faults = dict.fromkeys(fault for file in PACKAGE for fault in check(file))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("check", [oversized, unfinished])
def test_every_file(check: Check):
    faults = dict.fromkeys(fault for file in EVERYTHING for fault in check(file))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_lock_has_names_versions_and_hashes_only(lock: Path):
    pinned = re.compile(r"[a-z0-9.-]+==[^ ;]+( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+")
    requirements = lock.read_text(encoding="utf-8").replace(" \\\n    ", " ").splitlines()
    assert requirements
    assert [line for line in requirements if not pinned.fullmatch(line)] == []


def test_each_dependency_has_its_decision():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[^\w.-]", line)[0] for line in project["dependencies"] + extras}
    pages = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/decisions").glob("0*.md"))
    assert sorted(name for name in names if f"`{name}`" not in pages) == []


def test_decisions_are_short_and_listed():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(folder.glob("0*.md"))
    assert [page.name for page in pages if f"({page.name})" not in index] == []
    assert [page.name for page in pages if len(page.read_text().splitlines()) > LINES_PER_DECISION] == []


# --- the checks, on planted mistakes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "place", "text"),
    [
        (imports_up, "book", "from .rating import Charge"),
        (imports_up, "book", "from farthing.rating import Charge"),
        (imports_up, "book", "import farthing.rating"),
        (imports_up, "book", "from . import rating"),
        (imports_up, "book", "from farthing import Charge"),
        (imports_up, "book", "def f():\n    from .rating import rate"),
        (imports_up, "money", "from .meters import Vector"),
        (imports_up, "gateway.proxy", "from ..web import app"),
        (imports_up, "importers.cur", "from .bedrock_log import read"),
        (imports_up, "importers.cur", "from . import bedrock_log"),
        (imports_up, "gateway.protocol", "from .proxy import serve"),
        (imports_up, "novelty", "import os"),
        (imports_outside_the_core, "rating", "import duckdb"),
        (imports_outside_the_core, "usage", "def f():\n    from msgspec import json"),
        (inexact, "cache", "BREAK_EVEN = 0.25"),
        (inexact, "levers", "share = float(text)"),
        (inexact, "rating", "mean = total / count"),
        (inexact, "money", "total /= 2"),
        (inexact, "book", "rate = usd / 1_000_000"),
        (reads_clock, "cache", "from datetime import datetime\nat = datetime.now(UTC)"),
        (reads_clock, "book", "day = date.today()"),
        (reads_clock, "usage", "import time\nat = time.time()"),
        (reads_clock, "levers", "from time import monotonic"),
        (oversized, "money", "x = 1"),
        (oversized, "money", '"""Long."""\n' + "\n" * LINES_PER_FILE),
        (oversized, "money", '"""Deep."""\ndef f():\n' + "    pass\n" * LINES_PER_FUNCTION),
        (unfinished, "money", "# TO" + "DO: later"),
        (unfinished, "money", "assert " + "True"),
        (unfinished, "money", "assert 'a message, where a test was meant'"),
    ],
)
def test_finds(check: Check, place: str, text: str):
    assert len(list(check(File.parse(place.split("."), text)))) == 1


@pytest.mark.parametrize(
    ("check", "place", "text"),
    [
        (imports_up, "rating", "import os\nfrom .book import Book\nfrom farthing.money import dollars"),
        (imports_up, "__init__", "from .cli import main"),
        (imports_up, "cli", "from farthing import __version__"),
        (imports_up, "gateway.proxy", "from ..usage import Usage\nfrom .protocol import step"),
        (imports_up, "importers.cur", "from ..usage import Usage\nfrom ._lines import lines"),
        (imports_up, "importers.cur", "from . import _lines"),
        (imports_up, "importers.__init__", "from . import cur\nfrom .focus import read"),
        (imports_outside_the_core, "rating", "import narwhals.stable.v2 as nw\nfrom decimal import Decimal"),
        (imports_outside_the_core, "ledger", "import deltalake"),
        (inexact, "rating", "each = total // count"),
        (inexact, "book", "path = folder / 'claude.toml'"),
        (inexact, "reports", "mean = 0.5 * total / count"),
        (reads_clock, "cache", "def f(now):\n    return now"),
        (reads_clock, "gateway", "at = datetime.now(UTC)"),
        (unfinished, "money", "assert total == 3, 'a message'"),
    ],
)
def test_leaves_alone(check: Check, place: str, text: str):
    assert list(check(File.parse(place.split("."), text))) == []
