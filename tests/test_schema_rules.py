"""What is made, brought up to date and left alone in databases of other ages, statement by
statement."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import column_names, connect, table_names
from backtestdb.schema import (
    agents_table_was_renamed,
    ensure_market_schema,
    ensure_schema,
    load_table_classes,
    migrate,
    migration_files,
    record_migrations,
    schema_version,
)

OWN = {name for name, of in load_table_classes().items() if of == "bookkeeping"}
# The tables of the learning lab and of the evidence as they were before.
OLD_AGENTS = "CREATE TABLE {}trading_agents (id TEXT PRIMARY KEY, name TEXT NOT NULL);"
OLD_COVERAGE = "CREATE TABLE _coverage (universe TEXT, timeframe TEXT, expected INTEGER);"
RECORDED = [(1, "0001_learning_lab_columns"), (2, "0002_answers_as_evidence")]
LAB = {
    *("instructions", "system_prompt", "risk_tolerance", "trading_style"),
    *("pattern_focus", "market_conditions", "risk_config", "status"),
}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(connect(Path(":memory:"), create=True)) as connection:
        yield connection


def recorded(database: sqlite3.Connection, schema: str = "main") -> list[tuple[int, str]]:
    query = f"SELECT number, name FROM {schema}._migrations ORDER BY number"
    return database.execute(query).fetchall()


# ── what is made


def test_new_database_is_born_with_all_migrations(database: sqlite3.Connection) -> None:
    ensure_schema(database)
    assert set(table_names(database)) == set(load_table_classes())
    assert recorded(database) == RECORDED
    assert [path.stem for path in migration_files()] == [name for _, name in RECORDED]
    assert schema_version(database) == 2


def test_market_schema_makes_none_of_the_platforms_other_tables(
    database: sqlite3.Connection,
) -> None:
    ensure_market_schema(database)
    market = {"universe", "universe_stocks", "ohlcv_data", "daily_metrics"}
    assert set(table_names(database)) == market | OWN
    assert recorded(database) == RECORDED


def test_one_class_brings_no_record_of_migrations(database: sqlite3.Connection) -> None:
    ensure_schema(database, ["recoverable"])
    assert schema_version(database) == 0
    assert set(table_names(database)) == {"ohlcv_data", "daily_metrics"}


# ── what is brought up to date


def test_older_database_gets_the_missing_tables_and_keeps_its_own_as_they_are(
    database: sqlite3.Connection,
) -> None:
    ensure_schema(database)
    for table in ("strategies", "_migrations"):
        database.execute(f"DROP TABLE {table}")
    for column in LAB:
        database.execute(f"ALTER TABLE trading_agents DROP COLUMN {column}")
    before = column_names(database, "trading_agents")
    ensure_schema(database)
    assert set(table_names(database)) == set(load_table_classes())
    assert column_names(database, "trading_agents") == before
    # Not one of the migrations was applied to it.
    assert (recorded(database), schema_version(database)) == ([], 0)


def test_schema_makes_all_but_the_agents_where_those_have_another_name(
    database: sqlite3.Connection,
) -> None:
    ensure_schema(database)
    database.execute("ALTER TABLE trading_agents RENAME TO learning_agents")
    database.execute("DROP TABLE strategies")
    ensure_schema(database)
    made = set(load_table_classes()) - {"trading_agents"} | {"learning_agents"}
    assert set(table_names(database)) == made


@pytest.mark.parametrize("classes", [["bookkeeping"], ["recoverable", "bookkeeping"]])
def test_projects_own_tables_get_the_columns_of_newer_programs_with_any_command(
    database: sqlite3.Connection, classes: list[str]
) -> None:
    database.executescript(f"{OLD_COVERAGE} INSERT INTO _coverage VALUES ('all', '1day', 7);")
    ensure_schema(database, classes)
    rows = database.execute("SELECT universe, expected, ranges, provisional, state FROM _coverage")
    assert rows.fetchall() == [("all", 7, "", 0, "counted")]


def test_retired_table_is_dropped_with_the_projects_own_and_not_without(
    database: sqlite3.Connection,
) -> None:
    database.execute("CREATE TABLE _plan_limits (id)")
    ensure_schema(database, ["recoverable"])
    assert "_plan_limits" in table_names(database)
    ensure_schema(database, ["bookkeeping"])
    assert "_plan_limits" not in table_names(database)


def test_splits_of_an_older_meaning_are_forgotten_and_those_of_today_kept(
    database: sqlite3.Connection,
) -> None:
    database.executescript(
        "CREATE TABLE _splits (ticker TEXT, state TEXT); INSERT INTO _splits VALUES ('A', 'done');"
        "CREATE TABLE _splits_asked (day TEXT); INSERT INTO _splits_asked VALUES ('2026-01-01');"
    )
    ensure_schema(database)
    assert "state" not in column_names(database, "_splits")
    assert column_names(database, "_splits_asked") != ["day"]
    for table in ("_splits", "_splits_asked"):
        columns = column_names(database, table)
        values = ", ".join("1" * len(columns))
        database.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})")
    ensure_schema(database)
    for table in ("_splits", "_splits_asked"):
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


# ── migrations


def test_migration_of_an_attached_database_leaves_the_one_beside_it_alone(
    database: sqlite3.Connection,
) -> None:
    database.execute("ATTACH ':memory:' AS other")
    database.executescript(OLD_AGENTS.format("") + OLD_AGENTS.format("other."))
    changes = migrate(database, "other")
    assert {change.removeprefix("trading_agents: added column ") for change in changes} == LAB
    assert set(column_names(database, "trading_agents", "other")) == LAB | {"id", "name"}
    assert column_names(database, "trading_agents") == ["id", "name"]
    assert table_names(database) == ["trading_agents"]
    assert recorded(database, "other") == RECORDED
    assert (schema_version(database), schema_version(database, "other")) == (0, 2)
    assert migrate(database, "other") == []


def test_migration_of_a_table_that_was_carried_over_goes_by_its_columns_not_by_the_number(
    database: sqlite3.Connection,
) -> None:
    database.execute(OLD_AGENTS.format(""))
    record_migrations(database)
    assert len(migrate(database)) == len(LAB)


def test_migration_passes_over_tables_that_are_not_there(database: sqlite3.Connection) -> None:
    assert migrate(database) == []
    assert recorded(database) == RECORDED


def test_version_is_of_the_newest_recorded_migration_and_0_without_one(
    database: sqlite3.Connection,
) -> None:
    assert schema_version(database) == 0
    record_migrations(database)
    record_migrations(database)
    assert recorded(database) == RECORDED
    database.execute("INSERT INTO _migrations (number, name) VALUES (7, 'of a newer program')")
    assert schema_version(database) == 7
    assert migrate(database) == []
    database.execute("DELETE FROM _migrations")
    assert schema_version(database) == 0


@pytest.mark.parametrize(
    ("tables", "was_renamed"),
    [
        ([], False),
        (["ohlcv_data", "strategies"], False),
        (["trading_agents"], False),
        (["trading_agents", "live_signals"], False),
        (["live_signals"], True),
        (["learning_agents", "agent_knowledge"], True),
        (["agent_activity_log", "strategies"], True),
    ],
)
def test_agents_were_renamed_where_others_refer_to_them_and_they_are_gone(
    database: sqlite3.Connection, tables: list[str], was_renamed: bool
) -> None:
    for table in tables:
        database.execute(f"CREATE TABLE {table} (id)")
    assert agents_table_was_renamed(database) is was_renamed
