"""What was negotiated, from the bill alone: shares of list that hold, the day each began, and what they are of.

1. Lines are put apart that tell no rate: taken back, free of charge, without a list price, or at a rate that the book
   has for another date or zone of the same price.
2. The lines of each price fall into runs of days at one share of list. A run below list counts if it has two days, or
   if another price of the account is at its share.
3. The fewest days are found on which rates changed. Between two of them, the coarsest rule is taken that holds for all
   prices of the account, those at list too: all models alike, or by one thing more; else each model for itself, by
   as little as will do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

from farthing.book import FOREVER, Book, Card
from farthing.money import mtok_usd
from farthing.offers import Offer, Rule, plain
from farthing.statement import Statement
from farthing.teach._lines import FAR, Line, Price, lines, rate_elsewhere
from farthing.teach._runs import Run, cuts, runs_of

KINDS = {  # of lines, by what they tell of rates
    "discounted": "below list, by the offers found",
    "at_list": "at list",
    "other_rate": "at the list rate of another date or zone: a price event, not a discount",
    "above_list": "above list: see `farthing faults`",
    "unclear": "off list, but on no rate that holds for days",
    "free": "free of charge",
    "taken_back": "taken back",
    "no_list_price": "without a list price",
}
_KEYS = ("meter", "endpoint", "mode", "long_prompt")
_OF_ALL: list[tuple[str, ...]] = [(), *((key,) for key in _KEYS)]
_OF_A_MODEL = [("model", *keys) for size in range(len(_KEYS) + 1) for keys in combinations(_KEYS, size)]


class Evidence(NamedTuple):
    """What a rule was seen on."""

    lines: int
    days: int
    picos: int
    listed: int
    low: Fraction  # the bounds of the share
    high: Fraction
    seen: tuple[str, ...]  # endpoints and modes


class Found(NamedTuple):
    """An offer, as the bill shows it, and what shows each of its rules."""

    offer: Offer
    evidence: tuple[Evidence, ...]
    from_start: bool  # it held on the first day that the bill tells of, and may have begun before


@dataclass
class Learned:
    found: list[Found]
    lines: dict[str, list[Line]]  # by kind
    span: tuple[date, date] | None
    notes: list[str] = field(default_factory=list)

    @property
    def offers(self) -> list[Offer]:
        return [one.offer for one in self.found]


class _Stretch(NamedTuple):
    """Rules of one account between two days, with their evidence."""

    starts: date
    ends: date | None
    rules: dict[Rule, list[Run]]


def learn(statement: Statement) -> Learned:
    """The offers that the bill was made by, as far as it tells."""
    kinds: dict[str, list[Line]] = {kind: [] for kind in KINDS}
    by_account: dict[str, dict[Price, list[Line]]] = defaultdict(lambda: defaultdict(list))
    elsewhere: list[Line] = []
    days = set()
    for line in lines(statement):
        days.add(line.day)
        kind = _kind(statement.book, line)
        if kind == "rate":
            by_account[line.price.account][line.price].append(line)
        elif kind == "other_rate":
            elsewhere.append(line)
        else:
            kinds[kind].append(line)
    _give_back(elsewhere, by_account, kinds)
    span = (min(days), max(days)) if days else None
    stretches: dict[str, list[_Stretch]] = {}
    for account, prices in by_account.items():
        assert span is not None
        stretches[account] = _of_account(prices, kinds, span)
    found = list(_offers(stretches, span)) if span else []
    return Learned(found, kinds, span, list(_events(statement.book, kinds["other_rate"])))


def _kind(book: Book, line: Line) -> str:
    if line.tokens <= 0 or line.picos < 0:
        return "taken_back"
    if line.rate is None:
        return "no_list_price"
    if line.picos == 0:
        return "free"
    if line.is_at(line.rate) or not line.listed:
        return "rate"
    if rate_elsewhere(book, line):
        return "other_rate"
    if line.picos > line.listed:
        return "above_list"
    return "unclear" if line.picos * FAR < line.listed else "rate"


def _give_back(
    elsewhere: Sequence[Line], by_account: dict[str, dict[Price, list[Line]]], kinds: dict[str, list[Line]]
) -> None:
    """A rate of another date may be a discount by chance: it is one if the account's other prices are at that share."""
    if not elsewhere:
        return
    shares: dict[tuple[str, date], list[tuple[Fraction, Fraction]]] = defaultdict(list)
    for account, prices in by_account.items():
        for line in (line for found in prices.values() for line in found if line.picos < line.listed):
            shares[account, line.day].append(line.share)
    for line in elsewhere:
        low, high = line.share
        alike = [
            share for share in shares[line.price.account, line.day] if share[0] <= high and low <= share[1]
        ]
        if alike and high < 1:
            by_account[line.price.account][line.price].append(line)
        else:
            kinds["other_rate"].append(line)


