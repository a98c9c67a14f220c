"""Lines that fit the terminal: folded between words, and with nothing in them that a terminal would take for a command.

Only where a person is looking. What goes into a pipe or a file, and what is made to be copied, stays as it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_EXACT = {"--json", "-j", "--csv"}
_COPIED = {
    "setup",
    "learn",
    "init",
    "prices",
    "export",
    "lint",
}  # scripts, settings, data; places of findings
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROLS = re.compile(
    r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_INDENT = 28  # of what is folded, at most


@contextmanager
def fitted(words: Sequence[str]) -> Iterator[None]:
    """Stdout as wide as the terminal, for one command."""
    if not sys.stdout.isatty() or _EXACT & set(words) or _COPIED & set(words[:1]):
        yield
        return
    screen, sys.stdout = sys.stdout, _Folding(sys.stdout)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = screen


class _Folding:
    """A stream that folds each whole line; all but writing is the screen's."""

    def __init__(self, screen: Any) -> None:
        self._screen, self._begun = screen, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._screen, name)

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        width = _columns(self._screen)
        for line in lines:
            self._screen.write("\n".join(folded(line, width)) + "\n")
        return len(text)

    def flush(self) -> None:
        """A question at the end of which the answer is typed is there before it is asked."""
        self._screen.write(self._begun)
        self._begun = ""
        self._screen.flush()


def _columns(screen: Any) -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal():
        return int(told)
    try:
        return os.get_terminal_size(screen.fileno()).columns or 80
    except OSError:
        return 80


def folded(line: str, width: int) -> Iterator[str]:
    """The line in pieces of at most so many cells, further ones below the text of the first.

    >>> list(folded("  $4.65  use claude-haiku-4-5 for claude-sonnet-4-6", 32))
    ['  $4.65  use claude-haiku-4-5', '    for claude-sonnet-4-6']
    """
    from rich.cells import cell_len, chop_cells

    line = _CONTROLS.sub("\ufffd", line)
    if cell_len(bare := _COLOUR.sub("", line)) > width:
        line = bare  # what Rich has coloured is folded by then: these colours are of a name
    indent = " " * min(len(line) - len(line.lstrip()) + 2, _INDENT, width // 2)
    while cell_len(_COLOUR.sub("", line)) > width:
        head = chop_cells(line, width)[0]
        at = len(head) if line[len(head)] == " " else head.rfind(" ")
        at = at if head[: max(at, 0)].strip() else len(head)
        yield line[:at].rstrip()
        line = indent + line[at:].lstrip()
    yield line
