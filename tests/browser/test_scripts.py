"""The browser's part as text: typed, formatted, small, without addresses; a lock that holds every package by hash."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.browser.conftest import ROOT, VENDOR

STATIC = ROOT / "farthing" / "web" / "static"
TOOLS = ROOT / "tools" / "web"
OURS = sorted(STATIC.glob("*.js"))
LINES_PER_FILE = 600
NAMES_OF_FORMATS = {"http://www.w3.org/2000/svg"}  # no address: nothing is asked of it


def run(*command: str) -> None:
    if not shutil.which("node") or not (TOOLS / "node_modules").is_dir():
        pytest.skip("no Node, or nothing installed: make web")
    done = subprocess.run(
        ["node", *command], cwd=TOOLS, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_hold():
    if not VENDOR.is_dir():
        pytest.skip("the charts are not built: make web")
    run("node_modules/typescript/bin/tsc", "-p", "tsconfig.json")


def test_scripts_are_formatted():
    run(
        "node_modules/prettier/bin/prettier.cjs",
        "--config",
        ".prettierrc.json",
        "--check",
        "charts.js",
        *map(str, OURS),
    )


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_a_script_says_what_it_is_for_and_is_checked(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_PER_FILE
    if file.name != "theme.js":  # ten lines that run before anything else
        assert lines[0] == "// @ts-check"
        lines = lines[1:]
    assert re.match(r"// [A-Z].+[.,:]?", lines[0])


def test_nothing_of_ours_names_a_host_or_brings_script_or_style_inline():
    for file in [*OURS, STATIC / "index.html", STATIC / "style.css"]:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= NAMES_OF_FORMATS, file.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|new Function", text), file.name
    shell = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", shell)


def test_every_module_is_loaded_at_once():
    """Without a hint a browser finds one module in another, a round trip each."""
    shell = (STATIC / "index.html").read_text(encoding="utf-8")
    hinted = set(re.findall(r'"/static/([\w/]+\.js)"', shell))
    imported = {
        name
        for file in OURS
        for name in re.findall(r'from "\./([\w/]+\.js)"', file.read_text(encoding="utf-8"))
    }
    assert imported <= hinted
    for name in hinted - {"vendor/echarts.js"}:
        assert (STATIC / name).exists()


def test_a_wheel_has_what_is_served(tmp_path):
    if not VENDOR.is_dir():
        pytest.skip("the charts are not built: make web")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("farthing/web/static/")}
    files = [file for file in STATIC.rglob("*") if file.is_file()]
    assert names == {str(file.relative_to(ROOT)) for file in files}
    assert "farthing/web/static/vendor/echarts.js" in names


def test_the_lock_holds_every_package_by_its_hash_and_names_no_host():
    lock = json.loads((TOOLS / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((TOOLS / "package.json").read_text(encoding="utf-8"))
    held = {name: package for name, package in lock["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in held.values())
    assert not any("resolved" in package for package in held.values())
    for name, version in (wanted["dependencies"] | wanted["devDependencies"]).items():
        assert held[f"node_modules/{name}"]["version"] == version
