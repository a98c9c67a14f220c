"""Tokens that are no text (images, PDFs, tools) by the documented formulae, and those of text across tokenizers."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import NamedTuple

from farthing.book import Book, Model
from farthing.estimate._workload import Workload, image_sizes, model_of
from farthing.levers import KAPPA

_PATCH = 28  # pixels: an image costs one token a patch of this side
# (longest edge in pixels, most tokens) of an image: the models before 4.7, and those from it on.
_IMAGE_LIMITS = {"v1": (1_568, 1_568), "v2": (2_576, 4_784)}
_PAGE_TEXT = (1_500, 3_000)  # tokens of a PDF page's text; each page is an image as well

# The system prompt that tool use adds, by `tool_choice`: auto (and none), any (and tool). Read 2026-08.
_TOOL_PROMPT = {
    "claude-opus-5": (286, 406),
    "claude-opus-4-8": (290, 410),
    "claude-opus-4-7": (675, 804),
    "claude-opus-4-6": (497, 589),
    "claude-sonnet-4-6": (497, 589),
    "claude-opus-4-5": (496, 588),
    "claude-sonnet-4-5": (496, 588),
    "claude-haiku-4-5": (496, 588),
    "claude-sonnet-5": (354, 474),
    "claude-opus-4": (313, 315),
    "claude-opus-4-1": (313, 315),
    "claude-sonnet-4": (313, 315),
    "claude-3-5-haiku": (264, 355),
}
_LATEST_KNOWN = {"v1": "claude-opus-4-6", "v2": "claude-opus-5"}  # for models that no page has yet
_TOOLS = {
    "bash": {"v1": 244, "v2": 325},
    "text_editor": {"v1": 700, "v2": 700},
    "computer": {"v1": 4_500, "v2": 4_500},
    "browser": {"v1": 6_600, "v2": 6_600},
}


class Sizes(NamedTuple):
    """A request in one model's tokens. `parts` says of what; `prompt` has the prefix in it."""

    prefix: int
    prompt: int
    output: int
    parts: dict[str, int]
    assumed: tuple[str, ...]


def sizes(work: Workload, model: Model, book: Book) -> Sizes:
    """The request as this model would count it. Tools stand before the prompt: they join a prefix, if there is one."""
    kappa = tokenizer_ratio(work, model, book)
    tokenizer = str(model.data["tokenizer"])
    tools, assumed = _tools(work, model, tokenizer)
    if kappa != 1:
        assumed = (*assumed, "tokenizer")
    parts = {
        "text": ceil(work.input_tokens * kappa),
        "tool definitions": ceil(work.tool_tokens * kappa),
        "tool use": tools,
        "images": sum(image_tokens(*size, tokenizer) for size in image_sizes(work)),
        "pdf": pdf_tokens(work.pdf_pages, tokenizer)[1],
    }
    before = parts["tool definitions"] + tools if work.prefix_tokens else 0
    prefix = ceil(work.prefix_tokens * kappa) + before
    output = ceil((work.output_tokens + work.thinking_tokens) * kappa)
    if work.pdf_pages:
        assumed = (*assumed, "pdf_pages")
    return Sizes(prefix, sum(parts.values()), output, parts, assumed)


def tokenizer_ratio(work: Workload, model: Model, book: Book) -> Fraction:
    """Tokens of this model for one of the model that the workload was counted by: 1.3 from the older to the newer."""
    if not work.counted_by:
        return Fraction(1)
    counted = book.models[model_of(work.counted_by, book)].data["tokenizer"]
    newer = Fraction(*KAPPA[1])
    if counted == model.data["tokenizer"]:
        return Fraction(1)
    return newer if model.data["tokenizer"] == "v2" else 1 / newer


def image_tokens(width: int, height: int, tokenizer: str) -> int:
    """One token a patch of 28 x 28 pixels, after the image is shrunk to its longest edge; and no more than the cap.

    >>> image_tokens(1000, 1000, "v1"), image_tokens(4000, 3000, "v1")
    (1296, 1568)
    """
    edge, most = _IMAGE_LIMITS[tokenizer]
    shrink = min(Fraction(1), Fraction(edge, max(width, height)))
    return min(ceil(width * shrink / _PATCH) * ceil(height * shrink / _PATCH), most)


def pdf_tokens(pages: int, tokenizer: str) -> tuple[int, int]:
    """From and to: the text of the pages, and at most an image of the largest size for each."""
    least, most = _PAGE_TEXT
    return pages * least, pages * (most + _IMAGE_LIMITS[tokenizer][1])


def _tools(work: Workload, model: Model, tokenizer: str) -> tuple[int, tuple[str, ...]]:
    """The tokens that using tools adds, apart from their definitions."""
    if not (work.tool_choice or work.tools or work.tool_tokens):
        return 0, ()
    known = _TOOL_PROMPT.get(model.id)
    auto, any_ = known or _TOOL_PROMPT[_LATEST_KNOWN[tokenizer]]
    own = any_ if work.tool_choice == "any" else auto
    return own + sum(_TOOLS[tool][tokenizer] for tool in work.tools), () if known else ("tool_prompt",)
