"""The suite of `make bench`: each measurement has its floor, and the table shows it."""

import inspect

import pytest

from bench import report
from bench.cases import CASES, Result
from bench.run import RESULTS

NAMED = [
    "rate_record", "rate_group_10m", "rate_group_100m", "whatif_64", "import_logs", "import_transcripts",
    "cache_bound", "cache_machine", "page", "gateway", "hook", "import_time",
]  # fmt: skip


def test_what_the_suite_is_to_measure_is_measured():
    assert set(NAMED) <= set(CASES)


def test_there_is_no_result_without_a_floor():
    with pytest.raises(TypeError, match="floor"):
        Result("page", "ms", 6.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", CASES)
def test_each_measurement_says_what_its_floor_is(name):
    assert "floor" in (inspect.getdoc(CASES[name]) or ""), name


@pytest.mark.parametrize(
    ("unit", "ours", "floor", "shown"),
    [("ms", 6.0, 0.5, "12.0 x"), ("s", 3.4, 4.0, "0.85 x"), ("rows/s", 50.0, 2_000.0, "40.0 x")],
)
def test_the_ratio_to_the_floor_is_how_many_times_as_long_it_takes(unit, ours, floor, shown):
    entry = Result("page", unit, ours, floor=floor).as_json()
    assert entry["ratio_to_floor"] == pytest.approx(float(shown[:-2]))
    ((name, *_, of_floor, ratio, _, _),) = report.rows([entry])
    assert (name, of_floor.split()[1], ratio) == ("page", unit, shown)


def test_the_page_names_those_furthest_from_their_floors():
    floors = {"hook": 10.0, "page": 4.0, "whatif_64": 50.0, "import_time": 2.0, "gateway": 25.0}
    taken = {"machine": "one", "versions": {}, "date": "2026-11-23"}
    entries = [
        Result(name, "ms", 100.0, floor=floor).as_json() | {"taken": taken} for name, floor in floors.items()
    ]
    shown = report.page(entries, CASES)
    assert (
        "Furthest from the floor: import_time (50.0 x), page (25.0 x), hook (10.0 x). Below each says why."
        in shown
    )
    assert all(f"## {name}\n\n{inspect.getdoc(CASES[name])}" in shown for name in floors)


@pytest.mark.parametrize("name", NAMED)
def test_the_results_on_record_have_floors(name):
    (entry,) = (entry for entry in report.load(RESULTS) if entry["name"] == name)
    if entry["floor"] is None:
        pytest.skip(f"{name} was measured when it had no floor: make bench")
    ours = Result(name, entry["unit"], entry["ours"], floor=entry["floor"]).as_json()
    assert ours["ratio_to_floor"] == pytest.approx(entry["ratio_to_floor"])
