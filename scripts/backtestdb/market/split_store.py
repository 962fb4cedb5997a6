"""Splits in the database: those that were seen, when the vendor was asked, and whose bars are due
to be asked again.

Times are UTC; bars are dated by `created_at`, the time at which they came, whichever program wrote
them.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime

from backtestdb.database import transaction
from backtestdb.market.bar_rows import make_sqlite_time
from backtestdb.market.splits import KnownSplit, Split
from backtestdb.new_york import midnight_ms


def has_bars(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM ohlcv_data)").fetchone()[0])


def load_last_look(connection: sqlite3.Connection) -> datetime | None:
    """Return when the vendor's list of splits was last read as a whole."""
    row = connection.execute("SELECT asked_at_utc FROM _splits_asked").fetchone()
    return datetime.fromisoformat(row[0]) if row else None


def load_known_splits(connection: sqlite3.Connection, since: date) -> list[KnownSplit]:
    """Return those with an execution date on or after `since`."""
    rows = connection.execute(
        "SELECT execution_date, ticker, split_from, split_to, first_seen_at_utc, believed_at_utc, "
        "withdrawn_at_utc FROM _splits WHERE execution_date >= ?",
        (since.isoformat(),),
    )

    return [
        KnownSplit(
            Split(date.fromisoformat(day), ticker, split_from, split_to),
            datetime.fromisoformat(seen),
            datetime.fromisoformat(believed),
            datetime.fromisoformat(withdrawn) if withdrawn else None,
        )
        for day, ticker, split_from, split_to, seen, believed, withdrawn in rows
    ]


def save_look(
    connection: sqlite3.Connection,
    changed: Sequence[KnownSplit],
    judged: Sequence[KnownSplit],
    now_utc: datetime,
) -> None:
    """Store, in one transaction, what the look changed, that it was made, and the tickers of
    `judged` splits whose stored bars are adjusted in another way than an answer of today would
    be."""
    now_text = now_utc.isoformat(timespec="seconds")
    with transaction(connection):
        connection.executemany(
            "INSERT OR REPLACE INTO _splits (ticker, execution_date, split_from, split_to, "
            "first_seen_at_utc, believed_at_utc, withdrawn_at_utc) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [make_row(each) for each in changed],
        )
        connection.execute(
            "INSERT OR REPLACE INTO _splits_asked (id, asked_at_utc) VALUES (1, ?)", (now_text,)
        )
        reasons: dict[str, list[str]] = defaultdict(list)

        for each in judged:
            if has_older_bars(connection, each, now_utc):
                reasons[each.split.ticker].append(str(each))

        connection.executemany(
            "INSERT INTO _splits_due (ticker, reason, found_at_utc) VALUES (?, ?, ?)"
            " ON CONFLICT (ticker) DO UPDATE SET reason = excluded.reason",
            [(ticker, "; ".join(texts), now_text) for ticker, texts in reasons.items()],
        )


def make_row(known: KnownSplit) -> tuple[object, ...]:
    """Return a row of _splits."""
    split, withdrawn = known.split, known.withdrawn_at_utc
    return (
        split.ticker,
        split.execution_date.isoformat(),
        split.split_from,
        split.split_to,
        known.first_seen_at_utc.isoformat(timespec="seconds"),
        known.believed_at_utc.isoformat(timespec="seconds"),
        withdrawn.isoformat(timespec="seconds") if withdrawn else None,
    )


def has_older_bars(connection: sqlite3.Connection, known: KnownSplit, now_utc: datetime) -> bool:
    """Given a split that was listed or withdrawn, return whether a stored bar from before its day
    came before that."""
    changed_at, now = (
        make_sqlite_time(moment.astimezone(UTC).isoformat())
        for moment in (known.changed_at_utc, now_utc)
    )

    (found,) = connection.execute(
        # Both times are whole seconds: a bar of the same second may have come before the change. A
        # bar without a time is as old as can be, and so is a bar with a time that is still to come:
        # the clock was wrong when it came.
        "SELECT EXISTS (SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe IN ('1day', '5min')"
        " AND timestamp < ? AND (coalesce(created_at, '') <= ? OR created_at > ?))",
        (known.split.ticker, midnight_ms(known.split.execution_date), changed_at, now),
    ).fetchone()
    return bool(found)


def load_due_tickers(connection: sqlite3.Connection) -> dict[str, str]:
    """Return tickers to be asked for again, with the reason."""
    return dict(
        connection.execute("SELECT ticker, reason FROM _splits_due ORDER BY ticker").fetchall()
    )


def clear_due_ticker(connection: sqlite3.Connection, ticker: str) -> None:
    connection.execute("DELETE FROM _splits_due WHERE ticker = ?", (ticker,))
