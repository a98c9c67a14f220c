"""Statements that tell a warehouse where a ledger's tables lie. They copy nothing: the tables are Delta Lake's."""

from __future__ import annotations

READ = ("usage", "contexts", "tags")  # of the ledger's tables, those that a question reads
DIALECTS = {
    "athena": "athena",
    "trino": "trino",
    "spark": "pyspark",
    "duckdb": "duckdb",
}  # and what Ibis calls them


def statements(dialect: str, location: str, database: str) -> list[str]:
    """One statement each: Athena takes one at a time. `database` may be CATALOG.DATABASE."""
    catalog, _, schema = database.rpartition(".")
    places = {name: f"{location.rstrip('/')}/{name}" for name in READ}
    inside = quoted(dialect, database)
    if dialect == "athena":
        made = f"CREATE DATABASE IF NOT EXISTS `{schema}`"
        return [
            made,
            *(
                f"CREATE EXTERNAL TABLE IF NOT EXISTS `{schema}`.`{name}` LOCATION {literal(place + '/')} "
                "TBLPROPERTIES ('table_type' = 'DELTA')"
                for name, place in places.items()
            ),
        ]
    made = f"CREATE SCHEMA IF NOT EXISTS {inside}"
    if dialect == "trino":
        call = f'"{catalog}".system.register_table' if catalog else "system.register_table"
        return [
            made,
            *(
                f"CALL {call}(schema_name => {literal(schema)}, table_name => {literal(name)}, "
                f"table_location => {literal(place)})"
                for name, place in places.items()
            ),
        ]
    if dialect == "spark":
        return [
            "SET TIME ZONE 'UTC'",
            made,
            *(
                f"CREATE TABLE IF NOT EXISTS {inside}.`{name}` USING DELTA LOCATION {literal(place)}"
                for name, place in places.items()
            ),
        ]
    return [
        "INSTALL delta",
        "LOAD delta",
        "SET TimeZone = 'UTC'",
        made,
        *(
            f'CREATE OR REPLACE VIEW {inside}."{name}" AS SELECT * FROM delta_scan({literal(place)})'
            for name, place in places.items()
        ),
    ]


def quoted(dialect: str, name: str) -> str:
    """A name of parts, as the dialect writes it in what is no query."""
    mark = "`" if dialect in ("spark", "athena") else '"'
    return ".".join(f"{mark}{part.replace(mark, mark * 2)}{mark}" for part in name.split("."))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
