"""The overlay that a price list gives rise to, as text to be read before it is used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction

from farthing.book import FOREVER, Book, Card
from farthing.meters import METERS, Vector
from farthing.money import mtok_usd
from farthing.pricelist._compare import Change, Comparison, card_for, rate_of
from farthing.pricelist._overlay import laid
from farthing.usage import Sku

_Rates = dict[str, int]  # by meter; a meter without a rate is left out


def overlay_text(book: Book, found: Comparison, read: date) -> str:
    """New and changed rates as rows from `found.at` on; all else as comments. "" if there is nothing to write."""
    published = found.reading.published
    source = f"{found.reading.name} of {published}" if published else found.reading.name
    rows = list(_rows(book, found, source, read))
    if not rows and not any(_halves(book, found)):
        return ""
    return "\n".join([*_head(source, read), *rows, *_left(book, found)]) + "\n"


def _head(source: str, read: date) -> Iterator[str]:
    yield f"# {source}, read {read}: what differs from the book, for review."
    yield "# The list says what holds now, not since when: mend `from` where you know better."
    yield "# A row that names endpoints or modes has what is paid there; of any other the factors are still to come."


def _left(book: Book, found: Comparison) -> Iterator[str]:
    """What no row says, and why."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for change in [*_halves(book, found), *found.of("undecided", "gone", "confirmed")]:
        rate = change.theirs if change.theirs is not None else change.ours
        long = " (long prompts)" if change.long_prompt else ""
        why = change.why or "the list no longer has it"
        rates = groups.setdefault((change.kind, str(change.sku), why), [])
        rates.append(f"{change.meter}{long} ${mtok_usd(rate or 0)}")
    for (kind, sku, why), rates in groups.items():
        yield f"# {kind}: {sku} {', '.join(rates)}: {why}"
    for said, of, why in found.reading.unmatched:
        yield f"# unmatched: {said} ({of}): {why}"


def _by_model(found: Comparison) -> dict[str, dict[Sku, list[Change]]]:
    by_model: dict[str, dict[Sku, list[Change]]] = {}
    for change in found.of("new", "changed"):
        by_model.setdefault(change.sku.model, {}).setdefault(change.sku, []).append(change)
    return by_model


def _halves(book: Book, found: Comparison) -> Iterator[Change]:
    """Rates of a SKU that neither the list nor the book knows enough of for a row."""
    for changed in _by_model(found).values():
        for sku, changes in changed.items():
            if not _whole(book, found, sku, changes):
                yield from (one._replace(why="no row, which needs both input and output") for one in changes)


def _rows(book: Book, found: Comparison, source: str, read: date) -> Iterator[str]:
    said = [f'source = "{source}"', f"accessed = {read}"]
    for model, changed in _by_model(found).items():
        exact = [
            "\n".join([*_exact_row(book, found, sku, changes), *said])
            for sku, changes in sorted(changed.items())
            if _whole(book, found, sku, changes)
        ]
        exact_text = "\n\n".join(exact)
        compact = _compact(book, found, model, changed, said)
        same = bool(compact) and _same(book, found, model, compact, exact_text)
        if exact:
            yield "\n" + (compact if same else exact_text)


def _whole(book: Book, found: Comparison, sku: Sku, changes: Sequence[Change]) -> bool:
    """Whether input and output are known: a row needs both."""
    rates = _after(book, found, sku, changes)
    return {"input", "output"} <= rates.keys()


def _after(
    book: Book, found: Comparison, sku: Sku, changes: Sequence[Change], *, long_prompt: bool = False
) -> _Rates:
    """The rates of the SKU as the list has them, and else as the book has them."""
    card = card_for(book, sku, found.at, long_prompt=long_prompt)
    rates = {meter: rate for meter in METERS if (rate := rate_of(card, meter)) is not None}
    for change in changes:
        if change.long_prompt == long_prompt and change.theirs is not None:
            rates[change.meter] = change.theirs
    return rates


