"""Cells: whatever is asked of a ledger comes to what its records, rated one by one, come to."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import pairwise
from zoneinfo import ZoneInfo

import narwhals.stable.v2 as nw
import pytest

from farthing.book import Book, Card, Resolved, Unpriced, default_book
from farthing.cells import KEYS, TIME_KEYS, Cell, Question, QuestionError, Where, cells, parse_where
from farthing.ledger import Ledger
from farthing.meters import METERS, Vector
from farthing.rating import find
from farthing.usage import EPOCH, Facts, Usage, parse_model_id

BOOK = default_book()
PROFILE = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1b2c3d4e5f6"
V1 = "anthropic.claude-3-5-sonnet-20240620-v1:0"
SOURCES = (  # what contexts hold, as sources tell it
    Facts(
        "bedrock_log", "bedrock", "us.anthropic.claude-sonnet-4-6", region="us-east-1", account="111122223333"
    ),
    Facts("bedrock_log", "bedrock", "global.anthropic.claude-sonnet-4-6", region="us-east-1", session="s1"),
    Facts("bedrock_log", "bedrock", "global.anthropic.claude-sonnet-5-5", region="eu-west-1", assumed="ttl"),
    Facts(
        "bedrock_log", "bedrock", "anthropic.claude-haiku-5-5", region="ap-northeast-1", principal="role/it's"
    ),
    Facts(
        "bedrock_log", "bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0", mode="batch", region="us-west-2"
    ),
    Facts("bedrock_log", "bedrock", V1, region="us-east-1", account="111122223333"),
    Facts("bedrock_log", "bedrock", f"eu.{V1}", account="444455556666"),
    Facts("bedrock_log", "bedrock", PROFILE, "claude-opus-5", region="eu-west-1", assumed="ttl"),
    Facts("bedrock_log", "bedrock", PROFILE.replace("a1b2", "ffff"), region="eu-west-1"),
    Facts("bedrock_log", "bedrock", "anthropic.claude-from-tomorrow", region="eu-west-1", status="ok"),
    Facts("claude_code", "", "claude-opus-4-6", mode="fast", session="s1", project="/home/a/[x]"),
    Facts("claude_code", "", "claude-opus-5", inference_geo="us", session="s2", project="/home/b"),
    Facts("claude_code", "", "claude-haiku-5-5", session="s2", project="/home/b*"),
    Facts("claude_code", "claude_aws", "claude-sonnet-5", session="", project="/home/ü"),
)
FIRST, LAST = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC)
EDGES = [edge for card in BOOK.cards() for edge in (card.starts, card.ends) if FIRST < edge < LAST]
TEAMS = ((), (("team", "search"),), (("env", "prod"), ("team", "ads")), (("env", "test"),), (("team", ""),))


def traffic(count: int, seed: int) -> list[Usage]:
    """Random calls of one to three parts, many of them at the edges of prices, bands and days."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        at = rng.choice([rng.choice(EDGES), FIRST + (LAST - FIRST) * rng.random()])
        at += timedelta(microseconds=rng.choice([-1, 0, 0, 1]))
        parts = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            size = rng.choice([0, 5, 4_096, 100_000, 100_001, 200_000, 200_001, rng.randrange(2**20)])
            cut, output = sorted(rng.randrange(size + 1) for _ in range(3)), rng.randrange(9_999)
            cached = (cut[0], output, cut[1] - cut[0], cut[2] - cut[1], size - cut[2])
            parts.append((rng.choice(SOURCES), rng.choice([(size, output, 0, 0, 0), cached])))
        at_us = (at - EPOCH) // timedelta(microseconds=1)
        made.append(Usage(at_us, f"r{i}", f"m{i}", tuple(parts), rng.choice(TEAMS), rng.choice([None, 7])))
    return made


@pytest.fixture(scope="module")
def calls() -> list[Usage]:
    return traffic(400, 1)


@pytest.fixture(scope="module")
def ledger(calls, tmp_path_factory) -> Ledger:
    """The calls, after a draft of each third one, made at another time and with other tokens, was superseded."""
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    drafts = [
        call._replace(
            at_us=call.at_us - 60_000_000,
            parts=((call.parts[0][0]._replace(source="claude_code"), (9, 0, 300_000, 0, 9)),),
            sidechain=True,
        )
        for call in calls[::3]
    ]
    made.append(drafts)
    for start in range(0, len(calls), 300):
        made.append(calls[start : start + 300])
    return made


