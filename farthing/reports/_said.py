"""Text of others in a page of ours."""

from __future__ import annotations

import html
import re

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """As HTML that says just that. Marks that would turn round the text beside them are seen as what they are.

    >>> escape("<b> & \\u202etxt.exe")
    '&lt;b&gt; &amp; \ufffdtxt.exe'
    """
    return html.escape(_DIRECTIONS.sub("\ufffd", text))
