"""Messages that leave the machine: mail by SMTP, JSON to a webhook, text to an SNS topic.

Nothing here knows what a message is about. Passwords and the addresses of webhooks are secrets: no error names them.
A message may arrive twice, where an answer was lost on its way back; it never gets lost in silence.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
import os
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Protocol
from urllib.parse import urlsplit

SECONDS = 20  # to connect, or to wait for an answer
PAUSES = (1.0, 4.0)  # seconds before the second and third try
_LONGEST_PAUSE = 30.0  # that a server may ask for
SUBJECT_BYTES = 100  # SNS refuses longer ones


class NotifyError(Exception):
    """It was not delivered: one line with the mend, and without a secret."""


class _Passing(Exception):
    """It may go better in a moment: what went wrong, and how long the server asks to wait."""

    def __init__(self, reason: str, seconds: float = 0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Smtp(Protocol):
    """How mail is handed over: `[smtp]` of farthing.toml."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...  # 0: the usual one
    @property
    def security(self) -> str: ...  # starttls, ssl or none
    @property
    def sender(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def password_env(self) -> str: ...  # the variable that holds it


def secret(variable: str, what: str) -> str:
    """What a variable of the environment holds."""
    found = os.environ.get(variable, "").strip()
    if not found:
        raise NotifyError(f"${variable} is not set: put {what} there")
    return found


# --- mail -----------------------------------------------------------------------------------------

_WIDE = policy.SMTP.clone(max_line_length=900)  # a folded subject begins with a blank in some programs
_PORTS = {"starttls": 587, "ssl": 465, "none": 25}


def mail(
    settings: Smtp,
    to: Sequence[str],
    subject: str,
    text: str,
    html: str = "",
    attachments: Mapping[str, bytes] = {},
    *,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Send one message to all of `to`. NotifyError where one of them is refused, though the others have it then."""
    if not settings.host:
        raise NotifyError("no mail server: add [smtp] with host and sender to farthing.toml")
    message = EmailMessage(_WIDE)
    for name, value in (
        ("From", settings.sender),
        ("To", ", ".join(to)),
        ("Subject", " ".join(subject.split())),  # a header is one line
        ("Date", formatdate(usegmt=True)),
        ("Message-ID", make_msgid(domain=settings.sender.rpartition("@")[2].rstrip(">") or "localhost")),
    ):
        message[name] = value
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    for name, data in attachments.items():
        kind, subkind = (mimetypes.guess_type(name)[0] or "application/octet-stream").split("/")
        message.add_attachment(data, maintype=kind, subtype=subkind, filename=name)
    password = secret(settings.password_env, f"the password of {settings.user}") if settings.user else ""
    _again(lambda: _hand_over(settings, password, message, to), f"mail by {settings.host}", pauses)


def _hand_over(settings: Smtp, password: str, message: EmailMessage, to: Sequence[str]) -> None:
    port = settings.port or _PORTS[settings.security]
    trusted = ssl.create_default_context()
    try:
        server = (
            smtplib.SMTP_SSL(settings.host, port, timeout=SECONDS, context=trusted)
            if settings.security == "ssl"
            else smtplib.SMTP(settings.host, port, timeout=SECONDS)
        )
        with server:
            if settings.security == "starttls":
                server.starttls(context=trusted)
            if settings.user:
                server.login(settings.user, password)
            refused = server.send_message(message, to_addrs=list(to))
    except smtplib.SMTPRecipientsRefused as error:
        raise NotifyError(_refused(error.recipients)) from None
    except smtplib.SMTPAuthenticationError as error:
        raise NotifyError(f"does not take the password of {settings.user} ({error.smtp_code})") from None
    except smtplib.SMTPResponseException as error:
        said = f"{error.smtp_code} {_line(error.smtp_error)}"
        raise (_Passing if 400 <= error.smtp_code < 500 else NotifyError)(said) from None
    except smtplib.SMTPServerDisconnected as error:
        raise _Passing(_line(error)) from None
    except smtplib.SMTPException as error:  # it offers no STARTTLS, or no way to sign in
        raise NotifyError(f"{_line(error)}; see security in [smtp]") from None
    except ssl.SSLCertVerificationError as error:
        raise NotifyError(f"its certificate is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise NotifyError(f"no TLS on port {port}: {_line(error)}; see security in [smtp]") from None
    except OSError as error:
        raise _Passing(_line(error)) from None
    if refused:
        raise NotifyError(f"{_refused(refused)}; the others have it")


def _refused(recipients: Mapping[str, tuple[int, bytes]]) -> str:
    return "refused for " + ", ".join(f"{to} ({code} {_line(why)})" for to, (code, why) in recipients.items())


# --- JSON to a webhook ----------------------------------------------------------------------------


def webhook(url: str, payload: Mapping[str, Any], *, pauses: Sequence[float] = PAUSES) -> None:
    """POST the payload as JSON. Slack's webhooks take {"text": ..., "blocks": [...]}."""
    where = f"webhook at {host_of(url)}"
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked by `host_of`
        url,
        json.dumps(payload, ensure_ascii=False).encode(),
        {"Content-Type": "application/json; charset=utf-8", "User-Agent": "farthing"},
        method="POST",
    )
    _again(lambda: _post(request), where, pauses)


def host_of(url: str) -> str:
    """All of a webhook's address that is no secret. NotifyError if it is none."""
    try:
        parts = urlsplit(url)
        fit = url.isascii() and url.isprintable() and " " not in url
        if parts.hostname and parts.scheme in ("https", "http") and fit:
            return parts.hostname
    except ValueError:
        pass
    raise NotifyError("the webhook's address is no https:// address")


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would become a GET, and the message nothing."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(request: urllib.request.Request) -> None:
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as answer:
            answer.read(1000)
    except urllib.error.HTTPError as error:
        with error:
            said = f"answered {error.code} {error.reason} {_line(error.read(200))}".strip()
            said = said.replace(request.selector, "/...")  # some servers quote what they do not know
            wait = error.headers.get("Retry-After", "")
        if error.code == 429 or error.code >= 500:
            raise _Passing(said, float(wait) if wait.isdecimal() else 0) from None
        raise NotifyError(f"{said}; see its address") from None
    except urllib.error.URLError as error:
        raise _Passing(_line(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(_line(error) or type(error).__name__) from None


# --- SNS ------------------------------------------------------------------------------------------


def publish(client: Any, topic_arn: str, subject: str, text: str) -> None:
    """Publish to a topic by a boto3 client of SNS, which tries again by itself."""
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in " ".join(subject.split()))
    try:
        client.publish(TopicArn=topic_arn, Subject=plain[: SUBJECT_BYTES - 1] or "farthing", Message=text)
    except Exception as error:  # noqa: BLE001 - the errors of botocore share no base class
        raise NotifyError(f"SNS topic {topic_arn.rpartition(':')[2]}: {_line(error)}") from None


# --- trying again ---------------------------------------------------------------------------------


def _again(attempt: Callable[[], None], where: str, pauses: Sequence[float]) -> None:
    """Try until it goes, or will not: after each pause, or what the server asks for if that is not too long."""
    for pause in (*pauses, None):
        try:
            return attempt()
        except NotifyError as error:
            raise NotifyError(f"{where}: {error}") from None
        except _Passing as error:
            if pause is None or error.seconds > _LONGEST_PAUSE:
                raise NotifyError(f"{where}: {error}") from None
            time.sleep(max(pause, error.seconds))
    raise AssertionError  # the last pause is None


def _line(said: object) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return " ".join(text.split())[:200]