# --- the same, one record at a time ----------------------------------------------------------------


def resolve(facts: Facts, question: Question) -> Resolved | Unpriced:
    return question.book.resolve(
        facts.model_id,
        platform=facts.platform,
        region=facts.region,
        mode=facts.mode,
        inference_geo=facts.inference_geo,
        served_model=facts.served_model,
        profiles=question.profiles,
        assume=question.assume,
    )


def key_of(key: str, call: Usage, facts: Facts, place: Resolved | Unpriced, day: date) -> str:
    if key in ("day", "week", "month"):
        monday = day - timedelta(days=day.weekday())
        return {"day": f"{day}", "week": f"{monday}", "month": f"{day:%Y-%m}"}[key]
    if key.startswith("tag:"):
        return dict(call.tags).get(key[4:], "")
    if key == "team":  # none are configured here, so the tag says it
        return dict(call.tags).get("team") or "unassigned"
    if key == "profile":
        return parse_model_id(facts.model_id).profile
    if key == "workload":  # nor are workloads, so each is called by what it is
        made_by = parse_model_id(facts.model_id)
        if made_by.profile and not made_by.base:
            return f"profile:{made_by.profile.rpartition('/')[2]}"
        if facts.project:
            return f"project:{facts.project}"
        if ":assumed-role/" in facts.principal:
            return f"role:{facts.principal.split('/')[1]}"
        return (
            f"principal:{facts.principal}"
            if facts.principal
            else f"account:{facts.account}"
            if facts.account
            else "unassigned"
        )
    if isinstance(place, Resolved):
        said: dict[str, str] = {**place.sku._asdict(), "routing": place.routing}
    else:  # what the source said
        said = {"platform": facts.platform, "model": facts.model_id, "mode": facts.mode or "on_demand"}
        said |= {"endpoint": "", "zone": "", "routing": "unknown"}
    return said[key] if key in said else getattr(facts, key)


def one_by_one(calls: list[Usage], question: Question, keys: tuple[str, ...]) -> dict[tuple, tuple]:
    """Keys -> (calls, tokens, picodollars, tokens without a price): no engine, no grid."""
    sums: dict[tuple, list] = defaultdict(lambda: [0, Vector(), 0, 0])
    places = {
        facts: resolve(facts, question) for facts in {facts for call in calls for facts, _ in call.parts}
    }
    zone, since, until = ZoneInfo(question.tz), question.since or date.min, question.until or date.max
    for call in calls:
        day = call.at.astimezone(zone).date()
        if not since <= day <= until:
            continue
        for part, (facts, counts) in enumerate(call.parts):
            named = {
                key: key_of(key, call, facts, places[facts], day)
                for key in {*keys, *(where.key for where in question.where)}
            }
            if not all(
                any(fnmatchcase(named[where.key], value.replace("[", "[[]")) for value in where.values)
                != where.negated
                for where in question.where
            ):
                continue
            tokens, place = Vector(*counts), places[facts]
            if "ttl" in facts.assumed and question.assume.get("ttl") == "1h":
                tokens = tokens.move(tokens.cache_write_5m, "cache_write_5m", "cache_write_1h")
            card = place if isinstance(place, Unpriced) else find(question.book, place.sku, call.at, tokens)
            total = sums[tuple(named[key] for key in keys)]
            total[0] += part == 0
            total[1] += tokens
            if isinstance(card, Card):
                total[2] += tokens @ card.rates
            else:
                total[3] += tokens.total
    return {keys: tuple(total) for keys, total in sums.items() if total[0] or any(total[1])}


def grouped(found: list[Cell]) -> dict[tuple, tuple]:
    sums: dict[tuple, list] = defaultdict(lambda: [0, Vector(), 0, 0])
    for cell in found:
        total = sums[cell.keys]
        total[0] += cell.calls
        total[1] += cell.tokens
        total[2] += cell.cost
        total[3] += cell.tokens.total if isinstance(cell.price, Unpriced) else 0
    return {keys: tuple(total) for keys, total in sums.items()}


