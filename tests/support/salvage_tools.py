"""A database with a history, a backup of it from the middle of that history, and ways to damage
it."""

import os
import random
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.database import connect, quote
from backtestdb.schema import tables_to_keep
from backup_tools import NOON, back_up, copy_with_backups, make_settings
from platform_database import make_used_database
from small_database import zero

Key = tuple[object, ...]
Content = dict[str, dict[Key, tuple[object, ...]]]
PAGE = 4096
LATER = NOON + timedelta(hours=5)
UNKNOWN_TABLES = """
BEGIN;
CREATE TABLE lab_pairs (left_id TEXT, right_id INTEGER, score REAL, note TEXT,
    PRIMARY KEY (right_id, left_id)) WITHOUT ROWID;
CREATE TABLE lab_blobs (data BLOB, kind, amount NUMERIC DEFAULT 7);
COMMIT;
"""


@dataclass(frozen=True)
class DamagedDatabase:
    """A folder with the database and its backups; what the database and the backup hold."""

    settings: Settings
    live: Content
    saved: Content

    def copy_to(self, folder: Path) -> "DamagedDatabase":
        """The same in another folder, to be damaged there."""
        settings = copy_with_backups(self.settings.database_path.parents[1], folder)
        for manifest in settings.backup_dir.glob("*.json"):
            os.utime(manifest, (LATER.timestamp(), LATER.timestamp()))
        return DamagedDatabase(settings, self.live, self.saved)


