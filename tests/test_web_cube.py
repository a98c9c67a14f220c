"""The dashboard's sums: whatever a report asks of them, they answer as the ledger's rows do, to the picodollar."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.book import Card
from farthing.cells import KEYS, TIME_KEYS, Cell, Question, cells, parse_where
from farthing.config import Config, Team
from farthing.ledger import Ledger, compact, retain
from farthing.meters import METERS
from farthing.reports import REPORTS, as_json
from farthing.usage import EPOCH, Facts, Usage
from farthing.web import _sums
from farthing.web._cube import Cubed
from tests.test_cells import traffic

TEAMS = Config(teams={"search": Team(tags=("team=search",)), "b": Team(projects=("/home/b*",))})
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns")
WHERE = (
    "model=claude-sonnet-*", "region!=us-east-1", "tag:team=search,", "tag:env!=*", "team=search,unassigned",
    "team!=b", "project=/home/a/[x]", "principal=role/it's", "workload=project:*", "routing=in_region,global",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Calls, every third of them first seen otherwise, so that rows are taken back; in several commits."""
    made = Ledger(tmp_path_factory.mktemp("ledger"))
    calls = traffic(500, 3)
    worse = [
        call._replace(
            parts=((call.parts[0][0]._replace(source="claude_code"), (9, 0, 300_000, 0, 9)),), sidechain=True
        )
        for call in calls[::3]
    ]
    made.append(worse)
    made.append(calls[:250])
    made.append(calls[250:])
    return Path(made.folder)


@pytest.fixture(scope="module")
def both(folder) -> tuple[Ledger, Cubed]:
    return Ledger(folder), Cubed(folder)


def counted(found: list[Cell]) -> Counter[tuple[object, ...]]:
    """The cells' tokens, calls and dollars by all that tells cells apart; two engines may cut them in another order."""
    sums: Counter[tuple[object, ...]] = Counter()
    for cell in found:
        price = cell.price.id if isinstance(cell.price, Card) else cell.price.reason
        place = (cell.keys, str(cell.sku), cell.at, cell.prompt, price, cell.assumed, cell.source)
        numbers = (cell.calls, *cell.tokens, *cell.meter_calls, cell.cost)
        sums.update({(*place, i): number for i, number in enumerate(numbers)})
    return +sums


keys = st.lists(st.sampled_from([*KEYS, *TIME_KEYS, "tag:team", "tag:env"]), max_size=3, unique=True)
days = st.dates(date(2026, 1, 20), date(2026, 12, 1))
questions = st.builds(
    lambda tz, since, until, where, assume, config: Question(
        since, until, tz, tuple(map(parse_where, where)), assume, {}, config=config
    ),
    st.sampled_from(ZONES),
    st.none() | days,
    st.none() | days,
    st.lists(st.sampled_from(WHERE), max_size=2, unique=True),
    st.sampled_from([{}, {"ttl": "1h"}, {"endpoint": "eu", "region": "eu-west-1"}]),
    st.sampled_from([Config(), TEAMS]),
)


@settings(max_examples=60)
@given(question=questions, keys=keys, by_meter=st.booleans())
def test_sums_are_the_rows(both, question, keys, by_meter):
    ledger, cubed = both
    assert cubed.kept_cells(question, keys, cubed.days(), by_meter) is not None  # it is them that answer
    wanted = counted(cells(ledger, question, keys, by_meter=by_meter))
    assert counted(cells(cubed, question, keys, by_meter=by_meter)) == wanted
    assert wanted or question.since or question.until or question.where


@pytest.mark.parametrize("name", ["bill", "by", "daily", "levers", "session"])
def test_reports_are_the_same(both, name):
    values = {"keys": ("team", "meter")} if name == "by" else {}
    ledger, cubed = (REPORTS[name].make(each, Question(config=TEAMS), **values) for each in both)
    assert as_json(cubed) == as_json(ledger)


