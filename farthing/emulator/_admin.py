"""/_farthing/: what tests and benches ask of the emulator itself, and how they set it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.emulator._clock import moment
from farthing.emulator._faults import Failing, as_json, read_faults
from farthing.emulator._moments import iso
from farthing.emulator._world import Identity, World

if TYPE_CHECKING:
    from farthing.emulator._server import Server

MOST_CALLS = 10_000  # in one answer
_TIMES = msgspec.json.Decoder(dict[str, str | int])
_WHO = msgspec.json.Decoder(dict[str, Identity])


def admin(server: Server) -> Starlette:
    """The application of these paths."""
    world = server.world

    async def calls(request: Request) -> Response:
        since, limit = _number(request, "since", 0), _number(request, "limit", MOST_CALLS)
        found = world.calls_since(since, limit)
        told = [msgspec.Raw(call) for _, call in found]
        return _json({"calls": told, "next": found[-1][0] if found else since})

    async def totals(_: Request) -> Response:
        return _json(world.totals())

    async def clock(request: Request) -> Response:
        if request.method == "PUT":
            set_clock(world, await request.body())
        return _json(
            {"now": iso(world.clock.now_us()), "now_us": world.clock.now_us(), "speed": world.clock.speed}
        )

    async def faults(request: Request) -> Response:
        if request.method == "PUT":
            world.failing = Failing(read_faults(await request.body()))
        return _json(as_json(world.failing.faults))

    async def identities(request: Request) -> Response:
        if request.method == "PUT":
            world.identities = _WHO.decode(await request.body())
        return _json({key: [who.account, who.arn] for key, who in world.identities.items()})  # no secrets

    async def flush(_: Request) -> Response:
        return _json({"written": [str(path) for path in await server.flush()]})

    async def cur(request: Request) -> Response:
        form = request.query_params.get("form", "cur2")
        if form not in ("cur2", "legacy"):
            raise ValueError(f"form {form!r} is none of cur2, legacy")
        data = world.bills.cur(
            "legacy" if form == "legacy" else "cur2", request.query_params.get("month", "")
        )
        return Response(data, media_type="text/csv")

    routes = [
        Route("/_farthing/calls", calls),
        Route("/_farthing/totals", totals),
        Route("/_farthing/clock", clock, methods=["GET", "PUT"]),
        Route("/_farthing/faults", faults, methods=["GET", "PUT"]),
        Route("/_farthing/identities", identities, methods=["GET", "PUT"]),
        Route("/_farthing/flush", flush, methods=["POST"]),
        Route("/_farthing/cur", cur),
    ]
    return Starlette(routes=routes, exception_handlers={ValueError: _bad, msgspec.MsgspecError: _bad})


def set_clock(world: World, text: bytes) -> None:
    """{"now": "2026-11-22T08:00:00Z", "speed": 60, "advance_s": 301}: any of them."""
    told = _TIMES.decode(text)
    unknown = told.keys() - {"now", "speed", "advance_s"}
    if unknown:
        raise ValueError(f"clock: no such key: {', '.join(sorted(unknown))}")
    now, speed, advance = told.get("now"), told.get("speed"), told.get("advance_s", 0)
    if isinstance(speed, str) or isinstance(advance, str) or (speed or 0) < 0 or isinstance(now, int):
        raise ValueError("clock: `now` is a time, `speed` and `advance_s` are whole numbers, speed from 0")
    world.clock.set(moment(now) if now else None, speed, advance)


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    if not text.isdigit():
        raise ValueError(f"{name}={text!r} is no number")
    return int(text)


def _json(told: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(told), status, media_type="application/json")


async def _bad(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)
