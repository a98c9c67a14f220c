"""The server: pages, their JSON and CSV, what the browser loads, live events, login, and the policy applied."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from farthing.ledger import LedgerError
from farthing.policy import PolicyError, undo, write
from farthing.web._access import Access, OidcError, Who
from farthing.web._books import ORDER, Books, Packed
from farthing.web._live import Place, end_of, event, follow, rows_of
from farthing.web._login import fault, form
from farthing.web._page import PAGES
from farthing.web._saving import chosen
from farthing.web._static import Asset, Assets

# A chart sets styles of its own elements; nothing else comes from anywhere but this server, and no script from a page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BODY = 64 * 1024
EVERY_S, HEARTBEAT_S = 0.5, 15.0
MOST_STREAMS = 200
APPLIED_DAYS = 90  # after which an approval ends, where no other day is given

log = logging.getLogger("farthing.web")

Handler = Callable[[Request, Who], Awaitable[Response]]


class Refused(Exception):
    """An answer in one line, with what to do."""

    def __init__(self, status: int, error: str, mend: str = "", **headers: str) -> None:
        super().__init__(error)
        self.status, self.error, self.mend, self.headers = status, error, mend, headers


class Web:
    """The handlers over the books. `hosts` are the names that it answers to; () is any."""

    def __init__(
        self, books: Books, access: Access, hosts: tuple[str, ...] = (), heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self.books, self.access, self.hosts = books, access, hosts
        self.heartbeat_s = heartbeat_s
        self.assets = Assets()
        self.ending = asyncio.Event()
        self._streams = 0

    def app(self) -> Starlette:
        """As ASGI."""
        routes = [
            Route("/", self._guarded(self.root)),
            Route("/login", self._open(self.login_page), methods=["GET"]),
            Route("/login", self._open(self.login), methods=["POST"]),
            Route("/login/oidc", self._open(self.oidc_begin)),
            Route("/login/oidc/done", self._open(self.oidc_end)),
            Route("/logout", self._guarded(self.logout), methods=["POST"]),
            Route("/session.json", self._guarded(self.session)),
            Route("/static/{name:path}", self._open(self.static)),
            Route("/live/events", self._guarded(self.events)),
            Route("/savings/apply", self._guarded(self.apply), methods=["POST"]),
            Route("/savings/undo", self._guarded(self.undo), methods=["POST"]),
            Route("/{name}.json", self._guarded(self.page_json)),
            Route("/{name}.csv", self._guarded(self.page_csv)),
            Route("/{name}", self._guarded(self.shell)),
            Route("/{rest:path}", self._guarded(self.nothing)),
        ]
        return Starlette(routes=routes)

    # --- around every answer

    def _open(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                self._check_host(request)
                found = await handler(request)
            except Refused as no:
                found = _fault(request, no.status, no.error, no.mend, no.headers)
            except (ValueError, LedgerError) as error:
                found = _fault(request, 400, *_in_two(str(error)))
            except Exception:
                log.exception("%s", request.url.path)
                mend = "the server's own output says why"
                found = _fault(request, 500, "this page could not be made", mend)
            for name, value in HEADERS.items():
                found.headers.setdefault(name, value)
            found.headers.setdefault("cache-control", "no-store")
            if self.access.secure:
                found.headers["strict-transport-security"] = "max-age=31536000"
            found.headers["server-timing"] = f"all;dur={(time.perf_counter() - begun) * 1000:.2f}"
            return found

        return answer

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """For those who may. What changes something comes with the token of the session."""

        async def answer(request: Request) -> Response:
            who = self._who(request)
            if who is None:
                if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                    return RedirectResponse(_login_at(request.url.path, request.url.query), 303)
                raise Refused(
                    401, "nobody is logged in", "log in at /login, or send a key: authorization: Bearer ..."
                )
            if request.method == "POST" and self.access.forged(who, request.headers.get("x-csrf-token", "")):
                raise Refused(403, "the request did not come from a page of ours", "load the page again")
            return await handler(request, who)

        return self._open(answer)

    def _who(self, request: Request) -> Who | None:
        now, address = self.books.clock(), _address(request)
        authorization = request.headers.get("authorization", "")
        if authorization and self.access.keys is not None:
            if waits := self.access.waits_s(address, now):
                raise Refused(429, "too many wrong keys", f"wait {waits} s", **{"retry-after": str(waits)})
            who = self.access.who("", authorization, now)
            if who is None:
                self.access.missed(address, now)
            return who
        return self.access.who(request.cookies.get(self.access.cookie, ""), "", now)

    def _check_host(self, request: Request) -> None:
        """A page elsewhere whose name was made to lead here must not read what needs no login."""
        if not self.hosts:
            return
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name.strip("[]") not in self.hosts:
            raise Refused(421, f"this is not {name[:100]}", f"ask for {self.hosts[0]}")

    def _note(self, request: Request, who: str, what: str, **said: Any) -> None:
        try:
            self.access.note(self.books.clock(), who, what, **{"from": _address(request)}, **said)
        except OSError as error:
            raise Refused(
                503, f"the audit log cannot be written: {error.strerror}", "give it room"
            ) from error

    # --- pages

    async def root(self, request: Request, who: Who) -> Response:
        return RedirectResponse("/bill", 307)

    async def nothing(self, request: Request, who: Who) -> Response:
        raise Refused(404, f"no page {request.url.path[:100]}", f"there are {', '.join(ORDER)}")

    async def shell(self, request: Request, who: Who) -> Response:
        """One file for every page: the browser's part makes of it what the address says."""
        _known(request.path_params["name"])
        asset = self.assets.get("index.html")
        if asset is None or self.assets.get("vendor/echarts.js") is None:
            mend = "run `make web`; until then ask for /bill.json, or `farthing bill`"
            raise Refused(404, "the charts were not built", mend)
        return _asset(request, asset)

    async def page_json(self, request: Request, who: Who) -> Response:
        name = _known(request.path_params["name"])
        made = await run_in_threadpool(self.books.json, name, request.query_params.multi_items(), who)
        if self.access.keys is not None:
            self._note(request, who.name, "read", page=name, query=request.url.query[:500])
        return _packed(request, made, "application/json")

    async def page_csv(self, request: Request, who: Who) -> Response:
        name = _known(request.path_params["name"])
        query = request.query_params.multi_items()
        table = dict(query).get("table", "")
        query = [pair for pair in query if pair[0] != "table"]
        made = await run_in_threadpool(self.books.csv, name, query, who, table)
        if self.access.keys is not None:
            self._note(request, who.name, "read", page=f"{name}.csv", query=request.url.query[:500])
        found = _packed(request, made, "text/csv; charset=utf-8")
        found.headers["content-disposition"] = f'attachment; filename="farthing-{name}.csv"'
        return found

    async def static(self, request: Request) -> Response:
        asset = self.assets.get(request.path_params["name"])
        if asset is None:
            raise Refused(404, "no such file", "load the page again")
        return _asset(request, asset)

    # --- who

    async def session(self, request: Request, who: Who) -> Response:
        said = {
            "name": who.name, "role": who.role, "teams": who.teams, "csrf": who.csrf, "may_apply": who.admin,
            "login": self.access.keys is not None, "pages": ORDER, "demo": self.books.demo,
        }  # fmt: skip
        return _said(200, said)

    async def login_page(self, request: Request) -> Response:
        if self.access.keys is None:
            return RedirectResponse("/bill", 303)
        page = form(
            request.query_params.get("problem", ""), _page_in(request.query_params.get("next", "")),
            oidc=self.access.oidc is not None, keys=self.access.oidc is None or len(self.access.keys) > 0,
        )  # fmt: skip
        return Response(page, media_type="text/html")

    async def login(self, request: Request) -> Response:
        """A form's key becomes a session. Another site's form is refused: it would log somebody in as another."""
        if self.access.keys is None:
            return RedirectResponse("/bill", 303)
        origin = urlsplit(request.headers.get("origin", "")).netloc
        strange = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if strange or (origin and origin != request.headers.get("host", "")):
            raise Refused(403, "the form is of another site", "log in at /login")
        now, address = self.books.clock(), _address(request)
        if waits := self.access.waits_s(address, now):
            self._note(request, "", "login refused", why="too many tries")
            raise Refused(429, "too many wrong keys", f"wait {waits} s", **{"retry-after": str(waits)})
        said = _form(await _body(request))
        opened = self.access.login(said.get("key", ""), address, now)
        if opened is None:
            self._note(request, "", "login failed")
            return RedirectResponse(_login_at(said.get("next", ""), problem="wrong"), 303)
        cookie, who = opened
        self._note(request, who.name, "login", role=who.role)
        return self._entered(_page_in(said.get("next", "")), cookie)

    def _entered(self, then: str, cookie: str) -> Response:
        found = RedirectResponse(then or "/bill", 303)
        found.set_cookie(self.access.cookie, cookie, **self._cookie)
        return found

    @property
    def _cookie(self) -> dict[str, Any]:
        return {"path": "/", "httponly": True, "samesite": "lax", "secure": self.access.secure}

    async def oidc_begin(self, request: Request) -> Response:
        """To the provider, with what it must come back with. The state is this browser's: a cookie says so."""
        if self.access.oidc is None:
            return RedirectResponse("/login", 303)
        then = _page_in(request.query_params.get("next", ""))
        back = (
            f"{'https' if self.access.secure else 'http'}://{request.headers.get('host', '')}/login/oidc/done"
        )
        try:
            address, state = await self.access.oidc.begin(back, then)
        except OidcError as error:
            return self._not_in(request, error, then)
        found = RedirectResponse(address, 303)
        found.set_cookie(f"{self.access.cookie}-login", state, max_age=600, **self._cookie)
        return found

    async def oidc_end(self, request: Request) -> Response:
        """Back from the provider: its token becomes a session, as a key does."""
        if self.access.oidc is None:
            return RedirectResponse("/login", 303)
        now, address = self.books.clock(), _address(request)
        if waits := self.access.waits_s(address, now):
            raise Refused(429, "too many tries", f"wait {waits} s", **{"retry-after": str(waits)})
        state = request.cookies.get(f"{self.access.cookie}-login", "")
        try:
            who, subject, then = await self.access.oidc.end(request.query_params, state)
        except OidcError as error:
            if error.problem == "refused":
                self.access.missed(address, now)
            return self._not_in(request, error, "")
        cookie, who = self.access.opened(who, address, now, self.access.oidc.settings.session_hours)
        self._note(request, who.name, "login", role=who.role, by="oidc", subject=subject[:200])
        found = self._entered(then, cookie)
        found.delete_cookie(f"{self.access.cookie}-login", **self._cookie)
        return found

    def _not_in(self, request: Request, error: OidcError, then: str) -> Response:
        log.warning("login: %s", error)
        self._note(request, "", "login failed", by="oidc", why=str(error)[:300])
        return RedirectResponse(_login_at(then, problem=error.problem), 303)

    async def logout(self, request: Request, who: Who) -> Response:
        self.access.logout(request.cookies.get(self.access.cookie, ""))
        self._note(request, who.name, "logout")
        then = "/login"
        if self.access.oidc is not None and not who.digest:
            home = f"{'https' if self.access.secure else 'http'}://{request.headers.get('host', '')}/login"
            then = await self.access.oidc.leaving(home) or then
        found = _said(200, {"logged_out": True, "next": then})
        found.delete_cookie(self.access.cookie, **self._cookie)
        return found

    # --- the policy

    async def apply(self, request: Request, who: Who) -> Response:
        """Advice of these names into the policy file, by whoever is logged in."""
        asked = await self._asked(request, who, _Apply)
        now = self.books.clock()
        expires = asked.expires or f"{now + timedelta(days=APPLIED_DAYS):%Y-%m-%d}"

        def put() -> dict[str, Any]:
            query = [(key, value) for key, value in request.query_params.multi_items()]
            with self.books.turn(slow=True):
                view = self.books.view(query, who, slow=True)
                found = chosen(view, set(asked.names))
            if not found:
                raise Refused(404, "no advice of these names", "load the page again: the plan has changed")
            done, skipped = write(
                [one for one in found if one.counts], self.books.policy, who.name, expires,
                now=now, config=view.question.config, reason=asked.reason, book=view.question.book.digest,
            )  # fmt: skip
            left = [f"{one.workload} {one.lever}: {one.why_not}" for one in found if not one.counts]
            left += [f"{each.name}: {each.why}" for each in skipped]
            return {
                "version": done.version,
                "written": done.written,
                "conflicts": done.conflicts,
                "left_out": left,
            }

        return await self._changed(request, who, "apply", put, names=asked.names, expires=expires)

    async def undo(self, request: Request, who: Who) -> Response:
        """A lever, workload, entry or version taken back; the last writing, if none is named."""
        asked = await self._asked(request, who, _Undo)

        def take() -> dict[str, Any]:
            done = undo(self.books.policy, asked.what, by=who.name, now=self.books.clock())
            return {"version": done.version, "written": done.written, "conflicts": done.conflicts}

        return await self._changed(request, who, "undo", take, undone=asked.what)

    async def _asked(self, request: Request, who: Who, kind: Any) -> Any:
        if not who.admin:
            raise Refused(403, f"{who.name} may look, and not change the policy", "ask an admin")
        try:
            return msgspec.json.decode(await _body(request), type=kind)
        except msgspec.MsgspecError as error:
            raise Refused(400, f"the body: {error}", "see docs/dashboard.md") from error

    async def _changed(
        self, request: Request, who: Who, what: str, change: Callable[[], dict[str, Any]], **said: Any
    ) -> Response:
        """Recorded before and after: nothing is changed that cannot be."""
        self._note(request, who.name, what, **said)
        try:
            done = await run_in_threadpool(change)
        except PolicyError as error:
            raise Refused(409, *_in_two(str(error))) from error
        self._note(request, who.name, f"{what} done", version=done["version"], written=done["written"])
        return _said(200, {"policy": str(self.books.policy), **done})

    # --- live

    async def events(self, request: Request, who: Who) -> Response:
        if not self.books.outbox:
            raise Refused(404, "no outbox to follow", "start with `farthing web --outbox FOLDER`")
        if self._streams >= MOST_STREAMS:
            raise Refused(503, "too many browsers follow already", "close one")
        folder = Path(self.books.outbox)
        last = request.headers.get("last-event-id") or request.query_params.get("place", "")
        place = Place.of(last)
        if place is None:
            place = await run_in_threadpool(end_of, folder)
        query = [pair for pair in request.query_params.multi_items() if pair[0] != "place"]
        view = await run_in_threadpool(partial(self.books.view, query, who))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        stream = self._follow(request, folder, place, rows_of(view), who)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _follow(
        self, request: Request, folder: Path, place: Place, row: Any, who: Who
    ) -> AsyncIterator[str]:
        """Until the browser goes, the key ends or the server does."""
        self._streams += 1
        said = time.monotonic()
        try:
            yield f"retry: 2000\nid: {place.id}\nevent: place\ndata: {{}}\n\n"
            while not self.ending.is_set() and self._who(request) is not None:
                async for usage, after in iterate_in_threadpool(follow(folder, place)):
                    place = after
                    if made := row(usage):
                        said = time.monotonic()
                        yield f"id: {place.id}\nevent: call\ndata: {msgspec.json.encode(event(made)).decode()}\n\n"
                if time.monotonic() - said >= self.heartbeat_s:
                    said = time.monotonic()
                    yield ": still here\n\n"
                try:
                    await asyncio.wait_for(self.ending.wait(), EVERY_S)
                except TimeoutError:
                    continue
        finally:
            self._streams -= 1


