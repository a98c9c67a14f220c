"""How many tokens a text is: counted by AWS where that is asked for, reconstructed offline where ctok is, else a ratio.

The method is part of the answer, as the three differ in what they can be held to. No text is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from farthing.aws import Access, AwsError, session
from farthing.book import Book, Unpriced
from farthing.levers import KAPPA

ONLINE, OFFLINE, RATIO = "CountTokens", "ctok", "ratio"
PIECES = 8  # of a sample, so that a measured inflation has a spread
# Characters of English text for a token of the older tokenizer: 900 were 228 tokens by ctok. Other languages and
# code are far from it; the ratio is a guess, and says so.
_CHARACTERS = 4


class CountError(ValueError):
    """Why nothing was counted, and the mend: one line."""


class Count(NamedTuple):
    """`method` is CountTokens, ctok or ratio; `about` says how far to trust it."""

    tokens: int
    method: str
    about: str


class Inflation(NamedTuple):
    """Tokens of one model for one of another, same text: over all of it, and the least and most of its pieces."""

    low: Fraction
    mid: Fraction
    high: Fraction
    about: str


def count(text: str, model: str, book: Book, client: Any = None) -> Count:
    """Tokens of the text as one message. `client` is a bedrock-runtime client, if AWS may be asked."""
    if client is not None:
        return Count(_ask(client, text, model), ONLINE, f"counted by AWS as one message to {model}")
    tokenizer = book.models[_name(book, model)]
    if offline := _ctok():
        with suppress(NotImplementedError):  # of models before Claude 3
            tokens = offline.token_count(text, _version(tokenizer.id))
            return Count(int(tokens), OFFLINE, "reconstructed offline by ctok, unofficial: text only")
    return _by_ratio(text, str(tokenizer.data["tokenizer"]))


def measure(
    texts: Sequence[str], source: tuple[str, str], target: tuple[str, str], book: Book, client: Any = None
) -> Inflation:
    """How many tokens of the target's a token of the source's is. Each side is its (book name, id to call)."""
    pieces = [
        piece for text in texts for piece in split(text, PIECES if len(texts) == 1 else 1) if piece.strip()
    ]
    if not pieces:
        raise CountError("the sample has no text to count")
    if client is None and _ctok() is None:
        raise CountError(
            "measuring needs a counter: --online asks AWS's CountTokens, or `pip install ctok` counts offline "
            "(Python 3.12 or newer); a ratio would only give back what it assumes"
        )
    old = [count(piece, source[1 if client else 0], book, client) for piece in pieces]
    new = [count(piece, target[1 if client else 0], book, client) for piece in pieces]
    if {one.method for one in (*old, *new)} == {OFFLINE, RATIO}:
        raise CountError(f"ctok knows no tokenizer of {source[0]} or {target[0]}")
    ratios = [Fraction(b.tokens, a.tokens) for a, b in zip(old, new, strict=True) if a.tokens]
    if not ratios:
        raise CountError("the sample came to no tokens")
    whole = Fraction(sum(b.tokens for b in new), sum(a.tokens for a in old))
    about = f"{len(pieces)} pieces, {sum(a.tokens for a in old):,} tokens, by {old[0].method}"
    return Inflation(min(ratios), whole, max(ratios), about)


def split(text: str, pieces: int) -> list[str]:
    """The text in about so many parts of whole lines, none of them empty if the text is not.

    >>> split("a\\nb\\nc\\n", 2)
    ['a\\nb\\n', 'c\\n']
    """
    lines = text.splitlines(keepends=True)
    each = max(1, -(-len(lines) // pieces))
    return ["".join(lines[at : at + each]) for at in range(0, len(lines), each)]


def runtime(access: Access) -> Any:
    """A client of bedrock-runtime."""
    made = session(access)
    return made.client(
        "bedrock-runtime",
        region_name=access.region or made.region_name or "us-east-1",
        endpoint_url=access.endpoint_url or None,
    )


def _ask(client: Any, text: str, model: str) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    said = {"messages": [{"role": "user", "content": [{"text": text}]}]}
    try:
        return int(client.count_tokens(modelId=model, input={"converse": said})["inputTokens"])
    except ClientError as error:
        answer = error.response["Error"]
        raise CountError(
            f"CountTokens refused {model}: {answer.get('Code')}: {answer.get('Message')}; it takes model ids, no "
            "profiles, and not of every model"
        ) from error
    except (BotoCoreError, AwsError) as error:
        raise CountError(f"CountTokens could not be asked: {error}") from error


def _ctok() -> Any:
    try:
        import ctok  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return None
    return ctok


def _version(model: str) -> str:
    """`claude-opus-4-7` is 4.7, `claude-3-5-sonnet-v2` is 3.5."""
    found = re.search(r"-(\d+)(?:[-.](\d{1,2}))?(?:-|$)", model)
    if not found:
        raise CountError(f"no tokenizer is known for {model}")
    return f"{found[1]}.{found[2] or 0}"


def _by_ratio(text: str, tokenizer: str) -> Count:
    ratio = Fraction(*KAPPA[1]) if tokenizer == "v2" else Fraction(1)
    return Count(ceil(len(text) / _CHARACTERS * ratio), RATIO, _GUESS)


_GUESS = (
    "a guess from the number of characters of English text, and 30 % more for the newer tokenizer: "
    "--online asks AWS, `pip install ctok` counts offline (Python 3.12 or newer)"
)


def _name(book: Book, model: str) -> str:
    found = book.resolve(model)
    if isinstance(found, Unpriced):
        raise CountError(found.reason)
    return found.sku.model


def call_id(book: Book, model: str) -> str:
    """The id that CountTokens takes: a base id of Bedrock's, as profiles are refused."""
    name = _name(book, model)
    ids = [one for one in book.models[name].ids if one.startswith("anthropic.")]
    if not ids:
        raise CountError(f"{name} has no id on bedrock")
    return ids[0]
