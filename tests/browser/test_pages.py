"""The dashboard as a person meets it: every page, filters and links, themes, keyboard, a phone, faults told plainly."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from farthing.ledger import Ledger
from farthing.usage import Facts, Usage
from tests.browser import world
from tests.browser.conftest import ROOT, drawn
from tests.web_server import site

expect = pytest.importorskip("playwright.sync_api", reason="no playwright: make setup installs it").expect
expect.set_options(timeout=20_000)

PAGES = (
    "bill", "explore", "why", "reconcile", "savings", "cache", "endpoints", "batch", "budgets", "prices", "live",
)  # fmt: skip
AXE = ROOT / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
CHARTS = {"bill": 3, "explore": 1, "why": 1, "reconcile": 1, "savings": 1, "cache": 2, "endpoints": 1, "batch": 1,
          "budgets": 0, "prices": 2, "live": 1}  # fmt: skip
READY_MS = 1_000
PHONE = 360  # pixels


def told(page, path):
    """The JSON that the page is drawn from."""
    return page.request.get(path).json()


def shown(usd: str) -> str:
    """An amount as the figures at the top have it."""
    amount = Decimal(usd)
    places = 0 if abs(amount) >= 1000 else 2
    return f"{'−' if amount < 0 else ''}${abs(amount):,.{places}f}"


# --- each page ----------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_its_figures_tables_and_charts(open_page, name):
    page = open_page(f"/{name}")
    said = told(page, f"/{name}.json")
    assert page.locator("h1").inner_text() == said["title"]
    for kpi in said["kpis"]:
        if kpi["kind"] == "usd" and kpi["value"] is not None and name != "live":
            assert shown(kpi["value"]) in page.locator(".kpis").inner_text()
    assert page.locator(".plot svg").count() == CHARTS[name]
    for plot in page.locator(".plot").all():
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label")
        assert plot.locator("svg path").count() > 0  # something is drawn
    assert page.locator("table").count() > 0
    assert page.locator('nav a[aria-current="page"]').get_attribute("href").startswith(f"/{name}")
    assert page.locator("footer a", has_text="JSON").get_attribute("href") == f"/{name}.json"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_in_both_themes(open_page, name):
    if not AXE.exists():
        pytest.skip("no axe-core: make web")
    page = open_page(f"/{name}", bypass_csp=True)
    page.evaluate("document.querySelectorAll('.numbers').forEach((one) => { one.open = true })")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    colours = ", runOnly: ['color-contrast', 'link-in-text-block']"  # all that a theme changes
    for theme, rules in (("light", ""), ("dark", colours)):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations']{rules}}})")["violations"]
        assert [(theme, fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []


def test_opened_boxes_are_accessible(open_page):
    if not AXE.exists():
        pytest.skip("no axe-core: make web")
    page = open_page("/explore?calls=50", bypass_csp=True)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for box in (page.locator("summary", has_text="More"), page.locator(".trust summary").first):
        box.click()
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []
        page.keyboard.press("Escape")
        expect(box).to_be_focused()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(open_page, name):
    """Nothing is cut, and nothing is pushed: no table, no chart, no box that opens."""
    page = open_page(f"/{name}", phone=True)
    page.locator("nav a[aria-current]").wait_for()
    page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    wide = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
    assert page.locator(".scroll, .more form").evaluate_all(wide) == []
    for place in page.locator(".plot svg, .box, .more form").all():
        box = place.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE


@pytest.mark.bench
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_ready_within_a_second(open_page, name):
    open_page(f"/{name}")  # the server makes it once
    page = open_page(f"/{name}")
    assert page.evaluate("performance.getEntriesByName('farthing:shown')[0].startTime") < READY_MS


# --- links carry everything ----------------------------------------------------------------


def test_a_filter_is_in_the_link_and_back_and_forward_undo_it(open_page):
    page = open_page("/bill")
    whole = page.locator(".kpis .big").first.inner_text()
    page.get_by_label("Team", exact=True).select_option(label="search-rag")
    page.wait_for_url("**/bill?where=team%3Dsearch-rag")
    drawn(page)
    part = page.locator(".kpis .big").first.inner_text()
    assert part == shown(told(page, "/bill.json?where=team=search-rag")["kpis"][0]["value"]) != whole
    page.get_by_label("Model", exact=True).select_option(label="claude-haiku-4-5")
    page.wait_for_url("**claude-haiku-4-5")
    page.go_back()
    page.wait_for_url("**/bill?where=team%3Dsearch-rag")
    page.go_back()
    page.wait_for_url("**/bill")
    drawn(page)
    bill = page.locator(".kpis .big").first
    expect(bill).to_have_text(whole)
    page.go_forward()
    expect(bill).to_have_text(part)


@pytest.mark.parametrize(("label", "choice", "query"), [
    ("Team", "eu-claims", "where=team%3Deu-claims"),
    ("Model", "claude-opus-5-5", "where=model%3Dclaude-opus-5-5"),
    ("Endpoint", "global", "where=endpoint%3Dglobal"),
    ("Period", "Last 7 days", "since=2026-10-25&until=2026-10-31"),
])  # fmt: skip
def test_each_filter(open_page, label, choice, query):
    page = open_page("/endpoints")
    page.get_by_label(label, exact=True).select_option(label=choice)
    page.wait_for_url(f"**/endpoints?{query}")
    drawn(page)
    said = told(page, f"/endpoints.json?{query}")
    calls = said["tables"]["endpoints"]["total"]["calls"]
    assert 0 < calls < world.CALLS
    assert f"{calls:,}" in page.locator("tfoot").first.inner_text()


def test_any_key_days_and_the_time_zone(open_page):
    page = open_page("/bill")
    page.locator("summary", has_text="More").click()
    page.get_by_label("From day").fill("2026-10-05")
    page.get_by_label("to day").fill("2026-10-11")
    page.get_by_label("Only where").select_option("region")
    page.get_by_label("is or is not").select_option("is not")
    page.get_by_label("Value").fill("us-*")
    page.get_by_label("Days begin in time zone").fill("Europe/Berlin")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**tz=Europe**")
    drawn(page)
    assert "5 Oct 2026 – 11 Oct 2026 · Europe/Berlin · USD" in page.locator(".context").inner_text()
    asked = page.url.partition("?")[2]
    question = told(page, f"/bill.json?{asked}")["question"]
    assert question["where"] == ["region!=us-*"]
    assert question["tz"] == "Europe/Berlin"
    page.get_by_label("take away the filter region!=us-*").click()
    page.wait_for_url(lambda url: "where" not in url)


def test_a_deep_link_shows_what_it_says(open_page):
    path = "/explore?keys=day,team&since=2026-10-05&until=2026-10-09&where=model!%3Dclaude-opus-5&calls=50&tz=UTC"
    page = open_page(path)
    said = told(page, path.replace("/explore", "/explore.json"))
    assert page.locator("h1").inner_text() == "Spend by day, team"
    calls = page.locator("section", has=page.locator("h2", has_text="Calls")).locator("tbody tr")
    assert calls.count() == len(said["tables"]["calls"]["rows"]) == 50
    assert (
        page.get_by_label("Period").evaluate("(one) => one.selectedOptions[0].text")
        == "5 Oct 2026 – 9 Oct 2026"
    )


def test_a_number_leads_to_its_calls_and_their_rate(open_page):
    page = open_page("/bill")
    team = page.locator("section", has=page.locator("h2", has_text="Teams"))
    team.get_by_role("link", name="eu-claims").click()
    page.wait_for_url("**/explore?**eu-claims**")
    drawn(page)
    if page.get_by_role("link", name="Show single calls").count():
        page.get_by_role("link", name="Show single calls").click()
        page.wait_for_url("**calls=50**")
    page.locator("h2", has_text="Calls, newest first").wait_for()
    rates = page.locator("section", has=page.locator("h2", has_text="The rates that made it"))
    assert "claude-sonnet-4-6/regional/on_demand" in rates.inner_text()
    newest = (
        page.locator("section", has=page.locator("h2", has_text="Calls, newest first"))
        .locator("tbody th")
        .first.inner_text()
    )
    page.get_by_role("link", name="Older calls").click()
    calls = page.locator("section", has=page.locator("h2", has_text="Calls, newest first"))
    expect(calls.locator("tbody th").first).not_to_have_text(newest)
    assert "after=" in page.url


def test_a_bar_leads_to_its_day(open_page):
    page = open_page("/bill?since=2026-10-05&until=2026-10-05")
    plot = page.locator(".plot").first.bounding_box()
    page.mouse.click(plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] * 0.8)
    page.wait_for_url("**/explore?**")
    drawn(page)
    question = told(page, page.url.replace("/explore", "/explore.json"))["question"]
    assert (question["since"], question["until"]) == ("2026-10-05", "2026-10-05")
    assert question["where"][0].startswith("model=claude-")
    assert page.locator("h2", has_text="Calls, newest first").count() == 1


def test_a_pointer_sees_what_a_bar_is(open_page):
    page = open_page("/bill?since=2026-10-05&until=2026-10-05")
    page.locator(".plot").first.hover()
    total = told(page, "/bill.json?since=2026-10-05&until=2026-10-05")["kpis"][0]["value"]
    expect(page.locator(".tip-in")).to_contain_text(f"5 Oct 2026all{shown(total)}")


def test_other_pages_keep_the_filters_and_not_what_is_a_page_s_own(open_page):
    page = open_page("/explore?keys=day&calls=50&where=team%3Dsearch-rag&since=2026-10-05")
    page.locator("nav a", has_text="Cache").click()
    page.wait_for_url("**/cache?**")
    assert page.url.endswith("/cache?where=team%3Dsearch-rag&since=2026-10-05")
    expect(page.locator("h1")).to_be_focused()  # where a reader goes on


def test_why_compares_the_days_asked_for(open_page):
    page = open_page("/why?from=2026-10-01..2026-10-07&to=2026-10-08..2026-10-14")
    text = page.locator("main").inner_text()
    assert "1 Oct – 7 Oct 2026" in text
    page.get_by_label("Later", exact=True).select_option(label="Last 7 days")
    page.wait_for_url("**to=2026-10-25..2026-10-31**")
    drawn(page)
    assert "25 Oct – 31 Oct 2026" in page.locator(".kpis").inner_text()


# --- what is to be trusted ----------------------------------------------------------------


def test_assumed_and_unpriced_money_is_always_there(open_page):
    page = open_page("/bill")
    said = told(page, "/bill.json")
    facts = page.locator(".trust")
    assert f"{shown(said['assumed']['usd'])} assumed" in facts.inner_text()
    assert f"{said['unpriced']['calls']} without a price" in facts.inner_text()
    facts.get_by_text("assumed").click()
    assert "settle it:" in facts.inner_text()
    facts.get_by_role("link", name="show it with endpoint=global").click()
    page.wait_for_url("**/bill?assume=endpoint%3Dglobal")
    drawn(page)
    assert Decimal(told(page, "/bill.json?assume=endpoint=global")["assumed"]["usd"]) < Decimal(
        said["assumed"]["usd"]
    )
    assert "$0.00" not in page.locator("tr", has_text="application-inference-profile/k3w8").first.inner_text()
    assert "no price" in page.locator("tr", has_text="application-inference-profile/k3w8").first.inner_text()


def test_a_table_sorts_and_has_a_csv(open_page):
    page = open_page("/bill")
    teams = page.locator("section", has=page.locator("h2", has_text="Teams"))
    teams.get_by_role("button", name="Calls").click()
    assert teams.locator("th[data-name=calls]").get_attribute("aria-sort") == "descending"
    first = teams.locator("tbody tr").first.inner_text()
    teams.get_by_role("button", name="Calls").click()
    assert teams.locator("tbody tr").last.inner_text() == first
    link = teams.get_by_role("link", name="CSV").get_attribute("href")
    lines = page.request.get(link).text().splitlines()
    assert lines[0].startswith("team,calls,")
    assert len(lines) == 1 + teams.locator("tbody tr").count()


def test_a_legend_hides_a_series(open_page):
    page = open_page("/bill")
    key = page.locator(".legend button").first
    before = page.locator(".plot svg path").count()
    key.press("Enter")
    assert page.locator(".legend button").first.get_attribute("aria-pressed") == "false"
    assert page.locator(".plot svg path").count() < before


# --- what goes wrong ----------------------------------------------------------------


def test_what_cannot_be_is_said_in_words(browser, address):
    page = browser.new_context(base_url=address).new_page()
    page.goto("/bill?since=tomorrow")
    drawn(page)
    alert = page.get_by_role("alert")
    assert "tomorrow" in alert.inner_text()
    assert "{" not in alert.inner_text()
    assert page.get_by_role("link", name="take away the filter tomorrow").count() == 1
    alert.get_by_role("link", name="Without filters").click()
    page.locator(".kpis").wait_for()
    page.context.close()


def test_nothing_in_a_selection_is_no_fault(open_page):
    page = open_page("/bill?where=team%3Dnobody")
    assert "No usage in this selection." in page.locator("main").inner_text()


def test_a_server_that_is_gone_is_said_and_can_be_tried_again(browser, address):
    page = browser.new_context(base_url=address).new_page()
    page.route("**/bill.json*", lambda route: route.abort())
    page.goto("/bill")
    drawn(page)
    assert "The server does not answer." in page.get_by_role("alert").inner_text()
    page.unroute("**/bill.json*")
    page.get_by_role("button", name="Try again").click()
    page.locator(".kpis").wait_for()
    page.context.close()


def test_a_ledger_without_calls_says_how_to_get_some(browser, tmp_path):
    Ledger(tmp_path / "ledger").append([])
    with site(tmp_path / "ledger") as made:
        page = browser.new_page(base_url=f"http://127.0.0.1:{made.port}")
        page.goto("/bill")
        drawn(page)
        assert "farthing import PATH" in page.locator(".state").inner_text()
        assert not page.locator(".kpi, .plot").count()
        page.close()


def test_what_has_no_price_and_near_amounts_are_drawn_as_they_are(browser, tmp_path):
    """A model without a price flows nowhere; the marks of an axis that begins high differ."""
    dear = Facts("bedrock_log", "bedrock", "eu.anthropic.claude-sonnet-4-6", region="eu-west-1")
    strange = dear._replace(model_id="anthropic.claude-\u202efrom-tomorrow")
    at = int(datetime(2026, 10, 5, tzinfo=UTC).timestamp()) * 1_000_000
    Ledger(tmp_path / "ledger").append(
        [
            Usage(at, "dear", "", ((dear, (500_500_000, 5_000, 0, 0, 0)),)),
            Usage(at, "strange", "", ((strange, (1, 0, 0, 0, 0)),)),
        ]
    )
    with site(tmp_path / "ledger") as made:
        page = browser.new_page(base_url=f"http://127.0.0.1:{made.port}")
        page.goto("/bill")
        drawn(page)
        steps, flows = (
            page.locator(".card", has_text=title).locator(".plot svg text").all_text_contents()
            for title in ("How the bill was made", "Where the money went")
        )
        everything = page.locator("body").inner_text() + "".join(page.locator("svg text").all_text_contents())
        page.close()
    assert "\u202e" not in everything  # it would turn round what stands beside it
    assert "claude-\ufffdfrom-tomorrow" in everything
    marks = [text for text in steps if text.endswith("K")]
    assert len(marks) == len(set(marks)) > 2
    assert "claude-sonnet-4-6" in flows
    assert not any("tomorrow" in text for text in flows)


def test_a_page_that_lacks_something_says_what_to_do(open_page):
    page = open_page("/reconcile?where=team%3Dsearch-rag")
    assert "A bill is compared as a whole." in page.locator(".state").inner_text()


# --- themes and keyboard ----------------------------------------------------------------


def test_the_theme_is_kept(open_page):
    page = open_page("/bill")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.reload()
    drawn(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_a_keyboard_reaches_everything(open_page):
    page = open_page("/bill")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "filter-team":
            break
    page.keyboard.press("ArrowDown")
    page.wait_for_url("**where=team**")
    drawn(page)
    expect(page.locator("#filter-team")).to_be_focused()  # the place is kept
    for name in ("support-chat", "doc-nightly"):  # passed by on the way down
        page.keyboard.press("ArrowDown")
        page.wait_for_url(f"**where=team%3D{name}")
        drawn(page)
    chip = page.get_by_role("link", name="take away the filter")
    chip.focus()
    page.keyboard.press("Enter")
    expect(chip).to_have_count(0)
    expect(page.locator("#main")).to_be_focused()  # what had the focus is gone


def test_a_keyboard_filters_by_a_tag_and_keeps_its_place(open_page):
    page = open_page("/explore?calls=2")
    every = page.get_by_role("button", name="Show all")
    every.press("Enter")
    expect(every).to_have_count(0)
    assert page.evaluate("document.activeElement.closest('.scroll') !== null")
    page.locator("#calls-older").press("Enter")
    page.wait_for_url("**after=**")
    drawn(page)
    expect(page.locator("#calls-older")).to_be_focused()
    more = page.locator("summary", has_text="More")
    more.press("Enter")
    page.get_by_label("Only where").select_option(label="tag")
    value = page.get_by_label("Value", exact=True)
    value.fill("support-chat")
    value.press("Enter")
    assert "team=search" in value.evaluate("(field) => field.validationMessage")
    value.fill("team=support-chat")
    value.press("Enter")
    page.wait_for_url("**where=tag%3Ateam%3Dsupport-chat")
    drawn(page)
    expect(more).to_be_focused()


# --- live, apply, undo ----------------------------------------------------------------


def test_a_call_appears_when_it_is_made(open_page, folder):
    page = open_page("/live")
    page.get_by_text("following").wait_for()
    world.post(folder, 2, "global.anthropic.claude-opus-4-6-v1")
    page.locator("tbody tr", has_text="claude-opus-4-6").first.wait_for()
    expect(page.locator("#live-sum")).to_have_text(
        re.compile(r"2 calls, \$0\.\d+ since this page was opened")
    )
    page.get_by_role("button", name="Pause").click()
    rows = page.locator("tbody tr").count()
    world.post(folder, 1)
    expect(page.locator("#live-sum")).to_contain_text("3 calls")
    assert page.locator("tbody tr").count() == rows
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("tbody tr")).to_have_count(rows + 1)


def test_an_advice_is_applied_and_taken_back(open_page, folder):
    policy = folder / "farthing-policy.toml"
    page = open_page("/savings")
    advice = page.locator(".advice li", has=page.locator("input")).first
    assert page.get_by_role("button", name="Apply").is_disabled()
    advice.get_by_text("Its proof").click()
    assert "Evidence" in advice.inner_text()
    advice.locator("input").check()
    page.get_by_role("button", name="Apply 1").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("In force until").fill("2027-02-01")
    dialog.get_by_label("Reason").fill("seen in the browser")
    dialog.get_by_role("button", name="Apply").click()
    page.locator(".toast", has_text="Applied: version 1").wait_for()
    page.locator("tbody tr", has_text="in force").wait_for()
    assert page.locator(".advice .badge", has_text="In force").count() == 1
    assert "2027-02-01" in policy.read_text(encoding="utf-8")
    page.get_by_role("button", name="Undo the last writing").click()
    page.locator(".toast", has_text="Taken back: version 2").wait_for()
    assert (
        "in force"
        not in page.locator("section", has=page.locator("h2", has_text="In force"))
        .locator("tbody")
        .all_inner_texts()
    )
    last = told(page, "/savings.json")["tables"]["versions"]["rows"]
    assert [row["version"] for row in last] == [2, 1]
    json.dumps(last)
