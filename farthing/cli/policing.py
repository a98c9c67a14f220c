"""The policy file: shown, checked, adopted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._policies import Config, Json, Policy, policy_path, told
from farthing.cli._shared import write_json

if TYPE_CHECKING:
    from farthing.policy import Entry

group = App(name="policy", help="The file that says which levers gateway and hooks apply before a call.")
app.command(group)


@group.command
def show(*, policy: Policy = None, config: Config = None, json: Json = False) -> int:
    """Every entry and what it does now; then the versions of the file."""
    from farthing.policy import load, versions

    path, now = policy_path(policy, config), datetime.now(UTC)
    said, kept = load(path), versions(path)
    if json:
        entries = [{**_entry_json(entry), "now": _now(entry, now)} for entry in said.entries]
        history = [
            {
                "version": it.number,
                "at": it.policy.at,
                "by": it.policy.by,
                "what": it.policy.what,
                "fault": it.fault,
            }
            for it in kept
        ]
        write_json({"path": str(path), "version": said.version, "entries": entries, "history": history})
        return 0
    if not said.entries:
        print(f"{path}: no policy: `farthing savings --apply` writes one, or a person")
    for entry in said.entries:
        print(f"{entry.name}: {_does(entry)}; {_now(entry, now)}")
    for version in kept[-10:]:
        what = version.fault or version.policy.what or "written by hand"
        print(f"  version {version.number}  {version.policy.at:20}  {version.policy.by:12}  {what}")
    return 0


@group.command
def check(path: Annotated[Path | None, Parameter(help="The file; else the one that is in use.")] = None, /, *,
          config: Config = None, json: Json = False) -> int:  # fmt: skip
    """Whether gateway and hooks can read it. Exit 2 and one line with the mend if not."""
    from farthing.policy import load

    file = policy_path(path, config)
    if not file.exists():
        raise BadInput(f"{file}: no such file: `farthing savings --apply` writes one")
    said, now = load(file), datetime.now(UTC)
    live = [entry.name for entry in said.entries if _now(entry, now).startswith(("in force", "in shadow"))]
    if json:
        write_json({"path": str(file), "entries": len(said.entries), "in_force": live, "digest": said.digest})
    else:
        print(
            f"{file}: {len(said.entries)} entries, {len(live)} of them in force or in shadow; {said.digest}"
        )
    return 0


@group.command
def adopt(
    proposal: Annotated[Path, Parameter(help="What `farthing savings --propose` wrote, edited or not.")],
    /, *, approver: Annotated[str, Parameter(help="Who answers for it.")],
    expires: Annotated[str, Parameter(help="The day from which it no longer holds, 2027-02-01.")],
    policy: Policy = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Put a proposal that you have looked at into force."""
    from farthing.policy import adopt as adopted

    if not approver.strip():
        raise BadInput("--approver is empty: name who answers for it")
    path = policy_path(policy, config)
    done = adopted(proposal, path, approver=approver, expires=expires, now=datetime.now(UTC))
    return told(done, json=json)


def _does(entry: Entry) -> str:
    """What an entry does, in a few words."""
    if entry.markers:
        return "cache points " + ", ".join(f"{marker.at} {marker.ttl}" for marker in entry.markers)
    says = {
        "model": f"calls {entry.use}",
        "batch": f"a batch within {entry.deadline}",
        "cache": f"cache points by {entry.cache_policy}",
        "ttl": f"cache points live {entry.ttl}",
        "endpoint": f"the {entry.endpoint} endpoint",
    }
    return says[entry.lever]


def _now(entry: Entry, now: datetime) -> str:
    from farthing.policy import instant

    if entry.state == "off":
        return "off"
    if not entry.approver:
        return "nobody has approved it"
    if now < instant(entry.approved_at):
        return f"approved at {entry.approved_at}, which is still to come"
    if now >= instant(entry.expires):
        return f"expired {entry.expires}"
    share = f" for {entry.share} % of keys" if entry.share < 100 else ""
    state = "in shadow" if entry.state == "shadow" else "in force"
    return f"{state}{share} until {entry.expires}, by {entry.approver}"


def _entry_json(entry: Entry) -> dict[str, Any]:
    import msgspec

    said: dict[str, Any] = msgspec.to_builtins(entry)
    if not entry.shadow:
        del said["shadow"]
    return {"name": entry.name, **{key: value for key, value in said.items() if value not in ("", ())}}
