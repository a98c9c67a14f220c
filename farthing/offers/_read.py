"""Offers out of TOML. Every fault is one line that names the file, the line and the mend."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from farthing.book import UNREADABLE_TOML, Book, Card, default_book, toml_fault
from farthing.meters import METERS
from farthing.money import from_usd, mtok_usd, per_mtok
from farthing.offers._book import best, meters_of, overlap
from farthing.offers._offer import (
    ENDPOINTS,
    MONTHS,
    WILD,
    Committed,
    Offer,
    OfferError,
    Rule,
    Volume,
    months_later,
)  # fmt: skip
from farthing.usage import MODES, PLATFORMS


def load_offers(paths: Iterable[Path | str], book: Book | None = None) -> list[Offer]:
    """The offers of these files, in order of their first day. OfferError names the file, the line and the mend."""
    found = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            says = f"{error.strerror or error}: name a file of offers by --contract, or by contracts in farthing.toml"
            raise OfferError(f"{path}: {says}") from error
        except ValueError as error:
            raise OfferError(f"{path}: not UTF-8: save it as UTF-8") from error
        found += read_offers(text, str(path), book)
    _check_names(found)
    _check_overlaps(found, book or default_book())
    return sorted(found, key=lambda offer: (offer.starts, offer.name))


def read_offers(text: str, file: str, book: Book | None = None) -> list[Offer]:
    """The offers of a file's text, each checked against the book; overlaps are told by `load_offers`."""
    book = book or default_book()
    try:
        said = tomllib.loads(text, parse_float=Decimal)
    except UNREADABLE_TOML as error:
        raise OfferError(f"{file}:{toml_fault(error, text)}: docs/contracts.md shows the form") from error
    lines = list(_tables(text))
    reader = _Reader(file, text, book)
    reader.check_keys(said, ("offers",), 0)
    tables = said.get("offers")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise reader.fail(
            0, "offers", "write each offer as a table [[offers]], in two brackets; there is none"
        )
    offers = []
    for number, table in enumerate(tables):
        begins = [line for of, head, line in lines if of == number and head in _RATED]
        heads = {head: line for of, head, line in lines if of == number}
        offers.append(reader.offer(table, begins or [0], heads))
    return offers


_RATED = ("[[offers]]", "[[offers.rates]]")


def _tables(text: str) -> Iterator[tuple[int, str, int]]:
    """The number of the offer, the head and the line, of each table of an offer."""
    number = -1
    for line, said in enumerate(text.splitlines(), 1):
        head = said.partition("#")[0].replace(" ", "").strip()
        number += head == _RATED[0]
        if head.strip("[]").split(".")[0] == "offers" and head.startswith("["):
            yield number, head, line


_OFFER = ("name", "accounts", "signed", "starts", "ends", "sources", "rates", "commitment", "volume")
_RULE = (
    "model", "meter", "platform", "endpoint", "mode", "long_prompt", "percent_off", "usd_per_million",
)  # fmt: skip
_KNOWN = {"meter": METERS, "platform": PLATFORMS, "endpoint": ENDPOINTS, "mode": MODES}


