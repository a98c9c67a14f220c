"""What is fuzzed: each target takes any bytes and raises if they lead to anything but an answer or a clean refusal.

Used by test_fuzz.py with the mutations of mutate.py, and by guided.py with atheris. What both begin with is `seeds`:
samples of ours, and what is kept in corpus/.
"""

import gzip
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from farthing.book import Unpriced, default_book
from farthing.config import ConfigError, load
from farthing.importers import _task, _wire
from farthing.importers._batch import Reject
from farthing.importers._open import Cut
from farthing.importers._read import reason
from farthing.offers import OfferError, read_offers
from farthing.policy import PolicyError
from farthing.policy._file import parse
from farthing.pricelist import PriceListError
from farthing.pricelist._overlay import laid
from farthing.usage import Rejected, parse_model_id, read_usage
from farthing.wire import Answers, Events, FrameError, Frames, Route, ask, encode, event, route, safe_model_id

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent / "importers"
LATEST_US = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
BOOK = default_book()
CLEAN = (
    Rejected,
    msgspec.MsgspecError,
    UnicodeError,
    RecursionError,
    Cut,
)  # what an importer may say of a line
MOST_REASON = 160

Target = Callable[[bytes], None]
INT64 = 2**63


# --- importers -----------------------------------------------------------------------------------------------------


class Gather(_task._Gather):
    """As in an import, but a fault of the format itself is not taken for a bad line."""

    def all(self, form, path):
        while True:
            try:
                yield from self._some(form, path)
            except CLEAN as error:
                if isinstance(error, Cut):
                    raise
                self.reject(Reject(self._lines.number, reason(error)))
            else:
                return


def imported(data: bytes, name: str = "") -> list[_task.Frame]:
    """All frames of a file of these bytes; they account for all that was read, and pass between processes whole."""
    gather = Gather(LATEST_US)
    part = _task.Range("fuzzed", named=True)
    found = [*_task._read(gather, part, 0, name, io.BytesIO(data)), gather.frame()]
    for frame in found:
        accounted = len(frame.usages) + frame.superseded + frame.duplicates + frame.rejected
        assert frame.read == accounted, f"{frame.read} records were read and {accounted} accounted for"
        assert _wire.unpack_frame(_wire.pack_frame(frame)) == frame
        for usage in frame.usages:
            for _, tokens in usage.parts:
                assert all(0 <= count < INT64 for count in tokens)
            assert 0 <= (usage.latency_ms or 0) < INT64, f"a latency of {usage.latency_ms} ms"
        for total in frame.totals:
            assert 0 <= total.value < 10**38
            assert total.start_us <= total.end_us < INT64
    (end,) = (end for frame in found for end in frame.ends)
    assert end.read == sum(frame.read for frame in found)
    assert end.rejected == sum(frame.rejected for frame in found)
    for reject in end.rejects:
        assert 0 < len(reject.reason) <= MOST_REASON, reject
        assert "\n" not in reject.reason
    assert all(0 < reject.line <= end.lines + 1 for reject in end.rejects)
    return found


def importer(name: str) -> Target:
    def target(data: bytes) -> None:
        imported(data, name)

    return target


def any_format(data: bytes) -> None:
    """Nothing says what it is; it may be packed."""
    imported(data)


GOOD = {
    name: [line for line in (SAMPLES / sample).read_bytes().splitlines() if line.strip()][:4]
    for name, sample in {
        "bedrock_log": "bedrock_log.facts.jsonl",
        "claude_code": "claude_code.session.jsonl",
        "outbox": "outbox.calls.jsonl",
        "bedrock_batch": "bedrock_batch.invoke.jsonl",
    }.items()
    if (SAMPLES / sample).exists()
}


def said(frames: list[_task.Frame]) -> set[str]:
    return {name for frame in frames for usage in frame.usages for name in usage.ids}


def beside(data: bytes) -> None:
    """A bad line, wherever it stands, takes none of the good ones with it."""
    name = sorted(GOOD)[data[0] % len(GOOD)] if data else "outbox"
    good, bad = GOOD[name], data[2:].replace(b"\n", b" ").replace(b"\r", b" ")
    at = 1 + data[1] % len(good) if len(data) > 1 else 1
    alone = said(imported(b"\n".join(good), name))
    found = said(imported(b"\n".join([*good[:at], bad, *good[at:]]), name))
    assert alone <= found, f"{name}: {alone - found} were lost beside another line"


# --- the wire ------------------------------------------------------------------------------------------------------


def cut(data: bytes) -> Iterator[bytes]:
    """The rest of the data, in chunks as long as its first byte says."""
    size = 1 + (data[0] if data else 0)
    return (data[at : at + size] for at in range(1, len(data), size))


