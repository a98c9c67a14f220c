"""When requests leave the queue: pure functions, on made-up waiting rows."""

from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.gateway._batch_accept import due_us
from farthing.gateway._batch_clock import HOUR, SECOND
from farthing.gateway._batch_limits import ask_quotas, limits_of
from farthing.gateway._batch_plan import (
    LIKELY_US,
    WORST_US,
    Limits,
    Margin,
    Pace,
    choose,
    cutoff_us,
    pace,
    plan,
    with_hits,
)
from farthing.gateway._batch_queue import Group, Row
from farthing.meters import Vector
from farthing.usage import Rejected, Sku

GROUP = Group("bedrock", "global.anthropic.claude-sonnet-4-6", "InvokeModel")
OTHER = GROUP._replace(model="global.anthropic.claude-haiku-4-5-20251001-v1:0")
MARGIN = Margin(base_us=HOUR // 4, send_us=SECOND, senders=1)
FAST = Pace(HOUR // 6, HOUR // 2)
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def rows(count, due_h, group=GROUP, first=0, accepted_us=-HOUR):
    return [
        Row(f"{group.model[17:20]}{first + n}", group, accepted_us, int(due_h * HOUR), 100)
        for n in range(count)
    ]


def planned(waiting, now_us=0, limits=None, paces=FAST, open_jobs=None, size=1000):
    ordered = sorted(waiting, key=lambda row: row.deadline_us)
    found = plan(
        ordered, now_us, limits=lambda _: limits or Limits(), paces=lambda _: paces, margin=MARGIN,
        open_jobs=open_jobs or {}, size=size,
    )  # fmt: skip
    return [(len(each.ids), each.as_job) for each in found], found


def test_nothing_goes_while_there_is_time_for_company():
    assert planned(rows(999, 24))[0] == []


def test_a_good_size_goes_at_once():
    assert planned(rows(1000, 24))[0] == [(1000, True)]


def test_a_hundred_go_when_the_earliest_deadline_needs_it():
    needed_us = 24 * HOUR - FAST.worst_us - MARGIN.of(150)  # half an hour, and what would have to be sent
    assert planned(rows(150, 24), needed_us - 1)[0] == []
    assert planned(rows(150, 24), needed_us)[0] == [(150, True)]


def test_fewer_than_the_least_wait_and_are_sent_when_no_batch_would_end_in_time():
    last_us = 6 * HOUR - FAST.likely_us - MARGIN.of(99)
    assert planned(rows(99, 6), last_us)[0] == []
    sizes, found = planned(rows(99, 6), last_us + SECOND)
    assert sizes == [(1, False)]  # the last of them; each later second, another one
    assert "too near" in found[0].reason
    assert planned(rows(99, 6), 6 * HOUR - FAST.likely_us - MARGIN.of(1) + 1)[0] == [(99, False)]


def test_the_urgent_are_merged_with_others_up_to_the_least():
    waiting = rows(60, 1) + rows(200, 24, first=60)
    sizes, found = planned(waiting, HOUR // 4)
    assert sizes == [(100, True)]
    assert set(found[0].ids) >= {row.id for row in waiting[:60]}


def test_what_would_be_too_few_to_go_alone_goes_along():
    assert planned(rows(60, 1) + rows(130, 24, first=60), HOUR // 4)[0] == [(190, True)]


def test_a_submission_that_still_arrives_is_waited_for_a_little():
    fresh = rows(120, 3, accepted_us=-SECOND)
    unknown = Pace()
    assert planned(fresh, paces=unknown)[0] == []
    assert planned(fresh, 40 * SECOND, paces=unknown)[0] == [(120, True)]


def test_who_waits_on_an_open_line_waits_for_company_only():
    waiting = rows(150, 6, accepted_us=-SECOND)
    held = [row._replace(id=f"fh-{row.id}") for row in rows(30, 8, first=500, accepted_us=-SECOND)]
    assert planned(waiting + held)[0] == [], "more may arrive in this half minute"
    minute = HOUR // 60
    assert planned(waiting, minute)[0] == [], "for whom nobody waits"
    assert planned(waiting + held, minute)[0] == [(180, True)], "too few would be left for a job of their own"
    _, (job,) = planned(rows(400, 6) + held, minute)
    assert [name.startswith("fh-") for name in job.ids] == [True] * 30 + [False] * 70
    more = rows(400, 6, accepted_us=5 * minute)
    assert planned(more + held, 5 * minute)[0] == [(100, True)], "though others come all the time"


def test_jobs_keep_the_limits_of_the_quota():
    assert planned(rows(2500, 24), limits=Limits(most=900))[0] == [(833, True), (833, True), (834, True)]
    heavy = Limits(least=100, most_bytes=50_000)
    assert planned(rows(1000, 24), limits=heavy)[0] == [(500, True), (500, True)]


def test_where_places_are_few_jobs_are_larger():
    waiting = rows(10_000, 24)
    assert planned(waiting, open_jobs={GROUP.model: 18})[0] == [(5000, True), (5000, True)]
    assert len(planned(waiting)[0]) == 10


def test_a_large_queue_is_not_sent_by_itself_because_all_of_it_could_fail():
    assert {as_job for _, as_job in planned(rows(30_000, 3), paces=Pace(HOUR, 2 * HOUR))[0]} == {True}


def test_the_earliest_deadline_has_the_last_free_place():
    waiting = rows(1000, 24) + rows(1000, 12, first=1000)
    one_left = {GROUP.model: 19}
    sizes, found = planned(waiting, limits=Limits(most=1000), open_jobs=one_left)
    assert sizes == [(1000, True)]
    assert set(found[0].ids) == {row.id for row in waiting[1000:]}
    assert len(planned(waiting + rows(1000, 24, OTHER), open_jobs=one_left)[0]) == 2  # a quota is of a model


def test_durations_are_learned_and_never_above_the_services_own_limit():
    assert pace([]) == Pace(LIKELY_US, WORST_US)
    assert pace([HOUR, 4 * HOUR, 2 * HOUR]) == Pace(2 * HOUR, 6 * HOUR)
    assert pace([20 * HOUR]).worst_us == WORST_US
    assert pace([9 * HOUR] * 5 + [HOUR] * 20) == Pace(HOUR, HOUR * 3 // 2)  # what is long ago is forgotten


def test_a_job_is_given_up_while_there_is_time_to_send_what_it_has_not_done():
    assert cutoff_us([6 * HOUR], MARGIN) == 6 * HOUR - HOUR // 4 - SECOND
    assert cutoff_us([6 * HOUR] * 600, MARGIN) == 6 * HOUR - HOUR // 4 - 600 * SECOND
    assert cutoff_us([], MARGIN) > WORST_US


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=400),
    st.integers(0, 26),
    st.integers(1, 300),
    st.integers(1, 5),
)
def test_every_request_leaves_at_most_once_in_time_and_within_limits(due, now_h, size, slots):
    waiting = [
        Row(str(n), GROUP if first else OTHER, 0, hours * HOUR, 10)
        for n, (hours, first) in enumerate(sorted(due))
    ]
    limits = Limits(least=50, most=150, jobs=slots)
    _, found = planned(waiting, now_h * HOUR, limits, size=size)
    ids = [name for each in found for name in each.ids]
    assert len(ids) == len(set(ids))
    by_id = {row.id: row for row in waiting}
    for each in found:
        assert {by_id[name].group for name in each.ids} == {each.group}
        if each.as_job:
            assert 50 <= len(each.ids) <= 150
            first = min(by_id[name].deadline_us for name in each.ids)
            assert now_h * HOUR + FAST.likely_us + MARGIN.base_us <= first
    per_model = [each.group.model for each in found if each.as_job]
    assert all(per_model.count(model) <= slots for model in per_model)
    hopeless = {row.id for row in waiting if row.deadline_us < now_h * HOUR + FAST.likely_us + MARGIN.base_us}
    assert hopeless <= {name for each in found if not each.as_job for name in each.ids}


# --- batch, or cached and at once ------------------------------------------------------------------------------------


SONNET = Sku("bedrock", "claude-sonnet-4-6", "global", "", "on_demand")


def test_nine_tenths_from_the_cache_are_cheaper_at_once_on_bedrock():
    """$3 and $15 a million, reads at $0.30; in a batch $1.50 and $7.50: of 10,000 tokens, 9,000 of them read."""
    choice = choose(default_book(), SONNET, with_hits(10_000, 100, 90), NOON)
    assert choice.sync_picos == 1_000 * 3_000_000 + 9_000 * 300_000 + 100 * 15_000_000
    assert choice.batch_picos == 10_000 * 1_500_000 + 100 * 7_500_000
    assert "cached and at once it costs $0.0072, in a batch, which has no cache, $0.0158" in choice.reason


def test_without_a_cache_a_batch_is_half():
    choice = choose(default_book(), SONNET, with_hits(10_000, 100, 0), NOON)
    assert choice.reason == ""
    assert (choice.sync_picos, choice.batch_picos) == (31_500_000_000, 15_750_000_000)


def test_the_break_even_is_that_of_the_published_rule():
    """phi < 0.556 + 2.78 O/I: of 10,000 tokens with 500 out, 69.5 % of the prompt."""
    told = [choose(default_book(), SONNET, with_hits(10_000, 500, hits), NOON).reason for hits in (69, 70)]
    assert [bool(reason) for reason in told] == [False, True]


def test_anthropics_own_batches_keep_the_cache():
    direct = SONNET._replace(platform="anthropic")
    assert choose(default_book(), direct, with_hits(10_000, 100, 95), NOON).reason == ""


def test_a_model_without_a_batch_price_is_not_batched():
    opus = SONNET._replace(model="claude-opus-4-8")
    assert "no batch price" in choose(default_book(), opus, Vector(input=100, output=10), NOON).reason


# --- quotas and deadlines --------------------------------------------------------------------------------------------


def test_quotas_are_of_the_model_and_else_as_published():
    quotas = [
        {"QuotaName": "Minimum number of records per batch inference job for Claude Sonnet 4.6", "Value": 50.0},
        {"QuotaName": "Records per batch inference job for Anthropic Claude Sonnet 4.6", "Value": 20_000.0},
        {"QuotaName": "Records per input file per batch inference job for Claude Sonnet 4.6", "Value": 9_000.0},
        {"QuotaName": "Records per batch inference job for Claude Sonnet 4", "Value": 7.0},
        {"QuotaName": "Sum of in-progress and submitted batch inference jobs using a base model for "
         "Claude Sonnet 4.6", "Value": 5.0},
        {"QuotaName": "Something else", "Value": 1.0},
    ]  # fmt: skip
    assert limits_of(quotas, "Claude Sonnet 4.6") == Limits(50, 9_000, 128 << 20, 5)
    assert limits_of(quotas, "Claude Opus 5") == Limits()


def test_quotas_are_asked_page_by_page_and_not_having_the_right_is_no_fault():
    client = boto3.client(
        "service-quotas", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x",
        endpoint_url="http://127.0.0.1:9",
    )  # fmt: skip
    name = "ecords per batch inference job for Claude Opus 5"
    pages = [
        {"Quotas": [{"QuotaName": f"R{name}", "Value": 900.0}], "NextToken": "n"},
        {"Quotas": [{"QuotaName": f"Minimum number of r{name}", "Value": 10.0}]},
    ]
    with Stubber(client) as answers:
        answers.add_response("list_service_quotas", pages[0], {"ServiceCode": "bedrock"})
        answers.add_response("list_service_quotas", pages[1], {"ServiceCode": "bedrock", "NextToken": "n"})
        assert limits_of(ask_quotas(client), "Claude Opus 5")[:2] == (10, 900)
        answers.add_client_error("list_service_quotas", "AccessDeniedException")
        assert ask_quotas(client) == []


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21_600), ("2d", 172_800)])
def test_deadlines(text, seconds):
    assert due_us(text, 5) == 5 + seconds * SECOND


def test_a_deadline_may_be_a_time():
    told = due_us((datetime.now(UTC) + timedelta(hours=2)).isoformat(), 0)
    assert 7_190 * SECOND < told <= 7_200 * SECOND


@pytest.mark.parametrize(
    "text", ["", "6", "-1h", "0h", "soon", "1h30m", "2020-01-01T00:00:00Z", "99999d", "2099-01-01"]
)
def test_no_deadlines(text):
    with pytest.raises(Rejected, match="deadline"):
        due_us(text, 0)
