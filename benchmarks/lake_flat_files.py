"""Part (a) of bench_lake.py: minute bars from the sandbox's flat files into the lake, and each of
them compared with what was traded."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backtestdb.lake.backfill import backfill_from_flat_files, find_lacking
from backtestdb.lake.flat_files import FlatFiles
from backtestdb.lake.owned import load_owned
from backtestdb.lake.scan import Lake
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.market.sessions import load_calendar, sessions_back, sessions_between
from backtestdb.sandbox.exchange import load_market_minutes
from backtestdb.sandbox.sessions import load_sessions
from backtestdb.sandbox.state import Settings, make_sandbox
from measuring import measured
from sandbox_process import running_sandbox

TODAY, LAST = "2026-11-20", date(2026, 11, 19)


def last_sessions(count: int) -> list[date]:
    """Return the dates of so many sessions, the last one LAST."""
    calendar = load_calendar()
    return sessions_between(calendar, sessions_back(calendar, LAST, count - 1), LAST)


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def bench_flat_files(folder: Path, tickers: int, sessions: int, at_once: int) -> dict[str, Any]:
    """Given where a lake may have been begun, bring at most `at_once` more sessions into it and
    return what all runs together took. Each of their bars is compared with what was traded."""
    store, record = Store(str(folder / "lake")), folder / "flat_files.json"
    runs = json.loads(record.read_text()) if record.exists() else []
    days = last_sessions(sessions)
    lacking = find_lacking(load_owned(open_lake(store, may_be_missing=True)), days)[:at_once]

    with running_sandbox("--tickers", str(tickers), today=TODAY) as sandbox:
        keys = {"AWS_ACCESS_KEY_ID": sandbox.key, "AWS_SECRET_ACCESS_KEY": sandbox.key}
        files = FlatFiles(
            "flatfiles", {"AWS_ENDPOINT_URL": sandbox.url, "AWS_REGION": "us-east-1", **keys}
        )

        def fill(wanted: Sequence[date]) -> Any:
            return backfill_from_flat_files(
                store, files, wanted, [], folder / "staging", now, processes=2
            )

        done, seconds, cpu, peak = measured(lambda: fill(lacking), apart_from=sandbox.process.pid)
        rest = find_lacking(load_owned(open_lake(store)), days)
        there = [day for day in days if day not in rest]
        again, again_seconds, _, _ = measured(lambda: fill(there))

    compared = compare_with_exchange(store, tickers, lacking)
    runs.append([len(lacking), done.received, done.stored, seconds, cpu, peak, compared])
    record.write_text(json.dumps(runs))
    read, received, stored, seconds, cpu = (sum(run[place] for run in runs) for place in range(5))
    size = sum(part.bytes for part in open_lake(store).parts_of("bars_5min"))
    return {
        "what": f"(a) flat files of {read} of {sessions} sessions into the lake, {tickers} stocks "
        f"and what trades beside them, in {len(runs)} runs",
        "minutes": received,
        "bars of five minutes": stored,
        "bars equal to those of the exchange": sum(run[6] for run in runs),
        "bytes a bar": round(size / stored, 2),
        "seconds, the sandbox making the files included": round(seconds, 1),
        "CPU seconds without the sandbox": round(cpu, 1),
        "bars a second, a CPU second": f"{stored / seconds:,.0f}, {stored / cpu:,.0f}",
        "peak MB of all processes without the sandbox": round(max(run[5] for run in runs)),
        "again": f"{again.sessions} sessions fetched, version {again.version} after "
        f"{done.version}, {again_seconds:.1f} s",
    }


def compare_with_exchange(store: Store, tickers: int, days: Sequence[date]) -> int:
    """Exit where a bar differs from the exchange's own 5-minute bars, which the flat files take
    apart into minutes; return how many are equal in all columns."""
    exchange = make_sandbox(Settings(), today=date.fromisoformat(TODAY), tickers=tickers).exchange
    names = pa.array([listing.ticker for listing in exchange.universe.listings])
    names_of = ["open", "high", "low", "close", "volume"]
    lake, equal = Lake(open_lake(store)).connection, 0
    for day in days:
        session = load_sessions().index_range(day, day).start
        listing, made = load_market_minutes(exchange, session)
        expected = pa.table(
            {
                "ticker": pa.DictionaryArray.from_arrays(pa.array(listing), names).cast("string"),
                "ms": made.start_ms,
                **{name: getattr(made.bars, name) for name in names_of[:-1]},
                "volume": np.floor(made.bars.volume),  # flat files count whole shares
            }
        )
        found = lake.sql(
            "SELECT ticker, epoch_ms(timestamp) AS ms, open, high, low, close, "
            "CAST(volume AS DOUBLE) AS volume FROM session_bars(?)",
            params=[str(day)],
        ).to_arrow_table()
        order = [("ticker", "ascending"), ("ms", "ascending")]
        if found.cast(expected.schema).sort_by(order) != expected.sort_by(order):
            raise SystemExit(f"the lake's bars of {day} are not those of the exchange")
        equal += len(found)
    return equal
