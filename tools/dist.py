"""What is shipped, and whether it works: `python -m tools.dist [FOLDER]`, by default dist/.

Wheel and sdist are built; again from the sdist in another folder, at another time: the bytes must be the same. Then the
wheel goes into an empty environment of each Python that is here, by the versions of the lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tools.sbom import ROOT, sbom

EPOCH = "1577836800"  # of files in archives: 2020-01-01, unless SOURCE_DATE_EPOCH says otherwise
UV = str(Path(sys.executable).with_name("uv"))
LOCK = ROOT / "requirements" / "dev.txt"
SERVING = ("aws", "gateway", "oidc", "postgres")  # what a container has
MUST_HAVE = ("farthing/py.typed", "farthing/web/static/vendor/echarts.js", "farthing/web/static/vendor/inter.woff2",
             "farthing/prices/", "farthing/emulator/rates.json")  # fmt: skip
MOST_S = 0.1  # of processor time, for `farthing --version`


def run(*command: object, folder: Path = ROOT) -> str:
    env = os.environ | {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH)}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def built(source: Path, out: Path) -> list[Path]:
    """Sdist and wheel of the tree."""
    run(sys.executable, "-m", "hatchling", "build", "-d", out, folder=source)
    return sorted(out.glob("farthing-*"))


def again(sdist: Path, folder: Path) -> list[Path]:
    """The same from the sdist alone: elsewhere, with other times, and for a user with another umask."""
    before = os.umask(0o077)
    try:
        with tarfile.open(sdist) as packed:
            packed.extractall(folder / "elsewhere", filter="data")
        (source,) = (folder / "elsewhere").iterdir()
        for path in source.rglob("*"):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        return built(source, folder / "again")
    finally:
        os.umask(before)


def check_same(first: list[Path], second: list[Path]) -> None:
    sums = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in some}
        for some in (first, second)
    ]
    if sums[0] != sums[1]:
        raise SystemExit(f"built twice, and not the same: {sums}")
    for name, said in sums[0].items():
        print(f"{said}  {name}")


def check_content(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    lacking = [wanted for wanted in MUST_HAVE if not any(name.startswith(wanted) for name in names)]
    strange = [
        name for name in names if not name.startswith(("farthing/", "farthing-")) or "__pycache__" in name
    ]
    if lacking or strange:
        raise SystemExit(f"{wheel.name}: lacks {lacking}, should not have {strange[:5]}")


def pythons() -> Iterator[tuple[str, str]]:
    """The newest patch of each version from 3.11 on that is on this machine: on the path, or with pyenv."""
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    newest: dict[int, tuple[int, str]] = {}
    for path in [*filter(None, named), *Path.home().glob(".pyenv/versions/3.*/bin/python")]:
        asked = [str(path), "-c", "import sys; print(*sys.version_info[1:3])"]
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False
        )  # a manager's shim may not start
        minor, patch = map(int, done.stdout.split() or (0, 0))
        if minor >= 11:
            newest[minor] = max(newest.get(minor, (-1, "")), (patch, str(path)))
    for minor, (_, python) in sorted(newest.items()):
        yield f"3.{minor}", python


def installed(wheel: Path, python: str, folder: Path, extra: str = "") -> Path:
    """An empty environment with the wheel, and what it asks for by the lock's versions; its `bin`."""
    run(UV, "venv", "--quiet", "--python", python, folder)
    named = f"{wheel}[{extra}]" if extra else wheel
    run(UV, "pip", "install", "--quiet", "--python", folder / "bin/python", "-c", LOCK, named)
    return folder / "bin"


def check_works(bin_: Path, version: str) -> float:
    """It imports, prices a call, says its version; the processor time of that."""
    run(bin_ / "python", "-c", "import farthing; farthing.Ledger; farthing.rate", folder=Path("/"))
    run(
        bin_ / "farthing",
        "rate",
        "eu.anthropic.claude-sonnet-4-6",
        "--input",
        "1",
        "--output",
        "1",
        folder=Path("/"),
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = run(bin_ / "farthing", "--version", folder=Path("/"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if said.strip() != version or took > MOST_S:
        raise SystemExit(
            f"farthing --version: {said!r} after {took:.3f} s of processor time, where {MOST_S} is the most"
        )
    return took


# A module that each extra brings, and the command that is nothing without it.
EXTRAS = {
    "aws": "farthing.importers._s3",
    "gateway": "farthing.web._serve",
    "mcp": "farthing.cli._mcp",
    "spark": "pyspark, pandas, pyarrow",
}


def main(out: Path) -> None:
    for path in out.glob("farthing-*") if out.exists() else ():
        path.unlink()
    first = built(ROOT, out)
    wheel, sdist = (next(path for path in first if path.suffix == end) for end in (".whl", ".gz"))
    check_content(wheel)
    version = wheel.name.split("-")[1]
    (out / "sbom.json").write_text(
        json.dumps(sbom(ROOT / "requirements/run.txt"), indent=1, sort_keys=True) + "\n"
    )
    chosen = [word for extra in SERVING for word in ("--extra", extra)]
    run(UV, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--no-header", "--no-annotate", "--no-emit-index-url", "pyproject.toml", *chosen, "-c", LOCK,
        "-o", out / "serve.txt")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="farthing-dist-") as temporary:
        folder = Path(temporary)
        check_same(first, again(sdist, folder))
        newest = ""
        for name, python in pythons():
            newest = python
            took = check_works(installed(wheel, python, folder / name), version)
            print(f"Python {name}: installs, imports, prices; --version in {took * 1000:.0f} ms")
        for extra, module in EXTRAS.items():
            run(
                installed(wheel, newest, folder / extra, extra) / "python",
                "-c",
                f"import {module}",
                folder=Path("/"),
            )
            print(f"farthing[{extra}] alone: works")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "dist")
