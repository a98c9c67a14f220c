"""`farthing lint` and `farthing diff`: cost as a test, before requests are sent."""

from __future__ import annotations

import json as json_
import sys
from datetime import UTC, date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import OUTPUT, book_of, ledger_to_read, load_config, transcript_folders, write_json

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.lint import Compared, How, Unread

MOST_TOLD = 5  # files that could not be read
_PRICED = Group("Prices", sort_key=1)

_Model = Annotated[str, Parameter(group=_PRICED, help="The model of bodies that name none.")]
_Platform = Annotated[
    Literal["", "bedrock", "anthropic", "claude_aws"],
    Parameter(group=_PRICED, help="Who sells the calls; else as the bodies say."),
]
_At = Annotated[
    str, Parameter(group=_PRICED, help="A day whose prices hold; else each request's own, or today's.")
]
_Gap = Annotated[
    int, Parameter(group=_PRICED, help="Seconds from call to call, where the requests have no times.")
]
_Ledger = Annotated[str, Parameter(group=_PRICED, help="A ledger: what it is worth in that traffic.")]
_Where = Annotated[
    list[str] | None, Parameter(group=_PRICED, negative="", help="KEY=VALUE: which calls of the ledger.")
]
_Paths = Annotated[
    str,
    Parameter(
        help="Files or folders of bodies, JSON lines, Bedrock logs; - for stdin.", allow_leading_hyphen=True
    ),
]
_FailOn = Annotated[
    Literal["error", "warning", "note", "never"], Parameter(help="Exit 1 if something is as severe as that.")
]
_Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", group=OUTPUT, help="One line of JSON.")]


@app.command
def lint(
    *paths: _Paths,
    model: _Model = "", platform: _Platform = "", at: _At = "", gap: _Gap = 60,
    calls: Annotated[int, Parameter(group=_PRICED, help="Over how many calls a fault counts.")] = 100,
    ledger: _Ledger = "", where: _Where = None,
    fail_on: _FailOn = "warning",
    show: Annotated[bool, Parameter(negative="", group=OUTPUT, help="Show the text that differs.")] = False,
    json: _Json = False,
    sarif: Annotated[Path | None, Parameter(group=OUTPUT, help="Write SARIF here, for a code host.")] = None,
) -> int:  # fmt: skip
    """What breaks caching in requests: a clock in the prefix, tools in another order, a breakpoint that does nothing.

    Two files are compared as they are; otherwise each request with the one before it of the same tools and beginning.
    Exit 1 if something is found; 2 if something could not be read.
    """
    from farthing.lint import as_json, lines, price_in_ledger, read_requests
    from farthing.lint import lint as find
    from farthing.lint import sarif as as_sarif

    if not paths:
        raise BadInput("lint what? Name files or folders of requests, or - for standard input")
    for path in paths:
        if path.startswith("--") and not Path(path).exists():
            raise BadInput(f"unknown option {path}; see farthing lint --help")
    requests = read_requests(list(paths), model)
    first = list(islice(requests, 3))
    pair = len(paths) == len(first) == 2  # two files of one request each
    done = find(chain(first, requests), _how(platform, at, calls, gap), pair=pair)
    if not (done.requests or done.unread or done.others):
        raise BadInput(f"{', '.join(paths)}: no requests in it")
    if ledger:
        with ledger_to_read(ledger) as held:
            price_in_ledger(done.findings, held, _question(where))
    if sarif:
        from importlib.metadata import version

        sarif.write_text(json_.dumps(as_sarif(done, version("farthing")), indent=2) + "\n", encoding="utf-8")
    if json:
        write_json(as_json(done, text=show))
    else:
        print("\n".join(lines(done, text=show)))
    _tell_unread(done.unread)
    return 2 if done.unread else int(done.failed(fail_on))


def _how(platform: str, at: str, calls: int, gap: int) -> How:
    from farthing.lint import How

    if calls < 2 or gap < 0:
        raise BadInput("--calls counts from 2, and --gap from 0")
    try:
        day = date.fromisoformat(at) if at else datetime.now(UTC).date()
    except ValueError as error:
        raise BadInput(f"--at {at!r} is no day: write 2026-11-22") from error
    return How(book_of(), day, platform, calls, gap)


def _question(where: list[str] | None) -> Question:
    from farthing.cells import Question, parse_where

    config = load_config()
    return Question(
        tz=config.timezone,
        where=tuple(parse_where(text) for text in where or ()),
        profiles=config.profiles,
        book=book_of(),
        config=config,
    )


