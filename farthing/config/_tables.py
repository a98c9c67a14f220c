"""The tables of farthing.toml: one class each, one field a key."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from farthing.money import from_usd

UNASSIGNED = "unassigned"  # the team of calls that no team claims


class Source(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Usage to be imported. `path` is a folder, file, pattern or s3:// prefix."""

    path: str
    format: str = ""  # guessed where left out
    profile: str = ""  # of the AWS configuration
    role_arn: str = ""
    external_id: str = ""
    region: str = ""  # of the bucket
    endpoint_url: str = ""


class Account(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str = ""
    regions: tuple[str, ...] = ()  # in which Claude is called
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""


MEMBERS = ("tags", "profiles", "principals", "projects", "accounts")  # in the order in which they decide


class Members(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What calls a team or a workload claims: by their tags, else by profile, principal, project, account.

    Members take `*` and `?`. Where several claim a call, a name comes before a pattern, and then who stands first in
    the file.
    """

    tags: tuple[str, ...] = ()  # KEY=VALUE
    profiles: tuple[str, ...] = ()  # application inference profiles, by ARN or by id
    principals: tuple[str, ...] = ()  # a role stands for all its sessions
    projects: tuple[str, ...] = ()  # folders, of Claude Code
    accounts: tuple[str, ...] = ()


class Team(Members, forbid_unknown_fields=True, frozen=True):
    """Who pays."""

    owner: str = ""
    email: str = ""
    cost_centre: str = ""


class Workload(Members, forbid_unknown_fields=True, frozen=True):
    """Calls of one purpose, and what their owner allows to be done to them. What is not said is not allowed to change.

    `allow` holds routings, as of residency; empty: where the calls run today. `models` may be used instead of the one
    in use: each wants `gate`, the verdict file of `farthing evaluate`, to be advised as final.
    """

    owner: str = ""
    allow: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    gate: str = ""
    deadline: str = ""  # by when an answer is wanted: 24h. Empty: at once, so no batch
    cache: bool = True  # markers may be placed, and their lifetime changed


class Residency(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where calls may run: `allow` holds routings (global, geo:eu, in_region:eu-*). Empty selectors mean all."""

    allow: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    since: str = ""  # a day


class Privacy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pseudonyms: bool = True  # for principals, in reports that are shared
    minimum_group: int = 0  # fewer principals than that are not told apart


class Smtp(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The server that mail is handed to. The password is in a variable of the environment, never here."""

    host: str = ""
    port: int = 0  # the usual one of `security`
    security: str = "starttls"  # or ssl, none
    sender: str = ""
    user: str = ""
    password_env: str = "FARTHING_SMTP_PASSWORD"  # noqa: S105 - the name of a variable


EventKind = Literal["anomaly", "budget", "price", "sync"]  # what may be told


class Channel(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where `farthing watch` tells what it found. Empty `events` and `teams` mean all."""

    name: str
    kind: str  # slack, webhook, sns, mail
    url: str = ""  # of a webhook; whoever knows it can write there, so better:
    url_env: str = ""  # the variable that holds it
    topic_arn: str = ""
    to: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    profile: str = ""  # how SNS is reached, as with sources
    role_arn: str = ""
    external_id: str = ""
    region: str = ""
    endpoint_url: str = ""


class Budget(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """So much a period for what `where` selects, which is written as for --where.

    With `hold` the gateway and the hooks hold every call against it before they send it: hard refuses what does not
    fit, soft only tells. `calls` and `tokens` are limits in place of dollars, `each` makes one budget of every value.
    """

    name: str
    usd: Decimal | int = 0
    period: str = "month"  # or week, day; with hold also hour, minute
    where: tuple[str, ...] = ()
    alert_at: tuple[int, ...] = (80, 100)  # percent
    forecast: bool = True  # tell, too, when it is going to be exceeded
    hold: str = ""  # hard, soft; empty: reports and watch look at it, and no call is held
    each: str = ""  # key, team, project, run, model, account, tag:NAME
    calls: int = 0
    tokens: int = 0
    timezone: str = ""  # of its periods; the file's where left out
    unpriced: str = "refuse"  # or pass: calls whose ceiling nobody knows

    @property
    def limit(self) -> int:
        """In its unit: picodollars, calls or tokens."""
        return from_usd(str(self.usd)) if self.usd else self.calls or self.tokens

    @property
    def reported(self) -> bool:
        """Whether reports can say what is spent of it: they know dollars by the day, and no keys or runs."""
        known = not any(text.startswith(("key=", "key!=", "run=", "run!=")) for text in self.where)
        return bool(self.usd) and known and not self.each and self.period in ("day", "week", "month")


class Journal(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a closed month is written for the general ledger. `codes` are by kind or platform/kind, the latter first."""

    debit: str = ""  # GL code of what `codes` does not name
    credit: str = ""  # what is owed to AWS
    accrued: str = ""  # what is owed and not billed yet; `credit` where left out
    cost_centre: str = ""  # of teams that name none, and of no team
    cost_centres: tuple[str, ...] = ()  # all that there are, where given
    codes: dict[str, str] = {}


class Pool(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A cost that teams share: the calls that all of `where` fit, or money beside calls, by its kind on the bill."""

    name: str
    where: tuple[str, ...] = ()  # written as for --where
    kinds: tuple[str, ...] = ()  # tax, credit, guardrail, not_seen ...; `*` and `?` match
    split: str = "proportion"  # or even, fixed, reads
    shares: dict[str, int] = {}  # of fixed: team -> parts
    among: tuple[str, ...] = ()  # all teams


class Rights(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What people of a group may do in the dashboard; with teams they see those alone."""

    role: str = "viewer"  # or admin
    teams: tuple[str, ...] = ()


class Oidc(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Login to the dashboard by a company's own accounts. "*" of `groups` is whoever may log in there."""

    issuer: str = ""  # as the provider writes itself: https://login.example.com
    client_id: str = ""
    client_secret_env: str = "FARTHING_OIDC_SECRET"  # noqa: S105 - the name of a variable
    redirect_uri: str = ""  # .../login/oidc/done, as registered there; else as the browser asked
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "email"
    groups_claim: str = "groups"  # realm_access.roles: inside of another
    hosts: tuple[str, ...] = ()  # beside the issuer's, where it has its endpoints
    session_hours: int = 12
    groups: dict[str, Rights] = {}


class Web(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    oidc: Oidc = Oidc()


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    ledger: str = ""
    timezone: str = "UTC"
    currency: str = "USD"
    fx: str = ""  # the file of its rates
    profiles: dict[str, str] = {}  # application inference profile -> what it was made from
    sources: tuple[Source, ...] = ()
    accounts: dict[str, Account] = {}
    teams: dict[str, Team] = {}
    workloads: dict[str, Workload] = {}
    contracts: tuple[str, ...] = ()  # files of private offers
    residency: tuple[Residency, ...] = ()
    pools: tuple[Pool, ...] = ()
    privacy: Privacy = Privacy()
    journal: Journal = Journal()
    smtp: Smtp = Smtp()
    notify: tuple[Channel, ...] = ()
    budgets: tuple[Budget, ...] = ()
    budget_store: str = ""  # a file, or postgresql://...
    web: Web = Web()
    path: str = ""  # of the file it is from
