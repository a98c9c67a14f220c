"""What hooks cost the process they are in."""

from __future__ import annotations

from bench.cases import Result, Sizes, Target, case
from bench.measure import Failed, middle, script, take_turns


@case
def hook(sizes: Sizes) -> Result:
    """Microseconds that boto3's InvokeModel takes longer for its hooks: metered, tagged, its intent in the outbox.

    Calls with and without hooks take turns; all is as ever but the network, whose answer is there at once.
    Settling the answer happens in a thread of ours, behind the caller. The floor is two handlers at the same events,
    one of which puts the intent's line, as ours wrote it, into an open file, and nothing else: without a request read
    for its model, size and ceiling, a hold, a record made and checked, an answer followed to its usage.
    """
    calls = max(100, round(sizes.seconds * 300))
    runners = {
        "farthing": lambda: script("hook_work.py", str(calls)),
        "floor": lambda: script("hook_floor.py", str(calls)),
    }
    taken = take_turns(sizes.few_rounds, runners, sizes.tries)
    runs = taken["farthing"]
    if any(run["faults"] for run in runs):
        raise Failed("hook: the hooks had faults of their own")
    us = {
        name: {part: middle([run["us"][name][part] for run in runs]) for part in parts}
        for name, parts in runs[0]["us"].items()
    }
    event = middle(runs, "event_us")
    result = Result(
        "hook",
        "us",
        us["metered"]["added"],
        floor=middle(taken["floor"], "us"),
        rounds=sizes.few_rounds,
        others=taken.others,
        size={"calls": calls},
    )
    result.targets = [
        Target("at most 100 us a call", us["metered"]["added"], 100),
        Target("at most 1 us a stream event", event, 1),
    ]
    large, hashing = us["100 kB"], us["100 kB, prefixes hashed"]
    more = hashing["whole"] - large["whole"]
    plain, whole = us["metered"]["call"], us["metered"]["whole"]
    result.notes = [
        f"botocore alone: {plain:.0f} us. All threads together work {whole:.0f} us more for a call.",
        f"With a hard budget, held in SQLite: {us['with a budget']['added']:.0f} us.",
        f"A request of 100 kB: {large['added']:.0f} us. Prefixes hashed: {more:.0f} us of work more.",
        f"A stream's event: {event:.2f} us, beside {middle(runs, 'event_alone_us'):.1f} us of botocore's own.",
    ]
    result.peak_mb = {"farthing": max(float(run["peak_mb"]) for run in runs)}
    return result
