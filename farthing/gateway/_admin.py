"""What a gateway answers itself: health, metrics, calls by their id, budgets in Anthropic's shape, keys.

Asked rarely, so it is plain Starlette. Who may ask: health, anybody; a call, the key that made it; the rest, keys with
`admin`. Without auth, whoever reaches the loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from farthing.gateway import _keys
from farthing.gateway._callers import caller
from farthing.gateway._keys import Key, KeysError, NameTaken, NoSuchKey, Platform, shown
from farthing.gateway._metrics import Metrics, text
from farthing.gateway._openapi import openapi
from farthing.gateway._reply import KINDS, Failure
from farthing.gateway._spend_limits import effective, found, listed
from farthing.gateway._written import written
from farthing.gateway.budgets import Scope
from farthing.gateway.proxy import Gateway, Recent
from farthing.meters import METERS
from farthing.money import usd

_LOOK_S = 2.0  # for an upstream to take a connection
_LOOK_AGAIN_S = 5.0
_OVERLAP = timedelta(hours=24)
_MOST_BODY = 64 * 1024
_T = TypeVar("_T")


class NewKey(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST /admin/keys takes."""

    name: str
    team: str = ""
    teams: tuple[str, ...] = ()
    project: str = ""
    tags: dict[str, str] = {}
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    upstream: Platform = ""
    expires: datetime | None = None
    pinned: bool = False
    batches: bool = False
    admin: bool = False
    sigv4: bool = False


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    until: datetime | None = None


def app(gateway: Gateway, shared: Path) -> Starlette:
    """`shared` is the folder where the gateway's processes tell each other what they counted."""
    looked = _Looked(gateway)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        faults = await looked.faults()
        return JSONResponse(
            {"status": "not ready" if faults else "ready", "faults": faults}, 503 if faults else 200
        )

    async def metrics(request: Request) -> Response:
        _admin(gateway, request)
        told = Metrics()
        told.absorb(gateway.metrics.dump())
        gauges = _gauges(gateway)
        for each in _others(shared):
            told.absorb(each)
        return PlainTextResponse(text(told, gauges), media_type="text/plain; version=0.0.4")

    async def call(request: Request) -> Response:
        key = _known(gateway, request)
        found = gateway.recent.get(request.path_params["id"])
        open_call = next((x for x in gateway.open if x.call and x.call.id == request.path_params["id"]), None)
        if found is None and open_call is not None and open_call.call is not None:
            owner = open_call.key.name if open_call.key and gateway.keys else ""
            found = Recent(open_call.call, owner, None)
        if found is None:
            found = await run_in_threadpool(written, gateway.live, request.path_params["id"])
        if found is None or (gateway.keys is not None and not key.admin and found.key != key.name):
            raise HTTPException(404, "no such call of this key in the outbox")
        return JSONResponse(_told(found, gateway.live.book.digest))

    async def budgets(request: Request) -> Response:
        _admin(gateway, request)
        return JSONResponse({"data": await _budget_rows(gateway)})

    async def limits(request: Request) -> Response:
        return await _limits(gateway, request)

    async def openapi_json(_: Request) -> Response:
        return JSONResponse(openapi())

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi_json),
        Route("/v1/calls/{id}", call),
        Route("/v1/organizations/spend_limits", limits),
        Route("/v1/organizations/spend_limits/{id}", limits),
        Route("/admin/budgets", budgets),
        *_key_routes(gateway),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse, Failure: _refuse_failure})


