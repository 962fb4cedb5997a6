"""The 37 tables as the platform has them, and older databases brought up to them."""

import csv
import os
import re
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.database import connect, quote, table_names, transaction
from backtestdb.schema import (
    CLASSES,
    agents_table_was_renamed,
    class_of,
    ensure_schema,
    latest_version,
    load_table_classes,
    migrate,
    migration_files,
    schema_files,
    schema_version,
    split_statements,
    tables_to_keep,
)

DATA = Path(__file__).parent / "data"
LEARNING_LAB = [
    "instructions",
    "system_prompt",
    "risk_tolerance",
    "trading_style",
    "pattern_focus",
    "market_conditions",
    "risk_config",
    "status",
]


def load_expected(name: str) -> dict[str, list[dict[str, str]]]:
    tables = defaultdict(list)
    with (DATA / name).open(newline="") as file:
        for row in csv.DictReader(file):
            if "class" in row:  # written with a blank in some rows, and an underscore in others
                row["class"] = row["class"].replace(" ", "_")
            tables[row["table"]].append(row)
    return dict(tables)


COLUMNS = load_expected("platform_columns.csv")
INDEXES = load_expected("platform_indexes.csv")


@pytest.fixture(scope="module")
def fresh() -> Iterator[sqlite3.Connection]:
    with closing(connect(Path(":memory:"), create=True)) as connection:
        ensure_schema(connection)
        yield connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def describe_columns(connection: sqlite3.Connection, table: str) -> list[dict[str, str]]:
    """As the reference writes them."""
    parents = {
        row[3]: (f"{row[2]}({row[4]})", row[6].replace("NO ACTION", ""))
        for row in connection.execute(f"PRAGMA foreign_key_list({quote(table)})")
    }
    return [
        {
            "class": class_of(table),
            "table": table,
            "column": name,
            "type": kind,
            "not_null": "yes" if not_null else "",
            "default": default or "",
            "primary_key": str(key) if key else "",
            "references": parents.get(name, ("", ""))[0],
            "on_delete": parents.get(name, ("", ""))[1],
            "autoincrement": "yes" if key and gives_no_number_twice(connection, table) else "",
        }
        for _, name, kind, not_null, default, key in connection.execute(
            f"PRAGMA table_info({quote(table)})"
        )
    ]


def gives_no_number_twice(connection: sqlite3.Connection, table: str) -> bool:
    (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return "AUTOINCREMENT" in sql


def describe_indexes(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, str]]:
    """Name, unique, columns, as the reference writes them; a primary key is none of them."""
    found = []
    for _, name, unique, origin, partial in connection.execute(
        f"PRAGMA index_list({quote(table)})"
    ):
        assert not partial
        columns = ", ".join(
            column + (" DESC" if descending else "")
            for _, _, column, descending, _, is_key in connection.execute(
                f"PRAGMA index_xinfo({quote(name)})"
            )
            if is_key
        )
        if origin != "pk":
            shown = "(UNIQUE constraint)" if origin == "u" else name
            found.append((shown, "yes" if unique else "", columns))
    return sorted(found)


