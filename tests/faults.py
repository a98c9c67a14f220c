"""A month of usage and its bill with faults planted in it, and the causes with their amounts that must be named.

Rates come from the public file, as in bills.py; nothing here asks the book what anything costs.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from farthing.book import default_book
from farthing.usage import EPOCH, Facts, Usage
from tests import bills

REGIONS = {"111122223333": "us-east-1", "444455556666": "eu-central-1", "777788889999": "ap-northeast-1"}
ACCOUNTS = tuple(REGIONS)
GRAMMARS = ("camel", "snake", "native")  # the first two are in millions of tokens, the third in thousands
MODELS = {  # id: name, on sale since
    "claude-haiku-4-5": ("Claude Haiku 4.5", date(2025, 10, 15)),
    "claude-opus-4-6": ("Claude Opus 4.6", date(2026, 2, 5)),
    "claude-sonnet-4-6": ("Claude Sonnet 4.6", date(2026, 2, 17)),
    "claude-opus-4-8": ("Claude Opus 4.8", date(2026, 5, 28)),
    "claude-sonnet-5": ("Claude Sonnet 5", date(2026, 6, 30)),
    "claude-opus-5": ("Claude Opus 5", date(2026, 7, 24)),
}
BATCHED = (
    "claude-haiku-4-5",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    "claude-opus-5",
)  # the price list has their batch
ZONED = "claude-3-5-sonnet-v2"  # 3 and 15 dollars; twice that where it is in extended access
EXTENDED = ("us-east-1",)
Choose = random.Random


@dataclass(frozen=True)
class Used:
    """Tokens of one meter, as they were used: how often they are in the bill, at how many times list, and if we saw."""

    day: date
    account: str
    region: str
    model: str
    endpoint: str
    mode: str
    meter: str
    tokens: int
    list_usd: Decimal
    mantle: bool = False
    seen: bool = True
    times: int = 1
    factor: Decimal = Decimal(1)  # of a rate that is wrong
    factor_name: str = ""
    discount: Decimal = Decimal(1)
    call: str = ""  # one by itself; else all meters of a place and day are one call
    told: bool = True  # by the record of its call, if that is seen: of a pass
    passes: int = 0  # before this one, in a record that tells them


@dataclass
class Month:
    first: date
    grammar: dict[str, str]
    used: list[Used]
    apart: list[bills.Line] = field(default_factory=list)
    not_decoded: list[bills.Line] = field(default_factory=list)

    def change(self, which: Callable[[Used], bool], **how: Any) -> None:
        self.used = [replace(one, **how) if which(one) else one for one in self.used]

    def lines(self) -> list[bills.Line]:
        made = [
            bills.Line(
                f"{one.day}", one.account, one.region, one.model, one.endpoint, one.mode, one.meter, one.mantle,
                one.tokens, one.list_usd * one.factor * one.discount,
            )
            for one in self.used for _ in range(one.times)
        ]  # fmt: skip
        return [*made, *self.apart, *self.not_decoded]

    def usages(self) -> list[Usage]:
        """Our calls: all meters of one place and day are one, but for those that stand by themselves."""
        calls: dict[Any, dict[int, list[Used]]] = defaultdict(lambda: defaultdict(list))
        for one in self.used:
            if one.seen and one.told:
                place = (one.day, one.account, one.region, one.model, one.endpoint, one.mode)
                calls[one.call or place][one.passes].append(one)
        return [_usage(i, [parts[j] for j in sorted(parts)]) for i, parts in enumerate(calls.values())]

    def write(self, path: Path) -> Path:
        return bills.write_csv(path, self.lines(), self._row)

    def _row(self, line: bills.Line, number: int) -> dict[str, str]:
        row = bills.legacy(replace(line, usage_type=line.usage_type or "?"), number)
        if line.usage_type or not line.tokens:
            return row
        usage_type, product, scale = _named(line, self.grammar[line.model])
        return row | {
            "lineItem/UsageType": usage_type, "product/ProductName": product,
            "lineItem/UsageAmount": f"{Decimal(line.tokens) / scale}",
            "pricing/unit": "Units" if scale == 1_000_000 else "1K tokens",
            "lineItem/LineItemDescription": product,
        }  # fmt: skip

    def causes(self) -> dict[str, Decimal]:
        """What reconcile must name, and the exact dollars."""
        found: dict[str, Decimal] = defaultdict(Decimal)
        days = {(one.account, one.day) for one in self.used if one.times}
        for one in self.used:
            times = one.times
            found[one.factor_name] += times * one.list_usd * (one.factor - 1)
            off = f"discount of {(100 * (1 - one.discount)).normalize():f} %"
            found[off] += times * one.list_usd * one.factor * (one.discount - 1)
            if times > 1:
                found["billed more than once (duplicate delivery)"] += (times - 1) * one.list_usd
            if times and one.mantle:
                found["mantle traffic, never logged"] += one.list_usd
            elif times and not (one.seen and one.told):
                found[self._blind(one)] += one.list_usd
            elif not times and one.seen:
                found[self._missing(one, days)] -= one.list_usd
        for line in self.apart:
            found[f"apart: {SNAKE[line.line_type]}"] += line.cost
        for line in self.not_decoded:
            found["unknown SKU, not decoded"] += line.cost
        return {name: usd for name, usd in found.items() if usd}

    def _blind(self, one: Used) -> str:
        if not one.told and one.seen:
            return "compaction or fallback attempts"
        batches = {(o.account, o.day) for o in self.used if o.seen and o.mode == "batch"}
        if one.mode == "batch" and one.account not in {account for account, _ in batches}:
            return "batch, which logs do not have"
        logs = {o.account for o in self.used if o.seen and o.mode != "batch"}
        return "no logs on the day" if one.account in logs else "logging off in the account"

    def _missing(self, one: Used, days: set[tuple[str, date]]) -> str:
        if one.account not in {account for account, _ in days}:
            return "account not in the bill"
        if one.day > max(day for _, day in days):
            return "not billed yet"
        return (
            "line missing from the bill, or late"
            if (one.account, one.day) in days
            else "day missing from the bill"
        )


SNAKE = {"Credit": "credit", "EdpDiscount": "edp_discount", "Tax": "tax"}
NATIVE = {"claude-3-5-sonnet-v2": "Claude3.5Sonnetv2"}
CAMEL_NAME = {"claude-3-5-sonnet-v2": "Claude 3.5 Sonnet v2", "claude-sonnet-4": "Claude Sonnet 4"}


def _named(line: bills.Line, grammar: str) -> tuple[str, str, int]:
    """Usage type, product and tokens a unit."""
    code, world, batch = bills.CODES[line.region], line.endpoint == "global", line.mode == "batch"
    name = MODELS[line.model][0] if line.model in MODELS else CAMEL_NAME[line.model]
    if line.mantle:
        text = f"{code}-anthropic.{line.model}-mantle-{bills.MANTLE[line.meter]}{'-global' * world}-standard"
        return text, "Amazon Bedrock Service", 1_000
    if grammar == "native":
        words = name.split()
        short = NATIVE.get(line.model) or f"Claude{words[2]}{words[1]}"
        text = f"{code}-{short}-{bills.NATIVE[line.meter]}{'-batch' * batch}{'-cross-region-global' * world}"
        return text, "Amazon Bedrock Service", 1_000
    kind = bills.CAMEL[line.meter] if grammar == "camel" else bills.SNAKE[line.meter]
    words = ["Global" * world, "Batch" * batch] if grammar == "camel" else ["global" * world, "batch" * batch]
    text = f"{code}-MP:{code}_{'_'.join(filter(None, [kind, *words]))}-Units"
    return text, f"{name} (Amazon Bedrock Edition)", 1_000_000


def _usage(number: int, parts: list[list[Used]]) -> Usage:
    """A record; where it has several parts, the answer that was logged with it tells them."""
    made = []
    for used in parts:
        one = used[0]
        named = next(name for name in default_book().models[one.model].ids if name.startswith("anthropic."))
        facts = Facts("bedrock_batch" if one.mode == "batch" else "bedrock_log", "bedrock",
                      ("global." if one.endpoint == "global" else "") + named,
                      served_model=one.model if len(parts) > 1 else "", region=one.region, account=one.account,
                      mode="batch" if one.mode == "batch" else "")  # fmt: skip
        tokens = {of.meter: of.tokens for of in used}
        plain, output, read, short, long = (tokens.get(meter, 0) for meter in bills.METERS)
        made.append((facts, (plain, output, read, short, long)))
    at = datetime.combine(parts[0][0].day, datetime.min.time(), UTC) + timedelta(seconds=number % 86_400)
    return Usage((at - EPOCH) // timedelta(microseconds=1), f"r{number}", "", tuple(made))


def month(choose: Choose, rates: bills.Rates, first: date, days: int = 8, size: int = 40_000) -> Month:
    """Usage of every account on every day: some models, both endpoints, batches, all meters."""
    models = [model for model, (_, since) in MODELS.items() if since <= first]
    models = choose.sample(models, min(len(models), 3))
    used = []
    for number in range(days):
        day = first + timedelta(days=number)
        for account, region in REGIONS.items():
            places = {
                (choose.choice(models), choose.choice(["global", "regional"]),
                 "on_demand" if i else choose.choice(["on_demand", "batch"]))
                for i in range(4)
            } | {(ZONED, "regional", "on_demand")}  # fmt: skip
            for model, endpoint, mode in sorted(places):
                if mode == "batch" and model not in BATCHED:
                    continue
                meters = bills.METERS[: 2 if mode == "batch" or model == ZONED else 5]
                used += [
                    _used(
                        rates, day, account, region, model, endpoint, mode, meter, choose.randrange(1, size)
                    )
                    for meter in meters
                ]
    grammar = {model: choose.choice(GRAMMARS) for model in (*models, ZONED)} | {ZONED: "native"}
    return Month(first, grammar, used)


def _used(rates, day, account, region, model, endpoint, mode, meter, tokens, **more) -> Used:
    dearer = 2 if model == ZONED and region in EXTENDED else 1
    cost = tokens * dearer * rates.of(model, endpoint, mode, meter)
    return Used(day, account, region, model, endpoint, mode, meter, tokens, cost, **more)


# --- faults: each plants itself in a month -------------------------------------------------------------------------


def _day(found: Month, choose: Choose, at: int) -> date:
    """Days of different faults do not meet: each has a part of the month."""
    return found.first + timedelta(days=1 + 2 * at + choose.randrange(2))


def hidden_passes(found: Month, choose: Choose, rates: bills.Rates) -> None:
    """Three calls whose records list a pass more each (compaction, or an attempt that fell back), four whose do not.

    What two of the four have in such passes is within what the three show.
    """
    models = sorted({one.model for one in found.used if one.model != ZONED})
    account, called, further = choose.choice(ACCOUNTS), choose.choice(models), choose.choice(models)
    endpoint, day = choose.choice(["global", "regional"]), found.first + timedelta(days=7)

    def used(model: str, meter: str, tokens: int, **how: Any) -> Used:
        return _used(
            rates, day, account, REGIONS[account], model, endpoint, "on_demand", meter, tokens, **how
        )

    meters = ("input", "output", "cache_write_5m")
    for number in range(3):
        shown = {meter: choose.randrange(1_500, 9_000) for meter in meters}
        telling, other = f"telling {number}", f"other {number}"
        found.used += [used(further, meter, tokens, call=telling) for meter, tokens in shown.items()]
        found.used += [
            used(called, meter, choose.randrange(1, 900), call=telling, passes=1) for meter in meters
        ]
        found.used += [used(called, meter, choose.randrange(1, 900), call=other) for meter in meters]
        if number:
            found.used += [
                used(further, meter, choose.randrange(1, tokens), call=other, told=False)
                for meter, tokens in shown.items()
            ]
    found.used += [used(called, "input", 40, call="one more")]


def wrong_rate(found: Month, choose: Choose, rates: bills.Rates) -> None:
    models = sorted({one.model for one in found.used} - {ZONED})
    model, meter = choose.choice(models), choose.choice(bills.METERS)
    factor = Decimal(choose.choice(["1.2", "0.5", "1.1", "2", "0.97"]))
    found.change(
        lambda one: (one.model, one.meter) == (model, meter),
        factor=factor,
        factor_name="rate other than the book's",
    )


def missing_day(found: Month, choose: Choose, rates: bills.Rates) -> None:
    day, accounts = _day(found, choose, 0), choose.choice([ACCOUNTS, ACCOUNTS[:1]])
    found.change(lambda one: one.day == day and one.account in accounts, times=0)


def late_lines(found: Month, choose: Choose, rates: bills.Rates) -> None:
    day, account = _day(found, choose, 1), choose.choice(ACCOUNTS)
    some = [one for one in found.used if (one.day, one.account) == (day, account)]
    model = choose.choice(sorted({one.model for one in some}))
    found.change(lambda one: (one.day, one.account, one.model) == (day, account, model), times=0)


def duplicate_delivery(found: Month, choose: Choose, rates: bills.Rates) -> None:
    day, whole = _day(found, choose, 2), choose.random() < 0.3
    found.used = [replace(one, times=one.times * 2) if whole or one.day == day else one for one in found.used]


def credit(found: Month, choose: Choose, rates: bills.Rates) -> None:
    cost, account = f"-{choose.randrange(1, 9_000)}.{choose.randrange(100):02}", choose.choice(ACCOUNTS)
    found.apart.append(bills.apart("Credit", cost, f"{found.first}", account))


def edp_lines(found: Month, choose: Choose, rates: bills.Rates) -> None:
    found.apart.append(bills.apart("EdpDiscount", f"-{choose.randrange(1, 900)}.25", f"{found.first}"))


def edp_rates(found: Month, choose: Choose, rates: bills.Rates) -> None:
    share, accounts = (
        Decimal(choose.choice(["0.91", "0.88", "0.75"])),
        choose.choice([ACCOUNTS, ACCOUNTS[1:2]]),
    )
    found.change(lambda one: one.account in accounts, discount=share)


def extended_access(found: Month, choose: Choose, rates: bills.Rates) -> None:
    found.change(
        lambda one: one.model == ZONED and one.region not in EXTENDED,
        factor=Decimal(2),
        factor_name="extended access",
    )


def unknown_sku(found: Month, choose: Choose, rates: bills.Rates) -> None:
    found.not_decoded.append(
        bills.Line(f"{found.first}", choose.choice(ACCOUNTS), "us-east-1", "claude-haiku-4-5", "global", "on_demand",
                   "input", False, 3, Decimal(choose.randrange(1, 10**9)) / 10**6,
                   usage_type="USE1-MP:USE1_SomethingNew-Units", product="Claude Haiku 4.5 (Amazon Bedrock Edition)")
    )  # fmt: skip


def logging_off(found: Month, choose: Choose, rates: bills.Rates) -> None:
    account = choose.choice(ACCOUNTS)
    found.change(lambda one: one.account == account, seen=False)


def mantle_traffic(found: Month, choose: Choose, rates: bills.Rates) -> None:
    places = sorted(
        {(one.model, one.endpoint) for one in found.used if one.model != ZONED and one.mode != "batch"}
    )
    for _ in range(choose.randrange(1, 6)):
        model, endpoint = choose.choice(places)
        account, day = choose.choice(ACCOUNTS), found.first + timedelta(days=choose.randrange(8))
        for meter in choose.sample(bills.METERS, 3):
            if not any((o.mantle, o.day, o.account, o.model, o.endpoint, o.meter)
                       == (True, day, account, model, endpoint, meter) for o in found.used):  # fmt: skip
                found.used.append(
                    _used(rates, day, account, REGIONS[account], model, endpoint, "on_demand", meter,
                          choose.randrange(1, 90_000), mantle=True, seen=False)
                )  # fmt: skip


FAULTS = (
    hidden_passes, wrong_rate, missing_day, late_lines, mantle_traffic, duplicate_delivery, credit, edp_lines,
    edp_rates, extended_access, unknown_sku, logging_off,
)  # fmt: skip
