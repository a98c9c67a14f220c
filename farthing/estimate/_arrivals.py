"""How often a stable prefix is written to the cache and how often read, in a month of requests.

A write is due at the first request and after each gap longer than the TTL; every other request reads, and a read
starts the TTL anew (CACHING.md 2d). Of fixed gaps all fit the TTL or none does. Of Poisson arrivals of mean gap g, a
share of e^(-TTL/g) does not. That share is the one irrational number here: it is taken to 40 digits.
"""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from farthing.estimate._workload import DAY_S, Workload

TTL_S = {"5m": 300, "1h": 3_600}
_DIGITS = Context(prec=40)


class Hits(NamedTuple):
    """Requests of a month that write the prefix, and that read it. They may be fractions: they are expected."""

    writes: Fraction
    reads: Fraction


def arrivals(work: Workload) -> str:
    """As told. Else a gap that is told is kept to, and one that follows from the number of requests is a mean."""
    return work.arrivals or ("fixed" if work.gap_seconds is not None else "poisson")


def gap_s(work: Workload) -> Fraction:
    """Between one request and the next of the same prefix: as told, or the month over the requests."""
    if work.gap_seconds is not None:
        return Fraction(work.gap_seconds)
    return Fraction(work.days * DAY_S, work.monthly)


def hits(work: Workload, ttl: str) -> Hits:
    """Writes and reads of a month under a TTL, `5m` or `1h`."""
    seconds, gap = TTL_S[ttl], gap_s(work)
    starts = min(work.monthly, _starts(work, gap, seconds))
    writes = starts + (work.monthly - starts) * _expired(arrivals(work), gap, seconds)
    return Hits(writes, work.monthly - writes)


def batch_hits(work: Workload) -> Hits:
    """Inside a batch the order is nobody's: a share reads, which is said and not known."""
    reads = work.monthly * Fraction(work.batch_hits)
    return Hits(work.monthly - reads, reads)


def _expired(how: str, gap: Fraction, seconds: int) -> Fraction:
    if how == "fixed":
        return Fraction(gap > seconds)
    exponent = _DIGITS.divide(Decimal(-seconds * gap.denominator), Decimal(gap.numerator))
    return Fraction(_DIGITS.exp(exponent))


def _starts(work: Workload, gap: Fraction, seconds: int) -> int:
    """Requests that find no earlier one of their prefix.

    Requests further apart than their number allows belong to several prefixes, each of which begins once. Requests
    that fill only a part of each day begin anew every day, if the rest of it outlasts the TTL.
    """
    prefixes = ceil(work.monthly * gap / (work.days * DAY_S))
    overnight = DAY_S - (work.requests - 1) * gap
    if work.per == "day" and overnight > max(Fraction(seconds), gap):
        return max(prefixes, work.days)
    return max(prefixes, 1)
