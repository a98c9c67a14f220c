"""The columns of AWS bills, in every export that has them, under one name each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

# Our name: the columns that may hold it, best first. Names are compared in snake case: legacy CUR's
# lineItem/UsageType, the same in Parquet and CUR 2.0's line_item_usage_type are one.
CUR = {
    "usage_type": ("line_item_usage_type", "product_usagetype"),
    "operation": ("line_item_operation",),
    "product_code": ("line_item_product_code",),
    "product_name": ("product_product_name", "product.product_name"),
    "service_code": ("product_servicecode", "product.servicecode"),
    "unit": ("pricing_unit",),
    "description": ("line_item_line_item_description",),
    "region": ("product_region_code", "product.region_code", "product_region", "product.region"),
    "resource": ("line_item_resource_id",),
    "principal": ("line_item_iam_principal",),
    "account": ("line_item_usage_account_id",),
    "payer": ("bill_payer_account_id",),
    "invoice": ("bill_invoice_id",),
    "entity": ("bill_billing_entity",),
    "bill_type": ("bill_bill_type",),
    "currency": ("line_item_currency_code", "pricing_currency"),
    "line_type": ("line_item_line_item_type",),
    "started": ("line_item_usage_start_date",),
    "month": ("bill_billing_period_start_date",),
    "quantity": ("line_item_usage_amount",),
    "unblended": ("line_item_unblended_cost",),
    "net": ("line_item_net_unblended_cost",),
    "public": ("pricing_public_on_demand_cost",),
    "commitment": ("reservation_reservation_a_r_n", "reservation_reservation_arn"),
    "effective": ("reservation_effective_cost",),
    "reserved_units": ("reservation_total_reserved_units",),
    "unused_units": ("reservation_unused_quantity",),
    "unused_upfront": ("reservation_unused_amortized_upfront_fee_for_billing_period",),
    "unused_recurring": ("reservation_unused_recurring_fee",),
    "tags": ("resource_tags", "tags"),
    "id": ("identity_line_item_id",),
}
FOCUS = {
    "usage_type": ("x_usage_type", "sku_meter"),
    "operation": ("x_operation",),
    "product_code": ("x_service_code",),
    "product_name": ("service_name",),
    "service_code": ("x_service_code",),
    "unit": ("pricing_unit", "consumed_unit"),
    "description": ("charge_description",),
    "region": ("region_id", "region"),
    "resource": ("resource_id",),
    "account": ("sub_account_id", "billing_account_id"),
    "payer": ("billing_account_id",),
    "invoice": ("invoice_id",),
    "entity": ("invoice_issuer_name", "publisher_name"),
    "bill_type": ("charge_class",),
    "currency": ("billing_currency",),
    "line_type": ("charge_category",),
    "started": ("charge_period_start",),
    "month": ("billing_period_start",),
    "quantity": ("pricing_quantity", "consumed_quantity"),
    "unblended": ("billed_cost",),
    "net": ("effective_cost",),
    "public": ("list_cost",),
    "commitment": ("commitment_discount_id", "capacity_reservation_id"),
    "commitment_status": ("commitment_discount_status", "capacity_reservation_status"),
    "effective": ("effective_cost",),
    "tags": ("tags",),
    "id": (),
}
NEEDED = ("usage_type", "line_type", "started", "quantity", "unblended")
TEXT = (
    "usage_type", "product_code", "product_name", "service_code", "unit", "description", "region", "resource",
    "account", "payer", "invoice", "entity", "currency", "line_type", "commitment", "commitment_status",
)  # fmt: skip
MONEY = ("unblended", "net", "public")
# Of capacity that was bought ahead, and of nothing else.
CAPACITY = ("effective", "reserved_units", "unused_units", "unused_upfront", "unused_recurring")
AMOUNTS = ("quantity", *MONEY, *CAPACITY)
DETAILS = ("resource", "principal", "operation")  # read only when asked for: lines are many by them
# Of a line as `projection` gives it: what lines are summed by, beside TEXT.
DAY = "CAST(started AS DATE)"
MONTH = "coalesce(month, date_trunc('month', started))"
NEGATIVE = "coalesce(unblended < 0, false)"
IS_BAD = """(started IS NULL OR (unblended IS NULL AND unblended_text != '')
             OR (quantity IS NULL AND quantity_text != ''))"""
_OF_COMMITMENTS = ("commitment", "commitment_status")
# How AWS writes the key of a tag: as it is, with the kind of tag before it, and in CUR 2.0 in snake case.
_TAG_KEYS = (
    "{0}", "user:{0}", "user_{1}", "user_{0}", "resourceTags/{0}", "resourceTags/user:{0}", "resourceTags/user_{1}",
    "iamPrincipal/{0}", "iamPrincipal/{1}", "accountTag/{0}", "costCategory/{0}", "aws:{0}", "{1}",
)  # fmt: skip
_TAG_COLUMNS = ("resource_tags_user_", "resource_tags_aws_", "resource_tags_", "tags_")


def snake(name: str) -> str:
    """A column's name in snake case.

    >>> snake("lineItem/UsageType"), snake("x_UsageType"), snake("bill_payer_account_id")
    ('line_item_usage_type', 'x_usage_type', 'bill_payer_account_id')
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def export_of(columns: Sequence[str]) -> str:
    """Which export has these columns: cur2, cur, focus, or "" for none."""
    known = {snake(column) for column in columns}
    if "line_item_usage_type" in known or "line_item_line_item_type" in known:
        legacy = any("/" in column for column in columns) or "identity_time_interval" not in known
        return "cur" if legacy or "product" not in known else "cur2"
    return "focus" if {"billed_cost", "charge_category"} <= known else ""


