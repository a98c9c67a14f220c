"""A trace of hashes played as requests: blocks become made-up texts of as many tokens, and the clock goes along."""

import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from farthing.cache import POLICIES, Cards, Trace, bound, select, simulate
from farthing.cache._policies import GUARDS
from farthing.cache._trace import radix_with
from farthing.meters import Vector

SESSIONS = "claude_code_kv_traces/sessions.jsonl.gz"
RATES = Vector(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)  # Sonnet 4.6, global, as published
MINIMUM = 1_024
MODEL = "global.anthropic.claude-sonnet-4-6"


class Call(NamedTuple):
    """`body` is a request of InvokeModel; `output` how many tokens were answered."""

    at_us: int
    session: str
    body: bytes
    output: int


def sessions(file: Path, most: int = 0, *, shortest: int = 0) -> Trace:
    """The trace; with `most`, of so many sessions: a line each. Or of so many that have the fewest tokens."""
    from farthing.cli._opened import sources
    from farthing.traces import read_traces

    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder) / "some.jsonl"
        if most:
            with gzip.open(file) as lines:
                some.write_bytes(b"".join(islice(lines, most)))
        trace = read_traces(sources(str(some if most else file), []), b"key").trace
    if not shortest:
        return trace
    reached = np.concatenate([[0], np.cumsum(trace.sizes[trace.nodes])])
    prompts = reached[trace.starts[1:]] - reached[trace.starts[:-1]] + trace.plain
    tokens = np.bincount(trace.namespace, weights=prompts)
    return select(trace, np.isin(trace.namespace, np.argsort(tokens, kind="stable")[:shortest]))


def calls(trace: Trace, *, marked: str = "") -> Iterator[Call]:
    """In order of time. `marked`: with a cache point of the client's own behind what is whole, for so long.

    Blocks end where prompts part, and at the places before the end at which policies mark: as they do in `simulate`.
    """
    made, _ = radix_with(trace, GUARDS)
    first = int(made.at_us[0])
    for i in range(made.requests):
        nodes = made.nodes[made.starts[i] : made.starts[i + 1]].tolist()
        blocks = [_block(node, int(made.sizes[node])) for node in nodes]
        if marked and blocks:
            blocks[-1] = blocks[-1][:-1] + _POINTS[marked]
        if made.plain[i]:
            blocks.append(_block(-1 - i, int(made.plain[i])))
        yield Call(
            int(made.at_us[i]) - first,
            f"session {made.namespace[i]}",
            _body(blocks, int(made.system[i])),
            int(made.output[i]),
        )


_POINTS = {
    "5m": b',"cache_control":{"type":"ephemeral"}}',
    "1h": b',"cache_control":{"type":"ephemeral","ttl":"1h"}}',
}


@lru_cache(maxsize=20_000)
def _block(node: int, tokens: int) -> bytes:
    text = (f"{node}:" + "etaoin shrdlu " * (tokens // 3 + 1))[: 4 * tokens]
    return b'{"type":"text","text":%s}' % json.dumps(text).encode()


def _body(blocks: Sequence[bytes], system: int) -> bytes:
    messages = blocks[system:] or [b'{"type":"text","text":"go"}']
    said = b",".join(
        b'{"role":"%s","content":[%s]}' % (b"user" if at % 2 == 0 else b"assistant", block)
        for at, block in enumerate(messages)
    )
    stem = b'"system":[%s],' % b",".join(blocks[:system]) if system else b""
    return b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":50,%s"messages":[%s]}' % (stem, said)


def figures(trace: Trace) -> dict[str, int]:
    """What the trace comes to by the rules, in picodollars: the bound, and the policies it is compared with."""
    found: dict[str, Any] = {
        name: simulate(trace, POLICIES[name], RATES, MINIMUM).cost
        for name in ("none", "end_5m", "end_1h", "adaptive_unpinged")
    }
    return {"bound": bound(radix_with(trace, ())[0], MINIMUM, Cards.one(RATES, trace)), **found}
