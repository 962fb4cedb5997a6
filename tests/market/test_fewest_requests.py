"""The fewest requests: against every possible choice where there are few."""

from hypothesis import given, settings
from hypothesis import strategies as st

from backtestdb.market.fewest_requests import choose_requests
from backtestdb.market.session_mask import SessionMask, first_sessions

SESSIONS = 7
missing_sessions = st.dictionaries(
    st.sampled_from([f"T{number}" for number in range(8)]),
    st.integers(0, (1 << SESSIONS) - 1).map(SessionMask),
)


def count_fewest(missing: dict[str, SessionMask]) -> int:
    """Try every set of sessions that might be asked for as a whole."""
    return min(
        whole.bit_count() + sum(1 for sessions in missing.values() if sessions & ~whole)
        for whole in range(1 << SESSIONS)
    )


@settings(max_examples=500, deadline=None)
@given(missing_sessions)
def test_choice_of_requests_covers_everything_and_none_has_fewer(
    missing: dict[str, SessionMask],
) -> None:
    tickers, whole = choose_requests(missing)
    for ticker, sessions in missing.items():
        assert ticker in tickers or not sessions & ~whole, ticker
    assert len(set(tickers)) == len(tickers)
    assert len(tickers) + whole.bit_count() == count_fewest(missing)


def test_choice_of_equally_many_requests_takes_tickers() -> None:
    assert choose_requests({"A": SessionMask(0b11), "B": SessionMask(0b11)}) == (["A", "B"], 0)


def test_choice_mixes_where_that_is_fewer() -> None:
    market = {f"T{number}": SessionMask(0b1) for number in range(100)}
    tickers, whole = choose_requests({**market, "NEW": SessionMask(0b11111111)})
    assert (tickers, whole) == (["NEW"], 0b1)


def test_choice_for_many_different_histories_is_quick() -> None:
    """A thousand tickers of which no two were asked for alike."""
    years = int(first_sessions(1254))
    tickers, whole = choose_requests(
        {f"T{number}": SessionMask(years >> number) for number in range(1000)}
    )
    assert len(tickers) + whole.bit_count() == 1000
