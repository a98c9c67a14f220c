"""Coverage: what is seen by what, what only control totals count, and copies settled."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cells import Question, QuestionError, cells, parse_where
from farthing.cli import main
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reports import REPORTS, as_json
from farthing.reports.coverage import exact_shares
from farthing.usage import EPOCH, Facts, Total, Usage

NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
A, B = "111122223333", "444455556666"
EU, US = "eu-west-1", "us-east-1"
SONNET, OPUS = "eu.anthropic.claude-sonnet-4-6", "eu.anthropic.claude-opus-4-8"
GLOBAL = "global.anthropic.claude-sonnet-4-6"
LOG = Facts("bedrock_log", "bedrock", SONNET, region=EU, account=A)
CODE = Facts("claude_code", "bedrock", "claude-sonnet-4-6", session="s1", project="/p")
TOKENS = (1_000, 200, 3_000, 40, 0)
NUMBERS = count(1)
EU_RATES = ("3.3", "16.5", "0.33", "4.125", "6.6")  # of Sonnet 4.6, dollars per million tokens


def micros(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def call(facts=LOG, tokens=TOKENS, at=NOON, ids=None, **more):
    """Ids are request, message and gateway id; by default a request id of its own."""
    request, message, gateway = ids or (f"r{next(NUMBERS)}", "", "")
    return Usage(micros(at), request, message, ((facts, tokens),), gateway_id=gateway, **more)


def control(
    name, value, model=SONNET, account=A, region=EU, day=NOON, width=DAY, scope="runtime:model", **more
):
    start = day.replace(hour=0)
    said = {"platform": "bedrock", "model_id": model, "account": account, "region": region, **more}
    said["scope"] = f"{scope} period={int(width.total_seconds())}"
    return Total("cloudwatch", micros(start), micros(start + width), name, value, **said)


def controls(counts=TOKENS, calls=1, **more):
    """What CloudWatch counts of calls: it does not tell lifetimes of cache writes apart."""
    sums = (counts[0], counts[1], counts[2], counts[3] + counts[4], calls)
    names = ("input", "output", "cache_read", "cache_write", "calls")
    return [control(name, value, **more) for name, value in zip(names, sums, strict=True)]


def picos(tokens, rates=EU_RATES):
    amount = sum(Decimal(rate) * count * 10**6 for rate, count in zip(rates, tokens, strict=True))
    assert amount == int(amount)
    return int(amount)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def told(ledger):
    """told(usages, totals, report, question ...): that report of a ledger of these."""

    def make(usages, totals=(), name="coverage", **asked):
        ledger.append(list(usages))
        ledger.note_totals(list(totals), NOON)
        extra = {key: asked.pop(key) for key in ("seconds", "settle", "teams") if key in asked}
        return REPORTS[name].make(ledger, Question(**asked), **extra)

    return make


def rows(table, *names):
    return [tuple(row[name] for name in names) for row in table.rows]


def causes(table):
    return {row["cause"]: (row["calls"], row["usd"], row["upper_usd"]) for row in table.parts["causes"]}


def unseen(table):
    """calls, least and most of what only control totals count."""
    found = [row for row in table.rows if row["source"] == "control_total"]
    assert len(found) <= 1
    return (found[0]["calls"], found[0]["usd"], found[0]["upper_usd"]) if found else (0, 0, 0)


# --- seen by what --------------------------------------------------------------------------------------------------


def test_each_call_is_under_the_best_source_that_saw_it(told):
    both = ("r-both", "", "")
    sources = [
        call(ids=both),
        call(LOG._replace(source="outbox"), ids=both),
        call(),
        call(LOG._replace(source="bedrock_batch", mode="batch")),
        call(CODE),
        call(LOG._replace(source="litellm"), at=NOON + timedelta(hours=1)),
    ]
    table = told(sources)
    seen = {row["source"]: row["calls"] for row in table.rows}
    assert seen == {
        "gateway": 1,
        "invocation_log": 1,
        "batch_output": 1,
        "transcript": 1,
        "other_telemetry": 1,
    }
    assert sum(row["usd"] or 0 for row in table.rows) == table.footer["usd"]


def test_the_shape_of_the_json(told):
    answer = json.loads(json.dumps(as_json(told([call()], controls((2_000, 400, 6_000, 80, 0), 2)))))
    assert {"account", "region", "source", "calls", "usd", "share"} <= answer["rows"][0].keys()
    assert answer["possible_duplicates_usd"] == "0"
    assert [(row["source"], row["share"]) for row in answer["rows"]] == [
        ("invocation_log", "0.5"),
        ("control_total", "0.5"),
    ]
    assert all(Decimal(row["usd"]) > 0 for row in answer["rows"])


@given(st.lists(st.integers(0, 10**20), max_size=8))
def test_shares_come_to_one(amounts):
    shares = exact_shares(amounts)
    if sum(amounts):
        assert sum((Decimal(share or 0) for share in shares), Decimal(0)) == 1
        for share, amount in zip(shares, amounts, strict=True):
            assert abs(Decimal(share or 0) * sum(amounts) - amount) * 10**6 <= sum(amounts)
    else:
        assert shares == [None] * len(amounts)


# --- only in a control total ---------------------------------------------------------------------------------------


def test_what_the_log_has_too_is_no_gap(told):
    assert unseen(told([call()], controls())) == (0, 0, 0)


def test_what_only_a_total_counts_is_priced_between_the_two_lifetimes(told):
    table = told([call()], controls((1_500, 300, 3_000, 140, 0), 3))
    short, long = (500, 100, 0, 100, 0), (500, 100, 0, 0, 100)
    assert unseen(table) == (2, picos(short), picos(long))
    assert table.footer["usd"] == picos(TOKENS)  # it is beside the calls, never among them
    settled = told([], (), assume={"ttl": "1h"})
    assert unseen(settled) == (2, picos(long), picos(long))


def test_more_calls_than_the_total_has_is_said_and_never_negative(told):
    table = told([call(), call()], controls(calls=1))
    assert unseen(table) == (0, 0, 0)
    assert causes(table)["more_than_control"] == (1, picos(TOKENS), picos(TOKENS))


def test_days_do_not_make_up_for_each_other(told):
    """Yesterday's missing call is missing, whatever today has too many of."""
    table = told([call(), call()], [*controls(), *controls(day=NOON - DAY)])
    calls, least, most = unseen(table)
    assert (calls, least) == (1, picos((1_000, 200, 3_000, 40, 0)))
    assert most == picos((1_000, 200, 3_000, 0, 40))


