"""A browser and the pages it looks at. Both are started once; what changes the policy has a world of its own."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "farthing" / "web" / "static" / "vendor"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")  # it runs an event loop, beside which no other test could have one
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: make setup installs it")
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    if not (VENDOR / "echarts.js").exists():
        pytest.skip("the charts are not built: make web")
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    from tests.browser import world

    return world.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def address(folder):
    from tests.browser import world

    with world.served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def tabs(browser):
    """The page of each kind of browser: to begin a new one costs more than what is drawn on it."""
    kept = {}

    def tab(at, size, *, phone, **more):
        kind = (at, phone, *sorted(more.items()))
        if kind not in kept:
            kept[kind] = browser.new_context(base_url=at, viewport=size, has_touch=phone, **more).new_page()
        return kept[kind]

    return tab


@pytest.fixture
def open_page(tabs, address):
    """open_page("/bill?...", theme=, phone=): a page that is drawn. At its end nothing may have gone wrong in it.

    It is the same page whenever it is opened, with nothing kept from before.
    """
    opened = []
    faults = []

    def open_(path, theme="light", *, phone=False, at=address, **more):
        size = {"width": 360, "height": 780} if phone else {"width": 1360, "height": 900}
        page = tabs(at, size, phone=phone, **more)
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        heard = {
            "pageerror": lambda error: faults.append(f"{path}: {error}"),
            "console": lambda said: faults.append(f"{path}: {said.text}") if said.type == "error" else None,
            "request": lambda asked: _inside(asked.url, at, faults),
        }
        opened.append((page, heard))
        page.once("framenavigated", lambda _: faults.clear())  # what was shown before is broken off
        for event, hear in heard.items():
            page.on(event, hear)
        page.goto(path)
        drawn(page)
        return page

    yield open_
    for page, heard in opened:
        for event, hear in heard.items():
            page.remove_listener(event, hear)
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.context.clear_cookies()
    assert not faults


def drawn(page):
    """Wait until the page that is asked for is the page that is shown."""
    page.locator("main[aria-busy=false]").wait_for()


def _inside(url, at, faults):
    if not url.startswith((at, "data:", "blob:")):
        faults.append(f"a request left the machine: {url}")
