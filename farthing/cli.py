"""The command line. Exit codes: 0 done, 1 the answer is no, 2 bad input. stdout is the answer, stderr the rest."""

from __future__ import annotations

import difflib
import gc
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from farthing.contract import charge_json, loads, rate_call
from farthing.meters import METERS
from farthing.money import mtok_usd, show, usd
from farthing.usage import Rejected

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.rating import Charge
    from farthing.reports import Report, Table

app = App(
    name="farthing",
    version=lambda: metadata.version("farthing"),
    help="What Claude on Amazon Bedrock costs: exact, explained, brought down.",
)
_SELECT = Group("Selection", sort_key=1)
_OUTPUT = Group("Output", sort_key=2)
_CCUSAGE = Group("Accepted for those who come from ccusage", sort_key=3)


class BadInput(Exception):
    """One clear line for a person; exit code 2."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    from farthing.ledger import LedgerError

    gc.set_threshold(
        200_000, 50, 50
    )  # records hold no cycles, and looking for some takes a fifth of the time
    try:
        code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        code = _fail(_unknown_command(error.unused_tokens or []))
    except CycloptsError as error:
        code = _fail(" ".join(str(error).split()))
    except (BadInput, LedgerError, ValueError) as error:
        code = _fail(str(error))
    except BrokenPipeError:  # `farthing by model | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)


def _unknown_command(tokens: Sequence[str]) -> str:
    word = tokens[0] if tokens else ""
    near = difflib.get_close_matches(word, [name for name in app if not name.startswith("-")], n=1)
    hint = f"did you mean `farthing {near[0]}`?" if near else "see --help"
    return f"{word!r} is no command or option here; {hint}"


def _fail(message: str) -> int:
    print(f"farthing: {message}", file=sys.stderr)
    return 2


# --- where the ledger is --------------------------------------------------------------------------


def default_ledger() -> Path:
    """$FARTHING_LEDGER, else a folder of the user's own."""
    if named := os.environ.get("FARTHING_LEDGER"):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("farthing", appauthor=False)) / "ledger"


def transcript_folders() -> list[Path]:
    """Where Claude Code keeps transcripts on this machine."""
    named = [
        Path(p.strip()).expanduser() for p in os.environ.get("CLAUDE_CONFIG_DIR", "").split(",") if p.strip()
    ]
    roots = named or [Path.home() / ".config" / "claude", Path.home() / ".claude"]
    folders = [root if root.name == "projects" else root / "projects" for root in roots]
    return [folder for folder in folders if folder.is_dir()]


