"""Signatures: what we make is what botocore makes, and what botocore makes is what we accept."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Theirs
from hypothesis import given
from hypothesis import strategies as st

from farthing.gateway._sign import Credentials, Forged, sign, verify

NOW = datetime(2026, 11, 22, 8, 30, 1, tzinfo=UTC)
PATHS = st.text("abcXYZ019-._~:/%@+!$&'()*,;= é", max_size=40).map(lambda text: "/" + text.replace("%", "%25").replace(
    " ", "%20").replace("é", "%C3%A9"))  # fmt: skip
QUERIES = st.lists(
    st.tuples(st.text("abAB12-_.~", min_size=1, max_size=5), st.text("ab12%2F", max_size=6)), max_size=4
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-amz-meta-a", "x-amzn-bedrock-trace", "x-amz-b"]), VALUES
)


def theirs(monkeypatch, method, url, headers, body, token=""):
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *_: NOW.replace(tzinfo=None), raising=False
    )
    request = AWSRequest(method=method, url=url, headers=headers, data=body)
    botocore.auth.SigV4Auth(Theirs("AKID", "secret", token or None), "bedrock", "eu-central-1").add_auth(
        request
    )
    return request


@given(PATHS, QUERIES, HEADERS, st.binary(max_size=50), st.sampled_from(["", "token/+="]))
def test_we_sign_as_botocore_does(path, query, headers, body, token):
    with pytest.MonkeyPatch.context() as patched:
        url = f"https://bedrock.example.com{path}" + (f"?{query}" if query else "")
        request = theirs(patched, "POST", url, headers, body, token)
        parts = urlsplit(url)
        signed = [("host", parts.netloc), *headers.items()]
        ours = sign("POST", parts.path, parts.query, signed, body, Credentials("AKID", "secret", token), "eu-central-1",
                    "bedrock", NOW)  # fmt: skip
        assert dict(ours)["authorization"] == request.headers["Authorization"]
        assert dict(ours)["x-amz-date"] == request.headers["X-Amz-Date"]


def signed(monkeypatch, body=b"{}", path="/model/a%3Ab/invoke", **more):
    """A request of botocore, as it arrives here."""
    request = theirs(
        monkeypatch, "POST", f"http://gateway:8080{path}?x=1", {"content-type": "application/json"}, body
    )
    arrived = [(name.lower(), value) for name, value in request.headers.items()]
    return [*arrived, ("host", "gateway:8080"), ("user-agent", "x"), *more.items()]


def accepted(headers, body=b"{}", path="/model/a%3Ab/invoke", query="x=1", now=NOW, secrets=None):
    secrets = {"AKID": "secret"} if secrets is None else secrets
    return verify("POST", path, query, headers, body, secrets.get, now)


def test_we_accept_what_botocore_signs(monkeypatch):
    assert accepted(signed(monkeypatch)) == "AKID"
    assert accepted(signed(monkeypatch), now=NOW + timedelta(minutes=4)) == "AKID"


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"{} "},
        {"path": "/model/other/invoke"},
        {"query": "x=2"},
        {"now": NOW + timedelta(minutes=6)},
        {"now": NOW - timedelta(minutes=6)},
        {"secrets": {}},
        {"secrets": {"AKID": "other"}},
    ],
)
def test_whatever_was_changed_is_forged(monkeypatch, change):
    with pytest.raises(Forged):
        accepted(signed(monkeypatch), **change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "evil"),
        ("content-type", "text/plain"),
        ("x-amz-date", "20261122T083002Z"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-security-token", "smuggled in"),
        ("authorization", "Bearer x"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-central-1/bedrock/aws4_request, "
                          "SignedHeaders=x-amz-date, Signature=" + "0" * 64),
    ],
)  # fmt: skip
def test_whatever_header_was_changed_is_forged(monkeypatch, name, value):
    headers = [each for each in signed(monkeypatch) if each[0] != name]
    with pytest.raises(Forged):
        accepted([*headers, (name, value)])
