"""Login by a company's own accounts: there and back at a real provider, rights by group, tokens not believed."""

import base64
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from farthing.cli import serving
from farthing.config import ConfigError, Oidc, Rights
from farthing.config import load as load_config
from farthing.ledger import Ledger
from tests.traffic import usages
from tests.web_server import Answer, Site, site

jwt = pytest.importorskip("joserfc.jwt", reason="no joserfc: pip install 'farthing[oidc]'")
from joserfc.errors import JoseError  # noqa: E402
from joserfc.jwk import KeySet, OctKey  # noqa: E402

from farthing.gateway._keys import Keys  # noqa: E402
from farthing.web._access import Access, OidcError  # noqa: E402
from farthing.web._oidc import Provider, _key_set, claims_of, who_of  # noqa: E402
from tests import oidc  # noqa: E402

GROUPS = {
    "finops": Rights(role="admin"),
    "all-staff": Rights(),
    "search-devs": Rights(teams=("search",)),
    "ads-devs": Rights(teams=("ads",)),
}
OTHERS = re.compile(rb"\bads\b|legal")


@pytest.fixture(scope="module")
def company() -> Iterator[oidc.Company]:
    with oidc.running() as made:
        yield made


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("oidc")
    Ledger(folder / "ledger").append(list(usages(hours=24)))
    return folder / "ledger"


@pytest.fixture
def web(company, ledger, tmp_path, monkeypatch) -> Iterator[Site]:
    monkeypatch.setenv("FARTHING_OIDC_SECRET", oidc.SECRET)
    company.claims, company.groups_in_token = {}, True
    settings = Oidc(issuer=company.issuer, client_id=oidc.CLIENT, groups=GROUPS)
    access = Access(Keys(tmp_path / "keys.json"), audit=tmp_path / "audit.jsonl", oidc=Provider(settings))
    with site(ledger, access) as made:
        made.audit = tmp_path / "audit.jsonl"
        yield made


