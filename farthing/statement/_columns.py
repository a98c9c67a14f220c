"""The columns of AWS bills, in every export that has them, under one name each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
    "tags": ("resource_tags", "tags"),
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
    "tags": ("tags",),
}
NEEDED = ("usage_type", "line_type", "started", "quantity", "unblended")
TEXT = (
    "usage_type", "product_code", "product_name", "service_code", "unit", "description", "region", "resource",
    "account", "payer", "invoice", "entity", "currency", "line_type",
)  # fmt: skip
MONEY = ("unblended", "net", "public")


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


def projection(export: str, types: Mapping[str, str]) -> str:
    """The SELECT list that gives our columns out of a file's (name to type), all of them always there."""
    by_name = {snake(column): column for column in types}
    wanted = FOCUS if export == "focus" else CUR
    parts = [
        f"{_text(wanted.get(name, ()), by_name, types)} AS {name}" for name in TEXT if name != "resource"
    ]
    names = [
        _text(wanted.get(name, ()), by_name, types) for name in ("usage_type", "product_name", "description")
    ]
    told = " OR ".join(f"contains({name}, 'laude')" for name in names)
    # resources are many, and are asked for only where nothing else names the model
    resource = _text(wanted.get("resource", ()), by_name, types)
    parts.append(f"CASE WHEN {told} THEN '' ELSE {resource} END AS resource")
    for name in ("started", "month"):
        text = _text(wanted[name], by_name, types)
        # of another time zone, the day in UTC; what names none is UTC
        zoned = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
        plain = f"TRY_CAST(replace(substr({text}, 1, 19), 'T', ' ') AS TIMESTAMP)"
        parts.append(f"coalesce({zoned}, {plain}) AS {name}")
    for name in ("quantity", *MONEY):
        text = _text(wanted[name], by_name, types)
        parts.append(f"TRY_CAST(nullif({text}, '') AS DECIMAL(38, 12)) AS {name}")
    parts.append(f"{_text(wanted['unblended'], by_name, types)} AS unblended_text")
    parts.append(f"{_text(wanted['quantity'], by_name, types)} AS quantity_text")
    return ", ".join(parts)


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
