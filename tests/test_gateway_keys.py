"""Keys: who may call what, by token or by signature; rotated and revoked while the gateway runs."""

import json
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anthropic
import boto3
import pytest
import schemathesis
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, settings

from farthing.gateway._keys import Key, Keys, KeysError, add, digest, load, revoke, rotate
from tests.gateways import BODY, INVOKE, MODEL, answered, gateway, message, reply, request, upstream

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SCOPE = "20261122/us-east-1/bedrock/aws4_request"


def command(*said: str, keys) -> subprocess.CompletedProcess:
    whole = [sys.executable, "-m", "farthing", "gateway", "key", *said, "--keys", str(keys)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


def like(name: str, **more) -> Key:
    return Key(name=name, shown="", created=NOW, **more)


@pytest.fixture(scope="module")
def up():
    with upstream(lambda _: [reply(message())]) as made:
        yield made


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def issued(keys):
    now = datetime.now(UTC)
    made = {
        "plain": add(keys, like("plain", team="red", tags={"app": "a"}), now).token,
        "narrow": add(keys, like("narrow", models=("claude-haiku-*",), endpoints=("geo:*",)), now).token,
        "lead": add(keys, like("lead", team="red", teams=("blue",)), now).token,
        "admin": add(keys, like("admin", admin=True, batches=True), now).token,
        "over": add(keys, like("over", expires=now - timedelta(days=1)), now).token,
    }
    signing = add(keys, like("signing"), now, sigv4=True)
    return {**made, "id": signing.key.shown, "secret": signing.secret}


@pytest.fixture(scope="module")
def guarded(up, keys, issued, tmp_path_factory):
    outbox = tmp_path_factory.mktemp("gateway") / "outbox"
    with gateway(outbox, "--bedrock", up.url, "--keys", str(keys), "--fsync", "os") as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_yet(up):
    up.asked.clear()


def bearer(token: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}"), *more]


# --- at the gateway ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer("ftg_wrong"),
        bearer(""),
        [("X-Api-Key", "ftg_wrong")],
        [("Authorization", "Basic abc")],
        [("Authorization", f"AWS4-HMAC-SHA256 Credential=FTGK0/{SCOPE}, SignedHeaders=host, Signature=00")],
    ],
)  # fmt: skip
def test_nobody_known_is_refused(up, guarded, headers):
    got = guarded.post(INVOKE, BODY, headers)
    assert (got.status, got["x-amzn-errortype"]) == (401, "UnrecognizedClientException")
    assert up.asked == []
    assert guarded.post("/v1/messages", b"{}", headers).json()["error"]["type"] == "authentication_error"


def test_key_that_is_over_is_refused(guarded, issued):
    assert guarded.post(INVOKE, BODY, bearer(issued["over"])).status == 401


def test_key_says_whose_the_call_is_and_stays_here(up, guarded, issued):
    got = guarded.post(
        INVOKE, BODY, bearer(issued["plain"], ("X-Farthing-Run", "r1"), ("X-Farthing-Project", "p"))
    )
    assert got.status == 200
    record = guarded.results()[got["x-farthing-call-id"]]
    assert record.tags == {"team": "red", "run": "r1", "app": "a", "key": "plain"}
    assert record.project == "p"
    assert issued["plain"] not in up.asked[0].head.decode()
    assert "authorization" not in {name.lower() for name, _ in up.asked[0].headers}


def test_key_is_taken_as_x_api_key_too(guarded, issued):
    assert guarded.post(INVOKE, BODY, [("x-api-key", issued["plain"])]).status == 200


def test_scopes(up, guarded, issued):
    narrow = bearer(issued["narrow"])
    refused = guarded.post(INVOKE, BODY, narrow)
    assert (refused.status, refused["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert guarded.post("/model/global.anthropic.claude-haiku-4-5/invoke", BODY, narrow).status == 403
    assert (
        guarded.post("/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke", BODY, narrow).status == 200
    )
    assert len(up.asked) == 1


def test_teams(guarded, issued):
    for name, team, status in (("lead", "blue", 200), ("lead", "green", 403), ("plain", "blue", 403)):
        got = guarded.post(INVOKE, BODY, bearer(issued[name], ("X-Farthing-Team", team)))
        assert got.status == status
        if status == 200:
            assert guarded.results()[got["x-farthing-call-id"]].tags["team"] == team


def test_batches_need_their_scope(guarded, issued):
    assert guarded.post("/model-invocation-job", b"{}", bearer(issued["plain"])).status == 403
    assert guarded.post("/model-invocation-job", b"{}", bearer(issued["admin"])).status == 200


def test_calls_are_told_to_their_key_alone(guarded, issued):
    call_id = guarded.post(INVOKE, BODY, bearer(issued["plain"]))["x-farthing-call-id"]
    status = {
        name: answered(
            guarded.raw(request("GET", f"/v1/calls/{call_id}", headers=bearer(issued[name])))
        ).status
        for name in ("plain", "lead", "admin", "over")
    }
    assert status == {"plain": 200, "lead": 404, "admin": 200, "over": 401}


def test_admin_answers_need_admin(guarded, issued):
    for path in ("/metrics", "/admin/keys", "/admin/budgets", "/v1/organizations/spend_limits"):
        assert answered(guarded.raw(request("GET", path))).status == 401
        assert answered(guarded.raw(request("GET", path, headers=bearer(issued["plain"])))).status == 403
        got = answered(guarded.raw(request("GET", path, headers=bearer(issued["admin"]))))
        assert got.status == 200
        assert not any(secret in got.body.decode() for secret in issued.values() if len(secret) > 25)
    assert answered(guarded.raw(request("GET", "/healthz"))).status == 200


def boto(made, key_id, secret, **more):
    return closing(boto3.client(
        "bedrock-runtime", endpoint_url=made.url, region_name="us-east-1", aws_access_key_id=key_id,
        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}, **more),
    ))  # fmt: skip


