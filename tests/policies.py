"""What tests of policies share: a workload, a call of it, entries, and advice as the optimiser gives it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from farthing.config import Config, Workload
from farthing.optimise._advice import Advice, Change, Interval
from farthing.policy import Entry, Marker, Request, Selectors, write

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
DAY = timedelta(days=1)
SUPPORT = {"support": Selectors(tags=("app=support",))}
CALL = Request("eu.anthropic.claude-sonnet-4-6", region="eu-west-1", tags={"app": "support"}, key="k1")
CONFIG = Config(workloads={"support": Workload(tags=("app=support",))})
APPROVED: dict[str, Any] = {"approver": "Ada", "approved_at": "2026-11-20", "expires": "2027-02-01"}
GLOBAL = Entry("support", "endpoint", "claude-sonnet-4-6", endpoint="global", **APPROVED)
MARKERS = (Marker("system", "1h"), Marker("end", "5m"))
CACHE = Entry("support", "cache", "claude-sonnet-4-6", markers=MARKERS, **APPROVED)
HOUR = Entry("support", "ttl", "claude-sonnet-4-6", ttl="1h", **APPROVED)
BATCH = Entry("support", "batch", "claude-sonnet-4-6", deadline="6h", **APPROVED)
HAIKU = Entry("support", "model", "claude-sonnet-4-6", use="claude-haiku-4-5", verdict="v.json", **APPROVED)


GOOD = """
[workloads.support]
tags = ["app=support"]

[[entries]]
workload = "support"
lever = "endpoint"
endpoint = "global"
approver = "Ada"
approved_at = "2026-11-20"
expires = "2027-02-01"
"""


def advice(kind="profile", data=None, lever="endpoint", counts=True, **changed):
    left, saved = Interval(*[18 * 10**12] * 3), Interval(10**12, 2 * 10**12, 3 * 10**12)
    change = Change(kind, "call the global profile", "", "", {"routing": "global"} if data is None else data)
    made = Advice(
        "support", "claude-sonnet-4-6", lever, "says", 20 * 10**12, None, left, saved, 0, "", "1.5", True, True, True,
        counts, "" if counts else "its owner does not allow it", True, "", "", 0, "", change,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def put(path, *advices, now=NOW, **how):
    return write(advices, path, "Ada", "2027-02-01", now=now, config=CONFIG, book="b00c", **how)