def check(
    ledger: Ledger, calls: list[Usage], question: Question, keys: tuple[str, ...] = ()
) -> dict[tuple, tuple]:
    found = grouped(cells(ledger, question, keys))
    assert found == one_by_one(calls, question, keys)
    return found


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*KEYS, *TIME_KEYS, "tag:team", "tag:none"])
def test_by_each_key(ledger, calls, key):
    assert check(ledger, calls, Question(), (key,))


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("model", "day"),
        ("source", "source"),
        ("day", "week", "month", "session"),
        ("tag:team", "tag:env", "model", "endpoint"),
        (*KEYS, "day"),
        ("routing", "profile", "zone", "mode", 'tag:it\'s "odd"'),
    ],
    ids=",".join,
)
@pytest.mark.parametrize("tz", ["UTC", "Asia/Kathmandu"])
def test_by_several_keys(ledger, calls, keys, tz):
    assert check(ledger, calls, Question(tz=tz), keys)


@pytest.mark.parametrize("seed", range(4))
def test_other_traffic(tmp_path, seed):
    made = traffic(60, seed + 10)
    ledger = Ledger(tmp_path)
    ledger.append(made)
    for tz in ("Europe/Berlin", "America/New_York"):
        assert check(ledger, made, Question(tz=tz), ("day", "model", "source"))


def test_nothing_in_nothing_out(tmp_path, ledger):
    assert cells(Ledger(tmp_path), Question(), ("model", "day")) == []
    assert cells(ledger, Question(since=date(2027, 1, 1))) == []
    assert cells(ledger, Question(since=date(2026, 6, 2), until=date(2026, 6, 1))) == []


@pytest.mark.parametrize("key", ["", "colour", "tag:", "Model", "ctx", "cost", "model_id", "meter"])
def test_an_unknown_key_is_refused(ledger, key):
    with pytest.raises(QuestionError):
        cells(ledger, Question(), (key,))


def test_a_call_is_counted_for_each_meter_it_used(ledger, calls):
    found = cells(ledger, Question(), by_meter=True)
    counted = sum((cell.meter_calls for cell in found), Vector())
    first_parts = [call.parts[0][1] for call in calls]
    assert list(counted) == [sum(tokens[i] > 0 for tokens in first_parts) for i in range(5)]
    settled = cells(ledger, Question(assume={"ttl": "1h"}), by_meter=True)
    for cell in settled:
        for count, tokens in zip(cell.meter_calls, cell.tokens, strict=True):
            assert tokens or not count


def test_flags_tell_rows_apart(ledger, calls):
    long = nw.col("output").abs() > 5_000
    found = cells(ledger, Question(), flags=(long, nw.col("at") >= nw.lit(datetime(2026, 6, 1, tzinfo=UTC))))
    flagged = sum(cell.tokens.output for cell in found if cell.flags == (True, False))
    parts = [(call.at, counts[1]) for call in calls for _, counts in call.parts]
    assert flagged == sum(
        output for at, output in parts if output > 5_000 and at < datetime(2026, 6, 1, tzinfo=UTC)
    )


def test_every_cell_lies_in_one_box(ledger):
    for cell in cells(ledger, Question(), ("model",)):
        assert FIRST - timedelta(days=1) < cell.at < LAST + timedelta(days=1)
        if isinstance(cell.price, Card):
            assert cell.price.starts <= cell.at < cell.price.ends
            assert cell.price.prompt_from <= cell.prompt < cell.price.prompt_to
            assert cell.cost == cell.tokens @ cell.price.rates
        else:
            assert cell.price.reason
            assert cell.cost == 0


# --- time ------------------------------------------------------------------------------------------

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # its clocks change at midnight
    "Asia/Kathmandu",  # +05:45
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Casablanca",  # winter time in Ramadan
    "Pacific/Kiritimati",  # +14
    "Pacific/Pago_Pago",  # -11
    "America/Santiago",  # its clocks go back at midnight, to the day before
)


SPANS = (
    (date(2025, 3, 9), date(2025, 3, 9)),
    (date(2025, 10, 26), date(2025, 11, 2)),
    (date(2026, 3, 29), None),
    (None, date(2025, 4, 5)),
    (date(1900, 1, 1), date(2100, 1, 1)),
)


