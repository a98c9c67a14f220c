"""Whether one model is as good as another, but for a margin: evidence to be looked at after every answer.

Each pair of answers gives d = score of the candidate - score of the model in use, in [-1, 1]. To say "not inferior"
is to reject that the mean of d is at most -margin. The evidence against that is the wealth of a gambler who bets on
each pair before seeing it, at odds that are fair if it holds: E = mean over f of prod(1 + f x), where x is
(d + margin) / (1 - margin).
If the candidate is inferior, E ever reaches 1/alpha with a probability of at most alpha (Ville's inequality), whatever
the scores are and however often one looks. So there is no size at which one must stop, and looking costs nothing.
(Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2023.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ALPHA = 0.05
MARGIN = 0.02
# Bets, as shares of the most that cannot go broke: small ones for many pairs that seldom differ by much.
_BETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
_Z90 = 1.2816

NOT_INFERIOR, INFERIOR, UNDECIDED = "not inferior", "inferior", "not decided"


class Pair(NamedTuple):
    """Scores of two answers to one question, each in [0, 1]. Those of one `cluster` (a conversation) hang together."""

    id: str
    from_score: float
    to_score: float
    cluster: str = ""


class Verdict(NamedTuple):
    """`evidence_for` and `evidence_against` decide at 1 / alpha. `low` and `high` hold the difference, at any time.

    `units` are what was judged: clusters, and pairs that are in none.
    """

    verdict: str
    pairs: int
    units: int
    from_mean: float
    to_mean: float
    difference: float
    low: float
    high: float
    discordant: float
    margin: float
    alpha: float
    evidence_for: float
    evidence_against: float


class Size(NamedTuple):
    """Pairs wanted to call equal models so: usually, and in nine cases of ten; and for one look at a fixed number."""

    usual: int
    at_most: int
    fixed: int


def judge(pairs: Sequence[Pair], margin: float = MARGIN, alpha: float = ALPHA) -> Verdict:
    """The verdict on these pairs, in the order in which they came. ValueError if there are none."""
    if not pairs:
        raise ValueError("no pairs to judge")
    differences = _by_unit(pairs)
    best_for, best_against = _wealth(differences, -margin), _wealth([-d for d in differences], margin)
    worth = 1 / alpha
    verdict = NOT_INFERIOR if best_for >= worth else INFERIOR if best_against >= worth else UNDECIDED
    count = len(pairs)
    return Verdict(
        verdict,
        count,
        len(differences),
        sum(p.from_score for p in pairs) / count,
        sum(p.to_score for p in pairs) / count,
        sum(differences) / len(differences),
        _bound(differences, worth),
        -_bound([-d for d in differences], worth),
        sum(p.from_score != p.to_score for p in pairs) / count,
        margin,
        alpha,
        best_for,
        best_against,
    )


def _by_unit(pairs: Iterable[Pair]) -> list[float]:
    """One difference a cluster, the mean of its pairs: they are not independent."""
    units: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        unit = ("cluster", pair.cluster) if pair.cluster else ("pair", pair.id)
        units.setdefault(unit, []).append(pair.to_score - pair.from_score)
    return [sum(found) / len(found) for found in units.values()]


def _wealth(differences: Sequence[float], mean: float) -> float:
    """The most that the gambler against "the mean is at most `mean`" has had: stopping there was allowed."""
    most = 1 / (1 + mean) if mean > -1 else math.inf
    logs = [0.0] * len(_BETS)
    best = 1.0
    for difference in differences:
        logs = [
            log + math.log1p(bet * most * (difference - mean)) for log, bet in zip(logs, _BETS, strict=True)
        ]
        best = max(best, sum(map(_exp, logs)) / len(logs))
    return best


def _exp(log: float) -> float:
    return math.exp(min(log, 700.0))


def _bound(differences: Sequence[float], worth: float) -> float:
    """The greatest mean that can be ruled out from below, to a ten-thousandth."""
    low, high = -0.9999, 1.0
    if _wealth(differences, low) < worth:
        return -1.0
    while high - low > 0.0001:
        middle = (low + high) / 2
        low, high = (middle, high) if _wealth(differences, middle) >= worth else (low, middle)
    return low


def size(margin: float = MARGIN, discordant: float = 0.1, alpha: float = ALPHA) -> Size:
    """How many pairs to ask for in advance, if the models are as good as each other and differ on this share.

    `fixed` is for a single look, with nine chances of ten: (1.645 + 1.282)^2 x discordant / margin^2.
    """
    half = discordant / 2
    chances = ((1.0, half), (-1.0, half), (0.0, 1 - discordant))
    usual = at_most = math.inf
    needed = math.log(len(_BETS) / alpha)  # if one of the bets had to win alone
    for bet in _BETS:
        grown = [(math.log1p(bet * (d + margin) / (1 - margin)), chance) for d, chance in chances]
        mean = sum(log * chance for log, chance in grown)
        if mean <= 0:
            continue
        spread = math.sqrt(sum(log * log * chance for log, chance in grown) - mean * mean)
        root = (_Z90 * spread + math.sqrt((_Z90 * spread) ** 2 + 4 * mean * needed)) / (2 * mean)
        usual, at_most = min(usual, needed / mean), min(at_most, root * root)
    fixed = (1.6449 + _Z90) ** 2 * discordant / margin**2
    return Size(math.ceil(usual), math.ceil(at_most), math.ceil(fixed))
