"""Keys and types of farthing.toml, and the line that each fault is on; what variables of the environment say."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from farthing.config._tables import Config

NAME = "farthing.toml"


class ConfigError(ValueError):
    """The file cannot be used: one line that names it, the place in it, and the mend."""


class Fault(NamedTuple):
    place: tuple[str | int, ...]  # keys, and numbers of list entries from 0
    says: str


Overrides = dict[tuple[str | int, ...], tuple[str, str]]  # place -> variable, text


def overrides(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str | int, ...], tuple[str, str]]]:
    """What variables say of single values; ConfigError for one that names a list or a table."""
    for variable, text in sorted(environ.items()):
        place = tuple(variable.removeprefix("FARTHING_").lower().split("__"))
        if (
            not variable.startswith("FARTHING_")
            or place[0] not in Config.__struct_fields__
            or place == ("path",)
        ):
            continue
        kind: Any = Config
        for key in place:
            fields = (
                {field.name: field.type for field in msgspec.structs.fields(kind)} if is_table(kind) else {}
            )
            kind = get_args(kind)[1] if get_origin(kind) is dict else fields.get(key)
        if kind not in (str, int, bool):
            raise ConfigError(f"${variable}: {shown(place)} is no single value; write it in {NAME}")
        yield place, (variable, text)


def line_of(text: str, place: tuple[str | int, ...]) -> int:
    """The line that says it, or the table it is missing from; 0 where the text is laid out in some other way."""
    header: tuple[str | int, ...] = ()
    counts: dict[str, int] = {}
    best, at = 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if table := re.fullmatch(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(#.*)?", line):
            header = _keys(table[2])
            if table[1] == "[[":
                counts[table[2]] = counts.get(table[2], -1) + 1
                header += (counts[table[2]],)
            here = header
        else:
            here = header + _keys(line.partition("=")[0]) if "=" in line else ()
        if len(here) > best and place[: len(here)] == here:
            best, at = len(here), number
    return at


def _keys(text: str) -> tuple[str | int, ...]:
    """The parts of a dotted key; none where it is no key."""
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except ValueError:
        return ()
    keys = []
    while isinstance(found, dict) and found:
        ((key, found),) = found.items()
        keys.append(key)
    return tuple(keys)


def shown(place: tuple[str | int, ...]) -> str:
    """teams.search.tags[1]; entries of lists are counted from 1, as people do."""
    text = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in place)
    return text.removeprefix(".")


# --- the shape: keys and types -------------------------------------------------------------------------------------

_TYPES = {str: "text: write it in quotes", int: "a whole number", bool: "true or false"}


def is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def check_shape(value: Any, kind: Any, place: tuple[str | int, ...]) -> Iterator[Fault]:
    """Keys that are not known or missing, and values of another type."""
    if is_table(kind) or get_origin(kind) is dict:
        if not isinstance(value, dict):
            yield Fault(place, f"not a table: write [{shown(place)}]")
        elif is_table(kind):
            yield from _table(value, kind, place)
        else:
            for key, inner in value.items():
                yield from check_shape(inner, get_args(kind)[1], (*place, key))
    elif get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list):
            is_word = isinstance(value, str)
            mend = f'["{value}"]' if is_word else f"[[{shown(place)}]]" if is_table(inner) else "[...]"
            yield Fault(place, f"not a list: write {mend}")
            return
        for number, entry in enumerate(value):
            yield from check_shape(entry, inner, (*place, number))
    elif kind == Decimal | int:
        if type(value) not in (int, float):  # which becomes the decimal that was written
            is_word = isinstance(value, str)
            yield Fault(
                place,
                f'"{value}" is text: write a number, without quotes'
                if is_word
                else f"{value!s} is not a number",
            )
    elif type(value) is not kind:
        yield Fault(place, f"{value!s} is not {_TYPES[kind]}")


def _table(value: dict[str, Any], kind: Any, place: tuple[str | int, ...]) -> Iterator[Fault]:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if not place:
        del fields["path"]  # which is ours
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            mend = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(fields)}"
            yield Fault((*place, key), f"unknown key; {mend}")
    for name, field in fields.items():
        if name in value:
            yield from check_shape(value[name], field.type, (*place, name))
        elif field.required:
            yield Fault(place, f"`{name}` is missing")
