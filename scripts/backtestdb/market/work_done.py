"""How far work that is stored part by part has come: a killed run goes on where it was."""

import sqlite3


def load_done(connection: sqlite3.Connection, task: str) -> int:
    row = connection.execute("SELECT tickers FROM _work_done WHERE task = ?", (task,)).fetchone()
    return int(row[0]) if row else 0


def save_done(connection: sqlite3.Connection, task: str, tickers: int) -> None:
    """Record how far a task came, in the transaction that stores the part."""
    connection.execute(
        "INSERT OR REPLACE INTO _work_done (task, tickers) VALUES (?, ?)", (task, tickers)
    )


def clear_done(connection: sqlite3.Connection, task: str) -> None:
    connection.execute("DELETE FROM _work_done WHERE task = ?", (task,))
