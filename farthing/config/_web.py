"""Values of [web.oidc] that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from farthing.config._shape import Fault
from farthing.config._tables import UNASSIGNED, Config, Oidc, Rights

_ROLES = ("viewer", "admin")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_safe(url: str) -> bool:
    """Whether secrets may go there: by TLS, or not out of this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


def check_web(config: Config) -> Iterator[Fault]:
    """An issuer that secrets must not go to, a login that nobody could pass, rights that contradict themselves."""
    said, place = config.web.oidc, ("web", "oidc")
    if not said.issuer:
        if said.client_id or said.groups:
            yield Fault(place, "`issuer` is missing: the address of the provider, https://login.example.com")
        return
    yield from _provider(said, place)
    if not said.groups:
        mend = '[web.oidc.groups.NAME] with role = "viewer", or ["*"] for whoever may log in there'
        yield Fault(place, f"`groups` is missing, so nobody could see anything: write {mend}")
    for name, rights in said.groups.items():
        yield from _rights(rights, config, (*place, "groups", name))


def _provider(said: Oidc, place: tuple[str, ...]) -> Iterator[Fault]:
    for name in ("issuer", "redirect_uri"):
        url = getattr(said, name)
        if url and not is_safe(url):
            yield Fault((*place, name), f"{url!r} is no https address")
    if not said.client_id:
        yield Fault(place, "`client_id` is missing: what the provider calls this dashboard")
    if "openid" not in said.scopes:
        yield Fault((*place, "scopes"), '"openid" is missing: without it a provider says not who it is')
    if not 1 <= said.session_hours <= 720:
        yield Fault((*place, "session_hours"), "write 1 to 720 hours")


def _rights(rights: Rights, config: Config, place: tuple[str, ...]) -> Iterator[Fault]:
    if rights.role not in _ROLES:
        yield Fault((*place, "role"), f"{rights.role!r} is no role: write {' or '.join(_ROLES)}")
    if rights.role == "admin" and rights.teams:
        yield Fault((*place, "teams"), "what an admin applies, it applies for all: take role or teams away")
    for number, team in enumerate(rights.teams):
        if not team or set(team) & set("*?,["):
            yield Fault((*place, "teams", number), f"{team!r}: write a team's whole name")
        elif config.teams and team not in config.teams and team != UNASSIGNED:
            yield Fault((*place, "teams", number), f"no team {team!r} in this file")
