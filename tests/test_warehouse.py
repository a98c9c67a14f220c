"""SQL for a warehouse comes to what the ledger's cells come to, to the picodollar: random ledgers, questions, keys."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing import cli, warehouse
from farthing.book import Card
from farthing.cells import Cell, Question, QuestionError, cells, parse_where
from farthing.config import Config, Team, Workload
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.offers import contract_book, load_offers
from farthing.reports import hanging
from farthing.usage import EPOCH, Facts, Usage
from tests.test_cells import PROFILE
from tests.test_spark_cells import HARD, random_ledger
from tests.test_web_cube import keys, questions

sqlglot = pytest.importorskip("sqlglot", reason="pip install 'farthing[sql]'")
pytest.importorskip("ibis", reason="pip install 'farthing[sql]'")

Rows = dict[tuple[Any, ...], tuple[Any, ...]]
AT = (datetime(2026, 10, 5, 12, tzinfo=UTC) - EPOCH).days * 86_400_000_000
OPUS = "anthropic.claude-opus-4-8"
RATE = 5_500_000  # $5 a million tokens, and a tenth for a regional endpoint
SESSION = "arn:aws:sts::111122223333:assumed-role/app-search/i-0"
USER = "arn:aws:iam::111122223333:user/ann"
CLAIMS = Config(
    teams={
        "web": Team(tags=("team=s*", "env=prod"), accounts=("4444*",)),
        "search": Team(tags=("team=search",), principals=("arn:aws:iam::*:role/path/app-*",)),
        "bots": Team(profiles=("a1b2c3d4e5f6",), principals=(USER,), projects=("/home/?",)),
        # many, as a company has them: cases that stand in one another become too deep
        **{f"team {i}": Team(tags=(f"team=of {i}",), projects=(f"/home/of {i}/*",)) for i in range(60)},
    },
    workloads={
        "tests": Workload(tags=("env=t?st",), profiles=("*a1b2*",)),
        "nightly": Workload(projects=("/home/a",)),
    },
)


# --- what is compared ------------------------------------------------------------------------------------------------


def lake(ledger: Ledger) -> duckdb.DuckDBPyConnection:
    """The ledger's tables in a DuckDB of their own, which knows nothing of farthing."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE SCHEMA farthing")
    for name in warehouse.READ:
        con.register(f"all_{name}", DeltaTable(f"{ledger.folder}/{name}").to_pyarrow_table())
        con.execute(f"CREATE TABLE farthing.{name} AS FROM all_{name}")
    # what sqlglot leaves as it is
    con.execute("CREATE MACRO parse_duration(text) AS CAST(replace(text, 'd', ' days') AS INTERVAL)")
    return con


def answered(
    con: duckdb.DuckDBPyConnection, ledger: Ledger, question: Question, by: Sequence[str], dialect: str
) -> Rows:
    """What the query says. That of an engine that is not here is put into DuckDB's words first."""
    made = warehouse.query(ledger, question, by, dialect)
    sql = made.sql
    if dialect != "duckdb":
        (sql,) = sqlglot.transpile(sql, read=dialect, write="duckdb")
    found = con.execute(sql)
    assert tuple(column[0] for column in found.description) == made.columns
    return as_rows(found.fetchall(), by)


def as_rows(found: Sequence[Any], by: Sequence[str]) -> Rows:
    rows = {tuple(row[: len(by)]): tuple(map(whole, row[len(by) :])) for row in found}
    assert len(rows) == len(found)
    return rows


def whole(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def summed(ledger: Ledger, question: Question, by: Sequence[str]) -> Rows:
    """The same of the cells: counts and picodollars by keys, None where nothing has a price, and why."""
    groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells(ledger, question, by):
        groups[cell.keys].append(cell)
    return {key: tuple(totals(found)) for key, found in groups.items()}


def totals(found: Sequence[Cell]) -> Iterator[Any]:
    priced = [cell for cell in found if isinstance(cell.price, Card)]
    yield sum(cell.calls for cell in found)
    yield from (sum(getattr(cell.tokens, meter) for cell in found) for meter in METERS)
    yield sum(cell.calls for cell in found if not isinstance(cell.price, Card))
    yield sum(cell.cost for cell in priced) if priced else None
    yield sum(hanging(cell) for cell in priced if cell.assumed) if priced else None
    yield max((cell.price.reason for cell in found if not isinstance(cell.price, Card)), default=None)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Ledger:
    return Ledger(random_ledger(tmp_path_factory.mktemp("ledger"), 300, 4))


@pytest.fixture(scope="module")
def con(ledger) -> duckdb.DuckDBPyConnection:
    return lake(ledger)


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(HARD)))
def test_a_query_comes_to_what_cells_do(ledger, con, number):
    question, by = HARD[number]
    dialect = ("trino", "duckdb", "athena")[number % 3]
    wanted = summed(ledger, question, by)
    assert answered(con, ledger, question, by, dialect) == wanted
    assert wanted