def submit(address: str, user: str) -> str:
    """What the provider sends the browser back to, when somebody has pressed their button there."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    try:
        urllib.request.build_opener(Stay).open(address, urlencode({"user": user}).encode(), timeout=20)
    except urllib.error.HTTPError as answer:
        return answer.headers["location"]
    raise AssertionError("the provider did not send the browser back")


def come_in(web: Site, user: str, then: str = "", **changed: str) -> Answer:
    """The whole way in, as a browser goes it; `changed` is what comes back otherwise than the provider sent it."""
    begun = web.get("/login/oidc", [("next", then)])
    web.cookie = begun.headers["set-cookie"].partition(";")[0]
    back = urlsplit(submit(begun.headers["location"], user))
    said = {name: values[0] for name, values in parse_qs(back.query).items()} | changed
    answer = web.get(back.path, list(said.items()))
    if "farthing=" in answer.headers.get("set-cookie", ""):
        web.cookie = re.findall(r"farthing=[^;,]+", answer.headers["set-cookie"])[0]
    return answer


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_person_comes_in_and_sees_what_was_asked_for(web: Site, company):
    led = web.get("/explore?where=model%3D*haiku*", accept="text/html")
    assert led.headers["location"] == "/login?next=%2Fexplore%3Fwhere%3Dmodel%253D%2Ahaiku%2A"
    page = web.get(led.headers["location"]).body.decode()
    assert "company account" in page
    assert 'name="key"' not in page  # there are none
    answer = come_in(web, "u-ada", "/explore?where=model%3D*haiku*")
    assert (answer.status, answer.headers["location"]) == (303, "/explore?where=model%3D*haiku*")
    assert "httponly" in answer.headers["set-cookie"].lower()
    said = web.get("/session.json").json
    assert (said["name"], said["role"], said["teams"]) == ("ada@example.com", "admin", [])
    web.headers["x-csrf-token"] = said["csrf"]
    gone = web.post("/logout").json["next"]
    assert gone.startswith(f"{company.issuer}/leave?client_id=farthing&post_logout_redirect_uri=")
    assert web.get("/bill.json").status == 401


def test_what_is_asked_of_the_provider(web: Site, company):
    begun = web.get("/login/oidc")
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= asked.keys()
    assert asked["redirect_uri"] == [f"http://127.0.0.1:{web.port}/login/oidc/done"]
    again = parse_qs(urlsplit(web.get("/login/oidc").headers["location"]).query)
    for name in ("state", "nonce", "code_challenge"):
        assert asked[name] != again[name]


def test_a_team_s_people_see_their_team_alone(web: Site):
    come_in(web, "u-sam")
    assert web.get("/session.json").json["teams"] == ["search"]
    for path in (
        "/bill.json",
        "/explore.json?keys=team,model",
        "/explore.csv?keys=team,model",
        "/bill.csv?table=teams",
    ):
        answer = web.get(path)
        assert answer.status == 200
        assert b"search" in answer.body
        assert not OTHERS.search(answer.body)
    web.headers["x-csrf-token"] = web.get("/session.json").json["csrf"]
    assert web.post("/savings/undo").status == 403


def test_groups_that_only_userinfo_tells(web: Site, company):
    company.groups_in_token = False
    come_in(web, "u-vic")
    assert web.get("/session.json").json["name"] == "vic@example.com"


def test_who_is_in_no_group_is_told_what_to_do(web: Site):
    answer = come_in(web, "u-eve")
    assert answer.headers["location"] == "/login?problem=groups"
    assert "[web.oidc.groups]" in web.get("/login?problem=groups").body.decode()
    assert web.get("/bill.json").status == 401


def test_a_new_key_of_the_provider_is_asked_for(web: Site, company, monkeypatch):
    assert come_in(web, "u-vic").headers["location"] == "/bill"
    company.key = oidc.a_key("two")
    monkeypatch.setattr("farthing.web._oidc.KEYS_AGAIN_S", 0)
    assert come_in(web, "u-vic").headers["location"] == "/bill"


def test_a_state_is_of_one_browser_and_holds_once(web: Site):
    assert come_in(web, "u-ada", state="guess").headers["location"] == "/login?problem=expired"
    begun = web.get("/login/oidc")
    back = urlsplit(submit(begun.headers["location"], "u-ada"))
    path = f"{back.path}?{back.query}"
    web.cookie = "farthing-login=somebody-elses"
    assert web.get(path).headers["location"] == "/login?problem=expired"
    web.cookie = begun.headers["set-cookie"].partition(";")[0]
    assert web.get(path).headers["location"] == "/login?problem=expired"  # it was spent on the try


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"code": "guess"}, "provider"),
        ({"iss": "https://evil.example"}, "refused"),
        ({"error": "access_denied"}, "denied"),
    ],
)
def test_what_does_not_come_back_as_it_should(web: Site, changed, problem):
    assert come_in(web, "u-ada", **changed).headers["location"] == f"/login?problem={problem}"
    assert web.get("/bill.json").status == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "x"},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"aud": ["farthing", "b"]},
    ],
)
def test_a_token_of_the_provider_that_is_not_for_this_login(web: Site, company, claims):
    company.claims = claims
    assert come_in(web, "u-ada").headers["location"] == "/login?problem=refused"


def test_the_page_after_is_one_of_ours(web: Site):
    for then in ("//evil.example/bill", "https://evil.example", "/\\evil.example", "/login"):
        assert come_in(web, "u-vic", then).headers["location"] == "/bill"
        web.cookie = ""


def test_a_provider_that_is_away_is_told_of(ledger, tmp_path):
    settings = Oidc(issuer="http://127.0.0.1:9", client_id="x", groups=GROUPS)
    with site(ledger, Access(Keys(tmp_path / "keys.json"), oidc=Provider(settings))) as made:
        assert made.get("/login/oidc").headers["location"] == "/login?problem=provider"
        assert "Try again" in made.get("/login?problem=provider").body.decode()


def test_hosts_that_settings_do_not_name_are_not_asked(company):
    provider = Provider(Oidc(issuer=company.issuer, client_id="x"))
    provider._check(f"{company.issuer}/token")
    for url in ("https://evil.example/token", f"{company.issuer}@evil.example/", "file:///etc/passwd"):
        with pytest.raises(OidcError, match="hosts"):
            provider._check(url)


def test_the_record_has_no_secret(web: Site):
    come_in(web, "u-ada")
    text = web.audit.read_text()
    line = json.loads(text.splitlines()[0])
    assert (line["who"], line["what"], line["by"], line["subject"]) == (
        "ada@example.com",
        "login",
        "oidc",
        "u-ada",
    )
    assert oidc.SECRET not in text
    assert web.cookie.partition("=")[2] not in text


# --- tokens, without a provider --------------------------------------------------------------------------------------

NOW = 1_790_000_000
SETTINGS = Oidc(issuer="https://login.example.com", client_id="farthing", groups=GROUPS)
GOOD: dict[str, Any] = {
    "iss": SETTINGS.issuer,
    "aud": "farthing",
    "sub": "u",
    "nonce": "n",
    "exp": NOW + 300,
    "iat": NOW,
}


@pytest.fixture(scope="module")
def key():
    return oidc.a_key("one")


def believed(key, token: str) -> dict[str, Any]:
    return claims_of(token, KeySet([key]), SETTINGS, "n", NOW)


def signed(key, kid: str = "one", **changed: Any) -> str:
    claims = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    return jwt.encode({"alg": "RS256", "kid": kid}, claims, key)


@pytest.mark.parametrize("changed", [{}, {"exp": NOW - 30}, {"iat": NOW + 30}, {"aud": ["farthing"]},
                                     {"aud": ["farthing", "b"], "azp": "farthing"}])  # fmt: skip
def test_a_token_that_is_good(key, changed):
    """Clocks may differ by a minute."""
    assert believed(key, signed(key, **changed))["sub"] == "u"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://login.example.com.evil.example"}, {"iss": None}, {"aud": "another"}, {"aud": None},
        {"aud": ["farthing", "b"]}, {"azp": "another"}, {"nonce": "m"}, {"nonce": None}, {"nonce": ["n"]},
        {"exp": NOW - 61}, {"exp": None}, {"exp": "never"}, {"iat": NOW + 61}, {"nbf": NOW + 61}, {"sub": None},
    ],
)  # fmt: skip
def test_a_token_that_says_something_else(key, changed):
    with pytest.raises((JoseError, ValueError)):
        believed(key, signed(key, **changed))


def test_a_token_that_is_signed_otherwise(key):
    def part(said: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")

    good = signed(key)
    head, body, signature = good.split(".")
    public = key.as_pem(private=False)
    forged = {
        "none": f"{part({'alg': 'none'})}.{body}.",
        "None": f"{part({'alg': 'None', 'kid': 'one'})}.{body}.",
        "its public key as a secret": jwt.encode(
            {"alg": "HS256", "kid": "one"}, GOOD, OctKey.import_key(public.hex())
        ),
        "of another key": signed(oidc.a_key("one")),
        "of an unknown key": signed(key, "two"),
        "changed": f"{head}.{part({**GOOD, 'sub': 'root'})}.{signature}",
        "no signature": f"{head}.{body}.",
        "no token": "",
        "a key of its own": jwt.encode(
            {"alg": "RS256", "jwk": key.as_dict(private=False), "kid": "mine"}, GOOD, key
        ),
    }
    assert believed(key, good)
    for token in forged.values():
        with pytest.raises((JoseError, ValueError)):
            believed(key, token)


def test_keys_of_kinds_that_sign_nothing_are_left_out(key):
    said = {"keys": [{"kty": "oct", "k": "AAAA", "kid": "one"}, {"kty": "RSA", "kid": "broken"}, {"kty": "AKP"},
                     key.as_dict(private=False)]}  # fmt: skip
    assert [one.kid for one in _key_set(said)] == ["one"]


@pytest.mark.parametrize(
    ("claims", "role", "teams"),
    [
        ({"groups": ["search-devs", "ads-devs"]}, "viewer", ("search", "ads")),
        ({"groups": ["search-devs", "all-staff"]}, "viewer", ()),
        ({"groups": ["search-devs", "finops"]}, "admin", ()),
        ({"groups": "search-devs"}, "viewer", ("search",)),
    ],
)
def test_the_most_that_any_group_gives(claims, role, teams):
    who = who_of({"sub": "u", **claims}, SETTINGS)
    assert (who.role, who.teams) == (role, teams)


def test_where_groups_and_names_are_found():
    inside = Oidc(groups=GROUPS, groups_claim="realm_access.roles", name_claim="preferred_username")
    who = who_of({"sub": "u", "realm_access": {"roles": ["finops"]}, "preferred_username": "ada"}, inside)
    assert (who.name, who.role) == ("ada", "admin")
    odd = Oidc(groups=GROUPS, groups_claim="https://example.com/groups")
    assert who_of({"sub": "u", "https://example.com/groups": ["finops"]}, odd).role == "admin"
    assert who_of({"sub": "u"}, Oidc(groups={"*": Rights(teams=("search",))})).teams == ("search",)
    unproved = {"sub": "u", "groups": ["finops"], "email": "ceo@example.com", "email_verified": False}
    assert who_of(unproved, SETTINGS).name == "u"
    nobody: list[Any] = [None, {}, 5, ["nobody"]]
    for groups in nobody:
        with pytest.raises(OidcError):
            who_of({"sub": "u", "groups": groups}, SETTINGS)


def test_a_login_begun_long_ago_is_over(company, monkeypatch):
    import asyncio

    provider = Provider(Oidc(issuer=company.issuer, client_id=oidc.CLIENT, groups=GROUPS))
    _, state = asyncio.run(provider.begin("http://127.0.0.1/login/oidc/done", ""))
    later = time.monotonic() + 601
    monkeypatch.setattr("farthing.web._oidc.time.monotonic", lambda: later)
    with pytest.raises(OidcError, match="too long ago"):
        asyncio.run(provider.end({"state": state, "code": "x"}, state))


def test_beyond_loopback_a_provider_is_login_enough(tmp_path):
    file = tmp_path / "farthing.toml"
    file.write_text(
        '[web.oidc]\nissuer = "https://login.example.com"\nclient_id = "x"\n[web.oidc.groups."*"]\n'
    )
    access = serving._access(True, None, None, file, secure=True)
    assert access.oidc is not None
    assert access.who("", "", datetime.now(UTC)) is None


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('client_id = "x"', "`issuer` is missing"),
        ('issuer = "http://login.example.com"\nclient_id = "x"', "no https"),
        ('issuer = "https://login.example.com"', "`client_id` is missing"),
        ('issuer = "https://login.example.com"\nclient_id = "x"', "nobody could see"),
        (
            'issuer = "https://l.example"\nclient_id = "x"\n[web.oidc.groups.a]\nrole = "boss"',
            "toml:5: web.oidc.groups.a.role",
        ),
        ('issuer = "https://l.example"\nclient_id = "x"\n[web.oidc.groups.a]\nteams = ["a*"]', "whole name"),
        (
            'issuer = "https://l.example"\nclient_id = "x"\n[web.oidc.groups.a]\nrole = "admin"\nteams = ["a"]',
            "for all",
        ),
        ('issuer = "https://l.example"\nclient_id = "x"\nclient_secret = "x"', "client_secret_env"),
    ],
)
def test_settings_that_cannot_be(tmp_path, text, says):
    file = tmp_path / "farthing.toml"
    file.write_text(f"[web.oidc]\n{text}\n")
    with pytest.raises(ConfigError) as said:
        load_config(file)
    assert says in str(said.value)
    assert str(file) in str(said.value)
