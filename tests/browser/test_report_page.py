"""The month's page as browsers show it: nothing is fetched, all may read it, it fits a phone and paper."""

from datetime import UTC, date, datetime

import pytest

from farthing.cells import Question
from farthing.config import load
from farthing.ledger import Ledger
from farthing.web import _report
from farthing.web._page import View
from tests.browser.test_pages import AXE


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    asked = Question(date(2026, 10, 1), date(2026, 10, 31), config=load(folder / "farthing.toml"))
    policy = str(folder / "farthing-policy.toml")
    view = View(Ledger(folder / "ledger"), asked, datetime(2026, 11, 1, tzinfo=UTC), policy=policy)
    path = tmp_path_factory.mktemp("report") / "month.html"
    path.write_text(_report.to_html(_report.month(view)), encoding="utf-8")
    return path


@pytest.fixture
def shown(browser, file):
    """The page at a width, and what it asked for beside the file itself is a fault."""
    opened, asked = [], []

    def show(width):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        opened.append(page)
        return page

    yield show
    for page in opened:
        page.close()
    assert set(asked) == {file.as_uri()}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_may_read_it(shown, theme):
    if not AXE.exists():
        pytest.skip("no axe-core: make web")
    page = shown(1100)
    page.emulate_media(color_scheme=theme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []


def test_it_fits_a_phone_and_its_drawings_too(shown):
    page = shown(390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("svg[role=img]").count() == 2
    for drawn in page.locator("svg[role=img]").all():
        box = drawn.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    for name in page.locator("svg text").all():  # letters keep their size
        assert 10 <= name.bounding_box()["height"] <= 18


def test_paper_is_white_whatever_the_theme_and_nothing_is_cut(shown):
    page = shown(688)  # A4 without its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") == 688
    tables = "[...document.querySelectorAll('.wide')].map((one) => one.scrollWidth - one.clientWidth)"
    assert max(page.evaluate(tables)) <= 1


def test_a_drawn_bar_is_as_wide_as_its_share(shown):
    """The dearest team fills its column, and the others what they are of it."""
    page = shown(1100)
    rows = page.locator("section:has(h2:text-is('By team')) tbody > tr:has(td.bar)")
    widths, costs = [], []
    for row in rows.all():
        bar = row.locator("td.bar td[bgcolor]")
        if bar.count():
            widths.append(bar.bounding_box()["width"])
            costs.append(float(row.locator("> td.n").last.inner_text().strip("$").replace(",", "")))
    assert len(widths) > 5
    for width, cost in zip(widths, costs, strict=True):
        assert abs(width / widths[0] - cost / costs[0]) < 0.05
