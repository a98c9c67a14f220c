"""What was used that is no token: sessions, web searches, code run. JSON, one object a line (docs/platforms.md).

No API tells of single sessions and containers with what they cost, so this format is ours: a script writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._open import UNREADABLE
from farthing.importers._read import Item, Lines, digest, instant, objects, reason
from farthing.usage import ENTRY_UNITS, PLATFORMS, Entry, Facts, Rejected

_FREE = {"web_search": "failed", "code_execution": "with_web_tools"}  # by kind: what says that nothing is due
_UNITS = frozenset(ENTRY_UNITS.values())  # also the keys of quantities
_WHO = ("account", "principal", "session", "project")
_KNOWN = (
    "kind",
    "at",
    "ms",
    "state",
    "searches",
    "failed",
    "with_web_tools",
    "id",
    "platform",
    "model",
    *_WHO,
)
_KIND = re.compile(rb'"kind"\s*:\s*"(?:' + "|".join(ENTRY_UNITS).encode() + rb')"')


def sniff(head: bytes) -> bool:
    if not _KIND.search(head):
        return False
    return any({"kind", "at"} <= keys.keys() and not _UNITS.isdisjoint(keys) for keys in objects(head))


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    for number, line in lines:
        try:
            yield _entry(line)
        except (Rejected, *UNREADABLE) as error:
            yield Reject(number, reason(error))


def _entry(line: bytes) -> Entry:
    said = msgspec.json.decode(line)
    if not isinstance(said, dict) or str(said.get("kind")) not in ENTRY_UNITS:
        raise Rejected(f"kind is none of {', '.join(ENTRY_UNITS)}")
    if unknown := [key for key in said if key not in _KNOWN]:
        raise Rejected(f"unknown key {unknown[0]!r}; known are {', '.join(_KNOWN)}")
    kind = said["kind"]
    at_us = instant(said.get("at"))
    key = ENTRY_UNITS[kind]
    quantity = said.get(key)
    if not isinstance(quantity, int) or isinstance(quantity, bool) or quantity < 0:
        raise Rejected(f"{key} is no count: a {kind} wants a whole number, 0 or more")
    platform = _text(said, "platform")
    if platform and platform not in PLATFORMS:
        raise Rejected(f"platform is none of {', '.join(PLATFORMS)}")
    facts = Facts("uses", platform, _text(said, "model"), **{name: _text(said, name) for name in _WHO})
    return Entry(_text(said, "id") or digest(line), at_us, kind, quantity, facts, _free(kind, said))


def _free(kind: str, said: dict[str, Any]) -> str:
    """Why nothing is due, or ""."""
    if kind == "session":
        if not isinstance(said.get("state"), str):
            raise Rejected("a session wants its state: only running is billed")
        return "" if said["state"] == "running" else "not_running"
    key = _FREE[kind]
    if not isinstance(said.get(key, False), bool):
        raise Rejected(f"{key} is neither true nor false")
    return key if said.get(key) else ""


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key, "")
    if not isinstance(value, str):
        raise Rejected(f"{key} is no text")
    return value
