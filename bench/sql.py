"""The best hand-written DuckDB SQL for spend by model, team and day, on the Parquet files of a ledger.

It is spared what farthing does: the SKU of each context and the price list are read from small files made
beforehand, every price change is known to fall on midnight UTC, the only prompt size at which a price changes
is written into the query, and nothing is counted as unpriced or assumed.
"""

from __future__ import annotations

from pathlib import Path

TOKENS = "input, output, cache_read, cache_write_5m, cache_write_1h"
SUMS = ", ".join(f"sum({name})" for name in ("calls", *TOKENS.split(", ")))
PROMPT = "abs(input + cache_read + cache_write_5m + cache_write_1h)"
DAY_US = 86_400_000_000


def views(folder: Path) -> str:
    """What every variant reads; the small tables are loaded, the rows are not."""
    return f"""
        SET TimeZone = 'UTC';
        CREATE VIEW usage AS SELECT * FROM read_parquet('{folder}/usage/*/*.parquet', hive_partitioning = false);
        CREATE TABLE sku_of AS SELECT ctx, CAST(sku AS UTINYINT) AS sku, model
            FROM read_parquet('{folder.with_suffix(".skus.parquet")}');
        CREATE TABLE cards AS SELECT * FROM read_parquet('{folder.with_suffix(".cards.parquet")}');
        CREATE TABLE team_of AS
            SELECT tags, min(value) AS team, CAST(dense_rank() OVER (ORDER BY min(value)) AS UTINYINT) AS code
            FROM read_parquet('{folder}/tags/*.parquet') WHERE key = 'team' GROUP BY tags;
    """


# The obvious one: find the card of each row, price the row, sum.
JOIN_THEN_PRICE = f"""
    SELECT s.model, t.team, CAST(u."at" AS DATE) AS day, {SUMS},
           sum(input * r_input + output * r_output + cache_read * r_read
               + cache_write_5m * r_5m + cache_write_1h * r_1h) AS picos
    FROM usage u
    JOIN sku_of s USING (ctx)
    JOIN cards c ON c.sku = s.sku AND u."at" >= c.starts AND u."at" < c.ends
                AND {PROMPT} >= c.prompt_from AND {PROMPT} < c.prompt_to
    LEFT JOIN team_of t USING (tags)
    GROUP BY ALL
"""

# The same with the ledger's own number of the day: casting a time with zone to a date is slow.
JOIN_THEN_PRICE_BY_DAY = JOIN_THEN_PRICE.replace('CAST(u."at" AS DATE)', "DATE '1970-01-01' + u.day")

# Sum tokens by the raw keys of the ledger, join and price the sums.
SUM_BY_CONTEXT = f"""
    WITH summed AS (
        SELECT ctx, tags, day, {PROMPT} > 100000 AS long,
               {", ".join(f"sum({n}) AS {n}" for n in ("calls", *TOKENS.split(", ")))}
        FROM usage GROUP BY ALL
    )
    SELECT s.model, t.team, DATE '1970-01-01' + day AS day, {SUMS},
           sum(input * r_input + output * r_output + cache_read * r_read
               + cache_write_5m * r_5m + cache_write_1h * r_1h) AS picos
    FROM summed
    JOIN sku_of s USING (ctx)
    JOIN cards c ON c.sku = s.sku
                AND make_timestamptz(day * {DAY_US}) >= c.starts AND make_timestamptz(day * {DAY_US}) < c.ends
                AND CASE WHEN long THEN 100001 ELSE 0 END >= c.prompt_from
                AND CASE WHEN long THEN 100001 ELSE 0 END < c.prompt_to
    LEFT JOIN team_of t USING (tags)
    GROUP BY ALL
"""

# Turn context and tags into codes of one byte, sum tokens by code, price the sums. The best so far.
SUM_BY_CODE = f"""
    WITH summed AS (
        SELECT sku, code, day, {PROMPT} > banded AS long,
               {", ".join(f"sum({n}) AS {n}" for n in ("calls", *TOKENS.split(", ")))}
        FROM usage
        JOIN (SELECT ctx, sku, CASE WHEN model = 'claude-haiku-5-5' THEN 100000 ELSE 2^62 END :: BIGINT AS banded
              FROM sku_of) USING (ctx)
        JOIN team_of USING (tags)
        GROUP BY ALL
    )
    SELECT s.model, t.team, DATE '1970-01-01' + day AS day, {SUMS},
           sum(input * r_input + output * r_output + cache_read * r_read
               + cache_write_5m * r_5m + cache_write_1h * r_1h) AS picos
    FROM summed
    JOIN (SELECT DISTINCT sku, model FROM sku_of) s USING (sku)
    JOIN cards c ON c.sku = s.sku
                AND make_timestamptz(day * {DAY_US}) >= c.starts AND make_timestamptz(day * {DAY_US}) < c.ends
                AND CASE WHEN long THEN 100001 ELSE 0 END >= c.prompt_from
                AND CASE WHEN long THEN 100001 ELSE 0 END < c.prompt_to
    JOIN (SELECT DISTINCT code, team FROM team_of) t USING (code)
    GROUP BY ALL
"""

VARIANTS = {
    "join_then_price": JOIN_THEN_PRICE,
    "join_then_price_by_day": JOIN_THEN_PRICE_BY_DAY,
    "sum_by_context": SUM_BY_CONTEXT,
    "sum_by_code": SUM_BY_CODE,
}

SCAN = f"SELECT {', '.join(f'sum({name})' for name in TOKENS.split(', '))} FROM usage"