@contextmanager
def _ledger_to_read(folder: Path | None) -> Iterator[Ledger]:
    """The ledger named, or the default one, or a temporary one of this machine's transcripts."""
    from farthing.ledger import Ledger

    chosen = folder or default_ledger()
    if (chosen / "farthing.json").exists():
        yield Ledger(chosen)
        return
    folders = transcript_folders()
    if folder is not None or not folders:
        raise BadInput(f"no ledger at {chosen}: run `farthing import PATH --ledger {chosen}` first")
    print(f"no ledger yet: pricing the transcripts in {', '.join(map(str, folders))}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        ledger = Ledger(Path(temporary) / "ledger")
        _import(ledger, [str(folder) for folder in folders])
        yield ledger


# --- options that reports share -------------------------------------------------------------------


@Parameter(name="*")
@dataclass
class Asked:
    """Options of every report."""

    ledger: Annotated[Path | None, Parameter(group=_SELECT, help="Ledger folder.")] = None
    since: Annotated[
        str, Parameter(name=["--since", "-s"], group=_SELECT, help="First day, YYYY-MM-DD or YYYYMMDD.")
    ] = ""
    until: Annotated[str, Parameter(name=["--until", "-u"], group=_SELECT, help="Last day, included.")] = ""
    tz: Annotated[
        str, Parameter(name=["--tz", "--timezone", "-z"], group=_SELECT, help="Time zone of days.")
    ] = "UTC"
    where: Annotated[
        list[str] | None,
        Parameter(
            group=_SELECT, negative="", help="KEY=VALUE[,VALUE...] or KEY!=VALUE; * matches; may be repeated."
        ),
    ] = None
    assume: Annotated[
        list[str] | None,
        Parameter(
            group=_SELECT, negative="", help="What a source left open: endpoint=eu, region=us-east-1, ttl=1h."
        ),
    ] = None
    profiles: Annotated[
        Path | None,
        Parameter(group=_SELECT, help="JSON that maps inference profiles to what they were made from."),
    ] = None
    json: Annotated[
        bool, Parameter(name=["--json", "-j"], negative="", group=_OUTPUT, help="JSON, exact.")
    ] = False
    csv: Annotated[bool, Parameter(negative="", group=_OUTPUT, help="The rows as CSV, exact.")] = False

    def question(self) -> Question:
        from farthing.cells import Question, parse_where

        return Question(
            since=_day(self.since, "--since"),
            until=_day(self.until, "--until"),
            tz=self.tz,
            where=tuple(parse_where(text) for text in self.where or ()),
            assume=parse_assume(self.assume or ()),
            profiles=read_profiles(self.profiles),
        )

    def answer(self, table: Table) -> int:
        """Print the table in the form asked for."""
        from farthing import render, reports

        if self.json:
            print(json.dumps(reports.as_json(table), indent=2))
        elif self.csv:
            print(render.to_csv(table), end="")
            print("\n".join(render.footer_lines(table.footer)), file=sys.stderr)
        else:
            render.print_table(table, _console())
        return 0


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _day(text: str, option: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)  # 3.11 reads 20261122 too
    except ValueError as error:
        raise BadInput(f"{option} {text!r} is no day: write 2026-11-22") from error


ASSUMABLE = ("endpoint", "region", "inference_geo", "ttl")


def parse_assume(pairs: Sequence[str]) -> dict[str, str]:
    """`endpoint=eu` and the like, as a mapping; BadInput names what can be assumed."""
    assume: dict[str, str] = {}
    for pair in ",".join(pairs).split(",") if pairs else ():
        name, is_pair, value = pair.partition("=")
        if not is_pair or name not in ASSUMABLE or not value:
            raise BadInput(f"--assume {pair!r}: write NAME=VALUE with NAME of {', '.join(ASSUMABLE)}")
        if name == "ttl" and value not in ("5m", "1h"):
            raise BadInput(f"--assume ttl={value}: a cache write lives 5m or 1h")
        assume[name] = value
    return assume


def read_profiles(path: Path | None) -> dict[str, str]:
    """The profile map of a file; BadInput if it is none."""
    from farthing.profiles import ProfileError, load_profiles

    try:
        return load_profiles(path) if path else {}
    except ProfileError as error:
        raise BadInput(str(error)) from error


# --- reports: one command each --------------------------------------------------------------------


@Parameter(name="*")
@dataclass
class FromCcusage:
    """Options that ccusage users type. What they ask for is so already, or there is nothing to choose."""

    mode: Annotated[
        Literal["auto", "calculate", "display"], Parameter(group=_CCUSAGE, help="Always calculated.")
    ] = "auto"
    offline: Annotated[bool, Parameter(name=["--offline", "-O"], group=_CCUSAGE, help="Always offline.")] = (
        True
    )
    compact: Annotated[bool, Parameter(negative="", group=_CCUSAGE, help="Tables fit the terminal.")] = False
    locale: Annotated[str, Parameter(name=["--locale", "-l"], group=_CCUSAGE, help="Dates are ISO.")] = ""
    project: Annotated[
        str,
        Parameter(name=["--project", "-p"], group=_CCUSAGE, help="Only this project, as --where project=..."),
    ] = ""


_HINTS: dict[str, Any] = {
    "keys": Annotated[list[str], Parameter(help="KEY[,KEY...]: what to group by.")],
    "breakdown": Annotated[
        bool, Parameter(name=["--breakdown", "-b"], negative="", group=_OUTPUT, help="Rows by model too.")
    ],
    "order": Annotated[
        Literal["asc", "desc"], Parameter(name=["--order", "-o"], group=_OUTPUT, help="Of the rows.")
    ],
}
_OVER_TIME = ("daily", "weekly", "monthly", "session")


def _command(made: Report) -> Callable[..., int]:
    """A report as a command: its own parameters, then those that all reports share."""
    own = [
        p for p in inspect.signature(made.make).parameters.values() if p.name not in ("ledger", "question")
    ]

    def run(*args: Any, asked: Asked | None = None, ccusage: FromCcusage | None = None, **kwargs: Any) -> int:
        asked = asked or Asked()
        values = dict(zip((p.name for p in own), args, strict=False)) | kwargs
        if "keys" in values:
            values["keys"] = [key for text in values["keys"] for key in text.split(",") if key]
        if ccusage and ccusage.project:
            asked = replace(asked, where=[*(asked.where or ()), f"project=*{ccusage.project}*"])
        question = asked.question()
        with _ledger_to_read(asked.ledger) as ledger:
            return asked.answer(made.make(ledger, question, **values))

    parameters = [
        inspect.Parameter(
            p.name,
            p.POSITIONAL_OR_KEYWORD if p.default is p.empty else p.KEYWORD_ONLY,
            annotation=_HINTS.get(p.name, p.annotation),
            default=p.default,
        )
        for p in own
    ]
    shared = {"asked": Asked | None} | ({"ccusage": FromCcusage | None} if made.name in _OVER_TIME else {})
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
        for name, kind in shared.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = made.says
    return run


def _add_reports() -> None:
    from farthing.reports import REPORTS

    for made in REPORTS.values():
        app.command(_command(made), name=made.name)


# --- rate -----------------------------------------------------------------------------------------


@app.command
def rate(
    model: Annotated[
        str, Parameter(help="Model id or ARN; leave out with --json to read JSON lines on stdin.")
    ] = "",
    *,
    at: Annotated[str, Parameter(help="Time of the call, ISO; now if left out.")] = "",
    platform: Literal["", "bedrock", "anthropic", "claude_aws"] = "",
    mode: Literal["", "on_demand", "batch", "fast"] = "",
    region: str = "",
    inference_geo: str = "",
    usage: Annotated[str, Parameter(help="A usage block of any dialect, as JSON.")] = "",
    input: int = 0,
    output: int = 0,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
    explain: Annotated[
        bool, Parameter(negative="", help="Card, source, date and factors of each figure.")
    ] = False,
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
) -> int:
    """Price calls exactly: one by flags (exit 1 if it has no price), or JSON lines on stdin, a line out for each in."""
    settled = parse_assume(assume or ()), read_profiles(profiles)
    if not model:
        if not json:
            raise BadInput("name a model, or give --json and JSON lines on stdin")
        return _rate_lines(sys.stdin.buffer, *settled)
    counts = dict(zip(METERS, (input, output, cache_read, cache_write_5m, cache_write_1h), strict=True))
    if usage and any(counts.values()):
        raise BadInput("give the counts or --usage, not both")
    call = {
        "model": model,
        "at": at or datetime.now(UTC).isoformat(),
        "platform": platform or None,
        "mode": mode or None,
        "region": region or None,
        "inference_geo": inference_geo or None,
        "usage": loads(usage) if usage else counts,
    }
    try:
        charge = rate_call(call, *settled)
    except Rejected as error:
        raise BadInput(str(error)) from error
    if json:
        _write(charge_json(charge))
    else:
        _print_charge(charge, explain=explain)
    return 1 if charge.unpriced else 0


def _rate_lines(lines: Any, assume: Mapping[str, str], profiles: Mapping[str, str]) -> int:
    rejected = 0
    for line in lines:
        try:
            answer = charge_json(rate_call(loads(line), assume, profiles))
        except Rejected as error:
            answer = {"rejected": str(error)}
            rejected += 1
        _write(answer)
    return 2 if rejected else 0


def _write(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, ensure_ascii=False, separators=(", ", ": ")) + "\n")


