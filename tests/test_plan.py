"""Which requests a job needs: what is missing is asked, what was answered is not, and the price is told."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.market.plan import (
    RangeRequest,
    duration_seconds,
    make_plan,
    missing_sessions,
    plan_ranges,
)
from market_setup import sessions_of

SESSIONS = sessions_of("2012-01-03", "2012-03-30")
INDEX = st.integers(0, len(SESSIONS) - 1)
RANGE = st.tuples(INDEX, INDEX).map(lambda pair: (SESSIONS[min(pair)], SESSIONS[max(pair)]))
ASKED = st.dictionaries(st.sampled_from("ABC"), st.lists(RANGE, max_size=5))
JANUARY, MARCH = (sessions_of("2012-01-03", "2012-01-31"), sessions_of("2012-03-01", "2012-03-30"))


def covered(day: date, ranges: list[tuple[date, date]]) -> bool:
    return any(first <= day <= last for first, last in ranges)


@given(asked=ASKED)
def test_plan_covers_what_is_missing_with_one_request_a_ticker_at_most(
    asked: dict[str, list[tuple[date, date]]],
) -> None:
    planned = plan_ranges(["A", "B", "C"], "1day", SESSIONS, asked)
    by_ticker = {request.ticker: request for request in planned}
    assert len(by_ticker) == len(planned)
    for ticker in "ABC":
        missing = [day for day in SESSIONS if not covered(day, asked.get(ticker, []))]
        assert missing_sessions(SESSIONS, asked.get(ticker, [])) == missing
        request = by_ticker.get(ticker)
        assert (request is None) == (not missing)
        if request:
            assert (request.start, request.end) == (missing[0], missing[-1])


@given(asked=ASKED)
def test_plan_after_its_own_answers_is_empty(asked: dict[str, list[tuple[date, date]]]) -> None:
    planned = plan_ranges(["A", "B", "C"], "5min", SESSIONS, asked)
    for request in planned:
        asked = {**asked, request.ticker: [*asked.get(request.ticker, []), (request.start, request.end)]}
    assert plan_ranges(["A", "B", "C"], "5min", SESSIONS, asked) == []


def test_plan_of_a_new_job_asks_each_ticker_once_for_everything() -> None:
    planned = plan_ranges(["NA", "TRUE"], "1day", SESSIONS, {})
    assert planned == [
        RangeRequest("NA", "1day", SESSIONS[0], SESSIONS[-1]),
        RangeRequest("TRUE", "1day", SESSIONS[0], SESSIONS[-1]),
    ]


def test_plan_of_an_update_asks_for_the_new_sessions_only() -> None:
    asked = {"A": [(SESSIONS[0], SESSIONS[-2])]}
    assert plan_ranges(["A"], "1day", SESSIONS, asked) == [
        RangeRequest("A", "1day", SESSIONS[-1], SESSIONS[-1])
    ]


def test_answers_that_meet_at_a_weekend_leave_nothing_to_ask() -> None:
    asked = {"A": [(date(2012, 1, 3), date(2012, 2, 3)), (date(2012, 2, 6), date(2012, 3, 30))]}
    assert plan_ranges(["A"], "1day", SESSIONS, asked) == []


def test_cost_of_day_bars_is_a_request_a_ticker() -> None:
    plan = make_plan(plan_ranges(["A", "B"], "1day", SESSIONS, {}), SESSIONS)
    assert (plan.requests, plan.rows) == (2, 2 * len(SESSIONS))
    assert plan.bytes > 0


@pytest.mark.parametrize(("start", "pages"), [("2012-11-01", 1), ("2012-09-10", 2), ("2007-12-01", 25)])
def test_cost_of_five_minute_bars_counts_pages_of_minutes(start: str, pages: int) -> None:
    sessions = sessions_of(start, "2012-11-30")
    plan = make_plan(plan_ranges(["A"], "5min", sessions, {}), sessions)
    assert plan.requests == pages
    assert plan.rows == 192 * len(sessions)


def test_cost_of_nothing_is_nothing() -> None:
    plan = make_plan([], SESSIONS)
    assert (plan.requests, plan.rows, plan.bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("requests", "per_minute", "seconds"),
    [(0, 5, 0), (5, 5, 0), (6, 5, 12), (65, 5, 720), (1254, 5, 14_988), (65, 100, 0), (1000, 0, 0)],
)
def test_duration_is_what_the_quota_makes_of_the_requests(
    requests: int, per_minute: int, seconds: float
) -> None:
    assert duration_seconds(requests, per_minute) == seconds
