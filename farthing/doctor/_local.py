"""The checks that ask nobody: configuration, ledger, prices, time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from farthing.book import default_book
from farthing.config import Config
from farthing.doctor._check import MISSING, NOT_ASKED, UNKNOWN, Check, fine
from farthing.doctor._money import DAYS, Seen
from farthing.ledger import Ledger

STALE_DAYS = 60  # of the price book
LATE_HOURS = 48  # of the last import


def local(config: Config, ledger: Ledger | str, found: Seen, now: datetime) -> Iterator[Check]:
    """In place of a ledger stands why there is none."""
    if config.path:
        yield fine("config", f"{config.path}: {len(config.accounts)} accounts, {len(config.sources)} sources")
    else:
        yield Check("config", NOT_ASKED, "no farthing.toml", "farthing init writes one")
    yield _time_zone(config)
    if isinstance(ledger, str):
        yield Check("ledger", MISSING, ledger, "farthing import PATH, or farthing sync")
    else:
        yield fine("ledger", _size(ledger))
        yield _last_import(ledger, now)
        yield _unpriced(found)
    yield _book(now)


def _time_zone(config: Config) -> Check:
    zone = config.timezone
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return Check(
            "time_zone",
            MISSING,
            f"unknown: {config.timezone}",
            "timezone in farthing.toml: such as Europe/Berlin",
        )
    return fine(
        "time_zone",
        "days begin in UTC, as on the bill" if zone == "UTC" else f"days begin in {zone}, on the bill in UTC",
    )


def _size(ledger: Ledger) -> str:
    days = ledger.days()
    if days is None:
        return f"{ledger.folder}: opens, and is empty"
    return f"{ledger.folder}: opens; usage from {days[0]:%Y-%m-%d} to {days[1] - timedelta(days=1):%Y-%m-%d}"


def _last_import(ledger: Ledger, now: datetime) -> Check:
    ((at,),) = ledger.table("files").aggregate('epoch_us(max("at"))').fetchall()
    if at is None:
        return Check(
            "last_import", MISSING, "nothing was imported yet", "farthing import PATH, or farthing sync"
        )
    age = now - datetime.fromtimestamp(at / 1_000_000, UTC)
    says = f"{age.total_seconds() / 3600:.0f} hours ago"
    return (
        fine("last_import", says)
        if age <= timedelta(hours=LATE_HOURS)
        else Check("last_import", MISSING, says, "farthing sync")
    )


def _unpriced(found: Seen) -> Check:
    calls, unpriced = sum(found.calls.values()), sum(found.unpriced.values())
    says = f"{unpriced:,} of {calls:,} calls of {DAYS} days have no price"
    if not unpriced:
        return fine("unpriced", says)
    reason = max(found.reasons, key=lambda reason: (found.reasons[reason], reason))
    return Check(
        "unpriced",
        MISSING,
        f"{says}: {reason}",
        "farthing bill names each reason; map profiles, or update farthing",
    )


def _book(now: datetime) -> Check:
    book = default_book()
    said: date = book.defaults["as_of"]
    age = (now.date() - said).days
    says = f"prices as of {said}, {age} days ago; book {book.digest}"
    if age <= STALE_DAYS:
        return fine("price_book", says)
    return Check("price_book", UNKNOWN, says, "update farthing: newer prices may be known")