def call(number: int, tokens: int, day: int = 0) -> Usage:
    facts = Facts(
        "bedrock_log",
        "bedrock",
        "global.anthropic.claude-sonnet-4-6",
        region="us-east-1",
        session=str(number),
    )
    at = datetime(2026, 10, 1 + day, tzinfo=UTC) - EPOCH
    return Usage(at // timedelta(microseconds=1) + number, f"r{number}", "", ((facts, (tokens, 1, 0, 0, 0)),))


def total(ledger: Ledger) -> int:
    return sum(cell.tokens.input for cell in cells(ledger, Question()))


def test_new_commits_alone_are_read(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([call(1, 10), call(2, 20)])
    cubed = Cubed(tmp_path, fresh_s=0)
    assert total(cubed) == 30
    assert total(cubed) == 30
    ledger.append([call(3, 300)])
    assert total(cubed) == 330
    ledger.append([call(3, 300)])  # known: nothing is added
    assert total(cubed) == 330
    assert cubed.files_read == 2


def test_they_are_kept_for_the_next_start(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([call(1, 10)])
    assert total(Cubed(tmp_path)) == 10
    ledger.append([call(2, 5)])
    second, third = Cubed(tmp_path), Cubed(tmp_path)
    assert (total(second), second.files_read) == (15, 1)  # the new file alone
    assert (total(third), third.files_read) == (15, 0)


def test_what_is_put_together_is_read_again(tmp_path):
    ledger = Ledger(tmp_path)
    for number in range(6):
        ledger.append([call(number, 1 + number)])
    cubed = Cubed(tmp_path, fresh_s=0)
    assert total(cubed) == 21
    compact(Ledger(tmp_path))
    assert total(cubed) == 21


@pytest.mark.parametrize("harm", [b"", b"PK\x03\x04 not an archive", b"x" * 1000])
def test_a_broken_file_of_sums_is_made_again(tmp_path, harm):
    Ledger(tmp_path).append([call(1, 10)])
    assert total(Cubed(tmp_path)) == 10
    (kept,) = (tmp_path / "sums").glob("*.npz")
    kept.write_bytes(harm)
    assert total(Cubed(tmp_path)) == 10
    assert total(Cubed(tmp_path)) == 10


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path):
    Ledger(tmp_path).append([call(1, 10)])
    (tmp_path / "sums").write_text("in the way")
    assert total(Cubed(tmp_path)) == 10


def test_what_was_dropped_is_no_longer_there(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([call(1, 10), call(2, 200, day=3)])
    cubed = Cubed(tmp_path, fresh_s=0)
    assert total(cubed) == 210
    retain(Ledger(tmp_path), (datetime(2026, 10, 2, tzinfo=UTC) - EPOCH).days)
    assert total(cubed) == 200


def test_a_ledger_in_a_bucket_has_its_sums_in_memory(moto, monkeypatch, tmp_path):
    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="costs")
    ledger = Ledger("s3://costs/ledger")
    ledger.append([call(1, 10)])
    cubed = Cubed("s3://costs/ledger", fresh_s=0)
    assert total(cubed) == 10
    ledger.append([call(2, 5)])
    assert total(cubed) == 15
    assert not list(tmp_path.rglob("*.npz"))


def test_an_empty_ledger_has_nothing(tmp_path):
    assert cells(Cubed(tmp_path), Question(), ("model",)) == []


def test_counts_that_64_bits_may_not_hold_are_left_to_the_engine():
    by = {name: np.array([1, 2]) for name in _sums.BY}
    counts = {name: np.array([2**62, 2**62]) for name in _sums.COUNTS}
    with pytest.raises(_sums.TooLarge):
        _sums.merged(_sums.Sums("UTC", (), frozenset(), by, counts))


def test_every_meter_is_in_the_sums():
    assert ("calls", *METERS, *(f"calls_{meter}" for meter in METERS)) == _sums.COUNTS
