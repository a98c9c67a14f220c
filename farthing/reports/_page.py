"""A page: one file without scripts and without requests, for the screen, for mail and for A4."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path


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


def card(title: str, under: str, inside: str) -> str:
    """A box; `inside` is HTML."""
    dim = f'<p class="dim">{escape(under)}</p>' if under else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{dim}{inside}</section>'
