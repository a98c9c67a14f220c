"""What commands over the policy file share: where it is, what was written, and putting a plan's advice into it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput
from farthing.cli._shared import load_config, write_json

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.policy import Advised, Written

Policy = Annotated[
    Path | None, Parameter(help="The policy file; else farthing-policy.toml beside farthing.toml.")
]
Config = Annotated[Path | None, Parameter(help="farthing.toml.")]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")]
By = Annotated[str, Parameter(help="Who does it; kept as given.")]


_APPLY = Group("Policy", sort_key=3)
_DAYS = 90  # after which an approval ends, where no other day is given


def policy_path(policy: Path | None, config: Path | None) -> Path:
    """The file named, or the one beside farthing.toml."""
    from farthing.policy import default_path

    return policy or default_path(load_config(config))


def told(done: Written, *, json: bool) -> int:
    """What a writing did. Exit code 1 if there was nothing to be done."""
    if json:
        write_json(
            {
                "path": done.path,
                "version": done.version,
                "written": list(done.written),
                "conflicts": list(done.conflicts),
            }
        )
        return int(not done.written)
    for line in done.conflicts:
        print(f"farthing: {line}", file=sys.stderr)
    if done.written:
        print(f"{done.path}: version {done.version}: {', '.join(done.written)}")
    else:
        print(f"{done.path}: nothing to change")
    return int(not done.written)


@Parameter(name="*")
@dataclass
class Applying:
    """Options by which the advice of a plan is put into force."""

    apply: Annotated[
        bool,
        Parameter(
            negative="", group=_APPLY, help="Write what counts into the policy file: gateway and hooks do it."
        ),
    ] = False
    propose: Annotated[
        bool,
        Parameter(negative="", group=_APPLY, help="Write it into a file of its own, to be looked at first."),
    ] = False
    approver: Annotated[str, Parameter(group=_APPLY, help="Who answers for it; --apply wants one.")] = ""
    expires: Annotated[
        str,
        Parameter(
            group=_APPLY, help=f"The day from which it no longer holds; {_DAYS} days from now if left out."
        ),
    ] = ""
    share: Annotated[int, Parameter(group=_APPLY, help="For this percent of client keys only.")] = 100
    shadow: Annotated[
        bool, Parameter(negative="", group=_APPLY, help="Decide and record; change nothing.")
    ] = False
    reason: Annotated[str, Parameter(group=_APPLY, help="Why; kept as given.")] = ""
    policy: Annotated[Path | None, Parameter(group=_APPLY, help="The policy file.")] = None

    def check(self) -> None:
        """BadInput where the options make no sense, before a plan is made."""
        if self.apply and self.propose:
            raise BadInput("--apply and --propose: one or the other")
        if self.apply and not self.approver.strip():
            raise BadInput("--apply wants --approver NAME: who answers for it")
        if not 0 <= self.share <= 100:
            raise BadInput(f"--share {self.share}: write percent of the keys, 0 to 100")


def put_into_force(advices: Sequence[Advised], how: Applying, question: Question) -> None:
    """What --apply and --propose ask for; nothing where neither is given. What it did is told on stderr."""
    from farthing.policy import default_path, write

    if not (how.apply or how.propose):
        return
    now = datetime.now(UTC)
    path = how.policy or default_path(question.config)
    if how.propose:
        path = path.with_name(f"{path.stem}.proposed.toml")
    counted = [advice for advice in advices if advice.counts]
    done, skipped = write(
        counted, path, how.approver if how.apply else "",
        how.expires or f"{now + timedelta(days=_DAYS):%Y-%m-%d}",
        now=now, config=question.config, reason=how.reason, share=how.share, book=question.book.digest,
        state="shadow" if how.shadow else "on",
    )  # fmt: skip
    said = [f"left out: {each.name}: {each.why}" for each in skipped]
    if others := len(advices) - len(counted):
        said.append(f"left out: {others} that do not count; `farthing savings` says why")
    said += done.conflicts
    names = [name for name in done.written if not name.startswith("workloads.")]
    said.append(
        f"{path}: version {done.version}: {', '.join(names)}" if names else f"{path}: nothing to change"
    )
    if names and how.propose:
        said.append(f"look at it, then: farthing policy adopt {path} --approver NAME --expires DAY")
    elif names:
        said.append("`farthing savings report` tells what it saves; `farthing savings undo` takes it back")
    for line in said:
        print(f"farthing: {line}", file=sys.stderr)
