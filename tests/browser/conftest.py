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


@pytest.fixture
def open_page(browser, address):
    """open_page("/bill?...", theme=, phone=): a page that is drawn. At its end nothing may have gone wrong in it."""
    opened = []
    faults = []

    def open_(path, theme="light", *, phone=False, at=address, **more):
        size = {"width": 390, "height": 844} if phone else {"width": 1360, "height": 900}
        context = browser.new_context(
            base_url=at, viewport=size, color_scheme=theme, reduced_motion="reduce", has_touch=phone, **more
        )
        opened.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{path}: {error}"))
        page.on(
            "console", lambda said: faults.append(f"{path}: {said.text}") if said.type == "error" else None
        )
        page.on("request", lambda asked: _inside(asked.url, at, faults))
        page.goto(path)
        drawn(page)
        return page

    yield open_
    found = list(faults)  # closing breaks streams off, which is told as a fault too
    for context in opened:
        context.close()
    assert not found


def drawn(page):
    """Wait until the page that is asked for is the page that is shown."""
    page.locator("main[aria-busy=false]").wait_for()


def _inside(url, at, faults):
    if not url.startswith((at, "data:", "blob:")):
        faults.append(f"a request left the machine: {url}")
