"""What was learned of rates, as a contract book for review; and the bill re-rated by it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from farthing.book import Book
from farthing.money import mtok_usd, show
from farthing.offers import Offer, Rule, books, plain, read_offers
from farthing.teach._discounts import KINDS, Evidence, Found, Learned


class Rerated(NamedTuple):
    """Billed less contracted, by the kind of line: with the offers found, and the rest as it is."""

    listed_picos: int
    contracted_picos: int
    billed_picos: int
    beyond: dict[str, int]  # kind of line -> billed less contracted; they sum to the whole difference
    off: int  # lines of the kinds discounted and at_list that are off by more than rounding


def as_toml(learned: Learned, book: Book) -> str:
    """The offers as a contract book that `read_offers` reads, each rule with what shows it."""
    if not learned.found:
        return ""
    span = learned.span
    assert span is not None
    head = [
        f"# Offers as the bill of {span[0]} to {span[1]} shows them, beside price book {book.digest}. For review:",
        "# a bill tells what was charged, not what was agreed on, nor when. Compare each with its paper, then",
        '# name the file in farthing.toml: contracts = ["FILE"]',
    ]  # fmt: skip
    return "\n".join([*head, *(line for found in learned.found for line in _offer(found, book))]) + "\n"


def _offer(found: Found, book: Book) -> Iterator[str]:
    offer = found.offer
    yield from ("", "[[offers]]", f"name = {_text(offer.name)}")
    if offer.accounts:
        yield f"accounts = [{', '.join(map(_text, sorted(offer.accounts)))}]"
    began = (
        "the bill's first day: it may have begun before"
        if found.from_start
        else "the first day at these rates"
    )
    yield f"signed = {offer.signed}             # a bill does not tell: write the day it was signed"
    yield f"starts = {offer.starts}             # {began}"
    if offer.ends:
        yield f"ends = {offer.ends}               # the first day at other rates"
    yield f"sources = [{', '.join(map(_text, offer.sources))}]"
    for rule, evidence in zip(offer.rules, found.evidence, strict=True):
        yield ""
        yield from _evidence(rule, evidence)
        yield from ("[[offers.rates]]", *_rule(rule, book))


def _evidence(rule: Rule, evidence: Evidence) -> Iterator[str]:
    days = f"{evidence.days} day{'s' * (evidence.days > 1)}"
    low, high = (_percent(share) for share in (evidence.high, evidence.low))
    spread = f"{low} %" if low == high else f"{low} to {high} %"
    yield f"# {evidence.lines:,} lines on {days}: {show(evidence.picos)} billed of {show(evidence.listed)} at list"
    if rule.share is not None:
        yield f"# every line leaves room for {spread} off; seen on {', '.join(evidence.seen)}"
    else:
        yield f"# {show(evidence.listed - evidence.picos)} below list, at one rate while the share is not one"


def _rule(rule: Rule, book: Book) -> Iterator[str]:
    bands = rule.model in book.models and any(
        card.prompt_from for card in book.cards() if card.sku.model == rule.model
    )
    for key in ("model", "meter", "endpoint", "mode"):
        if getattr(rule, key):
            yield f"{key} = {_text(getattr(rule, key))}"
    if rule.long_prompt is not None and bands:
        yield f"long_prompt = {str(rule.long_prompt).lower()}"
    if rule.share is not None:
        yield f"percent_off = {_text(plain(100 * (1 - rule.share)))}"
    else:
        yield f"usd_per_million = {_text(mtok_usd(rule.rate or 0))}"


def _percent(share: Fraction) -> str:
    off = 100 * (1 - share)
    number = Decimal(off.numerator) / Decimal(off.denominator)
    return f"{number.quantize(Decimal('0.001')).normalize():f}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def rerate(learned: Learned, book: Book, toml: str) -> Rerated:
    """The bill by the contract book as it is written; what is left beyond it, by the kind of line."""
    offers: list[Offer] = read_offers(toml, "the contract book", book) if toml else []
    of = books(book, offers)
    beyond: dict[str, int] = defaultdict(int)
    listed = contracted = billed = off = 0
    for kind in KINDS:
        for line in learned.lines[kind]:
            rate = line.price.rate(of(line.price.account), line.day)
            at_rate = line.tokens * (rate or 0)
            listed += line.listed
            contracted += at_rate
            billed += line.picos
            beyond[kind] += line.picos - at_rate
            off += kind in ("discounted", "at_list") and rate is not None and not line.is_at(rate)
    assert sum(beyond.values()) == billed - contracted
    return Rerated(listed, contracted, billed, {kind: picos for kind, picos in beyond.items() if picos}, off)
