"""Budgets hold before a call and settle after it. Every law holds in SQLite and in PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from farthing.config import Budget
from farthing.gateway.budgets import BATCH, SOON_S, Denied, Held
from tests.held import ADA, DAY, HOUR, MINUTE, NOW, SECOND, SOON, USD, hard, holds, names, spends, stands

# --- a call, from its hold to its settling ---------------------------------------------------------------------------


def test_a_call_holds_its_ceiling_and_posts_what_it_came_to(opened):
    budgets = opened(hard())
    held = budgets.hold("a", ADA, 4 * USD, NOW, SOON)
    assert held == Held(holds=(f"day@{NOW - NOW % DAY}",))
    assert stands(budgets) == {"day": (0, 4)}
    assert budgets.post("a", 1 * USD, NOW) == ()
    assert stands(budgets) == {"day": (1, 0)}


def test_a_call_that_falls_under_no_budget_passes_without_holds(opened):
    budgets = opened(hard(where=("team=ads",)))
    assert budgets.hold("a", ADA, 4 * USD, NOW, SOON) == Held()
    assert stands(budgets) == {"day": (0, 0)}


def test_a_call_holds_in_all_its_budgets_or_in_none(opened):
    budgets = opened(hard("day", 10), hard("month", 3, period="month"))
    assert not holds(budgets, 4)
    assert stands(budgets) == {"day": (0, 0), "month": (0, 0)}
    assert holds(budgets, 3)
    assert stands(budgets) == {"day": (0, 3), "month": (0, 3)}


def test_a_denial_says_what_a_client_has_to_know(opened):
    budgets = opened(hard("agents", 10, each="key"), zone="Europe/Berlin")
    assert holds(budgets, 8, "a")
    budgets.post("a", 7 * USD, NOW)
    assert holds(budgets, 1)
    midnight = int(datetime(2026, 11, 18, 23, 0, tzinfo=UTC).timestamp()) * SECOND
    assert budgets.hold("c", ADA, 4 * USD, NOW, SOON) == Denied(
        budget="agents/ada",
        period="day",
        reset_us=midnight,
        retry_after_s=(midnight - NOW) // SECOND,
        limit=10 * USD,
        spent=7 * USD,
        held=1 * USD,
        reason="budget agents/ada: $7.00 spent and $1.00 held for calls under way of $10.00 a day; "
        "this call may come to $4.00; the day ends 2026-11-19 00:00 Europe/Berlin",
    )


def test_who_is_denied_for_open_holds_alone_may_try_again_soon(opened):
    budgets = opened(hard())
    assert holds(budgets, 8)
    denied = budgets.hold("b", ADA, 4 * USD, NOW, SOON)
    assert (denied.spent, denied.held, denied.retry_after_s) == (0, 8 * USD, SOON_S)


def test_of_several_denials_the_one_that_lasts_longest_is_told(opened):
    budgets = opened(hard("day", 1), hard("hour", 1, period="hour"), hard("month", 1, period="month"))
    assert budgets.hold("a", ADA, 2 * USD, NOW, SOON).budget == "month"


def test_the_same_call_holds_once(opened):
    budgets = opened(hard())
    assert holds(budgets, 4, "a")
    assert holds(budgets, 4, "a")
    assert stands(budgets) == {"day": (0, 4)}


def test_an_answer_is_posted_whatever_it_came_to(opened):
    budgets = opened(hard())
    assert holds(budgets, 9, "a")
    (notice,) = budgets.post("a", 25 * USD, NOW)
    assert (notice.percent, notice.spent, notice.limit) == (100, 25 * USD, 10 * USD)
    assert notice.says == "budget day: at 100 %: $25.00 of $10.00 a day"
    assert stands(budgets) == {"day": (25, 0)}
    assert not holds(budgets, 0)


def test_a_call_is_posted_once(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    for _ in range(3):
        budgets.post("a", 1 * USD, NOW)
    budgets.void("a", NOW)
    assert stands(budgets) == {"day": (1, 0)}


def test_a_call_without_a_known_cost_posts_its_ceiling(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    budgets.post("a", None, NOW)
    assert stands(budgets) == {"day": (4, 0)}


def test_a_voided_call_gives_its_money_back(opened):
    budgets = opened(hard())
    holds(budgets, 10, "a")
    budgets.void("a", NOW)
    assert stands(budgets) == {"day": (0, 0)}
    assert holds(budgets, 10)


def test_an_answer_after_a_void_is_posted_all_the_same(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    budgets.void("a", NOW)
    budgets.post("a", 3 * USD, NOW)
    budgets.post("a", 3 * USD, NOW)
    assert stands(budgets) == {"day": (3, 0)}


def test_what_was_never_held_is_not_posted(opened):
    budgets = opened(hard())
    assert budgets.post("stranger", 3 * USD, NOW) == ()
    budgets.void("stranger", NOW)
    assert not budgets.renew("stranger", SOON)
    assert stands(budgets) == {"day": (0, 0)}


# --- holds that nobody comes back to ---------------------------------------------------------------------------------


def test_an_expired_hold_posts_its_ceiling_until_the_answer_corrects_it(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    assert budgets.expire(SOON) == 0
    assert budgets.expire(SOON + 1) == 1
    assert budgets.expire(SOON + 1) == 0
    assert stands(budgets) == {"day": (4, 0)}
    budgets.post("a", 1 * USD, SOON + 2)
    budgets.post("a", 1 * USD, SOON + 2)
    assert stands(budgets) == {"day": (1, 0)}


def test_an_expired_hold_that_turns_out_unbilled_is_given_back(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    budgets.expire(SOON + 1)
    budgets.void("a", SOON + 2)
    budgets.void("a", SOON + 3)
    assert stands(budgets) == {"day": (0, 0)}


def test_a_stream_that_lives_keeps_its_hold(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    assert budgets.renew("a", SOON + HOUR)
    assert budgets.expire(SOON + MINUTE) == 0
    assert stands(budgets) == {"day": (0, 4)}
    assert budgets.expire(SOON + 2 * HOUR) == 1
    assert not budgets.renew("a", SOON + 3 * HOUR)


def test_a_hold_that_is_renewed_while_others_look_for_what_is_overdue_does_not_expire(opened):
    budgets = opened(hard())
    holds(budgets, 4, "a")
    budgets.renew("a", SOON + HOUR)
    assert not budgets._expire("a", SOON + 1)
    assert stands(budgets) == {"day": (0, 4)}


def test_thousands_of_holds_expire_at_once(opened):
    budgets = opened(hard(usd=10_000))
    for _ in range(BATCH + 3):
        assert holds(budgets, 1)
    assert budgets.expire(SOON + 1) == BATCH + 3
    assert stands(budgets) == {"day": (BATCH + 3, 0)}


def test_money_goes_to_the_window_that_held_it(opened):
    budgets = opened(hard())
    tomorrow = NOW + DAY
    holds(budgets, 4, "a", until=tomorrow)
    budgets.post("a", 2 * USD, tomorrow)
    assert stands(budgets) == {"day": (2, 0)}
    assert stands(budgets, tomorrow) == {"day": (0, 0)}


# --- which budgets, and how they divide ------------------------------------------------------------------------------


def test_each_value_has_a_budget_of_its_own(opened):
    budgets = opened(hard("agents", 10, each="key"))
    assert holds(budgets, 8)
    assert holds(budgets, 8, scope=ADA._replace(key="ben"))
    assert not holds(budgets, 8)
    assert stands(budgets) == {"agents/ada": (0, 8), "agents/ben": (0, 8)}


def test_calls_that_name_no_value_share_one_budget(opened):
    budgets = opened(hard("runs", 10, each="run"))
    nobody = ADA._replace(run="")
    assert holds(budgets, 8, scope=nobody)
    assert not holds(budgets, 8, scope=nobody._replace(key="ben"))


@pytest.mark.parametrize(
    ("where", "falls"),
    [
        (("team=search",), True),
        (("team=ads,search",), True),
        (("team=ads",), False),
        (("team!=search",), False),
        (("team!=ads", "key=a*"), True),
        (("model=claude-opus-*",), False),
        (("run=run-?",), True),
        (("project=web", "account=1*"), False),
        (("tag:env=prod",), True),
        (("tag:env=dev",), False),
        (("tag:other!=x",), True),
    ],
)
def test_a_budget_is_of_what_its_filters_select(opened, where, falls):
    budgets = opened(hard(where=where))
    held = budgets.hold("a", ADA._replace(tags=(("env", "prod"),)), USD, NOW, SOON)
    assert bool(held.holds) is falls


def test_values_of_any_kind_are_kept_apart(opened):
    budgets = opened(hard("tags", 10, each="tag:of"))
    odd = ["a\0b", "a\nb", "ä" * 300, "ä" * 299, "\ud800", "a/b", "'; --", "%s ?"]
    for value in odd:
        assert holds(budgets, 6, scope=ADA._replace(tags=(("of", value),)))
        assert not holds(budgets, 6, scope=ADA._replace(tags=(("of", value),)))
    assert len(stands(budgets)) == len(odd)


def test_amounts_beyond_64_bits_stay_exact(opened):
    budgets = opened(hard(usd=10**9))
    most = 10**9 * USD
    assert isinstance(budgets.hold("a", ADA, 2**62, NOW, SOON), Held)
    budgets.post("a", most - 1, NOW)
    (row,) = budgets.state(NOW)
    assert row.spent == most - 1 > 2**63
    assert isinstance(budgets.hold("b", ADA, 2, NOW, SOON), Denied)
    assert isinstance(budgets.hold("c", ADA, 1, NOW, SOON), Held)


# --- soft budgets, marks, and costs that nobody knows ----------------------------------------------------------------


def test_a_soft_budget_tells_its_marks_once_a_window_and_refuses_nothing(opened):
    budgets = opened(hard(hold="soft"))
    assert [spends(budgets, usd) for usd in (7, 0.5, 0.4, 1.6, 1, 50)] == [[], [75], [], [95], [100], []]
    assert spends(budgets, 8, NOW + DAY) == [75]


def test_a_hard_budget_tells_its_marks_too(opened):
    budgets = opened(hard())
    assert [spends(budgets, usd) for usd in (7.5, 2, 0.5)] == [[75], [95], [100]]
    assert not holds(budgets, 0.01)


def test_a_mark_reached_by_an_expiry_is_told_with_the_next_call(opened):
    budgets = opened(hard())
    holds(budgets, 8, "a")
    budgets.expire(SOON + 1)
    assert [notice.percent for notice in budgets.hold("b", ADA, USD, SOON, SOON + HOUR).warnings] == [75]


def test_what_nobody_can_price_does_not_pass_a_cap(opened):
    budgets = opened(hard("capped", 10, each="key"))
    denied = budgets.hold("a", ADA, None, NOW, SOON)
    assert isinstance(denied, Denied)
    assert denied.reason == (
        "budget capped/ada: nobody knows what this call may come to at most, so it cannot be held"
    )
    assert stands(budgets) == {}


@pytest.mark.parametrize("how", [{"unpriced": "pass"}, {"hold": "soft"}])
def test_what_nobody_can_price_passes_where_that_is_chosen(opened, how):
    budgets = opened(hard(**how))
    held = budgets.hold("a", ADA, None, NOW, SOON)
    assert [notice.says for notice in held.warnings] == [
        "budget day: nobody knows what this call may come to at most"
    ]
    budgets.post("a", 3 * USD, NOW)
    assert stands(budgets) == {"day": (3, 0)}


# --- windows and clocks ----------------------------------------------------------------------------------------------


def test_calls_and_tokens_a_minute(opened):
    calls = Budget("pace", calls=2, period="minute", hold="hard")
    tokens = Budget("volume", tokens=1000, period="minute", hold="hard", each="key")
    budgets = opened(calls, tokens)

    def asks(name, at, most):
        return budgets.hold(name, ADA, None, at, at + HOUR, tokens=most)

    assert isinstance(asks("a", NOW, 400), Held)
    budgets.post("a", None, NOW, tokens=100)
    assert asks("b", NOW, 901).budget == "volume/ada"
    assert isinstance(asks("c", NOW, 900), Held)
    denied = asks("d", NOW, 0)
    assert (denied.budget, denied.unit, denied.limit, denied.retry_after_s) == ("pace", "calls", 2, SOON_S)
    budgets.post("c", None, NOW)  # its tokens are not known: those it held
    assert asks("d", NOW, 0).retry_after_s == 45
    assert isinstance(asks("d", NOW + 45 * SECOND, 1000), Held)
    assert {row.budget: (row.spent, row.held) for row in budgets.state(NOW)} == {
        "pace": (2, 0),
        "volume": (1000, 0),
    }


def test_a_window_begins_anew_in_its_own_zone(opened):
    budgets = opened(hard(), zone="Asia/Tokyo")
    assert holds(budgets, 10, at=NOW)
    assert not holds(budgets, 1, at=NOW + 4 * HOUR)  # 23:30 in Tokyo
    assert holds(budgets, 10, at=NOW + 5 * HOUR)


def test_a_clock_that_steps_neither_frees_money_nor_doubles_it(opened):
    budgets = opened(hard())
    holds(budgets, 6, "a")
    budgets.post("a", 6 * USD, NOW)
    holds(budgets, 4, "b", at=NOW + DAY, until=NOW + DAY + HOUR)  # a step forward by a day
    assert not holds(budgets, 5)  # and back
    assert holds(budgets, 4, "c")
    assert budgets.expire(NOW + 30 * DAY) == 2  # forward: both lapse at their ceilings
    assert stands(budgets) == {"day": (10, 0)}
    assert stands(budgets, NOW + DAY) == {"day": (4, 0)}
    budgets.post("c", 1 * USD, NOW - DAY)  # back: each is corrected where it was held
    budgets.post("b", 2 * USD, NOW - DAY)
    assert stands(budgets) == {"day": (7, 0)}
    assert stands(budgets, NOW + DAY) == {"day": (2, 0)}


def test_only_short_windows_are_forgotten(opened):
    budgets = opened(Budget("pace", calls=9, period="minute", hold="hard"), hard())
    for at in (NOW, NOW + 2 * DAY):
        name = f"call-{next(names)}"
        budgets.hold(name, ADA, USD, at, at + HOUR)
        budgets.post(name, USD, at)
    budgets.expire(NOW + 2 * DAY)
    assert {row.budget: row.spent for row in budgets.state(NOW)} == {"pace": 0, "day": USD}
    assert {row.budget: row.spent for row in budgets.state(NOW + 2 * DAY)} == {"pace": 1, "day": USD}