def _exact_row(book: Book, found: Comparison, sku: Sku, changes: Sequence[Change]) -> Iterator[str]:
    yield _table(sku.model)
    yield from _days(found, card_for(book, sku, found.at))
    yield f'platforms = ["{sku.platform}"]'
    yield f'endpoints = ["{sku.endpoint}"]'
    yield f'modes = ["{sku.mode}"]'
    if sku.zone or "zones" in book.models[sku.model].platform(sku.platform):
        yield f'zones = ["{sku.zone}"]'
    rates = _after(book, found, sku, changes)
    yield from (f"{meter} = {mtok_usd(rate)}" for meter, rate in rates.items())
    if len(rates) < len(METERS):
        yield "cache = false"
    long = card_for(book, sku, found.at, long_prompt=True)
    if long and long.prompt_from:
        yield _band(long, _after(book, found, sku, changes, long_prompt=True))


def _table(model: str) -> str:
    """The head of a row; a name with a dot in it is quoted."""
    return f"[[{model}.price]]" if "." not in model else f'[["{model}".price]]'


def _days(found: Comparison, card: Card | None) -> Iterator[str]:
    """From the day of the list until the book's next price, which is later news."""
    yield f"from = {found.at:%Y-%m-%d}"
    if card and card.ends != FOREVER:
        yield f"to = {card.ends:%Y-%m-%d}"


def _band(card: Card, rates: Mapping[str, int], factor: Fraction = Fraction(1)) -> str:
    inside = ", ".join(f"{meter} = {_listed(rate, factor)}" for meter, rate in rates.items())
    return f"bands = [{{ over = {card.prompt_from - 1}, {inside} }}]"


# --- one row for all endpoints and modes, where their factors hold --------------------------------------------------


def _compact(
    book: Book, found: Comparison, model: str, changed: Mapping[Sku, Sequence[Change]], said: Sequence[str]
) -> str:
    """Rows before factors: a zone each, from an endpoint whose on-demand price changed. "" if none did."""
    rows = []
    for zone in dict.fromkeys(sku.zone for sku in changed):
        sku = next((sku for sku in changed if (sku.zone, sku.mode) == (zone, "on_demand")), None)
        if sku is None:
            return ""
        factor = Fraction(book.models[model].platform("bedrock")["endpoints"].get(sku.endpoint, 0))
        rates = _after(book, found, sku, changed[sku])
        if (
            not factor
            or len(rates) not in (2, len(METERS))
            or any(rate % factor for rate in map(Fraction, rates.values()))
        ):
            return ""
        days = _days(found, card_for(book, sku, found.at))
        lines = [_table(model), *days, 'platforms = ["bedrock"]']
        if zone or "zones" in book.models[model].platform("bedrock"):
            lines.append(f'zones = ["{zone}"]')
        lines += [f"{meter} = {_listed(rate, factor)}" for meter, rate in rates.items()]
        long = card_for(book, sku, found.at, long_prompt=True)
        if long and long.prompt_from:
            lines.append(_band(long, _after(book, found, sku, changed[sku], long_prompt=True), factor))
        rows.append("\n".join([*lines, *said]))
    return "\n\n".join(rows)


def _listed(rate: int, factor: Fraction) -> str:
    """Dollars per million tokens before the factor."""
    return mtok_usd(int(rate / factor))


def _same(book: Book, found: Comparison, model: str, compact: str, exact: str) -> bool:
    """Whether both ways of writing it come to the same rates at every SKU of the model, on every day from then on."""
    days = {found.at, *(card.starts for card in book.cards() if card.sku.model == model)}
    days = {day for day in days if day >= found.at}
    try:
        one, other = (_prices(laid(book, text), model, days) for text in (compact, exact))
    except ValueError:  # the factors give no whole number
        return False
    return one == other


def _prices(
    book: Book, model: str, days: Collection[datetime]
) -> dict[tuple[Sku, int, datetime], tuple[Vector, bool]]:
    return {
        (card.sku, card.prompt_from, day): (card.rates, card.cached)
        for card in book.cards()
        if card.sku.model == model
        for day in days
        if card.starts <= day < card.ends
    }
