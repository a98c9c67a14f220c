"""What became slower since a commit: `make bench-compare`."""

import pytest

from bench.compare import times
from bench.counted import WORK


def test_more_a_second_is_better_and_more_of_all_else_is_worse():
    old = [{"name": "a", "ours": 2.0, "unit": "s"}, {"name": "b", "ours": 100.0, "unit": "rows/s"}]
    new = [{"name": "a", "ours": 3.0, "unit": "s"}, {"name": "b", "ours": 200.0, "unit": "rows/s"}]
    new.append({"name": "c", "ours": 1.0, "unit": "s"})  # which nobody measured then
    assert list(times(old, new)) == [
        ("a", "2 s", "3 s", "1.500", "slower"),
        ("b", "100 rows/s", "200 rows/s", "0.500", "quicker"),
    ]
    assert [row[4] for row in times(new, new)] == ["", "", ""]


@pytest.mark.parametrize("name", WORK)
def test_the_work_whose_instructions_are_counted_runs(name):
    WORK[name][0](2)
