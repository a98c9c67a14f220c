"""Requests to findings: each request by itself, and beside the one before it of the same workload."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from farthing.book import Book, Card
from farthing.lint._billing import Loss, Terms, day_of, loss, terms
from farthing.lint._files import Other, Unread
from farthing.lint._pairs import between, workload
from farthing.lint._request import Sent
from farthing.lint._rules import NOTE, RULES, SEVERITIES, Found, by_the_hour, faults

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.ledger import Ledger

MOST_WORKLOADS = 1_000  # whose last request is kept at a time
MOST_NODES = 200_000  # that one loss is worked out over
_INDEX = re.compile(r"(?<=messages)\[\d+\]|(?<=content)\[\d+\]")


@dataclass
class Finding:
    """A fault, where it was met first, how often, and what it costs. `loss` is None where `unpriced` says why."""

    found: Found
    place: str
    model: str
    severity: str
    loss: Loss | None
    unpriced: str
    assumed: tuple[str, ...]
    terms: Terms
    count: int = 1
    beside: str = ""  # the request before it, of a pair
    ledger: LedgerLoss | None = None


class LedgerLoss(NamedTuple):
    """What a fault cost at most in the ledger's traffic of its model: tokens that could have been reads, were not."""

    calls: int
    tokens: int
    picos: int


