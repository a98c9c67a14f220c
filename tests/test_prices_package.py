"""The package of prices alone: built as it will be, run without any library, and asked what farthing is asked."""

import json
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

import farthing
from farthing.book import default_book

ROOT = Path(__file__).parent.parent
CALLS: list[dict] = [  # the usage of each dialect, and ids of each form
    {"input": 412, "output": 650, "cache_read": 18_000, "cache_write_5m": 1_200, "cache_write_1h": 7},
    {"inputTokens": 101_000, "outputTokens": 12, "cacheReadInputTokens": 5},
    {"input_tokens": 9, "output_tokens": 8, "cache_creation": {"ephemeral_1h_input_tokens": 70}},
    {"input_tokens": 9, "output_tokens": 8, "cache_creation_input_tokens": 70},
]
DAYS = ["2025-11-30", "2026-03-01", "2026-10-06", "2026-11-22"]
ASK = """
import json, sys
from datetime import UTC, datetime
sys.path.insert(0, sys.argv[1])
from farthing_prices import price
for line in sys.stdin:
    model, day, usage, said = json.loads(line)
    charge = price(model, datetime.fromisoformat(day).replace(tzinfo=UTC), usage, **said)
    print(json.dumps([charge.cost, charge.unpriced, charge.assumed, charge.book]))
libraries = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
assert all(name.startswith(("farthing_prices", "__main__")) for name in libraries), libraries
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built out of a copy, so that the repository stays as it is; by way of the sdist, as `build` does."""
    pytest.importorskip("hatchling")
    tmp = tmp_path_factory.mktemp("package")
    copy = tmp / "packages" / "farthing-prices"
    ignore = shutil.ignore_patterns("farthing_prices", "dist", "__pycache__")
    shutil.copytree(ROOT / "packages" / "farthing-prices", copy, ignore=ignore)
    core = tmp / "farthing"
    shutil.copytree(ROOT / "farthing" / "prices", core / "prices")
    shutil.copy(ROOT / "LICENSE", tmp)
    for path in (ROOT / "farthing").glob("*.py"):
        shutil.copy(path, core)
    build(copy, "sdist", tmp)
    (source,) = tmp.glob("farthing_prices-*.tar.gz")
    shutil.unpack_archive(source, tmp / "alone", filter="data")
    build(tmp / "alone" / source.name.removesuffix(".tar.gz"), "wheel", tmp)
    (made,) = tmp.glob("farthing_prices-*.whl")
    return made


def build(folder: Path, target: str, into: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)


def questions() -> list[tuple[str, str, dict, dict]]:
    ids: list[tuple[str, dict[str, str]]] = [
        (id, {}) for model in default_book().models.values() for id in (model.id, *model.ids)
    ]
    ids += [(f"{prefix}.anthropic.claude-{name}", {})
            for prefix in ("global", "eu", "us-gov") for name in ("opus-5-5", "haiku-5-5", "sonnet-4-6")]  # fmt: skip
    ids += [
        ("anthropic.claude-opus-99", {}),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-5-sonnet-20240620-v1:0", {}),
        ("arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abc", {}),
        ("anthropic.claude-opus-5", {"mode": "batch"}),
        ("claude-opus-5", {"platform": "claude_aws", "inference_geo": "us"}),
        ("claude-opus-5", {"mode": "fast"}),
    ]  # fmt: skip
    return [(id, day, usage, said) for id, said in ids for day in DAYS for usage in CALLS]


def test_the_package_prices_as_farthing_does_with_the_standard_library_alone(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    asked = questions()
    lines = "\n".join(map(json.dumps, asked)) + "\n"
    # -I -S: no folder of libraries is looked at
    words = [sys.executable, "-I", "-S", "-c", ASK, str(tmp_path)]
    told = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    ours = []
    for model, day, usage, said in asked:
        charge = farthing.rate(model, datetime.fromisoformat(day).replace(tzinfo=UTC), usage, **said)
        ours.append([charge.cost, charge.unpriced, list(charge.assumed), charge.book])
    assert answers == ours
    assert sum(cost is not None for cost, *_ in answers) > 500
    assert sum(bool(reason) for _, reason, *_ in answers) > 20


def test_the_package_holds_prices_and_what_reads_them(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    families = {path.name for path in (ROOT / "farthing" / "prices").glob("*.toml")}
    assert {f"farthing_prices/prices/{name}" for name in families} <= names
    assert "farthing_prices/LICENSE" in names
    metadata = next(name for name in names if name.endswith("METADATA"))
    assert "Requires-Dist" not in zipfile.ZipFile(wheel).read(metadata).decode()
