"""Mutation tests of the core: one small change at a time, and whether the fast tests notice it.

python -m tools.mutate [MODULE ...] [--every N] prints the changes that survive. Nothing is written: a forked process
loads the changed module from memory and runs the module's tests until one fails.
"""

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "farthing/meters.py": "farthing/meters.py tests/test_laws.py tests/test_book.py",
    "farthing/gateway/protocol.py": "farthing/gateway/protocol.py tests/test_protocol.py",
    "farthing/cache/_machine.py": "farthing/cache/_machine.py tests/test_cache_machine.py tests/test_cache_brute.py",
    "farthing/rating.py": "farthing/rating.py tests/test_book.py tests/test_laws.py",
    "farthing/book.py": "farthing/book.py tests/test_book.py tests/test_book_ids.py tests/test_prices_book.py",
}
SECONDS = 120  # for the tests of one change; one that never ends is noticed, too

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Pow: ast.Mult,
}  # fmt: skip

MEMBERS = {"State": "HELD", "Event": "RENEWED", "Effect": "RENEW"}  # of the protocol's enumerations


class Change(ast.NodeTransformer):
    """Makes the change of this number; `said` says what it was, "" if there are not so many."""

    def __init__(self, number: int) -> None:
        self.left, self.said = number, ""

    def _hit(self, node: ast.AST, said: str) -> bool:
        self.left -= 1
        if self.left == -1:
            self.said = f"{getattr(node, 'lineno', 0)}: {said}"
        return self.left == -1

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value:
            node.value = self.visit(node.value)
        return node  # an annotation is no code

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.defaults = [self.visit(each) for each in node.defaults]
        node.kw_defaults = [each and self.visit(each) for each in node.kw_defaults]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        for place, was in enumerate(node.ops):
            new = COMPARED[type(was)]
            if self._hit(node, f"{type(was).__name__} to {new.__name__}"):
                node.ops[place] = new()
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        texts = any(isinstance(each, ast.JoinedStr) for each in (node.left, node.right))
        new = None if texts else COUNTED.get(type(node.op))
        if new and self._hit(node, f"{type(node.op).__name__} to {new.__name__}"):
            node.op = new()
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        new = ast.Or if isinstance(node.op, ast.And) else ast.And
        if self._hit(node, f"{type(node.op).__name__} to {new.__name__}"):
            node.op = new()
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not) and self._hit(node, "a not less"):
            return self.visit(node.operand)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
            new = MEMBERS.get(node.value.id, "")
            if new not in ("", node.attr) and self._hit(node, f"{node.value.id}.{node.attr} to {new}"):
                node.attr = new
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            if self._hit(node, f"{node.value} to {not node.value}"):
                return ast.copy_location(ast.Constant(not node.value), node)
        elif isinstance(node.value, int) and self._hit(node, f"{node.value} to {node.value + 1}"):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node


def changed(path: Path, number: int) -> tuple[ast.Module, str]:
    change = Change(number)
    tree = change.visit(ast.parse(path.read_text(encoding="utf-8")))
    return ast.fix_missing_locations(tree), change.said


def changes(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    while said := changed(path, number)[1]:
        yield number, said
        number += 1


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


def survives(path: Path, number: int, tests: list[str]) -> bool:
    """Whether no test fails with the change; -1 changes nothing."""
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        code = compile(changed(path, number)[0], str(path), "exec")
        sys.meta_path.insert(0, Finder(path, code))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain", "-o", "addopts="]
        options += ["--import-mode=importlib", "--doctest-modules", "-p", "no:farthing"]
        os._exit(int(pytest.main([*options, *tests])))
    return os.waitpid(child, 0)[1] == 0


def main(argv: list[str]) -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("modules", nargs="*", default=list(TESTS))
    asked.add_argument("--every", type=int, default=1, help="only every so manyth change")
    said = asked.parse_args(argv)
    import duckdb  # noqa: F401 - loaded once, and not in every process; farthing itself is not

    lived = 0
    for module in said.modules:
        path, tests = ROOT / module, TESTS[module].split()
        if not survives(path, -1, tests):
            print(f"{module}: its tests fail as it is")
            return 2
        found = list(changes(path))[:: said.every]
        left = 0
        for number, what in found:
            if survives(path, number, tests):
                print(f"{module}:{what}", flush=True)
                left += 1
        print(f"{module}: {len(found)} changes, {len(found) - left} noticed, {left} not", flush=True)
        lived += left
    return int(lived > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