def describe_schema(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM sqlite_schema ORDER BY type, name").fetchall()


def test_fresh_database_has_the_37_tables_and_the_projects_own(fresh: sqlite3.Connection) -> None:
    names = set(table_names(fresh))
    assert len(COLUMNS) == 37
    assert {name for name in names if not name.startswith("_")} == set(COLUMNS)
    assert {name for name in names if name.startswith("_")} == {
        name for name, of in load_table_classes().items() if of == "bookkeeping"
    }


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_of_a_fresh_table_equal_the_platforms(
    fresh: sqlite3.Connection, table: str
) -> None:
    assert describe_columns(fresh, table) == COLUMNS[table]


@pytest.mark.parametrize("table", COLUMNS)
def test_indexes_of_a_fresh_table_equal_the_platforms(
    fresh: sqlite3.Connection, table: str
) -> None:
    expected = [(row["index"], row["unique"], row["columns"]) for row in INDEXES.get(table, [])]
    assert describe_indexes(fresh, table) == sorted(expected)


def test_every_file_makes_the_table_of_its_name_and_only_its_indexes() -> None:
    for path in schema_files():
        with closing(connect(Path(":memory:"), create=True)) as connection:
            for statement in split_statements(path.read_text()):
                connection.execute(statement)
            made = connection.execute(
                "SELECT DISTINCT type, tbl_name FROM sqlite_schema"
            ).fetchall()
            assert table_names(connection) == [path.stem]
            assert {table for _, table in made} - {"sqlite_sequence"} == {path.stem}


def test_every_file_has_a_header_with_row_writer_and_way_back() -> None:
    for path in schema_files():
        text = path.read_text()
        for beginning in ("-- A row is: ", "-- Written by: ", "-- Made again: "):
            assert beginning in text, path


def test_creating_the_schema_a_second_time_changes_nothing(path: Path) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        before, changes = describe_schema(connection), connection.total_changes
        content = path.read_bytes()
        ensure_schema(connection)
        assert describe_schema(connection) == before
        assert connection.total_changes == changes
    assert path.read_bytes() == content


def test_platforms_own_statements_find_nothing_to_do(path: Path) -> None:
    """It creates the same names IF NOT EXISTS at every start, with columns of its own order or
    age."""
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        before = describe_schema(connection)
        for table, rows in INDEXES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id)")
            for row in rows:
                if not row["index"].startswith("("):
                    connection.execute(
                        f"CREATE INDEX IF NOT EXISTS {row['index']} ON {table} ({row['columns']})"
                    )
        assert describe_schema(connection) == before


def test_schema_of_one_class_makes_its_tables_only(path: Path) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection, ["recoverable"])
        assert sorted(table_names(connection)) == ["daily_metrics", "ohlcv_data"]


def test_creating_the_schema_is_all_or_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = path.with_name("zzz.sql")
    bad.write_text("CREATE TABLE IF NOT EXISTS good (x);\nCREATE TABLE bad (;\n")
    monkeypatch.setattr("backtestdb.schema.schema_files", lambda _classes: [*schema_files(), bad])
    with closing(connect(path, create=True)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            ensure_schema(connection)
        assert table_names(connection) == []


def test_class_of_a_table_is_its_folder_and_of_an_unknown_one_irreplaceable() -> None:
    assert class_of("ohlcv_data") == "recoverable"
    assert class_of("news_events") == "partially_recoverable"
    assert class_of("_ranges_asked") == "bookkeeping"
    assert class_of("table_of_next_year") == "irreplaceable"
    assert set(load_table_classes().values()) == set(CLASSES)


def test_tables_to_keep_are_those_that_no_download_brings_back(path: Path) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("CREATE TABLE table_of_next_year (x)")
        kept = set(tables_to_keep(connection))
    wanted = {rows[0]["table"] for rows in COLUMNS.values() if rows[0]["class"] != "recoverable"}
    assert kept == wanted | {"table_of_next_year"}


def test_statements_of_a_file_end_at_their_semicolons_only() -> None:
    sql = (
        "-- head; line\n\nCREATE TABLE a (x DEFAULT ';' -- one; two\n);\n-- between\nSELECT "
        "1;\n\n-- tail\n"
    )
    assert split_statements(sql) == ["CREATE TABLE a (x DEFAULT ';' -- one; two\n);", "SELECT 1;"]


def test_statement_without_its_semicolon_is_refused_not_left_out() -> None:
    with pytest.raises(ValueError, match="CREATE TABLE b"):
        split_statements("CREATE TABLE a (x);\nCREATE TABLE b (x)\n")


def make_old_database(path: Path, drop: list[str]) -> None:
    """The schema as it was before the learning lab, with an agent and a column of the platform's
    future."""
    sql = (PROJECT_DIR / "sql/schema/irreplaceable/trading_agents.sql").read_text()
    for column in drop:
        sql = re.sub(rf"^ +{column} .*\n", "", sql, flags=re.MULTILINE)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
        connection.executescript(
            "ALTER TABLE trading_agents ADD COLUMN mood TEXT;INSERT INTO trading_agents (id, name, "
            "timeframe, mood) VALUES ('a1', 'Ada', '1day', 'calm');"
        )
    with closing(connect(path)) as connection:
        ensure_schema(connection)


def run_migration(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROJECT_DIR / "scripts" / "04_migrate_agents_schema.py"],
        capture_output=True,
        text=True,
        cwd=path.parent,
        env={
            **os.environ,
            "DATABASE_PATH": str(path),
            "BACKTEST_ENV_FILE": str(path.with_name("no.env")),
        },
        check=False,
    )


