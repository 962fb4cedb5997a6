"""Which sessions are stored, failed, known empty: beside a count of every bar, one by one."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import pytest

from backtestdb.database import connect
from backtestdb.health.coverage_facts import UniverseCoverage, load_universe_coverage
from backtestdb.market.coverage import load_coverage
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.new_york import date_of, midnight_ms
from backtestdb.page.picture import draw_picture, name_holes
from backtestdb.page.states import States, find_in_month, load_states
from backtestdb.page.ticker import load_ticker
from backtestdb.page.ticker_pages import Search, load_ticker_list
from backtestdb.schema import ensure_schema
from large_database import make_large_database

# Over both changes of the clock, a half day (2023-11-24) and a year's end.
FIRST, LAST = date(2023, 3, 1), date(2024, 4, 2)
SESSIONS = sessions_between(load_calendar(), FIRST, LAST)
TICKERS = [f"T{number}" for number in range(12)]
ASKED_AT = "2025-01-02T00:00:00+00:00"


def make_database(path: Path, seed: int) -> None:
    """A universe with bars, and records of answers, that lack what chance takes away."""
    chance = random.Random(seed)
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO universe (id, name) VALUES (1, 'u')")
        for ticker in TICKERS:
            connection.execute(
                "INSERT INTO universe_stocks (universe_id, ticker) VALUES (1, ?)", (ticker,)
            )
            share = chance.choice([0, 0.6, 0.97, 1, 1])
            born, gone = sorted(chance.sample(range(len(SESSIONS)), 2))
            for day in SESSIONS[born : gone + 1]:
                if chance.random() < share:
                    insert_bar(connection, ticker, "1day", midnight_ms(day))
                if chance.random() < share:
                    for hour in chance.sample([4, 9, 12, 19], 2):
                        moment = midnight_ms(day) + hour * 3_600_000
                        insert_bar(connection, ticker, "5min", moment)
            for timeframe in ("1day", "5min"):
                if chance.random() < 0.7:
                    first, last = sorted(chance.sample(SESSIONS, 2))
                    connection.execute(
                        "INSERT INTO _ranges_asked VALUES (?, ?, ?, ?, ?, ?, 9, ?, 'run')",
                        (ticker, timeframe, *[f"{d}" for d in (first, last) * 2], ASKED_AT),
                    )
        connection.execute(
            "INSERT INTO _vendor_limits VALUES ('1day', '2023-05-01', '2023-05-01', NULL, 0, ?)",
            (ASKED_AT,),
        )
        for timeframe in ("1day", "5min"):
            connection.execute(
                "INSERT INTO _coverage"
                " VALUES ('u', ?, ?, ?, 12, 1, 0, 0, 0, 0, 1, ?, '', 0, 'counted')",
                (timeframe, f"{FIRST}", f"{LAST}", ASKED_AT),
            )
        connection.execute("COMMIT")


def insert_bar(connection: sqlite3.Connection, ticker: str, timeframe: str, ms: int) -> None:
    connection.execute(
        "INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume, timeframe)"
        " VALUES (?, ?, 1, 1, 1, 1, 1, ?)",
        (ticker, ms, timeframe),
    )


@pytest.mark.parametrize("seed", range(2))
def test_states_are_what_every_single_bar_and_the_count_of_the_backfills_say(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "a.db"
    make_database(path, seed)
    with closing(connect(path, read_only=True)) as connection:
        for coverage in load_universe_coverage(connection):
            states = load_states(connection, coverage)
            assert list(states.sessions) == SESSIONS
            counted = load_coverage(connection, TICKERS, coverage.timeframe, SESSIONS)
            assert {t: states.holes_of(t) for t in states.failed} == counted.failed_of
            beyond = sum(mask.bit_count() for mask in states.beyond.values())
            assert beyond == counted.beyond_plan
            assert sum(month.known_empty for month in states.months) == counted.known_empty
            check_bars(connection, states)


def check_bars(connection: sqlite3.Connection, states: States) -> None:
    for ticker in TICKERS:
        rows = connection.execute(
            "SELECT timestamp FROM ohlcv_data WHERE ticker = ? AND timeframe = ?",
            (ticker, states.timeframe),
        )
        days = {date_of(ms) for (ms,) in rows}
        stored = {day for place, day in enumerate(SESSIONS) if states.stored[ticker] >> place & 1}
        assert stored == days
        for month in states.month_masks:
            of_month = [day for day in SESSIONS if f"{day}".startswith(month)]
            lacking = [row for row in find_in_month(states, month) if row.ticker == ticker]
            expected = len(days & set(of_month))
            assert (lacking[0].stored if lacking else len(of_month)) == expected


def test_database_without_records_counts_between_its_first_and_last_bar(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "a.db", create=True)) as connection:
        ensure_schema(connection, ["partially_recoverable", "recoverable"])
        connection.execute("INSERT INTO universe (id, name) VALUES (1, 'u')")
        for ticker in ("A", "B"):
            connection.execute(
                "INSERT INTO universe_stocks (universe_id, ticker) VALUES (1, ?)", (ticker,)
            )
        for day in SESSIONS[:5]:
            insert_bar(connection, "A", "1day", midnight_ms(day))
        insert_bar(connection, "B", "1day", midnight_ms(SESSIONS[2]))
        picture = draw_picture(connection, load_universe_coverage(connection))
        (states,) = picture.states
        assert (states.is_judged, states.failed) == (False, {"B": 0b11011})
        assert picture.holes_of("B") == {"1day": 4}
        assert name_holes(picture) == []


def test_month_beyond_the_plan_has_no_share(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make_database(path, 1)
    with closing(connect(path)) as connection:
        connection.execute("DELETE FROM ohlcv_data")
        connection.execute("DELETE FROM _ranges_asked")
        coverage = UniverseCoverage(
            universe="u", timeframe="1day", tickers=12, unanswered=12, first="", last="", expected=1
        )
        months = {month.month: month for month in load_states(connection, coverage).months}
    assert months["2023-04"].percent is None
    assert months["2023-05"].percent == 0


@contextmanager
def longest_statement(connection: sqlite3.Connection) -> Iterator[Callable[[], int]]:
    """How many thousand steps of SQLite's machine the longest statement took until now: the same
    number on every machine."""
    steps = [0]
    connection.set_trace_callback(lambda _: steps.append(0))

    def count() -> int:
        steps[-1] += 1
        return 0

    connection.set_progress_handler(count, 1000)
    yield lambda: max(steps)
    connection.set_progress_handler(None, 0)
    connection.set_trace_callback(None)


def test_no_statement_of_the_page_reads_for_long_in_a_large_database(tmp_path: Path) -> None:
    """With a rollback journal no program can commit while a statement reads. 200 tickers × 250
    sessions: a statement that reads all bars takes 250,000 steps and more, the longest here
    26,000."""
    path = make_large_database(tmp_path / "a.db", tickers=200, sessions=250, journal="DELETE")
    with closing(connect(path, read_only=True)) as connection:
        universes = load_universe_coverage(connection)
        with longest_statement(connection) as thousands:
            picture = draw_picture(connection, universes)
            assert len(picture.states) == 1
            load_ticker(connection, "T0007", None)
            load_ticker_list(connection, Search(), picture)
            assert thousands() <= 60
            connection.execute("SELECT max(close) FROM ohlcv_data").fetchone()
            assert thousands() > 100
