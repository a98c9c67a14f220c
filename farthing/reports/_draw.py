"""Tables and charts as HTML that needs nothing around it: for a page, a mail, paper, and a notebook in light or dark.

What must survive a mail program stands in attributes: alignment, and bars, which are cells of tables since these are
drawn everywhere. Charts beyond bars are SVG, which mail programs leave out: the figures of each stand in a table too.
No colour of text or ground is set here; lines and fills are seen on light and on dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from farthing.reports._said import escape

# The dashboard's, in an order in which dark and light take turns: bands are told apart without colour too.
SERIES = ("#b5522b", "#b98a2f", "#3f7795", "#76914a", "#7d5f9c", "#8b867b")
ACCENT, UP, DOWN = "#b5522b", "#c2453f", "#2f8a5c"
OTHERS = "all others"
_LINE = "rgba(128,122,110,.3)"
_FONT = 'font-size="12" fill="currentColor"'
_NO_HEAD = '<th scope="col" style=text-align:left;white-space:nowrap></th>'
_TALL = 220  # pixels of a chart, without its labels

Show = Callable[[int], str]


class Series(NamedTuple):
    name: str
    values: list[int]  # one a place on the axis


class Step(NamedTuple):
    label: str
    value: int
    is_sum: bool = False  # a bar from nothing; else from where the one before ended
    note: str = ""


# --- tables ----------------------------------------------------------------------------------------------------------


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    *,
    total: Sequence[str] = (),
    bars: Sequence[str] = (),
    wide: bool = False,
) -> str:
    """Cells are text, `bars` the HTML of a last column. Columns in `numbers` are aligned at their end.

    Bars that matter more than room are `wide`; the others are left out on a phone.
    """
    right, kind = set(numbers), 'class="steps" width="45%"' if wide else 'class="bar" width="20%"'

    def line(tag: str, row: Sequence[str], last: str, more: str = "") -> str:
        scope, short = ' scope="col"' if tag == "th" else "", ";white-space:nowrap"
        cells = "".join(
            f"<{tag}{scope} class=n style=text-align:right{more}>{escape(text)}</{tag}>"
            if at in right
            else f"<{tag}{scope} style=text-align:left{short * (len(text) <= 12)}{more}>{escape(text)}</{tag}>"
            for at, text in enumerate(row)
        )
        cells += f"<td {kind}>{last}</td>" if bars else ""
        return f'<tr style="border-bottom:1px solid {_LINE};background:none">{cells}</tr>'

    body = [line("td", row, bars[at] if bars else "") for at, row in enumerate(rows)]
    body += [line("td", total, "", ";font-weight:700")] if total else []
    head = f"<thead>{line('th', heads, '')}</thead>".replace(_NO_HEAD, "<td></td>") if any(heads) else ""
    return (
        '<div class="wide" tabindex="0" style="overflow-x:auto"><table cellpadding="4" cellspacing="0" width="100%" '
        f'style="border-collapse:collapse">{head}<tbody>{"".join(body)}</tbody></table></div>'
    )


def bar(length: int, whole: int, colour: str = ACCENT, start: int = 0) -> str:
    """A bar from `start`, of a width that is `whole`. Something is never nothing."""
    if whole <= 0 or length <= 0:
        return ""
    before = min(start * 1000 // whole, 994)
    wide = max(6, min(length * 1000 // whole, 1000 - before))
    filled = 'style="height:9px;line-height:9px;font-size:1px;padding:0">&nbsp;'
    table, part = (1000, wide) if before else (wide, 1000)
    cells = f'{_gap(before)}<td width="{_percent(part)}" bgcolor="{colour}" {filled}</td>{_gap(table - before - part)}'
    return (
        f'<table role="presentation" cellpadding="0" cellspacing="0" width="{_percent(table)}" style="margin:5px 0 0">'
        f'<tr style="background:none;border:0">{cells}</tr></table>'
    )


def _gap(permille: int) -> str:
    return f'<td width="{_percent(permille)}" style="padding:0"></td>' if permille > 0 else ""


def _percent(permille: int) -> str:
    return f"{permille // 10}.{permille % 10}%"


def waterfall(steps: Sequence[Step], show: Show) -> str:
    """From the first sum to the last, a row a step, its bar where it adds or takes away."""
    reached, spans = 0, []
    for step in steps:
        start = 0 if step.is_sum else reached
        reached = step.value if step.is_sum else reached + step.value
        spans.append((min(start, start + step.value), abs(step.value)))
    least = min(0, *(low for low, _ in spans))
    whole = max((low + size for low, size in spans), default=0) - least
    rows, bars = [], []
    for step, (low, size) in zip(steps, spans, strict=True):
        sign = "+" if step.value > 0 and not step.is_sum else ""
        rows.append((step.label + (f" ({step.note})" if step.note else ""), sign + show(step.value)))
        colour = ACCENT if step.is_sum else UP if step.value > 0 else DOWN
        bars.append(bar(size, whole, colour, low - least))
    return table(("", ""), rows, {1}, bars=bars, wide=True)


def compare(found: Iterable[tuple[str, int, bool]], show: Show) -> str:
    """Amounts with a bar each; those that are marked stand out."""
    listed = list(found)
    most = max((value for _, value, _ in listed), default=0)
    bars = [bar(value, most, ACCENT if marked else SERIES[2]) for _, value, marked in listed]
    return table(("", ""), [(name, show(value)) for name, value, _ in listed], {1}, bars=bars, wide=True)


def notes(said: Iterable[str]) -> str:
    """Lines of text, as a list."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    return f"<ul>{lines}</ul>" if lines else ""


