"""What farthing is made of, as a CycloneDX bill of materials, out of the locks: `python -m tools.sbom > sbom.json`.

The same bytes for the same locks: no time, no random number, and no address but package URLs.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^([a-z0-9.-]+)==([^ ;\\]+)(?: ; ([^\\]+?))? *\\?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: Path) -> Iterator[dict[str, Any]]:
    """The packages of a lock, with the hashes of the files that may be installed, and where each is needed."""
    for entry in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip()):
        found = _PIN.match(entry.partition("\n")[0])
        if found is None:
            raise ValueError(f"{lock.name}: no pinned package: {entry[:60]!r}; make lock")
        name, version, marker = found.groups()
        files = sorted(_HASH.findall(entry))
        properties = [{"name": "farthing:file:sha256", "value": value} for value in files]
        if marker:
            properties.append({"name": "farthing:marker", "value": marker})
        url = f"pkg:pypi/{name}@{version}"
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": url,
            "bom-ref": url,
            "properties": properties,
        }


def browser() -> Iterator[dict[str, Any]]:
    """What is in the wheel of npm's: all but what only builds it."""
    lock = json.loads((ROOT / "tools/web/package-lock.json").read_text(encoding="utf-8"))
    for place, package in sorted(lock["packages"].items()):
        if not place or package.get("dev") or package.get("optional") or place == "node_modules/esbuild":
            continue
        name, version = place.removeprefix("node_modules/"), package["version"]
        url = f"pkg:npm/{name.replace('@', '%40')}@{version}"
        made = {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url}
        license_ = package.get("license")
        yield made | ({"licenses": [{"expression": license_}]} if license_ else {})


def sbom(lock: Path) -> dict[str, Any]:
    """The whole document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = f"pkg:pypi/{project['name']}@{project['version']}"
    parts = [*components(lock), *browser()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "name": project["name"], "version": project["version"], "purl": url,
                "bom-ref": url, "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": url, "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }  # fmt: skip


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements" / "run.txt"
    print(json.dumps(sbom(chosen), indent=1, sort_keys=True))
