"""Completion as bash does it, and the manual page as man reads it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from farthing import cli
from farthing.book import default_book
from farthing.cells import KEYS, TIME_KEYS
from farthing.cli import _manual, shells
from tools.docs import commands


@pytest.fixture(scope="module")
def scripts():
    """By shell; bash and fish, as zsh's is made of the same parts."""
    return {
        shell: cli.app.generate_completion(prog_name="farthing", shell=shell) for shell in ("bash", "fish")
    }


@pytest.fixture(scope="module")
def complete(scripts, tmp_path_factory):
    """complete(*lines): for each line of words, the last as far as typed, what bash offers."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    folder = tmp_path_factory.mktemp("bash")
    (folder / "completion.bash").write_text(scripts["bash"])
    program = folder / "farthing"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m farthing "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}

    def asked(*lines: str) -> list[list[str]]:
        text = [f"source {folder}/completion.bash"]
        for line in lines:
            words = line.split(" ")
            quoted = " ".join(f"'{word}'" for word in words)
            text += [f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=()", "_farthing 2>/dev/null",
                     'echo "${COMPREPLY[@]}"']  # fmt: skip
        run = subprocess.run(
            ["bash", "-c", "\n".join(text)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        return [line.split() for line in run.stdout.splitlines()]

    return asked


def test_bash_completes_commands_flags_and_values(complete):
    found = complete(
        "farthing stat",
        "farthing prices hi",
        "farthing bill --si",
        "farthing rate --platform ",
        "farthing by mo",
        "farthing by model,end",
        "farthing bill --where acc",
        "farthing prices show claude-opus-4-",
    )
    assert found[:3] == [["statement", "statusline"], ["history"], ["--since"]]
    assert {"bedrock", "anthropic", "claude_aws"} <= set(found[3])
    assert set(found[4]) == {key for key in (*KEYS, *TIME_KEYS) if key.startswith("mo")} >= {"model", "month"}
    assert found[5] == [r"model\,endpoint"]  # as bash quotes it
    assert found[6] == ["account="]
    assert set(found[7]) == {name for name in default_book().models if name.startswith("claude-opus-4-")}
    assert "claude-opus-4-8" in found[7]


def test_zsh_is_told_to_complete_and_not_only_how():
    """It runs a file `_farthing` the first time that it completes: what the file defines has to be called."""
    script = App(name="farthing").generate_completion(prog_name="farthing", shell="zsh") + shells.ZSH_END
    (defined,) = re.findall(r"^(\w+)\(\) \{", script, re.MULTILINE)
    assert f'if [[ $funcstack[1] == _farthing ]]; then\n  {defined} "$@"\nfi\n' in script
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True, timeout=60)


def test_every_command_is_in_the_scripts(scripts):
    for shell, script in scripts.items():
        words = set(re.findall(r"[\w-]+", script))
        assert {word for name in commands() for word in name.split()} <= words, shell


@pytest.fixture(scope="module")
def page() -> str:
    return _manual.page()


def test_the_manual_has_every_command_and_option(page):
    for name in commands():
        assert f".SS farthing {name}\n" in page
    for option in ("since", "json", "bedrock", "appearance-of-none"):
        assert (f"\\-\\-{option}" in page) is (option != "appearance-of-none")
    assert not re.search(
        r"^\.(?!TH|SH|SS|TP|PP|B|BR|RI|I\b)", page, re.MULTILINE
    )  # no text taken for a request


def test_man_reads_the_page_without_a_word(page, tmp_path: Path):
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("no man with groff")
    file = tmp_path / "farthing.1"
    file.write_text(page, encoding="utf-8")
    words = ["groff", "-man", "-ww", "-Tutf8", "-Kutf8", "-rLL=100n", "-z", str(file)]
    lint = subprocess.run(words, capture_output=True, text=True, check=True)
    assert lint.stderr == ""
    wide = os.environ | {"MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
    said = subprocess.run(["man", "-l", file], capture_output=True, text=True, check=True, env=wide)
    text = re.sub(r".\x08|\x1b\[[\d;]*m", "", said.stdout)
    assert "farthing statusline" in text
    assert "EXIT STATUS" in text
