"""Model invocation logs as Bedrock delivers them: gzipped JSON lines by account, region and hour, large bodies apart.

Calls of mantle and of batch jobs are never in them. They go to a folder, to a bucket, or to both, some at a time.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from farthing.emulator._moments import compact, hour_path, iso

if TYPE_CHECKING:
    from farthing.emulator._world import Call, Caller
    from farthing.meters import Vector
    from farthing.wire import Route

LARGE = 100_000  # bytes of a body, above which it is beside the record
MOST_HELD = 5_000  # records, before they are written
_FOLDER = "BedrockModelInvocationLogs"
_encoder = msgspec.json.Encoder()


class Held(NamedTuple):
    """Records by their folder, with their times; bodies by their key."""

    records: dict[str, list[tuple[int, bytes]]]
    beside: list[tuple[str, bytes]]


class Logs:
    """Records that wait to be written, by the folder they go to. Does nothing where no place is named."""

    def __init__(self, folder: Path | None = None, bucket: str = "", client: Any = None) -> None:
        self._folder, self._client = folder, client
        self._bucket, _, prefix = bucket.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._held: dict[str, list[tuple[int, bytes]]] = {}
        self._beside: list[tuple[str, bytes]] = []
        self._count = self._files = 0

    @property
    def wanted(self) -> bool:
        return self._folder is not None or bool(self._bucket)

    @property
    def full(self) -> bool:
        """Whether it is time to write."""
        return self._count >= MOST_HELD

    def add(self, call: Call, tokens: Vector, answer: Any) -> None:
        """A call that was billed."""
        if not self.wanted:
            return
        where = self._where(call.caller, call.at_us)
        request: dict[str, Any] = {"inputContentType": "application/json"}
        self._body(request, "input", call.raw, where, call.request_id)
        request |= {
            "inputTokenCount": tokens.input,
            "cacheReadInputTokenCount": tokens.cache_read,
            "cacheWriteInputTokenCount": tokens.cache_write_5m + tokens.cache_write_1h,
        }
        response: dict[str, Any] = {"outputContentType": "application/json"}
        said = answer if isinstance(answer, bytes) else _encoder.encode(answer)
        self._body(response, "output", said, where, call.request_id)
        response["outputTokenCount"] = tokens.output
        record = _head(call.route, call.called.id, call.caller, call.at_us, call.request_id, call.metadata)
        self._hold(where, call.at_us, record | {"input": request, "output": response})

    def add_error(
        self,
        route: Route,
        model: str,
        caller: Caller,
        at_us: int,
        request_id: str,
        code: str,
        raw: bytes,
        metadata: Mapping[str, Any],
    ) -> None:
        """A call that was refused: no counts, and the code."""
        if not self.wanted:
            return
        where = self._where(caller, at_us)
        request: dict[str, Any] = {"inputContentType": "application/json"}
        self._body(request, "input", raw, where, request_id)
        record = _head(route, model, caller, at_us, request_id, metadata)
        self._hold(where, at_us, record | {"errorCode": code, "input": request})

    def _where(self, caller: Caller, at_us: int) -> str:
        return f"AWSLogs/{caller.account}/{_FOLDER}/{caller.region}/{hour_path(at_us)}"

    def _body(self, side: dict[str, Any], name: str, body: bytes, where: str, request_id: str) -> None:
        if len(body) > LARGE:
            key = f"{where}/data/{request_id}_{name}.json.gz"
            self._beside.append((key, body))
            side[f"{name}BodyS3Path"] = f"s3://{self._bucket or 'emulated'}/{self._prefix}{key}"
            return
        try:
            side[f"{name}BodyJson"] = msgspec.Raw(body) if b"\n" not in body else msgspec.json.decode(body)
        except msgspec.DecodeError:
            side[f"{name}BodyJson"] = body.decode("utf-8", "replace")

    def _hold(self, where: str, at_us: int, record: Mapping[str, Any]) -> None:
        self._held.setdefault(where, []).append((at_us, _encoder.encode(record)))
        self._count += 1

    def take(self) -> Held:
        """What is held, to be written; from here on it is held no longer."""
        held = Held(self._held, self._beside)
        self._held, self._beside, self._count = {}, [], 0
        return held

    def write(self, held: Held) -> None:
        """One object for each hour of an account and region. May run in a thread of its own."""
        for key, body in held.beside:
            self._write(key, body)
        for where, records in held.records.items():
            self._files += 1
            lines = b"\n".join(line for _, line in records) + b"\n"
            tail = blake2b(lines + self._files.to_bytes(8, "big"), digest_size=8).hexdigest()
            self._write(f"{where}/{compact(records[0][0])}_{tail}.json.gz", lines)

    def _write(self, key: str, body: bytes) -> None:
        data = gzip.compress(body, 1)
        if self._folder:
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")  # nobody shall read half of it
            part.write_bytes(data)
            part.replace(path)
        if self._bucket:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)


def _head(
    route: Route, model: str, caller: Caller, at_us: int, request_id: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    head = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": iso(at_us),
        "accountId": caller.account,
        "identity": {"arn": caller.arn},
        "region": caller.region,
        "requestId": request_id,
        "operation": route.operation,
        "modelId": model,
    }
    return head | ({"requestMetadata": metadata} if metadata else {})
