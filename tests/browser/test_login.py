"""Logging in as a person does: by the company's provider and back to the page that was asked for, and out again."""

import pytest

from farthing.config import Oidc, Rights
from farthing.gateway._keys import Keys
from farthing.web._access import Access
from tests.browser.conftest import ROOT, drawn
from tests.web_server import site

pytest.importorskip("playwright.sync_api", reason="no playwright: make setup installs it")
pytest.importorskip("joserfc", reason="no joserfc: pip install 'farthing[oidc]'")

AXE = ROOT / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"


def test_there_and_back_by_the_company_s_provider(browser, folder, tmp_path, monkeypatch):
    from farthing.web._oidc import Provider
    from tests import oidc

    monkeypatch.setenv("FARTHING_OIDC_SECRET", oidc.SECRET)
    with oidc.running() as company:
        groups = {"search-devs": Rights(teams=("search-rag",))}
        settings = Oidc(issuer=company.issuer, client_id=oidc.CLIENT, groups=groups)
        access = Access(Keys(tmp_path / "keys.json"), oidc=Provider(settings))
        with site(folder / "ledger", access) as web:
            context = browser.new_context(base_url=f"http://127.0.0.1:{web.port}", bypass_csp=False)
            page = context.new_page()
            faults = []
            page.on(
                "console", lambda said: faults.append(said.text) if "Content Security" in said.text else None
            )
            page.goto("/explore?keys=team")
            assert (
                page.evaluate("getComputedStyle(document.querySelector('.login main')).borderRadius")
                == "14px"
            )
            page.get_by_role("link", name="company account").click()
            page.get_by_role("button", name="u-sam").click()
            page.wait_for_url("**/explore?keys=team")
            drawn(page)
            assert page.locator(".who").inner_text().split("\n")[:2] == [
                "only search-rag",
                "sam@example.com, viewer",
            ]
            rows = page.locator("tbody tr th").all_inner_texts()
            assert "search-rag" in rows
            assert "support-chat" not in rows
            page.goto("/savings")  # without the policy, which is of all teams
            drawn(page)
            assert page.locator("h1").inner_text() == "Savings"
            assert page.locator("h2", has_text="Advice").count() == 1
            page.get_by_role("button", name="Log out").click()
            page.get_by_text("Logged out of everything").wait_for()
            page.goto("/bill")
            page.get_by_role("link", name="company account").wait_for()
            context.close()
            assert not faults


def test_the_login_page_is_accessible_in_both_themes(browser, folder, tmp_path):
    if not AXE.exists():
        pytest.skip("no axe-core: make web")
    with site(folder / "ledger", Access(Keys(tmp_path / "keys.json"))) as web:
        context = browser.new_context(base_url=f"http://127.0.0.1:{web.port}", bypass_csp=True)
        page = context.new_page()
        page.goto("/login?problem=wrong")
        assert page.get_by_role("alert").inner_text().startswith("No such key")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            assert [(theme, fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []
            page.screenshot(path=str(tmp_path / f"login-{theme}.png"))
        context.close()
