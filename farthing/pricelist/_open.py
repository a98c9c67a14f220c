"""Text and JSON from a file or an address, whole or not at all."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from farthing.pricelist._lines import PriceListError

SECONDS = 60  # to wait for an answer
_GZIP = b"\x1f\x8b"


def is_url(place: str) -> bool:
    return place.startswith(("https://", "http://"))


def read_json(place: str) -> Any:
    """The document, with its numbers as they are written. PriceListError is one line that names the place."""
    return parse_json(place, read_text(place))


def read_text(place: str) -> str:
    """What is there, unpacked."""
    data = _fetch(place) if is_url(place) else _load(place)
    try:
        return (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise PriceListError(f"{place}: cut short, or no gzip: {error}; get it again") from error
    except UnicodeDecodeError as error:
        raise PriceListError(f"{place}: no text in UTF-8: {error.reason} at byte {error.start}") from error


def parse_json(place: str, text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        says = (
            "the file ends in the middle: get it again" if cut and text.strip() else f"no JSON: {error.msg}"
        )
        raise PriceListError(f"{place}:{error.lineno}: {says}") from error
    except RecursionError as error:
        raise PriceListError(f"{place}: no price list: nested without end") from error


def _load(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise PriceListError(f"{place}: {error.strerror or error}") from error


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})  # noqa: S310 - http(s) only: is_url
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            data: bytes = answer.read()
            told = answer.headers.get("Content-Length")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PriceListError(f"{url}: not reached: {reason}") from error
    if told and told.isdigit() and len(data) < int(told):
        raise PriceListError(f"{url}: ended after {len(data)} of {told} bytes: try again")
    return data
