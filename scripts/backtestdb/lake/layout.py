"""What lies where in the lake: tables, columns with their units, periods and buckets. Pure.

    LAKE/versions/     one row a version: which Delta version of every other table belongs to it
    LAKE/parts/        one row a file of the current version: rows, bytes, checksums
    LAKE/bars_1day/period=2026/bucket=7/….parquet    all big tables, by year or by month
    LAKE/universes/    small tables: one file each

A bucket holds whole tickers, so that whatever follows a ticker through time needs the files of one
bucket only: in the measurements (docs/ARCHITECTURE.md) a shuffle cost several times the work
itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, md5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtestdb.market.metrics import COMPUTED_METRICS

BUCKETS = 32
NO_BUCKET = -1

# One type for every instant: microseconds UTC, the only zoned type that Delta has. Dates are those
# of the New York session. Prices in dollars, adjusted for splits and never for dividends; float64,
# because int32 × 10,000 overflows at the price of BRK.A and an adjusted price needs more than four
# decimals. Volumes in whole shares.
INSTANT = pa.timestamp("us", tz="UTC")
BAR_FIELDS = [
    pa.field("ticker", pa.string()),
    pa.field("session_date", pa.date32()),
    # Start of the bar; of a day bar: the session's midnight in New York.
    pa.field("timestamp", INSTANT),
    pa.field("open", pa.float64()),
    pa.field("high", pa.float64()),
    pa.field("low", pa.float64()),
    pa.field("close", pa.float64()),
    pa.field("volume", pa.int64()),
]
# The bar as it was traded, NULL where no split has changed it: the adjusted bar is computed from it
# once, whatever splits come later, and is therefore equal to that of a fresh backfill. All NULL,
# such a column takes no room.
TRADED_FIELDS = [
    pa.field(f"traded_{name}", pa.float64()) for name in ("open", "high", "low", "close", "volume")
]
COUNTS = ("consecutive_up_days", "consecutive_down_days")
SCHEMAS: dict[str, pa.Schema] = {
    "bars_1day": pa.schema(BAR_FIELDS),
    "bars_5min": pa.schema([*BAR_FIELDS, *TRADED_FIELDS]),
    "daily_metrics": pa.schema(
        BAR_FIELDS
        + [pa.field(n, pa.int64() if n in COUNTS else pa.float64()) for n in COMPUTED_METRICS]
    ),
    "session_aggregates": pa.schema(
        [
            *(pa.field("ticker", pa.string()), pa.field("session_date", pa.date32())),
            # Of regular hours.
            *(pa.field(name, pa.float64()) for name in ("open", "high", "low", "close")),
            pa.field("volume", pa.int64()),
            pa.field("extended_volume", pa.int64()),  # before the opening and after the close
            pa.field("bars", pa.int64()),
            # Of the first 30 minutes of regular hours.
            pa.field("opening_range_high", pa.float64()),
            pa.field("opening_range_low", pa.float64()),
            # The sum of (high + low + close) / 3 × volume, by the sum of volume.
            pa.field("vwap", pa.float64()),
            pa.field("first_hour_volume", pa.int64()),
            pa.field("last_hour_volume", pa.int64()),
            # The open against the regular close of the ticker's session before.
            pa.field("gap_percent", pa.float64()),
        ]
    ),
    "universes": pa.schema(
        [
            pa.field(name, pa.string())
            for name in ("universe", "ticker", "name", "sector", "industry")
        ]
        + [pa.field("market_cap", pa.float64()), pa.field("is_active", pa.bool_())]
    ),
    "splits": pa.schema(
        [
            *(pa.field("ticker", pa.string()), pa.field("execution_date", pa.date32())),
            *(pa.field("split_from", pa.float64()), pa.field("split_to", pa.float64())),
            pa.field("state", pa.string()),  # applied, or unconfirmed: the prices do not show it
            pa.field("seen_ratio", pa.float64()),  # close before / open after, as traded
            # database: of its bars; lake: of those that backfill-lake brought.
            pa.field("origin", pa.string()),
        ]
    ),
    "coverage": pa.schema(
        [pa.field("universe", pa.string()), pa.field("timeframe", pa.string())]
        + [pa.field(name, pa.date32()) for name in ("start_date", "end_date")]
        + [pa.field(name, pa.int64()) for name in ("tickers", "expected", "stored")]
        + [pa.field(n, pa.int64()) for n in ("known_empty", "set_aside", "beyond_plan", "failed")]
        + [pa.field("counted_at_utc", pa.string())]
    ),
    # What backfill-lake asked and was answered. ticker "*": the whole market's file of a session.
    "asked": pa.schema(
        [pa.field("ticker", pa.string())]
        + [pa.field(name, pa.date32()) for name in ("start_date", "end_date")]
        + [pa.field("source", pa.string())]
        + [pa.field(name, pa.int64()) for name in ("received", "stored", "rejected", "tickers")]
        + [pa.field("asked_at_utc", pa.string())]
    ),
    # Minutes that cannot be true, counted by reason, the first of each as it came. The row with the
    # reason "" names the tickers (a JSON list) that have no bar in the session because of it.
    "rejected": pa.schema(
        [
            *(pa.field("session_date", pa.date32()), pa.field("reason", pa.string())),
            *(pa.field("minutes", pa.int64()), pa.field("example", pa.string())),
        ]
    ),
}
# How long a period of a table is: files of 5-minute bars hold a month, those of daily rows a year.
PERIODS = {
    "bars_1day": "year",
    "daily_metrics": "year",
    "bars_5min": "month",
    "session_aggregates": "month",
}
BIG_TABLES = tuple(PERIODS)
PARTITION_COLUMNS = ["period", "bucket"]


@dataclass(frozen=True, order=True)
class PartKey:
    """Which part of which table a file is; a small table is one: period "", bucket NO_BUCKET."""

    table: str
    period: str = ""
    bucket: int = NO_BUCKET

    @property
    def folder(self) -> str:
        """Return the folder of a part, relative to the lake."""
        return (
            f"{self.table}/period={self.period}/bucket={self.bucket}" if self.period else self.table
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file and what is in it. `content`: hash of the values, whatever the file's compression;
    `sha256`: of the file; `made_from`: what it was computed from, "" when it was not computed in
    the lake; `first_session` and `last_session`: YYYY-MM-DD, "" in a small table."""

    key: PartKey
    path: str
    rows: int
    bytes: int
    sha256: str
    content: str
    made_from: str = ""
    first_session: str = ""
    last_session: str = ""


