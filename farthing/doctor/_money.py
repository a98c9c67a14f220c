"""The money that gaps are measured by: what the ledger saw of each account and region in the last 30 days."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farthing.book import Card, Unpriced
from farthing.cells import Cell, Question, at_list, cells
from farthing.config import Config
from farthing.ledger import Ledger

DAYS = 30
Place = tuple[str, str]  # account, region

# What S3 Standard and CloudWatch Logs take in us-east-1, as guides to AWS's price pages say (devnotes.tech on S3;
# c3x.dev and hykell.com on CloudWatch Logs; read on 2026-11-22). Other regions differ by up to a half, so what is made
# of these is called an estimate.
PICOS_PER_PUT = 5_000_000  # $0.005 a thousand
PICOS_PER_GB_MONTH = 23_000_000_000
PICOS_PER_GB_TO_CLOUDWATCH = 500_000_000_000
GB = 1 << 30


@dataclass
class Seen:
    """Of the ledger, by account and region. Amounts are picodollars."""

    spent: dict[Place, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[Place, int] = field(default_factory=lambda: defaultdict(int))
    unpriced: dict[Place, int] = field(default_factory=lambda: defaultdict(int))  # calls
    reasons: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ttl_spread: dict[Place, int] = field(default_factory=lambda: defaultdict(int))
    opaque: dict[Place, int] = field(default_factory=lambda: defaultdict(int))  # calls of unresolved profiles
    billed: dict[Place, int] = field(default_factory=dict)  # the largest control total in dollars
    logs: dict[Place, tuple[int, int]] = field(default_factory=dict)  # objects and bytes

    def of_account(self, account: str) -> int | None:
        """What the ledger has of an account; None if nothing of it has a price."""
        known = [place for place in self.calls if place[0] == account]
        if not known or all(self.unpriced[place] == self.calls[place] for place in known):
            return None
        return sum(self.spent[place] for place in known)

    def unseen(self, place: Place, worth: int | None) -> int | None:
        """What was spent there by another count, less what the ledger has; None where no other count is known."""
        other = [amount for amount in (worth, self.billed.get(place)) if amount is not None]
        return max(max(other) - self.spent[place], 0) if other else None


def seen(ledger: Ledger, config: Config, now: datetime) -> Seen:
    """What the ledger has of the last days; today included."""
    found = Seen()
    since = now - timedelta(days=DAYS)
    # at list, as what CloudWatch counted is
    question = at_list(Question(since.date(), now.date(), profiles=config.profiles, config=config))
    for cell in cells(ledger, question, ("account", "region")):
        _count(found, cell)
    start, end = (int(at.timestamp()) * 1_000_000 for at in (since, now))
    found.billed = _billed(ledger, start, end)
    found.logs = _logs(ledger, since)
    return found


def _count(found: Seen, cell: Cell) -> None:
    place: Place = (cell.keys[0] or "", cell.keys[1] or "")
    found.calls[place] += cell.calls
    if isinstance(cell.price, Unpriced):
        found.unpriced[place] += cell.calls
        found.reasons[cell.price.reason] += cell.calls
        if "inference-profile" in cell.price.reason:
            found.opaque[place] += cell.calls
        return
    found.spent[place] += cell.cost
    if "ttl" in cell.assumed:
        found.ttl_spread[place] += _spread(cell, cell.price)


def _spread(cell: Cell, card: Card) -> int:
    """How much dearer the cell would be if its cache writes lived an hour."""
    tokens = cell.tokens
    hour = tokens.move(tokens.cache_write_5m, "cache_write_5m", "cache_write_1h")
    return int(hour @ card.rates) - int(tokens @ card.rates)


def _billed(ledger: Ledger, start: int, end: int) -> dict[Place, int]:
    """The largest of the control totals in dollars: sources may tell the same money, so they are not added."""
    rows = (
        ledger.totals()
        .filter(f'name = \'usd\' AND epoch_us("start") >= {start} AND epoch_us("end") <= {end}')
        .aggregate("account, region, source, scope, sum(value)::HUGEINT AS value")
        .fetchall()
    )
    billed: dict[Place, int] = {}
    for account, region, _, _, value in rows:
        place = (account or "", region or "")
        billed[place] = max(billed.get(place, 0), int(value))
    return billed


def _logs(ledger: Ledger, since: datetime) -> dict[Place, tuple[int, int]]:
    """Objects and bytes of invocation logs since a day, as their paths tell account, region and day."""
    logs: dict[Place, tuple[int, int]] = {}
    for file in ledger.files():
        parts = file.path.split("/BedrockModelInvocationLogs/")
        if len(parts) != 2 or parts[1].count("/") < 4:
            continue
        region, year, month, day, *_ = parts[1].split("/")
        if f"{year}-{month}-{day}" < f"{since:%Y-%m-%d}":
            continue
        place = (parts[0].rsplit("/", 1)[-1], region)
        number, size = logs.get(place, (0, 0))
        logs[place] = (number + 1, size + file.size)
    return logs


def logging_costs(objects: int, size: int, *, cloudwatch: bool) -> int:
    """An estimate of 30 days: a PUT an object, a month of storage; what CloudWatch takes in, unpacked, is unknown."""
    stored = objects * PICOS_PER_PUT + size * PICOS_PER_GB_MONTH // GB
    return stored + (size * PICOS_PER_GB_TO_CLOUDWATCH // GB if cloudwatch else 0)
