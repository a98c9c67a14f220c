"""What `farthing web --demo` shows: something on every page, and a bill beside it that is explained to the dollar."""

from decimal import Decimal
from typing import Any

import pytest

from farthing.cli import _showcase
from farthing.statement import Statement
from farthing.web._books import ORDER
from tests.web_server import Site, site


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    made = _showcase.build(folder, calls=2_000)
    _showcase.go_on(made.outbox)
    bill = [str(made.bill)]
    more: dict[str, Any] = {
        "statement_of": lambda _: Statement(bill),
        "outbox": str(made.outbox),
        "clock": lambda: _showcase.NOW,
    }
    with site(made.ledger, config=made.config, demo=True, **more) as served:
        yield served


@pytest.mark.parametrize("name", ORDER)
def test_every_page_has_something_to_show(demo: Site, name):
    said = demo.get(f"/{name}.json").json
    assert "missing" not in said
    assert any(table["rows"] for table in said["tables"].values())


def test_the_bill_is_explained(demo: Site):
    said = demo.get("/reconcile.json").json
    sides = {row["side"]: Decimal(row["usd"]) for row in said["tables"]["sides"]["rows"]}
    assert sides["unexplained"] == 0
    assert sides["difference"] > 0
    (cause,) = said["tables"]["causes"]["rows"]
    assert (cause["cause"], cause["where"]) == ("logging off in the account", _showcase.UNLOGGED)


def test_budgets_are_under_way(demo: Site):
    rows = demo.get("/budgets.json").json["tables"]["budgets"]["rows"]
    assert {row["period"] for row in rows} == {f"{_showcase.NOW:%Y-%m}"}
    assert all(Decimal(row["spent_usd"]) > 0 for row in rows)


def test_it_says_that_it_is_a_demo(demo: Site):
    assert demo.get("/session.json").json["demo"] is True
