"""The platform's universe API: what the guide's test asks for, read from the tables."""

import sqlite3
from typing import Any

NOT_FOUND = {"success": False, "error": "Universe not found"}
Body = dict[str, Any]


def load_universes(connection: sqlite3.Connection) -> Body:
    # All columns, as the platform: a later one of it may add some.
    rows = connection.execute("SELECT * FROM universe ORDER BY name")
    return {"success": True, "universes": [name_columns(rows, row) for row in rows]}


def load_universe(connection: sqlite3.Connection, name: str) -> Body | None:
    """Return None for an unknown name."""
    rows = connection.execute("SELECT * FROM universe WHERE name = ?", (name,))
    row = rows.fetchone()
    return None if row is None else {"success": True, "universe": name_columns(rows, row)}


def name_columns(rows: sqlite3.Cursor, row: tuple[Any, ...]) -> Body:
    return dict(zip((column[0] for column in rows.description), row, strict=True))


def load_universe_tickers(connection: sqlite3.Connection, name: str) -> Body | None:
    """Return the active members by name, and which universe it is; None for an unknown name."""
    universe = load_universe(connection, name)
    if universe is None:
        return None
    rows = connection.execute(
        "SELECT ticker FROM universe_stocks WHERE universe_id = ? AND is_active ORDER BY ticker",
        (universe["universe"]["id"],),
    )
    named = {key: universe["universe"][key] for key in ("id", "name", "description")}
    return {"success": True, "universe": named, "tickers": [ticker for (ticker,) in rows]}
