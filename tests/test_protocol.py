"""The protocol of a call: scripts of what may happen, and a walk over all that can."""

import itertools
import random

import pytest

from farthing.gateway.protocol import TABLE, Effect, Event, ImpossibleEvent, State, outcome, step

MOVES_MONEY = {Effect.POST, Effect.POST_CEILING, Effect.VOID}


def script(*events: Event) -> tuple[State, list[Effect]]:
    state, effects = State.IDLE, []
    for event in events:
        state, effect = step(state, event)
        effects.append(effect)
    return state, [effect for effect in effects if effect is not Effect.NONE]


E = Event


@pytest.mark.parametrize(
    ("events", "state", "effects"),
    [
        ((E.GRANTED, E.ANSWERED), State.POSTED, [Effect.POST]),
        ((E.REFUSED,), State.DENIED, []),
        ((E.GRANTED, E.FAILED), State.VOIDED, [Effect.VOID]),
        (
            (E.GRANTED, E.RENEWED, E.RENEWED, E.ANSWERED),
            State.POSTED,
            [Effect.RENEW, Effect.RENEW, Effect.POST],
        ),
        # The client went away and the upstream could not be drained
        ((E.GRANTED, E.CUT), State.POSTED, [Effect.POST_CEILING]),
        # The hold lapsed in a long stream: its ceiling stands until the answer says what it was
        ((E.GRANTED, E.LAPSED, E.ANSWERED), State.POSTED, [Effect.POST_CEILING, Effect.POST]),
        ((E.GRANTED, E.LAPSED, E.CUT), State.POSTED, [Effect.POST_CEILING]),
        ((E.GRANTED, E.LAPSED, E.FAILED), State.VOIDED, [Effect.POST_CEILING, Effect.VOID]),
        # Two resolve it at once
        ((E.GRANTED, E.ANSWERED, E.CUT, E.ANSWERED, E.LAPSED), State.POSTED, [Effect.POST]),
        ((E.GRANTED, E.FAILED, E.CUT), State.VOIDED, [Effect.VOID]),
        # Thought to have failed, and answered after all
        ((E.GRANTED, E.FAILED, E.ANSWERED), State.POSTED, [Effect.VOID, Effect.POST]),
    ],
)
def test_a_script(events: tuple[Event, ...], state: State, effects: list[Effect]) -> None:
    assert script(*events) == (state, effects)


def test_a_walk_over_everything_resolves_a_hold_once_and_loses_no_answer() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        state, held, answered, posted, moved = State.IDLE, False, False, False, 0
        for event in chance.choices(list(Event), k=8):
            try:
                state, effect = step(state, event)
            except ImpossibleEvent:
                continue
            held = held or event is Event.GRANTED
            if held and event is Event.ANSWERED:
                answered = answered or state is State.POSTED
                posted = posted or effect is Effect.POST
                # what a cut already posted at its ceiling an answer does not undo: nobody is left to read it
            moved += effect in MOVES_MONEY
            assert held or effect is Effect.NONE, "money moves for a call that was never granted"
        assert moved <= 3  # a hold, what late news corrects, and an answer after a failure
        if state in (State.DENIED, State.IDLE):
            assert not moved


def test_money_posted_for_an_answer_never_moves_again() -> None:
    for first, *rest in itertools.product(Event, repeat=3):
        state, _ = State.HELD, Effect.NONE
        state, effect = step(state, first) if (state, first) in TABLE else (state, Effect.NONE)
        if effect is Effect.POST:
            for event in rest:
                if (state, event) in TABLE:
                    state, effect = step(state, event)
                    assert effect is Effect.NONE


def test_what_is_denied_was_not_sent() -> None:
    for event in Event:
        with pytest.raises(ImpossibleEvent, match="while denied"):
            step(State.DENIED, event)


@pytest.mark.parametrize(
    ("status", "sent", "final", "event"),
    [
        (200, True, True, E.ANSWERED),
        (200, True, False, E.CUT),  # a stream that broke
        (0, True, False, E.CUT),  # sent, and never answered
        (0, False, False, E.FAILED),  # no connection
        (429, True, False, E.FAILED),
        (500, True, False, E.FAILED),
    ],
)
def test_the_outcome_of_an_attempt(status: int, sent: bool, final: bool, event: Event) -> None:
    assert outcome(status, sent=sent, final=final) is event


@pytest.mark.parametrize("late", [Event.RENEWED, Event.LAPSED, Event.CUT])
def test_a_hold_that_expired_has_its_ceiling_posted_once(late: Event) -> None:
    """Nothing but an answer, or the news that there was none, moves its money again."""
    state, effect = step(State.EXPIRED, late)
    assert effect is Effect.NONE
    assert state is (State.POSTED if late is Event.CUT else State.EXPIRED)


@pytest.mark.parametrize("done", [State.POSTED, State.VOIDED])
@pytest.mark.parametrize("late", [Event.RENEWED, Event.CUT, Event.FAILED, Event.LAPSED])
def test_who_resolves_a_call_second_changes_nothing(done: State, late: Event) -> None:
    assert step(done, late) == (done, Effect.NONE)


def test_an_error_begins_at_400() -> None:
    assert outcome(400, sent=True, final=False) is Event.FAILED
    assert outcome(399, sent=True, final=False) is Event.CUT
