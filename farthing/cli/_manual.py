"""farthing(1), a page of the manual, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from farthing.cli._app import app

_ABOUT = """\
.SH DESCRIPTION
.B farthing
reads the usage of Claude on Amazon Bedrock (invocation logs, batch outputs, Claude Code, gateways, telemetry), counts
every call once, prices it exactly from a dated catalogue, and shows the bill layer by layer. What it cannot price it
names and never counts as zero; what it had to assume it totals.
.PP
Without a command it shows the list value of this machine's Claude Code transcripts, or what is in the ledger.
Nothing leaves the machine unless a bucket or an account is named, and no prompt text is kept.
.PP
Every report prints a table, or with
.B \\-\\-json
and
.B \\-\\-csv
exact figures. Every command has
.BR \\-\\-help .
"""
_AFTER = """\
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The answer is no: a budget is over, a call has no price, a check failed.
.TP
.B 2
Bad input, or lines that could not be read; what could be read was counted.
.SH ENVIRONMENT
.TP
.B FARTHING_CONFIG
The farthing.toml to use; else the one in the working directory. FARTHING_X comes before what it says of x.
.TP
.B FARTHING_LEDGER
The ledger: a folder, or s3://BUCKET/PREFIX.
.TP
.B FARTHING_BOOK
Prices: a folder of TOML, an overlay, or offers.
.TP
.B CLAUDE_CONFIG_DIR
Where Claude Code keeps its transcripts, if not in ~/.claude.
.TP
.B NO_COLOR
Tables without colours.
.SH FILES
.TP
.I farthing.toml
Sources, teams, budgets, residency: what holds for the ledger.
.SH SEE ALSO
The documentation that comes with the source: docs/reference.md has every option.
"""


def page() -> str:
    """The whole page, in roff's man macros."""
    version = metadata.version("farthing")
    head = [
        f'.TH FARTHING 1 "" "farthing {version}" "User Commands"',
        ".SH NAME",
        "farthing \\- what Claude on Amazon Bedrock costs: exact, explained, brought down",
        ".SH SYNOPSIS",
        ".B farthing",
        ".RI [ COMMAND ]",
        ".RI [ OPTIONS ]",
    ]
    commands = [line for name in sorted(_names(app)) for line in _command((name,), app[name])]
    return "\n".join([*head, _ABOUT.rstrip(), ".SH COMMANDS", *commands, _AFTER.rstrip()]) + "\n"


def _names(group: Any) -> list[str]:
    return [name for name in group if not name.startswith("-")]


def _command(words: tuple[str, ...], command: Any) -> Iterator[str]:
    yield f".SS farthing {' '.join(words)}"
    yield "\n.PP\n".join(map(_line, _paragraphs(command.help)))
    if command.default_command:
        for argument in command.assemble_argument_collection():
            if argument.show:
                yield from _option(argument)
    for name in sorted(_names(command)):
        yield from _command((*words, name), command[name])


def _option(argument: Any) -> Iterator[str]:
    names = [name for name in argument.names if name not in argument.negatives]
    positional = argument.field_info.is_positional and argument.required
    shown = [argument.field_info.name.upper()] if positional or not names else names
    choices = [choice for choice in argument.get_choices() or () if choice]
    default = argument.field_info.default
    yield ".TP"
    yield f".B {_escaped(', '.join(shown))}"
    told = _paragraphs(argument.parameter.help)
    told += [f"One of {', '.join(choices)}."] if choices else []
    if default not in (None, "", False, True, inspect.Parameter.empty) and isinstance(default, str | int):
        told.append(f"[{default}]")
    yield _line(" ".join(told)) or "\\&"


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text or "") if part.strip()]


def _line(text: str) -> str:
    """A line of text that roff does not take for a request."""
    return f"\\&{_escaped(text)}" if text[:1] in (".", "'") else _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