@pytest.mark.parametrize("blank", [{"account": ""}, {"region": ""}, {"account": "", "region": ""}])
def test_a_total_without_a_place_is_set_against_every_place(told, blank):
    elsewhere = {"account": B} if "account" in blank else {"region": US}
    usages = [call(), call(LOG._replace(**elsewhere))]
    twice = tuple(2 * count for count in TOKENS)
    assert unseen(told(usages, controls(twice, 2, **blank))) == (0, 0, 0)


def test_a_transcript_without_a_place_counts_against_the_gap(told):
    assert unseen(told([call(CODE._replace(model_id=SONNET))], controls())) == (0, 0, 0)


def test_another_account_fills_no_gap(told):
    calls, least, _ = unseen(told([call(LOG._replace(account=B))], controls()))
    assert (calls, least) == (1, picos(TOKENS))


@pytest.mark.parametrize(
    "beside",
    [
        {"model": "", "scope": "runtime:all"},  # the same tokens, of all models
        {"width": timedelta(hours=12)},  # the first half of the day once more, in longer or shorter periods
        {"width": timedelta(minutes=1)},
    ],
)
def test_levels_and_widths_of_one_count_are_never_added(told, beside):
    assert unseen(told([call()], [*controls(), *controls(**beside)])) == (0, 0, 0)


def test_hours_are_added_up_to_a_day(told):
    hour = timedelta(hours=1)
    halves = (500, 100, 1_500, 20, 0)
    start = NOON.replace(hour=0)
    totals = [moved(total, start + i * hour, hour) for i in (0, 1) for total in controls(halves, 1)]
    assert unseen(told([call(), call()], totals)) == (0, 0, 0)
    assert causes(told([], ()))["more_than_control"][0] == 0


def moved(total, start, width):
    scope = total.scope.replace("period=86400", "period=3600")
    return total._replace(start_us=micros(start), end_us=micros(start + width), scope=scope)