@dataclass
class Linted:
    """What was read, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    requests: int = 0
    others: int = 0  # files of a folder that hold no JSON, and requests to other models
    pairs: int = 0
    unread: list[Unread] = field(default_factory=list)
    unchecked: Counter[str] = field(
        default_factory=Counter
    )  # why the minimum was not looked at, and how often

    def failed(self, least: str) -> bool:
        """Whether something is as severe as that; `never` for none."""
        return least != "never" and any(
            SEVERITIES.index(each.severity) >= SEVERITIES.index(least) for each in self.findings
        )


class How(NamedTuple):
    """By what requests are priced, and over how many calls of which gap a fault counts."""

    book: Book
    day: date
    platform: str = ""
    calls: int = 100
    gap_s: int = 60


def lint(requests: Iterable[Sent | Unread | Other], how: How, *, pair: bool = False) -> Linted:
    """Everything that is found. With `pair` each request is put beside the one before it, of whatever workload."""
    done = Linted()
    known: dict[tuple[str, ...], Finding] = {}
    before: dict[tuple[object, ...], Sent] = {}
    for sent in requests:
        if isinstance(sent, Unread):
            done.unread.append(sent)
            continue
        if isinstance(sent, Other):
            done.others += 1
            continue
        done.requests += 1
        kind = () if pair else workload(sent)
        held = before.get(kind)
        _add(known, sent, how, "", faults)
        done.unchecked.update(_unchecked(terms_of(sent, how)))
        if held:
            done.pairs += 1
            _add(known, sent, how, held.place, partial(_beside, held, pair))
        before.pop(kind, None)  # so that the one seen longest ago comes first
        before[kind] = sent
        if len(before) > MOST_WORKLOADS:
            del before[next(iter(before))]
    done.findings = sorted(
        known.values(),
        key=lambda each: (-SEVERITIES.index(each.severity), -(each.loss.lost if each.loss else 0)),
    )
    _settle(done.findings)
    return done


def terms_of(sent: Sent, how: How, mode: str = "") -> Terms:
    """Those of its day; those asked for, where the model had none then."""
    day = day_of(sent, how.day)
    found = terms(how.book, sent, day, how.platform, mode)
    if found.sku is None or day == how.day or (found.card and (found.minimum or not found.caches)):
        return found
    later = terms(how.book, sent, how.day, how.platform, mode)
    return later._replace(assumed=(*later.assumed, f"prices of {how.day}"))


def _unchecked(held: Terms) -> list[str]:
    if held.sku is None:
        return [held.reason]
    return [f"no minimum is published for {held.sku.model}"] if held.caches and held.minimum is None else []


def _beside(before: Sent, named: bool, after: Sent, held: Terms) -> Iterator[Found]:
    return between(before, after, held, named=named)


def _add(
    known: dict[tuple[str, ...], Finding],
    sent: Sent,
    how: How,
    beside: str,
    rule: Callable[[Sent, Terms], Iterator[Found]],
) -> None:
    held = terms_of(sent, how)
    for found in rule(sent, held):
        key = (found.rule, _INDEX.sub("[*]", found.where), sent.model, beside and "pair")
        if key in known:
            known[key].count += 1
            continue
        found, priced, reason = _priced(found, sent, held, how)
        severity = found.severity or RULES[found.rule].severity
        if priced and priced.before is not None and priced.lost <= 0:
            severity = NOTE  # what would cost more than it saves is not advised
            if found.rule != "batch":
                found = found._replace(mend=(f"- {found.where}",) if found.rule == "under-minimum" else ())
        assumed = (*found.assumed, *held.assumed)
        if not sent.usage and priced:
            assumed = tuple(dict.fromkeys((*assumed, "tokens (four bytes each)")))
        known[key] = Finding(
            found, sent.place, sent.model, severity, priced, reason, assumed, held, 1, beside
        )


def _priced(found: Found, sent: Sent, held: Terms, how: How) -> tuple[Found, Loss | None, str]:
    """What a fault costs. A breakpoint that would not pay for five minutes may for an hour."""
    priced, reason = _loss(found, sent, held, how)
    if found.rule == "unmarked" and priced and priced.lost <= 0:
        longer = by_the_hour(found)
        again, _ = _loss(longer, sent, held, how)
        if again and again.lost > 0:
            return longer, again, ""
    return found, priced, reason


def _loss(found: Found, sent: Sent, held: Terms, how: How) -> tuple[Loss | None, str]:
    if found.rule == "batch":
        return _batch_loss(sent, how)
    if not found.before or not found.after:
        return None, ""
    if not isinstance(held.card, Card):
        return None, held.reason
    if held.minimum is None:
        return None, "nobody has published from how many tokens the model caches"
    nodes = len(found.before.pieces) + found.before.step * how.calls
    calls = max(2, min(how.calls, MOST_NODES // max(nodes, 1)))
    return loss(found.before, found.after, held.card, held.minimum, calls, how.gap_s), ""


def _batch_loss(sent: Sent, how: How) -> tuple[Loss | None, str]:
    """A record of a batch, against the same call sent at once and cached."""
    from farthing.lint._billing import billed
    from farthing.lint._rules import scenario

    now, batch = terms_of(sent, how, "on_demand"), terms_of(sent, how, "batch")
    if not isinstance(now.card, Card) or not isinstance(batch.card, Card) or now.minimum is None:
        return None, batch.reason or now.reason
    plays = scenario(sent).play(how.calls, how.gap_s * 1_000_000)
    cached = billed(plays, now.minimum)
    plain = sum(tokens.prompt for tokens in cached) * batch.card.rates.input
    reads = sum(tokens.cache_read for tokens in cached)
    return Loss(plain, sum(tokens @ now.card.rates for tokens in cached), how.calls, how.gap_s, 0, reads), ""


def _settle(findings: list[Finding]) -> None:
    """What a single request makes suspect and a pair has proved is told once."""
    proved = {(each.found.rule, each.found.where) for each in findings if each.beside}
    findings[:] = [
        each for each in findings if each.beside or (each.found.rule, each.found.where) not in proved
    ]


def price_in_ledger(findings: Iterable[Finding], ledger: Ledger, question: Question) -> None:
    """What each fault cost at most in the ledger: `ledger` of those whose model is there."""
    from farthing.cells import cells

    rows = list(cells(ledger, question, ("model",)))
    for each in findings:
        if not each.loss or not each.terms.sku:
            continue
        model = each.terms.sku.model
        calls = tokens = picos = 0
        for row in rows:
            if row.keys[0] != model or not isinstance(row.price, Card) or not row.price.cached:
                continue
            could = row.calls * (each.loss.read_after - each.loss.read_before) // each.loss.calls
            could = max(0, min(could, row.tokens.prompt - row.tokens.cache_read))
            rates = row.price.rates
            calls, tokens = calls + row.calls, tokens + could
            for meter in ("cache_write_1h", "cache_write_5m", "input"):
                taken = min(could, getattr(row.tokens, meter))
                picos += taken * (getattr(rates, meter) - rates.cache_read)
                could -= taken
        each.ledger = LedgerLoss(calls, tokens, picos)
