"""Of calls whose answers a killed gateway never wrote: each record of the log is one with an intent of its own.

Found by `make torture`: a short call had taken the intent of a long one, which then counted beside its record.
"""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.ledger import Ledger, settle_open
from farthing.ledger._intents import matched
from farthing.usage import Facts, Usage

AT_US = 1_790_000_000_000_000
INTENT = Facts(
    "outbox_intent", model_id="anthropic.claude-opus-5", operation="Converse", assumed="open_intent"
)
LOG = Facts("bedrock_log", model_id="anthropic.claude-opus-5", operation="Converse")


def intent(name: str, most: int, after_us: int = 0) -> Usage:
    return Usage(AT_US + after_us, "", "", ((INTENT, (most, 60, 0, 0, 0)),), gateway_id=name)


def log(name: str, prompt: int, after_us: int = 0) -> Usage:
    return Usage(AT_US + after_us, name, "", ((LOG, (prompt, 9, 0, 0, 0)),))


def test_a_short_call_leaves_a_long_one_its_intent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([intent("long", 500), intent("short", 100, 500_000), log("few", 90), log("many", 400)])
    assert settle_open(ledger) == 2
    rows = ledger.rows().filter("part = 0").aggregate("gateway_id, request_id, sum(calls) AS n, sum(input)")
    assert sorted(row for row in rows.fetchall() if row[2]) == [
        ("long", "many", 1, 400),
        ("short", "few", 1, 90),
    ]


@settings(max_examples=100, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.permutations(range(10)))
def test_every_request_that_can_have_an_intent_has_one(
    others: set[tuple[int, int]], whose: list[int]
) -> None:
    """Three of ten intents never left the gateway; each request fits its own intent, and some of the others."""
    own = {(intent, request) for request, intent in enumerate(whose[:7])}
    fits = {(one, request) for one, request in others | own if request < 7}
    taken = matched((0, f"i{one}", f"r{request}") for one, request in sorted(fits))
    assert len(taken) == 7
    assert len(set(taken.values())) == 7
    assert all((int(one[1:]), int(request[1:])) in fits for request, one in taken.items())
