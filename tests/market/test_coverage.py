"""No silent holes: expected = stored + known empty + rejected + failed, on cases made by hand."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.database import transaction
from backtestdb.market.coverage import Coverage, load_coverage
from backtestdb.market.plan_limits import PlanLimits, save_limits
from backtestdb.market.request_log import (
    EVERY_TICKER,
    ensure_ticker_set,
    load_answered,
    save_range_answer,
    save_session_answer,
)
from backtestdb.market.request_plan import RangeRequest
from backtestdb.new_york import midnight_ms
from market_setup import add_bars, open_new_database, sessions_of

SESSIONS = sessions_of("2012-10-22", "2012-11-09")
NOW = "2012-12-01T00:00:00+00:00"
FIRST_FIVE_MINUTES = {"1day": 0, "5min": 4 * 3_600_000}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(make_market(tmp_path / "c.db")) as connection:
        yield connection


def make_market(path: Path) -> sqlite3.Connection:
    """An empty database in which somebody else's bars reach to the last session."""
    connection = open_new_database(path)
    for timeframe in ("1day", "5min"):
        request = RangeRequest("OTHER", timeframe, SESSIONS[0], SESSIONS[-1])
        save_range_answer(connection, request, [SESSIONS[-1].isoformat()], NOW, "a run")
    return connection


def ask(
    connection: sqlite3.Connection, ticker: str, first: date, last: date, timeframe: str = "1day"
) -> None:
    save_range_answer(connection, RangeRequest(ticker, timeframe, first, last), [], NOW, "a run")


def store(
    connection: sqlite3.Connection, ticker: str, days: list[date], timeframe: str = "1day"
) -> None:
    add_bars(
        connection,
        ticker,
        timeframe,
        [midnight_ms(day) + FIRST_FIVE_MINUTES[timeframe] for day in days],
    )


def put_aside(connection: sqlite3.Connection, ticker: str, day: date, reason: str = "x") -> None:
    connection.execute(
        "INSERT INTO _bars_set_aside VALUES (?, '1day', ?, ?, ?, '{}', ?)",
        (ticker, midnight_ms(day), day.isoformat(), reason, NOW),
    )


def load(connection: sqlite3.Connection, *tickers: str, timeframe: str = "1day") -> Coverage:
    coverage = load_coverage(connection, tickers, timeframe, SESSIONS)
    parts = (coverage.stored, coverage.known_empty, coverage.set_aside, coverage.failed)
    assert coverage.expected == sum(parts) == len(tickers) * len(SESSIONS)
    assert min(parts) >= 0
    assert coverage.failed == sum(coverage.failed_of.values())
    return coverage


def parts_of(coverage: Coverage) -> tuple[int, int, int, int]:
    return coverage.stored, coverage.known_empty, coverage.set_aside, coverage.failed


def test_nothing_asked_is_all_failed(connection: sqlite3.Connection) -> None:
    coverage = load(connection, "A", "B")
    assert parts_of(coverage) == (0, 0, 0, 26)
    assert coverage.failed_of == {"A": 13, "B": 13}
    assert coverage.silent == []


@pytest.mark.parametrize("timeframe", ["1day", "5min"])
def test_everything_stored_is_no_hole(connection: sqlite3.Connection, timeframe: str) -> None:
    store(connection, "A", SESSIONS, timeframe)
    ask(connection, "A", SESSIONS[0], SESSIONS[-1], timeframe)
    assert parts_of(load(connection, "A", timeframe=timeframe)) == (13, 0, 0, 0)


def test_asked_and_empty_is_known_empty_and_silent(connection: sqlite3.Connection) -> None:
    ask(connection, "GONE", SESSIONS[0], SESSIONS[-1])
    coverage = load(connection, "GONE")
    assert parts_of(coverage) == (0, 13, 0, 0)
    assert coverage.silent == ["GONE"]


def test_young_listing_is_empty_before_its_first_bar_and_not_silent(
    connection: sqlite3.Connection,
) -> None:
    store(connection, "NEW", SESSIONS[10:])
    ask(connection, "NEW", SESSIONS[0], SESSIONS[-1])
    coverage = load(connection, "NEW")
    assert parts_of(coverage) == (3, 10, 0, 0)
    assert coverage.silent == []


def test_partly_asked_ticker_fails_for_the_rest(connection: sqlite3.Connection) -> None:
    store(connection, "A", SESSIONS[:4])
    ask(connection, "A", SESSIONS[0], SESSIONS[4])
    coverage = load(connection, "A", "B")
    assert parts_of(coverage) == (4, 1, 0, 8 + 13)
    assert coverage.failed_of == {"A": 8, "B": 13}


def test_stored_but_never_asked_is_stored(connection: sqlite3.Connection) -> None:
    store(connection, "A", SESSIONS[:4])
    assert parts_of(load(connection, "A")) == (4, 0, 0, 9)


def test_bar_set_aside_counts_once_for_its_session(connection: sqlite3.Connection) -> None:
    store(connection, "A", SESSIONS[:11])
    ask(connection, "A", SESSIONS[0], SESSIONS[-1])
    for reason in ("x", "y"):
        put_aside(connection, "A", SESSIONS[12], reason)
    assert parts_of(load(connection, "A")) == (11, 1, 1, 0)


def test_bar_set_aside_of_a_session_that_is_stored_counts_as_stored(
    connection: sqlite3.Connection,
) -> None:
    store(connection, "A", SESSIONS)
    ask(connection, "A", SESSIONS[0], SESSIONS[-1])
    put_aside(connection, "A", SESSIONS[3], "a second bar of the same time")
    assert parts_of(load(connection, "A")) == (13, 0, 0, 0)