# --- charts ----------------------------------------------------------------------------------------------------------


def fold(found: Mapping[str, Mapping[str, int]], places: Sequence[str]) -> list[Series]:
    """The dearest as series over the places, what is beyond the colours together; dearest first."""
    dearest = sorted(found, key=lambda name: (-sum(found[name].values()), name))
    kept = dearest if len(dearest) <= len(SERIES) else dearest[: len(SERIES) - 1]
    series = [Series(name, [found[name].get(place, 0) for place in places]) for name in kept]
    if rest := dearest[len(kept) :]:
        series.append(Series(OTHERS, [sum(found[name].get(place, 0) for name in rest) for place in places]))
    return series


def legend(series: Sequence[Series], show: Show) -> str:
    """Each series with its sum, in the order of the bands from below."""
    keys = "".join(
        f'<span style="white-space:nowrap;margin-right:16px"><span style="color:{SERIES[at % len(SERIES)]}">&#9632;'
        f"</span> {escape(name)} {escape(show(sum(values)))}</span> "
        for at, (name, values) in enumerate(series)
    )
    return f'<p class="legend" style="font-size:12px;margin:10px 0 4px">{keys}</p>'


def stack(places: Sequence[str], series: Sequence[Series], show: Show, says: str) -> str:
    """Bars over an axis, of bands that add up. Widths are shares of what there is; text keeps its size."""
    sums = [sum(values[at] for _, values in series) for at in range(len(places))]
    ticks = _ticks(max([0, *sums]))
    top, count = ticks[-1], max(len(places), 1)
    drawn = []
    for tick in ticks:
        y = _percent(1000 - tick * 1000 // top)
        drawn.append(f'<line x1="0" x2="100%" y1="{y}" y2="{y}" stroke="{_LINE}"/>')
    feet, wide = [0] * len(places), _percent(max(2, 820 // count))
    for n, (name, values) in enumerate(series):
        drawn.append(f'<g fill="{SERIES[n % len(SERIES)]}">')
        for at, place in enumerate(places):
            foot, feet[at] = feet[at], feet[at] + max(0, values[at])
            low, high = foot * 1000 // top, feet[at] * 1000 // top
            if high > low:
                tip = escape(f"{place} {name} {show(values[at])}")
                drawn.append(
                    f'<rect x="{_percent(at * 1000 // count)}" y="{_percent(1000 - high)}" width="{wide}" '
                    f'height="{_percent(high - low)}"><title>{tip}</title></rect>'
                )
        drawn.append("</g>")
    plot = f'<svg y="8" width="100%" height="{_TALL}" overflow="visible">{"".join(drawn)}</svg>'
    names = "".join((*_under_axis(places), *_beside_axis(ticks, show)))
    return _svg(_TALL + 34, says, plot + names, "margin:8px 0 0 58px;width:calc(100% - 64px)")


def _svg(height: int, says: str, inside: str, style: str = "margin:10px 0 0") -> str:
    return (
        f'<svg width="100%" height="{height}" role="img" '
        f'aria-label="{escape(says)}" font-family="Inter, Arial, sans-serif" '
        f'style="display:block;overflow:visible;{style}">{inside}</svg>'
    )


def _ticks(most: int) -> list[int]:
    """From nothing to at least the most, in four or five round steps."""
    if most <= 0:
        return [0, 1]
    step = 1
    while step * 5 < most:
        step *= 10
    step = next(
        (part for part in (step // 10, step // 5, step // 4, step // 2) if part and part * 5 >= most), step
    )
    return [step * n for n in range(-(-most // step) + 1)]


def _beside_axis(ticks: Sequence[int], show: Show) -> Iterable[str]:
    for tick in ticks:
        said = show(tick)
        y = 12 + _TALL - tick * _TALL // ticks[-1]
        yield f'<text x="-8" y="{y}" text-anchor="end" {_FONT}>{escape(said.removesuffix(".00"))}</text>'


def _under_axis(places: Sequence[str]) -> Iterable[str]:
    """Six places at most are named: that many fit a phone."""
    every = max(1, -(-len(places) // 6))
    for at in range(0, len(places), every):
        x = _percent((at * 1000 + 410) // max(len(places), 1))
        said = places[at][5:] if len(places[at]) == 10 and places[at][4] == "-" else places[at]
        yield f'<text x="{x}" y="{_TALL + 26}" text-anchor="middle" {_FONT}>{escape(said)}</text>'


def flows(found: Mapping[tuple[str, str], int], says: str) -> str:
    """Bands from what stands left to what stands right, as wide as they are dear."""
    left, right = _sides(found, 0), _sides(found, 1)
    whole = sum(left.values())
    if whole <= 0:
        return ""
    lefts, rights = _placed(left, whole), _placed(right, whole)
    colour = {name: SERIES[min(at, len(SERIES) - 1)] for at, name in enumerate(left)}
    used = {("l", name): y for name, (y, _) in lefts.items()} | {
        ("r", name): y for name, (y, _) in rights.items()
    }
    drawn = []
    for source in left:
        for target in right:
            size = _size(found.get((source, target), 0), whole)
            if size:
                a, b = used["l", source], used["r", target]
                used["l", source], used["r", target] = a + size, b + size
                drawn.append(
                    f'<path d="M14 {a}C500 {a} 500 {b} 986 {b}v{size}C500 {b + size} 500 {a + size} 14 {a + size}Z" '
                    f'fill="{colour[source]}" fill-opacity=".4"/>'
                )
    drawn += [
        f'<rect x="0" y="{y}" width="14" height="{max(4, h)}" fill="{colour[n]}"/>'
        for n, (y, h) in lefts.items()
    ]
    drawn += [
        f'<rect x="986" y="{y}" width="14" height="{max(4, h)}" fill="#6f6a60"/>' for y, h in rights.values()
    ]
    inner = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{"".join(drawn)}</svg>'
    named = [*_named(lefts, "1.4%", 10, "start"), *_named(rights, "98.6%", -10, "end")]
    return _svg(300, says, inner + "".join(named))


_GAP = 22  # between what stands on one side, of 1000


def _sides(found: Mapping[tuple[str, str], int], at: int) -> dict[str, int]:
    """What stands on a side, dearest first; those beyond the colours are drawn in the last."""
    sums: dict[str, int] = {}
    for pair, value in found.items():
        sums[pair[at]] = sums.get(pair[at], 0) + max(0, value)
    return {name: sums[name] for name in sorted(sums, key=lambda name: (-sums[name], name)) if sums[name]}


def _size(value: int, whole: int) -> int:
    return max(0, value) * 700 // whole


def _placed(side: Mapping[str, int], whole: int) -> dict[str, tuple[int, int]]:
    """Where each begins, and how high it is."""
    gap = min(_GAP * 3, 300 // max(1, len(side)))
    found, y = {}, 0
    for name, value in side.items():
        found[name] = (y, _size(value, whole))
        y += found[name][1] + gap
    return found


def _named(side: Mapping[str, tuple[int, int]], x: str, dx: int, anchor: str) -> Iterable[str]:
    """The names, of those that have room for one."""
    last = -100
    for name, (y, high) in side.items():
        middle = y + high // 2
        if middle - last >= 48:
            last = middle
            yield (
                f'<text x="{x}" dx="{dx}" y="{_percent(middle)}" dy="4" text-anchor="{anchor}" {_FONT}>'
                f"{escape(name)}</text>"
            )