def fed(splitter: Frames | Events, chunks: Iterator[bytes]) -> list[object]:
    found: list[object] = []
    try:
        for chunk in chunks:
            found += splitter.feed(chunk)
    except FrameError as error:
        found.append(str(error))
    return found


def frames(data: bytes) -> None:
    """Any chunks give the same frames; what is read is written in the same way again."""
    whole, pieces = fed(Frames(), iter([data[1:]])), fed(Frames(), cut(data))
    assert pieces == whole or (
        isinstance(whole[-1], str) and pieces[-1:] == whole
    )  # what was good came before
    text = data[1:40].decode("latin-1")[:30].encode()[:200].decode(errors="ignore")
    frame = encode({":event-type": text, text[:60]: "x"}, data)
    (back,) = Frames().feed(frame)
    assert back.payload == data
    assert back.headers == {":event-type": text, text[:60]: "x"}
    if data:  # one bit that has turned is seen
        at = int.from_bytes(data[:2], "big") % len(frame)
        bent = frame[:at] + bytes([frame[at] ^ 1 << data[-1] % 8]) + frame[at + 1 :]
        assert [one for one in fed(Frames(), iter([bent])) if not isinstance(one, str)] == []


def sealed(data: bytes) -> None:
    """Headers of any bytes in a frame whose checksums are right."""
    packed = data[1 : 1 + (data[0] if data else 0)]
    head = (16 + len(data) + len(packed)).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    body = head + zlib.crc32(head).to_bytes(4, "big") + packed + data
    found = fed(Frames(), iter([body + zlib.crc32(body).to_bytes(4, "big")]))
    assert len(found) == 1


def sse(data: bytes) -> None:
    """Any chunks give the same events."""
    whole = fed(Events(), iter([data[1:]]))
    assert fed(Events(), cut(data)) == whole
    text = data.replace(b"\r", b"").replace(b"\n", b"")
    assert Events().feed(event("x", b"{" + text)) == [b"{" + text]


_ROUTES = (
    (
        Route("InvokeModelWithResponseStream", "bedrock", "m", streamed=True),
        "application/vnd.amazon.eventstream",
    ),
    (Route("Messages", "anthropic"), "text/event-stream"),
    (Route("Converse", "bedrock", "m"), "application/json"),
)


