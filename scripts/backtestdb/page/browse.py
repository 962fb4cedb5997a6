"""What Datasette is told about the tables: the user's come first and the bookkeeping is hidden,
questions that are asked often have a name, and times can be read."""

import re
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from datasette.database import Database
from markupsafe import Markup

from backtestdb.new_york import NEW_YORK
from backtestdb.schema import CLASSES, SQL_DIR, load_table_classes

HEADINGS = {
    "irreplaceable": "Yours: only a backup has it",
    "partially_recoverable": "Lists: partly made again",
    "recoverable": "Market data: the vendor has it",
    "bookkeeping": "Bookkeeping of this project",
}
TABLES_OF = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
TIME_COLUMN = re.compile(r"time|date|_at$|_ms$")
# Milliseconds from 1973 to 2096: no price and no count of a time column lies between.
FIRST_MS, LAST_MS = 10**11, 4 * 10**12


@dataclass(frozen=True)
class NamedQuery:
    """A question with a name: `example` is the query string that shows what it does."""

    name: str
    title: str
    example: str
    sql: str

    @property
    def tables(self) -> set[str]:
        return set(TABLES_OF.findall(self.sql))


def load_named_queries(tables: Collection[str]) -> list[NamedQuery]:
    """Return those of sql/queries/page_*.sql whose tables a database has. The first line of a file
    is its title, a line `-- Example:` what to fill in."""
    queries = []
    for path in sorted((SQL_DIR / "queries").glob("page_*.sql")):
        text = path.read_text()
        comments = [line[3:] for line in text.splitlines() if line.startswith("-- ")]
        example = next((c.removeprefix("Example: ") for c in comments if "Example: " in c), "")
        query = NamedQuery(path.stem.removeprefix("page_"), comments[0], example, text.strip())
        if query.tables <= set(tables):
            queries.append(query)
    return queries


def make_metadata(names: Collection[str]) -> dict[str, Any]:
    """Return what makes Datasette hide the bookkeeping and SQLite's own tables of each database."""
    hidden = [name for name, group in load_table_classes().items() if group == "bookkeeping"]
    tables = {name: {"hidden": True} for name in (*hidden, "sqlite_sequence", "sqlite_stat1")}
    return {"databases": {name: {"tables": tables} for name in names}}


def group_tables(tables: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Given Datasette's tables, return them by class, the user's first, and in a class those that
    have rows before the others; a table that no folder knows is the user's."""
    classes = load_table_classes()
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in CLASSES}
    for table in sorted(tables, key=lambda table: table["count"] == 0):
        name = table["name"]
        group = "bookkeeping" if name.startswith("sqlite_") else classes.get(name, CLASSES[0])
        groups[group].append(table)
    return [(HEADINGS[name], members) for name, members in groups.items() if members]


async def list_tables(database: Database) -> list[str]:
    """Return the names; none of a database that cannot be read."""
    try:
        names: list[str] = await database.table_names()
    except sqlite3.Error:
        return []
    return names


def show_value(column: str, value: object) -> Markup | None:
    """Return a time in New York beside the number that is stored, or a ticker as a link; None for
    all other values, which Datasette shows as they are."""
    if column == "ticker" and isinstance(value, str) and value:
        return Markup('<a href="/ticker/{}">{}</a>').format(quote(value, safe=""), value)
    if not isinstance(value, int) or not TIME_COLUMN.search(column):
        return None
    if not FIRST_MS <= value <= LAST_MS:
        return None
    return Markup('<time datetime="{}">{}</time> <small>{}</small>').format(
        f"{datetime.fromtimestamp(value / 1000, NEW_YORK).isoformat()}", format_ms(value), value
    )


def format_ms(timestamp_ms: int) -> str:
    """Given milliseconds UTC, return the time in New York; at midnight the date alone: a
    session."""
    moment = datetime.fromtimestamp(timestamp_ms / 1000, NEW_YORK)
    is_session = (moment.hour, moment.minute, moment.second) == (0, 0, 0)
    return f"{moment:%Y-%m-%d}" if is_session else f"{moment:%Y-%m-%d %H:%M:%S} New York"