@settings(max_examples=6)
@given(question=questions, keys=keys, dialect=st.sampled_from(["trino", "duckdb"]))
def test_random_questions_come_to_the_same(ledger, con, question, keys, dialect):
    assert answered(con, ledger, question, keys, dialect) == summed(ledger, question, keys)


@pytest.mark.fuzz
@settings(max_examples=100)
@given(question=questions, keys=keys, dialect=st.sampled_from(["trino", "athena", "duckdb"]))
def test_more_random_questions_come_to_the_same(ledger, con, question, keys, dialect):
    assert answered(con, ledger, question, keys, dialect) == summed(ledger, question, keys)


def test_spark_takes_its_own(ledger, spark):
    """As text, on an engine with other rules for decimals, overflow and times."""
    session = spark.newSession()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    for name in warehouse.READ:
        table = DeltaTable(f"{ledger.folder}/{name}").to_pyarrow_table()
        session.createDataFrame(table).createOrReplaceTempView(name)
    question, by = replace(HARD[1][0], config=CLAIMS), (*HARD[1][1], "team")
    found = session.sql(warehouse.query(ledger, question, by, "spark", database="").sql).collect()
    assert as_rows(found, by) == summed(ledger, question, by)
    assert found


def test_teams_and_workloads_are_claimed_there(tmp_path):
    """By tags, profiles, sessions of a role, patterns and names, of contexts that no list of names came with."""
    facts = [
        Facts("bedrock_log", "bedrock", model, region="eu-west-1", principal=who, project=project, account=account)
        for model, who, project, account in product(
            (OPUS, PROFILE), ("", USER, SESSION), ("", "/home/a"), ("444455556666", "111122223333", "")
        )
    ]  # fmt: skip
    tags = ((), (("team", "search"),), (("team", "sales"), ("env", "test")), (("env", "prod"),))
    tokens = (1_000, 10, 0, 0, 0)
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(
        [
            Usage(AT, f"r{i}-{j}", "", ((one, tokens),), pairs)
            for i, one in enumerate(facts)
            for j, pairs in enumerate(tags)
        ]
    )
    con, by = lake(ledger), ("team", "workload", "account")
    found = answered(con, ledger, Question(config=CLAIMS), by, "trino")
    assert found == summed(ledger, Question(config=CLAIMS), by)
    assert {team for team, *_ in found} == {"web", "search", "bots", "unassigned"}
    assert {"tests", "nightly", "role:app-search"} < {workload for _, workload, _ in found}
    only = Question(config=CLAIMS, where=(parse_where("team!=s*"), parse_where("workload=t*,role:*")))
    assert answered(con, ledger, only, by, "duckdb") == summed(ledger, only, by)


def test_offers_hold_for_their_accounts(tmp_path):
    (tmp_path / "offers.toml").write_text(
        '[[offers]]\nname = "Half"\naccounts = ["111122223333"]\nsigned = 2026-09-20\nstarts = 2026-10-01\n'
        '[[offers.rates]]\npercent_off = "50"\n'
    )
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([call(f"r{account}", account=account) for account in ("111122223333", "444455556666")])
    listed = Question()
    book = contract_book(listed.book, load_offers([tmp_path / "offers.toml"], listed.book))
    question = replace(listed, book=book)
    found = answered(lake(ledger), ledger, question, ("account",), "trino")
    assert found == summed(ledger, question, ("account",))
    ours, theirs = found["111122223333",], found["444455556666",]
    assert 2 * ours[-3] == theirs[-3]
    assert "private offers: Half" in warehouse.query(ledger, question, (), "trino").sql


def call(name: str, count: int = 1_000, *, model: str = OPUS, account: str = "", session: str = "") -> Usage:
    facts = Facts("bedrock_log", "bedrock", model, region="us-east-1", account=account, session=session)
    return Usage(AT, name, "", ((facts, (count, 0, 0, 0, 0)),))


