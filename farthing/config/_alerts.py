"""Values of [smtp], [[notify]] and [[budgets]] that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

from farthing.config._budgets import check_budget
from farthing.config._shape import Fault
from farthing.config._tables import UNASSIGNED, Channel, Config, EventKind, Smtp

_KINDS = {"slack": ("url", "url_env"), "webhook": ("url", "url_env"), "sns": ("topic_arn",), "mail": ("to",)}
_SECURITIES = ("starttls", "ssl", "none")
_EVENTS = get_args(EventKind)
_ADDRESS = re.compile(r"[^@\s<>,]+@[^@\s<>,]+")
_SENDER = re.compile(rf"{_ADDRESS.pattern}|[^<>@\r\n]+<{_ADDRESS.pattern}>")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w.-]+")
_HERE = ("localhost", "127.0.0.1", "::1")

Place = tuple[str | int, ...]


def check_alerts(config: Config) -> Iterator[Fault]:
    yield from _smtp(config.smtp)
    for number, channel in enumerate(config.notify):
        yield from _channel(channel, config, ("notify", number))
    for number, budget in enumerate(config.budgets):
        yield from check_budget(budget, ("budgets", number))
    yield from _twice("notify", [channel.name for channel in config.notify])
    yield from _twice("budgets", [budget.name for budget in config.budgets])


def _twice(table: str, names: list[str]) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if not name.strip():
            yield Fault((table, number, "name"), "is empty")
        elif name in names[:number]:
            yield Fault((table, number, "name"), f"{name!r} is taken: a name is used once")


def _smtp(smtp: Smtp) -> Iterator[Fault]:
    if smtp == Smtp():
        return
    if not smtp.host.strip():
        yield Fault(("smtp",), "`host` is missing")
    if smtp.security not in _SECURITIES:
        yield _none_of(("smtp", "security"), smtp.security, _SECURITIES)
    elif smtp.security == "none" and smtp.user and smtp.host not in _HERE:
        yield Fault(("smtp", "security"), "the password would go in the clear: write starttls or ssl")
    if not _SENDER.fullmatch(smtp.sender.strip()):
        yield Fault(("smtp", "sender"), f"{smtp.sender!r} is no mail address")
    if not 0 <= smtp.port < 65536:
        yield Fault(("smtp", "port"), f"{smtp.port} is no port")
    if not _VARIABLE.fullmatch(smtp.password_env):
        yield Fault(("smtp", "password_env"), _NO_VARIABLE)  # which is not shown: it may be the password


_NO_VARIABLE = (
    "is no name of a variable: the secret itself stands in the environment, its variable's name here"
)


def _channel(channel: Channel, config: Config, place: Place) -> Iterator[Fault]:
    if channel.kind not in _KINDS:
        yield _none_of((*place, "kind"), channel.kind, _KINDS)
        return
    wanted = _KINDS[channel.kind]
    given = [name for name in ("url", "url_env", "topic_arn", "to") if getattr(channel, name)]
    if not set(given) & {*wanted}:
        yield Fault(place, f"{channel.kind} needs {' or '.join(wanted)}")
    for name in given:
        if name not in wanted:
            yield Fault((*place, name), f"is not for {channel.kind}, which takes {' or '.join(wanted)}")
    if len(given) > 1:
        yield Fault((*place, given[0]), f"and {given[1]} are both given; take one away")
    yield from _addresses(channel, place)
    if channel.kind == "mail" and not config.smtp.host:
        yield Fault(place, "mail needs a server: add [smtp] with host and sender")
    for number, event in enumerate(channel.events):
        if event not in _EVENTS:
            yield _none_of((*place, "events", number), event, _EVENTS)
    for number, team in enumerate(channel.teams):
        if config.teams and team != UNASSIGNED and team not in config.teams:
            yield Fault((*place, "teams", number), f"no team {team!r} in this file")


def _addresses(channel: Channel, place: Place) -> Iterator[Fault]:
    if channel.url and not re.fullmatch(r"https?://[^\s/]+\S*", channel.url):
        yield Fault((*place, "url"), "is no address: write https://...")
    if channel.url_env and not _VARIABLE.fullmatch(channel.url_env):
        yield Fault((*place, "url_env"), _NO_VARIABLE)
    if channel.topic_arn and not _TOPIC.fullmatch(channel.topic_arn):
        says = f"{channel.topic_arn!r} is no topic: write arn:aws:sns:REGION:ACCOUNT:NAME"
        yield Fault((*place, "topic_arn"), says)
    for number, address in enumerate(channel.to):
        if not _ADDRESS.fullmatch(address):
            yield Fault((*place, "to", number), f"{address!r} is no mail address")


def _none_of(place: Place, value: str, known: object) -> Fault:
    assert isinstance(known, tuple | dict)
    return Fault(place, f"{value!r} is none of {', '.join(known)}")
