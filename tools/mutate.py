"""Mutation tests of the core: one small change at a time, and whether the fast tests notice it.

python -m tools.mutate [MODULE ...] [--every N] [--jobs N] prints the changes that survive. tools/survivors.toml has
those that are explained; the exit code is 1 where another survives, or where an explanation is of no survivor.
Nothing is written: a forked process loads the changed module from memory and runs the module's tests until one fails.
"""

import argparse
import ast
import collections
import contextlib
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SURVIVORS = ROOT / "tools/survivors.toml"
TESTS = {
    "farthing/meters.py": "farthing/meters.py tests/test_book.py tests/test_laws.py",
    "farthing/usage.py": "farthing/usage.py tests/test_usage.py tests/test_book_ids.py tests/test_usage_edges.py",
    "farthing/book.py": "farthing/book.py tests/test_book.py tests/test_book_ids.py tests/test_book_edges.py",
    "farthing/rating.py": "farthing/rating.py tests/test_rating_edges.py tests/test_laws.py",
    "farthing/gateway/protocol.py": "farthing/gateway/protocol.py tests/test_protocol.py",
    "farthing/cache/_machine.py": "farthing/cache/_machine.py tests/test_cache_machine.py tests/test_cache_brute.py",
    "farthing/cache/_engine.py": "tests/test_cache_machine.py tests/test_cache_brute.py",
    "farthing/cache/_player.py": "tests/test_cache_player.py tests/test_cache_player_choices.py"
    " tests/test_cache_policies.py::test_fixed_policies_mark_what_they_say"
    " tests/test_cache_policies.py::test_a_ping_reads_what_is_cached_and_keeps_it_alive",
}
WITHIN = 5, 20  # so many times the processor seconds of the module's tests, and so many more
MEMORY = 3 * 2**30  # a loop that never ends may also never stop to append

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Pow: ast.Mult,
}  # fmt: skip
MEMBERS = {"State": "HELD", "Event": "RENEWED", "Effect": "RENEW"}  # of the protocol's enumerations


class Mutant(NamedTuple):
    """One change: where, and how its lines read with it. The line's number is no part of what names it."""

    number: int
    line: int
    place: str  # the function or class it is in
    becomes: str

    @property
    def name(self) -> tuple[str, str]:
        return self.place, self.becomes


def alternatives(node: ast.AST) -> Iterator[ast.expr]:
    """What could stand in the place of an expression; the parts of it are for their own turn."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            for i, op in enumerate(ops):
                yield ast.Compare(left, [*ops[:i], COMPARED[type(op)](), *ops[i + 1 :]], others)
        case ast.BinOp(left=ast.JoinedStr()) | ast.BinOp(right=ast.JoinedStr()):
            pass  # texts cannot be subtracted: who runs it notices
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COUNTED:
            yield ast.BinOp(left, COUNTED[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield copy.copy(operand)
        case ast.Attribute(value=ast.Name(id=owner), attr=attr, ctx=ast.Load()):
            if MEMBERS.get(owner, attr) != attr:
                yield ast.Attribute(node.value, MEMBERS[owner], node.ctx)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)


class Changes(ast.NodeTransformer):
    """Finds each place that can be changed and what it would be, and makes the change of this number."""

    def __init__(self, number: int = -1) -> None:
        self.number = number
        self.found: list[tuple[ast.expr, ast.expr, str]] = []
        self.inside: list[str] = []

    def visit(self, node: ast.AST) -> Any:
        for new in alternatives(node):
            assert isinstance(node, ast.expr)
            self.found.append((node, ast.copy_location(new, node), ".".join(self.inside)))
            if len(self.found) - 1 == self.number:
                return new
        return super().visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None  # an annotation is no code
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value:
            node.value = self.visit(node.value)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        """`zip(strict=)` is an assert, and slots of a dataclass are its size: neither is behaviour."""
        return node if node.arg in ("strict", "slots") else self.generic_visit(node)


def changed(source: bytes, number: int) -> ast.Module:
    tree = ast.parse(source)
    return ast.fix_missing_locations(Changes(number).visit(tree))


def mutants(source: bytes) -> list[Mutant]:
    lines = source.splitlines()
    changes = Changes()
    changes.visit(ast.parse(source))
    found = []
    for number, (was, new, place) in enumerate(changes.found):
        before = lines[was.lineno - 1][: was.col_offset].decode().lstrip()
        after = lines[(was.end_lineno or was.lineno) - 1][was.end_col_offset :].decode()
        becomes = f"{before}{ast.unparse(new)}{after}".partition("  #")[0]
        found.append(Mutant(number, was.lineno, place, becomes))
    return found


# --- one change, in a process of its own -----------------------------------------------------------------------------


class Loader(importlib.machinery.SourceFileLoader):
    """Of one module, whose code is given."""

    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, path: Path, code: CodeType) -> None:
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.loader = Loader(self.name, str(path))
        self.loader.code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, str(self.loader.path), loader=self.loader)


class Quickly:
    """A plug-in of pytest: of each test function one case first, and of a law only whether it fails."""

    def __init__(self, took: dict[str, float]) -> None:
        self.took: dict[str, float] = took
        self.began = 0.0

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile(
            "mutate", settings.get_profile("farthing"), phases=phases, report_multiple_bugs=False
        )
        settings.load_profile("mutate")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.took.get(item.nodeid, 0.0))
        cases: collections.Counter[str] = collections.Counter()
        turns = {}
        for item in items:
            function = item.nodeid.partition("[")[0]
            cases[function] += 1
            turns[item.nodeid] = cases[function]
        items.sort(key=lambda item: turns[item.nodeid])

    def pytest_runtest_logstart(self) -> None:
        self.began = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.took[nodeid] = time.process_time() - self.began


class Tested(NamedTuple):
    """A module as it was when it was read, since others may edit it meanwhile; and its tests."""

    path: Path
    source: bytes
    tests: list[str]


def run(module: Tested, number: int, took: dict[str, float]) -> int:
    """The exit code of the tests with the change; -1 changes nothing."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    import pytest

    code = compile(changed(module.source, number), str(module.path), "exec")
    sys.meta_path.insert(0, Finder(module.path, code))
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--assert=plain", "-o", "addopts="]
    options += ["--import-mode=importlib", "--doctest-modules"]
    return int(pytest.main([*options, *module.tests], plugins=[Quickly(took)]))


