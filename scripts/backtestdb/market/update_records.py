"""What `make update` does once in a while and writes down: the list of us-stocks, and that an
update was complete."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from backtestdb.console import say
from backtestdb.database import table_names, transaction
from backtestdb.market.client import MarketDataError, StoppedRunError
from backtestdb.market.jobs import Source
from backtestdb.market.universes import US_STOCKS, update_us_stocks
from backtestdb.market.update import Update

LIST_IS_OLD_AFTER = timedelta(days=7)
UPDATES_KEPT = 100


def us_stocks_are_old(connection: sqlite3.Connection, now_utc: datetime) -> bool:
    """Return whether us-stocks has bars and its list, a week old, lacks new companies."""
    if not {"universe", "_coverage"} <= set(table_names(connection)):
        return False
    row = connection.execute(
        "SELECT updated_at FROM universe "
        "WHERE name = ? AND EXISTS (SELECT 1 FROM _coverage WHERE universe = name)",
        (US_STOCKS,),
    ).fetchone()
    if row is None:
        return False

    renewed_at = datetime.fromisoformat(row[0])
    return now_utc - renewed_at.replace(tzinfo=renewed_at.tzinfo or UTC) >= LIST_IS_OLD_AFTER


def renew_us_stocks(connection: sqlite3.Connection, source: Source, types: Sequence[str]) -> str:
    """Fetch the list anew; return why that failed, or "": the bars are updated in either case."""
    query = "SELECT min(start_date) FROM _coverage WHERE universe = ?"
    (start,) = connection.execute(query, (US_STOCKS,)).fetchone()

    try:
        change = update_us_stocks(connection, source.client, types, date.fromisoformat(start))
    except StoppedRunError:
        raise
    except MarketDataError as error:
        say(f"{US_STOCKS}: the list was not renewed: {error}")
        return str(error)

    say(f"{US_STOCKS}: {change.total:,} tickers, {len(change.added)} new, {len(change.left)} left")
    return ""


def save_update(connection: sqlite3.Connection, done: Update, now_utc: datetime, end: date) -> None:
    """Record a complete update: the schedule does not start another before the next session is
    final."""
    reports = [report for *_, report in done.reports]
    has_failed = (
        done.list_failure or done.splits.failure or any(report.has_holes for report in reports)
    )
    # With failures, or with a session that the key's plan kept from it, it is not complete.
    if has_failed or any(report.refused_session for report in reports):
        return

    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO _updates (started_at_utc, through_session) VALUES (?, ?)",
            (now_utc.isoformat(timespec="seconds"), end.isoformat()),
        )
        connection.execute(
            "DELETE FROM _updates WHERE started_at_utc NOT IN (SELECT started_at_utc FROM _updates "
            "ORDER BY started_at_utc DESC LIMIT ?)",
            (UPDATES_KEPT,),
        )