def bucket_of(ticker: str) -> int:
    """Return 0 … BUCKETS - 1, the same in every process and in SQL engines with md5."""
    return md5(ticker.encode(), usedforsecurity=False).digest()[0] % BUCKETS


def period_of(table: str, session_date: str) -> str:
    """Given YYYY-MM-DD, return its year or its month, as the table has it."""
    return session_date[:4] if PERIODS[table] == "year" else session_date[:7]


def full_schema(table: str) -> pa.Schema:
    """Add the partition columns, which stand in the names of the folders and not in the files."""
    schema = SCHEMAS[table]
    if table in PERIODS:
        schema = schema.append(pa.field("period", pa.string())).append(
            pa.field("bucket", pa.int32())
        )
    return schema


def split_by_period(table: str, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Return each period's rows of a bucket in the order of files: ticker, then time."""
    # As numbers: a text for each row took 40 times as long (0.21 s for 310,000 rows).
    unit = "datetime64[Y]" if PERIODS[table] == "year" else "datetime64[M]"
    periods = rows["session_date"].to_numpy().astype(unit)

    for period in np.unique(periods):
        yield str(period), sort_rows(table, rows.filter(pa.array(periods == period)))


def sort_rows(table: str, rows: pa.Table) -> pa.Table:
    """Sort by ticker and time; rows that are in order already are not copied."""
    order = "timestamp" if "timestamp" in rows.column_names else "session_date"
    if table in PERIODS and not is_sorted(rows, order):
        rows = rows.sort_by([("ticker", "ascending"), (order, "ascending")])
    return rows


def is_sorted(rows: pa.Table, order: str) -> bool:
    """Return whether rows are sorted by ticker, and those of a ticker by the column `order`."""
    if len(rows) < 2:
        return True
    ticker, moment = rows["ticker"].combine_chunks(), rows[order].combine_chunks()
    before, after = ticker[:-1], ticker[1:]
    same = pc.equal(before, after)
    grows = pc.less(before, after)
    later = pc.less_equal(moment[:-1], moment[1:])
    return bool(pc.all(pc.or_(grows, pc.and_(same, later))).as_py())


def hash_content(rows: pa.Table) -> str:
    """Return a hash of values and NULLs in order, in whatever chunks or buffers they lie."""
    digest = blake2b(digest_size=16)

    for field in rows.schema:
        column = rows[field.name].combine_chunks()
        digest.update(f"{field.name} {field.type} {len(column)} {column.null_count}".encode())
        if column.null_count == len(column):
            continue

        if column.null_count:
            # What lies below a NULL is anything: zeros stand for it, a column of bits tells where.
            digest.update(np_bytes(pc.is_null(column).cast(pa.uint8())))
            column = column.fill_null(
                "" if pa.types.is_string(field.type) else pa.scalar(0).cast(field.type)
            )

        if pa.types.is_string(field.type):
            # In order of appearance: one text a ticker, not one a row.
            texts = column.dictionary_encode()
            digest.update("\0".join(texts.dictionary.to_pylist()).encode())
            digest.update(np_bytes(texts.indices))
        else:
            digest.update(
                np_bytes(column.cast(pa.uint8()) if pa.types.is_boolean(field.type) else column)
            )

    return digest.hexdigest()


def np_bytes(column: pa.Array) -> memoryview:
    """Return the buffer of a column without NULLs, exactly its values."""
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return memoryview(column.to_numpy(zero_copy_only=False)).cast("B")