@pytest.fixture(scope="module")
def around_midnights(tmp_path_factory) -> tuple[Ledger, list[Usage]]:
    """Calls about each midnight and each change of clocks of each zone, for some days of two years."""
    instants = set()
    for name in ZONES:
        zone = ZoneInfo(name)
        days = [date(2025, 1, 1) + timedelta(days=number) for number in range(0, 730, 15)]
        for day in (*days, *(until + timedelta(days=1) for _, until in SPANS if until)):
            day = datetime(day.year, day.month, day.day, tzinfo=zone)
            instants |= {day.astimezone(UTC) + timedelta(seconds=by) for by in (-1, 0, 1)}
        hours = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(730 * 24)]
        for hour, after in pairwise(hours):
            if hour.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
                instants |= {after + timedelta(minutes=by) for by in range(-120, 121, 30)}
                instants |= {after - timedelta(microseconds=1)}
    facts = Facts("claude_code", model_id="claude-sonnet-4-5")
    made = [
        Usage((at - EPOCH) // timedelta(microseconds=1), f"r{i}", f"m{i}", ((facts, (1, 1, 0, 0, 0)),))
        for i, at in enumerate(sorted(instants))
    ]
    ledger = Ledger(tmp_path_factory.mktemp("midnights"))
    ledger.append(made)
    return ledger, made


@pytest.mark.parametrize("tz", ZONES)
def test_days_are_those_of_the_zone(around_midnights, tz):
    ledger, made = around_midnights
    days = check(ledger, made, Question(tz=tz), ("day",))
    assert len(days) > 50
    check(ledger, made, Question(tz=tz), ("week",))
    check(ledger, made, Question(tz=tz), ("month",))


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize(("since", "until"), SPANS)
def test_both_ends_of_a_span_are_included(around_midnights, tz, since, until):
    ledger, made = around_midnights
    check(ledger, made, Question(since=since, until=until, tz=tz), ("day",))


def test_a_span_cuts_what_is_summed_and_not_how_it_is_priced(ledger, calls):
    days = sorted({call.at.date() for call in calls})
    for since, until in zip(days[::40], days[13::40], strict=False):
        check(ledger, calls, Question(since=since, until=until), ("model", "day"))


@pytest.mark.parametrize(
    "tz", ["", "Nonsense", "Europe/Nowhere", "../etc/passwd", "/etc/localtime", "a\0b", "Europe"]
)
def test_an_unknown_zone_is_refused(tz):
    with pytest.raises(QuestionError, match="unknown time zone"):
        Question(tz=tz)


# --- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        ["model=claude-sonnet-5"],
        ["model=claude-opus-*,claude-haiku-5-5"],
        ["model!=claude-opus-*"],
        ["model=claude-haiku-?-5"],
        ["source=claude_code", "session!="],
        ["session="],
        ["endpoint=global", "mode=on_demand"],
        ["routing=geo:*"],
        ["zone=extended"],
        ["profile=*a1b2c3d4e5f6"],
        ["profile!="],
        ["principal=role/it's"],
        ["project=/home/ü"],
        ["project=/home/b"],
        ["project=/home/a/[x]"],
        ["project!=/home/?/[x],*[*"],
        ["account!=111122223333", "region=us-*,eu-west-1"],
        ["tag:team=search"],
        ["tag:team!=search"],
        ["tag:team="],
        ["tag:team!=", "tag:env=prod,test"],
        ["tag:none=x"],
        ["tag:it's=x"],
        ["model=nothing"],
    ],
    ids=" ".join,
)
def test_where(ledger, calls, texts):
    question = Question(where=tuple(map(parse_where, texts)))
    for keys in ((), ("model", "tag:team")):
        check(ledger, calls, question, keys)


def test_a_filter_and_its_negation_share_the_ledger_out(ledger):
    everything = sum(cell.tokens.total for cell in cells(ledger, Question()))
    for text in ("model=claude-s*", "tag:team=ads", "session=s1,draft", "profile="):
        where = parse_where(text)
        for sides in ((where, where._replace(negated=True)),):
            asked = [cells(ledger, Question(where=(side,))) for side in sides]
            assert sum(cell.tokens.total for found in asked for cell in found) == everything


def test_a_filter_taken_apart():
    assert parse_where("model=a, b*") == Where("model", ("a", "b*"))
    assert parse_where(" region != us-east-1 ") == Where("region", ("us-east-1",), negated=True)
    assert parse_where("tag:cost=a=b") == Where("tag:cost", ("a=b",))
    assert parse_where("session=") == Where("session", ("",))


