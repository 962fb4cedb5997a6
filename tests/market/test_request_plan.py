"""The planner: what is asked for, and what never is."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestdb.market.request_plan import (
    AnsweredSessions,
    Cost,
    Demand,
    RangeRequest,
    SessionRequest,
    duration_seconds,
    make_cost,
    plan_requests,
)
from backtestdb.market.session_mask import SessionMask, first_sessions, mask_between, mask_of
from backtestdb.market.sessions import load_calendar, sessions_between

SESSIONS = [date(2026, 1, 5) + timedelta(days=number) for number in range(8)]
ALL = first_sessions(len(SESSIONS))
masks = st.integers(0, ALL).map(SessionMask)
tickers = st.sampled_from(["A", "B", "C", "D"])
demands = st.lists(
    st.builds(Demand, st.lists(tickers, max_size=4, unique=True), masks, masks, masks), max_size=3
)
asked_before = st.builds(AnsweredSessions, st.dictionaries(tickers, masks), masks)
FIVE_YEARS = sessions_between(load_calendar(), date(2021, 11, 22), date(2026, 11, 19))
ONE_YEAR = sessions_between(load_calendar(), date(2025, 11, 20), date(2026, 11, 19))


@settings(max_examples=500, deadline=None)
@given(demands, asked_before, masks, st.sampled_from(["1day", "5min"]))
def test_plan_brings_all_that_is_missing_and_asks_for_nothing_twice(
    wanted: list[Demand], asked: AnsweredSessions, beyond: SessionMask, timeframe: str
) -> None:
    planned = plan_requests(wanted, timeframe, SESSIONS, asked, beyond)
    whole = mask_of(SESSIONS, [r.session_date for r in planned if isinstance(r, SessionRequest)])
    brought = {ticker: whole for demand in wanted for ticker in demand.tickers}
    for request in planned:
        if isinstance(request, RangeRequest):
            brought[request.ticker] |= mask_between(SESSIONS, request.start, request.end)
    for demand in wanted:
        for ticker in demand.tickers:
            missing = (demand.sessions & ~asked.of(ticker) | demand.refetch) & ~beyond
            assert not missing & ~brought[ticker]
    assert len(set(planned)) == len(planned)
    assert len([r for r in planned if isinstance(r, RangeRequest)]) == len(
        {r.ticker for r in planned if isinstance(r, RangeRequest)}
    )
    assert not whole & beyond
    assert timeframe == "1day" or not whole
    refetch = plan_requests(
        [Demand(demand.tickers, demand.sessions, demand.warm_up) for demand in wanted],
        timeframe,
        SESSIONS,
        AnsweredSessions({ticker: asked.of(ticker) | mask for ticker, mask in brought.items()}),
        beyond,
    )
    assert refetch == []


@given(masks)
def test_bits_and_days_are_the_same_set(mask: SessionMask) -> None:
    days = mask.days(SESSIONS)
    assert mask_of(SESSIONS, days) == mask
    assert all(one < other for one, other in pairwise(days))
    if mask:
        assert (days[0], days[-1]) == (SESSIONS[mask.first()], SESSIONS[mask.last()])
        assert mask.before() == first_sessions(mask.first())
        assert mask.until() == first_sessions(mask.last() + 1)
    joined = [place for first, last in mask.runs() for place in range(first, last + 1)]
    assert joined == list(mask.places())


def count_requests(
    *universes: tuple[int, list[date]], known: AnsweredSessions | None = None
) -> int:
    every = first_sessions(len(FIVE_YEARS))
    wanted = [
        Demand(
            [f"T{number}" for number in range(count)],
            mask_between(FIVE_YEARS, sessions[0], sessions[-1]),
            warm_up=every,
        )
        for count, sessions in universes
    ]
    return len(plan_requests(wanted, "1day", FIVE_YEARS, known or AnsweredSessions(), 0))


def test_plan_needs_the_requests_of_the_vendors_arithmetic() -> None:
    assert len(FIVE_YEARS) == 1254
    assert count_requests((65, ONE_YEAR)) == 65
    assert count_requests((2000, FIVE_YEARS)) == 1254
    assert count_requests((8000, FIVE_YEARS)) == 1254
    assert count_requests((65, ONE_YEAR), (2000, FIVE_YEARS), (8000, FIVE_YEARS)) == 1254


def test_plan_for_a_universe_within_another_needs_nothing_more() -> None:
    every = first_sessions(len(FIVE_YEARS))
    known = AnsweredSessions({f"T{number}": every for number in range(8000)})
    assert count_requests((65, ONE_YEAR), (2000, FIVE_YEARS), known=known) == 0


def test_plan_fetches_warm_up_with_a_ticker_and_never_for_itself() -> None:
    demand = Demand(["A"], sessions=0b11110000, warm_up=0b00001111)
    (request,) = plan_requests([demand], "1day", SESSIONS, AnsweredSessions(), 0)
    assert (request.start, request.end) == (SESSIONS[0], SESSIONS[7])
    assert plan_requests([demand], "1day", SESSIONS, AnsweredSessions({"A": 0b11110000}), 0) == []


def test_plan_of_sessions_begins_with_the_newest() -> None:
    demand = Demand([f"T{number}" for number in range(100)], sessions=0b1011)
    days = [
        request.session_date
        for request in plan_requests([demand], "1day", SESSIONS, AnsweredSessions(), 0)
    ]
    assert days == [SESSIONS[3], SESSIONS[1], SESSIONS[0]]


def test_cost_counts_pages_of_minutes_and_rows_of_sessions() -> None:
    minutes = RangeRequest("A", "5min", FIVE_YEARS[0], FIVE_YEARS[103])
    cost = make_cost([minutes, SessionRequest(FIVE_YEARS[0], 8000)], FIVE_YEARS)
    assert cost.requests == 3  # 104 sessions of 960 minutes are two pages of 50,000
    assert cost.rows == 104 * 192 + 8000


def test_plan_of_an_update_asks_for_the_new_sessions_only() -> None:
    planned = plan_requests(
        [Demand(["A"], ALL)], "1day", SESSIONS, AnsweredSessions({"A": ALL >> 1}), 0
    )
    assert planned == [RangeRequest("A", "1day", SESSIONS[-1], SESSIONS[-1])]


def test_answers_that_meet_at_a_weekend_leave_nothing_to_ask() -> None:
    sessions = sessions_between(load_calendar(), date(2012, 1, 3), date(2012, 3, 30))
    asked = mask_between(sessions, date(2012, 1, 3), date(2012, 2, 3))
    asked |= mask_between(sessions, date(2012, 2, 6), date(2012, 3, 30))
    assert (
        plan_requests(
            [Demand(["A"], (1 << len(sessions)) - 1)],
            "1day",
            sessions,
            AnsweredSessions({"A": asked}),
            0,
        )
        == []
    )


@pytest.mark.parametrize(
    ("start", "pages"), [("2012-11-01", 1), ("2012-09-10", 2), ("2007-12-01", 25)]
)
def test_cost_of_five_minute_bars_counts_pages_of_minutes(start: str, pages: int) -> None:
    sessions = sessions_between(load_calendar(), date.fromisoformat(start), date(2012, 11, 30))
    cost = make_cost([RangeRequest("A", "5min", sessions[0], sessions[-1])], sessions)
    assert (cost.requests, cost.rows) == (pages, 192 * len(sessions))


def test_cost_of_nothing_is_nothing() -> None:
    assert make_cost([], SESSIONS) == Cost(0, 0, 0)


@pytest.mark.parametrize(
    ("requests", "per_minute", "seconds"),
    [(65, 0, 0), (5, 5, 0), (6, 5, 61), (65, 100, 0), (1254, 100, 732), (1254, 5, 15250)],
)
def test_duration_is_a_window_for_each_full_quota(
    requests: int, per_minute: int, seconds: float
) -> None:
    assert duration_seconds(requests, per_minute) == seconds