def _key_routes(gateway: Gateway) -> list[Route]:
    def path() -> Path:
        if gateway.keys is None:
            raise HTTPException(404, "this gateway runs without keys")
        return Path(gateway.keys.path)

    async def listed(request: Request) -> Response:
        _admin(gateway, request)
        now = datetime.now(UTC)
        return JSONResponse({"data": [shown(key, now) for key in _tried(lambda: _keys.load(path()))]})

    async def added(request: Request) -> Response:
        _admin(gateway, request)
        new = await _read(request, NewKey)
        said = {name: getattr(new, name) for name in NewKey.__struct_fields__ if name != "sigv4"}
        now = datetime.now(UTC)
        like = _tried(lambda: msgspec.convert({**said, "shown": "", "created": now}, Key))
        issued = _tried(lambda: _keys.add(path(), like, now, sigv4=new.sigv4))
        return JSONResponse(_issued(issued, now), 201)

    async def keys(request: Request) -> Response:
        return await (added if request.method == "POST" else listed)(request)

    async def rotated(request: Request) -> Response:
        _admin(gateway, request)
        now, rotation = datetime.now(UTC), await _read(request, Rotation)
        until = rotation.until or now + _OVERLAP
        if until.tzinfo is None:
            raise HTTPException(400, "until has no time zone")
        issued = _tried(lambda: _keys.rotate(path(), request.path_params["name"], until, now))
        return JSONResponse(_issued(issued, now), 201)

    async def revoked(request: Request) -> Response:
        _admin(gateway, request)
        count = _tried(lambda: _keys.revoke(path(), request.path_params["name"], datetime.now(UTC)))
        return JSONResponse({"revoked": count})

    return [
        Route("/admin/keys", keys, methods=["GET", "POST"]),
        Route("/admin/keys/{name}/rotate", rotated, methods=["POST"]),
        Route("/admin/keys/{name}", revoked, methods=["DELETE"]),
    ]


# --- who asks ---------------------------------------------------------------------------------------------------------


def _known(gateway: Gateway, request: Request) -> Key:
    """Failure if nobody known asks. A signature is not taken here: bearers only."""
    found = caller(
        gateway.keys, {name.lower(): value for name, value in request.headers.items()}, datetime.now(UTC)
    )
    if found.signed:
        raise Failure("unknown", "send a key as bearer")
    return found.key


def _admin(gateway: Gateway, request: Request) -> None:
    if gateway.keys is not None and not _known(gateway, request).admin:
        raise Failure("forbidden", "the key has no admin")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": error.detail}}
    return JSONResponse(said, error.status_code, error.headers)


async def _refuse_failure(_: Request, error: Exception) -> Response:
    assert isinstance(error, Failure)
    kind = KINDS[error.kind]
    said = {"type": "error", "error": {"type": kind.anthropic, "message": error.message}}
    return JSONResponse(said, kind.status)


async def _read(request: Request, shape: type[_T]) -> _T:
    """What is wrong with the request, as 400."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            raise HTTPException(413, "too large")
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, str(error)) from None


def _tried(act: Callable[[], _T]) -> _T:
    """The same of what was asked. Where the file lies is nobody's business here."""
    try:
        return act()
    except NoSuchKey:
        raise HTTPException(404, "no such key is in force") from None
    except NameTaken:
        raise HTTPException(409, "a key of this name is in force: rotate or revoke it") from None
    except msgspec.MsgspecError as error:
        raise HTTPException(400, str(error)) from None
    except KeysError:
        raise HTTPException(500, "the key file cannot be read or written") from None


# --- what is told -----------------------------------------------------------------------------------------------------


def _issued(issued: _keys.Issued, now: datetime) -> dict[str, Any]:
    return shown(issued.key, now) | ({"token": issued.token} if issued.token else {"secret": issued.secret})


def _told(found: Recent, book: str) -> dict[str, Any]:
    """A call and what it came to; without a price it has no cost."""
    call, settled, intent = found.call, found.settled, found.call.intent
    said: dict[str, Any] = {
        "id": call.id,
        "at": intent.at.isoformat(),
        "operation": intent.operation,
        "platform": intent.platform,
        "model": intent.model,
        "endpoint": call.sku.endpoint if call.sku else None,
        "book": book,
        "state": settled.state.value if settled else call.state.value,
        "settled": settled is not None,
        "cost_usd": usd(settled.picos) if settled and settled.picos is not None else None,
        "ceiling_usd": usd(call.ceiling.picos) if call.ceiling.picos is not None else None,
    }
    if settled:
        said["unpriced"] = settled.unpriced or None
        said["parts"] = [
            {"model": part.model or intent.model, **dict(zip(METERS, part.tokens, strict=True))}
            for part in settled.parts
        ]
    return said


def _gauges(gateway: Gateway) -> dict[str, int]:
    held = [
        x.call.ceiling.picos or 0
        for x in gateway.open
        if x.call is not None and x.settled is None and x.call.holds
    ]
    return {
        "farthing_open_calls": sum(1 for x in gateway.open if x.call is not None),
        "farthing_open_streams": sum(1 for x in gateway.open if x.stream),
        "farthing_held_usd": sum(held),
        "farthing_outbox_waiting_lines": len(gateway.live.outbox.waiting),
        **_policy(gateway),
    }


