"""Policy files written: advice applied, entries undone, every version kept beside the file.

Under a lock, the new version goes into the history first and then takes the file's place in one step: whoever reads
sees the old file or the new one, and a writer that is killed leaves either. What people wrote stays as they wrote it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.config import Members
from farthing.policy._file import Entry, Policy, PolicyError, Selectors, is_ours, load, parse, sign

_HEAD = """# Levers that gateway and hooks apply before a call: docs/policy.md says what each key means.
# Entries with `made` are farthing's. Change one, and it is yours: `farthing savings --apply` leaves it alone.
"""


class Block(NamedTuple):
    """A table of the file with the lines that belong to it: an entry, or the selectors of a workload."""

    name: str  # workloads.NAME, or the entry's own
    made: Entry | Selectors
    text: str


class Written(NamedTuple):
    """What a writing did, by the names of entries."""

    version: int
    path: str
    written: tuple[str, ...]
    conflicts: tuple[str, ...]  # in words
    before: str
    after: str


class Version(NamedTuple):
    """A version in the history; `fault` where it cannot be read."""

    number: int
    policy: Policy
    fault: str = ""


Change = Callable[
    [list[Block]], tuple[list[Block], Sequence[str], Sequence[str]]
]  # blocks, written, conflicts


class Act(NamedTuple):
    """Who changes what, and when. `whatever`: even a file that cannot be read, of which nothing is then kept."""

    by: str
    what: str
    now: datetime
    whatever: bool = False


def rewrite(path: Path | str, change: Change, act: Act, *, dry: bool = False) -> Written:
    """The file with its blocks changed, as its next version. PolicyError if it cannot be read, or would be at fault."""
    file = Path(path)
    if dry:
        return _rewritten(file, change, act)[0]
    with _locked(file):
        done, fresh = _rewritten(file, change, act)
        if fresh:
            for number, text in fresh:
                _put(version_file(file, number), text)
            _put(file, done.after)
    return done


def _rewritten(file: Path, change: Change, act: Act) -> tuple[Written, list[tuple[int, str]]]:
    """What is done, and the versions that the history does not have yet: one of a person's own edits comes first."""
    before = current(file)
    try:
        policy = load(file)
        blocks = _blocks(policy, before)
    except PolicyError:
        if not act.whatever:
            raise
        policy, blocks = Policy(), []
    blocks, written, conflicts = change(blocks)
    if not written:
        return Written(policy.version, str(file), (), tuple(conflicts), before, before), []
    last = max([policy.version, *numbers(file)])
    fresh = []
    if before and not is_kept(file, policy.version):
        last += 1
        fresh.append((last, before))
    after = _text(last + 1, act, blocks)
    parse(after.encode(), str(file))
    fresh.append((last + 1, after))
    return Written(last + 1, str(file), tuple(written), tuple(conflicts), before, after), fresh


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(policy: Policy, text: str) -> list[Block]:
    """The file's tables with their text, comments above each included."""
    found: list[tuple[str, list[str]]] = []
    loose: list[str] = []  # comments that may belong to the table that follows
    for line in text.splitlines():
        header = _header(line)
        if header is not None:
            found.append((header, [*loose, line]))
            loose = []
        elif line.lstrip().startswith("#"):
            loose.append(line)
        else:
            if found:
                found[-1][1].extend((*loose, line))
            loose = []
    if found:
        found[-1][1].extend(loose)
    entries = iter(policy.entries)
    blocks = []
    for workload, lines in found:
        made = policy.workloads.get(workload) if workload else next(entries, None)
        if made is None:
            break
        blocks.append(Block(_name(made, workload), made, "\n".join(lines).strip("\n")))
    if len(blocks) != len(policy.workloads) + len(policy.entries):
        mend = "write each entry under [[entries]] and each workload under [workloads.NAME]"
        raise PolicyError(f"{policy.path}: its tables are laid out in another way: {mend}")
    return blocks


def _header(line: str) -> str | None:
    """The workload whose table begins here; "" where an entry does, None where neither."""
    if not line.lstrip().startswith("["):
        return None
    try:
        said = tomllib.loads(line)
    except ValueError:
        return None
    if said == {"entries": [{}]}:
        return ""
    named = said.get("workloads")
    return (
        next((name for name, table in named.items() if table == {}), None)
        if isinstance(named, dict)
        else None
    )


def _name(made: Entry | Selectors, workload: str) -> str:
    return made.name if isinstance(made, Entry) else f"workloads.{workload}"


def block(made: Entry | Selectors, workload: str = "") -> Block:
    """One of farthing's own."""
    signed = msgspec.structs.replace(made, made=sign(made))
    header = "[[entries]]" if isinstance(made, Entry) else f"[workloads.{_key(workload)}]"
    lines = [header]
    for field in msgspec.structs.fields(signed):
        value = getattr(signed, field.name)
        if field.required or value != field.default:
            lines.append(f"{field.name} = {_value(value)}")
    return Block(_name(made, workload), signed, "\n".join(lines))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, msgspec.Struct):
        said = {name: getattr(value, name) for name in value.__struct_fields__}
        return "{" + ", ".join(f"{name} = {_value(each)}" for name, each in said.items() if each) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(version: int, act: Act, blocks: Sequence[Block]) -> str:
    at = f"{act.now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    said = {"version": version, "at": at, "by": act.by, "what": act.what}
    head = _HEAD + "\n".join(f"{name} = {_value(value)}" for name, value in said.items())
    ordered = sorted(blocks, key=lambda one: isinstance(one.made, Entry))
    return "\n\n".join([head, *(one.text for one in ordered)]) + "\n"


