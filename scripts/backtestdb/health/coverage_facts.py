"""How much of each universe is there, as the backfills recorded it; nothing large is counted."""

import sqlite3
from dataclasses import dataclass, replace

from backtestdb.database import column_names, table_names
from backtestdb.new_york import date_of
from backtestdb.timeframes import TIMEFRAMES

TICKERS_AT_ONCE = 250


@dataclass(frozen=True, kw_only=True)
class UniverseCoverage:
    """A universe in one timeframe. Sessions of tickers: expected = stored + known_empty + set_aside
    + beyond_plan + failed; None where no backfill has come to its end and counted them. `sessions`:
    asked ones. `provisional`: those of them that the next run asks for again. `has_several_ranges`:
    between `start` and `end` lie sessions that were not asked for. `first` and `last`: sessions of
    the stored bars. `unanswered`: active tickers that the vendor was never asked about with
    success. `is_stale`: a run that asked has not counted, or a ticker came in, since the last
    count."""

    universe: str
    timeframe: str
    tickers: int
    unanswered: int
    first: str
    last: str
    start: str = ""
    end: str = ""
    sessions: int | None = None
    expected: int | None = None
    stored: int | None = None
    known_empty: int | None = None
    set_aside: int | None = None
    beyond_plan: int | None = None
    failed: int | None = None
    provisional: int = 0
    has_several_ranges: bool = False
    is_stale: bool = False

    @property
    def answered_share(self) -> float | None:
        """Return the share, from 0 to 1, of the sessions of tickers that the key may ask for: those
        that are stored, or known to be empty (or rejected as untrue). None where nothing was
        counted."""
        if self.expected is None or self.failed is None:
            return None
        asked = self.expected - (self.beyond_plan or 0)
        return 1.0 if asked <= 0 else (asked - self.failed) / asked

    @property
    def has_holes(self) -> bool:
        return bool(self.failed) or self.is_stale or (self.expected is None and self.unanswered > 0)


def load_universe_coverage(connection: sqlite3.Connection) -> list[UniverseCoverage]:
    """Return the coverage of each universe's daily bars, and of its 5-minute bars where some were
    asked for or stored."""
    tables = set(table_names(connection))
    if not {"universe", "universe_stocks", "ohlcv_data"} <= tables:
        return []
    universes = connection.execute("SELECT id, name FROM universe ORDER BY name").fetchall()
    found = []

    for universe_id, name in universes:
        for timeframe in TIMEFRAMES:
            coverage = load_stored(connection, tables, universe_id, name, timeframe)
            coverage = with_counts(connection, tables, coverage)
            if timeframe == "1day" or coverage.first or coverage.expected is not None:
                found.append(coverage)

    return found


def load_stored(
    connection: sqlite3.Connection, tables: set[str], universe_id: int, name: str, timeframe: str
) -> UniverseCoverage:
    """Return what is stored, by two look-ups in an index for each ticker, whatever the number of
    bars."""
    asked = (
        "EXISTS (SELECT 1 FROM _ranges_asked a WHERE a.ticker = s.ticker AND a.timeframe = "
        ":timeframe)"
    )
    statement = (
        f"SELECT s.id, {asked if '_ranges_asked' in tables else '1'}, (SELECT min(timestamp) "
        "FROM ohlcv_data WHERE ticker = s.ticker AND timeframe = :timeframe), "
        "(SELECT max(timestamp) FROM ohlcv_data WHERE ticker = s.ticker "
        "AND timeframe = :timeframe) FROM universe_stocks s WHERE universe_id = :universe "
        f"AND is_active AND s.id > :after ORDER BY s.id LIMIT {TICKERS_AT_ONCE}"
    )
    values = {"universe": universe_id, "timeframe": timeframe, "after": -1}
    rows: list[tuple[int, int, int | None, int | None]] = []

    # A few tickers at once: with a rollback journal no program can commit while a statement reads.
    while part := connection.execute(statement, values).fetchall():
        rows += part
        values["after"] = part[-1][0]

    return UniverseCoverage(
        universe=name,
        timeframe=timeframe,
        tickers=len(rows),
        unanswered=sum(not answered for _, answered, *_ in rows),
        first=session_of(min((first for *_, first, _ in rows if first is not None), default=None)),
        last=session_of(max((last for *_, last in rows if last is not None), default=None)),
    )


def session_of(timestamp_ms: int | None) -> str:
    return "" if timestamp_ms is None else date_of(timestamp_ms).isoformat()


def with_counts(
    connection: sqlite3.Connection, tables: set[str], coverage: UniverseCoverage
) -> UniverseCoverage:
    """Add what the last backfill of this universe counted at its end."""
    row = None
    if "_coverage" in tables:
        newer = "state" in column_names(connection, "_coverage")
        state = "state, provisional, ranges LIKE '%],[%'" if newer else "'counted', 0, 0"
        row = connection.execute(
            "SELECT start_date, end_date, expected / max(tickers, 1), expected, stored, "
            f"known_empty, set_aside, beyond_plan, failed, tickers, {state} FROM _coverage "
            "WHERE universe = ? AND timeframe = ?",
            (coverage.universe, coverage.timeframe),
        ).fetchone()

    if row is None:
        return coverage
    *counts, tickers, state, provisional, has_several_ranges = row
    names = [
        *("start", "end", "sessions", "expected", "stored"),
        *("known_empty", "set_aside", "beyond_plan", "failed"),
    ]

    return replace(
        coverage,
        **dict(zip(names, counts, strict=True)),
        provisional=provisional,
        has_several_ranges=bool(has_several_ranges),
        is_stale=tickers < coverage.tickers or state == "running",
    )
