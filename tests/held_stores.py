"""Fixtures, as a plug-in of those tests that ask for it: an empty store of either kind, and budgets over it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from farthing.config import Budget, Config
from farthing.gateway.budgets import Budgets, open_budgets
from tests.postgres_server import postgres_server

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return str(tmp_path / "budgets.sqlite")
    import psycopg

    server = request.getfixturevalue("postgres")
    name = f"store_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def opened(store) -> Iterator[object]:
    """opened(budget, ...): those budgets, over the test's store."""
    made: list[Budgets] = []

    def opens(*budgets: Budget, zone: str = "UTC", **how: str) -> Budgets:
        made.append(open_budgets(Config(budgets=budgets, timezone=zone), store, **how))
        return made[-1]

    yield opens
    for each in made:
        each.close()