def missing(export: str, columns: Sequence[str]) -> list[str]:
    """The columns that a bill cannot be read without and that are not there."""
    known = {snake(column) for column in columns}
    wanted = FOCUS if export == "focus" else CUR
    optional = ("usage_type", "quantity") if export == "focus" else ()
    needed = [name for name in NEEDED if name not in optional]
    return [wanted[name][0] for name in needed if not known & set(wanted[name])]


def projection(export: str, types: Mapping[str, str], details: Sequence[str] = ()) -> str:
    """The SELECT list that gives our columns out of a file's (name to type), all of them always there."""
    by_name = {snake(column): column for column in types}
    wanted = FOCUS if export == "focus" else CUR

    def text(name: str) -> str:
        return _text(wanted.get(name, ()), by_name, types)

    parts = [_near(text), _named(text)]
    # What tells lines of other services apart is not asked for: there may be millions of it.
    kept = dict.fromkeys(_OF_COMMITMENTS, "near") | {"resource": "near AND NOT named"}
    line_type = _line_type(text("line_type"), text("bill_type")) if export == "focus" else text("line_type")
    named = {name: text(name) for name in TEXT} | {"line_type": line_type}
    parts += [f"{_if(kept[name], said) if name in kept else said} AS {name}" for name, said in named.items()]
    for i, detail in enumerate(details):
        kind, is_tag, tag = detail.partition(":")
        told = _tag(tag, wanted["tags"], by_name, types) if is_tag and kind == "tag" else text(detail)
        parts.append(f"{_if('near', told)} AS {detail_column(i)}")
    for name in ("started", "month"):
        exact = _type(wanted[name], by_name, types) == "TIMESTAMP"
        parts.append(f"{_exactly(wanted[name], by_name) if exact else _moment(text(name))} AS {name}")
    for name in AMOUNTS:
        of = wanted.get(name, ())
        parts.append(f"{_amount(text(name), of, by_name, types) if of else _NO_AMOUNT} AS {name}")
    for name in ("unblended", "quantity"):
        exact = _type(wanted[name], by_name, types).startswith("DECIMAL")
        parts.append(f"{_EMPTY if exact else text(name)} AS {name}_text")
    return ", ".join(parts)


def fingerprint(export: str, types: Mapping[str, str]) -> tuple[str, bool]:
    """What names a line in one delivery, its amounts apart; and whether AWS numbered it, so that it does for sure."""
    by_name = {snake(column): column for column in types}
    wanted = FOCUS if export == "focus" else CUR
    numbered = [name for name in wanted["id"] if name in by_name]
    names = ("id", "usage_type", "account", "line_type") if numbered else (
        "usage_type", "account", "line_type", "operation", "resource", "principal", "region", "description", "tags",
    )  # fmt: skip
    told = [_text(wanted.get(name, ()), by_name, types) for name in (*names, "started")]
    return f"hash({', '.join(told)})", bool(numbered)


def place(part: int) -> str:
    """A number for what a line is summed by."""
    return f"hash(CAST({part} AS INTEGER), {', '.join(TEXT)}, {DAY}, {MONTH}, {NEGATIVE})"


def detail_column(number: int) -> str:
    return f"detail_{number}"


def dates_are_us(text: str) -> bool:
    """Whether a date is written 9/30/2026."""
    return bool(re.match(r"\d{1,2}/\d{1,2}/\d{2}", text))


def month_text(export: str, types: Mapping[str, str]) -> str:
    by_name = {snake(column): column for column in types}
    return _text((FOCUS if export == "focus" else CUR)["month"], by_name, types)


def _near(text: Callable[[str], str]) -> str:
    """Whether a line may be ours at all, so that what tells it apart is worth keeping. Asked of every line there is."""
    tests = [f"contains({text(name)}, 'laude')" for name in ("usage_type", "product_name", "description")]
    tests += [f"contains({text(name)}, 'edrock')" for name in ("product_code", "product_name")]
    return f"({' OR '.join(tests)} OR contains({text('usage_type')}, 'MP:')) AS near"