def _tell_unread(unread: list[Unread]) -> None:
    for each in unread[:MOST_TOLD]:
        print(f"farthing: {each.place}: {each.reason}", file=sys.stderr)
    if len(unread) > MOST_TOLD:
        print(f"farthing: and {len(unread) - MOST_TOLD:,} more that could not be read", file=sys.stderr)


# --- two sets --------------------------------------------------------------------------------------------------------


@app.command
def diff(
    base: Annotated[str, Parameter(help="Requests as they were: a file or a folder.")],
    head: Annotated[str, Parameter(help="Requests as they shall be.")],
    *, model: _Model = "", platform: _Platform = "", at: _At = "", gap: _Gap = 60,
    output: Annotated[int | None, Parameter(group=_PRICED, help="Tokens of an answer, where nothing tells.")] = None,
    calls_per_day: Annotated[int, Parameter(group=_PRICED, help="For the cost of a month.")] = 0,
    ledger: _Ledger = "", where: _Where = None,
    trace: Annotated[str, Parameter(help="For two settings of Claude Code: transcripts; else this machine's.")] = "",
    fail_above: Annotated[str, Parameter(help="Exit 1 if a call costs more than so much above: 5%.")] = "5%",
    markdown: Annotated[Path | None, Parameter(group=OUTPUT, help="Write a pull-request comment here.")] = None,
    json: _Json = False,
) -> int:  # fmt: skip
    """What a change of requests does to cost: tokens, cache hits, dollars a call and a month, and what changed.

    Requests are matched by file name, recordId, custom_id or id, else by their order. A prompt file (.md, .txt) stands
    for a system prompt with a breakpoint behind it; two settings.json of Claude Code are compared on transcripts.
    Exit 1 if cost rises, or a request would be refused.
    """
    from farthing.lint import comment_json, compare, markdown_of, read_requests, table

    percent, how = _percent(fail_above), _how(platform, at, 100, gap)
    done = _of_settings(base, head, trace, how, model) or compare(
        read_requests([base], model), read_requests([head], model), how, output
    )
    if not done.rows and not done.unread:
        raise BadInput(f"{base} and {head}: no requests in them")
    per_day = calls_per_day
    if ledger and not per_day:
        with ledger_to_read(ledger) as held:
            per_day = _calls_per_day(held, _question(where))
    if markdown:
        markdown.write_text(markdown_of(done, per_day), encoding="utf-8")
    if json:
        write_json(comment_json(done, per_day))
    else:
        print("\n".join(table(done, per_day)))
    _tell_unread(done.unread)
    if not done.unread and not done.comparable and not done.risen(percent):
        why = next((cost.why for row in done.rows for cost in (row.base, row.head) if cost and cost.why), "")
        raise BadInput(f"nothing can be compared: {why or 'no request is in both sets'}")
    return 2 if done.unread else int(done.risen(percent))


def _of_settings(base: str, head: str, trace: str, how: How, model: str) -> Compared | None:
    """The comparison, if both files are settings of Claude Code."""
    from farthing.cli._opened import hashing_key, sources
    from farthing.lint import NoSettings, compare_settings, read_settings
    from farthing.traces import TraceError, read_traces

    settings = [read_settings(Path(path)) for path in (base, head) if Path(path).is_file()]
    if len(settings) < 2 or settings[0] is None or settings[1] is None:
        return None
    places = [trace] if trace else [str(folder) for folder in transcript_folders()]
    if not places:
        raise BadInput("no transcripts on this machine: name some with --trace")
    faults: list[str] = []
    try:
        found = (source for place in places for source in sources(place, faults))
        log = read_traces(found, hashing_key())
        done = compare_settings(settings[0], settings[1], log, how, model)
    except (TraceError, NoSettings) as error:
        raise BadInput("; ".join([str(error), *faults])) from error
    for line in faults:
        print(f"farthing: {line}", file=sys.stderr)
    return done


def _percent(text: str) -> int:
    number = text.strip().removesuffix("%").strip()
    if not number.isdigit():
        raise BadInput(f"--fail-above {text!r}: write whole percents, such as 5%")
    return int(number)


def _calls_per_day(ledger: Ledger, question: Question) -> int:
    """Calls of the ledger by the days from its first to its last, rounded."""
    from farthing.cells import cells

    days: dict[str, int] = {}
    for cell in cells(ledger, question, ("day",)):
        days[cell.keys[0]] = days.get(cell.keys[0], 0) + cell.calls
    if not days:
        raise BadInput("no calls in the ledger that fit: give --calls-per-day")
    span = (date.fromisoformat(max(days)) - date.fromisoformat(min(days))).days + 1
    return max(1, round(sum(days.values()) / span))