def test_sums_outgrow_64_bits(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([call(f"r{i}", 2**50) for i in range(100)])
    for dialect in ("trino", "duckdb"):
        found = answered(lake(ledger), ledger, Question(), (), dialect)
        assert found == summed(ledger, Question(), ())
        assert found[()][-3] == 100 * 2**50 * RATE


def test_what_came_after_a_query_was_printed(tmp_path):
    """A new session of a known model is priced. A new model is not, and says so: it is not $0."""
    ledger = Ledger(tmp_path)
    ledger.append([call("r1")])
    made = warehouse.query(ledger, Question(), ("model",), "duckdb")
    ledger.append([call("r2", session="new"), call("r3", model="anthropic.claude-sonnet-4-6")])
    known, new = sorted(lake(ledger).execute(made.sql).fetchall(), key=lambda row: str(row[-1]))
    assert (known[1], known[8]) == (2, 2_000 * RATE)
    why = "this query does not know it yet: print it again"
    assert new == ("anthropic.claude-sonnet-4-6", 1, 1_000, 0, 0, 0, 0, 1, None, None, why)


# --- text ------------------------------------------------------------------------------------------------------------


def test_utc_days_are_found_by_their_number(ledger):
    """Trino rounds times to milliseconds, some of them into the next day."""
    question = Question(date(2026, 3, 1), date(2026, 9, 30))
    parsed = sqlglot.parse_one(warehouse.query(ledger, question, ("day", "model"), "trino").sql, read="trino")
    compared = [
        column.name
        for kind in (sqlglot.exp.GTE, sqlglot.exp.GT, sqlglot.exp.LT, sqlglot.exp.LTE)
        for found in parsed.find_all(kind)
        for column in found.find_all(sqlglot.exp.Column)
    ]
    assert {"day", "month"} < set(compared)
    assert "at" not in compared


@pytest.mark.parametrize("dialect", list(warehouse.DIALECTS))
def test_tables_are_named_where_they_lie(dialect):
    location = "s3://o'brien/ledger/"
    said = warehouse.statements(dialect, location, "lake.costs")
    for name in warehouse.READ:
        (statement,) = [one for one in said if f"/ledger/{name}" in one]
        assert f"'s3://o''brien/ledger/{name}" in statement
    if dialect != "trino":  # sqlglot keeps a CALL as it is
        for statement in said:
            sqlglot.parse_one(statement, read=dialect)
    assert len(said) == len(set(said))


def test_names_that_no_engine_takes(ledger, con):
    question, by = Question(), ("tag:cost.centre`s", "tag:cost-centre-s", "model")
    made = warehouse.query(ledger, question, by, "trino")
    assert made.columns[:3] == ("tag_cost_centre_s", "tag_cost_centre_s_1", "model")
    assert answered(con, ledger, question, by, "trino") == summed(ledger, question, by)


def test_an_empty_ledger_is_an_error(tmp_path):
    with pytest.raises(QuestionError, match="has no usage"):
        warehouse.query(Ledger(tmp_path), Question(), (), "trino")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(ledger, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ran(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["sql", *words, "--ledger", str(ledger.folder)])
        return int(ended.value.code or 0), *capsys.readouterr()

    return ran


def test_the_command_prints_a_query(run, con, ledger):
    code, out, err = run("daily", "--dialect", "duckdb", "--where", "model=claude-opus-*")
    assert (code, err) == (0, "")
    question = Question(where=(parse_where("model=claude-opus-*"),))
    assert as_rows(con.execute(out).fetchall(), ("day",)) == summed(ledger, question, ("day",))


def test_the_command_tells_all_as_json(run):
    code, out, _ = run(
        "model,day", "--dialect", "trino", "--database", "lake.costs", "--location", "s3://b", "--json"
    )
    answer = json.loads(out)
    assert code == 0
    assert answer["columns"][:3] == ["model", "day", "calls"]
    assert '"lake"."costs"."usage"' in answer["sql"]
    assert answer["tables"][1].startswith("CALL \"lake\".system.register_table(schema_name => 'costs'")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("meter",), "farthing: meter is no key of a query: it has a column for each meter"),
        (("colour",), "farthing: cannot group by 'colour'"),
        (("model", "--shared"), "farthing: a query is text"),
        (("model", "--database", "a.b.c"), "farthing: --database a.b.c: write DATABASE or CATALOG.DATABASE"),
        (("model", "--database", "a.b"), "farthing: --database a.b: Athena"),
        (("--tables",), "farthing: --location: Athena reads s3://"),
    ],
)
def test_what_makes_no_sense_is_one_line(run, words, says):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_a_query_too_long_for_athena_is_refused(run, monkeypatch):
    from farthing.cli import warehousing

    monkeypatch.setattr(warehousing, "_LONGEST", 1_000)
    code, _, err = run("model")
    assert code == 2
    assert "ask for fewer days" in err
