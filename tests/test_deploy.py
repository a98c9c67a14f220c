"""What lies in deploy/ fits the commands that there are, runs as nobody, and says no secret; what ships is named."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with cfn-lint

from farthing import cli, config
from tools.sbom import browser, components, sbom

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted(path for path in DEPLOY.glob("systemd/*.service"))


def pods() -> Iterator[dict[str, Any]]:
    for path in sorted(DEPLOY.glob("kubernetes/*.yaml")):
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if one["kind"] == "StatefulSet":
                yield one["spec"]["template"]["spec"]
            elif one["kind"] == "CronJob":
                yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def unit(path: Path) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        name, is_set, value = line.partition("=")
        if is_set and not line.startswith("#"):
            said.setdefault(name, []).append(value)
    return said


def commands() -> Iterator[list[str]]:
    """Each command line of farthing in deploy/, without its first word."""
    for pod in pods():
        yield pod["containers"][0]["args"]
    for path in UNITS:
        yield shlex.split(unit(path)["ExecStart"][0])[1:]
    task = json.loads((DEPLOY / "ecs-task.json").read_text(encoding="utf-8"))
    script = task["containerDefinitions"][0]["command"][0]
    yield shlex.split(script.partition("exec farthing ")[2])


@pytest.mark.parametrize("words", list(commands()), ids=lambda words: words[0])
def test_commands_are_those_of_this_version(words):
    command, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == words[0]
    assert bound.arguments


def test_there_are_commands_of_every_kind():
    assert [words[0] for words in commands()].count("gateway") == 3
    assert [words[0] for words in commands()].count("sync") == 2


def test_settings_load(monkeypatch):
    assert config.load(DEPLOY / "kubernetes/farthing.toml").budgets[0].name == "all"


def test_pods_run_as_nobody_and_write_where_they_must():
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["limits"]["memory"]


def test_calls_have_time_to_end_wherever_a_server_is_stopped():
    """More than --drain-s, which is 120 unless it is said."""
    (gateway,) = (pod for pod in pods() if pod["containers"][0]["args"][0] == "gateway")
    assert gateway["terminationGracePeriodSeconds"] > 120
    assert int(unit(DEPLOY / "systemd/farthing-gateway.service")["TimeoutStopSec"][0]) > 120
    task = json.loads((DEPLOY / "ecs-task.json").read_text())["containerDefinitions"][0]
    drain = int(task["command"][0].partition("--drain-s ")[2])
    assert drain < task["stopTimeout"] <= 120  # ECS gives no more


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_shut_in(path):
    said = unit(path)
    for name in (
        "DynamicUser",
        "NoNewPrivileges",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectHome",
        "RestrictNamespaces",
    ):
        assert said[name] == ["yes"]
    assert said["ProtectSystem"] == ["strict"]
    assert said["CapabilityBoundingSet"] == [""]
    assert said["UMask"] == ["0077"]


def test_the_container_is_of_hashes_and_runs_as_nobody():
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert all(
        " --require-hashes" in line or " --no-index" in line
        for line in text.splitlines()
        if "pip install" in line
    )
    assert not re.search(r":latest|^ADD |curl|wget", text, re.MULTILINE)


def test_nothing_secret_is_written_there():
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert not re.search(r"ftg_|AKIA|BEGIN .*PRIVATE|password", path.read_text(encoding="utf-8")), (
                path
            )


# --- what it is made of -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "dev"])
def test_the_bill_of_materials_has_all_that_is_locked(name):
    lock = ROOT / "requirements" / f"{name}.txt"
    made = sbom(lock)
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    assert {part["name"] for part in components(lock)} == pinned
    assert {part["name"] for part in browser()} == {
        "echarts",
        "zrender",
        "tslib",
        "@fontsource-variable/inter",
    }
    assert len(made["components"]) == len({part["bom-ref"] for part in made["components"]}) >= len(pinned) + 4
    assert all(part["properties"] for part in components(lock))
    assert json.dumps(made) == json.dumps(sbom(lock))
    assert "://" not in json.dumps(made)


def test_a_lock_with_a_line_that_is_no_pin_makes_no_bill(tmp_path):
    (tmp_path / "bad.txt").write_text("good==1 \\\n    --hash=sha256:" + "0" * 64 + "\nbad>=1\n")
    with pytest.raises(ValueError, match="bad>=1"):
        sbom(tmp_path / "bad.txt")


def test_dependencies_of_the_project_are_in_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    assert {name.replace(".", "-") for name in named} <= {
        part["name"].replace(".", "-") for part in components(ROOT / "requirements/run.txt")
    }
