"""What the live autopilot makes of recorded sessions, through the decisions of gateway and hooks: the long target.

`python -m tools.autopilot FILE` prints the same figures. test_autopilot_gateway.py shows that HTTP changes nothing.
"""

import json

import pytest

from tests.piloted import ADAPTIVE, HEAD, Cloud, cloud, turn, words
from tests.replayed import SESSIONS, figures, sessions
from tools.autopilot import TTL, play


@pytest.mark.fuzz
def test_sessions_of_coding_agents(shared):
    trace = sessions(shared / "data" / SESSIONS)
    least = figures(trace)
    for named in (True, False):
        placed, _ = play(trace, ADAPTIVE, named=named)
        assert placed * 100 <= least["bound"] * 116
        assert placed <= least["end_5m"]
    own, _ = play(trace, HEAD, "5m")
    assert own == least["end_5m"]  # nothing is done with them, and the emulator bills as the machine does
    longer, _ = play(trace, TTL, "5m")
    assert longer == least["end_1h"]


def test_a_session_with_cache_points_of_its_own(shared):
    trace = sessions(shared / "data" / SESSIONS, 1)
    assert play(trace, TTL, "5m")[0] == figures(trace)["end_1h"]


@pytest.mark.parametrize("tokens", [500, 3_000, 30_000])
@pytest.mark.parametrize("system", [0, 800])
def test_traffic_without_reuse_costs_nothing_extra(tmp_path, tokens, system):
    sky = cloud(tmp_path, ADAPTIVE)
    for k in range(100):
        sky.send(turn(words(tokens, f"{k}"), system=words(system, f"s{k}") if system else ""), wait_s=11)
    assert _extra(sky) <= 5


@pytest.mark.parametrize("system", [9_000, 20_000, 60_000])
def test_prompts_that_look_like_an_agents_and_never_come_back_cost_nothing_extra(tmp_path, system):
    """With tools, which nobody's single question has; a second after each other, so nothing is learned meanwhile."""
    sky = cloud(tmp_path, ADAPTIVE)
    for k in range(100):
        body = json.loads(turn(*(words(200, f"{k} {n}") for n in range(3)), system=words(system, f"s{k}")))
        tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
        sky.send(json.dumps(body | {"tools": [tool]}).encode(), wait_s=1)
    assert _extra(sky) == 0


def _extra(sky: Cloud) -> int:
    """In thousandths of what it would cost without a cache, up."""
    whole = sky.total.prompt
    billed = sky.total.prompt
    billed = sky.total.input * 100 + sky.total.cache_write_5m * 125 + sky.total.cache_write_1h * 200
    return -(-(billed - whole * 100) * 10 // whole)