def make_history(
    folder: Path, *, rows: int = 700, kind: str = "full", journal: str = "DELETE"
) -> DamagedDatabase:
    """Rows, deletions and updates before and after a backup; free pages that still hold what was
    deleted."""
    settings = make_settings(folder)
    database = settings.database_path
    database.parent.mkdir(parents=True)
    make_used_database(database, rows=60, journal=journal)
    chance = random.Random(7)
    with closing(connect(database)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.executescript(UNKNOWN_TABLES)
        add_market_data(connection, rows * 3)
        add_rows(connection, chance, 0, rows // 3)
        connection.execute("ALTER TABLE lab_blobs ADD COLUMN added_later TEXT DEFAULT 'none yet'")
        add_rows(connection, chance, rows // 3, rows)
        leave_free_pages(connection, chance)
    back_up(settings, kind)
    saved = read_content(database)
    with closing(connect(database)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        add_rows(connection, chance, rows, 2 * rows)
        change_rows(connection, chance)
        leave_free_pages(connection, chance)
    return DamagedDatabase(settings, read_content(database), saved)


def add_market_data(connection: sqlite3.Connection, bars: int) -> None:
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '5min')",
        ((f"T{n % 50}", 10**12 + n, n / 7, 2 + n / 7, n / 8, n / 7.5, n) for n in range(bars)),
    )
    connection.execute("COMMIT")


def add_rows(connection: sqlite3.Connection, chance: random.Random, first: int, last: int) -> None:
    connection.execute("BEGIN")
    for n in range(first, last):
        word = f"row {n} " + "".join(chance.choices("abc äöü€", k=chance.randrange(150)))
        agent = (f"a-{chance.randrange(10**9):09d}-{n}", word)
        connection.execute(
            "INSERT INTO trading_agents (id, name, timeframe) VALUES (?, ?, '5min')", agent
        )
        long = word * (40 if n % 25 == 0 else 1)
        connection.execute(
            "INSERT INTO agent_knowledge (id, agent_id, knowledge_type, insight, confidence, "
            "created_at) VALUES (?, ?, '0012', ?, ?, '2026-01-01')",
            (f"i-{n}-{chance.random()}", agent[0], long, n / 4),
        )
        strategy = (
            "INSERT INTO strategies (name, ticker, timeframe, config) VALUES (?, 'NA', '1day', ?)"
        )
        connection.execute(strategy, (word, f'{{"n": {n}}}'))
        connection.execute(
            "INSERT INTO lab_notes (note, seen) VALUES (CAST(? AS TEXT), ?)",
            (b"\xff" + word.encode(), n),
        )
        connection.execute(
            "INSERT INTO lab_pairs VALUES (?, ?, ?, ?)", (f"p{n * 7 % 1000}", n, n, word)
        )
        connection.execute(
            "INSERT INTO lab_blobs (data, kind, amount) VALUES (?, ?, ?)",
            (
                chance.randbytes(n % 120),
                [n, str(n), n / 3, None, b"1"][n % 5],
                ["text", "12", 1e300, -n][n % 4],
            ),
        )
    connection.execute("COMMIT")


def leave_free_pages(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Rows that are gone, but whose pages still hold them: none of them may come back. Debian's
    SQLite would overwrite them, others do not."""
    connection.execute(
        "CREATE TABLE lab_scratch (id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, text TEXT)"
    )
    connection.execute("BEGIN")
    for n in range(600):
        connection.execute(
            "INSERT INTO lab_scratch VALUES (?, ?, ?)",
            (f"gone-{chance.random()}", "x", "deleted " * 20),
        )
        connection.execute(
            "INSERT INTO trading_agents (id, name, timeframe) VALUES (?, ?, '5min')",
            (f"gone-{n}", "deleted " * 20),
        )
    connection.execute("COMMIT")
    connection.execute("DROP TABLE lab_scratch")
    connection.execute("DELETE FROM trading_agents WHERE id LIKE 'gone-%'")


def change_rows(connection: sqlite3.Connection, chance: random.Random) -> None:
    agents = [row[0] for row in connection.execute("SELECT id FROM trading_agents ORDER BY id")]
    for agent in chance.sample(agents, 60):
        connection.execute(
            "UPDATE trading_agents SET name = 'changed ' || name WHERE id = ?", (agent,)
        )
    for agent in chance.sample(agents, 20):
        connection.execute("DELETE FROM trading_agents WHERE id = ?", (agent,))
    connection.execute("DELETE FROM strategies WHERE id % 37 = 0")


def read_content(database: Path) -> Content:
    """Every row of every table that no download brings back, by primary key or rowid, with types.
    Text stays bytes, as bytearray."""
    with closing(connect(database)) as connection:
        tables = tables_to_keep(connection)
        keys = {}
        for table in tables:
            info = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
            keys[table] = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]] or [
                "rowid"
            ]
        connection.text_factory = bytearray
        content: Content = {}
        for table in tables:
            key = ", ".join(map(quote, keys[table]))
            rows = connection.execute(f"SELECT {key}, * FROM {quote(table)}").fetchall()
            size = len(keys[table])
            content[table] = {
                tuple(map(repr, row[:size])): tuple(map(repr, row[size:])) for row in rows
            }
        return content


def zero_pages(database: Path, share: float, seed: int, *, first_page: bool) -> list[int]:
    """Zero that share of all pages, page 1 among them or not; return their numbers."""
    pages = database.stat().st_size // PAGE
    hit = random.Random(seed).sample(range(2, pages + 1), max(round(share * pages) - first_page, 1))
    hit += [1] if first_page else []
    zero(database, *hit)
    return hit


def find_wrong(result: Content, damaged: DamagedDatabase) -> list[str]:
    """Rows of the result that neither the database nor the backup holds like that."""
    wrong = []
    for table, rows in result.items():
        live, saved = damaged.live.get(table, {}), damaged.saved.get(table, {})
        for key, row in rows.items():
            if row not in (live.get(key), saved.get(key)):
                wrong.append(f"{table} {key}: {row[:3]}")
    return wrong


def find_missing(result: Content, damaged: DamagedDatabase) -> list[str]:
    """Rows of the backup that are not in the result, but for those that were deleted since."""
    return [
        f"{table} {key}"
        for table, rows in damaged.saved.items()
        for key in rows
        if key not in result.get(table, {}) and key in damaged.live.get(table, {})
    ]


def share_of_newer(
    result: Content, damaged: DamagedDatabase, *, left_out: Collection[str] = ()
) -> float:
    """How many of the rows that are younger than the backup came through; `left_out`: tables."""
    newer = [
        key in result.get(table, {})
        for table, rows in damaged.live.items()
        if table not in left_out
        for key in rows
        if key not in damaged.saved.get(table, {})
    ]
    return sum(newer) / len(newer)


def pages_of(database: Path, table: str) -> list[int]:
    """The b-tree pages of a table, its root first."""
    query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype != 'overflow' ORDER BY path"
    with closing(connect(database)) as connection:
        return [page for (page,) in connection.execute(query, (table,)) if page != 1]
