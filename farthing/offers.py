"""Private offers: negotiated rates as TOML, and the book that has them. docs/contracts.md describes the file.

List and contract are two books. `contracted` gives a book whose cards are split at an offer's dates and have its rates
between them, so that rating twice gives the two costs. An offer holds for the accounts it names and from its first day
until its last, half-open, and never from before the day it was signed.

Of several rules that hold for a rate the most specific wins: one that names a model before one that names it by a
pattern, and that before one that names none; then, in the same way, by meter, endpoint, mode and prompt size; of two
that are equally specific an absolute rate wins over a percentage.

Beside rates an offer may have a commitment, whose shortfall is paid, and volume tiers, which give back a share of
what a period's spend has above them. They are of money and not of tokens, so on no card: `farthing.costs` counts them.
"""

from __future__ import annotations

import calendar
import difflib
import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from farthing.book import FOREVER, Book, Card, default_book, midnight
from farthing.meters import METERS, Vector
from farthing.money import from_usd, mtok_usd, per_mtok
from farthing.usage import MODES, PLATFORMS

ENDPOINTS = ("global", "regional", "govcloud", "geo_us")
_WILD = re.compile(r"[*?]")


class OfferError(ValueError):
    """An offer cannot be used: one line that names the file, the line and the mend."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is paid for the tokens it names; "" names all. Either `share` of the list rate, or `rate` itself."""

    model: str = ""  # an id of the book; * and ? stand for others
    meter: str = ""
    platform: str = "bedrock"
    endpoint: str = ""
    mode: str = ""
    long_prompt: bool | None = None  # beyond the first prompt band, where a model has bands
    share: Fraction | None = None
    rate: int | None = None  # picodollars per token

    def fits(self, card: Card, meter: str) -> bool:
        sku = card.sku
        return (
            (self.platform, self.endpoint or sku.endpoint, self.mode or sku.mode, self.meter or meter)
            == (sku.platform, sku.endpoint, sku.mode, meter)
            and (self.long_prompt is None or self.long_prompt == (card.prompt_from > 0))
            and fnmatchcase(sku.model, self.model or "*")
        )

    @property
    def order(self) -> tuple[int, ...]:
        """How specific it is: the greatest wins."""
        named = 0 if not self.model else 1 if _WILD.search(self.model) else 2
        others = (self.meter, self.endpoint, self.mode, self.long_prompt is not None, self.rate is not None)
        return (named, *map(int, map(bool, others)))

    def __str__(self) -> str:
        """How it is told on a card."""
        if self.share is None:
            return f"${mtok_usd(self.rate or 0)} per million"
        return f"{plain(100 * (1 - self.share))} % off"


MONTHS = {"month": 1, "quarter": 3, "year": 12}  # of the periods; a term is all of the offer


@dataclass(frozen=True, slots=True)
class Committed:
    """So much is spent in every period, or the rest is paid all the same."""

    picos: int
    every: str = "term"


@dataclass(frozen=True, slots=True)
class Volume:
    """Of what a period's spend has above each bound (picodollars) a share comes back; bounds and shares rise."""

    every: str
    tiers: tuple[tuple[int, Fraction], ...]

    def rebate(self, spent: int) -> int:
        """What comes back of a period's spend: exact, and rounded half-even once."""
        bounds = [bound for bound, _ in self.tiers[1:]]
        bands = zip(self.tiers, [*bounds, max(spent, 0)], strict=True)
        back = (share * max(0, min(spent, upto) - bound) for (bound, share), upto in bands)
        return round(sum(back, Fraction(0)))


