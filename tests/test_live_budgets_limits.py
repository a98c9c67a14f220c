"""Budgets as Anthropic's own SDK reads spend limits: every row passes its types, every page is turned."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import anthropic
import pytest

from farthing.config import Budget, Config
from farthing.gateway._spend_limits import effective, found, listed
from farthing.gateway.budgets import Budgets, Scope, open_budgets

USD = 10**12
WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)
NOW = int(datetime(2026, 11, 18, 10, 30, tzinfo=UTC).timestamp()) * 10**6
HOUR = 3600 * 10**6
ADA, BEN = Scope(key="ada", team="search", model="claude-opus-5"), Scope(key="ben", team="ads")
BUDGETS = (
    Budget("all", 500, hold="hard"),
    Budget("keys", 10, period="day", hold="hard", each="key"),
    Budget("search", 20, period="week", hold="hard", where=("team=search",)),
    Budget("opus", 5, period="day", hold="soft", where=("model=claude-opus-*",)),
    Budget("pace", calls=9, period="minute", hold="hard"),
)


@pytest.fixture
def budgets(tmp_path) -> Iterator[Budgets]:
    opened = open_budgets(Config(budgets=BUDGETS), str(tmp_path / "b.sqlite"))
    for scope, cost in ((ADA, 4 * USD), (ADA, 123_456_789), (BEN, 12 * USD)):
        opened.hold(f"{scope.key}-{cost}", scope, 0, NOW, NOW + HOUR)
        opened.post(f"{scope.key}-{cost}", cost, NOW)
    yield opened
    opened.close()


@pytest.fixture
def client(budgets) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, asking a server that answers with ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query, place = parse_qs(asked.query), asked.path.removeprefix("/v1/organizations/spend_limits")
            if place == "/effective":
                said = effective(budgets, [ADA, BEN], NOW, query)
            elif place:
                said = found(budgets, NOW, WRITTEN, place.strip("/")) or {}
            else:
                said = listed(budgets, NOW, WRITTEN, query)
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not a word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with anthropic.Anthropic(api_key="none", base_url=address, _strict_response_validation=True) as made:
        yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_limits_are_listed_and_pages_turned(client):
    limits = list(client.beta.organization.spend_limits.list(limit=2))
    assert [(limit.scope.model_dump(), limit.amount, limit.period, limit.is_enabled) for limit in limits] == [
        ({"type": "organization"}, "50000", "monthly", True),
        ({"type": "user", "user_id": "ada"}, "1000", "daily", True),
        ({"type": "user", "user_id": "ben"}, "1000", "daily", True),
        ({"type": "organization_service", "service": "model=claude-opus-*"}, "500", "daily", False),
        ({"type": "rbac_group", "rbac_group_id": "search"}, "2000", "weekly", True),
    ]
    assert {limit.created_at for limit in limits} == {WRITTEN}
    assert len({limit.id for limit in limits}) == 5


def test_limits_of_one_kind_and_a_single_one(client, budgets):
    budgets.raise_limit("keys/ben", 15 * USD, NOW + HOUR, "bea", "the launch", NOW)
    (limit,) = [
        limit
        for limit in client.beta.organization.spend_limits.list(scope_type=["user"])
        if limit.scope.user_id == "ben"
    ]
    assert limit.amount == "1500"
    assert limit.updated_at == datetime.fromtimestamp(NOW // 10**6, UTC)
    assert client.beta.organization.spend_limits.retrieve(limit.id) == limit


def test_a_key_s_limit_is_the_one_it_comes_to_first(client):
    rows = list(client.beta.organization.spend_limits.effective.list())
    told = [
        (row.actor.user_id, row.period, row.amount, row.period_to_date_spend, row.source.type) for row in rows
    ]
    assert told == [
        ("ada", "daily", "1000", "400.012", "user"),
        ("ada", "weekly", "2000", "400.012", "rbac_group"),
        ("ada", "monthly", "50000", "1600.012", "organization"),
        ("ben", "daily", "1000", "1200", "user"),
        ("ben", "monthly", "50000", "1600.012", "organization"),
    ]
    only = client.beta.organization.spend_limits.effective.list(user_ids=["ben"], period=["daily"])
    assert [row.period_to_date_spend for row in only] == ["1200"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"limit": ["0"]}, "limit is 0: from 1 to 1000"),
        ({"limit": ["many"]}, "limit is 'many', which is none"),
        ({"page": ["-1"]}, "page is '-1', which is none"),
    ],
)
def test_a_page_that_cannot_be_is_one_line(budgets, query, says):
    with pytest.raises(ValueError, match=says):
        listed(budgets, NOW, WRITTEN, query)
    assert listed(budgets, NOW, WRITTEN, {"page": ["900"]}) == {"data": [], "next_page": None}
    assert found(budgets, NOW, WRITTEN, "spl_none") is None