class _Reader:
    """Tables of one file to offers; every fault is one line that names where it is."""

    def __init__(self, file: str, text: str, book: Book) -> None:
        self._file = file
        self._text = text.splitlines()
        self._book = book
        self._ids = {name: model.id for model in book.models.values() for name in (model.id, *model.ids)}

    def fail(self, line: int, key: str, says: str) -> OfferError:
        """With the line of the key, looked for below the head of its table."""
        line = self._find(key, line) or line or 1
        return OfferError(f"{self._file}:{line}: {f'{key}: ' if key else ''}{says}")

    def _find(self, key: str, line: int) -> int:
        """Where the key is written below that line, within one table; a table of the file where there is no line."""
        for number, text in enumerate(self._text[line:], line + 1):
            if re.match(
                rf"\s*{re.escape(key)}\s*=" if line else rf"\s*(\[+\s*)?{re.escape(key)}\s*[\]=.]", text
            ):
                return number
            if line and text.lstrip().startswith("["):
                break
        return 0

    def check_keys(self, table: Mapping[str, Any], known: Sequence[str], line: int) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                mend = f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(known)}"
                raise self.fail(line, key, f"unknown key; {mend}")

    def offer(self, table: Mapping[str, Any], lines: list[int], heads: Mapping[str, int]) -> Offer:
        line = lines[0]
        self.check_keys(table, _OFFER, line)
        name = table.get("name")
        if not isinstance(name, str) or not name.strip():
            raise self.fail(line, "name", "an offer needs a name, in quotes")
        signed, starts, ends = (self._day(table, key, line) for key in ("signed", "starts", "ends"))
        if signed is None or starts is None:
            missing = "signed" if signed is None else "starts"
            raise self.fail(line, missing, "is missing: write a day, as 2026-09-01")
        if starts < signed:
            raise self.fail(
                line, "starts", f"{starts} is before it was signed ({signed}): no offer is retroactive"
            )
        if ends is not None and ends <= starts:
            raise self.fail(
                line, "ends", f"{ends} is not after starts ({starts}); it is the first day without it"
            )
        accounts = self._texts(table, "accounts", line)
        for account in accounts:
            if not re.fullmatch(r"\d{12}", account):
                raise self.fail(line, "accounts", f"{account!r} is no account: an account id has 12 digits")
        rates = table.get("rates", [] if "commitment" in table or "volume" in table else None)
        if not isinstance(rates, list) or not (rates or "rates" not in table):
            raise self.fail(
                line, "rates", "an offer needs [[offers.rates]], each percent_off or usd_per_million"
            )
        inline = [self._find("rates", line) or line] * len(rates)
        places = [*lines[1:], *inline][: len(rates)]
        rules = tuple(self._rule(rate, place) for rate, place in zip(rates, places, strict=True))
        offer = Offer(
            name, frozenset(accounts), signed, starts, ends, rules, self._texts(table, "sources", line),
            self._file, (line, *places),
        )  # fmt: skip
        offer = self._with_terms(offer, table, heads)
        self._check(offer)
        return offer

    def _with_terms(self, offer: Offer, table: Mapping[str, Any], heads: Mapping[str, int]) -> Offer:
        if "commitment" in table:
            said, line = self._term(table, "commitment", ("usd", "every"), heads, offer)
            commitment = Committed(self._dollars(said, "usd", line), said.get("every", "term"))
            if commitment.picos == 0:
                raise self.fail(line, "usd", "a commitment is more than nothing")
            offer = replace(offer, commitment=commitment)
            self._check_whole(offer, commitment.every, line)
        if "volume" in table:
            said, line = self._term(table, "volume", ("every", "tiers"), heads, offer)
            tiers = said.get("tiers")
            if not isinstance(tiers, list) or not tiers or not all(isinstance(tier, dict) for tier in tiers):
                raise self.fail(line, "tiers", 'write [{ from_usd = "50000", percent_off = "3" }, ...]')
            made = tuple(self._tier(tier, line) for tier in tiers)
            for (bound, share), (above, more) in pairwise(made):
                if above <= bound or more <= share:
                    raise self.fail(line, "tiers", "each tier begins above the one before, and gives more")
            offer = replace(offer, volume=Volume(said.get("every", "term"), made))
        return offer

    def _term(
        self,
        table: Mapping[str, Any],
        name: str,
        known: Sequence[str],
        heads: Mapping[str, int],
        offer: Offer,
    ) -> tuple[Mapping[str, Any], int]:
        """A table beside the rates, and its line."""
        said, line = table[name], heads.get(f"[offers.{name}]", offer.lines[0])
        if not isinstance(said, dict):
            raise self.fail(line, name, f"write it as a table: [offers.{name}]")
        self.check_keys(said, known, line)
        every = said.get("every", "term")
        if every not in (*MONTHS, "term"):
            raise self.fail(line, "every", f"{every!r} is none: known are {', '.join(MONTHS)}, term")
        if every == "term" and offer.ends is None:
            raise self.fail(
                line, "every", "is the term of an offer without an end: say ends, or month or year"
            )
        return said, line

    def _tier(self, tier: Mapping[str, Any], line: int) -> tuple[int, Fraction]:
        self.check_keys(tier, ("from_usd", "percent_off"), line)
        percent = self._number(tier, "percent_off", line) if "percent_off" in tier else Decimal(0)
        if not 0 < percent <= 100:
            raise self.fail(line, "tiers", f"percent_off {percent}: write more than 0, and 100 or less")
        return self._dollars(tier, "from_usd", line), Fraction(percent) / 100

    def _dollars(self, table: Mapping[str, Any], key: str, line: int) -> int:
        if key not in table:
            raise self.fail(line, key, 'is missing: write dollars, as "600000"')
        try:
            picos = from_usd(self._number(table, key, line))
        except ValueError as error:
            raise self.fail(line, key, str(error)) from error
        if picos < 0:
            raise self.fail(line, key, "is below 0")
        return picos

    def _check_whole(self, offer: Offer, every: str, line: int) -> None:
        """A commitment is for whole periods: half a period has no commitment that anybody signed."""
        if offer.ends is None or every not in MONTHS:
            return
        *_, (starts, ends) = offer.periods(every, offer.ends)
        if months_later(starts, MONTHS[every]) > ends:
            says = f"the offer's days are no whole number of {every}s: its last would end after {ends}"
            raise self.fail(line, "every", says)

    def _day(self, table: Mapping[str, Any], key: str, line: int) -> date | None:
        day = table.get(key)
        if day is None or (isinstance(day, date) and not isinstance(day, datetime)):
            return day
        raise self.fail(line, key, f"{day} is no day: write 2026-09-01, without quotes and without a time")

    def _texts(self, table: Mapping[str, Any], key: str, line: int) -> tuple[str, ...]:
        said = table.get(key, [])
        if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
            raise self.fail(line, key, f'not a list of texts: write {key} = ["..."]')
        return tuple(said)

    def _rule(self, table: Any, line: int) -> Rule:
        if not isinstance(table, dict):
            raise self.fail(line, "rates", "write each rate as a table: [[offers.rates]]")
        self.check_keys(table, _RULE, line)
        for key, known in _KNOWN.items():
            if key in table and table[key] not in known:
                raise self.fail(line, key, f"{table[key]!r} is none: known are {', '.join(known)}")
        if not isinstance(table.get("long_prompt", False), bool):
            raise self.fail(line, "long_prompt", "write true or false")
        both = [key for key in ("percent_off", "usd_per_million") if key in table]
        if len(both) != 1:
            raise self.fail(line, "", "a rate is either percent_off or usd_per_million, and one of them")
        number = self._number(table, both[0], line)
        share = rate = None
        if both[0] == "percent_off":
            if not 0 < number <= 100:
                raise self.fail(
                    line, "percent_off", f"{number} is no discount: write more than 0, and 100 or less"
                )
            share = 1 - Fraction(number) / 100
        else:
            try:
                rate = per_mtok(number)
            except ValueError as error:
                raise self.fail(line, "usd_per_million", f"{error}") from error
            if rate < 0:
                raise self.fail(line, "usd_per_million", f"{number} is below 0")
        named = {key: table[key] for key in (*_KNOWN, "long_prompt") if key in table}
        return Rule(self._model(table, line), share=share, rate=rate, **named)

    def _number(self, table: Mapping[str, Any], key: str, line: int) -> Decimal:
        said = table[key]
        try:
            number = (
                Decimal(said)
                if isinstance(said, str | int | Decimal) and not isinstance(said, bool)
                else None
            )
        except InvalidOperation:
            number = None
        if number is None or not number.is_finite():
            raise self.fail(line, key, f'{said!r} is no number: write it as "12.5"')
        return number

    def _model(self, table: Mapping[str, Any], line: int) -> str:
        model = table.get("model", "")
        if not isinstance(model, str):
            raise self.fail(line, "model", "write an id of the price book in quotes")
        if model in self._ids or not model:
            return self._ids.get(model, "")
        if WILD.search(model) and any(fnmatchcase(name, model) for name in self._book.models):
            return model
        near = difflib.get_close_matches(model, self._ids, n=3)
        mend = f"the nearest known are {', '.join(near)}" if near else "see `farthing rate --help` for ids"
        raise self.fail(line, "model", f"unknown model {model!r}; {mend}")

    def _check(self, offer: Offer) -> None:
        """Each rule holds for something, says no more than one price, and is below list; no two are one."""
        cards = [card for card in self._book.cards() if overlap(offer.span, (card.starts, card.ends))]
        for rule, line in zip(offer.rules, offer.lines[1:], strict=True):
            held = [(card, meter) for card in cards for meter in meters_of(card) if rule.fits(card, meter)]
            if not held:
                raise self.fail(line, "", "holds for nothing that has a list price in its dates")
            if rule.rate is not None:
                self._check_absolute(rule, held, line)
        for (one, _), (other, line) in combinations(zip(offer.rules, offer.lines[1:], strict=True), 2):
            if one.order != other.order:
                continue
            if any(
                one.fits(card, meter) and other.fits(card, meter)
                for card in cards
                for meter in meters_of(card)
            ):
                raise self.fail(line, "", "another rate of the offer holds for the same: take one away")

    def _check_absolute(self, rule: Rule, held: Sequence[tuple[Card, str]], line: int) -> None:
        if rule.long_prompt is None:
            for card, _ in held:
                if card.prompt_from:
                    says = f"{card.sku.model} costs more beyond {card.prompt_from - 1:,} prompt tokens"
                    raise self.fail(line, "", f"{says}: say which is meant by long_prompt = false or true")
        first: dict[tuple[Any, ...], Card] = {}
        for card, meter in held:  # a later price cut may go below it
            key = (card.sku, card.prompt_from, meter)
            first[key] = min(first.get(key, card), card, key=lambda card: card.starts)
        for (sku, _, meter), card in first.items():
            listed = int(getattr(card.rates, meter))
            if (rule.rate or 0) > listed:
                says = (
                    f"{mtok_usd(rule.rate or 0)} is above the list rate of {sku} {meter}, {mtok_usd(listed)}"
                )
                raise self.fail(
                    line, "usd_per_million", f"{says}: name the endpoint, mode and meter it is of"
                )


def _check_names(offers: Sequence[Offer]) -> None:
    known: dict[str, Offer] = {}
    for offer in offers:
        other = known.setdefault(offer.name, offer)
        if other is not offer:
            raise OfferError(
                f"{offer.file}:{offer.lines[0]}: name: {other.file} has an offer {offer.name!r} too"
            )


def _check_overlaps(offers: Sequence[Offer], book: Book) -> None:
    """Two offers to one account may stand beside each other as long as they are of different prices."""
    for one, other in combinations(offers, 2):
        both = one.accounts & other.accounts or (not one.accounts and not other.accounts)
        if not both or not overlap(one.span, other.span):
            continue
        since, until = max(one.span[0], other.span[0]), min(one.span[1], other.span[1])
        for card in book.cards():
            if not overlap((since, until), (card.starts, card.ends)):
                continue
            if any(best(one, card, meter) and best(other, card, meter) for meter in meters_of(card)):
                where = f"{one.name!r} ({one.file}:{one.lines[0]})"
                raise OfferError(
                    f"{other.file}:{other.lines[0]}: overlaps {where}: both have a rate of {card.sku} from "
                    f"{since:%Y-%m-%d}; end one where the other starts, or write both as one offer"
                )
