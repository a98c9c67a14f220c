"""Claude Code's status line, quickly: what a session's transcript grew by is read, and prices come from a file.

Claude Code asks after every message and waits. So nothing heavy is loaded here: no cyclopts, msgspec or DuckDB.
Counts are read by farthing.usage as everywhere; rates are taken from the book once for each model (_statusline_slow.py)
and kept by the book's files; the sums of the day and week come from a process of its own, which runs behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from operator import mul
from typing import Any

VERSION = 1  # of the files kept
FIRST_US = 1_672_531_200_000_000  # as importers have it: no call to Claude is older
SKEW_US = 86_400_000_000
REFRESH_S = 60  # the sums of other sessions are at least that old before they are worked out again
SHARE = 20  # and working them out takes no more than one part in so many of a processor
_PLATFORMS = {"bdrk_": "bedrock", "vrtx_": "vertex"}  # by what follows msg_ in the message's id
_QUICK: tuple[set[str], ...] = (set(), {"--json"})

State = dict[str, Any]


def answer_quickly(argv: Sequence[str]) -> None:
    """To be called before anything is loaded: prints the line and ends the process, where no more is asked for."""
    if argv[:1] == ["statusline"] and set(argv[1:]) in _QUICK:
        say(json=len(argv) > 1)
        sys.stdout.flush()
        os._exit(0)


def say(*, json: bool = False) -> None:
    """Print the line for the session that stdin tells of. Whatever is wrong is a short line too, never an error."""
    try:
        if sys.stdin.buffer.isatty():
            print("farthing: for Claude Code's settings: farthing statusline --install says how")
            return
        told = _decode(sys.stdin.buffer.read())
        if not isinstance(told, dict):
            print("farthing: Claude Code told no session on stdin")
            return
        found = _look(told, time.time_ns() // 1000)
        print(as_json(found) if json else in_words(found))
    except Exception as error:  # noqa: BLE001 - a status line has nobody to hand an exception to
        print(f"farthing: no cost just now ({type(error).__name__}: {str(error)[:80]})".replace("\n", " "))


def cache_folder() -> str:
    """Where what was read is kept: offsets and sums, no text."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", base)
    return os.path.join(base, "farthing", "statusline")  # noqa: PTH118 - pathlib takes 3 ms to load


def _look(told: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    folder = cache_folder()
    os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103
    state = of_transcript(str(told.get("transcript_path") or ""), folder, now_us)
    totals = _totals(folder, now_us)
    found = summed(state, totals, str(told.get("session_id") or ""), now_us)
    said = told.get("cost")
    return found | {"told_usd": said.get("total_cost_usd") if isinstance(said, dict) else None}


# --- a session -----------------------------------------------------------------------------------------------------


def of_transcript(path: str, folder: str, now_us: int) -> State:
    """The calls of a transcript and of its subagents, read on from where the last look ended."""
    name = os.path.basename(path).removesuffix(".jsonl") or "none"  # noqa: PTH119
    kept = f"{folder}/session-{_safe(name)}.json"
    prices = _Prices(folder)
    state = _load(kept)
    if state.get("v") != VERSION or state.get("book") != prices.book or state.get("path") != path:
        state = _fresh(path, prices.book)
    found: list[dict[str, Any]] = []
    grown = False
    for each in _files(path):
        lines, offset = _grown(each, state["files"].get(each))
        if lines is None:  # cut or replaced: all of it anew
            state, found = _fresh(path, prices.book), []
            for again in _files(path):
                lines, offset = _grown(again, None)
                found += _records(lines or b"", now_us)
                state["files"][again] = offset
            grown = True
            break
        if lines:
            grown = True
            found += _records(lines, now_us)
            state["files"][each] = offset
    if grown:
        prices.learn(found)
        for record in found:
            _add(state, record, prices)
        save(kept, state)
    return state


def _fresh(path: str, book: str) -> State:
    return {"v": VERSION, "path": path, "book": book, "files": {}, "calls": {}, "last": [0, 300, False]}


def _files(path: str) -> list[str]:
    folder = path.removesuffix(".jsonl") + "/subagents"
    try:
        agents = sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".jsonl"))
    except OSError:
        agents = []
    return [path, *agents] if path else []


