"""Every rule of the audit finds its planted defect and nothing else; what is right stays without a
word."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from audit_market import NOW, make_market, ticker_name
from backtestdb.database import connect, transaction
from backtestdb.market.audit.accepted import Accepted
from backtestdb.market.audit.read import load_known
from backtestdb.market.audit.rule import WHOLE_MARKET
from backtestdb.market.audit.rules import RULES
from backtestdb.market.audit.run import AuditResult, audit
from backtestdb.new_york import midnight_ms
from market_setup import CALENDAR, sessions_of
from planted_defects import (
    PLANTS,
    Place,
    add_bar,
    add_split,
    compute_metrics,
    delete_day,
    forget_bars,
    multiply_before,
)

TICKERS, MINUTE_TICKERS, MINUTE_SESSIONS = 24, 2, 7
START, END = "2025-07-01", "2026-11-19"
SESSIONS = sessions_of(START, END)
MINUTE_TICKER, DAY_TICKER = ticker_name(1), ticker_name(5)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "clean.db"
    make_market(
        path,
        TICKERS,
        start=START,
        end=END,
        minute_tickers=MINUTE_TICKERS,
        minute_sessions=MINUTE_SESSIONS,
    )
    return path


@pytest.fixture
def database(clean: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "market.db"
    shutil.copy(clean, path)
    return path


def run_rules(database: Path, *, without: str = "") -> AuditResult:
    with closing(connect(database, read_only=True)) as connection:
        known = load_known(connection, CALENDAR, NOW)
        rules = [rule for rule in RULES if rule.id != without]
        return audit(connection, known, accepted=Accepted(), rules=rules)


def plant(database: Path, rule: str) -> str:
    """Plant the rule's defect; return the name that its finding shows."""
    defect = PLANTS[rule]
    ticker = MINUTE_TICKER if defect.with_minutes else DAY_TICKER
    with closing(connect(database)) as connection, transaction(connection):
        defect.put(Place(connection, ticker, SESSIONS, MINUTE_SESSIONS))
    return defect.shown_for or ticker


def test_market_without_a_defect_has_no_finding(clean: Path) -> None:
    result = run_rules(clean)
    assert result.findings == []
    assert (result.tickers, result.day_bars) == (TICKERS, TICKERS * len(SESSIONS))
    assert result.minute_bars > MINUTE_TICKERS * MINUTE_SESSIONS * 42
    assert result.metrics == result.day_bars


def test_every_rule_has_a_planted_defect() -> None:
    assert sorted(PLANTS) == sorted(rule.id for rule in RULES)
    assert len(RULES) >= 20


@pytest.mark.parametrize("rule", PLANTS)
def test_planted_defect_is_found_by_its_rule_alone(database: Path, rule: str) -> None:
    shown_for = plant(database, rule)
    found = {(finding.rule, finding.ticker) for finding in run_rules(database).findings}
    assert (rule, shown_for) in found
    assert {name for name, _ in found} <= {rule} | PLANTS[rule].companions
    others = {
        (finding.rule, finding.ticker) for finding in run_rules(database, without=rule).findings
    }
    assert others == found - {(rule, shown_for)}


def true_crash(place: Place) -> None:
    """News halve a price overnight, and ten times as many shares change hands."""
    change(
        place,
        "open = open / 2, high = high / 2, low = low / 2, close = close / 2",
        "timestamp >= ?",
    )
    change(place, "volume = volume * 10", "timestamp BETWEEN ? AND ? + 8 * 86400000", 2)


def quiet_preferred_share(place: Place) -> None:
    """A month at one price, a few hundred shares a day."""
    change(
        place,
        "open = 25, high = 25, low = 25, close = 25, volume = 100 + id % 7 * 100",
        "timestamp < ?",
    )


def wick(place: Place) -> None:
    """The price of a flash crash: a third below, back at the close."""
    change(place, "low = low * 0.68", "timestamp = ?")


def price_divided_by_splits(place: Place) -> None:
    change(
        place,
        "open = open / 1e7, high = high / 1e7, low = low / 1e7, close = close / 1e7",
        "timestamp > ? * 0",
    )
    add_split(place.connection, place.ticker, "2026-11-20", 1, 10_000_000)


def split_that_is_applied(place: Place) -> None:
    add_split(place.connection, place.ticker, place.day.isoformat(), 25, 1)


def new_listing(place: Place) -> None:
    remove(place, "timestamp < ?")


def delisting(place: Place) -> None:
    remove(place, "timestamp > ?")