def test_a_total_of_another_endpoint_of_the_model_is_filled_by_its_calls(told):
    """What a source calls the endpoint may differ: that makes no gap, as long as the tokens are there."""
    assert unseen(told([call()], controls(model=GLOBAL))) == (0, 0, 0)


def test_the_gap_between_two_endpoints_is_a_range(told):
    """One of two equal calls is missing; it may have been at either endpoint, since the log names a third SKU."""
    plain = (1_000, 200, 0, 0, 0)
    totals = [*controls(plain, 1), *controls(plain, 1, model=GLOBAL)]
    table = told([call(LOG._replace(mode="priority"), plain)], totals)
    assert unseen(table) == (1, picos(plain, ("3", "15", "0", "0", "0")), picos(plain))


def test_a_total_without_a_price_is_not_nothing(told):
    opaque = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1b2c3d4e5f6"
    table = told([], controls(model=opaque))
    assert unseen(table) == (1, None, None)
    (cause,) = table.parts["causes"]
    assert (cause["usd"], cause["unpriced_tokens"]) == (None, sum(TOKENS))
    resolved = told([], (), profiles={"a1b2c3d4e5f6": SONNET})
    assert unseen(resolved)[1] == picos(TOKENS)


def test_totals_without_a_model_are_named_and_not_compared(told):
    table = told([call()], controls(model="", scope="runtime:all"))
    assert unseen(table) == (0, 0, 0)
    (said,) = table.parts["not_compared"]
    assert (said["level"], said["totals"]) == ("runtime:all", 5)
    assert "by model" in said["why"]


def test_a_filter_that_totals_cannot_follow_leaves_them_out(told):
    totals = [*controls((9_000, 0, 0, 0, 0)), *controls(account=B)]
    assert unseen(told([call()], totals, where=(parse_where(f"account={A}"),)))[1] == picos(
        (8_000, 0, 0, 0, 0)
    )
    table = told([], (), where=(parse_where("principal=ann"),))
    assert unseen(table) == (0, 0, 0)
    assert "principals" in table.parts["not_compared"][0]["why"]


def test_only_whole_periods_of_the_days_asked_for_are_compared(told):
    totals = [*controls((2_000, 0, 0, 0, 0)), *controls((5_000, 0, 0, 0, 0), day=NOON + DAY)]
    table = told([call(tokens=(1_000, 0, 0, 0, 0))], totals, until=date(2026, 6, 10), tz="Europe/Berlin")
    assert unseen(table)[1] == picos((1_000, 0, 0, 0, 0))


def test_anthropics_own_report_knows_lifetimes(told):
    direct = {"platform": "anthropic", "account": "", "region": "", "scope": "messages:model"}
    totals = [control(meter, count, "claude-sonnet-4-6", **direct)
              for meter, count in zip(METERS, (2_000, 400, 6_000, 40, 40), strict=True)]  # fmt: skip
    table = told(
        [call(CODE._replace(platform="anthropic"))], [t._replace(source="anthropic_usage") for t in totals]
    )
    rest = (1_000, 200, 3_000, 0, 40)
    assert unseen(table)[1:] == (picos(rest, ("3", "15", "0.3", "3.75", "6")),) * 2


COUNTS = st.tuples(*[st.integers(0, 50_000)] * 4, st.just(0))


MADE = st.lists(st.tuples(COUNTS, st.sampled_from((SONNET, GLOBAL, OPUS)), st.booleans()), max_size=8)


@settings(max_examples=10)
@given(MADE)
def test_a_gap_is_what_the_calls_that_no_source_saw_cost(tmp_path_factory, made):
    check_the_gap(tmp_path_factory, made)


@pytest.mark.fuzz
@settings(max_examples=200)
@given(MADE)
def test_a_gap_is_what_the_calls_that_no_source_saw_cost_at_length(tmp_path_factory, made):
    check_the_gap(tmp_path_factory, made)


