"""`farthing web`: the dashboard, and the keys of those who may see it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._currency import InCurrency
from farthing.cli._shared import (
    Asked,
    default_ledger,
    is_ledger,
    ledger_to_read,
    load_config,
    transcript_folders,
    write_json,
)

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.fx import Rates
    from farthing.gateway._keys import Issued
    from farthing.statement import Statement
    from farthing.web._access import Access
    from farthing.web._books import Books, Query

PORT = 8700
LOOK_S = 15.0  # how often transcripts are looked at

Stamps = dict[str, tuple[int, int]]  # of files: size, time of the last change

_DATA = Group("Data", sort_key=1)
_SERVER = Group("Server", sort_key=2)

group = App(name="web", help="The dashboard, on this machine; beyond it, for those who log in.")
key_group = App(
    name="key", help="Keys of those who may see the dashboard. The file holds no key, only digests."
)
app.command(group)
group.command(key_group)

KeysFile = Annotated[
    Path | None,
    Parameter(name="--keys", help="The key file; else farthing-web-keys.json beside farthing.toml."),
]
Json = Annotated[bool, Parameter(name=["--json", "-j"], negative="", help="One line of JSON.")]


@group.default
def web(
    *,
    port: Annotated[int, Parameter(group=_SERVER, help="0: any that is free.")] = PORT,
    host: Annotated[
        str, Parameter(group=_SERVER, help="Address to listen on; beyond loopback with login.")
    ] = "127.0.0.1",
    open: Annotated[bool, Parameter(group=_SERVER, help="Open the browser.")] = True,  # noqa: A002 - the option's name
    demo: Annotated[bool, Parameter(negative="", group=_DATA, help="On a made-up month.")] = False,
    ledger: Annotated[str, Parameter(group=_DATA, help="Ledger: a folder, or s3://BUCKET/PREFIX.")] = "",
    statement: Annotated[
        list[str] | None, Parameter(group=_DATA, negative="", help="The AWS bill to reconcile with.")
    ] = None,
    config: Annotated[Path | None, Parameter(group=_DATA, help="farthing.toml.")] = None,
    policy: Annotated[
        Path | None,
        Parameter(group=_DATA, help="The policy file; else farthing-policy.toml beside farthing.toml."),
    ] = None,
    outbox: Annotated[
        Path | None,
        Parameter(group=_DATA, help="Folder that gateway and hooks write: the page Live follows it."),
    ] = None,
    book: Annotated[str, Parameter(group=_DATA, help="Prices, as for reports.")] = "",
    login: Annotated[
        bool, Parameter(negative="", group=_SERVER, help="Ask for a login on loopback too.")
    ] = False,
    keys: Annotated[Path | None, Parameter(group=_SERVER, help="The key file.")] = None,
    audit: Annotated[
        Path | None,
        Parameter(group=_SERVER, help="The audit log; else farthing-web-audit.jsonl beside farthing.toml."),
    ] = None,
    certificate: Annotated[Path | None, Parameter(group=_SERVER, help="For TLS: PEM.")] = None,
    private_key: Annotated[Path | None, Parameter(group=_SERVER, help="For TLS: PEM.")] = None,
    behind_tls: Annotated[
        bool,
        Parameter(negative="", group=_SERVER, help="A proxy before it has TLS; it wants login."),
    ] = False,
) -> int:
    """Serve until SIGTERM. Prints {"listening": URL} once ready."""
    try:
        from farthing.gateway._settings import is_loopback
        from farthing.web._serve import line_of, listen, serve
        from farthing.web.app import LOOPBACK, Web
    except ImportError as error:
        raise BadInput(f"the dashboard needs {error.name}: pip install 'farthing[gateway]'") from error
    if bool(certificate) != bool(private_key):
        raise BadInput("--certificate and --private-key go together")
    secure = certificate is not None or behind_tls
    access = _access(login or behind_tls or not is_loopback(host), keys, audit, config, secure=secure)
    if not is_loopback(host) and not secure:
        print(f"farthing: {host} without TLS: keys travel in the clear; --certificate, or --behind-tls with a proxy",
              file=sys.stderr)  # fmt: skip
    hosts = (*LOOPBACK, host) if is_loopback(host) and not behind_tls else ()

    def ready(url: str) -> None:
        print(line_of(url), flush=True)
        if open:
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    with (
        listen(host, port) as listening,  # before the books, which may take long
        _books(ledger, config, policy, outbox, book, statement, demo=demo) as books,
    ):
        code = serve(Web(books, access, hosts), listening, ready, certificate, private_key)
    sys.stdout.flush()
    os._exit(code)  # a thread may still be in the engine for a page nobody waits for, and is not to be woken


def _access(
    wanted: bool, keys: Path | None, audit: Path | None, config: Path | None, *, secure: bool
) -> Access:
    from farthing.gateway._keys import Keys
    from farthing.web._access import AUDIT_NAME, Access

    file, settings = _file(keys, config), load_config(config).web.oidc
    log = audit or file.with_name(AUDIT_NAME)
    if not wanted:
        return Access(None, secure=secure, audit=log)
    held = Keys(file)
    if held.fault:
        raise BadInput(held.fault)
    if settings.issuer:
        try:
            from farthing.web._oidc import Provider
        except ImportError as error:
            raise BadInput(f"[web.oidc] needs {error.name}: pip install 'farthing[oidc]'") from error
        return Access(held, secure=secure, audit=log, oidc=Provider(settings))
    if not len(held):
        mend = "`farthing web key add NAME` makes some; or write [web.oidc], or listen on 127.0.0.1"
        raise BadInput(f"no keys at {file}: {mend}")
    return Access(held, secure=secure, audit=log)


@contextlib.contextmanager
def _books(
    ledger: str, config: Path | None, policy: Path | None, outbox: Path | None, book: str,
    statement: list[str] | None, *, demo: bool,
) -> Iterator[Books]:  # fmt: skip
    from farthing.policy import default_path
    from farthing.web._books import Books

    with contextlib.ExitStack() as stack:
        more: dict[str, Any] = {}
        if demo:
            from farthing.cli import _showcase

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-web-")))
            made = _showcase.build(folder)
            shutil.rmtree(folder / "logs")  # thousands of files, which would take seconds at the end
            _showcase.go_on(made.outbox)
            ledger, config, statement, outbox = str(made.ledger), made.config, [str(made.bill)], made.outbox
            more = {"demo": True, "clock": lambda: _showcase.NOW}
        told = load_config(config)
        place = ledger or default_ledger(told)
        if not is_ledger(place):
            seen = _stamps(transcript_folders())  # before they are read: what is written meanwhile is new
            try:
                place = str(stack.enter_context(ledger_to_read(ledger or None, told)).folder)
            except BadInput as error:
                raise BadInput(f"{error}; `farthing web --demo` shows a made-up month") from error
            stack.enter_context(_kept_up(place, transcript_folders(), seen))
        asking, bills = _Asking(config, book), _Bills(statement, book) if statement else None
        yield Books(
            place, asking, policy or default_path(told), bills, str(outbox or ""), asking.path, **more
        )


@contextlib.contextmanager
def _kept_up(place: str, folders: Sequence[Path], seen: Stamps) -> Iterator[None]:
    """While the server runs, what Claude Code writes on is imported beside it: pages see it at their next look."""
    ended = threading.Event()

    def work() -> None:
        known = seen
        while not ended.wait(LOOK_S):
            if (now := _stamps(folders)) != known and _imported(place, folders):
                known = now

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


def _stamps(folders: Sequence[Path]) -> Stamps:
    """Sizes and times of the transcripts."""
    found = {}
    for folder in folders:
        for file in folder.rglob("*.jsonl"):
            with contextlib.suppress(OSError):  # it has just gone
                said = file.stat()
                found[str(file)] = said.st_size, said.st_mtime_ns
    return found


def _imported(place: str, folders: Sequence[Path]) -> bool:
    """Whether that went well; what did not is told, and tried again."""
    from farthing.api import import_paths
    from farthing.ledger import Ledger

    try:
        import_paths(Ledger(place), [str(folder) for folder in folders], now=datetime.now(UTC))
    except (ValueError, OSError) as error:
        print(f"farthing: transcripts: {error}", file=sys.stderr)
        return False
    return True


class _Asking:
    """A question of a link, as the command line makes it of options. A changed farthing.toml is read again."""

    def __init__(self, config: Path | None, book: str) -> None:
        self._config, self._book = config, book
        self.path = load_config(config).path
        self._kept: dict[Any, tuple[Question, Rates | None, str]] = {}

    def __call__(self, query: Query) -> tuple[Question, Rates | None, str]:
        file = Path(self.path) if self.path else None
        stamp = file.stat().st_mtime_ns if file and file.exists() else 0
        key = (tuple(query), stamp)
        if key not in self._kept:
            if len(self._kept) > 1000:
                self._kept.clear()
            try:
                self._kept[key] = self._ask(query)
            except BadInput as error:
                raise ValueError(str(error)) from error
        return self._kept[key]

    def _ask(self, query: Query) -> tuple[Question, Rates | None, str]:
        one = dict(query)
        if twice := [name for name, _ in query if name != "where" and [n for n, _ in query].count(name) > 1]:
            raise BadInput(f"{twice[0]} is there twice: say it once")
        asked = Asked(
            config=self._config,
            since=one.get("since", ""),
            until=one.get("until", ""),
            tz=one.get("tz", ""),
            where=[value for name, value in query if name == "where" and value],
            assume=[one["assume"]] if one.get("assume") else None,
            book=self._book,
        )
        question = asked.question()
        if question.since and question.until and question.since > question.until:
            raise BadInput("since is after until: turn them round")
        wanted = InCurrency(currency=one.get("currency", "")).rates(question.config)
        return (question, *wanted) if wanted else (question, None, "USD")


class _Bills:
    """The bill of the days asked for, decoded once."""

    def __init__(self, files: Sequence[str], book: str) -> None:
        self._files = list(files)
        self._kept: dict[tuple[date | None, date | None], Statement] = {}

    def __call__(self, question: Question) -> Statement:
        from farthing.cli._bills import read_statement

        days = question.since, question.until
        if days not in self._kept:
            self._kept.clear()
            self._kept[days] = read_statement(self._files, "unblended", "", days=days)
        return self._kept[days]


# --- keys -------------------------------------------------------------------------------------------------------------


@key_group.command
def add(
    name: str,
    /,
    *,
    team: Annotated[
        list[str] | None, Parameter(negative="", help="Sees this team alone; may be repeated. Left out: all.")
    ] = None,
    admin: Annotated[bool, Parameter(negative="", help="It may apply and undo savings too.")] = False,
    expires: Annotated[str, Parameter(help="2027-01-31; left out: never.")] = "",
    keys: KeysFile = None,
    config: Annotated[Path | None, Parameter(help="farthing.toml.")] = None,
    json: Json = False,
) -> int:
    """A new key. It is shown this once."""
    import msgspec

    from farthing.gateway._keys import Key, KeysError
    from farthing.gateway._keys import add as issue

    teams = tuple(team or ())
    if admin and teams:
        raise BadInput("--admin and --team: what an admin applies, it applies for all; leave one of them out")
    if wild := [each for each in teams if set(each) & set("*?,[") or not each]:
        raise BadInput(f"--team {wild[0]!r}: a team's whole name, without * ? , or [")
    now = datetime.now(UTC)
    said = {
        "name": name,
        "shown": "",
        "created": now,
        "expires": _until(expires),
        "teams": teams,
        "admin": admin,
    }
    try:
        issued = issue(_file(keys, config), msgspec.convert(said, Key), now)
    except (KeysError, msgspec.MsgspecError) as error:
        raise BadInput(str(error)) from error
    return _tell(issued, json=json)


@key_group.command(name="list")
def list_(*, keys: KeysFile = None, config: Annotated[Path | None, Parameter(help="farthing.toml.")] = None,
          json: Json = False) -> int:  # fmt: skip
    """The keys, without their secrets."""
    from farthing.gateway._keys import load, shown

    now, file = datetime.now(UTC), _file(keys, config)
    found = load(file)
    if json:
        write_json({"path": str(file), "keys": [shown(key, now) for key in found]})
        return 0
    for key in found:
        state = "revoked" if key.revoked else "in force" if key.holds(now) else "over"
        role = "admin" if key.admin else f"sees {', '.join(key.teams) or 'all teams'}"
        print(f"{key.name:20} {key.shown:14} {state:9} {role}")
    return 0


@key_group.command
def revoke(name: Annotated[str, Parameter(help="A key, or its beginning as `list` shows it.")], /, *,
           keys: KeysFile = None, config: Annotated[Path | None, Parameter(help="farthing.toml.")] = None,
           json: Json = False) -> int:  # fmt: skip
    """End a key and its sessions at once."""
    from farthing.gateway._keys import revoke as end

    count = end(_file(keys, config), name, datetime.now(UTC))
    if json:
        write_json({"revoked": count})
    else:
        print(f"{name}: {count} revoked")
    return 0


def _file(keys: Path | None, config: Path | None) -> Path:
    from farthing.web._access import KEYS_NAME

    if keys:
        return keys
    told = load_config(config)
    return Path(told.path).parent / KEYS_NAME if told.path else Path(KEYS_NAME)


def _until(said: str) -> datetime | None:
    if not said:
        return None
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise BadInput(f"--expires {said!r} is no day: write 2027-01-31") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _tell(issued: Issued, *, json: bool) -> int:
    if json:
        write_json({"name": issued.key.name, "token": issued.token})
        return 0
    print(f"key: {issued.token}")
    print("farthing: shown this once", file=sys.stderr)
    return 0
