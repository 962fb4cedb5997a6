"""A database as the platform leaves it: irreplaceable rows, tables that this project does not know,
old bars."""

import sqlite3
from contextlib import closing
from pathlib import Path

from backtestdb.database import connect
from backtestdb.schema import ensure_schema

KEPT_TABLES = [
    "strategies",
    "backtests",
    "trades",
    "trading_agents",
    "agent_knowledge",
    "news_events",
    "lab_notes",
    "odd names",
]
UNKNOWN = """
BEGIN;
CREATE TABLE lab_notes (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT, seen REAL DEFAULT 0.5);
CREATE INDEX lab_notes_by_note ON lab_notes (note);
CREATE TABLE "odd names" ("a ""quoted"" column" BLOB, "select" TEXT) STRICT;
CREATE VIEW noted AS SELECT note FROM lab_notes;
CREATE TRIGGER note_strategies AFTER INSERT ON strategies BEGIN
    INSERT INTO lab_notes (note) VALUES ('strategy ' || new.name);
END;
ALTER TABLE trading_agents ADD COLUMN mood TEXT DEFAULT 'calm';
COMMIT;
"""


def make_used_database(path: Path, *, journal: str = "DELETE", rows: int = 40) -> Path:
    with closing(connect(path, create=True)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        ensure_schema(connection)
        connection.executescript(UNKNOWN)
        connection.execute("BEGIN")
        fill_kept_tables(connection, rows)
        connection.execute("COMMIT")
    return path


def fill_kept_tables(connection: sqlite3.Connection, rows: int) -> None:
    for n in range(1, rows + 1):
        connection.execute(
            "INSERT INTO strategies (id, name, ticker, timeframe, config) "
            "VALUES (?, ?, 'AAPL', '1day', '{}')",
            (n * 7, f"strategy {n}"),
        )
        connection.execute(
            "INSERT INTO backtests (id, strategy_id, config) VALUES (?, ?, '{}')", (n, n * 7)
        )
        connection.execute(
            "INSERT INTO trades (backtest_id, ticker, side, entry_timestamp, entry_price, quantity)"
            " VALUES (?, 'NA', 'LONG', ?, ?, 1e-3)",
            (n, 1_362_000_000_000 + n, n / 3),
        )
        connection.execute(
            "INSERT INTO trading_agents (id, name, timeframe, mood) "
            "VALUES (?, 'agent', '5min', 'bold')",
            (f"agent-{n}",),
        )
        connection.execute(
            "INSERT INTO agent_knowledge (id, agent_id, knowledge_type, insight, created_at)"
            " VALUES (?, ?, 'pattern', ?, '2026-01-01')",
            (f"k{n}", f"agent-{n}", "x" * (n * 50)),
        )
        connection.execute(
            "INSERT INTO news_events (id, ticker, published_at, headline, created_at)"
            " VALUES (?, 'TRUE', '2026-01-01', CAST(x'ff00fe' AS TEXT), '2026-01-01')",
            (f"n{n}",),
        )
        connection.execute('INSERT INTO "odd names" VALUES (?, ?)', (bytes([n % 256]), str(n)))
    connection.execute("DELETE FROM lab_notes WHERE id > ?", (rows - 3,))
