"""A closed month as lines for the general ledger: cost centre, GL code, debit, credit.

Amounts are exact to the picodollar, journals know cents. What is rounded is all that has been booked of a month so far:
a booking's lines sum to what it adds to that. Within it each line is cut to whole cents, and the cents that are missing
go, one each, to the lines that lost most. What is taken back is taken back in the very cents it was booked in; a cent
that this leaves over is a line `rounding`. So the lines of a month sum to its total to the cent, however many closings
it took.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from farthing.config import UNASSIGNED, Config
from farthing.fx import Rate
from farthing.ledger import Closing, Line

ACCRUAL, REVERSAL = "accrual", "reversal"  # of bookings
SUFFIXES = (".csv", ".parquet", ".json")
_PLACES = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # digits after the point, where not 2


class JournalError(ValueError):
    """No journal can be made: one line that says what is missing, and where to write it."""


class JournalLine(NamedTuple):
    """One line. `amount` is debit less credit; amounts are text, with the digits of their currency."""

    date: str
    period: str
    of: str  # the month whose money it is
    cost_centre: str
    gl_code: str
    debit: str
    credit: str
    amount: str
    currency: str
    fx_rate: str
    fx_date: str
    fx_source: str
    description: str
    reference: str
    invoice: str
    team: str
    kind: str


class _Side(NamedTuple):
    """What entries are put together by."""

    cost_centre: str
    gl_code: str
    team: str
    kind: str
    platform: str
    invoice: str


class _Made(NamedTuple):
    """A booking in whole cents, and what they are cents of."""

    entries: tuple[Line, ...]
    sides: list[tuple[_Side, int]]
    exact: int
    rate: Rate
    source: str

    @property
    def key(self) -> tuple[str, str]:
        return self.entries[0].of, self.rate.currency


class _Sums:
    """What is booked so far of each month in each currency: exactly, and in whole cents."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], int] = defaultdict(int)
        self._cents: dict[tuple[str, str], int] = defaultdict(int)

    def missing(self, key: tuple[str, str], added: int = 0) -> int:
        """The cents that are missing once so much more is booked."""
        return round(Fraction(self._exact[key] + added, _unit(key[1]))) - self._cents[key]

    def add(self, key: tuple[str, str], exact: int, cents: int) -> None:
        self._exact[key] += exact
        self._cents[key] += cents


def _unit(currency: str) -> int:
    """A cent, in 10^-12 units of its currency."""
    return int(10 ** (12 - places(currency)))


def journal(closings: Sequence[Closing], period: str, config: Config) -> list[JournalLine]:
    """The lines of a period, by all closings of a ledger: rounding goes on from what was booked before."""
    made: dict[str, _Made] = {}
    sums = _Sums()
    lines: list[JournalLine] = []
    for closing in closings:
        wanted = closing.period == period
        touched: dict[tuple[str, str], _Made] = {}
        for name, entries in _bookings(closing).items():
            made[name] = one = _made(entries, closing, made, config, sums)
            touched[one.key] = one
            lines += _lines(name, one, closing, config, made) if wanted else ()
        for key, one in touched.items():
            if gap := sums.missing(key):  # left by what was taken back in the cents it was booked in
                sums.add(key, 0, gap)
                side = _Side(
                    _cost_centre(UNASSIGNED, config), _code("rounding", config), "", "rounding", "", ""
                )
                rounding = one._replace(
                    entries=(one.entries[0]._replace(what="rounding", ref=""),), sides=[(side, gap)]
                )
                lines += _lines(f"{closing.id}/rounding", rounding, closing, config, made) if wanted else ()
    return lines


def _bookings(closing: Closing) -> dict[str, tuple[Line, ...]]:
    found: dict[str, list[Line]] = {}
    for line in sorted(closing.entries, key=lambda line: int(line.booking.rpartition("/")[2])):
        found.setdefault(line.booking, []).append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def _made(
    entries: tuple[Line, ...], closing: Closing, made: Mapping[str, _Made], config: Config, sums: _Sums
) -> _Made:
    if back := made.get(entries[0].ref):
        sides = [(side, -count) for side, count in back.sides]
        one = _Made(entries, sides, -back.exact, back.rate, back.source)
    else:
        rate, source = rate_of(closing)
        amounts: dict[_Side, int] = defaultdict(int)
        for line in entries:
            amounts[_side(line, config)] += rate.convert(line.picos)
        added, unit = sum(amounts.values()), _unit(rate.currency)
        low = added // unit
        target = min(max(sums.missing((entries[0].of, rate.currency), added), low), low + bool(added % unit))
        names = sorted(amounts)
        cents = to_cents([amounts[side] for side in names], target, unit)
        one = _Made(entries, list(zip(names, cents, strict=True)), added, rate, source)
    sums.add(one.key, one.exact, sum(count for _, count in one.sides))
    return one


