"""No silent holes: expected = stored + known empty + rejected + failed, in sessions of tickers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from backtestdb.lake.layout import PartKey
from backtestdb.lake.owned import EPOCH, Owned, load_owned
from backtestdb.lake.scan import Lake
from backtestdb.lake.table import Version

STORED = """
    SELECT count(*), count(*) FILTER (WHERE EXISTS (
        SELECT 1 FROM asked
        WHERE asked.ticker IN ('*', found.ticker)
            AND found.session_date BETWEEN start_date AND end_date
    ))
    FROM (
        SELECT DISTINCT ticker, session_date FROM bars_5min
        JOIN asked_for USING (ticker) JOIN wanted_sessions USING (session_date)
    ) AS found
"""


@dataclass(frozen=True, kw_only=True)
class LakeCoverage:
    """Counts of (ticker, session) of the 5-minute bars of a universe."""

    universe: str
    start_date: date
    end_date: date
    tickers: int
    expected: int
    stored: int
    known_empty: int
    rejected: int
    failed: int


def count_coverage(
    version: Version, universe: str, tickers: Sequence[str], sessions: Sequence[date]
) -> LakeCoverage:
    """Given members and at least one session, in order, return what the lake has of them."""
    lake = Lake(version)
    lake.connection.register(
        "asked_for", pa.table({"ticker": pa.array(sorted(set(tickers)), pa.string())})
    )
    lake.connection.register(
        "wanted_sessions", pa.table({"session_date": pa.array(sessions, pa.date32())})
    )

    stored, stored_of_asked = lake.connection.execute(STORED).fetchone() or (0, 0)
    expected = len(set(tickers)) * len(sessions)

    asked = count_asked(load_owned(version), sorted(set(tickers)), sessions)
    rejected = count_rejected(version, set(tickers), set(sessions))
    # What the database published was not asked for by the lake.
    known_empty = asked - stored_of_asked - rejected

    return LakeCoverage(
        universe=universe,
        start_date=sessions[0],
        end_date=sessions[-1],
        tickers=len(set(tickers)),
        expected=expected,
        stored=stored,
        known_empty=known_empty,
        rejected=rejected,
        failed=expected - stored - known_empty - rejected,
    )


def count_asked(owned: Owned, tickers: Sequence[str], sessions: Sequence[date]) -> int:
    """Count sessions of tickers that were answered, as a whole market or by themselves."""
    days = {(day - EPOCH).days for day in sessions}
    rest = days - owned.sessions
    alone = sum(
        sum(any(first <= day <= last for first, last in owned.ranges[ticker]) for day in rest)
        for ticker in tickers
        if ticker in owned.ranges
    )
    return len(days & owned.sessions) * len(tickers) + alone


def count_rejected(version: Version, tickers: set[str], sessions: set[date]) -> int:
    """Count sessions of tickers without a bar because every minute was rejected."""
    rows = version.read(PartKey("rejected")).to_pylist()
    return sum(
        len(tickers & set(json.loads(row["example"])))
        for row in rows
        if not row["reason"] and row["session_date"] in sessions
    )
