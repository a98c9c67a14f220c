"""The policy file: what is decided from what is known of a request, what cannot be in it, and how it is read live."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import default_book
from farthing.cache import POLICIES
from farthing.cells import Question, cells
from farthing.config import MEMBERS, Config, Workload
from farthing.ledger import Ledger
from farthing.optimise._replay import BY_CLIENT
from farthing.outbox import Decision
from farthing.policy import (
    APPLIED,
    LIVE,
    REFUSED,
    SHADOWED,
    Marker,
    Policy,
    PolicyError,
    Request,
    Selectors,
    decide,
    draw,
    load,
    reload,
)
from farthing.policy._decide import _workloads
from farthing.policy._file import entry_faults
from farthing.usage import Facts, Usage, parse_model_id
from tests.policies import BATCH, CACHE, CALL, DAY, GLOBAL, GOOD, HAIKU, HOUR, MARKERS, NOW, SUPPORT

BOOK = default_book()


def policy(*entries, **changed) -> Policy:
    return Policy(
        workloads=SUPPORT, entries=tuple(msgspec.structs.replace(each, **changed) for each in entries)
    )


def one(entry, request=CALL, now=NOW, **changed):
    (made,) = decide(policy(entry, **changed), request, now)
    return made


# --- what is decided -------------------------------------------------------------------------------------------------


def test_each_lever_says_what_it_changes_and_why():
    found = decide(policy(HAIKU, CACHE, GLOBAL), CALL, NOW)
    assert [(made.lever, made.outcome) for made in found] == [
        ("model", APPLIED), ("cache", APPLIED), ("endpoint", APPLIED)
    ]  # fmt: skip
    assert found[0].change["model_id"] == "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
    assert found[1].change == {"markers": MARKERS}
    assert found[2].change == {"model_id": "global.anthropic.claude-haiku-4-5-20251001-v1:0"}
    assert found[2].recorded() == Decision(
        "endpoint",
        "support/claude-sonnet-4-6/endpoint: calls global.anthropic.claude-haiku-4-5-20251001-v1:0",
    )


def test_only_the_workload_and_the_model_that_an_entry_names():
    assert decide(policy(GLOBAL), CALL._replace(tags={"app": "chat"}), NOW) == []
    assert decide(policy(GLOBAL), CALL._replace(model_id="eu.anthropic.claude-opus-5-5"), NOW) == []
    assert one(GLOBAL, model="").outcome == APPLIED
    by_role = msgspec.structs.replace(GLOBAL, workload="role:batch")
    role = "arn:aws:sts::111122223333:assumed-role/batch/s1"
    assert one(by_role, Request(CALL.model_id, principal=role)).outcome == APPLIED


def test_a_request_belongs_to_the_workload_that_reports_count_its_call_to(tmp_path):
    """By every kind of member, by patterns, by rank, and by fingerprint where nobody claims it."""
    members = {
        "tagged": Workload(tags=("app=support",)),
        "wild": Workload(tags=("app=s*",), accounts=("4444*",)),
        "role": Workload(principals=("arn:aws:iam::111122223333:role/search",)),
        "profile": Workload(profiles=("a1",)),
        "project": Workload(projects=("/srv/*",)),
    }
    session = "arn:aws:sts::111122223333:assumed-role/search/s1"
    said: list[dict[str, Any]] = [
        {"tags": {"app": "support"}, "principal": session},
        {"tags": {"app": "sales", "x": "y"}},
        {"principal": session, "project": "/srv/a"},
        {"model_id": PROFILE, "project": "/srv/a"},
        {"project": "/srv/a", "account": "444455556666"},
        {"account": "444455556666"},
        {"account": "111122223333"},
        {"principal": "arn:aws:sts::111122223333:assumed-role/other/s1"},
        {"project": "/home/x"},
        {},
    ]
    requests = [CALL._replace(**{"tags": dict[str, str](), **each}) for each in said]
    ledger = Ledger(tmp_path / "ledger")
    for number, request in enumerate(requests):
        facts = Facts("bedrock_log", "bedrock", request.model_id, served_model="claude-sonnet-4-6",
                      account=request.account, principal=request.principal, project=request.project)  # fmt: skip
        ledger.append(
            [Usage(number, f"r{number}", "", ((facts, (1, 0, 0, 0, 0)),), tuple(request.tags.items()))]
        )
    counted = {
        cell.keys[0] for cell in cells(ledger, Question(config=Config(workloads=members)), ("workload",))
    }
    selectors = {
        name: Selectors(*(getattr(made, kind) for kind in MEMBERS)) for name, made in members.items()
    }
    of = _workloads(Policy(workloads=selectors))
    found = [
        of(request := CALL._replace(**{"tags": {}, **each}), parse_model_id(request.model_id))
        for each in said
    ]
    assert found == ["tagged", "wild", "role", "profile", "project", "wild", "account:111122223333", "role:other",
                     "project:/home/x", "unassigned"]  # fmt: skip
    assert set(found) == counted


PROFILE = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1"
PROVISIONED = "arn:aws:bedrock:eu-west-1:111122223333:provisioned-model/p1"


@pytest.mark.parametrize(
    ("entry", "changed", "why"),
    [
        (GLOBAL, {"pinned": True}, "the key is pinned to its region"),
        (GLOBAL, {"model_id": "global.anthropic.claude-sonnet-4-6"}, "at the global endpoint already"),
        (CACHE, {"markers": (Marker("end"),)}, "the client places cache points of its own"),
        (CACHE, {"prompt_tokens": 1_023}, "1,023 tokens, and claude-sonnet-4-6 caches from 1,024"),
        (CACHE, {"places": ("tools",)}, "it has none of system, end"),
        (CACHE, {"mode": "batch"}, "a batch has no cache"),
        (HOUR, {}, "the client places no cache points"),
        (HOUR, {"markers": (Marker("end", "1h"),)}, "they live 1h already"),
        (BATCH, {"stream": True}, "its answer is streamed"),
        (BATCH, {"mode": "batch"}, "it is a batch already"),
    ],
)  # fmt: skip
def test_refused_with_the_reason(entry, changed, why):
    made = one(entry, CALL._replace(**changed))
    assert (made.outcome, made.change) == (REFUSED, {})
    assert why in made.reason
    assert made.recorded().reason == f"refused: {made.reason}"


def test_what_is_called_by_capacity_or_by_a_profile_of_somebodys_stays_where_it_is():
    for model_id, why in ((PROVISIONED, "provisioned"), (PROFILE, "not resolved")):
        made = one(GLOBAL, CALL._replace(model_id=model_id), model="")
        assert made.outcome == REFUSED
        assert why in made.reason


def test_a_batch_has_no_cache_on_bedrock_so_no_markers_are_placed_on_one():
    batch, cache = decide(policy(CACHE, BATCH), CALL, NOW)
    assert (batch.outcome, cache.outcome, cache.reason) == (APPLIED, REFUSED, "a batch has no cache")


def test_a_shadow_is_decided_and_recorded_and_changes_nothing_that_follows():
    batch, cache = decide(policy(msgspec.structs.replace(BATCH, state="shadow"), CACHE), CALL, NOW)
    assert (batch.outcome, batch.recorded().shadow, cache.outcome) == (SHADOWED, True, APPLIED)


@pytest.mark.parametrize(
    ("changed", "now", "why"),
    [
        ({}, datetime(2027, 2, 1, tzinfo=UTC), "expired 2027-02-01"),
        ({}, datetime(2026, 11, 19, tzinfo=UTC), "approved at 2026-11-20, which is still to come"),
        ({"approver": "", "approved_at": "", "expires": ""}, NOW, "nobody has approved it"),
        ({"share": 0}, NOW, "not among the 0 % of keys"),
    ],
)
def test_what_is_not_in_force_does_nothing(changed, now, why):
    made = one(GLOBAL, now=now, **changed)
    assert made.outcome == REFUSED
    assert why in made.reason


def test_what_is_off_is_not_even_looked_at():
    assert decide(policy(GLOBAL, state="off"), CALL, NOW) == []


entries = st.sampled_from([GLOBAL, CACHE, HOUR, BATCH, HAIKU])
requests = st.builds(
    Request,
    model_id=st.sampled_from(
        ["anthropic.claude-sonnet-4-6", "eu.anthropic.claude-sonnet-4-6", "global.anthropic.claude-sonnet-4-6", PROFILE]
    ),
    region=st.just("eu-west-1"),
    tags=st.just({"app": "support"}),
    stream=st.booleans(),
    mode=st.sampled_from(["", "batch"]),
    key=st.text(max_size=8),
    session=st.sampled_from(["", "s1"]),
    pinned=st.booleans(),
    markers=st.lists(
        st.builds(Marker, st.sampled_from(["tools", "end"]), st.sampled_from(["5m", "1h"])), max_size=4
    ).map(tuple),
    prompt_tokens=st.one_of(st.none(), st.integers(0, 5_000)),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(entries, unique_by=lambda each: each.name),
    requests,
    st.integers(-40, 100),
    st.sampled_from(["on", "shadow"]),
)
def test_laws_of_decisions(chosen, request, days, state):
    now = NOW + days * DAY
    made = decide(policy(*chosen, state=state), request, now)
    assert made == decide(policy(*chosen, state=state), request, now)
    in_force = datetime(2026, 11, 20, tzinfo=UTC) <= now < datetime(2027, 2, 1, tzinfo=UTC)
    for each in made:
        assert each.reason
        assert each.outcome == REFUSED or (in_force and each.change)
        assert each.outcome != (APPLIED if state == "shadow" else SHADOWED)
        if "markers" in each.change and request.markers:  # a client's own are where they were, and as many
            assert [marker.at for marker in each.change["markers"]] == [
                marker.at for marker in request.markers
            ]
            assert each.lever == "ttl"
        if each.lever == "endpoint" and each.outcome != REFUSED:
            assert not request.pinned
    assert {each.lever for each in made if each.outcome == APPLIED} != {"batch", "cache"}


@settings(max_examples=100)
@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_who_is_in_a_canary_stays_in_it_as_it_grows(key, share, more):
    request = CALL._replace(key=key, session="s")
    small, large = sorted((share, more))
    if one(CACHE, request, share=small).outcome == APPLIED:
        assert one(CACHE, request, share=large).outcome == APPLIED


def test_a_canary_takes_about_its_share_of_keys_and_those_that_are_named():
    inside = sum(draw(CACHE, f"key-{n}") < 20 for n in range(5_000))
    assert 900 < inside < 1_100
    out = next(f"key-{n}" for n in range(100) if draw(CACHE, f"key-{n}") >= 20)
    request = CALL._replace(key=out)
    assert one(CACHE, request, share=20).reason == "not among the 20 % of keys"
    assert one(CACHE, request, share=20, keys=(out,)).outcome == APPLIED
    nobody = CALL._replace(key="")
    assert one(CACHE, nobody, share=20).reason == "nothing to draw it by: it has no key, session or principal"


def test_every_cache_policy_that_can_run_live_can_be_named():
    assert list(POLICIES) == list(LIVE)
    for was in POLICIES | BY_CLIENT:
        assert one(CACHE, was=was).outcome == APPLIED
        assert not list(entry_faults(msgspec.structs.replace(CACHE, was=was)))
    assert one(CACHE, markers=(), cache_policy="adaptive").change == {"cache_policy": "adaptive"}


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "farthing-policy.toml"


def test_a_person_can_write_it(path):
    path.write_text(GOOD)
    assert decide(load(path), CALL, NOW)[0].outcome == APPLIED


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"global"', '"eu"', ":8: entries[1].endpoint: 'eu' is no endpoint to go to: write \"global\""),
        ('"endpoint"', '"endpiont"', ":7: entries[1].lever: 'endpiont' is no lever: write model, batch, cac"),
        ("endpoint =", "endponit =", ":8: entries[1].endponit: unknown key; did you mean `endpoint`?"),
        ('"2027-02-01"', '"soon"', ":11: entries[1].expires: 'soon' is no time: write 2026-11-23T05:00:00Z"),
        ('"2027-02-01"', '"2026-11-01"', ":11: entries[1].expires: 2026-11-01 is not after 2026-11-20"),
        ('"2027-02-01"', "2027-02-01", ":11: entries[1].expires: 2027-02-01 is not text: write it in quotes"),
        ('expires = "2027-02-01"', "share = 101", "entries[1].share: 101 is no share: write percent of the keys"),
        ('expires = "2027-02-01"', "", ":5: entries[1].expires: is missing: write the day from which it no longer"),
        ('"app=support"', '"support"', ":3: workloads.support.tags[1]: 'support' is no tag: write KEY=VALUE"),
        ('workload = "support"', 'workload = ""', ":6: entries[1].workload: is empty"),
        ('endpoint = "global"', 'ttl = "1h"', "entries[1].ttl: belongs to the lever ttl, not endpoint"),
        ("[[entries]]", "[[entries]", "(at line 5"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_line_and_mend(path, old, new, says):
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PolicyError) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shadow", "says"),
    [
        ('sample = 101, budget_usd = "1"', "sample = 101: write percent of the calls"),
        ("sample = 5", "budget_usd = '': write what copies may cost in all"),
        ('sample = 5, budget_usd = "0"', "budget_usd = '0': write what copies may cost"),
        ('sample = 5, budget_usd = "1", per_minute = 0', "per_minute = 0: write copies a minute at most"),
    ],
)
def test_copies_have_a_sample_and_a_budget(path, shadow, says):
    model = 'lever = "model"\nmodel = "claude-sonnet-4-6"\nuse = "claude-haiku-4-5"\nstate = "shadow"'
    does = f"{model}\nshadow = {{{shadow}}}"
    path.write_text(GOOD.replace('lever = "endpoint"\nendpoint = "global"', does))
    with pytest.raises(PolicyError, match=re.escape(says)):
        load(path)


@pytest.mark.parametrize(
    ("markers", "says"),
    [
        ('[{at = "end"}, {at = "system"}]', "are not in the order of the prompt"),
        ('[{at = "system", ttl = "5m"}, {at = "end", ttl = "1h"}]', "a 1h cache point comes after a 5m one"),
        ('[{at = "middle"}]', "'middle' is no place"),
        ('[{at = "tools"}, {at = "system"}, {at = "end-3"}, {at = "end-2"}, {at = "end"}]', "at most 4"),
        ("[]", "write either `markers` or `cache_policy`"),
    ],
)
def test_markers_that_the_api_would_refuse_are_refused_here(path, markers, says):
    path.write_text(f'[[entries]]\nworkload = "support"\nlever = "cache"\nmarkers = {markers}\n')
    with pytest.raises(PolicyError, match=says):
        load(path)


def test_a_model_is_changed_by_nobody_without_a_verdict(path):
    path.write_text(
        '[[entries]]\nworkload = "w"\nlever = "model"\nmodel = "claude-opus-5"\nuse = "claude-sonnet-5"\n'
    )
    with pytest.raises(PolicyError, match="no model is changed without one"):
        load(path)
    path.write_text(path.read_text() + 'state = "shadow"\n')
    assert load(path).entries[0].use == "claude-sonnet-5"


# --- live ------------------------------------------------------------------------------------------------------------


def test_no_file_is_no_policy(path):
    found = reload(path, BOOK)
    assert (found.decide(CALL, NOW), found.fault) == ([], "")
    assert reload(path, BOOK, found) is found


def test_a_change_is_seen_and_a_broken_file_leaves_what_was_in_force(path):
    path.write_text(GOOD)
    first = reload(path, BOOK)
    assert reload(path, BOOK, first) is first
    path.write_text(GOOD[:-40])  # half written, by an editor that does not replace files
    broken = reload(path, BOOK, first)
    assert broken.fault.startswith(str(path))
    assert broken.decide(CALL, NOW)[0].outcome == APPLIED
    path.unlink()
    assert reload(path, BOOK, broken).decide(CALL, NOW) == []
    path.write_bytes(b"\xff\xfe")
    assert reload(path, BOOK).decide(CALL, NOW) == []
