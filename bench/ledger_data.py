"""A made-up ledger of any size, written as the product writes it: same schema, partitions, compression, commits.

2,000 contexts call twelve SKUs of two platforms for one month of 25 teams. In that month a price changes
(Sonnet 5.5), a model appears (Haiku 5.5, five times dearer above 100,000 prompt tokens), one row in 200 takes
back another, and a tenth of the contexts leave something assumed. Every number is a hash of the row's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.made import keep
from farthing.book import default_book
from farthing.ledger import Ledger, content_code
from farthing.ledger._tables import DUCK, TABLES, WRITER
from farthing.usage import Facts

CONTEXTS = 2_000
TEAMS = 25
CHUNK = 2_500_000  # rows a commit
START, DAYS = "2026-10-01", 31
START_DAY = 20_727  # of that month, counted from 1970
DAY_US = 86_400_000_000
APPEARS_DAY = 6  # of the month, counted from 0: when Haiku 5.5 was released

# (platform, id as called, the id called before that model appeared)
SKUS = (
    ("bedrock", "global.anthropic.claude-sonnet-4-6", ""),
    ("bedrock", "us.anthropic.claude-sonnet-4-6", ""),
    ("bedrock", "global.anthropic.claude-sonnet-5-5", ""),
    ("bedrock", "eu.anthropic.claude-sonnet-5-5", ""),
    ("bedrock", "global.anthropic.claude-opus-5-5", ""),
    ("bedrock", "us.anthropic.claude-opus-5-5", ""),
    ("bedrock", "global.anthropic.claude-haiku-5-5", "global.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ("bedrock", "us.anthropic.claude-haiku-5-5", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", ""),
    ("anthropic", "claude-sonnet-5-5", ""),
    ("anthropic", "claude-opus-5-5", ""),
    ("anthropic", "claude-haiku-5-5", "claude-haiku-4-5"),
)
REGIONS = ("us-east-1", "us-west-2", "eu-central-1")


def make_ledger(folder: Path, rows: int) -> dict[str, Any]:
    """A ledger of so many rows, unless it is there; two small files beside it serve hand-written SQL."""

    def write(folder: Path) -> dict[str, Any]:
        _write(folder, rows)
        return {"rows": rows}

    made_by = Path(__file__).read_text(encoding="utf-8") + str(TABLES) + default_book().digest
    return keep(folder, made_by, write)


def _write(folder: Path, rows: int) -> None:
    ledger = Ledger(folder)
    con = ledger.connection
    contexts, tags = _contexts(), _tags()
    facts = zip(*(facts for _, _, facts in contexts), strict=True)
    ledger.commit(
        "contexts", {"ctx": [code for _, code, _ in contexts]} | dict(zip(Facts._fields, facts, strict=True))
    )
    pairs = zip(*((code, *pair) for code, told in tags for pair in told), strict=True)
    ledger.commit("tags", dict(zip(("tags", "key", "value"), pairs, strict=True)))
    codes = {facts: code for _, code, facts in contexts}
    con.execute("CREATE TABLE made_contexts (place INTEGER, ctx BIGINT, early BIGINT, kind TINYINT)")
    for place, (kind, code, said) in enumerate(contexts[:CONTEXTS]):
        early = SKUS[place % len(SKUS)][2]
        old = codes[said._replace(model_id=early)] if early else code
        con.execute("INSERT INTO made_contexts VALUES (?, ?, ?, ?)", [place, code, old, kind])
    con.execute("CREATE TABLE made_tags (place INTEGER, tags BIGINT)")
    con.executemany(
        "INSERT INTO made_tags VALUES (?, ?)", [(place, code) for place, (code, _) in enumerate(tags)]
    )
    for start in range(0, rows, CHUNK):
        delta = ledger.delta("usage", make=True)
        version = delta.transaction_version(WRITER) or 0
        chunk: Any = con.sql(_rows(start, min(start + CHUNK, rows), rows))
        if not ledger.commit("usage", chunk, delta, version + 1):
            raise RuntimeError(f"{folder}: another writer is at work")
    _write_skus(con, contexts, folder.with_suffix(".skus.parquet"), folder.with_suffix(".cards.parquet"))


def _contexts() -> list[tuple[int, int, Facts]]:
    """(kind, code, facts) of each context, then of those that models had before they appeared.

    A kind is how a context caches: 0 not at all, 1 for five minutes, 2 for an hour.
    """
    made = []
    for place in range(CONTEXTS):
        platform, model_id, _ = SKUS[place % len(SKUS)]
        aws = platform == "bedrock"
        made.append((place // len(SKUS) % 3, Facts(
            source="bedrock_log" if aws else "claude_code",
            platform=platform,
            model_id=model_id,
            region=REGIONS[place % 3] if aws else "",
            account=f"{111_122_223_000 + place % 7}" if aws else "",
            principal=f"arn:aws:sts::111122223333:assumed-role/app/pod-{place}" if aws else "",
            session="" if aws else f"session-{place}",
            project="" if aws else f"/home/dev/project-{place % 40}",
            operation="Converse" if aws else "",
            assumed="ttl" if place % 10 == 9 and aws else "",
        )))  # fmt: skip
    elders = [
        (kind, facts._replace(model_id=SKUS[place % len(SKUS)][2]))
        for place, (kind, facts) in enumerate(made)
        if SKUS[place % len(SKUS)][2]
    ]
    return [(kind, content_code(facts), facts) for kind, facts in (*made, *elders)]


def _tags() -> list[tuple[int, tuple[tuple[str, str], ...]]]:
    """Three apps a team: (code, pairs)."""
    sets = [
        (("app", f"app-{team}-{app}"), ("team", f"team-{team:02}"))
        for app in range(3)
        for team in range(TEAMS)
    ]
    return [(content_code(pairs), pairs) for pairs in sets]


def _rows(first: int, last: int, rows: int) -> str:
    """Rows of the `usage` table, in order of time; a context belongs to one team and calls under its apps."""
    columns = ", ".join(
        f'CAST("{"at_" if name == "at" else name}" AS {DUCK[kind]}) AS "{name}"'
        for name, kind in TABLES["usage"].items()
    )
    return f"""
        WITH numbered AS (
            SELECT i, i % 200 = 199 AS reversal, CASE WHEN i % 200 = 199 THEN i - 1 ELSE i END AS j
            FROM range({first}, {last}) t(i)
        ), drawn AS (
            SELECT *, hash(j * 4) AS h1, hash(j * 4 + 1) AS h2, hash(j * 4 + 2) AS h3, hash(j * 4 + 3) AS h4,
                   CAST(CAST(j AS HUGEINT) * {DAYS * DAY_US - 3_600_000_000} // {rows} AS BIGINT)
                   + CAST(hash(j) % 3600000000 AS BIGINT) AS offset_us
            FROM numbered
        ), called AS (
            SELECT d.*, c.kind, c.place, CASE WHEN offset_us < {APPEARS_DAY * DAY_US} THEN early ELSE ctx END AS ctx,
                   CASE WHEN reversal THEN -1 ELSE 1 END AS sign,
                   -- a long tail: the product of three uniform draws
                   (h1 % 1024 + 1) * (h1 // 1024 % 1024 + 1) * (h1 // 1048576 % 1024 + 1) AS tail
            FROM drawn d JOIN made_contexts c ON c.place = (h2 % {CONTEXTS}) * (h2 // 65536 % {CONTEXTS}) // {CONTEXTS}
        )
        SELECT {columns} FROM (
            SELECT '{START[:7]}' AS month, TIMESTAMPTZ '{START} 00:00:00+00' + to_microseconds(offset_us) AS at_,
                   {START_DAY} + offset_us // {DAY_US} AS day, sign AS calls, reversal, 0 AS part, ctx, t.tags,
                   CAST(sign AS BIGINT) * CASE kind WHEN 0 THEN 200 + tail // 6000 ELSE 3 + h3 % 600 END AS input,
                   sign * (20 + tail // 1000000 + h3 // 65536 % 400) AS output,
                   CAST(sign AS BIGINT) * CASE kind WHEN 0 THEN 0 ELSE h4 % 90000 END AS cache_read,
                   CAST(sign AS BIGINT) * CASE kind WHEN 1 THEN h4 // 131072 % 6000 ELSE 0 END AS cache_write_5m,
                   CAST(sign AS BIGINT) * CASE kind WHEN 2 THEN h4 // 131072 % 6000 ELSE 0 END AS cache_write_1h,
                   300 + h3 // 1048576 % 20000 AS latency_ms,
                   CAST(md5(CAST(j AS VARCHAR)) AS UUID) AS request_id, '' AS message_id, '' AS gateway_id,
                   false AS sidechain, '' AS also
            FROM called
            JOIN made_tags t ON t.place = called.place % {TEAMS} + {TEAMS} * CAST(h4 // 1048576 % 3 AS INTEGER)
        ) ORDER BY "at"
    """


def _write_skus(con: Any, contexts: list[tuple[int, int, Facts]], skus: Path, cards: Path) -> None:
    """What hand-written SQL joins to: the SKU of each context and the price list, as small Parquet files."""
    book = default_book()
    con.execute("CREATE TABLE sku_of (ctx BIGINT, sku SMALLINT, model VARCHAR)")
    found: dict[Any, int] = {}
    for _, code, facts in contexts:
        place = book.resolve(facts.model_id, platform=facts.platform, region=facts.region)
        number = found.setdefault(place.sku, len(found))  # type: ignore[union-attr]
        con.execute("INSERT INTO sku_of VALUES (?, ?, ?)", [code, number, place.sku.model])  # type: ignore[union-attr]
    con.execute(f"COPY sku_of TO '{skus}' (FORMAT parquet)")
    con.execute("""CREATE TABLE cards (sku SMALLINT, starts TIMESTAMPTZ, ends TIMESTAMPTZ, prompt_from BIGINT,
                   prompt_to BIGINT, r_input BIGINT, r_output BIGINT, r_read BIGINT, r_5m BIGINT, r_1h BIGINT)""")
    for card in book.cards(*found):
        row = [found[card.sku], card.starts, card.ends, card.prompt_from, card.prompt_to, *card.rates]
        con.execute("INSERT INTO cards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    con.execute(f"COPY cards TO '{cards}' (FORMAT parquet)")
