"""Read a version of the lake: SQL by DuckDB, or whatever a notebook prefers.

In a notebook, with `scripts` on the path:

    from backtestdb.lake.scan import load_lake
    lake = load_lake()                                # the newest version, while `lake` lives
    lake.sql("SELECT * FROM bars_of('AAPL')").df()    # pandas; .pl() for Polars, .arrow() for Arrow
    polars.scan_parquet(lake.files("daily_metrics"))  # any reader, by the files of this version
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pa_dataset

from backtestdb.config import load_settings
from backtestdb.lake.layout import BIG_TABLES, BUCKETS, SCHEMAS, Part, full_schema
from backtestdb.lake.store import make_s3, make_store
from backtestdb.lake.table import Version, open_lake

# What the views show beside the columns of the files. A gap is the open against the close before.
SHOWN_BESIDE = {
    "bars_5min": ", strftime(timestamp, '%H:%M:%S') AS time_of_day",
    "daily_metrics": ", 100 * (open * (1 + change_percent / 100) / close - 1) AS gap_percent",
}
MACROS = f"""
CREATE MACRO bucket_of(name) AS ('0x' || left(md5(name), 2))::INTEGER % {BUCKETS};
CREATE MACRO bars_of(name) AS TABLE
    SELECT * FROM bars_5min WHERE bucket = bucket_of(name) AND ticker = name;
CREATE MACRO days_of(name) AS TABLE
    SELECT * FROM daily_metrics WHERE bucket = bucket_of(name) AND ticker = name;
CREATE MACRO session_bars(day) AS TABLE
    SELECT * FROM bars_5min
    WHERE period = strftime(day::DATE, '%Y-%m') AND session_date = day::DATE;
"""


class Lake:
    """One version, open for reading."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.connection = connect(version)

    def sql(self, query: str) -> Any:
        """Return a relation of DuckDB: .df(), .pl(), .arrow(), .fetchall()."""
        return self.connection.sql(query)

    def files(self, table: str) -> list[str]:
        """Return addresses of a table's files in this version."""
        return [self.version.store.uri(part.path) for part in self.version.parts_of(table)]


def load_lake(number: int | None = None) -> Lake:
    """Return the lake of the settings; `number`: an older version of it."""
    return Lake(open_lake(make_store(load_settings()), number))


def connect(version: Version, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection with a view for each table, and the macros."""
    connection = duckdb.connect()
    # Nothing is downloaded: what DuckDB does not have, it refuses.
    connection.execute(
        "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false"
    )
    connection.execute("SET TimeZone = 'America/New_York'; SET enable_progress_bar = false")
    if threads:
        connection.execute(f"SET threads = {threads}")

    for table in SCHEMAS:
        parts = version.parts_of(table)
        if version.store.is_local and parts:
            source = describe_files(version, table, parts)
        else:
            source = f"{table}_files"
            connection.register(source, make_dataset(version, table, parts))
        connection.execute(
            f"CREATE VIEW {table} AS SELECT *{SHOWN_BESIDE.get(table, '')} FROM {source}"
        )

    connection.execute(MACROS)
    return connection


def describe_files(version: Version, table: str, parts: Sequence[Part]) -> str:
    """Return a call of DuckDB's reader without the files of other periods and buckets."""
    names = ", ".join(
        "'" + str(Path(version.store.root, part.path)).replace("'", "''") + "'" for part in parts
    )
    if table not in BIG_TABLES:
        return f"read_parquet([{names}])"
    kinds = "{'period': VARCHAR, 'bucket': INTEGER}"
    return f"read_parquet([{names}], hive_partitioning = true, hive_types = {kinds})"


def make_dataset(version: Version, table: str, parts: Sequence[Part]) -> Any:
    """Return the files on S3 as an Arrow dataset."""
    schema = full_schema(table)
    if not parts:
        return schema.empty_table()

    # DuckDB reads S3 only with an extension that it would download. So Arrow reads, and DuckDB asks
    # it for columns and rows.
    files, root = make_s3(version.store.options), version.store.root.removeprefix("s3://")
    kind = pa_dataset.ParquetFileFormat()
    fragments = [
        kind.make_fragment(f"{root}/{p.path}", files, partition_expression=tell_part(p))
        for p in parts
    ]
    return pa_dataset.FileSystemDataset(fragments, schema, kind, files)


def tell_part(part: Part) -> pa_dataset.Expression | None:
    if not part.key.period:
        return None
    bucket = pa.scalar(part.key.bucket, pa.int32())
    return (pa_dataset.field("period") == part.key.period) & (pa_dataset.field("bucket") == bucket)
