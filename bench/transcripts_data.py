"""Claude Code transcripts: sessions with their subagents, resumed sessions that copy history, and much besides.

About a third of the lines are an assistant's, one for each block of content: the lines of one message share
its id and counts, and only the output grows. Other lines hold tool results, progress and snapshots, without
usage of their own. The sums that an exact reader finds are kept; reading the first or every copy misses them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from bench.made import keep
from bench.text import Filler

SEED = 13
PROJECTS = 40
BATCH_BYTES = 8_000_000  # written from one seed by one process
MODELS = ("claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5-20251001")
VERSION = "2.1.39"


def make_transcripts(folder: Path, size: int) -> dict[str, Any]:
    """About `size` bytes under folder/projects, unless they are there."""

    def write(folder: Path) -> dict[str, Any]:
        totals: Counter[str] = Counter()
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), get_context("spawn")) as pool:
            for told in pool.map(partial(_batch, folder), range(max(1, size // BATCH_BYTES))):
                totals.update(told)
        return dict(totals)

    return keep(folder, Path(__file__).read_text(encoding="utf-8"), write)


def _batch(folder: Path, number: int) -> Counter[str]:
    random = Random(SEED * 100_000 + number)
    filler = Filler(random)
    totals: Counter[str] = Counter()
    earlier: list[str] = []
    while totals["bytes"] < BATCH_BYTES:
        session = _Session(random, filler, totals)
        project = folder / "projects" / f"-home-dev-project-{random.randrange(PROJECTS)}"
        lines = list(session.lines(random.randrange(10, 90)))
        if earlier and random.random() < 0.05:  # resumed: history first, with the old ids
            lines = [*earlier[: random.randrange(5, 60)], *lines]
        _write(project / f"{session.name}.jsonl", lines, totals)
        for _ in range(random.choices((0, 1, 2, 3), (60, 20, 12, 8))[0]):
            agent = f"{random.getrandbits(28):07x}"
            lines = list(session.lines(random.randrange(3, 25), agent))
            _write(project / session.name / "subagents" / f"agent-{agent}.jsonl", lines, totals)
        earlier = lines
    return totals


def _write(path: Path, lines: list[str], totals: Counter[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(content)
    totals.update(files=1, lines=len(lines), bytes=len(content))


class _Session:
    """Lines of one session and of its subagents; the context grows from message to message."""

    def __init__(self, random: Random, filler: Filler, totals: Counter[str]) -> None:
        self.random, self.filler, self.totals = random, filler, totals
        self.name = self._uuid()
        self.second = random.randrange(31 * 86_400)
        self.bedrock = random.random() < 0.1

    def lines(self, messages: int, agent: str = "") -> Iterator[str]:
        model = self.random.choice(MODELS)
        context = 14_000
        yield self._line("user", f'"message":{{"role":"user","content":"{self.filler.text(300)}"}}', agent)
        for _ in range(messages):
            grown = self.random.randrange(200, 4_000)
            yield from self._message(model, context, grown, agent)
            context = 14_000 if context > 150_000 else context + grown
            for _ in range(self.random.choices((0, 1, 4), (40, 35, 25))[0]):
                yield self._progress(agent)
            yield self._tool_result(agent)
            if self.random.random() < 0.05:
                yield self._snapshot()

    def _message(self, model: str, read: int, written: int, agent: str) -> Iterator[str]:
        """One message as a line a block. Its usage differs from line to line in the output alone."""
        long = self.random.random() < 0.3 and not agent
        short, hour = (0, written) if long else (written, 0)
        output, blocks = self.random.randrange(20, 1_500), self.random.choices((1, 2, 3), (35, 45, 20))[0]
        fresh = self.random.randrange(1, 12)
        self.totals.update(messages=1, input=fresh, output=output, read=read, written=written)
        digits = f"{self.random.getrandbits(96):024x}"
        message = f"msg_{'bdrk_' if self.bedrock else ''}01{digits[:22]}"
        for number in range(blocks):
            last = number == blocks - 1
            said = output if last else min(output, 9)
            usage = (
                f'{{"input_tokens":{fresh},"cache_creation_input_tokens":{written},"cache_read_input_tokens":{read},'
                f'"cache_creation":{{"ephemeral_5m_input_tokens":{short},"ephemeral_1h_input_tokens":{hour}}},'
                f'"output_tokens":{said},"service_tier":"standard","inference_geo":"not_available"}}'
            )
            yield self._line(
                "assistant",
                f'"message":{{"model":"{model}","id":"{message}","type":"message","role":"assistant","content":'
                f'[{self._block(last)}],"stop_reason":null,"stop_sequence":null,"usage":{usage}}},"requestId":"req_011{digits[:20]}"',
                agent,
            )

    def _block(self, last: bool) -> str:
        """Thinking or text first, a call of a tool last."""
        random, text = self.random, self.filler.text
        if last:
            return (
                f'{{"type":"tool_use","id":"toolu_01{random.getrandbits(64):016x}","name":"Edit","input":'
                f'{{"file_path":"/home/dev/src/module.py","old_string":"{text(random.randrange(50, 900))}"}}}}'
            )
        if random.random() < 0.5:
            signature = f"{random.getrandbits(2_400):0600x}"
            return f'{{"type":"thinking","thinking":"{text(random.randrange(80, 900))}","signature":"{signature}"}}'
        return f'{{"type":"text","text":"{text(random.randrange(40, 700))}"}}'

    def _tool_result(self, agent: str) -> str:
        """What a tool gave, twice, as Claude Code writes it: for the model, and for itself."""
        size = min(60_000, int(self.random.lognormvariate(8.1, 1.1)))
        text = self.filler.text(size)
        tool = f"toolu_01{self.random.getrandbits(64):016x}"
        return self._line(
            "user",
            f'"message":{{"role":"user","content":[{{"tool_use_id":"{tool}","type":"tool_result","content":'
            f'"{text}","is_error":false}}]}},"toolUseResult":{{"stdout":"{text}","stderr":"","interrupted":false}}',
            agent,
        )

    def _progress(self, agent: str) -> str:
        data = f'{{"type":"bash_progress","output":"{self.filler.text(500)}","elapsedTimeSeconds":3,"totalLines":40}}'
        return self._line(
            "progress", f'"data":{data},"toolUseID":"toolu_01{self.random.getrandbits(64):016x}"', agent
        )

    def _snapshot(self) -> str:
        files = ",".join(f'"src/file_{i}.py":{{"backupFileName":"{i}@v1","version":1}}' for i in range(12))
        return (
            f'{{"type":"file-history-snapshot","messageId":"{self._uuid()}","snapshot":'
            f'{{"trackedFileBackups":{{{files}}},"timestamp":"{self._stamp()}"}},"isSnapshotUpdate":false}}'
        )

    def _line(self, kind: str, inner: str, agent: str) -> str:
        side = f'"isSidechain":true,"agentId":"{agent}",' if agent else '"isSidechain":false,'
        return (
            f'{{"parentUuid":"{self._uuid()}",{side}"userType":"external","cwd":"/home/dev/project",'
            f'"sessionId":"{self.name}","version":"{VERSION}","gitBranch":"main",{inner},"type":"{kind}",'
            f'"uuid":"{self._uuid()}","timestamp":"{self._stamp()}"}}'
        )

    def _stamp(self) -> str:
        self.second += self.random.randrange(4)
        day, rest = divmod(min(self.second, 31 * 86_400 - 1), 86_400)
        millis = self.random.randrange(1_000)
        return f"2026-10-{day + 1:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{millis:03}Z"

    def _uuid(self) -> str:
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
