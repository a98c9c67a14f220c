"""What tests of closing share: calls of two teams, bills of them, and what the books hold."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from farthing.cells import Question
from farthing.close import Asked, close
from farthing.config import Config, Journal, Team
from farthing.ledger import closings
from farthing.statement import Statement
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

SONNET = "claude-sonnet-4-6"
RATES = {
    "input": "3",
    "output": "15",
    "cache_read": "0.3",
    "cache_write_5m": "3.75",
}  # global, dollars a million
DOLLAR, CENT = 10**12, 10**10
A, B, UNKNOWN = "111122223333", "444455556666", "777788889999"
TEAMS = {
    "search": Team(cost_centre="4711", tags=("team=search",)),
    "chat": Team(cost_centre="4712", accounts=(B,)),
}
JOURNAL = Journal(
    debit="6100",
    credit="2100",
    accrued="2190",
    cost_centre="9000",
    codes={"tax": "1576", "anthropic/usage": "6110"},
)
CONFIG = Config(teams=TEAMS, journal=JOURNAL)
ASKED = Question(config=CONFIG)
NOVEMBER = datetime(2026, 11, 3, 9, tzinfo=UTC)


def call(
    name, day, tokens=(1_000, 2_000, 0, 0, 0), account=A, team="", source="bedrock_log", platform="bedrock"
):
    """A call of Sonnet 4.6 at the global endpoint."""
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    model = f"global.anthropic.{SONNET}" if platform == "bedrock" else SONNET
    facts = Facts(source, platform, model, region="us-east-1", account=account)
    tags = (("team", team),) if team else ()
    return Usage((at - EPOCH) // timedelta(microseconds=1), name, "", ((facts, tokens),), tags)


def listed(*usages) -> int:
    """What they cost by the published rates, in picodollars."""
    rates = [
        int(Decimal(RATES[meter]) * 10**6) for meter in ("input", "output", "cache_read", "cache_write_5m")
    ]
    return sum(
        count * rate
        for usage in usages
        for _, tokens in usage.parts
        for count, rate in zip(tokens[:4], rates, strict=True)
    )


def billed(*usages, share="1"):
    """The lines that AWS would bill for these calls."""
    sums: dict[tuple, int] = defaultdict(int)
    for usage in usages:
        ((facts, tokens),) = usage.parts
        day = f"{EPOCH + timedelta(microseconds=usage.at_us):%Y-%m-%d}"
        for meter, count in zip(bills.METERS, tokens, strict=True):
            sums[day, facts.account, meter] += count
    return [
        bills.Line(day, account, "us-east-1", SONNET, "global", "on_demand", meter, False, count,
                   count * Decimal(RATES[meter]) / 10**6 * Decimal(share))
        for (day, account, meter), count in sums.items() if count
    ]  # fmt: skip


def delivered(folder, *lines, month="2026-10", invoice="EUINV26-1"):
    """A delivery of a bill in a folder of its own, as it tells of a month."""
    number = len(list(folder.glob("bill-*")))
    path = bills.write_csv(folder / f"bill-{number}" / "cur.csv", list(lines))
    path.write_text(path.read_text().replace("INV-1", invoice))
    first = date.fromisoformat(f"{month}-01")
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return {month: Statement([path], since=first, until=last)}


def booked(ledger, month="") -> int:
    """What the entries of all closings sum to, of a month or of all."""
    return sum(line.picos for it in closings(ledger) for line in it.entries if month in ("", line.of))


def by(ledger, name, month="2026-10"):
    sums: dict[str, int] = defaultdict(int)
    for it in closings(ledger):
        for line in it.entries:
            if line.of == month:
                sums[getattr(line, name)] += line.picos
    return {key: picos for key, picos in sums.items() if picos}


def shut(ledger, month="2026-10", given=None, now=NOVEMBER, question=ASKED, **asked):
    return close(ledger, month, question, given or {}, Asked(**asked), now)


OCTOBER = [
    call("1", "2026-10-01", team="search"),
    call("2", "2026-10-02", (500, 100, 9_000, 300, 0)),
    call("3", "2026-10-30", account=B),
    call("4", "2026-10-31", (7, 7, 7, 7, 0), team="search"),
]