def check_the_gap(tmp_path_factory, made):
    """Some calls are in the log; the total counts all: what is left is the cost of the others, within the range."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    logged = [call(LOG._replace(model_id=model), tokens) for tokens, model, seen in made if seen]
    ledger.append(logged)
    sums: dict[str, list[int]] = {}
    for tokens, model, _ in made:
        sums[model] = [a + b for a, b in zip(sums.get(model, (0,) * 5), tokens, strict=True)]
    ledger.note_totals([t for model, total in sums.items() for t in controls(total, 0, model=model)], NOON)
    table = REPORTS["coverage"].make(ledger, Question())
    rest = Ledger(tmp_path_factory.mktemp("ledger"))
    rest.append([call(LOG._replace(model_id=model), tokens) for tokens, model, seen in made if not seen])
    cost = sum(cell.cost for cell in cells(rest, Question()))
    longest = sum(cell.cost for cell in cells(rest, Question(assume={"ttl": "5m"})))
    calls, least, most = unseen(table)
    assert (least, calls) == (cost, 0)
    assert most >= longest
    assert (
        sum(row["usd"] for row in table.parts["causes"] if row["cause"] in ("logging_off", "unexplained"))
        == least
    )


# --- causes --------------------------------------------------------------------------------------------------------


def test_logging_off_is_told_from_a_log_that_lacks_calls(told):
    usages = [call(LOG._replace(region=US, model_id=GLOBAL))]
    totals = [*controls(), *controls((2_000, 400, 6_000, 80, 0), 2, region=US, model=GLOBAL)]
    found = causes(told(usages, totals))
    assert found["logging_off"][:2] == (1, picos(TOKENS))
    assert found["unexplained"][:2] == (1, picos(TOKENS, ("3", "15", "0.3", "3.75", "6")))


def test_mantle_is_a_cause_of_its_own_and_the_log_fills_the_other_first(told):
    mantle = [control(name, count, scope="mantle:model") for name, count in (("input", 700), ("output", 50))]
    found = causes(told([call()], [*controls(), *mantle]))
    assert found == {"mantle": (0, picos((700, 50, 0, 0, 0)), picos((700, 50, 0, 0, 0)))}


def test_batches_are_not_set_against_metrics_that_leave_them_out(told):
    batch = LOG._replace(source="bedrock_batch", mode="batch")
    table = told([call(batch)], controls())
    assert unseen(table)[:2] == (1, picos(TOKENS))
    assert causes(table)["batch"][0] == 1


def test_gateway_bypass_is_what_the_log_has_alone_since_the_gateway_sees_the_account(told):
    through = ("r1", "", "")
    usages = [
        call(at=NOON - 2 * DAY),  # before there was a gateway
        call(ids=through),
        call(LOG._replace(source="outbox"), ids=through),
        call(at=NOON + timedelta(hours=1)),
        call(LOG._replace(account=B)),  # whom no gateway serves
    ]
    assert causes(told(usages))["gateway_bypass"] == (1, picos(TOKENS), picos(TOKENS))


def test_bypass_by_a_principal_whose_account_the_gateway_does_not_name(told):
    gate = LOG._replace(source="outbox", account="", principal="ann")
    usages = [call(gate), call(LOG._replace(principal="ann")), call(LOG._replace(principal="bob"))]
    assert causes(told(usages))["gateway_bypass"][0] == 1


def test_errors_seen_and_errors_only_counted(told):
    failed = call(LOG._replace(status="ThrottlingException"), (0, 0, 0, 0, 0))
    totals = [control("throttles", 3), control("errors", 2, scope="runtime:model fault=client")]
    found = causes(told([failed], totals))
    assert found["errors"][0] == 1
    assert found["errors_unseen"][0] == 4
    assert unseen(told([])) == (0, 0, 0)


# --- possible duplicates -------------------------------------------------------------------------------------------


def copies(told, *usages, **asked):
    table = told(usages, name="duplicates", **asked)
    return table, sum(row["usd"] for row in table.rows)


def test_two_sources_of_one_call_without_a_common_id(told):
    log, code = call(at=NOON), call(CODE, at=NOON + timedelta(seconds=1.5), ids=("req_1", "msg_1", ""))
    table, usd = copies(told, log, code)
    (row,) = table.rows
    assert (row["source"], row["id"], row["copy_source"], row["copy_id"]) == (
        "bedrock_log",
        log.request_id,
        "claude_code",
        "msg_1",
    )
    assert (row["session"], row["apart_ms"], row["tokens"]) == ("s1", 1_500, sum(TOKENS))
    assert usd == table.parts["possible_duplicates_usd"] > 0
    assert told([]).parts["possible_duplicates_usd"] == usd


@pytest.mark.parametrize(
    "other",
    [
        call(CODE, at=NOON + timedelta(seconds=2, microseconds=1)),
        call(CODE, tokens=(1_000, 201, 3_000, 40, 0)),
        call(CODE, tokens=(1_000, 200, 3_001, 40, 0)),
        call(CODE._replace(model_id="claude-opus-4-6")),
        call(CODE._replace(account=B)),
        call(CODE._replace(region=US)),
        call(CODE._replace(platform="anthropic")),
        call(LOG),  # a log tells of a call once
    ],
)
def test_what_differs_is_no_copy(told, other):
    table, usd = copies(told, call(), other)
    assert (table.rows, usd) == ([], 0)


def test_lifetimes_of_cache_writes_may_be_told_by_one_alone(told):
    """The log assumes 5 minutes; the transcript knows of an hour: settled, the call costs what it cost."""
    log = call(LOG._replace(assumed="ttl"), (1_000, 200, 0, 50, 0))
    code = call(CODE._replace(model_id=SONNET, region=EU), (1_000, 200, 0, 0, 50), ids=("", "msg_1", ""))
    _, usd = copies(told, log, code)
    assert usd == picos((1_000, 200, 0, 50, 0))  # both, less the one with the hour


def test_a_source_that_cannot_count_the_cache_still_matches(told):
    spent = call(LOG._replace(source="litellm", account="", region=""), (1_000, 200, 0, 0, 0))
    assert len(copies(told, call(), spent)[0].rows) == 1


def test_a_long_call_is_one_from_its_start_to_its_end(told):
    log = call(latency_ms=45_000)
    code = call(CODE, at=NOON + timedelta(seconds=46))
    assert len(copies(told, log, code)[0].rows) == 1
    late = call(CODE, at=NOON + timedelta(seconds=48))
    assert len(copies(told, late)[0].rows) == 1  # the nearest in time is it


def test_seconds_can_be_more(told):
    usages = call(), call(CODE, at=NOON + timedelta(seconds=30))
    assert not copies(told, *usages)[0].rows
    assert len(copies(told, *usages, seconds=30)[0].rows) == 1


def test_each_record_is_a_copy_of_one_call_only(told):
    """Three calls alike in the log and two in the transcript are three calls."""
    usages = [call(at=NOON + timedelta(milliseconds=i)) for i in range(3)]
    usages += [call(CODE, at=NOON + timedelta(milliseconds=i)) for i in range(2)]
    table, _ = copies(told, *usages)
    assert [row["apart_ms"] for row in table.rows] == [0, 0]


def test_three_sources_of_one_call_are_two_copies(told, ledger):
    lite = LOG._replace(source="litellm")
    usages = call(), call(CODE, ids=("", "msg_1", "")), call(lite, ids=("chatcmpl-1", "", ""))
    before = told(usages).footer["usd"]
    table, usd = copies(told, settle=True)
    assert [row["settled"] for row in table.rows] == ["yes", "yes"]
    after = told([]).footer
    assert (after["usd"], after["priced"]) == (before - usd, 1)


def total(ledger):
    found = cells(ledger, Question())
    return sum(cell.cost for cell in found), sum(cell.calls for cell in found)


@pytest.mark.parametrize(
    "ids",
    [("req_1", "msg_1", ""), ("req_1", "", ""), ("", "msg_1", ""), ("", "", "gw_1"), ("line:7", "", "")],
)
def test_settled_copies_stay_settled(told, ledger, ids):
    """The total falls by exactly what was shown, and importing either source again brings nothing back."""
    log, code, other = call(latency_ms=900), call(CODE, ids=ids), call(CODE, tokens=(5, 6, 7, 8, 9))
    table, usd = copies(told, log, code, other)
    cost, calls = total(ledger)
    assert [row["settled"] for row in table.rows] == ["no"]
    told([], name="duplicates", settle=True)
    assert total(ledger) == (cost - usd, calls - 1)
    assert told([], name="duplicates").rows == []
    rows_then = ledger.rows().project("count(*)").fetchall()
    added = ledger.append([code, log, other])
    assert (added.fresh, added.superseded) == ([], 0)
    assert ledger.rows().project("count(*)").fetchall() == rows_then
    assert told([], name="duplicates", settle=True).rows == []
    (kept,) = [row for row in told([]).rows if row["source"] == "invocation_log"]
    assert kept["calls"] == 1


def test_a_copy_without_any_id_cannot_be_settled_and_says_so(told, ledger):
    table, usd = copies(told, call(), call(CODE, ids=("", "", "")), settle=True)
    assert table.rows[0]["settled"] == "cannot be"
    assert table.parts["possible_duplicates_usd"] == usd > 0
    assert total(ledger)[1] == 2


def test_a_record_that_was_replaced_is_no_copy(told, ledger):
    """Of a call whose transcript grew, only what holds now is compared."""
    ids = ("req_1", "msg_1", "")
    told([call(CODE, tokens=(1_000, 3, 3_000, 40, 0), ids=ids)])
    told([call(CODE, ids=ids)])
    told([call(tokens=(1_000, 3, 3_000, 40, 0))])
    assert told([], name="duplicates").rows == []
    told([call()])
    assert len(told([], name="duplicates").rows) == 1


def test_duplicates_follow_days_and_filters(told):
    usages = [call(), call(CODE), call(LOG._replace(account=B)), call(CODE._replace(account=B))]
    assert len(told(usages, name="duplicates").rows) == 2
    assert len(told([], name="duplicates", where=(parse_where(f"account={B}"),)).rows) == 1
    assert told([], name="duplicates", since=date(2026, 6, 11)).rows == []
    with pytest.raises(QuestionError, match="tag:team"):
        told([], name="duplicates", where=(parse_where("tag:team=x"),))


# --- the command line ----------------------------------------------------------------------------------------------


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


def test_teams_are_told_what_saw_their_calls(told):
    """Two calls of one team, one in the log and one in a transcript; one of nobody's, without a price."""
    mine = {"tags": (("team", "search"),)}
    unknown = LOG._replace(model_id="anthropic.claude-from-tomorrow")
    usages = [
        call(**mine),
        call(CODE, ids=("", "msg_1", ""), tokens=(3_000, 600, 0, 0, 0), **mine),
        call(unknown),
    ]
    table = told(usages, controls((9_000, 900, 9_000, 900, 0), 9), teams=True)
    found = {(row["team"], row["source"]): row for row in table.parts["teams"]}
    assert {key: (row["calls"], row["usd"]) for key, row in found.items()} == {
        ("search", "invocation_log"): (1, picos(TOKENS)),
        ("search", "transcript"): (1, picos((3_000, 600, 0, 0, 0))),
        ("unassigned", "invocation_log"): (1, None),  # unknown is never nothing
    }
    assert sum(Decimal(row["share"]) for row in found.values() if row["team"] == "search") == 1
    assert "teams" not in told([], name="coverage").parts


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(
        [call(), call(CODE, ids=("", "msg_1", "")), call(LOG._replace(model_id=GLOBAL), at=NOON + DAY)]
    )
    ledger.note_totals(controls((5_000, 400, 6_000, 80, 0), 9), NOON)
    place = ("--ledger", str(ledger.folder))
    code, out, _ = run(capsys, "coverage", *place)
    assert code == 0
    assert "control_total" in out
    assert "unexplained" in out
    code, out, _ = run(capsys, "coverage", *place, "--json")
    assert Decimal(json.loads(out)["possible_duplicates_usd"]) > 0
    code, out, err = run(capsys, "residency", *place)
    assert (code, err.count("\n")) == (2, 1)
    assert "no residency policy" in err
    (tmp_path / "farthing.toml").write_text('[[residency]]\nallow = ["geo:eu"]\n')
    code, out, _ = run(capsys, "residency", *place, "--json")
    assert code == 1
    assert {row["routing"] for row in json.loads(out)["rows"]} == {"global", "unknown"}
    code, out, _ = run(capsys, "duplicates", *place, "--settle")
    assert (code, "yes" in out) == (0, True)
    code, out, _ = run(capsys, "coverage", *place, "--json")
    assert json.loads(out)["possible_duplicates_usd"] == "0"
