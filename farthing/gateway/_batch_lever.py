"""Whether a live call may be put into the queue of batches, and how its client is answered: pure functions.

A client that has not said that it takes 202 for an answer waits on an open line, as long as it is known to wait; what
a batch cannot answer in that time is sent at once, as if there were no lever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from farthing.gateway._batch_accept import KINDS, seconds
from farthing.gateway._batch_clock import SECOND
from farthing.gateway._batch_plan import Margin, Pace
from farthing.policy import Entry
from farthing.wire import Route

MOST_WAIT_S = 3600  # of `Prefer: wait`
SDK_S = 60  # what AWS SDKs wait for a byte, unless they are told otherwise
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,5})\b")
_RESPOND = re.compile(r"(?:^|[,;\s])respond-async\b")
_KEPT = ("x-amzn-bedrock-request-metadata", "x-amzn-bedrock-accept")


class Client(NamedTuple):
    """Of a call, by its headers. `agrees`: it takes 202; `wait_s`: and wants to wait so long before. `patience_s`: how
    long it waits for an answer, None where it does not say; `sdk`: it is one of AWS."""

    agrees: bool = False
    wait_s: int = 0
    patience_s: int | None = None
    sdk: bool = False


class Way(NamedTuple):
    """By when it is to be answered, in seconds; `held`: on an open line."""

    deadline_s: int
    held: bool


def client_of(said: Mapping[str, str]) -> Client:
    prefer, timeout = said.get("prefer", ""), said.get("x-stainless-timeout", "").partition(".")[0]
    wait = _WAIT.search(prefer)
    return Client(
        _RESPOND.search(prefer) is not None,
        min(MOST_WAIT_S, int(wait[1])) if wait else 0,
        int(timeout) if timeout.isdecimal() else None,
        "amz-sdk-invocation-id" in said,
    )


def way(entry: Entry, client: Client) -> Way:
    """What the entry and the client say together. A tenth of the client's patience is left for the way back."""
    deadline = seconds(entry.deadline)
    if client.agrees or entry.wait == "none":
        return Way(deadline, held=False)
    known = [client.patience_s] if client.patience_s else []
    if entry.wait:
        known.append(seconds(entry.wait))
    elif client.sdk and not known:
        known.append(SDK_S)
    return Way(min([deadline, *(each * 9 // 10 for each in known)]), held=True)


def unfit(kind: str, route: Route, said: Mapping[str, str]) -> str:
    """Why a call cannot wait, whoever wants it to: a batch would not do what it asks; "" if it can."""
    if route.operation not in KINDS or route.mantle:
        return f"{route.operation} cannot wait; send {', '.join(KINDS)}"
    if kind not in ("bedrock", "anthropic"):
        return f"batches of {kind.replace('_', ' ')} are not sent from here"
    if kind == "anthropic" and "anthropic-beta" in said:
        return "a batch has no anthropic-beta of one request"
    for name in said:
        if name.startswith("x-amzn-bedrock-") and name not in _KEPT:
            return f"a batch has no {name}"
    return ""


def too_late(found: Way, pace: Pace, margin: Margin) -> str:
    """Why no batch would be in time; "" if one probably is."""
    least_s = (pace.likely_us + margin.of(1)) // SECOND
    if found.deadline_s >= least_s:
        return ""
    who = "its client waits" if found.held else "it may wait"
    return f"{who} {_span(found.deadline_s)}, and a batch takes {_span(least_s)}"


def _span(of_s: int) -> str:
    return f"{of_s // 60} min" if of_s >= 60 else f"{of_s} s"
