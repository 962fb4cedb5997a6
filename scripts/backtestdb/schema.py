"""The schema: one table a file, the class of a table is the folder its file stands in, and nothing
else.

Tables that a database has and no folder knows belong to the platform's future: irreplaceable, until
they are filed elsewhere.
"""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from backtestdb.config import PROJECT_DIR
from backtestdb.database import column_names, table_names, transaction

SQL_DIR = PROJECT_DIR / "sql"
CLASSES = ("irreplaceable", "partially_recoverable", "recoverable", "bookkeeping")
KEPT_CLASSES = {"irreplaceable", "partially_recoverable"}
# Tables that the project itself made once and does not read any more; what they held is learnt
# again.
RETIRED = ("_plan_limits",)
# What a backfill needs. The lists are the user's, the bars are the vendor's.
UNIVERSE_TABLES = ("universe", "universe_stocks")
MARKET_TABLES = (*UNIVERSE_TABLES, "ohlcv_data", "daily_metrics")
ADD_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)")


def schema_files(classes: Iterable[str] = CLASSES) -> list[Path]:
    return [path for name in classes for path in sorted((SQL_DIR / "schema" / name).glob("*.sql"))]


def load_table_classes() -> dict[str, str]:
    """Return every table that the project knows, with the name of its folder."""
    return {path.stem: path.parent.name for path in schema_files()}


def class_of(table: str) -> str:
    return load_table_classes().get(table, "irreplaceable")


def tables_to_keep(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Return tables that no download brings back: KEPT_CLASSES, and every unknown one."""
    classes = load_table_classes()
    return [
        t
        for t in table_names(connection, schema)
        if classes.get(t, "irreplaceable") in KEPT_CLASSES
    ]


def split_statements(sql: str) -> list[str]:
    """Return the statements of a file, comments and blank lines between them left out. Raise
    ValueError for one without an end."""
    statements, pending = [], ""
    for line in sql.splitlines(keepends=True):
        if not pending and (not line.strip() or line.startswith("--")):
            continue
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""

    # A statement left out silently would be a table that is never made.
    if pending:
        raise ValueError(f"a statement does not end with a semicolon: {pending}")
    return statements


def ensure_schema(connection: sqlite3.Connection, classes: Iterable[str] = CLASSES) -> None:
    """Create what is missing of the tables of the given classes, in one transaction. A database
    without any table is born with all migrations."""
    ensure_tables(connection, schema_files(classes))


def ensure_market_schema(connection: sqlite3.Connection) -> None:
    """Create what is missing of the market tables and of the project's own. All other tables are
    the platform's affair: a newer one makes newer ones."""
    universes = [path for path in schema_files() if path.stem in UNIVERSE_TABLES]
    ensure_tables(connection, [*universes, *schema_files(["recoverable", "bookkeeping"])])


def ensure_tables(connection: sqlite3.Connection, files: Iterable[Path]) -> None:
    """Create the tables and indexes of `files` that are missing, and bring those of earlier
    programs up to date."""
    is_new, files = not table_names(connection), list(files)
    if agents_table_was_renamed(connection):
        files = [path for path in files if path.stem != "trading_agents"]

    with transaction(connection):
        drop_older_shapes(connection)
        for path in files:
            for statement in split_statements(path.read_text()):
                connection.execute(statement)
        if is_new and "_migrations" in table_names(connection):
            record_migrations(connection)
        elif any(path.parent.name == "bookkeeping" for path in files):
            bring_bookkeeping_up(connection)


def drop_older_shapes(connection: sqlite3.Connection) -> None:
    """Drop bookkeeping whose rows mean nothing any more under the same name; the next run makes it
    again. The caller's transaction."""
    # Until 2026-11: what arithmetic had done to stored bars.
    if "state" in column_names(connection, "_splits"):
        connection.execute("DROP TABLE _splits")
        connection.execute("DROP TABLE IF EXISTS _splits_asked")


def bring_bookkeeping_up(connection: sqlite3.Connection) -> None:
    """Bring the project's own tables up to date, with any command that writes: add columns that
    newer programs need, drop tables that no program reads any more. The caller's transaction."""
    for path in migration_files():
        for statement in split_statements(path.read_text()):
            addition = ADD_COLUMN.match(statement)
            if addition and addition[1].startswith("_"):
                add_column(connection, statement, "main")
    for table in RETIRED:
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def migration_files() -> list[Path]:
    return sorted((SQL_DIR / "migrations").glob("*.sql"))


def latest_version() -> int:
    return len(migration_files())


def schema_version(connection: sqlite3.Connection, schema: str = "main") -> int:
    """Return the number of the newest migration that this database has recorded. The numbers in its
    header (`user_version`, `application_id`) are the platform's, and never written here."""
    if "_migrations" not in table_names(connection, schema):
        return 0
    (number,) = connection.execute(f"SELECT max(number) FROM {schema}._migrations").fetchone()
    return number or 0


def record_migrations(connection: sqlite3.Connection, schema: str = "main") -> None:
    """Record that all migrations were applied. The caller's transaction."""
    (file,) = (path for path in schema_files(["bookkeeping"]) if path.stem == "_migrations")
    for statement in split_statements(file.read_text()):
        connection.execute(statement.replace(" _migrations ", f" {schema}._migrations ", 1))
    connection.executemany(
        f"INSERT OR IGNORE INTO {schema}._migrations (number, name) VALUES (?, ?)",
        [(number, path.stem) for number, path in enumerate(migration_files(), 1)],
    )


def agents_table_was_renamed(connection: sqlite3.Connection) -> bool:
    """Return whether tables refer to an agent and `trading_agents` is gone: a newer platform."""
    tables = set(table_names(connection))
    return "trading_agents" not in tables and bool(
        tables & {"live_signals", "agent_knowledge", "agent_activity_log"}
    )


def migrate(connection: sqlite3.Connection, schema: str = "main") -> list[str]:
    """Apply every migration that this database lacks; return a sentence for each change, none when
    nothing was to do. All of it is one transaction (the caller's, if there is one), which also
    records the migrations.

    A column that is already there is left alone, so a table that was carried over from an older
    file can be migrated whatever the number says. Added columns stand at the end of their table:
    programs address columns by name.
    """
    with nullcontext() if connection.in_transaction else transaction(connection):
        changes = [
            change
            for path in migration_files()
            for statement in split_statements(path.read_text())
            for change in add_column(connection, statement, schema)
        ]
        if schema_version(connection, schema) < latest_version():
            record_migrations(connection, schema)
    return changes


def add_column(connection: sqlite3.Connection, statement: str, schema: str) -> list[str]:
    """Apply the statement of a migration unless its column is there."""
    addition = ADD_COLUMN.match(statement)
    # Only added: old programs keep working, and nothing of the user's is rewritten.
    if not addition:
        raise ValueError(f"a migration may only add columns: {statement}")

    table, column = addition.groups()
    columns = column_names(connection, table, schema)
    if not columns or column in columns:
        return []
    connection.execute(statement.replace(f"TABLE {table}", f"TABLE {schema}.{table}", 1))
    return [f"{table}: added column {column}"]