def test_boto3_signs_with_what_the_gateway_issued(up, guarded, issued):
    with boto(guarded, issued["id"], issued["secret"]) as client:
        got = client.invoke_model(modelId=MODEL, body=BODY)
    record = guarded.results()[got["ResponseMetadata"]["HTTPHeaders"]["x-farthing-call-id"]]
    assert record.tags["key"] == "signing"
    assert b"AWS4" not in up.asked[0].head  # it has no right upstream, and none of ours was given


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_access_key_id_alone_is_nobody(up, guarded, issued, secret):
    with (
        boto(guarded, issued["id"], secret or issued["secret"][::-1]) as client,
        pytest.raises(ClientError) as caught,
    ):
        client.invoke_model(modelId=MODEL, body=BODY)
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert up.asked == []


def test_boto3_with_a_bearer_needs_tls(up, keys, issued, tmp_path, monkeypatch):
    """botocore sends a bearer to https alone, so the gateway has TLS of its own."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", issued["plain"])
    certificate, private = certified(tmp_path)
    tls = ("--certificate", str(certificate), "--private-key", str(private))
    env = {"AWS_BEARER_TOKEN_BEDROCK": ""}
    with gateway(tmp_path / "outbox", "--bedrock", up.url, "--keys", str(keys), *tls, env=env) as made:
        assert made.url.startswith("https://")
        client = boto3.client(
            "bedrock-runtime", endpoint_url=made.url, region_name="us-east-1", verify=str(certificate)
        )
        with closing(client):
            got = client.invoke_model(modelId=MODEL, body=BODY)
        assert (
            made.results()[got["ResponseMetadata"]["HTTPHeaders"]["x-farthing-call-id"]].tags["key"]
            == "plain"
        )


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def test_anthropic_with_a_key(guarded, issued):
    with anthropic.Anthropic(base_url=guarded.url, api_key=issued["plain"], max_retries=0) as client:
        got = client.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "hi"}])
        assert got.usage.output_tokens == 5


def test_rotation_and_revocation_are_seen_at_once(guarded, keys):
    first = add(keys, like("turning"), datetime.now(UTC)).token
    assert guarded.post(INVOKE, BODY, bearer(first)).status == 200
    second = rotate(keys, "turning", datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC)).token
    assert [guarded.post(INVOKE, BODY, bearer(token)).status for token in (first, second)] == [200, 200]
    revoke(keys, first[:12], datetime.now(UTC))
    assert [guarded.post(INVOKE, BODY, bearer(token)).status for token in (first, second)] == [401, 200]
    revoke(keys, "turning", datetime.now(UTC))
    assert guarded.post(INVOKE, BODY, bearer(second)).status == 401


# --- the file ---------------------------------------------------------------------------------------------------------


def test_file_has_no_token_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "keys.json"
    token = add(path, like("one"), NOW).token
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeysError, match="there is a key one"):
        add(path, like("one"), NOW)


def test_rotated_key_overlaps_and_ends(tmp_path):
    path, until = tmp_path / "keys.json", NOW + timedelta(hours=1)
    first = add(path, like("one", team="red"), NOW).token
    second = rotate(path, "one", until, NOW).token
    held = Keys(path)
    assert [key and key.team for key in (held.of_token(first, NOW), held.of_token(second, NOW))] == [
        "red",
        "red",
    ]
    assert held.of_token(first, until) is None
    assert held.of_token(second, until) is not None


def test_file_at_fault_leaves_the_keys_before_it(tmp_path):
    path = tmp_path / "keys.json"
    token = add(path, like("one"), NOW).token
    held = Keys(path)
    path.write_text('{"keys": [{"name": 7}]}')
    assert held.of_token(token, NOW) is not None
    assert "keys" in held.fault
    path.unlink()
    assert held.of_token(token, NOW) is None  # who deletes the file wants nobody to call


def test_commands(tmp_path):
    path = tmp_path / "keys.json"
    made = command("add", "ci", "--team", "red", "--tag", "app=x", "--expires", "90d", "--json", keys=path)
    token = json.loads(made.stdout)["token"]
    (key,) = load(path)
    assert (key.tags, key.digest) == ({"app": "x"}, digest(token))
    listed = command("list", keys=path)
    assert "ci" in listed.stdout
    assert token not in listed.stdout
    turned = json.loads(command("rotate", "ci", "--overlap", "5m", "--json", keys=path).stdout)["token"]
    assert command("revoke", token[:12], keys=path).returncode == 0
    assert [Keys(path).of_token(each, datetime.now(UTC)) is None for each in (token, turned)] == [True, False]
    assert len(load(path)) == 2


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (("revoke", "nobody"), "no key nobody"),
        (("rotate", "nobody"), "no key nobody"),
        (("add", "x y"), "name"),
        (("add", "x", "--expires", "soon"), "is no time"),
        (("add", "x", "--tag", "novalue"), "NAME=VALUE"),
    ],
)
def test_commands_that_make_no_sense(tmp_path, said, says):
    done = command(*said, keys=tmp_path / "keys.json")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- the admin API, fuzzed --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(guarded):
    return schemathesis.openapi.from_url(f"{guarded.url}/openapi.json")


@schemathesis.pytest.from_fixture("api").parametrize()
@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
)
def test_admin_api_is_as_its_openapi_says(case, issued):
    case.call_and_validate(headers={"Authorization": f"Bearer {issued['admin']}"})