def test_bar_set_aside_of_a_day_without_a_session_is_no_session(
    connection: sqlite3.Connection,
) -> None:
    store(connection, "A", SESSIONS)
    ask(connection, "A", SESSIONS[0], SESSIONS[-1])
    put_aside(connection, "A", date(2012, 11, 3), "no session on this day")
    assert parts_of(load(connection, "A")) == (13, 0, 0, 0)


def test_other_tickers_timeframes_and_ranges_do_not_count(connection: sqlite3.Connection) -> None:
    store(connection, "OTHER", SESSIONS)
    store(connection, "A", SESSIONS, "5min")
    ask(connection, "A", SESSIONS[0], SESSIONS[-1], "5min")
    before, after = sessions_of("2012-10-01", "2012-10-19"), sessions_of("2012-11-12", "2012-11-16")
    store(connection, "A", [*before, *after])
    put_aside(connection, "A", after[0])
    assert parts_of(load(connection, "A")) == (0, 0, 0, 13)
    assert parts_of(load(connection, "A", timeframe="5min")) == (13, 0, 0, 0)


def test_five_minute_sessions_are_counted_by_their_day_in_new_york(
    connection: sqlite3.Connection,
) -> None:
    """The last bar of a day in winter begins at 00:55 UTC of the next; the clock changes inside the
    range."""
    slots = range(4 * 3_600_000, 20 * 3_600_000, 300_000)
    days = [SESSIONS[0], SESSIONS[1], SESSIONS[-2], SESSIONS[-1]]
    with transaction(connection):
        add_bars(
            connection, "A", "5min", [midnight_ms(day) + slot for day in days for slot in slots]
        )
    ask(connection, "A", SESSIONS[0], SESSIONS[-1], "5min")
    assert parts_of(load(connection, "A", timeframe="5min")) == (4, 9, 0, 0)


STATES = st.lists(
    st.sampled_from(["stored", "aside", "both", "empty", "failed"]), min_size=13, max_size=13
)


@given(states=st.fixed_dictionaries({"A": STATES, "B": STATES}))
def test_coverage_adds_up_for_any_mixture(states: dict[str, list[str]]) -> None:
    with closing(make_market(Path(":memory:"))) as connection:
        for ticker, each in states.items():
            for day, state in zip(SESSIONS, each, strict=True):
                if state != "failed":
                    ask(connection, ticker, day, day)
                if state in {"stored", "both"}:
                    store(connection, ticker, [day])
                if state in {"aside", "both"}:
                    put_aside(connection, ticker, day)
        everything = states["A"] + states["B"]
        coverage = load(connection, "A", "B")
        assert parts_of(coverage) == (
            everything.count("stored") + everything.count("both"),
            everything.count("empty"),
            everything.count("aside"),
            everything.count("failed"),
        )


def test_record_of_an_answer_keeps_first_and_last_bar_and_is_replaced_by_the_next(
    connection: sqlite3.Connection,
) -> None:
    request = RangeRequest("NA", "1day", SESSIONS[0], SESSIONS[-1])
    save_range_answer(connection, request, [], NOW, "a run")
    save_range_answer(connection, request, ["2012-10-23", "2012-10-24"], NOW, "a run")
    rows: list[Any] = connection.execute(
        "SELECT * FROM _ranges_asked WHERE ticker = 'NA'"
    ).fetchall()
    assert rows == [
        ("NA", "1day", "2012-10-22", "2012-11-09", "2012-10-23", "2012-10-24", 2, NOW, "a run")
    ]
    assert load_answered(connection, "1day", SESSIONS).of("NA") == (1 << len(SESSIONS)) - 1
    assert load_answered(connection, "5min", SESSIONS).of("NA") == 0


def test_asked_sessions_are_counted_once_where_ranges_overlap(
    connection: sqlite3.Connection,
) -> None:
    ask(connection, "A", SESSIONS[0], SESSIONS[3])
    ask(connection, "A", SESSIONS[2], SESSIONS[5])
    assert load_answered(connection, "1day", SESSIONS).of("A").bit_count() == 6


def test_session_beyond_the_plan_is_neither_empty_nor_failed(
    connection: sqlite3.Connection,
) -> None:
    save_limits(
        connection,
        "1day",
        PlanLimits(history_starts=SESSIONS[5], refused_session=SESSIONS[-1]),
        datetime.now(UTC),
    )
    store(connection, "A", [SESSIONS[1], SESSIONS[6]])
    ask(connection, "A", SESSIONS[5], SESSIONS[-3])
    coverage = load_coverage(connection, ["A"], "1day", SESSIONS)
    assert (coverage.stored, coverage.known_empty, coverage.beyond_plan, coverage.failed) == (
        2,
        5,
        5,
        1,
    )
    assert coverage.expected == 2 + 5 + 5 + 1


@given(
    asked=st.lists(st.integers(0, 12), max_size=13, unique=True),
    member=st.booleans(),
    everyone=st.lists(st.integers(0, 12), max_size=3, unique=True),
)
def test_session_of_the_whole_market_is_known_for_those_it_was_kept_for(
    asked: list[int], member: bool, everyone: list[int]
) -> None:
    with closing(make_market(Path(":memory:"))) as connection:
        ticker_set = ensure_ticker_set(connection, ["A", "B"] if member else ["B"])
        for number, kept_for in [
            *((n, ticker_set) for n in asked),
            *((n, EVERY_TICKER) for n in everyone),
        ]:
            save_session_answer(
                connection, SESSIONS[number].isoformat(), kept_for, (1, 0, 1, 0), NOW, "a run"
            )
        known = {*(asked if member else []), *everyone}
        coverage = load(connection, "A")
        assert parts_of(coverage) == (0, len(known), 0, 13 - len(known))
