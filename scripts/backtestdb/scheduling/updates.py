"""When market data is to be updated, and audited: a light rule, because what makes backups runs
without pandas.

The rule knows weekdays and the clock of New York, and no holidays: `make update` itself knows the
sessions, and after a day without one it finds nothing new and records that it looked.
"""

import sqlite3
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Literal

from backtestdb.config import Settings
from backtestdb.database import table_names
from backtestdb.files import is_locked
from backtestdb.names import work_path
from backtestdb.new_york import NEW_YORK
from backtestdb.untouched import read_untouched

UpdateTask = Literal["update", "audit"]
# The close at 16:00 and FINAL_AFTER_CLOSE of market/sessions.py.
FINAL_AT = time(20, 15)
SATURDAY = 5


def find_due_updates(settings: Settings, now: datetime) -> list[UpdateTask]:
    """Return what to do now for the market data; nothing where the user turned it off, has no key
    or no universe, or while a rebuild writes the database's successor."""
    delay = settings.update_delay_minutes
    if delay is None or not settings.api_key or not settings.database_path.is_file():
        return []
    if is_locked(rebuild_lock_path(settings.database_path)):
        return []

    def look(connection: sqlite3.Connection) -> list[UpdateTask]:
        if not has_bars(connection):
            return []
        due: list[UpdateTask] = []
        if update_is_due(now, load_last_update(connection, now), delay):
            due.append("update")
        if is_audit_due(connection, now):
            due.append("audit")
        return due

    return read_untouched(settings.database_path, look)


def rebuild_lock_path(database: Path) -> Path:
    """Return the lock that a rebuild holds from its beginning to its end."""
    work_file = work_path(database)
    return work_file.with_name(work_file.name + ".lock")


def has_bars(connection: sqlite3.Connection) -> bool:
    if not {"universe", "ohlcv_data"} <= set(table_names(connection)):
        return False
    return bool(
        connection.execute("SELECT 1 FROM universe, (SELECT 1 FROM ohlcv_data LIMIT 1)").fetchone()
    )


def load_last_update(connection: sqlite3.Connection, now: datetime) -> datetime | None:
    """Return when the newest complete update was started."""
    if "_updates" not in table_names(connection):
        return None

    # What lies ahead is the work of a clock that was set back, and does not count.
    row = connection.execute(
        "SELECT max(started_at_utc) FROM _updates WHERE started_at_utc <= ?",
        (now.astimezone(UTC).isoformat(timespec="seconds"),),
    ).fetchone()
    return datetime.fromisoformat(row[0]) if row[0] else None


def update_is_due(now: datetime, last_update: datetime | None, delay_minutes: int) -> bool:
    """Return whether a session may have become final since the last update, or one that it was too
    early for."""
    return last_update is None or last_update < last_update_moment(now, delay_minutes)


def last_update_moment(now: datetime, delay_minutes: int) -> datetime:
    """Return the newest moment, not after `now`, at which an update is to be made: after each
    weekday of New York."""
    delay = timedelta(minutes=delay_minutes)
    day = now.astimezone(NEW_YORK).date()
    while True:
        moment = datetime.combine(day, FINAL_AT, NEW_YORK).astimezone(UTC) + delay
        if moment <= now and day.weekday() < SATURDAY:
            return moment
        day -= timedelta(days=1)


def is_audit_due(connection: sqlite3.Connection, now: datetime) -> bool:
    # Only where market data is updated is the market's code there for certain.
    from backtestdb.market.audit.accepted import audit_is_due, load_last_audit  # noqa: PLC0415

    return audit_is_due(load_last_audit(connection), now.astimezone(UTC))
