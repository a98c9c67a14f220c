"""What the tests of faults share."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from farthing.importers import _reading
from tests.torture.good import SEED, TIMES, Good


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Good]:
    before = _reading.BATCH_RECORDS, _reading.TASK_FILES
    _reading.BATCH_RECORDS, _reading.TASK_FILES = 40, 1  # many commits
    yield Good(tmp_path_factory.mktemp("torture"))
    _reading.BATCH_RECORDS, _reading.TASK_FILES = before


@pytest.fixture
def again(request: pytest.FixtureRequest, record_property: Any) -> Callable[[int], Iterator[random.Random]]:
    """again(few): a seeded chance for each time; what it told is in the table at the end of `make torture`."""

    def each(few: int) -> Iterator[random.Random]:
        times = TIMES or few
        record_property("fault", request.node.name.removeprefix("test_").replace("_", " "))
        record_property("times", times)
        for number in range(times):
            seed = f"{SEED} {request.node.name} {number}"
            print(f"seed {seed!r}")
            yield random.Random(seed)

    return each
