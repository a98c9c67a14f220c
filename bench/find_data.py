"""Made-up data for what finds the cheapest plan: logs of prompt blocks, a trace, a bill with the ledger it is of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from bench.made import keep
from farthing.book import Card, default_book
from farthing.cache import FIVE_US, Trace
from farthing.cache import Plan as Breakpoints
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.usage import EPOCH, Facts, Sku, Usage
from tests import bills

BLOCK = 64  # tokens
MICROSECOND = timedelta(microseconds=1)

# Conversations that grow turn by turn: each sends all its blocks again, some seconds later, at times after a pause.
GROWING = """
    WITH conversations AS (
        SELECT s, 200 + hash(s) % 600 AS first, 3 + hash(s + 7) % 50 AS more, 20 + hash(s + 13) % 100 AS turns
        FROM range({rows} // 90_000 + 1) t(s)
    ), requests AS (
        SELECT s, first + i * more AS blocks,
               1_000_000 * (s * 977 + i * 20
                            + CASE WHEN hash(s * 1_000 + i) % 20 = 0 THEN 900 * (i % 7) ELSE 0 END) AS now
        FROM conversations, range(120) u(i) WHERE i < turns
    )
    SELECT (hash(s * 100_000 + b) >> 1)::BIGINT AS prefix, now::BIGINT AS at_us, {block} AS tokens,
           ((b + 1) * {block})::INTEGER AS depth
    FROM requests, range(7_000) v(b) WHERE b < blocks LIMIT {rows}
"""
# The worst there is: each block is sent 45 times, at times of its own.
UNLIKE = """
    WITH gaps AS (
        SELECT s, i, (hash(s * 64 + i + 1_000_000_007) % CASE WHEN hash(s * 64 + i) % 100 < 70 THEN 20
            WHEN hash(s * 64 + i) % 100 < 90 THEN 200 WHEN hash(s * 64 + i) % 100 < 98 THEN 1_500 ELSE 9_000 END
            * 1_000_000)::BIGINT AS gap
        FROM range({first}, {last}) t(s), range(45) u(i)
    )
    SELECT (hash(s) >> 1)::BIGINT AS prefix, {block} AS tokens, (1_024 + s % 2_000 * {block})::INTEGER AS depth,
           ((hash(s) % 86_400_000_000)::BIGINT + sum(gap) OVER (PARTITION BY s ORDER BY i))::BIGINT AS at_us
    FROM gaps ORDER BY at_us
"""
UNLIKE_AT_ONCE = 200_000  # blocks, so that making them needs little memory


def make_blocks(folder: Path, rows: int) -> dict[str, Any]:
    """Two logs of so many rows, a row each time a block was sent: `growing` and `unlike`."""

    def write(folder: Path) -> dict[str, Any]:
        import duckdb

        kinds = {"growing": [GROWING.format(rows=rows, block=BLOCK)], "unlike": []}
        for first in range(0, rows // 45, UNLIKE_AT_ONCE):
            last = min(first + UNLIKE_AT_ONCE, rows // 45)
            kinds["unlike"].append(UNLIKE.format(first=first, last=last, block=BLOCK))
        for kind, queries in kinds.items():
            (folder / kind).mkdir(parents=True)
            for number, query in enumerate(queries):
                duckdb.execute(
                    f"COPY ({query}) TO '{folder / kind / f'{number:03}.parquet'}' (COMPRESSION zstd)"
                )
        return {
            f"{kind}_rows": duckdb.execute(f"SELECT count(*) FROM '{folder / kind}/*.parquet'").fetchall()[0][
                0
            ]
            for kind in kinds
        }

    return keep(folder, f"{GROWING}{UNLIKE}{UNLIKE_AT_ONCE}", write)


def growing_trace(accesses: int) -> Trace:
    """Conversations of 40 system blocks and 60 turns that grow by up to twelve blocks, at the same time."""
    chance = np.random.default_rng(5)
    turns, system = 60, 40
    count = max(1, accesses // 16_000)
    lengths = 100 + np.cumsum(chance.integers(1, 13, (count, turns)), axis=1)
    gaps = chance.choice([8, 30, 200, 900, 5_000], (count, turns), p=[0.5, 0.3, 0.12, 0.06, 0.02])
    at = chance.integers(0, 10 * 86_400, (count, 1)) + np.cumsum(gaps, axis=1)
    order = np.argsort(at.ravel(), kind="stable")
    blocks, of = lengths.ravel()[order], np.repeat(np.arange(count), turns)[order]
    widest = int(lengths.max())
    starts = np.concatenate([[0], np.cumsum(blocks)])
    nodes = np.arange(starts[-1]) - np.repeat(starts[:-1], blocks) + np.repeat(of * widest, blocks)
    each = np.ones(len(order), np.int64)
    return Trace(
        at_us=at.ravel()[order] * 1_000_000, namespace=of, output=each * 400, plain=each * 30, starts=starts,
        nodes=nodes, sizes=np.full(count * widest, BLOCK, np.int64), system=each * system, kinds=each * 0,
    )  # fmt: skip


def marked(trace: Trace) -> Breakpoints:
    """Two breakpoints a request, behind its system prompt and at its end, for five minutes."""
    ends = np.stack([trace.system - 1, np.diff(trace.starts) - 1], axis=1)
    return Breakpoints(
        np.arange(0, ends.size + 1, 2), ends.ravel().astype(np.int64), np.full(ends.size, FIVE_US, np.int64)
    )


class ListPrices(bills.Rates):
    """What the bill's lines cost, by our book: what is measured here is speed."""

    def __init__(self) -> None:
        pass

    def of(self, model: str, endpoint: str, mode: str, meter: str) -> Decimal:
        found = default_book().find(Sku("bedrock", model, endpoint, "", mode), bills.MONTH, 0)
        if not isinstance(found, Card):
            raise TypeError(f"{model} has no price")
        return Decimal(found.rates[METERS.index(meter)]) / 10**12


def make_bill(folder: Path, lines: int) -> dict[str, Any]:
    """A month's CUR 2.0 in Parquet of so many lines, each of one workload's share of a meter, and a ledger of it."""

    def write(folder: Path) -> dict[str, Any]:
        calls = bills.traffic(days=30, a_day=400)
        found = bills.lines(calls, ListPrices())
        (folder / "bill").mkdir(parents=True)
        base = bills.write_parquet(folder / "base.parquet", found)
        shares = -(-lines // len(found))
        _split(base, shares, folder / "bill" / "cur.parquet")
        base.unlink()
        Ledger(folder / "ledger").append(_usages(calls))
        return {"lines": len(found) * shares, "calls": len(calls)}

    made_by = Path(__file__).read_text(encoding="utf-8") + Path(bills.__file__).read_text(encoding="utf-8")
    return keep(folder, made_by + default_book().digest, write)


def _split(base: Path, shares: int, target: Path) -> None:
    """Each line in so many shares, whose tokens and dollars add up to it exactly."""
    import duckdb

    duckdb.execute(f"""
        COPY (
            WITH counted AS (
                SELECT *, CASE pricing_unit WHEN 'Units' THEN 1_000_000 ELSE 1_000 END AS a_unit,
                       CAST(line_item_usage_amount * CASE pricing_unit WHEN 'Units' THEN 1_000_000 ELSE 1_000 END
                            AS BIGINT) AS tokens
                FROM '{base}'
            ), shared AS (
                SELECT c.*, i, tokens // {shares} + CASE WHEN i < tokens % {shares} THEN 1 ELSE 0 END AS share,
                       CAST(line_item_unblended_cost * 1_000_000_000_000 AS HUGEINT) // tokens AS rate
                FROM counted c, range({shares}) t(i)
            )
            SELECT * EXCLUDE (i, tokens, share, rate, a_unit) REPLACE (
                identity_line_item_id || '-' || i AS identity_line_item_id,
                CAST(CAST(share * (1_000_000 // a_unit) AS DECIMAL(20, 0)) * 0.000001::DECIMAL(7, 6) AS DECIMAL(38, 12))
                    AS line_item_usage_amount,
                CAST(CAST(share * rate AS DECIMAL(20, 0)) * 0.000000000001::DECIMAL(13, 12) AS DECIMAL(38, 12))
                    AS line_item_unblended_cost),
                'arn:aws:sts::111122223333:assumed-role/role-' || i % 5_000 || '/run' AS line_item_iam_principal,
                'arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/p' || i % 300
                    AS line_item_resource_id
            FROM shared
        ) TO '{target}' (FORMAT parquet)""")


def _usages(calls: Sequence[bills.Call]) -> list[Usage]:
    made = []
    for number, call in enumerate(calls):
        named = next(name for name in default_book().models[call.model].ids if name.startswith("anthropic."))
        facts = Facts(
            "bedrock_batch" if call.mode == "batch" else "bedrock_log", "bedrock",
            ("global." if call.endpoint == "global" else "") + named, region=call.region, account=call.account,
            mode="batch" if call.mode == "batch" else "",
        )  # fmt: skip
        at_us = (call.at.astimezone(UTC) - EPOCH) // MICROSECOND
        made.append(Usage(at_us, f"r{number}", "", ((facts, call.tokens),)))
    return made
