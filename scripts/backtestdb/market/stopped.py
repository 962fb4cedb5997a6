"""Tickers that stopped: members without newest bars, and who may have taken their place."""

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from backtestdb.database import transaction
from backtestdb.market.client import MarketDataError, StoppedRunError
from backtestdb.market.jobs import Job, Source
from backtestdb.market.universes import load_tickers
from backtestdb.new_york import date_of, midnight_ms

NEWEST_SESSIONS = 5
# Every ticker is asked about once; a list that is years old must not cost a run's worth of requests
# at once.
EVENTS_AT_MOST = 5


@dataclass(frozen=True)
class TickerEvent:
    """From `event_date` on the company is listed under `ticker`."""

    event_date: date
    ticker: str


def record_stopped(
    connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], failures: Collection[str]
) -> dict[str, str]:
    """Given the daily jobs of a run that is at its end and the requests that failed (tickers,
    "session DATE"), keep which of the active members stopped; return a note for each. Asks the
    vendor for the events of those that are new, a few a run."""
    notes: dict[str, str] = {}
    for job in jobs:
        sessions = job.sessions[-NEWEST_SESSIONS:]
        active = set(load_tickers(connection, job.universe)) if job.universe else set()
        members = [ticker for ticker in job.tickers if ticker in active and ticker not in failures]
        if len(sessions) < NEWEST_SESSIONS or any(f"session {day}" in failures for day in sessions):
            continue
        stopped = find_stopped(connection, members, sessions)

        with transaction(connection):
            connection.executemany(
                "DELETE FROM _stopped_tickers WHERE ticker = ?",
                [(ticker,) for ticker in members if ticker not in stopped],
            )
            for ticker, last_bar in stopped.items():
                save_stopped(connection, ticker, last_bar)

        ask_for_successors(connection, source, list(stopped))
        rows = connection.execute("SELECT ticker, note FROM _stopped_tickers ORDER BY ticker")
        notes |= {ticker: note for ticker, note in rows if ticker in stopped}

    return notes


def find_stopped(
    connection: sqlite3.Connection, tickers: Sequence[str], newest: Sequence[date]
) -> dict[str, date]:
    """Return the last bar's day of those with bars, but none in `newest` sessions or later."""
    first_ms = midnight_ms(newest[0])
    found = {}

    for ticker in tickers:
        (stamp,) = connection.execute(
            "SELECT max(timestamp) FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day'",
            (ticker,),
        ).fetchone()
        if stamp is not None and stamp < first_ms:
            found[ticker] = date_of(stamp)
    return found


def save_stopped(connection: sqlite3.Connection, ticker: str, last_bar: date) -> None:
    """Record a ticker that stopped. What is known of it stays as long as its last bar is the same.
    The caller's transaction."""
    connection.execute(
        "INSERT INTO _stopped_tickers (ticker, last_bar, note) VALUES (?, ?, ?) "
        "ON CONFLICT (ticker) DO UPDATE SET last_bar = excluded.last_bar, note = excluded.note, "
        "events_asked_at_utc = NULL WHERE last_bar <> excluded.last_bar",
        (ticker, last_bar.isoformat(), describe_stopped(last_bar, None)),
    )


def describe_stopped(last_bar: date, successor: TickerEvent | None) -> str:
    note = f"renamed or delisted? last bar {last_bar}"
    if successor is None:
        return note
    return f"{note}; the vendor lists it as {successor.ticker} since {successor.event_date}"


def ask_for_successors(
    connection: sqlite3.Connection, source: Source, tickers: Sequence[str]
) -> None:
    """Ask which ticker took the place of each."""
    query = (
        "SELECT ticker, last_bar FROM _stopped_tickers WHERE events_asked_at_utc IS NULL "
        "ORDER BY ticker"
    )
    asked = set(tickers)
    waiting = [row for row in connection.execute(query).fetchall() if row[0] in asked]

    for ticker, text in waiting[:EVENTS_AT_MOST]:
        last_bar = date.fromisoformat(text)
        try:
            events = parse_events(source.client.fetch_ticker_events(ticker))
        except StoppedRunError:
            raise
        except MarketDataError:
            # The plan has no ticker events: that is no failure, and not asked twice.
            events = []

        successor = find_successor(events, ticker, last_bar)
        with transaction(connection):
            connection.execute(
                "UPDATE _stopped_tickers SET note = ?, events_asked_at_utc = ? WHERE ticker = ?",
                (describe_stopped(last_bar, successor), source.now_text(), ticker),
            )


def parse_events(results: object) -> list[TickerEvent]:
    """Return changes of ticker in the vendor's `results`, oldest first, without other kinds."""
    found = []

    for row in results.get("events") or [] if isinstance(results, dict) else []:
        try:
            found.append(
                TickerEvent(date.fromisoformat(row["date"]), str(row["ticker_change"]["ticker"]))
            )
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda event: event.event_date)


def find_successor(
    events: Sequence[TickerEvent], ticker: str, last_bar: date
) -> TickerEvent | None:
    """Return the newest name of the company, if it took one after its last bar under `ticker`."""
    later = [event for event in events if event.event_date > last_bar and event.ticker != ticker]
    return later[-1] if later else None