def answers(data: bytes) -> None:
    """The meter of a response never raises and never tells counts that are none; any request is read or refused."""
    pick = data[0] if data else 0
    of, kind = _ROUTES[pick % 3]
    encoding = ("", "gzip", "zstd", "br")[pick // 3 % 4]
    status = 200 if pick < 200 else 429
    said = Answers(of, status, {"content-type": kind, "content-encoding": encoding})
    body = data[1:]
    if pick % 3 == 0 and pick % 2:
        body = encode({":event-type": "metadata" if pick % 4 == 1 else "chunk"}, body)
    for chunk in cut(bytes([200]) + body):
        said.feed(chunk)
    told = said.done()
    if told.usage is not None:
        with suppress(Rejected):
            read_usage(told.usage)
    with suppress(Rejected):
        ask(of, body)


def ids(data: bytes) -> None:
    """An id is priced or named as unpriced; what is safe stays one segment of a path, and comes back from it."""
    text = data.decode("utf-8", "surrogateescape") if data[:1] == b"\xff" else data.decode("utf-8", "replace")
    parsed = parse_model_id(text)
    assert parse_model_id(f"  {text} ") == parsed
    found = BOOK.resolve(text)
    if isinstance(found, Unpriced):
        assert found.reason
    else:
        assert BOOK.cards(found.sku) or "no" in str(BOOK.find(found.sku, datetime(2026, 11, 1, tzinfo=UTC)))
    routed = route("POST", "/model/" + text + "/converse")
    if routed is not None:
        assert ".." not in routed.model
        assert "\n" not in routed.model
    if safe_model_id(text):
        again = route("POST", f"/model/{quote(text, safe='')}/converse")
        assert again is not None
        assert again.model == text
    for verb in ("GET", "POST", "DELETE"):
        route(verb, "/" + text)
        route(verb, "/v1/messages/batches/" + text)


def usage_blocks(data: bytes) -> None:
    """Any block of any dialect has counts, or is rejected."""
    try:
        block = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        found = read_usage(block)
    except Rejected:
        return
    assert found.parts
    assert all(isinstance(count, int) and count >= 0 for part in found.parts for count in part.tokens)


# --- TOML ----------------------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_SHARED = Path("/dev/shm")  # files in memory, where the system has them
_FILE = Path(tempfile.mkdtemp(dir=_SHARED if _SHARED.is_dir() else None)) / "farthing.toml"


def refused(place: str, error: Exception) -> None:
    """A refusal is one line that begins with the file."""
    assert str(error).startswith(place)


def config(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        load(_FILE)
    except ConfigError as error:
        refused(str(_FILE), error)


def policy(data: bytes) -> None:
    try:
        parse(data, "policy.toml")
    except PolicyError as error:
        refused("policy.toml", error)


def overlay(data: bytes) -> None:
    try:
        laid(BOOK, _text(data), "overlay.toml")
    except PriceListError as error:
        refused("overlay.toml", error)


def offers(data: bytes) -> None:
    try:
        read_offers(_text(data), "offers.toml", BOOK)
    except OfferError as error:
        refused("offers.toml", error)


TARGETS: dict[str, Target] = {
    **{f"import_{name}": importer(name) for name in _task.formats()},
    "any_format": any_format, "beside": beside, "frames": frames, "sealed": sealed, "sse": sse,
    "answers": answers, "ids": ids, "usage_blocks": usage_blocks, "config": config, "policy": policy,
    "overlay": overlay, "offers": offers,
}  # fmt: skip


# --- what they begin with ------------------------------------------------------------------------------------------


OVERLAY = b"""
[[claude-opus-5.price]]
from = 2026-11-20
input = "4"
output = "20"
endpoints = ["global"]
source = "an example"

[claude-new-1]
name = "Claude New 1"
released = 2026-11-01

[[claude-new-1.price]]
from = 2026-11-01
input = "1"
output = "5"
"""


def _toml(page: str) -> list[bytes]:
    text = (HERE.parent.parent / "docs" / page).read_text(encoding="utf-8")
    return [found.encode() for found in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]


def _of_importer(name: str) -> Iterator[bytes]:
    for path in sorted(SAMPLES.glob(f"{name}.*")):
        if path.suffix == ".expected":
            continue
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        lines = content.splitlines()
        yield content[:4_000]
        yield from lines[:6] if path.suffix != ".json" else ()


def seeds(name: str) -> list[bytes]:
    """Good beginnings for a target, then what is kept of earlier finds."""
    found: list[bytes] = []
    if name.startswith("import_"):
        found += _of_importer(name.removeprefix("import_"))
    elif name == "any_format":
        found += [path.read_bytes()[:3_000] for path in sorted(SAMPLES.glob("*.gz"))]
    elif name == "beside":
        found += [bytes([at, at]) + line for at, lines in enumerate(GOOD.values()) for line in lines]
    elif name in ("frames", "sealed"):
        found.append(
            b"\x05" + encode({":event-type": "chunk", ":message-type": "event"}, b'{"bytes":"e30="}')
        )
        found.append(b"\x13\x03abc\x07\x00\x03def\x03xyz\x04aaaa")
    elif name in ("sse", "answers", "usage_blocks"):
        usage = b'{"input_tokens":3,"output_tokens":4,"cache_creation":{"ephemeral_1h_input_tokens":2}}'
        start = (
            b'{"type":"message_start","message":{"id":"msg_1","model":"claude-opus-5","usage":'
            + usage
            + b"}}"
        )
        delta = b'{"type":"message_delta","usage":' + usage + b"}"
        converse = (
            b'{"usage":{"inputTokens":1,"outputTokens":2,"cacheDetails":[{"ttl":"1h","inputTokens":3}]}}'
        )
        found += [usage, b"\x01" + event("message_start", start) + event("message_delta", delta)]
        found += [b"\x02" + converse, converse[9:-1], b"\x01" + converse, b"\x09" + start]
    elif name == "ids":
        found += [one.encode() for model in BOOK.models.values() for one in model.ids[:3]]
        arn = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abc"
        found += [arn.encode(), b"us.anthropic.claude-opus-5:200k", b"global.anthropic.claude-sonnet-4-6[1m]"]
    elif name == "overlay":
        prices = HERE.parent.parent / "farthing/prices"
        found += [OVERLAY, *(path.read_bytes()[:6_000] for path in sorted(prices.glob("*.toml")))]
    else:
        page = {"config": "configuration.md", "policy": "policy.md", "offers": "contracts.md"}[name]
        found += _toml(page)
    folder = HERE / "corpus" / name
    return found + [path.read_bytes() for path in sorted(folder.glob("*"))]


def run(name: str, data: bytes) -> None:
    """One execution; a config is not to be read from the environment."""
    TARGETS[name](data)


for _variable in [name for name in os.environ if name.startswith("FARTHING_")]:
    del os.environ[_variable]
