"""From the database into the lake: what has changed, and only that, as one version."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from backtestdb.errors import VerificationError
from backtestdb.lake.layout import BUCKETS, PartKey, bucket_of, sort_rows, split_by_period
from backtestdb.lake.lineage import make_lineage
from backtestdb.lake.owned import Owned, load_owned, select
from backtestdb.lake.read_sqlite import (
    Reader,
    load_bars,
    load_metrics,
    load_small,
    load_tickers,
    open_reader,
)
from backtestdb.lake.store import Store
from backtestdb.lake.table import Draft, Version, open_lake

# An emptied or exchanged database is no reason to publish an empty lake.
FEWEST_ROWS_LEFT = 0.5
BUCKETS_AT_ONCE = 2  # hashed and compressed while the next one is read; more only take memory


@dataclass(frozen=True, kw_only=True)
class Published:
    """`files` of `files_in_all` were written; `is_new` is False when nothing had changed."""

    version: int
    is_new: bool
    files: int
    files_in_all: int
    rows: int
    bytes: int


def publish(
    database: Path,
    store: Store,
    now_utc: datetime,
    advance: Callable[[int], None] = lambda _: None,
    *,
    accept_fewer_rows: bool = False,
) -> Published:
    """Bring the lake to what the database holds. Where nothing changed, nothing is written.

    `advance` is called with 1 for each of BUCKETS. Raise VerificationError when the database has
    less than half of the day bars that the lake has, BusyError when another publication was
    quicker.
    """
    base = open_lake(store, may_be_missing=True)
    draft = Draft(base, "publish")
    owned = load_owned(base)

    with open_reader(database) as reader, ThreadPoolExecutor(BUCKETS_AT_ONCE) as threads:
        # Read in turn, written several at once: as many buckets as that are in memory, no more.
        under_way: deque[Future[None]] = deque()
        for bucket, tickers in enumerate(list_by_bucket(load_tickers(reader))):
            tables = load_bucket(reader, tickers)
            under_way.append(threads.submit(put_bucket, draft, bucket, tables, owned))
            if len(under_way) == BUCKETS_AT_ONCE:
                under_way.popleft().result()
            advance(1)
        for future in under_way:
            future.result()

        for table, rows in load_small(reader).items():
            put_small(draft, table, rows)

    if not accept_fewer_rows:
        verify_rows_left(draft)
    return describe(base, draft.commit(now_utc))


def list_by_bucket(tickers: list[str]) -> list[list[str]]:
    buckets: list[list[str]] = [[] for _ in range(BUCKETS)]
    for ticker in tickers:
        buckets[bucket_of(ticker)].append(ticker)
    return buckets


def load_bucket(reader: Reader, tickers: list[str]) -> dict[str, pa.Table]:
    tables = {table: load_bars(reader, table, tickers) for table in ("bars_1day", "bars_5min")}
    return {**tables, "daily_metrics": load_metrics(reader, tickers)}


def put_bucket(draft: Draft, bucket: int, tables: Mapping[str, pa.Table], owned: Owned) -> None:
    """Put everything of a bucket's tickers into the draft."""
    put_periods(draft, "bars_1day", bucket, dict(split_by_period("bars_1day", tables["bars_1day"])))
    put_periods(
        draft, "bars_5min", bucket, merge_minutes(draft.base, bucket, tables["bars_5min"], owned)
    )

    metrics = dict(split_by_period("daily_metrics", tables["daily_metrics"]))
    # What lake-metrics computed from just these bars is as good, and has the sessions ahead of the
    # asked ones too.
    computed = {
        key.period
        for key, part in draft.base.parts.items()
        if (key.table, key.bucket) == ("daily_metrics", bucket)
        and part.made_from
        and part.made_from == make_lineage(draft.parts, key)
    }
    put_periods(draft, "daily_metrics", bucket, metrics, leave=computed)


def merge_minutes(base: Version, bucket: int, rows: pa.Table, owned: Owned) -> dict[str, pa.Table]:
    """Return 5-minute bars by month: the database's own, not backfill-lake's, and these."""
    merged = dict(split_by_period("bars_5min", rows))
    months = {key.period for key in base.parts if (key.table, key.bucket) == ("bars_5min", bucket)}

    for month in months | set(merged):
        if not owned.holds_any(month):
            continue
        there = base.read(PartKey("bars_5min", month, bucket))
        mine = merged.get(month, there.schema.empty_table())
        both = pa.concat_tables([select(there, owned.mask(there)), select(mine, ~owned.mask(mine))])
        merged[month] = sort_rows("bars_5min", both)
    return merged


def put_periods(
    draft: Draft,
    table: str,
    bucket: int,
    periods: Mapping[str, pa.Table],
    leave: set[str] | None = None,
) -> None:
    """Given all that a table has of a bucket, put it into the draft; other periods are dropped,
    those in `leave` stay as they are."""
    there = {key.period for key in draft.base.parts if (key.table, key.bucket) == (table, bucket)}
    for period in (there | set(periods)) - (leave or set()):
        key = PartKey(table, period, bucket)
        if period in periods:
            draft.put(key, periods[period])
        else:
            draft.drop(key)


def put_small(draft: Draft, table: str, rows: pa.Table) -> None:
    """Put a small table into the draft; splits that backfill-lake applied stay."""
    if table == "splits":
        there = draft.base.read(PartKey(table))
        rows = pa.concat_tables([rows, there.filter(pc.equal(there["origin"], "lake"))])
    draft.put(PartKey(table), rows)


def verify_rows_left(draft: Draft) -> None:
    """Raise VerificationError for a draft with far fewer day bars than the version before it."""
    before, after = (
        sum(part.rows for key, part in parts.items() if key.table == "bars_1day")
        for parts in (draft.base.parts, draft.parts)
    )
    if after < FEWEST_ROWS_LEFT * before:
        raise VerificationError(
            f"the database has {after:,} day bars and the lake {before:,}: not published",
            next_step='if that is right: make publish ARGS="--accept-fewer-rows"',
        )


def describe(base: Version, version: Version) -> Published:
    """Return what a publication added to the version before it, and what there is now."""
    before = {part.path for part in base.parts.values()}
    return Published(
        version=version.number,
        is_new=version.number != base.number,
        files=sum(part.path not in before for part in version.parts.values()),
        files_in_all=len(version.parts),
        rows=sum(part.rows for part in version.parts.values()),
        bytes=sum(part.bytes for part in version.parts.values()),
    )