def change(place: Place, values: str, where: str, marks: int = 1) -> None:
    place.connection.execute(
        f"UPDATE ohlcv_data SET {values} WHERE {where} AND ticker = ? AND timeframe = '1day'",
        (*[midnight_ms(place.day)] * marks, place.ticker),
    )
    compute_metrics(place.connection, place.ticker)


def remove(place: Place, where: str) -> None:
    place.connection.execute(
        f"DELETE FROM ohlcv_data WHERE {where} AND ticker = ?",
        (midnight_ms(place.day), place.ticker),
    )
    compute_metrics(place.connection, place.ticker)
    forget_bars(place, [place.ticker])


def closure_that_the_calendar_does_not_know(place: Place) -> None:
    """Recorded once, when nobody had a bar of it and a later session did."""
    tickers = [ticker_name(number) for number in range(TICKERS)]
    delete_day(place, tickers, place.day)
    place.connection.execute(
        "CREATE TABLE IF NOT EXISTS _closed_sessions (session_date TEXT PRIMARY KEY, "
        "found_at_utc TEXT NOT NULL)"
    )
    place.connection.execute(
        "INSERT INTO _closed_sessions VALUES (?, '2026-11-20')", (place.day.isoformat(),)
    )


@pytest.mark.parametrize(
    "happens",
    [
        *(true_crash, quiet_preferred_share, wick, price_divided_by_splits, split_that_is_applied),
        *(new_listing, delisting, closure_that_the_calendar_does_not_know),
    ],
)
def test_what_happens_in_a_market_raises_no_alarm(
    database: Path, happens: Callable[[Place], None]
) -> None:
    with closing(connect(database)) as connection, transaction(connection):
        happens(Place(connection, DAY_TICKER, SESSIONS, MINUTE_SESSIONS))
    assert run_rules(database).findings == []


def repeated_for_a_week(place: Place) -> None:
    change(place, "open = 25, high = 25, low = 25, close = 25, volume = 300", "timestamp < ?")


def low_of_a_tenth(place: Place) -> None:
    change(place, "low = low / 10", "timestamp = ?")


def reverse_split_that_nobody_lists(place: Place) -> None:
    multiply_before(place, 1 / 10)


def high_below_low_in_five_minutes(place: Place) -> None:
    place.connection.execute(
        "UPDATE ohlcv_data SET high = low / 2 "
        "WHERE ticker = ? AND timeframe = '5min' AND time_of_day = '11:00:00'",
        (place.ticker,),
    )


def row_of_metrics_without_its_bar(place: Place) -> None:
    place.connection.execute(
        "UPDATE daily_metrics SET date = '2026-11-21' WHERE ticker = ? AND date = ?",
        (place.ticker, place.sessions[-1].isoformat()),
    )


def session_that_lost_its_bars(place: Place) -> None:
    place.connection.execute(
        "INSERT INTO _sessions_asked (session_date, ticker_set, received, stored, dropped, "
        "set_aside, asked_at_utc) VALUES (?, 1, 900, 900, 0, 0, '2026-11-20T02:00:00+00:00')",
        (place.day.isoformat(),),
    )


def bar_of_tomorrow(place: Place) -> None:
    """A clock that was days ahead: the session of NOW, which may be there, and the next one."""
    bar = place.bar(place.sessions[-1])
    for day, factor in ((date(2026, 11, 20), 1.01), (date(2026, 11, 23), 1.02)):
        moved = {name: value * (factor if name != "volume" else 1) for name, value in bar.items()}
        add_bar(place, "1day", midnight_ms(day), moved, None, (day.weekday() + 1) % 7)
    compute_metrics(place.connection, place.ticker)


@pytest.mark.parametrize(
    ("happens", "rule", "name"),
    [
        (repeated_for_a_week, "stale-run", DAY_TICKER),
        (low_of_a_tenth, "spike", DAY_TICKER),
        (reverse_split_that_nobody_lists, "split-like-jump", DAY_TICKER),
        (high_below_low_in_five_minutes, "impossible-bar", MINUTE_TICKER),
        (row_of_metrics_without_its_bar, "metrics-rows", DAY_TICKER),
        (session_that_lost_its_bars, "lost-bars", WHOLE_MARKET),
        (bar_of_tomorrow, "no-session", DAY_TICKER),
    ],
)
def test_other_shape_of_a_defect_is_found_too(
    database: Path, happens: Callable[[Place], None], rule: str, name: str
) -> None:
    ticker = MINUTE_TICKER if name == MINUTE_TICKER else DAY_TICKER
    with closing(connect(database)) as connection, transaction(connection):
        happens(Place(connection, ticker, SESSIONS, MINUTE_SESSIONS))
    assert {(finding.rule, finding.ticker) for finding in run_rules(database).findings} == {
        (rule, name)
    }
