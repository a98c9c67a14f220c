"""What is known of an account and what is not: on, missing or denied, in dollars, with the mend. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from farthing.aws import Access, AwsError, session
from farthing.config import Config
from farthing.doctor import _account as account_
from farthing.doctor._account import Account
from farthing.doctor._check import DENIED, MISSING, NOT_ASKED, STATUSES, UNKNOWN, Check
from farthing.doctor._local import local
from farthing.doctor._money import Seen, seen
from farthing.ledger import Ledger

__all__ = ["STATUSES", "Check", "examine", "sick"]


def examine(
    config: Config,
    ledger: Ledger | str,
    *,
    profile: str = "",
    regions: Sequence[str] = (),
    offline: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Check]:
    """Every check, one after the other. AWS is asked unless `offline`, and never asked to change anything.

    In place of a ledger stands why there is none.
    """
    now = clock()
    found = Seen() if isinstance(ledger, str) else seen(ledger, config, now)
    yield from local(config, ledger, found, now)
    if offline:
        yield Check("credentials", NOT_ASKED, "offline: AWS was not asked")
        return
    lost: set[str] = set()  # profiles without credentials: said once, not once an account
    for account in _accounts(config, found, profile, tuple(regions), now, clock):
        if account.access.profile not in lost:
            yield from _examined(account, lost)


def sick(checks: Sequence[Check]) -> bool:
    return any(check.status in (MISSING, DENIED) for check in checks)


def _accounts(
    config: Config,
    found: Seen,
    profile: str,
    regions: tuple[str, ...],
    now: datetime,
    clock: Callable[[], datetime],
) -> Iterator[Account]:
    """Those of the configuration, else the one that the credentials are of."""
    for id, said in config.accounts.items():
        access = Access(profile or said.profile, said.role_arn, said.external_id)
        yield Account(id, access, regions or _regions(said.regions, found, id, access), found, now, clock)
    if not config.accounts:
        access = Access(profile)
        yield Account("", access, regions or _regions((), found, "", access), found, now, clock)


def _regions(said: tuple[str, ...], found: Seen, account: str, access: Access) -> tuple[str, ...]:
    """Where Claude is called: as configured and as the ledger saw, else the region of the profile."""
    seen_ = sorted({region for id, region in found.calls if region and id and account in ("", id)})
    known = tuple(dict.fromkeys((*said, *seen_)))
    if known:
        return known
    try:
        own = session(access).region_name
    except AwsError:
        own = None
    return (own,) if own else ()


def _examined(account: Account, lost: set[str]) -> Iterator[Check]:
    reached = True
    for check in account_.identify(account):
        if check.name == "credentials" and check.status != "ok":
            lost.add(account.access.profile)
        reached = reached and (check.name == "clock" or check.status not in (MISSING, DENIED, UNKNOWN))
        yield replace(check, account=account.id)
    if not reached:
        return
    for check in account_.bill(account):
        yield replace(check, account=account.id)
    if not account.regions:
        yield Check(
            "regions",
            UNKNOWN,
            "no region is named",
            "--region REGION, or regions in farthing.toml",
            account=account.id,
        )
    for name in account.regions:
        for check in account_.region(account, name):
            yield replace(check, account=account.id)
