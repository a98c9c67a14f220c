"""How Sphinx makes ./site of the Markdown in docs/, with what docs/index.md names as its navigation (`make site`).

The sources are read where they lie, so that a link that holds on disk holds on the site.
"""

import re
from pathlib import Path
from typing import Any

project = "farthing"
author = "the farthing authors"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "README.md",
    "CONTRIBUTING.md",
    "farthing/prices/README.md",
    "packages/*/README.md",
]
exclude_patterns = [
    ".*",
    "build",
    "dist",
    "site",
    "tests",
    "bench",
    "examples",
    "requirements",
    "**/node_modules",
]
suppress_warnings = [
    "myst.header",  # a heading of the second level may stand without one of the first
    "misc.highlighting_failure",  # what a command prints is no language
]

myst_heading_anchors = 4  # as the anchors of a forge, so that page.md#heading leads there on both

html_theme = "furo"
html_title = "farthing"
html_static_path = ["static"]
html_css_files = ["farthing.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # it would read pages by requests, which a browser refuses to file://
html_permalinks_icon = "#"
html_additional_pages = {"index": "forward.html"}
templates_path = ["templates"]
pygments_style = "tango"
pygments_dark_style = "github-dark"
highlight_language = "text"

_NOT_A_PAGE = re.compile(r"\[([^\]]+)\]\(((?!\w+:)[^)#]+(?<!\.md))\)(?<!\.svg\))")
_TREE = ("```{toctree}", ":hidden:", ":titlesonly:", ":maxdepth: 1")
_LINK = re.compile(r"^- \[([^\]]+)\]\(([^)]+)\.md\)")


def _navigation(text: str) -> str:
    """A hidden tree of pages for each section of the index: what a section lists is what the menu has."""
    parts: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("## "):
            parts.append((line[3:], []))
        elif parts and (found := _LINK.match(line)):
            parts[-1][1].append(f"{found[1]} <{found[2]}>")
    trees = (
        "\n".join(
            [
                "```{toctree}",
                ":hidden:",
                ":titlesonly:",
                ":maxdepth: 1",
                f":caption: {caption}",
                "",
                *pages,
                "```",
            ]
        )
        for caption, pages in parts
        if pages
    )
    return "\n\n".join(trees)


def _read(app: Any, page: str, source: list[str]) -> None:
    text = _NOT_A_PAGE.sub(lambda link: _text_alone(link, Path(app.srcdir, page).parent), source[0])
    if page == root_doc:
        text += "\n\n" + _navigation(text)
    elif page.startswith("docs/decisions/0"):
        text = f"---\norphan: true\n---\n{text}"  # its table leads there; a menu of a hundred leads nowhere
    source[0] = text


def _text_alone(link: re.Match[str], folder: Path) -> str:
    """What leads to a file or folder of the repository that is no page keeps its words."""
    return f"`{link[1].strip('`')}`" if (folder / link[2]).exists() else link[0]


def setup(app: Any) -> None:
    app.connect("source-read", _read)