@dataclass(frozen=True, slots=True)
class Offer:
    name: str
    accounts: frozenset[str]  # none named: all
    signed: date
    starts: date
    ends: date | None  # the first day on which it no longer holds
    rules: tuple[Rule, ...]
    sources: tuple[str, ...] = ()
    file: str = ""
    lines: tuple[int, ...] = ()  # of the file: the offer's, then those of its rules
    commitment: Committed | None = None
    volume: Volume | None = None

    @property
    def span(self) -> tuple[datetime, datetime]:
        return midnight(self.starts), midnight(self.ends) if self.ends else FOREVER

    def holds_for(self, account: str) -> bool:
        """Whether it is an offer to this account; one that names accounts is none to an unknown one."""
        return not self.accounts or account in self.accounts

    @property
    def platforms(self) -> frozenset[str]:
        """Whose usage its commitment and volume count: those that it has rates for, or Bedrock."""
        return frozenset(rule.platform for rule in self.rules) or frozenset({"bedrock"})

    def periods(self, every: str, until: date) -> Iterator[tuple[date, date]]:
        """Its periods that begin before that day, each with the first day after it."""
        number, starts = 0, self.starts
        while starts < until and (self.ends is None or starts < self.ends):
            number += 1
            ends = months_later(self.starts, MONTHS[every] * number) if every in MONTHS else self.ends
            ends = min(ends or FOREVER.date(), self.ends or FOREVER.date())
            yield starts, ends
            starts = ends