def _grown(path: str, before: Sequence[int] | None) -> tuple[bytes | None, list[int]]:
    """The whole lines since [inode, offset], and the new ones; None if it is not the file that it was."""
    inode, offset = before or (0, 0)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            said = os.fstat(file.fileno())
            if before and (said.st_ino != inode or said.st_size < offset):
                return None, []
            if said.st_size == offset:
                return b"", [said.st_ino, offset]
            file.seek(offset)
            data = file.read()
    except OSError:
        return b"", [inode, offset]
    end = data.rfind(b"\n") + 1
    return data[:end], [said.st_ino, offset + end]


def _records(lines: bytes, now_us: int) -> Iterator[dict[str, Any]]:
    """What the lines tell of calls. What cannot be read is left out here, and rejected by name in an import."""
    if not lines:
        return
    from farthing.usage import Rejected

    for line in lines.split(b"\n"):
        if b'"usage"' in line:
            try:
                record = _decode(line)
                found = _call(record, line, now_us) if isinstance(record, dict) else None
            except (Rejected, TypeError, AttributeError):
                continue
            if found:
                yield found


def _call(record: dict[str, Any], line: bytes, now_us: int) -> dict[str, Any] | None:
    """One record, as importers/claude_code.py reads it."""
    from datetime import UTC, datetime, timedelta

    from farthing.usage import EPOCH, MAX_TOKENS, Rejected, count, read_usage

    side = record.get("isSidechain") is True
    inner = record["data"].get("message") if isinstance(record.get("data"), dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("message"), dict):
        record, side = inner | {"timestamp": inner.get("timestamp") or record.get("timestamp")}, True
    message = record.get("message")
    if not isinstance(message, dict) or message.get("usage") is None or message.get("model") == "<synthetic>":
        return None
    block = message["usage"]
    reading = read_usage(block)
    try:
        at = datetime.fromisoformat(record["timestamp"])
    except (KeyError, ValueError) as error:
        raise Rejected("no timestamp") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    at_us = (at - EPOCH) // timedelta(microseconds=1)
    parts = [(part.model or message.get("model") or "", tuple(part.tokens)) for part in reading.parts]
    if not block.get("iterations") and message.get("stop_reason") == "refusal" and not parts[0][1][1]:
        parts = [(parts[0][0], (0, 0, 0, 0, 0))]  # counts are reported, not billed
    if not FIRST_US <= at_us <= now_us + SKEW_US or sum(sum(tokens) for _, tokens in parts) > MAX_TOKENS:
        raise Rejected("no such time or size")
    message_id, request_id = message.get("id") or "", record.get("requestId") or ""
    platform = _PLATFORMS.get(message_id[4:9], "anthropic")
    how = f"{block.get('service_tier') or ''}|{block.get('speed') or ''}|{reading.inference_geo}"
    tools = block.get("server_tool_use") or {}
    return {
        "id": message_id or request_id or _digest(line), "request": request_id, "side": side, "at_us": at_us,
        "platform": platform, "parts": [(f"{platform}|{model}|{how}", tokens) for model, tokens in parts],
        "searches": count(tools.get("web_search_requests"), "web_search_requests"),
        "day": f"{at.astimezone(UTC):%Y-%m-%d}",
    }  # fmt: skip


def _digest(line: bytes) -> str:
    from hashlib import blake2b

    return "line:" + blake2b(line.strip(), digest_size=16).hexdigest()


def _add(state: State, record: Mapping[str, Any], prices: _Prices) -> None:
    """Keep the best record of each call, as the ledger does.

    A call is [worth, at, cost, tokens, side, request, platform, unpriced].
    """
    calls = state["calls"]
    key, request, side = record["id"], record["request"], record["side"]
    known = calls.get(key)
    if known and not side and not known[4] and request and known[5] and request != known[5]:
        key = f"{key} {request}"  # another attempt at the same message
        known = calls.get(key)
    tokens = list(map(sum, zip(*(tokens for _, tokens in record["parts"]), strict=True)))
    counts = [[*each[:3], each[3] + each[4]] for _, each in record["parts"]]
    worth = [tokens[1], sum(tokens), counts, -record["at_us"], not side]
    if not side and record["at_us"] >= state["last"][0]:
        lives = 3600 if tokens[4] else 300 if tokens[3] else state["last"][1]
        state["last"] = [record["at_us"], lives, any(tokens[2:])]
    if known is None or worth > known[0]:
        if known is not None and side and not known[4]:  # a copy leaves the call its request
            request, side = known[5], False
        cost, unpriced = prices.cost(record)
        calls[key] = [worth, record["at_us"], cost, tokens, side, request, record["platform"], unpriced]
    elif known[4] and not side:
        known[4:6] = [False, request]


