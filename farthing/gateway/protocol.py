"""What can happen to a call, and to the money held for it: a table, without I/O.

Proxy, hooks and batch runner drive it. It answers with an effect, which they carry out on budgets and outbox:

    IDLE ──granted──▶ HELD ──answered──▶ POSTED     the answer's usage is posted
      │                 ├────cut───────▶ POSTED     may have been billed: the ceiling is posted, assumed
      │                 ├────failed────▶ VOIDED     known unbilled: the hold is given back
      │                 └────lapsed────▶ EXPIRED    nobody came back: the ceiling stands, assumed
      └────refused──▶ DENIED                            │
                                                        └── answered, cut, failed: what came late corrects it

A hold resolves once, and money spent is a fact: an answer is posted whatever came before it.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    IDLE = "idle"
    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"
    DENIED = "denied"


class Event(Enum):
    GRANTED = "granted"  # budgets hold the ceiling and the intent is durable: it may be sent
    REFUSED = "refused"  # by a budget, a scope or a full disk: it was not sent
    RENEWED = "renewed"  # a stream lives
    ANSWERED = "answered"  # with its final usage
    CUT = "cut"  # sent, and perhaps billed; its final usage will not come
    FAILED = "failed"  # never sent, or answered with an error, which is not billed
    LAPSED = "lapsed"  # the hold's time is over


class Effect(Enum):
    NONE = "none"
    RENEW = "renew"
    POST = "post"  # what was used
    POST_CEILING = "post_ceiling"  # what it may have used at most
    VOID = "void"


class ImpossibleEvent(Exception):
    """An event that cannot happen in a state: the driver is wrong."""


TABLE: dict[tuple[State, Event], tuple[State, Effect]] = {
    (State.IDLE, Event.GRANTED): (State.HELD, Effect.NONE),
    (State.IDLE, Event.REFUSED): (State.DENIED, Effect.NONE),
    (State.HELD, Event.RENEWED): (State.HELD, Effect.RENEW),
    (State.HELD, Event.ANSWERED): (State.POSTED, Effect.POST),
    (State.HELD, Event.CUT): (State.POSTED, Effect.POST_CEILING),
    (State.HELD, Event.FAILED): (State.VOIDED, Effect.VOID),
    (State.HELD, Event.LAPSED): (State.EXPIRED, Effect.POST_CEILING),
    (State.EXPIRED, Event.RENEWED): (State.EXPIRED, Effect.NONE),  # too late: the ceiling is posted already
    (State.EXPIRED, Event.ANSWERED): (State.POSTED, Effect.POST),
    (State.EXPIRED, Event.CUT): (State.POSTED, Effect.NONE),
    (State.EXPIRED, Event.FAILED): (State.VOIDED, Effect.VOID),
    (State.EXPIRED, Event.LAPSED): (State.EXPIRED, Effect.NONE),
}
# Two may resolve a call at once (the answer and the client's going away): who comes second changes nothing.
TABLE |= {
    (done, event): (done, Effect.NONE)
    for done in (State.POSTED, State.VOIDED)
    for event in (Event.RENEWED, Event.ANSWERED, Event.CUT, Event.FAILED, Event.LAPSED)
}
# But an answer is never lost: what was voided and is answered after all is posted.
TABLE[State.VOIDED, Event.ANSWERED] = (State.POSTED, Effect.POST)


def step(state: State, event: Event) -> tuple[State, Effect]:
    """The state after an event, and what has to be done. ImpossibleEvent if it cannot happen then.

    >>> step(State.HELD, Event.ANSWERED)
    (<State.POSTED: 'posted'>, <Effect.POST: 'post'>)
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise ImpossibleEvent(f"{event.value} while {state.value}") from None


def outcome(status: int, *, sent: bool, final: bool) -> Event:
    """What an attempt came to: `status` is 0 if no answer began, `final` tells that its usage was the last word.

    Errors are not billed, by AWS or Anthropic (the invocation log has no counts for them). What was sent and not
    answered may have been.
    """
    if final:
        return Event.ANSWERED
    if not sent or status >= 400:
        return Event.FAILED
    return Event.CUT