@pytest.mark.parametrize(
    "text", ["", "model", "=x", "colour=red", "tag:=x", "day=2026-01-01", "model>x", "Model=x"]
)
def test_no_filter(text):
    with pytest.raises(QuestionError, match="cannot filter by"):
        parse_where(text)


# --- what is asked later reaches back --------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"assume": {"ttl": "1h"}},
        {"assume": {"ttl": "5m"}},
        {"assume": {"endpoint": "global"}},
        {"assume": {"endpoint": "eu", "ttl": "1h"}},
        {"assume": {"region": "eu-west-2"}},
        {"assume": {"inference_geo": "us"}},
        {"profiles": {PROFILE: "global.anthropic.claude-haiku-4-5-20251001-v1:0"}},
        {"profiles": {"ffffc3d4e5f6": "anthropic.claude-sonnet-5"}},
    ],
    ids=str,
)
def test_assumptions_and_profiles(ledger, calls, said):
    before, after = (
        check(ledger, calls, question, ("model", "endpoint")) for question in (Question(), Question(**said))
    )
    assert (before == after) == (said == {"assume": {"ttl": "5m"}})


def test_what_is_settled_is_no_longer_assumed(ledger):
    def assumed(**assume: str) -> set[str]:
        return {name for cell in cells(ledger, Question(assume=assume)) for name in cell.assumed}

    assert assumed() == {"ttl", "endpoint", "region"}
    assert assumed(ttl="5m") == assumed(ttl="1h") == {"endpoint", "region"}
    assert assumed(endpoint="global") == {"ttl", "region"}
    assert assumed(region="eu-west-2", endpoint="us", ttl="1h") == set()


def test_a_book_without_a_model_has_no_price_for_it_and_a_later_one_has(ledger, calls):
    models = {name: model for name, model in BOOK.models.items() if name != "claude-sonnet-4-6"}
    check(ledger, calls, Question(book=Book(models, BOOK.defaults, "early")), ("model",))
    reasons = {
        cell.price.reason
        for cell in cells(ledger, Question(book=Book(models, BOOK.defaults, "early")))
        if isinstance(cell.price, Unpriced)
    }
    assert any(
        "us.anthropic.claude-sonnet-4-6" in reason or "claude-sonnet-4-6" in reason for reason in reasons
    )
    assert not any(
        "claude-sonnet-4-6'" in getattr(cell.price, "reason", "") for cell in cells(ledger, Question())
    )


def test_a_small_ledger_by_hand(tmp_path):
    """Sonnet 5.5 before and after its cache read fell from 0.20 to 0.10; Haiku 5.5 on each side of its cliff."""
    ledger = Ledger(tmp_path)
    cut = datetime(2026, 10, 7, tzinfo=UTC)
    sonnet = Facts("bedrock_log", "bedrock", "global.anthropic.claude-sonnet-5-5")
    haiku = sonnet._replace(model_id="global.anthropic.claude-haiku-5-5")
    said = [
        (cut - timedelta(microseconds=1), sonnet, (10, 20, 1_000, 0, 0)),
        (cut, sonnet, (10, 20, 1_000, 0, 0)),
        (cut, haiku, (100_000, 7, 0, 0, 0)),
        (cut, haiku, (99_000, 7, 1_001, 0, 0)),
    ]
    for i, (at, facts, counts) in enumerate(said):
        ledger.append(
            [Usage((at - EPOCH) // timedelta(microseconds=1), f"r{i}", f"m{i}", ((facts, counts),))]
        )
    found = grouped(cells(ledger, Question(), ("day", "model")))
    cost = {keys: total[2] for keys, total in found.items()}
    per_token = {  # dollars per million tokens
        ("2026-10-06", "claude-sonnet-5-5"): 10 * Decimal(2) + 20 * Decimal(10) + 1_000 * Decimal("0.20"),
        ("2026-10-07", "claude-sonnet-5-5"): 10 * Decimal(2) + 20 * Decimal(10) + 1_000 * Decimal("0.10"),
        ("2026-10-07", "claude-haiku-5-5"): 100_000 * Decimal("0.10")
        + 7 * Decimal("0.50")
        + 99_000 * Decimal("0.50")
        + 7 * Decimal("2.50")
        + 1_001 * Decimal("0.05"),
    }
    assert cost == {keys: dollars * 10**6 for keys, dollars in per_token.items()}
    assert Vector._fields == METERS
