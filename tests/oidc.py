"""An OpenID provider of a made-up company on 127.0.0.1: authlib's server; it demands PKCE, and its key can change."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeGrant, AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from flask import Flask, Response, request
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET = "farthing", "made-up-secret-of-the-client"
PEOPLE: dict[str, dict[str, Any]] = {
    "u-ada": {"email": "ada@example.com", "groups": ["finops"]},
    "u-sam": {"email": "sam@example.com", "groups": ["search-devs", "football"]},
    "u-vic": {"email": "vic@example.com", "groups": ["all-staff"]},
    "u-eve": {"email": "eve@example.com", "groups": ["football"]},
}


def a_key(name: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"})


@dataclass
class Client(ClientMixin):  # type: ignore[misc]
    """The dashboard, as the provider knows it."""

    def get_client_id(self):
        return CLIENT

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri.endswith("/login/oidc/done")

    def check_client_secret(self, client_secret):
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type == "authorization_code"


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc]
    code: str
    user: str
    said: dict[str, str]
    code_challenge: str = ""
    code_challenge_method: str = ""

    def get_redirect_uri(self):
        return self.said["redirect_uri"]

    def get_scope(self):
        return self.said["scope"]

    def get_nonce(self):
        return self.said.get("nonce")

    def get_auth_time(self):
        return None

    def get_acr(self):
        return None

    def get_amr(self):
        return None


@dataclass
class Company:
    """What a test may look at and change: keys, and whether groups are in tokens or in userinfo alone."""

    port: int = 0
    key: RSAKey = field(default_factory=lambda: a_key("one"))
    codes: dict[str, Code] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # paths
    groups_in_token: bool = True
    claims: dict[str, Any] = field(default_factory=dict)  # that its tokens are forged with
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _grant(company: Company):
    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code, request):
            said = dict(request.payload.data)
            company.codes[code] = Code(
                code, request.user, said, said["code_challenge"], said["code_challenge_method"]
            )

        def query_authorization_code(self, code, client):
            return company.codes.get(code)

        def delete_authorization_code(self, authorization_code):
            del company.codes[authorization_code.code]

        def authenticate_user(self, authorization_code):
            return authorization_code.user

    return Grant


def _openid(company: Company):
    class OpenId(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce, request):
            return False

        def resolve_client_private_key(self, client):
            return company.key

        def get_client_algorithm(self, client):
            return "RS256"

        def get_encode_header(self, client):
            return {"alg": "RS256", "kid": company.key.kid}

        def get_client_claims(self, client):
            return {"iss": company.issuer}

        def generate_user_info(self, user, scope):
            person = PEOPLE[user] if company.groups_in_token else {}
            return {"sub": user, **person, **company.claims}

    return OpenId


def _app(company: Company) -> Flask:
    app = Flask("company")

    def save_token(token, request):
        company.tokens[token["access_token"]] = request.user

    server = AuthorizationServer(app, query_client=lambda name: Client() if name == CLIENT else None,
                                 save_token=save_token)  # fmt: skip
    server.register_grant(
        _grant(company), [_openid(company)(require_nonce=True), CodeChallenge(required=True)]
    )
    app.before_request(lambda: company.asked.append(request.path))

    @app.get("/.well-known/openid-configuration")
    def discovery():
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks",
                 "userinfo_endpoint": "userinfo", "end_session_endpoint": "leave"}  # fmt: skip
        return {
            "issuer": company.issuer,
            **{name: f"{company.issuer}/{path}" for name, path in paths.items()},
        }

    @app.get("/jwks")
    def jwks():
        return KeySet([company.key]).as_dict()

    @app.get("/authorize")
    def ask():
        choices = "".join(f'<button name="user" value="{user}">{user}</button>' for user in PEOPLE)
        return (
            f"<!doctype html><title>Company</title><h1>Company login</h1><form method=post>{choices}</form>"
        )

    @app.post("/authorize")
    def authorize():
        grant = server.get_consent_grant(end_user=request.form["user"])
        return server.create_authorization_response(grant_user=request.form["user"], grant=grant)

    @app.post("/token")
    def token():
        return server.create_token_response()

    @app.get("/userinfo")
    def userinfo():
        user = company.tokens[request.headers["authorization"].removeprefix("Bearer ")]
        return Response(json.dumps({"sub": user, **PEOPLE[user]}), mimetype="application/json")

    @app.get("/leave")
    def leave():
        return "<!doctype html><title>Company</title><h1>Logged out of everything</h1>"

    return app


@contextmanager
def running() -> Iterator[Company]:
    """Served until left."""
    company = Company()
    server = make_server("127.0.0.1", 0, _app(company), threaded=True)
    company.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield company
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