def _print_charge(charge: Charge, *, explain: bool) -> None:
    if charge.unpriced:
        print(f"unpriced: {charge.unpriced}")
        return
    assert charge.cost is not None
    print(f"{show(charge.cost)}  (exactly ${usd(charge.cost)})")
    for line in charge.lines:
        print(f"  {line.card.id}")
        for meter, tokens, rate in zip(METERS, line.tokens, line.card.rates, strict=True):
            if tokens:
                print(
                    f"    {meter:<15}{tokens:>15,} x ${mtok_usd(rate):>8} per million = ${usd(tokens * rate)}"
                )
        if explain:
            card = line.card
            print(f"    factors: {card.factors}")
            print(f"    source: {card.source}, read {card.accessed}, confidence {card.confidence}")
            ends = "" if card.ends.year == 9999 else f" until {card.ends:%Y-%m-%d}"
            print(f"    in force from {card.starts:%Y-%m-%d}{ends}; book {charge.book}")
    if charge.assumed:
        print(f"  assumed: {', '.join(charge.assumed)}")


# --- import ---------------------------------------------------------------------------------------


@app.command(name="import")
def import_(
    *paths: Annotated[
        str, Parameter(help="Files, folders, globs, or - for stdin.", allow_leading_hyphen=True)
    ],
    ledger: Annotated[Path | None, Parameter(help="Ledger folder; made if there is none.")] = None,
    forced: Annotated[str, Parameter(name="--format", help="Read every file so, instead of guessing.")] = "",
    json: Annotated[bool, Parameter(name=["--json", "-j"], negative="")] = False,
) -> int:
    """Read usage into the ledger: Bedrock invocation logs, Claude Code transcripts. Import twice adds nothing."""
    from farthing.ledger import Ledger

    if not paths:
        raise BadInput("name what to import: files, folders, globs, or - for stdin")
    for path in paths:
        if path.startswith("--") and not Path(path).exists():
            raise BadInput(f"unknown option {path}; see farthing import --help")
    done = _import(Ledger(ledger or default_ledger()), paths, forced)
    if json:
        _write(done.as_json())
    else:
        print(done.sentence())
    return 2 if done.errors or done.rejected else 0


