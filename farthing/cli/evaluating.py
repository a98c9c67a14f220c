"""The quality gate: how large a sample, both models asked, the verdict."""

from __future__ import annotations

import hashlib
import json as json_
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import book_of, write_json
from farthing.money import from_usd, show, usd

if TYPE_CHECKING:
    from farthing.evaluate import Pair, Verdict

group = App(
    name="evaluate", help="Is a cheaper model as good? A verdict on paired answers, before tiers are changed."
)
app.command(group)

_Margin = Annotated[
    float, Parameter(help="How much worse is still as good: 0.02 is two points in a hundred.")
]
_Alpha = Annotated[float, Parameter(help="How often an inferior model may pass.")]
_Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")]
_From = Annotated[str, Parameter(name="--from", help="The model in use.")]
_To = Annotated[str, Parameter(help="The model that would be cheaper.")]
_Workload = Annotated[str, Parameter(help="The workload of farthing.toml that the verdict is for.")]
_Out = Annotated[Path | None, Parameter(help="Write the verdict here, for `farthing savings`.")]


@group.command
def size(
    *, margin: _Margin = 0.02,
    discordant: Annotated[float, Parameter(help="On what share of questions the two differ.")] = 0.1,
    alpha: _Alpha = 0.05, json: _Json = False,
) -> int:  # fmt: skip
    """How many questions to ask for, before any is asked."""
    from farthing.evaluate import size as planned

    _check(margin, alpha)
    if not 0 < discordant <= 1:
        raise BadInput(f"--discordant {discordant}: write a share of questions, such as 0.1")
    found = planned(margin, discordant, alpha)
    if json:
        write_json(found._asdict())
        return 0
    print(f"margin {margin:.1%}, {discordant:.0%} of answers differing, both as good as each other:")
    print(f"  {found.usual:>8,}  pairs decide it, usually")
    print(f"  {found.at_most:>8,}  in nine cases of ten, or more: ask for as many")
    print(f"  {found.fixed:>8,}  would do for one look at a number fixed beforehand, which this is not")
    return 0


@group.command
def outcomes(
    file: Annotated[Path, Parameter(help="JSON lines or CSV with id, from, to (scores 0 to 1), cluster.")],
    *, from_: _From = "", to: _To = "", workload: _Workload = "", margin: _Margin = 0.02, alpha: _Alpha = 0.05,
    out: _Out = None, json: _Json = False,
) -> int:  # fmt: skip
    """The verdict on outcomes that are there already. Exit 0 if not inferior, 1 if inferior or not decided."""
    from farthing.evaluate import NOT_INFERIOR, judge, read_outcomes

    _check(margin, alpha)
    pairs = read_outcomes(file)
    found = judge(pairs, margin, alpha)
    _tell(found, pairs, {"from": from_, "to": to, "workload": workload}, out, json=json)
    return int(found.verdict != NOT_INFERIOR)


@group.command
def run(
    file: Annotated[Path, Parameter(help="JSON lines with prompt or messages; id, system, expected, cluster.")],
    *, from_: _From, to: _To,
    outcomes: Annotated[Path, Parameter(help="Scores and counts are added here; what is there is not asked again.")],
    grade: Annotated[str, Parameter(help="Against `expected`: exact, contains, regex, number or json.")] = "exact",
    grade_command: Annotated[str, Parameter(help="A command that reads JSON and prints a score.")] = "",
    max_usd: Annotated[str, Parameter(help="Spend no more than this in all.")] = "",
    max_tokens: Annotated[int, Parameter(help="Of each answer.")] = 1024,
    region: Annotated[str, Parameter(help="AWS region.")] = "us-east-1",
    aws_profile: Annotated[str | None, Parameter(help="Named profile of the AWS configuration.")] = None,
    endpoint_url: Annotated[str | None, Parameter(help="Another Bedrock endpoint.")] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Call the models.")] = False,
    workload: _Workload = "", margin: _Margin = 0.02, alpha: _Alpha = 0.05, out: _Out = None, json: _Json = False,
) -> int:  # fmt: skip
    """Ask both models through Bedrock until the evidence suffices. It calls AWS, so only with --yes."""
    from farthing.evaluate import (
        GRADES,
        NOT_INFERIOR,
        UNDECIDED,
        Pair,
        grader,
        judge,
        read_outcomes,
        read_questions,
    )
    from farthing.evaluate import run as asking

    _check(margin, alpha)
    if grade not in GRADES:
        raise BadInput(f"--grade {grade!r}: use one of {', '.join(GRADES)}, or --grade-command")
    questions = read_questions(file)
    if not grade_command and (bare := next((q.id for q in questions if not q.expected), "")):
        raise BadInput(f"{file}: {bare} has no `expected` to grade by: add it, or use --grade-command")
    if not yes:
        raise BadInput(
            f"this asks {len(questions):,} questions of two models through Bedrock; add --yes to do it"
        )
    most = from_usd(_decimal(max_usd)) if max_usd else None
    rows = asking(
        questions, (from_, to), _asker(region, aws_profile, endpoint_url, max_tokens),
        grader(grade, shlex.split(grade_command)), outcomes, most,
    )  # fmt: skip
    try:
        pairs: list[Pair] = []
        for row in rows:
            pairs.append(Pair(row["id"], row["from"], row["to"], row.get("cluster", "")))
            if _is_time_to_look(len(pairs)) and judge(pairs, margin, alpha).verdict != UNDECIDED:
                break
    except Exception as error:  # botocore's errors share no base class; each is one line for a person
        if not type(error).__module__.startswith("botocore"):
            raise
        raise BadInput(f"{error} (outcomes so far are in {outcomes}; run it again to go on)") from error
    pairs = read_outcomes(outcomes)
    found = judge(pairs, margin, alpha)
    _tell(found, pairs, {"from": from_, "to": to, "workload": workload} | _spent(outcomes), out, json=json)
    return int(found.verdict != NOT_INFERIOR)


