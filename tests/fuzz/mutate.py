"""Mutations of samples: of bytes, and of JSON and TOML as what they are, so that what comes out is often read.

A mutation of bytes rarely leaves JSON, and then nothing behind the decoder is reached.
"""

import json
import random
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, -0.0, 1e308, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, -(2**63), "", "x",
    "0", "7", "-1", "1e3", "NaN", "٣", "\x00", "\ud800", "\u2028", "a" * 300, [], {}, [None], [[]], [{}], {"": None},
    "2026-11-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01", "2026-02-30", "us-east-1", "claude-opus-5",
    "global.anthropic.claude-opus-5", "error", "batch", "1h", {"a": {"a": {}}}, "[" * 50, '{"a":1}', "e30=",
]  # fmt: skip
ODD_BYTES = [
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\n\n", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud800", b",",
    b"null", b"-1", b"1e999", b"NaN", b"9" * 30, b"\x1f\x8b", b"data: ", b"[" * 2_000, b"\xe2\x80\xa8",
    b"[[entries]]\n",
    b"2026-11-01", b"'", b" = ", b"#", b"..", b"%2F", b"arn:aws:bedrock:", b":200k",
]  # fmt: skip


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The data with one to four things wrong; `others` lend theirs."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = _as_json(data, others, chance) if chance.random() < 0.6 else _as_bytes(data, others, chance)
    return data[:8_192]


def _as_bytes(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((0, 1, 1, 4, 30)))
    match chance.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:at] + chance.randbytes(end - at or 1) + data[end:]
        case 3:
            return data[:at] + chance.choice(ODD_BYTES) + data[end:]
        case 4:
            other = chance.choice(others)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
    return data[:end] + data[at:]  # some of it twice


def _as_json(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One of its lines, or all of it, with a value changed, gone or there twice; bytes if it is no JSON."""
    lines = data.split(b"\n")
    number = chance.randrange(len(lines))
    for whole, text in ((False, lines[number]), (True, data)):
        try:
            value = json.loads(text)
            made = json.dumps(_changed(value, others, chance), ensure_ascii=chance.random() < 0.9)
        except (ValueError, RecursionError):
            continue
        changed = made.encode("utf-8", "surrogatepass")
        return changed if whole else b"\n".join([*lines[:number], changed, *lines[number + 1 :]])
    return _as_bytes(data, others, chance)


def _changed(value: Any, others: list[bytes], chance: random.Random) -> Any:
    """Down a random way, then one change."""
    if isinstance(value, str) and value[:1] in "{[" and value and chance.random() < 0.5:  # JSON in a text
        try:
            return json.dumps(_changed(json.loads(value), others, chance))
        except ValueError:
            return chance.choice(ODD_VALUES)
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return _odd(value, others, chance)
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    match chance.randrange(8):
        case 0:
            del value[key]
        case 1 if isinstance(value, list):
            value.insert(key, value[key])
        case 1:
            value[chance.choice(list(value))] = value[key]
        case _:
            value[key] = _changed(value[key], others, chance)
    return value


def _odd(value: Any, others: list[bytes], chance: random.Random) -> Any:
    match chance.randrange(4):
        case 0 if isinstance(value, int):
            return value + chance.choice((-1, 1, 2**31, 2**62, -(2**62)))
        case 0 if isinstance(value, str):
            return value[: chance.randrange(len(value) + 1)] + chance.choice(("", "x", "\x00", "é", ":"))
        case 1:
            try:
                return json.loads(chance.choice(others))
            except (ValueError, RecursionError):
                return chance.choice(ODD_VALUES)
        case 2:
            return [value]
    return chance.choice(ODD_VALUES)