def _events(book: Book, elsewhere: Iterable[Line]) -> Iterator[str]:
    """Which list rate, not of their day or zone, lines were billed at: it is taken before a discount as large."""
    days: dict[tuple[Price, Card], set[date]] = defaultdict(set)
    for line in elsewhere:
        if card := rate_elsewhere(book, line):
            days[line.price, card].add(line.day)
    for (price, card), of in sorted(days.items(), key=lambda item: (item[0][0], item[0][1].starts)):
        rate = int(getattr(card.rates, price.meter))
        listed = price.rate(book, min(of)) or 0
        zone = f" in zone {card.sku.zone or 'standard'}" if card.sku.zone != price.zone else ""
        until = "" if card.ends == FOREVER else f" to {card.ends - timedelta(days=1):%Y-%m-%d}"
        off = (
            f"; a discount of {plain(_percent(rate, listed))} % would look the same" if rate < listed else ""
        )
        yield (
            f"{price.account} {price.model} {price.endpoint} {price.mode} {price.meter}: {len(of)} days from {min(of)} "
            f"on at ${mtok_usd(rate)} a million, the list rate{zone} of {card.starts:%Y-%m-%d}{until}{off}"
        )


def _percent(rate: int, listed: int) -> Fraction:
    return Fraction(round(10_000 * (1 - Fraction(rate, listed))), 100)


def _of_account(
    prices: dict[Price, list[Line]], kinds: dict[str, list[Line]], span: tuple[date, date]
) -> list[_Stretch]:
    runs = {}
    for price, of_price in prices.items():
        runs[price], odd = runs_of(of_price)
        kinds["unclear"] += odd
    below = [run for found in runs.values() for run in found if run.below_list]
    for price, found in runs.items():
        others = [run for run in below if run.price != price]
        kept = [run for run in found if not run.below_list or _counts(run, others)]
        kinds["unclear"] += [line for run in found if run not in kept for line in run.lines]
        runs[price] = kept
    for run in (run for found in runs.values() for run in found):
        kinds["discounted" if run.below_list else "at_list"] += run.lines
    begins = [span[0], *cuts(runs.values())]
    ends = [*begins[1:], None]
    stretches = []
    for start, end in zip(begins, ends, strict=True):
        within = [_cut(run, start, end) for found in runs.values() for run in found]
        stretches.append(_Stretch(start, end, _rules([run for run in within if run])))
    return list(_joined(stretches))


def _counts(run: Run, others: Sequence[Run]) -> bool:
    return run.days > 1 or any(run.agrees(other) for other in others)


def _cut(run: Run, start: date, end: date | None) -> Run | None:
    """The days of a run between two days."""
    kept = [line for line in run.lines if start <= line.day and (end is None or line.day < end)]
    found: Run | None = None
    for line in kept:
        found = found.joined(Run.of(line)) if found else Run.of(line)
    return found


def _joined(stretches: Sequence[_Stretch]) -> Iterator[_Stretch]:
    """Stretches with the same rules as one; those without any are none."""
    open_: _Stretch | None = None
    for stretch in stretches:
        if open_ and open_.rules.keys() == stretch.rules.keys():
            runs = {rule: found + stretch.rules[rule] for rule, found in open_.rules.items()}
            open_ = _Stretch(open_.starts, stretch.ends, runs)
            continue
        if open_ and open_.rules:
            yield open_
        open_ = stretch
    if open_ and open_.rules:
        yield open_


# --- the coarsest rule that holds ----------------------------------------------------------------------------------


def _rules(runs: Sequence[Run]) -> dict[Rule, list[Run]]:
    if not any(run.below_list for run in runs):
        return {}
    found = _by_schemes(_OF_ALL, runs)
    if found is not None:
        return found
    models: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        models[run.price.model].append(run)
    return {
        rule: shown for of in models.values() for rule, shown in (_by_schemes(_OF_A_MODEL, of) or {}).items()
    }


def _by_schemes(schemes: Iterable[tuple[str, ...]], runs: Sequence[Run]) -> dict[Rule, list[Run]] | None:
    """Rules by the first of these keys that tell the prices apart as far as their rates differ."""
    for keys in schemes:
        groups: dict[tuple[object, ...], list[Run]] = defaultdict(list)
        for run in runs:
            groups[tuple(getattr(run.price, key) for key in keys)].append(run)
        if all(_is_one(keys, group) for group in groups.values()):
            below = [group for group in groups.values() if not _all_joined(group).at_list]
            return {rule: shown for group in below for rule, shown in _rule(keys, group).items()}
    return None


