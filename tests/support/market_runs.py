"""Backfills and updates with a clock of the test's choosing: called directly, or as a process that
can be killed.

As a process: python market_runs.py FOLDER URL NOW STAGED_FROM_BARS START END UNIVERSE…
With "update" as END it updates everything to START.
"""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

from backtestdb.config import load_settings  # noqa: E402
from backtestdb.database import connect  # noqa: E402
from backtestdb.market.backfill import backfill_together  # noqa: E402
from backtestdb.market.client import MarketData  # noqa: E402
from backtestdb.market.jobs import Report, Source, make_job  # noqa: E402
from backtestdb.market.sessions import load_calendar  # noqa: E402
from backtestdb.market.split_look import look_at_splits  # noqa: E402
from backtestdb.market.universes import load_members, save_universe  # noqa: E402
from backtestdb.market.update import Update, update  # noqa: E402
from backtestdb.new_york import NEW_YORK  # noqa: E402
from backtestdb.schema import ensure_schema  # noqa: E402

KEY = "sandbox-test-key"
DIRECTLY = 10**9


def database_of(folder: Path) -> Path:
    return folder / "backtesting.db"


def make_database(folder: Path, **universes: Sequence[str]) -> Path:
    """An empty database with universes."""
    folder.mkdir(exist_ok=True)
    with closing(connect(database_of(folder), create=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        ensure_schema(connection)
        for name, tickers in universes.items():
            save_universe(connection, name, tickers)
    return database_of(folder)


def make_source(
    folder: Path,
    url: str,
    now: str,
    concurrency: int = 4,
    stopping: threading.Event | None = None,
    **settings: str,
) -> Source:
    """`now`: the moment that the clock shows, in ISO text; a date alone means 20:30 New York, when
    its session is final."""
    if "T" in now:
        moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    else:
        moment = datetime.fromisoformat(f"{now}T20:30:00").replace(tzinfo=NEW_YORK).astimezone(UTC)
    environment = {
        "BACKTEST_ENV_FILE": os.devnull,
        "DATABASE_PATH": str(database_of(folder)),
        "XDG_STATE_HOME": str(folder / "state"),
        "POLYGON_BASE_URL": url,
        "POLYGON_API_KEY": KEY,
        "POLYGON_REQUESTS_PER_MINUTE": "0",
        "POLYGON_CONCURRENCY": str(concurrency),
        **settings,
    }
    client = MarketData(load_settings(environment), stopping)
    return Source(
        client=client,
        calendar=load_calendar(),
        concurrency=concurrency,
        stopping=client.stopping,
        clock=lambda: moment,
    )


def run_backfill(
    source: Source,
    database: Path,
    start: str,
    end: str,
    *universes: str,
    timeframe: str = "1day",
    staged_from_bars: int = DIRECTLY,
    keep_every_ticker: bool = False,
    looks: bool = False,
) -> list[Report]:
    """Backfill universes together; a report for each. `looks`: at the splits too, as the commands
    do."""
    with closing(connect(database)) as connection:
        ensure_schema(connection)
        jobs = [
            make_job(
                source.calendar,
                timeframe,
                load_members(connection, name),
                date.fromisoformat(start),
                date.fromisoformat(end),
                universe=name,
            )
            for name in universes
        ]
        return backfill_together(
            connection,
            source,
            jobs,
            ", ".join(universes),
            staged_from_bars=staged_from_bars,
            keep_every_ticker=keep_every_ticker,
            before_metrics=lambda: look_at_splits(connection, source) if looks else None,
        )


def run_update(source: Source, database: Path, end: str) -> Update:
    with closing(connect(database)) as connection:
        ensure_schema(connection)
        return update(connection, source, date.fromisoformat(end))


if __name__ == "__main__":
    folder, url, now, staged_from_bars, start, end, *universes = sys.argv[1:]
    source = make_source(Path(folder), url, now)
    if end == "update":
        run_update(source, database_of(Path(folder)), start)
    else:
        run_backfill(
            source,
            database_of(Path(folder)),
            start,
            end,
            *universes,
            staged_from_bars=int(staged_from_bars),
        )
