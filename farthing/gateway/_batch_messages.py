"""Anthropic's message batches. They have neither names nor tokens: one that nobody noted is known by its results.

So whoever does not know whether it has begun a batch (it was killed, or no answer came) looks through those of the
account: only a batch that has ended, or has another number of requests, is certainly another. Until that is told, and
until what was on its way must have arrived, nothing is begun anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from farthing.gateway._batch_clock import HOUR, SECOND
from farthing.gateway._batch_far import Declined, Fault, Outcome, Status, Unsure
from farthing.gateway._batch_http import Http
from farthing.gateway._batch_queue import Job

_PATH = "/v1/messages/batches"
_ARRIVED_US = 120 * SECOND  # after which a request that was sent is there, if it ever is
_WINDOW_US = 48 * HOUR  # before a job was planned, by our clock: theirs may be another
_FINAL = ("invalid_request_error", "not_found_error", "request_too_large")


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""
    error: _Error | None = None


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


_line = msgspec.json.Decoder(_Line)


class Messages:
    """The batches of one workspace."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def begin(self, job: Job, records: Sequence[tuple[str, bytes]]) -> str:
        asked = b",".join(
            b'{"custom_id":"%b","params":%b}' % (attempt.encode(), body) for attempt, body in records
        )
        return str(self._ask("POST", _PATH, b'{"requests":[%b]}' % asked)["id"])

    def find(self, job: Job, attempts: Sequence[str], known: Sequence[str], now_us: int) -> str:
        """The batch that has these attempts. Unsure while one that may be it has not ended, or may still arrive."""
        unsure = ""
        for batch in self._since(job.made_us - _WINDOW_US):
            if batch["id"] in known or sum(batch["request_counts"].values()) != job.records:
                continue
            if batch["processing_status"] != "ended":
                unsure = batch["id"]
                continue
            if not batch.get("results_url"):  # archived, after 29 days
                continue
            first = next(self._results(batch["id"]), None)
            if first is not None and first.attempt in attempts:
                return str(batch["id"])
        if unsure:
            raise Unsure(f"{unsure} may hold these requests: its results will tell")
        if now_us < job.tried + _ARRIVED_US:
            raise Unsure("it was sent and not answered: it may still arrive")
        return ""

    def _since(self, at_us: int) -> Iterator[dict[str, Any]]:
        query = "?limit=100"
        while True:
            page = self._ask("GET", _PATH + query)
            for batch in page["data"]:
                if _us(batch["created_at"]) < at_us:
                    return
                yield batch
            if not page.get("has_more"):
                return
            query = f"?limit=100&after_id={page['last_id']}"

    def status(self, job: Job) -> Status:
        told = self._ask("GET", f"{_PATH}/{job.remote}")
        counts = told["request_counts"]
        ended = told["processing_status"] == "ended"
        at_us = _us(told["ended_at"]) if told.get("ended_at") else 0
        done = sum(counts.values()) - counts["processing"]
        return Status(told["processing_status"], ended, done, counts["succeeded"], "", at_us)

    def stop(self, job: Job) -> None:
        self._ask("POST", f"{_PATH}/{job.remote}/cancel")

    def results(self, job: Job) -> Iterator[Outcome]:
        return self._results(job.remote)

    def _results(self, name: str) -> Iterator[Outcome]:
        said = self._http.anthropic("GET", f"{_PATH}/{name}/results")
        if said.status != 200:
            raise Fault(f"results of {name}: {said.status or said.fault}")
        for line in said.body.splitlines():
            found = _line.decode(line)
            result = found.result
            if result.type == "succeeded":
                yield Outcome(found.custom_id, bytes(result.message))
            elif result.type == "errored":
                error = result.error or _Error()
                error = error.error or error
                text = f"{error.type}: {error.message}"[:300]
                yield Outcome(found.custom_id, error=text, final=error.type in _FINAL)
            else:  # canceled, expired
                yield Outcome(found.custom_id, error=result.type, done=False)

    def clean(self, job: Job) -> None:
        """Anthropic forgets results by itself after 29 days."""

    def _ask(self, method: str, path: str, body: bytes = b"") -> Any:
        said = self._http.anthropic(method, path, body)
        if said.status != 200:
            sure = (400 <= said.status < 500 and said.status != 408) or not said.sent
            raise (Declined if sure else Fault)(
                f"{method} {path.partition('?')[0]}: {said.status or ''} {said.fault or _told(said.body)}"
            )
        return msgspec.json.decode(said.body)


def _told(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body, type=_Error)
    except msgspec.MsgspecError:
        return ""
    return (error.error or error).message[:200]


def _us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000
