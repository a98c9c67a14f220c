"""What commands share: where the ledger is, the options of reports, importing with a progress bar."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput
from farthing.cli._completing import filters
from farthing.cli._rows import write_json as write_json  # noqa: PLC0414 - it is one of what commands share

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.cells import Question
    from farthing.config import Config
    from farthing.ledger import Ledger
    from farthing.reports import Table

_SELECT = Group("Selection", sort_key=1)
OUTPUT = Group("Output", sort_key=2)


# --- where the ledger is --------------------------------------------------------------------------


def default_ledger(config: Config | None = None) -> str:
    """$FARTHING_LEDGER, else the one that farthing.toml names, else a folder of the user's own."""
    if named := (config or load_config()).ledger:
        return named
    import platformdirs

    return str(Path(platformdirs.user_data_dir("farthing", appauthor=False)) / "ledger")


def load_config(path: Path | None = None) -> Config:
    """The farthing.toml named, or the one that holds here."""
    from farthing.config import load

    return load(path)


def is_ledger(place: str) -> bool:
    """Whether a ledger was begun there; BadInput if a bucket does not let us look."""
    from farthing.aws import Access, AwsError, is_s3, objects, split

    if not is_s3(place):
        return os.path.exists(os.path.join(place, "farthing.json"))  # noqa: PTH110, PTH118 - False if it is forbidden
    bucket, key = split(f"{place.rstrip('/')}/farthing.json")
    try:
        return any(found.key == key for found in objects(Access(), bucket, key))
    except AwsError as error:
        raise BadInput(f"{place}: {error}") from error


def transcript_folders() -> list[Path]:
    """Where Claude Code keeps transcripts on this machine."""
    named = [
        Path(p.strip()).expanduser() for p in os.environ.get("CLAUDE_CONFIG_DIR", "").split(",") if p.strip()
    ]
    roots = named or [Path.home() / ".config" / "claude", Path.home() / ".claude"]
    folders = [root if root.name == "projects" else root / "projects" for root in roots]
    return [folder for folder in folders if folder.is_dir()]


@contextmanager
def ledger_to_read(named: str | Path | None, config: Config | None = None) -> Iterator[Ledger]:
    """The ledger named, or the default one, or a temporary one of this machine's transcripts."""
    from farthing.ledger import Ledger

    config = config or load_config()
    chosen = str(named or default_ledger(config))
    if is_ledger(chosen):
        yield Ledger(chosen)
        return
    if config.sources:
        raise BadInput(f"no ledger at {chosen}: run `farthing sync` first")
    folders = transcript_folders()
    if named or not folders:
        raise BadInput(f"no ledger at {chosen}: run `farthing import PATH --ledger {chosen}` first")
    print(f"no ledger yet: pricing the transcripts in {', '.join(map(str, folders))}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
        ledger = Ledger(Path(temporary) / "ledger")
        run_import(ledger, [str(folder) for folder in folders])
        yield ledger


def run_import(ledger: Ledger, paths: Sequence[str], forced: str = "", **how: Any) -> Any:
    """import_paths as of now, with a progress bar and its errors on stderr."""
    from farthing.api import import_paths

    with progress("reading") as advance:
        done = import_paths(ledger, paths, forced=forced, now=datetime.now(UTC), progress=advance, **how)
    for line in done.errors:
        print(f"farthing: {line}", file=sys.stderr)
    return done


_BYTES = ("reading", "decoding")  # told in bytes; other work in what it makes


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while a person is looking, with rate and time left; nothing otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    share = TextColumn("{task.percentage:>3.0f} %")
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), share, rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[0].speed or 0
            said = f"{speed / 10**6:,.1f} MB/s" if what in _BYTES else f"{speed:,.0f}/s"
            bar.update(task, completed=done, total=total, rate=said)

        yield advance


# --- options that reports share -------------------------------------------------------------------