def _is_one(keys: Sequence[str], group: Sequence[Run]) -> bool:
    """Whether the group is at one share, or at one rate, and shows enough of what it would leave out."""
    both = _all_joined(group)
    if both.at_list or len(keys) > len(_KEYS):  # by all there is: zones are let be
        return True
    several = {key: len({getattr(run.price, key) for run in group}) > 1 for key in ("model", "meter")}
    if any(key not in keys and not seen for key, seen in several.items()):
        return False
    return both.holds or ({"model", "meter"} <= set(keys) and both.rate_holds)


def _all_joined(group: Sequence[Run]) -> Run:
    both = group[0]
    for run in group[1:]:
        both = both.joined(run)
    return both


def _rule(keys: Sequence[str], group: Sequence[Run]) -> dict[Rule, list[Run]]:
    """The rule of a group; an absolute rate is written for each endpoint and mode that was seen, and no other."""
    both = _all_joined(group)
    picos = Fraction(sum(line.picos for run in group for line in run.lines))
    share = picos / sum(line.listed for run in group for line in run.lines)
    percent = (
        _simplest(100 * (1 - both.high), 100 * (1 - both.low), 100 * (1 - share)) if both.holds else None
    )
    rate = None
    if {"model", "meter"} <= set(keys) and both.rate_holds:
        mean = picos / sum(line.tokens for run in group for line in run.lines)
        rate = _simplest(both.rate_low / 10**6, both.rate_high / 10**6, mean / 10**6, most=6)
    if (
        percent is None and rate is None
    ):  # other zones of one price: each is told by its own share, the mean stands
        percent = (100 * (1 - share)).limit_denominator(10_000)
    if percent is not None and (rate is None or _digits(percent) <= _digits(rate)):
        named = {key: getattr(group[0].price, key) for key in keys}
        return {Rule(share=1 - percent / 100, **named): list(group)}
    assert rate is not None
    by_place: dict[Rule, list[Run]] = defaultdict(list)
    for run in group:
        price = run.price
        made = Rule(
            price.model, price.meter, endpoint=price.endpoint, mode=price.mode, long_prompt=price.long_prompt,
            rate=int(rate * 10**6),
        )  # fmt: skip
        by_place[made].append(run)
    return by_place


def _simplest(low: Fraction, high: Fraction, near: Fraction, most: int = 9) -> Fraction | None:
    """The number between the bounds with the fewest digits after the point, and of those the nearest."""
    for digits in range(most + 1):
        scale = 10**digits
        least, greatest = -(-low * scale // 1), high * scale // 1
        if least <= greatest:
            return Fraction(min(max(round(near * scale), least), greatest), scale)
    return None


def _digits(number: Fraction) -> int:
    return len(plain(number).partition(".")[2])


# --- offers --------------------------------------------------------------------------------------------------------


def _offers(stretches: dict[str, list[_Stretch]], span: tuple[date, date]) -> Iterator[Found]:
    """Accounts that have the same rules on the same days have one offer."""
    alike: dict[tuple[object, ...], list[tuple[str, _Stretch]]] = defaultdict(list)
    for account, found in sorted(stretches.items()):
        for stretch in found:
            alike[stretch.starts, stretch.ends, frozenset(stretch.rules)].append((account, stretch))
    groups = sorted(alike.values(), key=lambda group: (group[0][1].starts, group[0][0]))
    for group in groups:
        stretch = group[0][1]
        rules = sorted(stretch.rules, key=lambda rule: (rule.order, str(rule), repr(rule)))
        accounts = [account for account, _ in group]
        last = span[1] if stretch.ends is None else stretch.ends - timedelta(days=1)
        who = accounts[0] if len(accounts) == 1 else f"{len(accounts)} accounts, {accounts[0]} the first"
        offer = Offer(
            name=f"as billed from {stretch.starts} to {who or 'all'}",
            accounts=frozenset(filter(None, accounts)),
            signed=stretch.starts,
            starts=stretch.starts,
            ends=stretch.ends,
            rules=tuple(rules),
            sources=(f"learned from the bill of {stretch.starts} to {last}",),
        )
        evidence = tuple(_evidence([run for _, one in group for run in one.rules[rule]]) for rule in rules)
        yield Found(offer, evidence, stretch.starts == span[0])


def _evidence(runs: Sequence[Run]) -> Evidence:
    found = [line for run in runs for line in run.lines]
    both = _all_joined(runs)
    low, high = min(both.low, both.high), max(both.low, both.high)
    return Evidence(
        sum(line.lines for line in found),
        len({line.day for line in found}),
        sum(line.picos for line in found),
        sum(line.listed for line in found),
        low,
        high,
        tuple(sorted({f"{run.price.endpoint} {run.price.mode}" for run in runs})),
    )


def summed(found: Iterable[Line]) -> tuple[int, int, int]:
    """Billed, listed, lines."""
    picos = listed = count = 0
    for line in found:
        picos += line.picos
        listed += line.listed
        count += line.lines
    return picos, listed, count