def _is_time_to_look(pairs: int) -> bool:
    """After each of the first, then after every twentieth more: looking takes time as pairs do."""
    return pairs < 100 or pairs % max(1, pairs // 20) == 0


def _asker(region: str, profile: str | None, endpoint_url: str | None, max_tokens: int) -> Any:
    from farthing.evaluate import converse

    try:
        import boto3
    except ImportError as error:
        raise BadInput("this asks AWS, which needs boto3: pip install 'farthing[aws]'") from error
    session = boto3.Session(profile_name=profile)
    client = session.client("bedrock-runtime", region_name=region, endpoint_url=endpoint_url)
    return converse(client, book_of(), region, lambda: datetime.now(UTC), max_tokens)


def _check(margin: float, alpha: float) -> None:
    if not 0 < margin < 1:
        raise BadInput(f"--margin {margin}: write a share between 0 and 1, such as 0.02")
    if not 0 < alpha < 0.5:
        raise BadInput(f"--alpha {alpha}: write a chance below one half, such as 0.05")


def _decimal(text: str) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise BadInput(f"--max-usd {text!r}: write dollars, such as 5.00") from error


def _spent(outcomes: Path) -> dict[str, Any]:
    """What both models' answers cost, exact; null where one of them has no price."""
    rows = [json_.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]
    costs = {}
    for side in ("from", "to"):
        picos = [row.get(f"{side}_picos") for row in rows]
        costs[f"{side}_usd"] = None if None in picos else usd(sum(picos))
    return costs


def _tell(found: Verdict, pairs: list[Pair], about: dict[str, Any], out: Path | None, *, json: bool) -> None:
    digest = hashlib.sha256(json_.dumps([tuple(pair) for pair in pairs]).encode()).hexdigest()[:16]
    whole = {**about, **found._asdict(), "evidence": digest, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    if out:
        out.write_text(json_.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if json:
        write_json(whole)
        return
    print(
        f"{found.verdict}, for a margin of {found.margin:.1%}, on {found.pairs:,} pairs ({found.units:,} independent)"
    )
    print(f"  in use {found.from_mean:.2%}, candidate {found.to_mean:.2%}: {found.difference:+.2%}, "
          f"between {found.low:+.2%} and {found.high:+.2%} however often one looks")  # fmt: skip
    print(f"  evidence that it is as good {found.evidence_for:,.1f}, that it is worse {found.evidence_against:,.1f}; "
          f"{1 / found.alpha:,.0f} decides")  # fmt: skip
    for side in ("from", "to"):
        if about.get(f"{side}_usd"):
            print(f"  {about[side]}: {show(from_usd(_decimal(about[f'{side}_usd'])))} for these answers")
    if found.verdict == "not decided":
        from farthing.evaluate import size as planned

        more = planned(found.margin, max(found.discordant, 1 / found.pairs), found.alpha)
        print(
            f"  with {found.discordant:.1%} of answers differing, about {more.at_most:,} pairs are wanted",
            file=sys.stderr,
        )