def _policy(gateway: Gateway) -> dict[str, int]:
    loaded = gateway.live.loaded()
    if loaded is None:
        return {}
    return {
        "farthing_policy_fault": int(bool(loaded.fault)),
        "farthing_policy_version": loaded.policy.version,
    }


async def _budget_rows(gateway: Gateway) -> list[dict[str, Any]]:
    budgets = gateway.live.budgets
    if budgets is None:
        return []
    rows = await budgets.run(budgets.state, gateway.live.clock_us())
    return [_budget(row._asdict()) for row in rows]


def _budget(row: dict[str, Any]) -> dict[str, Any]:
    """Money as dollars, times as ISO."""
    said = dict(row)
    for name in ("limit", "spent", "held"):
        said[name] = usd(row[name]) if row["unit"] == "usd" else row[name]
    for name in ("start_us", "reset_us", "raised_until_us"):
        at = said.pop(name)
        said[name.removesuffix("_us")] = datetime.fromtimestamp(at / 1e6, UTC).isoformat() if at else None
    return said


async def _limits(gateway: Gateway, request: Request) -> Response:
    """Budgets as Anthropic's Spend Limits API tells its own: all, one, or those that each key comes to first."""
    _admin(gateway, request)
    budgets, now = gateway.live.budgets, gateway.live.clock_us()
    limit_id, query = request.path_params.get("id", ""), parse_qs(request.url.query)
    written = _written(gateway)
    if budgets is None:
        if limit_id not in ("", "effective"):
            raise HTTPException(404, "no such limit")
        return JSONResponse({"data": [], "next_page": None})
    try:
        if limit_id == "effective":
            return JSONResponse(await budgets.run(effective, budgets, _scopes(gateway), now, query))
        if not limit_id:
            return JSONResponse(await budgets.run(listed, budgets, now, written, query))
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    one = await budgets.run(found, budgets, now, written, limit_id)
    if one is None:
        raise HTTPException(404, "no such limit")
    return JSONResponse(one)


def _written(gateway: Gateway) -> datetime:
    """When farthing.toml was."""
    path = gateway.settings.config
    try:
        return datetime.fromtimestamp(path.stat().st_mtime if path else 0, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


def _scopes(gateway: Gateway) -> list[Scope]:
    if gateway.keys is None:
        return []
    keys = {key.name: key for key in _tried(lambda: _keys.load(gateway.keys.path if gateway.keys else ""))}
    return [
        Scope(key.name, key.team, key.project, tags=tuple({**key.tags, "key": key.name}.items()))
        for key in keys.values()
    ]


# --- ready ------------------------------------------------------------------------------------------------------------


class _Looked:
    """Whether calls could be taken now. Upstreams are looked at by a connection, every few seconds at most."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.at = 0.0
        self.unreachable: list[str] = []

    async def faults(self) -> list[str]:
        gateway = self.gateway
        found = []
        if gateway.draining:
            found.append("draining")
        if not gateway.live.outbox.writable:
            found.append("the outbox cannot be written")
        if gateway.outbound.fault:
            found.append(gateway.outbound.fault)
        if gateway.keys is not None and gateway.keys.fault:
            found.append("the key file cannot be read: the keys before it hold")
        if time.monotonic() - self.at > _LOOK_AGAIN_S:
            bases = sorted({(target.base, target.host) for target in gateway.targets.values()})
            self.unreachable = [host for base, host in bases if not await _reachable(base)]
            self.at = time.monotonic()
        return found + [f"{host} cannot be reached" for host in self.unreachable]


async def _reachable(base: str) -> bool:
    parts = urlsplit(base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_LOOK_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


# --- several processes ------------------------------------------------------------------------------------------------


def publish(gateway: Gateway, shared: Path) -> None:
    """What this process counted, in one step, for the others to add."""
    file = shared / f"{os.getpid()}.json"
    draft = file.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        draft.write_bytes(gateway.metrics.dump())
        draft.replace(file)


def _others(shared: Path) -> list[bytes]:
    found = []
    for file in shared.glob("*.json"):
        if file.stem != str(os.getpid()):
            with contextlib.suppress(OSError):
                found.append(file.read_bytes())
    return found
