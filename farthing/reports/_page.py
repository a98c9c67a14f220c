"""A page: one file without scripts and without requests, for the screen, for mail and for A4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from farthing.reports._said import escape


def document(title: str, head: str, under: Iterable[str], body: Iterable[str]) -> str:
    """`title` is that of the window, `head` stands at the top; `body` is HTML, the rest is text."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    lines = "\n".join(f'<p class="dim">{escape(line)}</p>' for line in under)
    parts = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(head)}</h1>
{lines}
</header>
{parts}
</main>
</body>
</html>
"""


def card(title: str, under: str, inside: str, *, breaks: bool = False) -> str:
    """A box; with `breaks` it begins on a new sheet of paper. `inside` is HTML."""
    dim = f'<p class="dim">{escape(under)}</p>' if under else ""
    kind = " breaks" if breaks else ""
    return f'<section class="card{kind}"><h2>{escape(title)}</h2>{dim}{inside}</section>'


def cards(found: Iterable[Sequence[str]]) -> str:
    """Figures side by side: what, how much, a word on it, and `good` or `more` for those that are."""
    boxes = "".join(
        f'<div class="card"><p class="dim">{escape(title)}</p><div class="big{f" {kind[0]}" if kind else ""}">'
        f'{escape(big)}</div><p class="dim">{escape(under)}</p></div>'
        for title, big, under, *kind in found
    )
    return f'<div class="cards">{boxes}</div>'
