"""What exists is documented, and what is documented works."""

import ast
import doctest
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from farthing import cells, cli
from farthing.config import Config
from farthing.levers import LEVERS
from farthing.reports import REPORTS
from tools import docs, figures

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("farthing/**/*.md"))
)


def test_the_reference_is_current():
    assert docs.reference() == docs.TARGET.read_text(encoding="utf-8"), "make docs writes it anew"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_are_current(name):
    drawn = (figures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == figures.FIGURES[name](), "make docs draws it anew"


def by_hand() -> str:
    """All pages that people wrote."""
    pages = (
        path for path in ROOT.glob("docs/**/*.md") if path != docs.TARGET and path.parent.name != "decisions"
    )
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *pages))


def test_nothing_is_without_a_word_by_hand():
    """The reference is made from the code; beside it a page says of each thing what it is for."""
    text = by_hand()
    lacking = [
        name
        for name in docs.commands()
        if " " not in name and not re.search(rf"farthing {name}\b|`{name}`", text)
    ]
    lacking += [name for name in LEVERS if not re.search(rf"\b{name}\b", text)]
    lacking += [name for name in keys_of(Config) if not re.search(rf"\b{name}\b", text)]
    lacking += [name for name in docs.written(r'"(farthing_[a-z_]+)"') - {"farthing_id", "farthing_model"}
                if name not in text]  # fmt: skip
    lacking += [name for name in docs.written(r"\bx-farthing-[a-z]+(?:-[a-z]+)*") if not said(name, text)]
    lacking += [
        name for name in docs.written(r"\bFARTHING_[A-Z]+(?:_[A-Z]+)*\b") - {"FARTHING_X"} if name not in text
    ]
    assert not lacking


def test_every_target_of_make_is_told():
    made = re.findall(
        r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    told = re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert set(made) == set(told) | {"help"}


def said(header: str, text: str) -> bool:
    """By its name, or among others that begin alike: `x-farthing-cost-usd`, `-endpoint`."""
    return header in text or f"`-{header.removeprefix('x-farthing-')}`" in text


def keys_of(table) -> set[str]:
    """Every key that farthing.toml may have."""
    found = set()
    for field in msgspec.structs.fields(table):
        inner, _ = docs._table_of(field.type)
        found |= {field.encode_name} | (keys_of(inner) if inner else set())
    return found


def test_the_reference_names_everything():
    text = docs.TARGET.read_text(encoding="utf-8")
    for name in (*REPORTS, *LEVERS, *cells.KEYS, *docs.formats()):
        assert f"`{name}`" in text
    for name in docs.commands():
        assert f"### farthing {name}\n" in text


@pytest.mark.parametrize("name", docs.commands())
def test_every_command_has_help(name):
    command = cli.app
    for word in name.split():
        command = command[word]
    assert (command.help or "").strip()


def test_the_readme_examples_are_true():
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried
    assert not failed


def test_the_readme_commands_exist():
    lines = re.findall(r"^farthing\b.*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line, comments=True)
        if len(words) > 1:
            assert words[1] in docs.commands(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_public_functions_have_docstrings():
    """Of the modules that users import; most short helpers elsewhere need none."""
    modules = ("rating", "book", "ledger", "usage", "meters", "money", "reports", "cells", "api", "profiles")
    for name in modules:
        path = ROOT / "farthing" / f"{name}.py"
        path = path if path.exists() else path.with_suffix("") / "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                short = (node.end_lineno or 0) - node.lineno <= 12
                assert short or ast.get_docstring(node), f"{name}.{node.name} says nothing"
