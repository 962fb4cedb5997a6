"""Which sessions a command asks for: a session that is not over is never among them."""

import argparse
from datetime import date, datetime

import pytest

from backtestdb.errors import UsageError
from backtestdb.market.cli import add_range_arguments, choose_end, choose_range

NOON_OF_FRIDAY = datetime.fromisoformat("2026-11-20T12:00:00-05:00")
SUNDAY = datetime.fromisoformat("2026-11-22T12:00:00-05:00")


def choose(now: datetime, *words: str, **defaults: int) -> tuple[str, str]:
    parser = argparse.ArgumentParser()
    add_range_arguments(parser)
    parser.set_defaults(**(defaults or {"years": 1}))
    start, end = choose_range(parser.parse_args(["--universe", "u", *words]), now)
    return start.isoformat(), end.isoformat()


def test_range_without_arguments_is_a_year_up_to_the_last_completed_session() -> None:
    assert choose(NOON_OF_FRIDAY) == ("2025-11-20", "2026-11-19")
    assert choose(SUNDAY) == ("2025-11-21", "2026-11-20")
    assert choose(SUNDAY, days=30) == ("2026-10-22", "2026-11-20")


@pytest.mark.parametrize("asked", ["2026-11-20", "2026-11-21", "2027-06-30"])
def test_end_that_is_not_over_becomes_the_last_completed_session(asked: str) -> None:
    assert choose(NOON_OF_FRIDAY, "--end", asked)[1] == "2026-11-19"
    assert choose_end(date.fromisoformat(asked), NOON_OF_FRIDAY) == date(2026, 11, 19)


def test_end_in_the_past_is_taken_as_it_is() -> None:
    assert choose(SUNDAY, "--end", "2012-11-30") == ("2011-12-01", "2012-11-30")
    assert choose(SUNDAY, "--start", "2012-11-01", "--end", "2012-11-30") == (
        "2012-11-01",
        "2012-11-30",
    )


def test_start_behind_the_end_is_refused_also_where_the_end_was_moved() -> None:
    with pytest.raises(UsageError, match="2012-12-01 lies behind --end 2012-11-30"):
        choose(SUNDAY, "--start", "2012-12-01", "--end", "2012-11-30")
    with pytest.raises(UsageError, match="lies behind --end 2026-11-19"):
        choose(NOON_OF_FRIDAY, "--start", "2026-11-20", "--end", "2026-11-20")
