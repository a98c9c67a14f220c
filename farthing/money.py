"""Money: an int of picodollars (10^-12 USD). Exact coming in, rounded only to be shown.

One picodollar a token is exactly $0.000001 per million tokens, so every published rate times every
published multiplier is a whole number.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact

PICOS_PER_USD = 10**12
PICOS_PER_MTOK_USD = 10**6  # 1 USD per million tokens, as picodollars per token

_EXACT = Context(prec=400, traps=[Inexact])


def per_mtok(usd: Decimal | int) -> int:
    """Dollars per million tokens, as picodollars per token, exact. ValueError if that is no whole number.

    >>> per_mtok(Decimal("0.1375"))
    137500
    """
    return _whole(usd, PICOS_PER_MTOK_USD, "per million tokens is no whole number of picodollars a token")


def mtok_usd(rate: int) -> str:
    """Picodollars per token, as dollars per million tokens, exact and without padding.

    >>> mtok_usd(3_300_000)
    '3.3'
    """
    return _plain(Decimal(rate).scaleb(-6, _EXACT))


def usd(picos: int) -> str:
    """Dollars, exact, without exponent or padding: the form of every machine-readable figure.

    >>> usd(22_974_600_000)
    '0.0229746'
    """
    return _plain(Decimal(picos).scaleb(-12, _EXACT))


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def show(picos: int, places: int = 2) -> str:
    """Dollars for a person: rounded half-even, thousands set apart, and never nothing for something.

    >>> show(1_234_567_890_000_000), show(1_500_000_000), show(-5), show(0)
    ('$1,234.57', '$0.0015', '-<$0.0001', '$0.00')
    """
    sign = "-" if picos < 0 else ""
    amount = Decimal(abs(picos)).scaleb(-12, _EXACT)
    if 0 < amount < Decimal("0.0001"):
        return f"{sign}<$0.0001"
    if 0 < amount < Decimal(1).scaleb(-places):
        places = max(places, 2) if amount >= Decimal("0.01") else max(places, 4)
    shown = amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=Context(prec=400))
    return f"{sign}${shown:,f}"


def from_usd(text: str | Decimal) -> int:
    """Dollars as picodollars, exact. ValueError if it is finer than a picodollar or no number."""
    return _whole(text, PICOS_PER_USD, "is no whole number of picodollars")


def _whole(usd: str | Decimal | int, picos_per_usd: int, fault: str) -> int:
    try:
        picos = _EXACT.multiply(Decimal(usd), Decimal(picos_per_usd))
    except ArithmeticError as error:
        raise ValueError(f"{usd!r} is no exact amount of dollars") from error
    if not picos.is_finite() or picos != picos.to_integral_value():
        raise ValueError(f"${usd} {fault}")
    return int(picos)
