"""The platform's universe API, beside a little implementation of its own, statement by statement as
the platform's routes have them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backtestdb.database import connect
from backtestdb.page import scanner
from backtestdb.schema import ensure_schema
from page_server import Server

UNIVERSES = [
    (3, "us-stocks", "Every US stock", 3, "2024-05-01 10:00:00", "2024-06-01 10:00:00"),
    (7, "Älteste", None, 0, "2024-05-02 10:00:00", "2024-05-02 10:00:00"),
    (9, "tech_sector", 'Tech – the 65 "largest"', 2, "2024-05-03 10:00:00", None),
    (11, "TECH_SECTOR", "", None, None, None),
]
MEMBERS = [
    *((9, ticker, active) for ticker, active in [("NVDA", 1), ("AAPL", 1), ("GONE", 0)]),
    *((3, ticker, active) for ticker, active in [("brk.b", 1), ("ZS", 1), ("A", 1), ("BRK.A", 1)]),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Universes and members that were stored in no order."""
    path = tmp_path / "platform.db"
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.executemany("INSERT INTO universe VALUES (?, ?, ?, ?, ?, ?)", UNIVERSES)
        connection.executemany(
            "INSERT INTO universe_stocks (universe_id, ticker, is_active) VALUES (?, ?, ?)", MEMBERS
        )
    return path


class Platform:
    """What the platform's routes do: whole rows as objects, as its SQLite binding gives them."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path)
        self.connection.row_factory = sqlite3.Row

    def universes(self) -> Any:
        rows = self.connection.execute("SELECT * FROM universe ORDER BY name").fetchall()
        return {"success": True, "universes": [dict(row) for row in rows]}

    def universe(self, name: str) -> Any:
        row = self.connection.execute("SELECT * FROM universe WHERE name = ?", [name]).fetchone()
        if row is None:
            return {"success": False, "error": "Universe not found"}
        return {"success": True, "universe": dict(row)}

    def tickers(self, name: str) -> Any:
        found = self.universe(name)
        if not found["success"]:
            return found
        row = found["universe"]
        members = self.connection.execute(
            "SELECT ticker FROM universe_stocks WHERE universe_id = ? AND is_active = 1"
            " ORDER BY ticker",
            [row["id"]],
        ).fetchall()
        return {
            "success": True,
            "universe": {"id": row["id"], "name": row["name"], "description": row["description"]},
            "tickers": [member["ticker"] for member in members],
        }


def in_bytes(body: object) -> bytes:
    """With its keys sorted, all else as it is."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False).encode()


def test_answers_equal_the_platforms_byte_for_byte(database: Path) -> None:
    platform = Platform(database)
    with closing(platform.connection), closing(connect(database, read_only=True)) as connection:
        assert in_bytes(scanner.load_universes(connection)) == in_bytes(platform.universes())
        for name in (*(row[1] for row in UNIVERSES), "Tech_Sector", "", "nope"):
            ours = scanner.load_universe(connection, name) or scanner.NOT_FOUND
            assert in_bytes(ours) == in_bytes(platform.universe(name))
            ours = scanner.load_universe_tickers(connection, name) or scanner.NOT_FOUND
            assert in_bytes(ours) == in_bytes(platform.tickers(name))


def test_answers_arrive_as_the_platforms_over_http(server: Server) -> None:
    platform = Platform(server.project.database)
    with closing(platform.connection):
        for path, expected in (
            ("", platform.universes()),
            ("/tech_sector", platform.universe("tech_sector")),
            ("/tech_sector/tickers", platform.tickers("tech_sector")),
            ("/nope/tickers", platform.tickers("nope")),
        ):
            _, body = server.get_json(f"/api/scanner/universes{path}")
            assert in_bytes(body) == in_bytes(expected)