def _import(ledger: Ledger, paths: Sequence[str], forced: str = "") -> Any:
    from farthing.api import import_paths

    with _progress("reading") as advance:
        done = import_paths(ledger, paths, forced=forced, now=datetime.now(UTC), progress=advance)
    for line in done.errors:
        print(f"farthing: {line}", file=sys.stderr)
    return done


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while a person is looking; nothing otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    share = TextColumn("{task.percentage:>3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), share, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- demo, profiles, and no command at all --------------------------------------------------------


@app.command
def demo(
    *,
    write_logs: Annotated[Path | None, Parameter(help="Only write the logs, into this folder.")] = None,
    calls: int = 200_000,
    seed: int = 7,
) -> int:
    """A made-up month of a company on Bedrock: its logs in the real format, imported, and its bill."""
    from farthing import demo as demo_
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.reports import REPORTS

    if calls < 1:
        raise BadInput(f"--calls {calls}: at least 1")
    with tempfile.TemporaryDirectory(prefix="farthing-demo-") as temporary:
        folder = write_logs or Path(temporary) / "logs"
        with _progress("writing logs") as advance:
            written = demo_.write_logs(folder, calls=calls, seed=seed, progress=advance)
        print(f"wrote {written.records:,} invocation log records in {written.files:,} files")
        if write_logs:
            return 0
        ledger = Ledger(Path(temporary) / "ledger")
        print(_import(ledger, [str(folder)]).sentence())
        asked = Asked()
        question = Question()
        for name, extra in (("bill", {}), ("by", {"keys": ["tag:team"]}), ("levers", {})):
            print()
            asked.answer(REPORTS[name].make(ledger, question, **extra))
        print("\nNext: farthing import PATH, with your own logs; farthing --help")
    return 0


@app.command
def profiles(
    *,
    region: Annotated[str, Parameter(help="Region to ask.")],
    aws_profile: Annotated[str | None, Parameter(help="Named profile of the AWS configuration.")] = None,
    endpoint_url: Annotated[str | None, Parameter(help="Another Bedrock endpoint.")] = None,
) -> int:
    """Ask Bedrock what this account's application inference profiles were made from, as JSON for --profiles."""
    from farthing.profiles import fetch_profiles
    from farthing.usage import check_region

    check_region(region)
    try:
        found = fetch_profiles(region, aws_profile, endpoint_url)
    except ImportError as error:
        raise BadInput("this asks AWS, which needs boto3: pip install 'farthing[aws]'") from error
    except Exception as error:  # botocore's errors share no base class; each is one line for a person
        if not type(error).__module__.startswith("botocore"):
            raise
        raise BadInput(f"{region}: {error} (needs bedrock:ListInferenceProfiles)") from error
    print(json.dumps(found, indent=2))
    return 0


@app.default
def bare() -> int:
    """The bill of this machine's Claude Code transcripts; elsewhere, what to do."""
    from farthing.reports import REPORTS

    folders = transcript_folders()
    if not folders:
        print("farthing: no ledger and no Claude Code transcripts here. To start:\n"
              "  farthing demo                 a made-up month, to see what it does\n"
              "  farthing import PATH          Bedrock invocation logs or Claude Code transcripts\n"
              "  farthing bill                 then: the bill, layer by layer\n"
              "  farthing --help               everything else")  # fmt: skip
        return 0
    print(f"pricing the transcripts in {', '.join(map(str, folders))}", file=sys.stderr)
    from farthing.cells import Question
    from farthing.ledger import Ledger

    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        ledger = Ledger(Path(temporary) / "ledger")
        done = _import(ledger, [str(folder) for folder in folders])
        Asked().answer(REPORTS["bill"].make(ledger, Question()))
    return 2 if done.errors or done.rejected else 0


_add_reports()
