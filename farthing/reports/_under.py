"""What stands under a report, in words, and how shares read: in a terminal and on a page alike."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from farthing.costs import off_sentence
from farthing.fx import amount


def like(name: str, currency: str) -> str:
    """The name of the same amount in the table's currency; other names as they are."""
    return f"{name[:-3]}{currency.lower()}" if name.endswith("usd") else name


def percent(share: str) -> str:
    """An exact share for people, who want to see that something is more than nothing and less than all.

    >>> percent("0.123456"), percent("0.00004"), percent("0.99996"), percent("1")
    ('12.3 %', '<0.1 %', '>99.9 %', '100.0 %')
    """
    of_100 = Decimal(share) * 100
    rounded = of_100.quantize(Decimal("0.1"))
    if rounded == 0 < of_100:
        return "<0.1 %"
    return ">99.9 %" if rounded == 100 > of_100 else f"{rounded} %"


def footer_lines(footer: Mapping[str, Any]) -> list[str]:
    """What stands under a report, a line each."""
    read, priced, unpriced, rejected = (footer[name] for name in ("read", "priced", "unpriced", "rejected"))
    lines = [f"read {read:,} = priced {priced:,} + unpriced {unpriced:,} + rejected {rejected:,}"]
    lines += [
        f"  unpriced {count:,}: {reason}" for reason, count in list(footer["unpriced_reasons"].items())[:8]
    ]
    hidden = len(footer["unpriced_reasons"]) - 8
    lines += [f"  and {hidden} more reasons (--json has all)"] if hidden > 0 else []
    lines += [f"  rejected {reason}" for reason in footer["rejected_reasons"][:5]]
    currency = footer["currency"]
    for entry in footer["assumed"]:
        upper = (
            f" (up to {_either(entry, 'upper_usd', currency)} at the 1h price)"
            if "upper_usd" in entry
            else ""
        )
        lines.append(f"assumed {entry['name']}: {_either(entry, 'usd', currency)}{upper} of {entry['calls']:,} calls; "
                     f"settle it by {entry['settle']}")  # fmt: skip
    lines.append(f"{currency}, days of {footer['tz']}, price book {footer['book']}")
    if left := footer.get("left_out"):
        lines.append(f"not in this report: {_either(left, 'usd', currency)} of {left['entries']:,} sessions, searches "
                     "and code run (`farthing bill` has them)")  # fmt: skip
    if offers := footer.get("offers"):
        lines.append(off_sentence(offers))
    if fx := footer.get("fx"):
        dates = list(fx["rates"])
        span = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates)
        lines.append(f"each day's dollars at its own rate, of {span} in {fx['file']} ({fx['digest']})")
    return lines


def _either(entry: Mapping[str, Any], name: str, currency: str) -> str:
    """An amount in the currency, or in dollars where it is not there."""
    also = like(name, currency)
    return amount(entry[also], currency) if also in entry else amount(entry[name])
