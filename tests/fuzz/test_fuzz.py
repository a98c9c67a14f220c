"""Any bytes to every reader: an answer or a clean refusal, and an account of every row.

`make test` runs what is kept in corpus/ and some hundred mutations of each target, `make fuzz` some ten thousand, `make
atheris` as many as fit, led by coverage.
"""

import os
import random
import re
import time

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import SAMPLES, TARGETS, imported, run, seeds

SEED = int(os.environ.get("FUZZ_SEED", "1"))
MOST_SECONDS = 5  # of processor, for 8 KB


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("times", [150, pytest.param(20_000, marks=pytest.mark.fuzz)])
def test_mutations(name: str, times: int):
    chance, begun = random.Random(f"{SEED} {name}"), seeds(name)
    assert begun, "nothing to begin with"
    for data in (*begun, *(mutated(chance.choice(begun), begun, chance) for _ in range(times))):
        began = time.process_time()
        try:
            run(name, data)
        except Exception as error:
            raise AssertionError(f"{name} fails by {data!r}") from error
        assert time.process_time() - began < MOST_SECONDS, f"{name} takes too long by {data!r}"


BUCKET = (
    b'{"data":[{"starting_at":"2026-02-26T00:00:00Z","ending_at":"%b",'
    b'"results":[{"uncached_input_tokens":1,"model":"%b"}]}]}'
)


def test_a_total_that_no_ledger_could_hold_is_rejected():
    good = imported(BUCKET % (b"2026-02-27T00:00:00Z", b"claude-opus-5"), "anthropic_usage")
    assert sum(total.value for frame in good for total in frame.totals) == 1
    backwards = imported(BUCKET % (b"0001-01-01T00:00:00Z", b"claude-opus-5"), "anthropic_usage")
    assert not [total for frame in backwards for total in frame.totals]
    assert backwards[-1].rejected > 0
    halves = imported(BUCKET % (b"2026-02-27T00:00:00Z", b"claude-\\ud800"), "anthropic_usage")
    assert {total.model_id for frame in halves for total in frame.totals} == {
        "claude-\N{REPLACEMENT CHARACTER}"
    }


@pytest.mark.parametrize(
    "line", [b'{"kind":{},"at":"2026-02-26","seconds":1}', b'{"kind":[],"at":"2026-02-26","seconds":1}']
)
def test_what_is_rejected_says_why(line: bytes):
    (reject,) = (reject for frame in imported(line, "uses") for end in frame.ends for reject in end.rejects)
    assert reject.reason.startswith("kind is none of")


def test_a_time_that_no_call_takes_is_not_known_and_the_call_counts():
    lines = SAMPLES.joinpath("outbox.calls.jsonl").read_bytes().splitlines()
    line = next(line for line in lines if b'"latency_ms"' in line)
    for number, told in ((b"9223372036854775808", None), (b"70", 70)):
        changed = re.sub(rb'"latency_ms":\s*\d+', b'"latency_ms":' + number, line)
        found = [usage.latency_ms for frame in imported(changed, "outbox") for usage in frame.usages]
        assert found == [told]


def test_a_number_beyond_all_bounds_costs_its_document():
    good = SAMPLES.joinpath("cloudwatch.metric_data.json").read_bytes()
    frames = imported(good + b"\n[1e99999999999999999999999999]\n", "cloudwatch")
    assert sum(len(frame.totals) for frame in frames) == sum(
        len(frame.totals) for frame in imported(good, "cloudwatch")
    )
    told = [reject.reason for frame in frames for end in frame.ends for reject in end.rejects]
    assert "a number with an exponent beyond all bounds" in told
