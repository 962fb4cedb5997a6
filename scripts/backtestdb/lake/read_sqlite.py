"""Market data out of the database, as Arrow columns in the lake's types. Reads only.

By ADBC, which brings a SQLite library of its own: 2.1 million rows per CPU second, the sqlite3
module 0.4. Two copies of SQLite in one process drop each other's file locks, so nothing else in a
process may have the database open while a reader has.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote as quote_url

import adbc_driver_sqlite.dbapi
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtestdb.config import PROJECT_DIR
from backtestdb.errors import DatabaseFileError
from backtestdb.lake.layout import COUNTS, SCHEMAS
from backtestdb.market.metrics import COMPUTED_METRICS
from backtestdb.new_york import NEW_YORK

QUERIES = PROJECT_DIR / "sql" / "queries"
TIMEFRAME_OF = {"bars_1day": "1day", "bars_5min": "5min"}
# A column that begins with NULLs has no type for ADBC: SQLite's infinity stands for NULL on the
# way.
NOTHING = "9e999"
MICROSECONDS = 1000


class Reader(Protocol):
    """What is used of an ADBC connection."""

    def cursor(self) -> Any: ...


@contextmanager
def open_reader(database: Path) -> Iterator[Reader]:
    """Yield one committed state of the database for as long as it is open. In WAL mode writers do
    not notice.

    Raise DatabaseFileError when there is no database.
    """
    if not database.is_file():
        raise DatabaseFileError(f"no database at {database}", next_step="make restore")

    try:
        connection = adbc_driver_sqlite.dbapi.connect(f"file:{quote_url(str(database))}?mode=ro")
    except adbc_driver_sqlite.dbapi.Error as error:
        raise DatabaseFileError(f"cannot open the database {database}: {error}") from error

    try:
        with connection.cursor() as cursor:
            # Begins the transaction that all reads share.
            cursor.execute("SELECT count(*) FROM sqlite_schema")
            cursor.fetchone()
        yield connection
    finally:
        connection.close()


def fetch(reader: Reader, query: str, parameters: Sequence[object] = ()) -> pa.Table:
    with reader.cursor() as cursor:
        cursor.execute(query, list(parameters) if parameters else None)
        return cursor.fetch_arrow_table()


def load_tickers(reader: Reader) -> list[str]:
    """Return every ticker with a bar, in order."""
    tickers: list[str] = fetch(reader, (QUERIES / "lake_tickers.sql").read_text())[
        "ticker"
    ].to_pylist()
    return tickers


def load_bars(reader: Reader, table: str, tickers: Sequence[str]) -> pa.Table:
    """Return bars of tickers (in order) by ticker and time, in the schema of their table."""
    rows = fetch(
        reader,
        (QUERIES / "lake_bars.sql").read_text(),
        [json.dumps(list(tickers), ensure_ascii=False), TIMEFRAME_OF[table]],
    )

    if not len(rows):
        return SCHEMAS[table].empty_table()

    stamps = pc.multiply(rows["timestamp_ms"], MICROSECONDS).cast(pa.timestamp("us", tz="UTC"))
    columns = {
        "ticker": rows["ticker"],
        "session_date": make_session_dates(stamps),
        "timestamp": stamps,
        **{name: rows[name] for name in ("open", "high", "low", "close", "volume")},
    }
    return with_nulls(table, columns, len(rows))


def make_session_dates(stamps: pa.ChunkedArray) -> pa.Array:
    """Return dates in New York; each distinct instant is converted once."""
    encoded = stamps.combine_chunks().dictionary_encode()
    local = pc.local_timestamp(encoded.dictionary.cast(pa.timestamp("us", tz=NEW_YORK.key)))
    return local.cast(pa.date32()).take(encoded.indices)


def with_nulls(table: str, columns: dict[str, Any], count: int) -> pa.Table:
    """Return the columns of a table; those that are not given are NULL."""
    schema = SCHEMAS[table]
    return pa.table(
        [columns[f.name] if f.name in columns else pa.nulls(count, f.type) for f in schema],
        names=schema.names,
    ).cast(schema)


def load_metrics(reader: Reader, tickers: Sequence[str]) -> pa.Table:
    """Return the stored daily metrics of tickers by ticker and date."""
    chosen = ", ".join(f"ifnull({name}, {NOTHING}) AS {name}" for name in COMPUTED_METRICS)
    prices = ", ".join(
        f"CAST({name} AS REAL) AS {name}" for name in ("open", "high", "low", "close")
    )

    rows = fetch(
        reader,
        f"SELECT ticker, date, timestamp, {prices}, volume, {chosen} FROM json_each(?1) AS wanted"
        " CROSS JOIN daily_metrics ON ticker = wanted.value ORDER BY wanted.key, date",
        [json.dumps(list(tickers), ensure_ascii=False)],
    )

    if not len(rows):
        return SCHEMAS["daily_metrics"].empty_table()

    columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
    columns["session_date"] = pc.strptime(rows["date"], "%Y-%m-%d", "s").cast(pa.date32())
    columns["timestamp"] = pc.multiply(rows["timestamp"], MICROSECONDS).cast(
        pa.timestamp("us", tz="UTC")
    )

    for name in COMPUTED_METRICS:
        values = rows[name].cast(pa.float64()).combine_chunks()
        known = pc.if_else(pc.is_inf(values), pa.scalar(None, pa.float64()), values)
        columns[name] = known.cast(pa.int64()) if name in COUNTS else known

    return with_nulls("daily_metrics", columns, len(rows))


def load_small(reader: Reader) -> dict[str, pa.Table]:
    """Return universes, splits and coverage; no rows of what an older database lacks."""
    there = set(
        fetch(reader, "SELECT name FROM sqlite_schema WHERE type = 'table'")["name"].to_pylist()
    )
    columns = fetch(reader, "SELECT name FROM pragma_table_info('_splits')")["name"].to_pylist()
    # Until 2026-11 it held what arithmetic had done to stored bars.
    if "withdrawn_at_utc" not in columns:
        there.discard("_splits")
    return {name: load_small_table(reader, name, there) for name in SMALL_QUERIES}


SMALL_QUERIES = {
    "universes": (
        "universe",
        "SELECT u.name AS universe, s.ticker, s.name, s.sector, s.industry, s.market_cap, "
        "s.is_active"
        " FROM universe u JOIN universe_stocks s ON s.universe_id = u.id ORDER BY u.name, s.ticker",
    ),
    "splits": (
        "_splits",
        "SELECT ticker, execution_date, split_from, split_to, iif(withdrawn_at_utc IS NULL, "
        "'listed', 'withdrawn') AS state, NULL AS seen_ratio, 'database' AS origin FROM _splits "
        "ORDER BY ticker, execution_date, split_from, split_to",
    ),
    "coverage": ("_coverage", "SELECT * FROM _coverage ORDER BY universe, timeframe"),
}


def load_small_table(reader: Reader, table: str, there: set[str]) -> pa.Table:
    """Return a table's rows in the lake's types; none where the database has no such table."""
    needed, query = SMALL_QUERIES[table]
    schema = SCHEMAS[table]
    if needed not in there:
        return schema.empty_table()

    with reader.cursor() as cursor:
        cursor.execute(query)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return pa.Table.from_pylist(
        [{f.name: as_type(f, row.get(f.name)) for f in schema} for row in rows], schema=schema
    )


def as_type(field: pa.Field, value: Any) -> Any:
    """Return a value in a field's type: SQLite has no dates, and keeps truth as a number."""
    if value is None:
        return None
    if pa.types.is_date32(field.type):
        return date.fromisoformat(value)
    return bool(value) if pa.types.is_boolean(field.type) else value


def as_stamps_ms(rows: pa.Table) -> np.ndarray:
    """Return the instants of rows as milliseconds UTC."""
    micros = rows["timestamp"].combine_chunks().cast(pa.int64()).to_numpy()
    return np.asarray(micros // MICROSECONDS)
