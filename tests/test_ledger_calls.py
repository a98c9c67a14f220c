"""One call counts once: which records are one call, what they add up to, and that no order of them matters."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.ledger import RANK, Calls, Ledger
from farthing.ledger._own import ids_of, parted
from farthing.usage import Facts, Usage

NOON_US = 1_790_000_000_000_000
LOG = "bedrock_log"


def record(source, message="", request="", gateway="", *, tokens=(1, 10, 3, 9, 0), at=0, **more) -> Usage:
    """What a source says of a call; a log knows no lifetimes of cache writes unless `assumed` says otherwise."""
    side, latency, tags = more.pop("side", False), more.pop("latency_ms", None), more.pop("tags", ())
    more.setdefault("assumed", "ttl" if source == LOG else "")
    part = (Facts(source, model_id="anthropic.claude-opus-5", **more), tokens)
    return Usage(NOON_US + at, request, message, (part,), tags, latency, side, gateway)


def gathered(*batches: list[Usage]) -> list[Usage]:
    """The calls of these imports, one after the other, as the ledger would have them."""
    known: list[Usage] = []
    for batch in batches:
        calls = Calls(known)
        calls.extend(batch)
        known = calls.best
    return known


def in_any_order(*records: Usage) -> Iterator[list[Usage]]:
    for order in permutations(records):
        yield gathered(list(order))
        yield gathered(*([one] for one in order))


def one_of(found: list[Usage]) -> Usage:
    assert len(found) == 1, found
    return found[0]


# --- what a call's records tell each other --------------------------------------------------------


def test_a_log_takes_the_lifetimes_of_cache_writes_from_a_transcript():
    transcript = record("claude_code", "m1", "q1", tokens=(1, 8, 3, 4, 5))
    for found in in_any_order(record(LOG, "m1", "aws1"), transcript):
        facts, tokens = one_of(found).parts[0]
        assert (facts.source, facts.assumed, tokens) == (LOG, "", (1, 10, 3, 4, 5))


def test_lifetimes_are_not_taken_from_a_record_that_counts_other_writes():
    transcript = record("claude_code", "m1", "q1", tokens=(1, 8, 3, 4, 4))
    for found in in_any_order(record(LOG, "m1", "aws1"), transcript):
        facts, tokens = one_of(found).parts[0]
        assert (facts.assumed, tokens) == ("ttl", (1, 10, 3, 9, 0))


def test_lifetimes_stay_known_when_a_fuller_copy_of_the_log_comes():
    transcript = record("claude_code", "m1", "q1", tokens=(1, 8, 3, 4, 5))
    short, full = record(LOG, "m1", "aws1"), record(LOG, "m1", "aws1", tokens=(1, 12, 3, 9, 0))
    for found in in_any_order(short, full, transcript):
        facts, tokens = one_of(found).parts[0]
        assert (facts.assumed, tokens) == ("", (1, 12, 3, 4, 5))


def test_a_log_takes_session_and_project_and_a_transcript_account_region_and_principal():
    log = record(
        LOG, "m1", "aws1", account="111122223333", region="eu-west-1", principal="ada", tags=(("a", "b"),)
    )
    transcript = record("claude_code", "m1", "q1", session="s1", project="/p", assumed="", latency_ms=None)
    events = record(
        "claude_code_events", "", "q1", session="s1", latency_ms=700, tags=(("a", "c"), ("d", "e"))
    )
    for found in in_any_order(log, transcript, events):
        call = one_of(found)
        facts = call.parts[0][0]
        assert (facts.source, facts.account, facts.region) == (LOG, "111122223333", "eu-west-1")
        assert (facts.principal, facts.session, facts.project) == ("ada", "s1", "/p")
        assert (call.latency_ms, call.tags) == (700, (("a", "b"), ("d", "e")))


def test_telemetry_that_knows_the_cache_comes_before_telemetry_that_does_not():
    span = record("otel", "m1", tokens=(1, 10, 0, 0, 0))
    for found in in_any_order(span, record("litellm", "m1", tokens=(1, 10, 3, 4, 5))):
        facts, tokens = one_of(found).parts[0]
        assert (facts.source, tokens) == ("litellm", (1, 10, 3, 4, 5))
    for found in in_any_order(span, record("litellm", "m1", tokens=(1, 10, 0, 0, 0))):
        assert one_of(found).parts[0][0].source == "otel"


def test_a_call_is_found_by_ids_that_its_best_record_never_named():
    """A transcript and the client's events share a request id of which the platform's log knows nothing."""
    log, transcript = record(LOG, "m1", "aws1"), record("claude_code", "m1", "q1")
    for found in in_any_order(log, transcript, record("claude_code_events", "", "q1")):
        call = one_of(found)
        assert (call.request_id, call.message_id, call.also) == ("aws1", "m1", ("q1",))


def test_a_copy_on_a_side_chain_leaves_the_call_its_request_whatever_else_is_known():
    side = record("claude_code", "m1", "q9", side=True, tokens=(1, 12, 3, 9, 0))
    main, spend = record("claude_code", "m1", "q1"), record("litellm", "m1", "chat-1")
    for found in in_any_order(side, main, spend):
        call = one_of(found)
        assert (call.request_id, call.sidechain, call.parts[0][1][1]) == ("q1", False, 12)


# --- two calls stay two ----------------------------------------------------------------------------


def test_two_accounts_with_the_same_ids_are_two_calls(tmp_path):
    records = [record(LOG, "m1", "r1", account=account) for account in ("111122223333", "444455556666")]
    for found in in_any_order(*records):
        assert len(found) == 2
    ledger = Ledger(tmp_path / "ledger")
    for one in records:
        assert ledger.append([one]).imported == 1
    better = [one._replace(parts=((one.parts[0][0], (1, 11, 3, 9, 0)),)) for one in records]
    assert (ledger.append(better).imported, ledger.append(better + records).duplicates) == (0, 4)
    assert ledger.rows().aggregate("sum(calls), sum(output)").fetchall() == [(2, 22)]


@pytest.mark.parametrize("gateway", ["outbox", "litellm"])
def test_attempts_of_a_gateway_under_one_id_of_its_own_are_two_calls(gateway):
    attempts = [record(gateway, "", f"aws{i}", "gw1") for i in (1, 2)]
    logs = [record(LOG, f"m{i}", f"aws{i}") for i in (1, 2)]
    for found in in_any_order(*attempts, *logs):
        assert sorted((call.request_id, call.message_id) for call in found) == [
            ("aws1", "m1"),
            ("aws2", "m2"),
        ]


def test_a_record_that_fits_two_calls_joins_one_and_stays_there():
    two = [record("claude_code", "m1", "q1"), record("claude_code", "m1", "q2", tokens=(1, 20, 3, 9, 0))]
    both = record("claude_code", "m1", "", tokens=(1, 30, 3, 9, 0))
    for order in permutations([*two, both]):
        once = gathered(list(order))
        assert len(once) == 2
        for again in permutations(order):
            assert sorted(gathered(once, list(again))) == sorted(once)


# --- the law ---------------------------------------------------------------------------------------

# How sources name a call: which of its ids they tell. `q` is the client's own request id, `r` the platform's.
NAMED = {
    "outbox": [("", "", "g"), ("m", "r", "g")],
    LOG: [("", "r", ""), ("m", "r", "")],
    "bedrock_batch": [("m", "", "g")],
    "claude_code": [("m", "q", ""), ("m", "", ""), ("m", "side", "")],
    "claude_code_events": [("", "q", "")],
    "otel": [("m", "", ""), ("", "", "g")],
    "litellm": [("m", "", "g"), ("m", "x", "")],
}


@st.composite
def calls_records(draw, number: int, twin: int):
    """Records of one call. They disagree in counts and in what they leave out, and in nothing else.

    With a twin, another call has the same ids in another account (1), or is an attempt under the same gateway's id (2).
    """
    written, short = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    shared, account = (1, f"{number}") if twin == 1 else (number, "111122223333")
    records = []
    for source in draw(st.lists(st.sampled_from(sorted(NAMED)), min_size=1, max_size=5)):
        message, request, gateway = draw(st.sampled_from(NAMED[source]))
        if twin == 2:  # every record of an attempt names its request, and all of them the same
            request, gateway = request if request == "side" else "r", gateway and "shared"
        knows = draw(st.booleans())
        five = min(short, written) if knows else written
        told = {
            name: value
            for name, value in (("account", account), ("region", "eu-west-1"), ("session", f"s{number}"))
            if (twin == 1 and name == "account") or draw(st.booleans())
        }
        records.append(
            record(
                source,
                message and f"m{shared}",
                request and f"{request}{shared}",
                gateway and (gateway if gateway == "shared" else f"g{shared}"),
                tokens=(draw(st.integers(0, 2)), draw(st.integers(0, 2)), 3, five, written - five),
                assumed="" if knows else "ttl",
                side=request == "side",
                at=draw(st.integers(0, 2)),
                **told,
            )
        )
    return records


def components(records: list[Usage]) -> list[list[Usage]]:
    """Records of one call, by the ids that they share: those that no record links cannot be told to be one."""
    parts: list[tuple[set[str], list[Usage]]] = []
    for one in records:
        ids, members = set(one.ids), [one]
        for part in [part for part in parts if part[0] & ids]:
            parts.remove(part)
            ids, members = ids | part[0], members + part[1]
        parts.append((ids, members))
    return [members for _, members in parts]


@st.composite
def worlds(draw):
    """Records in some order, how many calls they are, and how much these put out by their best records."""
    twin = draw(st.integers(0, 2))
    records: list[Usage] = []
    calls, output = 0, 0
    for number in range(draw(st.integers(1, 3))):
        of_one = draw(calls_records(number, twin))
        records += of_one
        for members in components(of_one):
            top = max(RANK[one.parts[0][0].source] for one in members)
            calls += 1
            output += max(one.parts[0][1][1] for one in members if RANK[one.parts[0][0].source] == top)
    return draw(st.permutations(records)), calls, output


def law(calls: list[Usage]) -> list:
    """What the law is about: ids, time, side chain, counts, and whatever a price hangs on."""
    return sorted(
        (call.request_id, call.message_id, call.gateway_id, call.also, call.at_us, call.sidechain, call.parts)
        for call in calls
    )


def cut(records: list[Usage], cuts: list[int]) -> list[list[Usage]]:
    edges = [0, *sorted(min(at, len(records)) for at in cuts), len(records)]
    return [records[start:end] for start, end in pairwise(edges)]


def check_the_law(worlds, cuts: list[int]) -> None:
    (records, calls, output), order = worlds
    at_once = gathered(records)
    assert (len(at_once), sum(call.parts[0][1][1] for call in at_once)) == (calls, output)
    assert law(gathered(*cut(order, cuts))) == law(at_once)
    again = Calls(at_once)
    again.extend(order)
    assert again.kept == at_once


worlds_in_two_orders = worlds().flatmap(lambda world: st.tuples(st.just(world), st.permutations(world[0])))
several_cuts = st.lists(st.integers(0, 15), max_size=4)


@settings(max_examples=200)
@given(worlds_in_two_orders, several_cuts)
def test_any_order_and_any_split_give_the_same_calls(worlds, cuts):
    check_the_law(worlds, cuts)


@pytest.mark.fuzz
@given(worlds_in_two_orders, several_cuts)
def test_any_order_and_any_split_give_the_same_calls_at_length(worlds, cuts):
    check_the_law(worlds, cuts)


@settings(max_examples=100)
@given(worlds_in_two_orders, several_cuts)
def test_the_law_holds_where_only_what_shares_an_id_is_compared(worlds, cuts):
    """As in an import into a ledger whose only writer knows every id in it."""
    (records, *_), order = worlds
    kept: list[Usage] = []
    own: set[int] = set()
    for batch in cut(order, cuts):
        ids = ids_of(batch)
        shared, alone = parted(batch, (own & ids.every) | ids.repeated)
        asked = {name for usage in parted(shared, own & ids.every)[0] for name in usage.ids}
        known = [call for call in kept if not asked.isdisjoint(call.ids)]
        calls = Calls(known)
        calls.extend(shared)
        kept = [call for call in kept if call not in known] + calls.best + list(alone)
        own |= ids.every
    assert law(kept) == law(gathered(records))


@settings(max_examples=12)
@given(worlds_in_two_orders, several_cuts)
def test_the_ledger_keeps_the_law(worlds, cuts):
    (records, calls, output), order = worlds
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(folder)
        for batch in cut(order, cuts):
            added = ledger.append(batch)
            assert len(added.fresh) + added.superseded + added.duplicates == len(batch)
        assert ledger.rows().aggregate("sum(calls), sum(output)").fetchall() == [(calls, output)]
        assert law(list(ledger.known(records))) == law(gathered(records))
        before = ledger.rows().aggregate("count(*)").fetchall()
        assert ledger.append(records).imported == 0
        assert ledger.rows().aggregate("count(*)").fetchall() == before


# --- any records at all ----------------------------------------------------------------------------

ids = st.sampled_from(["", "1", "2"])
any_records = st.lists(
    st.builds(
        lambda source, message, request, gateway, output, at, side, more: record(
            source, message and f"m{message}", request and f"r{request}", gateway and f"g{gateway}",
            tokens=(1, output, 0, 9, 0), at=at, side=side, **more,
        ),
        st.sampled_from([LOG, "claude_code", "outbox"]), ids, ids, ids, st.integers(0, 2), st.integers(0, 1),
        st.booleans(),
        st.fixed_dictionaries({}, optional={"account": st.sampled_from(["1", "2"]), "session": st.sampled_from("ab")}),
    ).filter(lambda usage: usage.ids),
    max_size=7,
)  # fmt: skip


@settings(max_examples=200)
@given(any_records, several_cuts)
def test_each_record_is_fresh_or_superseded_or_a_duplicate(records, cuts):
    known: list[Usage] = []
    for batch in cut(records, cuts):
        calls = Calls(known)
        calls.extend(batch)
        fresh = [call for call in calls.kept[len(known) :] if call is not None]
        assert len(fresh) + calls.superseded + calls.duplicates == len(batch)
        known = calls.best


@settings(max_examples=200)
@given(any_records)
def test_a_second_import_of_anything_adds_no_call(records):
    once = gathered(records)
    again = Calls(once)
    again.extend(records)
    assert len(again.best) <= len(once)
    assert [call for call in again.kept[len(once) :] if call is not None] == []


def test_a_day_is_no_bound_within_one_import():
    late = record("claude_code", "m1", "q1", at=timedelta(days=3) // timedelta(microseconds=1))
    assert len(gathered([record(LOG, "m1", "aws1"), late])) == 1