@Parameter(name="*")
@dataclass
class Asked:
    """Options of every report."""

    ledger: Annotated[str, Parameter(group=_SELECT, help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = ""
    config: Annotated[
        Path | None, Parameter(group=_SELECT, help="farthing.toml: ledger, zone, profiles, teams.")
    ] = None
    since: Annotated[
        str, Parameter(name=["--since", "-s"], group=_SELECT, help="First day, YYYY-MM-DD or YYYYMMDD.")
    ] = ""
    until: Annotated[str, Parameter(name=["--until", "-u"], group=_SELECT, help="Last day, included.")] = ""
    tz: Annotated[
        str, Parameter(name=["--tz", "--timezone", "-z"], group=_SELECT, help="Time zone of days.")
    ] = ""
    where: Annotated[
        list[str] | None,
        Parameter(
            group=_SELECT, negative="", completer=filters,
            help="KEY=VALUE[,VALUE...] or KEY!=VALUE; * matches; may be repeated.",
        ),
    ] = None  # fmt: skip
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
    book: Annotated[
        str,
        Parameter(
            group=_SELECT, help="Prices: a folder of TOML, an overlay, or offers; else $FARTHING_BOOK."
        ),
    ] = ""
    json: Annotated[
        bool, Parameter(name=["--json", "-j"], negative="", group=OUTPUT, help="JSON, exact.")
    ] = False
    csv: Annotated[bool, Parameter(negative="", group=OUTPUT, help="The rows as CSV, exact.")] = False
    shared: Annotated[
        bool,
        Parameter(negative="", group=OUTPUT, help="For others to read: pseudonyms, small groups together."),
    ] = False

    def question(self) -> Question:
        """BadInput where an option makes no sense; what no option says is as farthing.toml says."""
        from farthing.cells import Question, parse_where

        config = load_config(self.config)
        return Question(
            since=_day(self.since, "--since"),
            until=_day(self.until, "--until"),
            tz=self.tz or config.timezone,
            where=tuple(parse_where(text) for text in self.where or ()),
            assume=parse_assume(self.assume or ()),
            profiles={**config.profiles, **read_profiles(self.profiles)},
            book=book_of(self.book),
            config=config,
        )

    def answer(self, table: Table, ledger: Ledger | None = None, question: Question | None = None) -> int:
        """Print the table in the form asked for."""
        from farthing import render, reports

        if self.shared:
            if ledger is None or question is None:
                raise BadInput("--shared is for reports of a ledger")
            from farthing.privacy import share

            table = share(table, ledger, question)
        if question and "team" in table.columns and not question.config.teams:
            print("farthing: no teams in farthing.toml: taken from the tag `team`", file=sys.stderr)
        if self.json:
            print(json.dumps(reports.as_json(table), indent=2))
        elif self.csv:
            print(render.to_csv(table), end="")
            print("\n".join(reports.footer_lines(table.footer)), file=sys.stderr)
        else:
            render.print_table(table, console())
        return int(table.failed)


def console() -> Any:
    """As wide as the terminal, the one behind a pager too; without any, as in a file, wider."""
    from rich.console import Console

    told = sys.stdout.isatty() or sys.stderr.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if told else 160)


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


def book_of(named: str | Path = "") -> Book:
    """The book of a name: a folder of TOML, an overlay of `prices update`, offers as if they held for everyone.

    Without one, $FARTHING_BOOK, and without that the book that farthing ships. A question puts the offers of
    farthing.toml into a book that has none.
    """
    from farthing.book import default_book

    said = str(named) or os.environ.get("FARTHING_BOOK", "")
    if not said:
        return default_book()
    path = Path(said)
    if path.is_file() and "[[offers]]" in path.read_text(encoding="utf-8", errors="replace"):
        from dataclasses import replace

        from farthing.offers import contract_book, load_offers

        offers = [replace(one, accounts=frozenset()) for one in load_offers([path])]
        return contract_book(default_book(), offers)
    from farthing.pricelist import load_book

    return load_book(path)


def read_profiles(path: Path | None) -> dict[str, str]:
    """The profile map of a file; BadInput if it is none."""
    from farthing.profiles import ProfileError, load_profiles

    try:
        return load_profiles(path) if path else {}
    except ProfileError as error:
        raise BadInput(str(error)) from error
