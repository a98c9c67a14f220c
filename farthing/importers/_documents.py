"""Records in JSON documents: one a line, or in arrays and pages (`{"data": [...]}`), on one line or over many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._open import MAX_LINE_BYTES, UNREADABLE
from farthing.importers._read import Lines, keys_at, keys_of, reason, whole

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]  # of a record: each is decoded when it is wanted


class Record(NamedTuple):
    """An object: the line that its document begins in, and which entry of it it is, for people."""

    number: int
    place: str
    fields: Fields


LONG = "a document over 64 MiB: `jq -c '.[]' FILE` mends it"
_fields = msgspec.json.Decoder(Fields)
_entries = msgspec.json.Decoder(list[msgspec.Raw])
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(_QUOTED.pattern + rb"|[{}\[\]]", re.DOTALL)
_PAGE = re.compile(rb'\{[^{\[]*"data"\s*:\s*\[')


def first_keys(head: bytes) -> dict[str, str]:
    """The keys of the first record in a file that begins so, with the first character of their values."""
    text = head.lstrip()
    if text.startswith(b"["):
        text = text[1:].lstrip()
    if not text.startswith(b"{"):
        return {}
    keys = keys_of(text.partition(b"\n")[0], 0)
    if keys is None:  # it goes on in the next line, or beyond the head
        keys = keys_at(text, 0)
    page = _PAGE.match(text)
    return keys_at(text, text.find(b"{", page.end())) if page and b"{" in text[page.end() :] else keys


def records(lines: Lines) -> Iterator[Record | Reject]:
    """Every record of the file. What is no object, and no array or page of them, is rejected."""
    for number, text in documents(lines):
        if isinstance(text, str):
            yield Reject(number, text)
            continue
        try:
            found = list(_records(text))
        except UNREADABLE as error:
            found = _before_cut(text)
            yield Reject(number, f"{reason(error)} (after {len(found)} records)" if found else reason(error))
        for place, one in found:
            try:
                yield Record(number, place, decoded(_fields, bytes(one)))
            except UNREADABLE as error:
                yield Reject(number, f"{place}{reason(error)}")


def decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Decoded, with a second try for text that was cut in the middle of a pair of surrogates."""
    try:
        return decoder.decode(text)
    except UNREADABLE:
        mended = whole(text)
        if mended is text:
            raise
        return decoder.decode(mended)


def _records(text: bytes) -> Iterator[tuple[str, bytes]]:
    """The objects in a document, with their places in it."""
    if text.startswith(b"["):
        entries = decoded(_entries, text)
        for at, one in enumerate(entries, 1):
            outer = f"entry {at}: " if len(entries) > 1 else ""
            for place, record in _records(bytes(one)):
                yield outer + place, record
        return
    page = bytes(decoded(_fields, text).get("data", b"")) if b'"data"' in text else b""
    yield from _records(page) if page.startswith(b"[") else [("", text)]


def _before_cut(text: bytes) -> list[tuple[str, bytes]]:
    """The whole objects of an array or a page that ends too early."""
    page = _PAGE.match(text)
    found: list[tuple[str, bytes]] = []
    depth = begun = 0
    for token in _BRACKET.finditer(text, page.end() if page else int(text.startswith(b"["))):
        if token[0] in b"{[":
            begun = begun if depth else token.start()
            depth += 1
        elif token[0] in b"}]":
            depth -= 1
            if not depth:
                found.append((f"entry {len(found) + 1}: ", text[begun : token.end()]))
    return found


def documents(lines: Lines) -> Iterator[tuple[int, bytes | str]]:
    """Whole documents, with the line they begin in; as str, why there is none. Brackets of an array fall away."""
    held: list[bytes] = []
    begun = depth = size = 0
    for number, line in lines:
        text = line.strip()
        if held and line.startswith(b'{"') and text.endswith(b"}"):
            yield begun, b"\n".join(held)  # it was cut short, and a record of its own follows
            held = []
        if not held:
            text = _bare(text)
            if not text.endswith((b"{", b"[")):  # what is printed over lines breaks after a bracket
                if text:
                    yield number, text
                continue
            begun, depth, size = number, 0, 0
        size += len(text)
        if size > MAX_LINE_BYTES:
            held.clear()
        held.append(text)
        if b"{" in text or b"}" in text or b"[" in text or b"]" in text:
            structure = _QUOTED.sub(b"", text)
            depth += sum(map(structure.count, (b"{", b"["))) - sum(map(structure.count, (b"}", b"]")))
        if depth <= 0:
            document = b"\n".join(held).removesuffix(b"]" if depth < 0 else b"").rstrip(b",")
            held = []
            yield begun, b"[" + document + b"]" if size <= MAX_LINE_BYTES else LONG
    if held:
        yield begun, b"\n".join(held)


def _bare(text: bytes) -> bytes:
    """A line without the commas and brackets of an array that has one record a line."""
    if text == b"[" or (text.startswith(b"[") and text.endswith((b",", b"{"))):
        text = text[1:].lstrip()
    if text.startswith(b"{") and text.endswith(b"}]"):
        text = text[:-1]
    return b"" if text in (b"]", b",", b"],") else text.rstrip(b",")
