"""The audit's tables: findings that the user looked at and accepts, and when audits were."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from backtestdb.database import table_names

EVERY_SESSION = ""
DUE_AFTER = timedelta(days=7)
AUDITS_KEPT = 100


@dataclass(frozen=True)
class Accepted:
    """`entries`: rule, ticker, session (ISO date, or EVERY_SESSION)."""

    entries: frozenset[tuple[str, str, str]] = frozenset()

    def covers(self, rule: str, ticker: str, session_date: str) -> bool:
        return bool(self.entries) and (
            (rule, ticker, EVERY_SESSION) in self.entries
            or (rule, ticker, session_date) in self.entries
        )


@dataclass(frozen=True)
class LastAudit:
    ended_at_utc: datetime
    errors: int
    warnings: int


def load_accepted(connection: sqlite3.Connection) -> Accepted:
    if "_audit_accepted" not in table_names(connection):
        return Accepted()
    rows: Iterable[tuple[str, str, str]] = connection.execute(
        "SELECT rule, ticker, session_date FROM _audit_accepted"
    )
    return Accepted(frozenset(rows))


def save_accepted(
    connection: sqlite3.Connection, rule: str, ticker: str, session_date: str, now_utc: datetime
) -> None:
    """Accept a finding of one session, or of all (""), in the caller's transaction."""
    connection.execute(
        "INSERT INTO _audit_accepted (rule, ticker, session_date, accepted_at_utc)"
        " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (rule, ticker, session_date, now_utc.isoformat(timespec="seconds")),
    )


def remove_accepted(
    connection: sqlite3.Connection, rule: str, ticker: str, session_date: str
) -> bool:
    """Return whether it was there. The caller's transaction."""
    cursor = connection.execute(
        "DELETE FROM _audit_accepted WHERE rule = ? AND ticker = ? AND session_date = ?",
        (rule, ticker, session_date),
    )
    return cursor.rowcount > 0


def load_last_audit(connection: sqlite3.Connection) -> LastAudit | None:
    """Return the newest complete audit of the whole database; None when there was none."""
    if "_audits" not in table_names(connection):
        return None
    row = connection.execute(
        "SELECT ended_at_utc, errors, warnings FROM _audits ORDER BY ended_at_utc DESC LIMIT 1"
    ).fetchone()
    return LastAudit(datetime.fromisoformat(row[0]), row[1], row[2]) if row else None


def save_audit(
    connection: sqlite3.Connection, errors: int, warnings: int, now_utc: datetime
) -> None:
    """Record when an audit ended, and how many errors and warnings it found; the newest AUDITS_KEPT
    stay. The caller's transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO _audits (ended_at_utc, errors, warnings) VALUES (?, ?, ?)",
        (now_utc.isoformat(timespec="seconds"), errors, warnings),
    )
    connection.execute(
        "DELETE FROM _audits WHERE ended_at_utc NOT IN (SELECT ended_at_utc FROM _audits "
        "ORDER BY ended_at_utc DESC LIMIT ?)",
        (AUDITS_KEPT,),
    )


def audit_is_due(last: LastAudit | None, now_utc: datetime) -> bool:
    """Return whether a week has passed. A clock that was set back does not put it off for ever."""
    return last is None or not timedelta() <= now_utc - last.ended_at_utc < DUE_AFTER