class _Apply(msgspec.Struct, forbid_unknown_fields=True):
    names: list[str]
    expires: str = ""
    reason: str = ""


class _Undo(msgspec.Struct, forbid_unknown_fields=True):
    what: str = ""


# --- answers ---------------------------------------------------------------------------------------------------------


def _known(name: str) -> str:
    if name not in PAGES:
        raise Refused(404, f"no page {name[:100]}", f"there are {', '.join(ORDER)}")
    return name


def _page_in(text: str) -> str:
    """The page of ours that a link names; "" for what leads anywhere else."""
    name, _, query = text.removeprefix("/").partition("?")
    return f"/{name}{'?' if query else ''}{query}" if text.startswith("/") and name in PAGES else ""


def _login_at(path: str, query: str = "", problem: str = "") -> str:
    """The login page, which leads on to what was asked for."""
    then = _page_in(f"{path}{'?' if query else ''}{query}")
    said = {"problem": problem, "next": "" if then == "/bill" else then}
    asked = urlencode({name: value for name, value in said.items() if value})
    return f"/login?{asked}" if asked else "/login"


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _in_two(text: str) -> tuple[str, str]:
    """What is wrong, and what to do about it: of a line that says both, or names a file and what is wrong there."""
    line = " ".join(text.split()).removeprefix("--")
    error, _, mend = line.rpartition(": ")
    if " " not in error:
        return line, "mend it there, and load the page again"
    return error, mend


def _fault(
    request: Request, status: int, error: str, mend: str, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON; a page for who came with a browser, and not for what it loads."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return Response(fault(error, mend), status, dict(headers or {}), "text/html")
    return _said(status, {"error": error, "mend": mend}, headers)


def _said(status: int, said: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(said), status, dict(headers or {}), "application/json")


def _packed(request: Request, made: Packed, kind: str) -> Response:
    headers = {"vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", "") and made.packed:
        return Response(made.packed, headers=headers | {"content-encoding": "gzip"}, media_type=kind)
    return Response(made.plain, headers=headers, media_type=kind)


def _asset(request: Request, asset: Asset) -> Response:
    caching = "public, max-age=31536000, immutable" if asset.forever else "no-cache"
    headers = {"etag": asset.etag, "cache-control": caching}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    found = _packed(request, Packed(asset.plain, asset.packed), asset.kind)
    found.headers.update(headers)
    return found


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            raise Refused(413, "the body is too large", f"send at most {MOST_BODY:,} bytes")
    return body


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10))