# --- prices --------------------------------------------------------------------------------------------------------


class _Prices:
    """The rates of the SKUs that were met, kept with the state of the book's files."""

    def __init__(self, folder: str) -> None:
        self.book = _book_state()
        self._kept = f"{folder}/rates-{hash_of(self.book)}.json"
        said = _load(self._kept)
        self.rates: dict[str, Any] = (
            said["rates"] if said.get("v") == VERSION and said.get("book") == self.book else {}
        )

    def learn(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Ask the book for what is not known yet. This takes a tenth of a second, once a model."""
        wanted = {key for record in records for key, _ in record["parts"]}
        wanted |= {_search(record) for record in records if record["searches"]}
        if missing := wanted - self.rates.keys():
            from farthing.cli._statusline_slow import rates_of

            self.rates |= rates_of(missing)
            save(self._kept, {"v": VERSION, "book": self.book, "rates": self.rates})

    def cost(self, record: Mapping[str, Any]) -> tuple[int, bool]:
        """Picodollars of what has a price, and whether something has none."""
        costs = [self._part(key, record["at_us"], tokens) for key, tokens in record["parts"]]
        if record["searches"]:
            each = self.rates[_search(record)]
            costs.append(None if each is None else each * record["searches"])
        return sum(cost or 0 for cost in costs), None in costs

    def _part(self, key: str, at_us: int, tokens: Sequence[int]) -> int | None:
        prompt = sum(tokens) - tokens[1]
        for starts, ends, low, high, cached, each in self.rates[key]:
            if starts <= at_us < ends and low <= prompt < high:
                return sum(map(mul, tokens, each)) if cached or not sum(tokens[2:]) else None
        return None


def _search(record: Mapping[str, Any]) -> str:
    return f"search|{record['platform']}|{record['day']}"


def _book_state() -> str:
    """Of the files that prices and profiles come from: what changes when they do."""
    from farthing import __version__

    said = []
    own = os.path.join(os.path.dirname(os.path.dirname(__file__)), "prices")  # noqa: PTH118, PTH120
    config = os.environ.get("FARTHING_CONFIG") or "farthing.toml"
    for place in filter(None, (own, os.environ.get("FARTHING_BOOK"), config)):
        try:
            files = sorted((entry.path, entry.stat()) for entry in os.scandir(place))
        except NotADirectoryError:
            files = [(place, os.stat(place))]  # noqa: PTH116
        except FileNotFoundError:
            files = []
        said += [
            f"{path}:{stat.st_mtime_ns}:{stat.st_size}" for path, stat in files if path.endswith(".toml")
        ]
    return f"{__version__}:{hash_of(' '.join(said))}"


def hash_of(text: str) -> str:
    from zlib import crc32

    return f"{crc32(text.encode()):08x}"


# --- other sessions ------------------------------------------------------------------------------------------------


def totals_path(folder: str) -> str:
    """Of the folder we are in, as it may have a farthing.toml: its zone and budgets."""
    return f"{folder}/totals-{hash_of(os.getcwd())}.json"  # noqa: PTH109


def _totals(folder: str, now_us: int) -> dict[str, Any]:
    """What the last refresh found, {} if that is of another day; a new one is begun where it is time."""
    path = totals_path(folder)
    found = _load(path)
    current = found.get("v") == VERSION and found["day"][0] <= now_us < found["day"][1]
    wait_s = max(REFRESH_S, SHARE * found.get("took_s", 0)) if current else REFRESH_S // 4
    asked = f"{path}.asked"
    try:
        since_s = now_us / 1e6 - os.stat(asked).st_mtime  # noqa: PTH116
    except OSError:
        since_s = wait_s
    if not 0 <= since_s < wait_s:
        with open(asked, "wb"):  # noqa: PTH123 - the time of it is what counts
            pass
        _begin_refresh()
    return found if current else {}


def _begin_refresh() -> int:
    """Its process id. Nobody waits for it."""
    words = [sys.executable, "-m", "farthing", "statusline", "--refresh"]
    if hasattr(os, "posix_spawn"):
        nothing = os.open(os.devnull, os.O_RDWR)
        streams = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in range(3)]
        return os.posix_spawn(sys.executable, words, os.environ, file_actions=streams, setsid=True)
    import subprocess

    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet).pid  # noqa: S603


# --- the line ------------------------------------------------------------------------------------------------------


def summed(state: State, totals: Mapping[str, Any], session: str, now_us: int) -> dict[str, Any]:
    """Amounts in picodollars; None where other sessions are not known yet."""
    calls = list(state["calls"].values())
    tokens = [sum(each) for each in zip(*(call[3] for call in calls), strict=True)] or [0] * 5
    prompt = sum(tokens) - tokens[1]
    at_us, lives, cached = state["last"]
    found: dict[str, Any] = {
        "session": sum(call[2] for call in calls),
        "unpriced_calls": sum(call[7] for call in calls),
        "calls": len(calls),
        "today": None, "week": None, "budget": totals.get("budget"),
        "hit_rate": tokens[2] / prompt if prompt else None,
        "warm_s": max(0, (at_us - now_us) // 1_000_000 + lives) if cached else None,
        "list_value": bool(calls) and all(call[6] != "bedrock" for call in calls),
    }  # fmt: skip
    for name in ("today", "week") if totals else ():
        start = totals["day" if name == "today" else "week_days"][0]
        before = totals["sessions"].get(session, {}).get(name, 0)
        found[name] = totals[name] - before + sum(call[2] for call in calls if call[1] >= start)
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """For instance `$4.21 session · $18.02 today · $63.40 week (list value) · cache 91 %, warm 4 min`."""
    from farthing.money import show

    if not found["calls"]:
        said = found.get("told_usd")
        return "farthing: no calls yet" + (f"; Claude Code says ${said:.2f}" if said else "")
    money = [f"{show(found['session'])} session"]
    if found["today"] is not None:
        money.append(f"{show(found['today'])} today")
    if budget := found["budget"]:
        left = budget["limit"] - budget["spent"]
        said = f"{show(left)} left of" if left >= 0 else f"{show(-left)} over"
        money.append(f"{said} {budget['name'][:20]}")
    elif found["week"] is not None:
        money.append(f"{show(found['week'])} week")
    parts = [" · ".join(money) + (" (list value)" if found["list_value"] else "")]
    if found["hit_rate"] is not None:
        parts.append(f"cache {found['hit_rate'] * 100:.0f} %{_warm(found['warm_s'])}")
    if found["unpriced_calls"]:
        parts.append(f"{found['unpriced_calls']} calls unpriced")
    return " · ".join(parts)


def _warm(seconds: int | None) -> str:
    if seconds is None:
        return ""
    if not seconds:
        return ", cold"
    return f", warm {seconds // 60} min" if seconds >= 60 else f", warm {seconds} s"


def as_json(found: Mapping[str, Any]) -> str:
    """The same, exact."""
    from json import dumps

    from farthing.money import usd

    said = {
        name: value for name, value in found.items() if name not in ("session", "today", "week", "budget")
    }
    amounts = {f"{name}_usd": found[name] and usd(found[name]) for name in ("session", "today", "week")}
    amounts = {name: "0" if value == 0 else value for name, value in amounts.items()}
    budget = found["budget"] and {
        "name": found["budget"]["name"],
        "limit_usd": usd(found["budget"]["limit"]),
        "spent_usd": usd(found["budget"]["spent"]),
    }
    return dumps(amounts | {"budget": budget} | said)


# --- files ---------------------------------------------------------------------------------------------------------


def _decode(text: bytes) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            found = _decode(file.read())
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}


def save(path: str, content: Mapping[str, Any]) -> None:
    """In one step, so that another status line reads the old or the new."""
    import json

    beside = f"{path}.{os.getpid()}"
    with open(beside, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(json.dumps(content, separators=(",", ":")))
    os.replace(beside, path)  # noqa: PTH105


def _safe(name: str) -> str:
    """A session's id as a file name, whatever it is."""
    return name if name.replace("-", "").isalnum() and len(name) <= 80 else hash_of(name)
