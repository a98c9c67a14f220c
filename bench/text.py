"""Filler for bodies and transcripts: prose, code and JSON as they stand inside a JSON string, escapes and all."""

from __future__ import annotations

import json
from random import Random

_TEXT = """
    the of and to in is that for it as with on be by this are or from at an was which you not have can
    request response model token cache prefix session account region budget report ledger invoice rate card
    value return function class import self result error index buffer thread column table query filter
    customer order shipment contract clause party summary section policy review change branch commit test
"""
_WORDS = _TEXT.split()
_MARKS = (
    "\n",
    "\n\n",
    "\t",
    ' "quoted" ',
    " naïve ",
    " → ",
    " C:\\path\\file ",
    '\n{"usage": {"input_tokens": 9}}\n',
    "é",
)


class Filler:
    """Pieces of text cut from one long seeded string, ready to stand between the quotes of a JSON string."""

    def __init__(self, random: Random, size: int = 2_000_000) -> None:
        self.random = random
        rare = [f"{random.choice(_WORDS)}_{random.getrandbits(16):x}" for _ in range(6_000)]
        parts: list[str] = []
        held = 0
        while held < size:
            word = random.choice(_WORDS) if random.random() < 0.8 else random.choice(rare)
            parts.append(word + (random.choice(_MARKS) if random.random() < 0.06 else " "))
            held += len(parts[-1])
        self.words = [_escaped(part) for part in parts]
        self.paragraphs = [_escaped("".join(parts[at : at + 50])) for at in range(0, len(parts), 50)]
        self.word_size = sum(map(len, self.words)) / len(self.words)
        self.paragraph_size = self.word_size * 50

    def text(self, size: int) -> str:
        """About so many characters: whole paragraphs if it takes one or more, else whole words."""
        pieces, each = (
            (self.words, self.word_size)
            if size < self.paragraph_size
            else (self.paragraphs, self.paragraph_size)
        )
        count = max(1, round(size / each))
        first = int(self.random.random() * (len(pieces) - count))
        return "".join(pieces[first : first + count])


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
