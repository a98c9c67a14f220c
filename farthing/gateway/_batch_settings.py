"""How a queue is worked on. Told once, it is kept with the queue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from farthing.gateway._batch_plan import SEND_US, Margin, Pace, pace
from farthing.gateway._batch_queue import Group, Queue, QueueError

_KEY = "settings"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Times are in seconds, `bedrock`, `runtime`, `s3_endpoint` and `anthropic` are URLs. 0 and "" are the usual."""

    s3: str = ""  # s3://bucket/prefix, for the files of Bedrock's jobs
    role_arn: str = ""  # which Bedrock reads and writes them as
    region: str = ""
    account: str = ""
    profile: str = ""
    bedrock: str = ""
    runtime: str = ""  # for what is sent by itself; else as `bedrock`
    s3_endpoint: str = ""
    anthropic: str = "https://api.anthropic.com"
    outbox: str = ""
    budgets: str = ""
    config: str = ""
    size: int = 1000  # requests of a job, where nothing presses
    margin_s: int = 900  # before a deadline, for what came to nothing
    poll_s: int = 60
    senders: int = 8
    least: int = 0  # records of a job; else as Service Quotas says
    most: int = 0
    jobs: int = 0
    hits: int = 0  # percent of prompts that would be read from the cache, were they sent at once
    again: bool = False  # send once more what was cut off on its way, though it may have been paid

    def margin(self, send_us: int) -> Margin:
        return Margin(self.margin_s * 1_000_000, send_us, self.senders)

    def outbox_of(self, queue: Queue) -> Path:
        return Path(self.outbox) if self.outbox else queue.folder / "outbox"

    def fault(self) -> str:
        """What cannot be, with the mend."""
        if self.s3 and not self.s3.removeprefix("s3://").strip("/"):
            return f"s3 = {self.s3!r}: write s3://BUCKET/PREFIX"
        if self.s3 and not self.s3.startswith("s3://"):
            return f"s3 = {self.s3!r}: write s3://BUCKET/PREFIX"
        if not 0 <= self.hits <= 100:
            return f"hits = {self.hits}: write percent, 0 to 100"
        if (
            min(self.size, self.senders, self.poll_s) < 1
            or min(self.margin_s, self.least, self.most, self.jobs) < 0
        ):
            return "sizes, senders and seconds count from 1, limits from 0"
        return ""


def kept(queue: Queue, changes: Mapping[str, Any] = {}) -> Settings:
    """The queue's settings, with these changes, which are kept. QueueError if they make no sense."""
    said = queue.meta(_KEY)
    settings = msgspec.json.decode(said, type=Settings) if said else Settings()
    if changes:
        try:
            settings = msgspec.convert(msgspec.to_builtins(settings) | dict(changes), Settings)
        except msgspec.ValidationError as error:
            raise QueueError(f"settings: {error}") from None
        if fault := settings.fault():
            raise QueueError(fault)
        queue.set_meta(_KEY, msgspec.json.encode(settings).decode())
    return settings


def margin_of(queue: Queue, settings: Settings) -> Margin:
    """By how long sending took lately."""
    return settings.margin(int(queue.meta("send_us") or SEND_US))


def pace_of(queue: Queue, group: Group) -> Pace:
    """From jobs of the same requests; from all of the platform while there are none."""
    ended = (
        "SELECT ended_us - created_us FROM jobs WHERE platform = ? AND state = 'collected' "
        "AND status IN ('Completed', 'ended') AND stopping = 0 "
    )
    for more, values in ((" AND model = ? AND kind = ?", tuple(group)), ("", (group.platform,))):
        found = queue.rows(f"{ended}{more} ORDER BY ended_us DESC LIMIT 20", values)
        if found:
            return pace([row[0] for row in reversed(found)])
    return pace([])