def months_later(day: date, months: int) -> date:
    """The same day of a later month (earlier: negative), or that month's last."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


# --- the book of it ------------------------------------------------------------------------------------------------


def contracted(book: Book, offers: Iterable[Offer], account: str = "") -> Book:
    """The book that an account has: cards split at the dates of its offers, with their rates between them.

    What no offer changes is the same card as in `book`, and the whole is `book` itself if none changes anything.
    """
    held = [offer for offer in offers if offer.holds_for(account)]
    if not held:
        return book
    cards: dict[str, dict[Any, list[Card]]] = {name: {} for name in book.models}
    for card in book.cards():
        cards[card.sku.model].setdefault(card.sku, []).extend(_split(card, held))
    for found in cards.values():
        for of_sku in found.values():
            of_sku.sort(key=lambda card: (card.starts, card.prompt_from))
    said = [(offer.name, bool(offer.accounts), offer.signed, *offer.span, offer.rules) for offer in held]
    digest = hashlib.sha256("\n".join([book.digest, *sorted(map(repr, said))]).encode()).hexdigest()[:12]
    return Book(book.models, book.defaults, digest, _cards=cards)


def split(book: Book, edges: Iterable[datetime]) -> Book:
    """The same prices, on cards that end at these instants and begin anew."""
    turns = sorted(set(edges))
    if not turns:
        return book
    cards: dict[str, dict[Any, list[Card]]] = {name: {} for name in book.models}
    for card in book.cards():
        inside = [turn for turn in turns if card.starts < turn < card.ends]
        parts = pairwise([card.starts, *inside, card.ends])
        cards[card.sku.model].setdefault(card.sku, []).extend(
            replace(card, starts=start, ends=end) for start, end in parts
        )
    return Book(book.models, book.defaults, book.digest, _cards=cards)


def books(book: Book, offers: Sequence[Offer]) -> Callable[[str], Book]:
    """The book of each account; accounts with the same offers share one."""

    made: dict[frozenset[int], Book] = {}

    def of(account: str) -> Book:
        held = frozenset(i for i, offer in enumerate(offers) if offer.holds_for(account))
        if held not in made:
            made[held] = contracted(book, offers, account)
        return made[held]

    return of


def _split(card: Card, offers: Sequence[Offer]) -> Iterator[Card]:
    touching = [offer for offer in offers if _overlap(offer.span, (card.starts, card.ends))]
    touching = [offer for offer in touching if any(_best(offer, card, meter) for meter in meters_of(card))]
    if not touching:
        yield card
        return
    edges = {edge for offer in touching for edge in offer.span if card.starts < edge < card.ends}
    for start, end in pairwise(sorted({card.starts, card.ends, *edges})):
        held = [offer for offer in touching if offer.span[0] <= start < offer.span[1]]
        yield _priced(card, held, start, end)


def _priced(card: Card, held: Sequence[Offer], start: datetime, end: datetime) -> Card:
    band = f">{card.prompt_from - 1}" if card.prompt_from else ""
    name = card.id if start == card.starts else f"{card.sku}@{start:%Y-%m-%d}{band}"
    if not held:
        return replace(card, id=name, starts=start, ends=end)
    rates = card.rates._asdict()
    said, used = [], []
    for meter in meters_of(card):
        found = [(offer, rule) for offer in held if (rule := _best(offer, card, meter))]
        if not found:
            continue
        # an offer to named accounts comes before one to all
        offer, rule = max(found, key=lambda pair: bool(pair[0].accounts))
        exact = Fraction(rule.rate) if rule.rate is not None else rates[meter] * (rule.share or Fraction(0))
        rates[meter] = round(exact)  # half-even, once
        rounded = f", rounded from {plain(exact)} picodollars" if exact.denominator != 1 else ""
        said.append(f"{meter} {rule}{rounded}")
        used.append(offer)
    names = " and ".join(dict.fromkeys(offer.name for offer in used))
    return replace(
        card,
        id=f"{name} by {names}",
        starts=start,
        ends=end,
        rates=Vector(**rates),
        source=", ".join(
            dict.fromkeys(source for offer in used for source in (offer.sources or (offer.name,)))
        ),
        accessed=max(offer.signed for offer in used),
        confidence="contract",
        factors=f"{card.factors}; {names}: {'; '.join(said)}",
    )


def _best(offer: Offer, card: Card, meter: str) -> Rule | None:
    return max(
        (rule for rule in offer.rules if rule.fits(card, meter)), key=lambda rule: rule.order, default=None
    )


def meters_of(card: Card) -> tuple[str, ...]:
    """The meters that the card has a rate for."""
    return METERS if card.cached else METERS[:2]


def _overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def plain(number: Fraction) -> str:
    """The number as a decimal, exact where it has an end."""
    return f"{(Decimal(number.numerator) / Decimal(number.denominator)).normalize():f}"


# --- reading -------------------------------------------------------------------------------------------------------


def load_offers(paths: Iterable[Path | str], book: Book | None = None) -> list[Offer]:
    """The offers of these files, in order of their first day. OfferError names the file, the line and the mend."""
    found = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise OfferError(f"{path}: {error.strerror or error}") from error
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
    except ValueError as error:  # which names line and column
        raise OfferError(f"{file}: {error}") from error
    lines = list(_tables(text))
    reader = _Reader(file, text, book)
    reader.check_keys(said, ("offers",), 0)
    tables = said.get("offers")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise OfferError(f"{file}: no [[offers]] in it: write each offer as a table of that name")
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
        for number in range(line, len(self._text)):
            if self._text[number].lstrip().startswith("["):
                break
            if re.match(rf"\s*{re.escape(key)}\s*=", self._text[number]):
                line = number + 1
                break
        return OfferError(f"{self._file}{f':{line}' if line else ''}: {f'{key}: ' if key else ''}{says}")

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
        places = [*lines[1:], *[line] * len(rates)][: len(rates)]
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
        if _WILD.search(model) and any(fnmatchcase(name, model) for name in self._book.models):
            return model
        near = difflib.get_close_matches(model, self._ids, n=3)
        mend = f"the nearest known are {', '.join(near)}" if near else "see `farthing rate --help` for ids"
        raise self.fail(line, "model", f"unknown model {model!r}; {mend}")

    def _check(self, offer: Offer) -> None:
        """Each rule holds for something, says no more than one price, and is below list; no two are one."""
        cards = [card for card in self._book.cards() if _overlap(offer.span, (card.starts, card.ends))]
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
        if not both or not _overlap(one.span, other.span):
            continue
        since, until = max(one.span[0], other.span[0]), min(one.span[1], other.span[1])
        for card in book.cards():
            if not _overlap((since, until), (card.starts, card.ends)):
                continue
            if any(_best(one, card, meter) and _best(other, card, meter) for meter in meters_of(card)):
                where = f"{one.name!r} ({one.file}:{one.lines[0]})"
                raise OfferError(
                    f"{other.file}:{other.lines[0]}: overlaps {where}: both have a rate of {card.sku} from "
                    f"{since:%Y-%m-%d}; end one where the other starts, or write both as one offer"
                )