def to_cents(amounts: Sequence[int], target: int, unit: int) -> list[int]:
    """Amounts in whole units that sum to `target`, which is their sum rounded up or down; each less than one off.

    Turning all signs around turns those of the answer around.

    >>> to_cents([33, 33, 34], 1, 100), to_cents([-33, -33, -34], -1, 100), to_cents([160, 160], 3, 100)
    ([0, 0, 1], [0, 0, -1], [2, 1])
    """
    cut = [abs(amount) // unit * (1 if amount > 0 else -1) for amount in amounts]
    missing = target - sum(cut)
    sign = 1 if missing > 0 else -1
    order = sorted(range(len(amounts)), key=lambda i: (-sign * (amounts[i] - cut[i] * unit), i))
    for i in order[: abs(missing)]:
        cut[i] += sign
    return cut


def places(currency: str) -> int:
    return _PLACES.get(currency, 2)


def rate_of(closing: Closing) -> tuple[Rate, str]:
    """The rate that a month was closed with, and the file that gave it; a dollar for a dollar where none was."""
    said = closing.said["fx"]
    if said is None:
        return Rate("USD", "", Fraction(1)), ""
    return Rate(said["currency"], said["date"], Fraction(said["per_usd"])), said["source"]


# --- cost centres and GL codes --------------------------------------------------------------------------------------


def _side(line: Line, config: Config) -> _Side:
    code = _code(line.kind, config, line.platform)
    return _Side(_cost_centre(line.team, config), code, line.team, line.kind, line.platform, line.invoice)


def _code(kind: str, config: Config, platform: str = "") -> str:
    codes = config.journal.codes
    if code := codes.get(f"{platform}/{kind}") or codes.get(kind) or config.journal.debit:
        return code
    raise JournalError(
        f'no GL code for {kind}: write debit = "6100" and credit = "2100" under [journal] in farthing.toml, '
        f'or {kind} = "..." under [journal.codes]'
    )


def _cost_centre(team: str, config: Config) -> str:
    named = config.teams[team].cost_centre if team in config.teams else ""
    if found := named or config.journal.cost_centre:
        return found
    of_team = f"cost_centre under [teams.{team}], or " if team in config.teams else ""
    raise JournalError(
        f"no cost centre for {team}: write {of_team}cost_centre under [journal] in farthing.toml"
    )


def _credit(entries: Sequence[Line], made: Mapping[str, _Made], config: Config) -> str:
    """What is owed: to be billed yet, or billed."""
    what, ref = entries[0].what, entries[0].ref
    while what == REVERSAL and ref:
        what, ref = made[ref].entries[0].what, made[ref].entries[0].ref
    code = (what == ACCRUAL and config.journal.accrued) or config.journal.credit
    if not code:
        raise JournalError('no account to credit: write credit = "2100" under [journal] in farthing.toml')
    return code


# --- lines ----------------------------------------------------------------------------------------------------------


def _lines(
    name: str, one: _Made, closing: Closing, config: Config, made: Mapping[str, _Made]
) -> Iterable[JournalLine]:
    first = one.entries[0]
    about = f"{first.what} {first.of}"
    about += f", takes back {first.ref}" if first.ref else ""
    owed: dict[str, int] = defaultdict(int)
    for side, count in one.sides:
        if count:
            owed[side.invoice] -= count
            platform = f" {side.platform}" if side.platform not in ("", "bedrock") else ""
            text = f"Claude{platform}, {side.kind.replace('_', ' ')}, {side.team}: {about}"
            yield _line(closing, one, name, side, count, text)
    code = _credit(one.entries, made, config)
    for invoice, count in owed.items():
        if count:
            side = _Side("", code, "", "", "", invoice)
            yield _line(closing, one, name, side, count, f"Claude, owed: {about}")


def _line(closing: Closing, one: _Made, name: str, side: _Side, count: int, text: str) -> JournalLine:
    digits = places(one.rate.currency)

    def shown(units: int) -> str:
        return f"{Decimal(units).scaleb(-digits):.{digits}f}"

    has_rate = one.rate.currency != "USD"
    return JournalLine(
        date=closing.said["ends"],
        period=closing.period,
        of=one.entries[0].of,
        cost_centre=side.cost_centre,
        gl_code=side.gl_code,
        debit=shown(max(count, 0)),
        credit=shown(max(-count, 0)),
        amount=shown(count),
        currency=one.rate.currency,
        fx_rate=shown_rate(one.rate.per_usd) if has_rate else "",
        fx_date=one.rate.date if has_rate else "",
        fx_source=one.source if has_rate else "",
        description=text,
        reference=name,
        invoice=side.invoice,
        team=side.team,
        kind=side.kind,
    )


def shown_rate(rate: Fraction) -> str:
    """To ten digits; the closing has it whole.

    >>> shown_rate(Fraction(9213, 10000)), shown_rate(Fraction(1, 3))
    ('0.9213', '0.3333333333')
    """
    return f"{Context(prec=10).divide(Decimal(rate.numerator), Decimal(rate.denominator)).normalize():f}"


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, lines: Sequence[JournalLine]) -> None:
    """As CSV, Parquet (amounts as decimals) or JSON, by the name's end."""
    if path.suffix == ".json":
        text = json.dumps({"lines": [line._asdict() for line in lines]}, ensure_ascii=False, indent=1)
        path.write_text(f"{text}\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        _write_parquet(path, lines)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(JournalLine._fields)
            out.writerows(lines)


def _write_parquet(path: Path, lines: Sequence[JournalLine]) -> None:
    import duckdb
    from arro3.core import Array, DataType, Table

    names = JournalLine._fields
    columns: dict[str, Any] = {
        name: Array([line[i] for line in lines], DataType.string()) for i, name in enumerate(names)
    }
    con = duckdb.connect()
    con.register("journal_lines", Table.from_pydict(columns))
    types = {"date": "DATE", **dict.fromkeys(("debit", "credit", "amount"), "DECIMAL(38, 3)")}
    selected = ", ".join(f'CAST("{name}" AS {types.get(name, "VARCHAR")}) AS "{name}"' for name in names)
    target = str(path).replace("'", "''")
    con.execute(
        f"COPY (SELECT {selected} FROM journal_lines) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )
