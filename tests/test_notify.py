"""Messages: what is sent arrives as it was meant, on real servers; what fails is one line, and never tells a secret."""

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import boto3
import pytest

from farthing.config import Smtp
from farthing.notify import NotifyError, mail, publish, webhook

SECRET = "correct-horse-battery"
TOKEN = "T0001/B0002/verysecret"
AT_ONCE = (0.0, 0.0)  # pauses between tries


# --- servers of ours ------------------------------------------------------------------------------


@contextmanager
def hook(*answers, headers=()):
    """A webhook that answers with these codes in turn, the last again and again; it keeps what it was sent."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(SimpleNamespace(path=self.path, type=self.headers["Content-Type"], body=body))
            code = answers[min(len(got), len(answers)) - 1]
            said = f"cannot do {self.path}".encode()
            self.send_response(code)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self):
            got.append(SimpleNamespace(path="GET " + self.path, type="", body=b""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/{TOKEN}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody trusts yet, as one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def post_office(certificate=None, security="none", refuse=(), passing=0):
    """A mail server: it refuses some recipients, and the first `passing` messages for the moment."""
    controllers = pytest.importorskip("aiosmtpd.controller")
    results = pytest.importorskip("aiosmtpd.smtp")
    got: list[SimpleNamespace] = []
    failed: list[bytes] = []

    class Handler:
        async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
            if address in refuse:
                return "550 no such person"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server, session, envelope):  # noqa: N802
            if len(failed) < passing:
                failed.append(envelope.content)
                return "451 come back later"
            message = message_from_bytes(envelope.content, policy=policy.default)
            got.append(
                SimpleNamespace(message=message, to=envelope.rcpt_tos, tls=session.ssl is not None or context)
            )
            return "250 OK"

    def sign_in(server, session, envelope, mechanism, said):
        right = said.login == b"farthing" and said.password == SECRET.encode()
        return results.AuthResult(success=right, handled=False)

    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    tls = {"ssl": {"ssl_context": context}, "starttls": {"tls_context": context}}.get(security, {})
    controller = controllers.Controller(
        Handler(),
        hostname="localhost",
        port=free_port(),
        authenticator=sign_in,
        auth_require_tls=False,
        **tls,
    )
    controller.start()
    try:
        yield controller.port, got
    finally:
        controller.stop()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def smtp(port, **more):
    return Smtp(
        **{"host": "localhost", "port": port, "security": "none", "sender": "costs@example.com"} | more
    )


# --- webhooks -------------------------------------------------------------------------------------


def test_a_webhook_is_sent_json():
    with hook(200) as (url, got):
        webhook(url, {"text": "search: +$12 an hour — cache broken"})
    assert json.loads(got[0].body) == {"text": "search: +$12 an hour — cache broken"}
    assert got[0].type.startswith("application/json")
    assert got[0].path.endswith(TOKEN)


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(code):
    with hook(code, code, 200) as (url, got):
        webhook(url, {"text": "x"}, pauses=AT_ONCE)
    assert len(got) == 3


@pytest.mark.parametrize(("code", "tries"), [(500, 3), (400, 1), (403, 1), (404, 1), (410, 1)])
def test_what_stays_refused_is_an_error_without_the_address(code, tries):
    with (
        hook(code) as (url, got),
        pytest.raises(NotifyError, match=rf"webhook at 127.0.0.1: answered {code}") as e,
    ):
        webhook(url, {"text": "x"}, pauses=AT_ONCE)
    assert len(got) == tries
    assert "verysecret" not in str(e.value)
    assert "\n" not in str(e.value)


def test_a_redirect_is_no_delivery():
    with (
        hook(302, headers=[("Location", "/elsewhere")]) as (url, got),
        pytest.raises(NotifyError, match="302"),
    ):
        webhook(url, {"text": "x"}, pauses=AT_ONCE)
    assert len(got) == 1


def test_a_server_that_wants_a_long_rest_is_not_waited_for():
    with hook(429, headers=[("Retry-After", "3600")]) as (url, got), pytest.raises(NotifyError, match="429"):
        webhook(url, {"text": "x"}, pauses=AT_ONCE)
    assert len(got) == 1


def test_a_closed_door_is_an_error_without_the_address():
    url = f"http://127.0.0.1:{free_port()}/services/{TOKEN}"
    with pytest.raises(NotifyError, match=r"webhook at 127.0.0.1: .*refused") as error:
        webhook(url, {"text": "x"}, pauses=AT_ONCE)
    assert "verysecret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["", "verysecret", "file:///etc/verysecret", "https://[verysecret", "http://127.0.0.1:1/a verysecret"],
)
def test_what_is_no_address_is_not_asked_and_not_shown(url):
    with pytest.raises(NotifyError) as error:
        webhook(url, {"text": "x"}, pauses=())
    assert "verysecret" not in str(error.value)


# --- mail -----------------------------------------------------------------------------------------


def test_mail_has_text_html_and_attachments():
    with post_office() as (port, got):
        mail(
            smtp(port),
            ["ada@example.com", "bob@example.com"],
            "Search: 80 % of\nthe budget — spent",
            "plain\n",
            "<b>rich</b>",
            {"search.csv": b"team,usd\nsearch,1\n", "made.bin": b"\0\1"},
        )
    message = got[0].message
    assert got[0].to == ["ada@example.com", "bob@example.com"]
    assert message["Subject"] == "Search: 80 % of the budget — spent"
    assert message["From"] == "costs@example.com"
    assert message["Date"]
    assert message["Message-ID"].endswith("@example.com>")
    assert message.get_body(("plain",)).get_content().strip() == "plain"
    assert message.get_body(("html",)).get_content().strip() == "<b>rich</b>"
    attached = {part.get_filename(): part for part in message.iter_attachments()}
    assert attached["search.csv"].get_content_type() == "text/csv"
    assert attached["search.csv"].get_payload(decode=True) == b"team,usd\nsearch,1\n"
    assert attached["made.bin"].get_payload(decode=True) == b"\0\1"


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_mail_goes_encrypted_and_signed_in(security, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MAIL_PASSWORD", SECRET)
    with post_office(certificate, security) as (port, got):
        settings = smtp(port, security=security, user="farthing", password_env="MAIL_PASSWORD")
        mail(settings, ["ada@example.com"], "s", "t")
    assert got[0].tls


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_a_server_that_nobody_vouches_for_gets_no_password(security, certificate, monkeypatch):
    monkeypatch.setenv("FARTHING_SMTP_PASSWORD", SECRET)
    settings = {"security": security, "user": "farthing"}
    with post_office(certificate, security) as (port, got), pytest.raises(NotifyError, match="not trusted"):
        mail(smtp(port, **settings), ["ada@example.com"], "s", "t", pauses=())
    assert got == []


def test_a_server_without_tls_gets_no_password(monkeypatch):
    monkeypatch.setenv("FARTHING_SMTP_PASSWORD", SECRET)
    with post_office() as (port, got), pytest.raises(NotifyError, match=r"STARTTLS.*security in \[smtp\]"):
        mail(smtp(port, security="starttls", user="farthing"), ["ada@example.com"], "s", "t", pauses=())
    assert got == []


def test_a_wrong_password_is_one_line_without_it(monkeypatch):
    monkeypatch.setenv("FARTHING_SMTP_PASSWORD", "wrong-" + SECRET)
    with post_office() as (port, got), pytest.raises(NotifyError, match="password of farthing") as error:
        mail(smtp(port, user="farthing"), ["ada@example.com"], "s", "t", pauses=AT_ONCE)
    assert SECRET not in str(error.value)
    assert got == []


def test_a_password_that_is_not_set_is_asked_for_by_its_variable(monkeypatch):
    monkeypatch.delenv("MAIL_PASSWORD", raising=False)
    with pytest.raises(NotifyError, match=r"\$MAIL_PASSWORD is not set"):
        mail(smtp(1, user="farthing", password_env="MAIL_PASSWORD"), ["ada@example.com"], "s", "t")


def test_who_is_refused_is_named_and_the_others_get_it():
    with post_office(refuse=["nobody@example.com"]) as (port, got):
        with pytest.raises(
            NotifyError, match=r"nobody@example\.com \(550 no such person\); the others have it"
        ):
            mail(smtp(port), ["ada@example.com", "nobody@example.com"], "s", "t", pauses=AT_ONCE)
        with pytest.raises(NotifyError, match=r"refused for nobody@example\.com"):
            mail(smtp(port), ["nobody@example.com"], "s", "t", pauses=AT_ONCE)
    assert [one.to for one in got] == [["ada@example.com"]]


def test_a_busy_server_is_asked_again():
    with post_office(passing=2) as (port, got):
        mail(smtp(port), ["ada@example.com"], "s", "t", pauses=AT_ONCE)
    assert len(got) == 1
    with post_office(passing=9) as (port, got), pytest.raises(NotifyError, match="451 come back later"):
        mail(smtp(port), ["ada@example.com"], "s", "t", pauses=AT_ONCE)


def test_no_server_is_one_line():
    with pytest.raises(NotifyError, match=r"mail by localhost: .*refused"):
        mail(smtp(free_port()), ["ada@example.com"], "s", "t", pauses=())
    with pytest.raises(NotifyError, match=r"add \[smtp\]"):
        mail(Smtp(), ["ada@example.com"], "s", "t")


# --- SNS ------------------------------------------------------------------------------------------


def test_a_topic_s_subscribers_get_it(moto):
    def client(service):
        return boto3.client(
            service, "eu-west-1", endpoint_url=moto, aws_access_key_id="x", aws_secret_access_key="y"
        )

    sns, sqs = client("sns"), client("sqs")
    topic = sns.create_topic(Name="costs")["TopicArn"]
    queue = sqs.create_queue(QueueName="costs")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    publish(sns, topic, "Search — 80 %\nof the budget " + "x" * 200, "all of it — plainly")
    got = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert got["Message"] == "all of it — plainly"
    assert got["Subject"].startswith("Search ? 80 % of the budget xxx")
    assert len(got["Subject"]) < 100
    with pytest.raises(NotifyError, match=r"SNS topic other: .*not exist"):
        publish(sns, topic.replace("costs", "other"), "s", "t")