class Known(NamedTuple):
    """Of the tests of a module as it is: what they import of others, how long each takes, all of them."""

    passed: bool
    imports: list[str]
    took: dict[str, float]
    seconds: float


def known(module: Tested) -> Known:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        took: dict[str, float] = {}
        failed = run(module, -1, took)
        ours = ("farthing", "tests", "tools", "__main__")
        others = [name for name in sys.modules if name.partition(".")[0] not in ours]
        with os.fdopen(write, "w") as told:
            json.dump([not failed, [*filter(importable, others)], took, time.process_time()], told)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        said = told.read()
    os.waitpid(child, 0)
    return Known(*json.loads(said)) if said else Known(False, [], {}, 0)


def importable(name: str) -> bool:
    """Whether a process that has not loaded it yet could: those of tests are loaded by path."""
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        return importlib.util.find_spec(name) is not None
    return False


def begin(module: Tested, number: int, base: Known) -> int:
    """A process that tries a change; its exit code is 0 if no test fails."""
    child = os.fork()
    if not child:
        seconds = int(base.seconds * WITHIN[0]) + WITHIN[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os._exit(run(module, number, dict(base.took)))
    return child


def outcomes(module: Tested, tried: list[Mutant], base: Known, jobs: int) -> Iterator[tuple[Mutant, int]]:
    """Each change with what its process came to, in the order of their ends."""
    running: dict[int, Mutant] = {}
    todo = tried[::-1]
    while todo or running:
        while todo and len(running) < jobs:
            mutant = todo.pop()
            running[begin(module, mutant.number, base)] = mutant
        child, status = os.wait()
        yield running.pop(child), status


# --- all of them -----------------------------------------------------------------------------------------------------


def explanations() -> dict[str, dict[tuple[str, str], str]]:
    """By module: why changes that survive do no harm."""
    entries = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["survivor"]
    found: dict[str, dict[tuple[str, str], str]] = {}
    for entry in entries:
        found.setdefault(entry["module"], {})[entry["in"], entry["becomes"]] = entry["why"]
    return found


def try_all(module: str, every: int, lines: range, jobs: int, explained: dict[tuple[str, str], str]) -> bool:
    """Whether each change is noticed or explained, and each explanation is of a change that survives."""
    tested = Tested(ROOT / module, (ROOT / module).read_bytes(), TESTS[module].split())
    base = known(tested)
    if not base.passed:
        print(f"{module}: its tests fail as it is")
        return False
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in base.imports:  # once, and not in every process; farthing itself is not
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    found = mutants(tested.source)
    tried = [mutant for mutant in found[::every] if mutant.line in lines]
    endless, lived = 0, []
    for mutant, status in outcomes(tested, tried, base, jobs):
        endless += os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        if status == 0:
            lived.append(mutant)
            if mutant.name not in explained:
                print(
                    f"{module}:{mutant.line} in {mutant.place or 'the module'}: {mutant.becomes}", flush=True
                )
    stale = explained.keys() - {mutant.name for mutant in lived}
    if len(tried) < len(found):  # those that were not tried are not stale
        stale -= {mutant.name for mutant in found}
    for place, becomes in sorted(stale):
        print(f"{module}: explained, but noticed or gone: in {place or 'the module'}: {becomes}")
    left = sum(mutant.name not in explained for mutant in lived)
    print(
        f"{module}: {len(tried)} of {len(found)} changes tried, {len(tried) - len(lived)} noticed"
        f" ({endless} by never ending), {len(lived) - left} explained, {left} not",
        flush=True,
    )
    return not left and not stale


def main(argv: list[str]) -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("modules", nargs="*", default=list(TESTS))
    asked.add_argument("--every", type=int, default=1, help="only every so manyth change")
    asked.add_argument(
        "--lines", type=int, nargs=2, default=(0, 10_000), help="only from one line to another"
    )
    asked.add_argument("--jobs", type=int, default=os.cpu_count(), help="so many at once")
    said = asked.parse_args(argv)
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # what it kept compiled is of the module as it is on disk
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    explained = explanations()
    lines = range(said.lines[0], said.lines[1] + 1)
    done = [try_all(name, said.every, lines, said.jobs, explained.get(name, {})) for name in said.modules]
    return int(not all(done))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
