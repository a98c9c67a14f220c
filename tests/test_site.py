"""The site is built strictly, so that every link and anchor leads somewhere, and asks nobody for anything."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ASSETS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}

pytestmark = pytest.mark.xdist_group("site")  # built once


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """`make site`, elsewhere; a warning is an error."""
    pytest.importorskip("sphinx", reason="no Sphinx: make setup installs it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "tools/site",
         "-d", str(folder / "trees"), ".", str(folder / "html")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


class _Asked(HTMLParser):
    """The addresses of what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag in ASSETS:
            self.addresses += [value or "" for name, value in attrs if name == ASSETS[tag]]


def test_pages_ask_for_nothing_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        asked = _Asked()
        asked.feed(page.read_text(encoding="utf-8"))
        for address in asked.addresses:
            assert not re.match(r"(\w+:)?//", address), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", sheet.read_text(encoding="utf-8")):
            assert not re.match(r"(https?:)?//", address), f"{sheet.name}: {address}"


def test_every_page_is_in_the_navigation():
    """By task: what docs/index.md does not list, nobody finds."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        if not name.startswith("decisions/0") and name != "index.md":
            assert f"]({name})" in index, name


def test_it_is_searched_and_read_from_a_folder(site):
    """As a file, without a server: nothing is asked for, a word is found, a phone need not scroll aside."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: make setup installs it")
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.goto(f"{(site / 'search.html').as_uri()}?q=picodollars")
        page.wait_for_selector("#search-results li a")
        assert page.locator("#search-results li").count() > 3
        for name in ("docs/index.html", "docs/caching.html", "docs/reference.html"):
            page.goto((site / name).as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{name}: {wide}"
        browser.close()
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


def test_claims_of_the_security_page_have_their_tests():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"(tests/\w+\.py)::(\w+)", text)
    assert len(named) > 25
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