# --- what may be changed ---------------------------------------------------------------------------------------------


def adopting(entries: Sequence[Entry], workloads: Mapping[str, Selectors]) -> Change:
    """A change that puts these in, each in the place of farthing's own of that name; a person's stays."""

    def change(blocks: list[Block]) -> tuple[list[Block], list[str], list[str]]:
        at = {each.name: number for number, each in enumerate(blocks)}
        fresh = [block(selectors, name) for name, selectors in workloads.items()] + [
            block(each) for each in entries
        ]
        written, conflicts = [], []
        for new in fresh:
            old = blocks[at[new.name]] if new.name in at else None
            if old is None:
                blocks.append(new)
            elif is_ours(old.made):
                blocks[at[new.name]] = new
            else:
                if unsigned(old.made) != unsigned(new.made):
                    mend = "delete it to have farthing's"
                    conflicts.append(f"{new.name} was written by hand and stays as it is: {mend}")
                continue
            if old is None or old.made != new.made:
                written.append(new.name)
        return blocks, written, conflicts

    return change


def unsigned(made: Entry | Selectors) -> Entry | Selectors:
    return msgspec.structs.replace(made, made="")


def switching(is_meant: Callable[[Entry], bool], state: str) -> Change:
    """A change that sets the state of entries, a person's own too: they asked for it."""
    return _setting(is_meant, "state", state)


def judging(name: str, verdict: str) -> Change:
    """A change that puts a verdict to an entry."""
    return _setting(lambda entry: entry.name == name, "verdict", verdict)


def _setting(is_meant: Callable[[Entry], bool], key: str, value: str) -> Change:
    def change(blocks: list[Block]) -> tuple[list[Block], list[str], list[str]]:
        written = []
        for number, old in enumerate(blocks):
            if isinstance(old.made, Entry) and is_meant(old.made) and getattr(old.made, key) != value:
                made = msgspec.structs.replace(old.made, **{key: value})
                blocks[number] = (
                    block(made) if is_ours(old.made) else Block(old.name, made, _set(old.text, key, value))
                )
                written.append(old.name)
        return blocks, written, []

    return change


def _set(text: str, key: str, value: str) -> str:
    line = f"{key} = {_value(value)}".replace("\\", "\\\\")
    changed, count = re.subn(
        rf"(?m)^(\s*){key}\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*')", rf"\g<1>{line}", text, count=1
    )
    return (
        changed if count else re.sub(r"(?m)^(\s*\[\[\s*entries\s*\]\].*)$", rf"\g<1>\n{line}", text, count=1)
    )


def restoring(text: str, path: str) -> Change:
    """A change that brings another version back as it was."""
    policy = parse(text.encode(), path)

    def change(blocks: list[Block]) -> tuple[list[Block], list[str], list[str]]:
        wanted = _blocks(policy, text)
        now = {each.name: each.made for each in blocks}
        then = {each.name: each.made for each in wanted}
        changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        return wanted, changed or ["comments"], []

    return change


# --- files -----------------------------------------------------------------------------------------------------------


def history_of(path: Path | str) -> Path:
    """The folder beside the file that has every version."""
    file = Path(path)
    return file.with_name(f"{file.stem}.history")


def numbers(path: Path | str) -> list[int]:
    """Of the versions that were kept, in order."""
    return sorted(int(file.stem) for file in history_of(path).glob("[0-9]*.toml"))


def version_file(path: Path | str, number: int) -> Path:
    return history_of(path) / f"{number:06d}.toml"


def versions(path: Path | str) -> list[Version]:
    """Every version that was kept, in order. One that cannot be read has nothing in it but its fault."""
    found = []
    for number in numbers(path):
        try:
            found.append(Version(number, load(version_file(path, number))))
        except PolicyError as error:
            found.append(Version(number, Policy(), str(error)))
    return found


def version_text(path: Path | str, number: int) -> str:
    if number not in numbers(path):
        known = ", ".join(map(str, numbers(path))) or "none"
        raise PolicyError(f"{path}: no version {number} of it is kept; there are {known}")
    return current(version_file(path, number))


def current(file: Path) -> str:
    """The text of a file; "" where there is none."""
    try:
        return file.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PolicyError(f"{file}: {error.strerror or error}") from error


def is_kept(file: Path, number: int) -> bool:
    """Whether the file is that version as it was written: nobody has touched it since."""
    return number in numbers(file) and current(version_file(file, number)) == current(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One writer at a time; the lock of one that is killed is gone with it."""
    import fcntl  # which not every system has, and who only reads does not need

    folder = history_of(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise PolicyError(f"{error.filename or folder}: {error.strerror or error}") from error


def _put(file: Path, text: str) -> None:
    """In one step, and on the disk before this returns."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            os.fchmod(handle, file.stat().st_mode & 0o777 if file.exists() else 0o644)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def selectors(made: Members) -> Selectors:
    """What farthing.toml says of whose calls they are, and nothing else of it."""
    return Selectors(made.tags, made.profiles, made.principals, made.projects, made.accounts)
