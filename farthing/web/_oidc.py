"""Login by a company's own accounts: OpenID Connect with an authorization code and PKCE.

The provider's own host, and those that settings name beside it, are all that is asked. A token is believed for its
signature by a key of the provider's, its issuer, audience, nonce and times; nothing of it is kept but name and rights.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
import msgspec
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, KeySet
from joserfc.jwt import JWTClaimsRegistry

from farthing.config import Oidc, Rights
from farthing.web._access import OidcError, Who

# Signatures by a key that is the provider's alone: none is no signature, and of HS* the secret is ours too.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SKEW_S = 60  # by which clocks may differ
PENDING_S, MOST_PENDING = 600, 10_000  # logins begun and not come back
KEYS_S, KEYS_AGAIN_S = (
    3_600,
    10,
)  # for how long keys are kept; how soon they may be asked again for one unknown
DISCOVERED_S = 3_600
_TIMEOUT_S, _MOST_BYTES = 10, 1 << 20

log = logging.getLogger("farthing.web")


class Pending(NamedTuple):
    """A login that was begun: what it must come back with."""

    nonce: str
    verifier: str
    redirect_uri: str
    then: str  # the page that was asked for
    at: float


class Provider:
    """One provider, by the settings of [web.oidc]. `clock` is the time of day: tokens hang on nothing else."""

    def __init__(self, settings: Oidc, clock: Callable[[], float] = time.time) -> None:
        self.settings, self._clock = settings, clock
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    @property
    def _secret(self) -> str:
        return os.environ.get(self.settings.client_secret_env, "")

    # --- there and back

    async def begin(self, redirect_uri: str, then: str) -> tuple[str, str]:
        """The provider's address to send a browser to, and the state that it is to keep as a cookie."""
        found = await self._discovered()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        pending = Pending(nonce, verifier, self.settings.redirect_uri or redirect_uri, then, time.monotonic())
        with self._lock:
            self._pending[state] = pending
            while len(self._pending) > MOST_PENDING:
                self._pending.popitem(last=False)
        asked = {
            "response_type": "code", "client_id": self.settings.client_id, "redirect_uri": pending.redirect_uri,
            "scope": " ".join(self.settings.scopes), "state": state, "nonce": nonce,
            "code_challenge": _challenge(verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        address = found["authorization_endpoint"]
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", state

    async def end(self, said: Mapping[str, str], cookie: str) -> tuple[Who, str, str]:
        """Who came back, their id at the provider, and the page they had asked for. A state holds once."""
        state = said.get("state", "")
        with self._lock:
            pending = self._pending.pop(state, None)
        known = pending and hmac.compare_digest(state.encode(), cookie.encode())
        if not (pending and known) or time.monotonic() - pending.at > PENDING_S:
            raise OidcError("expired", "the login was begun in another browser, or too long ago")
        if said.get("iss", self.settings.issuer) != self.settings.issuer:
            raise OidcError("refused", "the answer is of another issuer")
        if "error" in said:
            problem = "denied" if said["error"] == "access_denied" else "provider"
            raise OidcError(problem, f"the provider said {said['error'][:100]!r}")
        tokens = await self._tokens(said.get("code", ""), pending)
        claims = await self._believed(str(tokens.get("id_token", "")), pending.nonce)
        if reached(claims, self.settings.groups_claim) is None:
            claims = await self._told_more(claims, str(tokens.get("access_token", "")))
        return who_of(claims, self.settings), str(claims["sub"]), pending.then

    async def leaving(self, then: str) -> str:
        """Where the provider's own session is ended; "" where it cannot be."""
        try:
            address = (await self._discovered()).get("end_session_endpoint", "")
        except OidcError:
            return ""
        asked = {"client_id": self.settings.client_id, "post_logout_redirect_uri": then}
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}" if address else ""

    # --- what the provider is asked

    async def _discovered(self) -> dict[str, Any]:
        """Its addresses; each must be of the issuer's host, or of one that settings name."""
        if self._found and time.monotonic() - self._found[0] < DISCOVERED_S:
            return self._found[1]
        issuer = self.settings.issuer
        found = await self._asked("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise OidcError("provider", f"{issuer} says that it is {str(found.get('issuer'))[:200]!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(found.get(name), str):
                raise OidcError("provider", f"{issuer} names no {name}")
        for name in ("authorization_endpoint", "end_session_endpoint"):  # where a browser goes, and we do not
            if found.get(name) and urlsplit(found[name]).scheme not in ("https", urlsplit(issuer).scheme):
                raise OidcError("provider", f"{name} of {issuer} is no https address")
        self._found = time.monotonic(), found
        return found

    async def _tokens(self, code: str, pending: Pending) -> dict[str, Any]:
        found = await self._discovered()
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": pending.redirect_uri,
            "code_verifier": pending.verifier,
        }  # fmt: skip
        headers = {}
        name, secret = self.settings.client_id, self._secret
        ways = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if (
            secret and "client_secret_post" not in ways
        ):  # providers differ in how they read odd signs of the other
            pair = f"{quote_plus(name)}:{quote_plus(secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": name} | ({"client_secret": secret} if secret else {})
        return await self._asked("POST", found["token_endpoint"], data=form, headers=headers)

    async def _believed(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of a token; where it is by a key that is not known, the provider may have a new one."""
        now = int(self._clock())
        try:
            try:
                return claims_of(token, await self._key_set(KEYS_S), self.settings, nonce, now)
            except (InvalidKeyIdError, BadSignatureError):
                return claims_of(token, await self._key_set(KEYS_AGAIN_S), self.settings, nonce, now)
        except (JoseError, ValueError) as error:
            raise OidcError("refused", f"its token is not to be believed: {error}") from None

    async def _key_set(self, most_s: int) -> KeySet:
        if self._keys is None or time.monotonic() - self._keys[0] >= most_s:
            found = await self._asked("GET", (await self._discovered())["jwks_uri"])
            self._keys = time.monotonic(), _key_set(found)
        return self._keys[1]

    async def _told_more(self, claims: dict[str, Any], token: str) -> dict[str, Any]:
        """With what the provider says of the person beside the token."""
        address = (await self._discovered()).get("userinfo_endpoint")
        if not (address and token):
            return claims
        more = await self._asked("GET", address, headers={"authorization": f"Bearer {token}"})
        if more.get("sub") != claims["sub"]:
            raise OidcError("refused", "userinfo is of somebody else")
        return more | claims

    async def _asked(self, method: str, url: str, **how: Any) -> dict[str, Any]:
        """A JSON object. What was sent and what came is not logged."""
        self._check(url)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(method, url, allow_redirects=False, **how) as answer,
            ):
                body = await _limited(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OidcError("provider", f"{url}: {type(error).__name__}") from None
        if answer.status != 200:
            raise OidcError("provider", f"{url}: status {answer.status} {_error_in(body)}".rstrip())
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise OidcError("provider", f"{url}: no JSON object") from None

    def _check(self, url: str) -> None:
        issuer, asked = urlsplit(self.settings.issuer), urlsplit(url)
        if asked.scheme == issuer.scheme and asked.netloc in (issuer.netloc, *self.settings.hosts):
            return
        raise OidcError(
            "provider", f"{asked.netloc[:100]} is not the issuer's host: name it in `hosts` of [web.oidc]"
        )


# --- what a token says ------------------------------------------------------------------------------------------------


def claims_of(token: str, keys: KeySet, settings: Oidc, nonce: str, now: int) -> dict[str, Any]:
    """The claims of an ID token. JoseError, or ValueError, where it is not to be believed."""
    found = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
    wanted: dict[str, Any] = {
        name: {"essential": True, "value": value}
        for name, value in (("iss", settings.issuer), ("aud", settings.client_id), ("nonce", nonce))
    }
    wanted |= {name: {"essential": True} for name in ("sub", "exp", "iat")}
    JWTClaimsRegistry(now=now, leeway=SKEW_S, **wanted).validate(found)
    several = isinstance(found["aud"], list) and len(found["aud"]) > 1
    if ("azp" in found or several) and found.get("azp") != settings.client_id:
        raise ValueError("it was made for another client")
    if found["nonce"] != nonce:  # a list that holds it is no nonce
        raise ValueError("its nonce is no text")
    return found


def who_of(claims: Mapping[str, Any], settings: Oidc) -> Who:
    """Name and rights: the most that any group of theirs gives. OidcError for who is in none that is named."""
    said = reached(claims, settings.groups_claim)
    groups = [said] if isinstance(said, str) else [str(one) for one in said] if isinstance(said, list) else []
    rights = [settings.groups[name] for name in (*groups, "*") if name in settings.groups]
    name = _name(claims, settings.name_claim)
    if not rights:
        raise OidcError("groups", f"{name} is in no group of [web.oidc.groups]")
    role, teams = _most(rights)
    return Who(name, role, teams)


def _most(rights: Sequence[Rights]) -> tuple[str, tuple[str, ...]]:
    if any(one.role == "admin" for one in rights):
        return "admin", ()
    if any(not one.teams for one in rights):
        return "viewer", ()
    return "viewer", tuple(dict.fromkeys(team for one in rights for team in one.teams))


def _name(claims: Mapping[str, Any], claim: str) -> str:
    """An address that nobody has verified could be that of another."""
    named = claims.get(claim)
    if isinstance(named, str) and named and (claim != "email" or claims.get("email_verified") is not False):
        return named[:100]
    return str(claims["sub"])[:100]


def reached(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by its path inside of others."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _key_set(said: Mapping[str, Any]) -> KeySet:
    """The keys that signatures may be of; those of kinds that nobody here knows are left out."""
    keys = []
    for one in said.get("keys", ()):
        if isinstance(one, dict) and one.get("kty") in ("RSA", "EC", "OKP") and one.get("use") != "enc":
            try:
                keys.append(JWKRegistry.import_key(one))
            except (JoseError, ValueError, KeyError, TypeError) as error:
                log.warning("a key of the provider's cannot be read: %s", type(error).__name__)
    return KeySet(keys)


async def _limited(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise OidcError("provider", f"{answer.url.host}: its answer is too large")
    return body


def _error_in(body: bytes) -> str:
    """The code by which a provider says what is wrong: invalid_client, invalid_grant."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any]).get("error", "")
    except msgspec.MsgspecError:
        return ""
    return said if isinstance(said, str) and said.replace("_", "").isalnum() and len(said) < 60 else ""


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