def _named(text: Callable[[str], str]) -> str:
    """Whether the names of a line tell its model: its resource is asked for only where nothing else does."""
    names = ("usage_type", "product_name", "description")
    told = " OR ".join(f"contains({text(name)}, 'laude')" for name in names)
    return f"({told}) AND NOT contains({text('usage_type')}, 'rovisioned') AS named"


_EMPTY = "''"
_NO_AMOUNT = "CAST(NULL AS DECIMAL(38, 12))"


def _type(names: Sequence[str], by_name: Mapping[str, str], types: Mapping[str, str]) -> str:
    """The type of the column that holds it, if it is one alone."""
    found = [by_name[name] for name in names if name in by_name]
    return types[found[0]].upper() if len(found) == 1 else ""


def _exactly(names: Sequence[str], by_name: Mapping[str, str]) -> str:
    return next(f'"{by_name[name]}"' for name in names if name in by_name)


def _amount(text: str, names: Sequence[str], by_name: Mapping[str, str], types: Mapping[str, str]) -> str:
    """By way of its text, which is shortest, unless it is exact as it is."""
    if _type(names, by_name, types).startswith("DECIMAL"):
        return f"TRY_CAST({_exactly(names, by_name)} AS DECIMAL(38, 12))"
    return f"TRY_CAST(nullif({text}, '') AS DECIMAL(38, 12))"


def _line_type(category: str, of_class: str) -> str:
    """The category of a charge; usage that corrects what was invoiced before is a type of its own."""
    corrects = f"{category} = 'Usage' AND {of_class} = 'Correction'"
    return f"CASE WHEN {corrects} THEN 'UsageCorrection' ELSE {category} END"


def _if(condition: str, text: str) -> str:
    return "''" if text == "''" else f"CASE WHEN {condition} THEN {text} ELSE '' END"


def _moment(text: str) -> str:
    """The time in UTC, of whatever zone it is; what names none is UTC; 9/30/2026 is how FOCUS files of the US go."""
    zoned = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
    plain = f"TRY_CAST(replace(substr({text}, 1, 19), 'T', ' ') AS TIMESTAMP)"
    forms = [day + hour for day in ("%m/%d/%y", "%m/%d/%Y") for hour in ("", " %H:%M", " %H:%M:%S")]
    us = f"try_strptime({text}, {forms})"
    return f"CASE WHEN contains({text}, '/') THEN {us} ELSE coalesce({zoned}, {plain}) END"


def _tag(tag: str, columns: Sequence[str], by_name: Mapping[str, str], types: Mapping[str, str]) -> str:
    """The value of a tag, from a column of its own or from a map of tags; "" where the line has none."""
    named = [f"{prefix}{snake(tag)}" for prefix in _TAG_COLUMNS]
    found = [_column(name, by_name, types) for name in named if name in by_name]
    keys = dict.fromkeys(form.format(tag, snake(tag)) for form in _TAG_KEYS)
    for column in (by_name[name] for name in columns if name in by_name):
        quoted = '"' + column.replace('"', '""') + '"'
        kind = types[column].upper()
        text = quoted if kind == "VARCHAR" else f"CAST(to_json({quoted}) AS VARCHAR)"
        for key in keys:
            if kind.startswith("MAP"):
                found.append(f"CAST({quoted}[{_literal(key)}] AS VARCHAR)")
            else:
                path = _literal("$." + json.dumps(key))
                found.append(f"CASE WHEN json_valid({text}) THEN json_extract_string({text}, {path}) END")
    if not found:
        return "''"
    return "coalesce(" + ", ".join(f"nullif(nullif({one}, ''), 'NULL')" for one in found) + ", '')"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(names: Sequence[str], by_name: Mapping[str, str], types: Mapping[str, str]) -> str:
    """The first of these columns that says something, as text; NULL and the word NULL say nothing."""
    found = [expression for name in names if (expression := _column(name, by_name, types))]
    if not found:
        return "''"
    return "coalesce(" + ", ".join(f"nullif(nullif({one}, ''), 'NULL')" for one in found) + ", '')"


def _column(name: str, by_name: Mapping[str, str], types: Mapping[str, str]) -> str:
    outer, _, key = name.partition(".")
    column = by_name.get(outer)
    if column is None:
        return ""
    quoted = '"' + column.replace('"', '""') + '"'
    kind = types[column].upper()
    if not key:
        if kind.startswith(("MAP", "STRUCT")) or kind.endswith("[]"):
            return f"CAST(to_json({quoted}) AS VARCHAR)"
        return f"CAST({quoted} AS VARCHAR)"
    if kind.startswith("MAP"):
        return f"CAST({quoted}['{key}'] AS VARCHAR)"
    if kind.startswith("STRUCT"):
        return f'CAST({quoted}."{key}" AS VARCHAR)' if f"{key} " in types[column].lower() else ""
    return f"CASE WHEN json_valid({quoted}) THEN json_extract_string({quoted}, '$.{key}') END"