def read_agent(path: Path) -> sqlite3.Row:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM trading_agents").fetchone()


def test_migration_adds_the_missing_columns_and_says_so_and_keeps_the_rows(path: Path) -> None:
    make_old_database(path, LEARNING_LAB)
    assert not set(LEARNING_LAB) & set(read_agent(path).keys())
    ended = run_migration(path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        f"trading_agents: added column {name}" for name in LEARNING_LAB
    ]
    agent = read_agent(path)
    assert (agent["name"], agent["mood"], agent["status"]) == ("Ada", "calm", "learning")
    assert [agent[name] for name in LEARNING_LAB[:-1]] == [None] * 7


def test_migration_of_a_half_migrated_database_adds_only_what_lacks(path: Path) -> None:
    make_old_database(path, ["status", "risk_config"])
    assert run_migration(path).stdout.splitlines() == [
        "trading_agents: added column risk_config",
        "trading_agents: added column status",
    ]


def test_second_migration_changes_nothing_and_says_so(path: Path) -> None:
    make_old_database(path, LEARNING_LAB)
    run_migration(path)
    content = path.read_bytes()
    ended = run_migration(path)
    assert (ended.returncode, ended.stdout) == (0, f"{path}: up to date, nothing to do\n")
    assert path.read_bytes() == content


def test_migration_leaves_a_database_alone_whose_platform_renamed_the_table(path: Path) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("ALTER TABLE trading_agents RENAME TO learning_agents")
        assert agents_table_was_renamed(connection)
    content = path.read_bytes()
    ended = run_migration(path)
    assert ended.returncode == 0
    assert "renamed trading_agents; nothing was changed" in ended.stdout
    assert path.read_bytes() == content


def test_schema_is_not_given_a_second_agents_table_after_the_platform_renamed_it(
    path: Path,
) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("ALTER TABLE trading_agents RENAME TO learning_agents")
        ensure_schema(connection)
        assert "trading_agents" not in table_names(connection)


def test_migration_without_a_database_fails_and_makes_none(path: Path) -> None:
    ended = run_migration(path)
    assert ended.returncode == 1
    assert ended.stderr == f"error: no database at {path}\n       next: make restore\n"
    assert not path.exists()


def test_migrated_database_equals_a_fresh_one(path: Path, fresh: sqlite3.Connection) -> None:
    make_old_database(path, LEARNING_LAB)
    run_migration(path)
    with closing(connect(path)) as connection:
        connection.execute("ALTER TABLE trading_agents DROP COLUMN mood")
        assert sorted(table_names(connection)) == sorted(table_names(fresh))
        for table in table_names(fresh):
            assert by_name(describe_columns(connection, table)) == by_name(
                describe_columns(fresh, table)
            )
            assert describe_indexes(connection, table) == describe_indexes(fresh, table)
        assert schema_version(connection) == schema_version(fresh) == latest_version() == 2


def by_name(columns: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(columns, key=lambda column: column["column"])


def test_migration_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old_database(path, LEARNING_LAB)
    more = path.with_name("0003_more.sql")
    more.write_text("ALTER TABLE trading_agents ADD COLUMN never TEXT NOT NULL;\n")
    monkeypatch.setattr("backtestdb.schema.migration_files", lambda: [*migration_files(), more])
    with closing(connect(path)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection)
        assert not set(LEARNING_LAB) & set(read_agent(path).keys())
        assert schema_version(connection) == 0


def test_migration_joins_the_transaction_of_its_caller(path: Path) -> None:
    make_old_database(path, LEARNING_LAB)
    with closing(connect(path)) as connection:
        with pytest.raises(ValueError, match="caller"), transaction(connection):
            assert len(migrate(connection)) == 8
            raise ValueError("of the caller")
        assert migrate(connection) != []


def test_migration_may_only_add_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = path.with_name("0002_drop.sql")
    more.write_text("DROP TABLE trading_agents;\n")
    monkeypatch.setattr("backtestdb.schema.migration_files", lambda: [more])
    with (
        closing(connect(path, create=True)) as connection,
        pytest.raises(ValueError, match="only add columns"),
    ):
        migrate(connection)
