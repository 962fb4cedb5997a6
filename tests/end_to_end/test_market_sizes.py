"""The figures of the whole market at their real size and at the real quota: minutes, so long
tests."""

import time
from collections import Counter
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from backtestdb.database import connect
from backtestdb.market.request_plan import duration_seconds
from backtestdb.market.stopped import EVENTS_AT_MOST
from backtestdb.market.ticker_files import parse_ticker_file
from backtestdb.market.universes import (
    REQUESTS_AT_MOST,
    TECH_SECTOR_FILE,
    load_members,
    save_universe,
    update_us_stocks,
)
from contents import query_all
from market_runs import make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxProcess, running_sandbox

BEFORE, TODAY = "2026-11-19", "2026-11-20"
FIVE_YEARS_AGO, A_YEAR_AGO = "2021-11-22", "2025-11-20"
SESSIONS = 1254
HUGE = 500_000


def count(sandbox: SandboxProcess) -> Counter[str]:
    """The requests by kind. What became of tickers that stopped is asked for beside them."""
    paths = [entry["path"] for entry in sandbox.fetch_log()]
    sandbox.clear_log()
    events = [path for path in paths if "/events?" in path]
    assert len(events) <= EVENTS_AT_MOST
    return Counter(path.split("/")[3] for path in paths if path not in events)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_three_universes_of_the_whole_market_need_the_requests_of_the_largest(
    tmp_path: Path,
) -> None:
    with running_sandbox("--tickers", "8000", today=TODAY) as sandbox:
        database = make_database(tmp_path)
        source = make_source(tmp_path, sandbox.url, BEFORE, concurrency=8)
        with closing(connect(database)) as connection:
            update_us_stocks(connection, source.client, ["CS", "ADRC", "PFD"], date(2021, 11, 22))
            members = load_members(connection, "us-stocks")
            save_universe(connection, "russell2000", members[100:2100])
            save_universe(connection, "tech_sector", parse_ticker_file(TECH_SECTOR_FILE))
        assert sum(count(sandbox).values()) <= REQUESTS_AT_MOST
        names = ("tech_sector", "russell2000", "us-stocks")
        reports = run_backfill(
            source, database, FIVE_YEARS_AGO, BEFORE, *names, staged_from_bars=HUGE
        )
        assert count(sandbox) == {"grouped": SESSIONS}
        for name, report in zip(names, reports, strict=True):
            coverage = report.coverage
            assert coverage.failed == 0, name
            assert coverage.expected == coverage.stored + coverage.known_empty + coverage.set_aside
        run_backfill(source, database, FIVE_YEARS_AGO, BEFORE, *names)
        run_backfill(source, database, A_YEAR_AGO, BEFORE, "tech_sector")
        # Tickers that traded the session before the newest and lack that are asked about once more.
        assert count(sandbox) <= Counter(grouped=1)
        later = make_source(tmp_path, sandbox.url, TODAY, concurrency=8)
        started = time.monotonic()
        run_update(later, database, TODAY)
        print(f"an update of {len(members)} tickers took {time.monotonic() - started:.0f} s")
        asked = count(sandbox)
        assert asked["grouped"] == 1 + 3
        assert sum(asked.values()) <= 1 + 3 + 2
        assert query_all(database, "SELECT count(*) FROM _coverage WHERE failed = 0") == [(3,)]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_thousand_tickers_and_the_tech_sector_need_what_the_arithmetic_says(
    tmp_path: Path,
) -> None:
    with running_sandbox("--tickers", "2500", today=TODAY) as sandbox:
        listed = sandbox.get("/v3/reference/tickers", type="CS", limit=1000).json()["results"]
        answer = sandbox.get(
            "/v3/reference/tickers", type="CS", limit=1000, **{"ticker.gt": listed[-1]["ticker"]}
        )
        tickers = [row["ticker"] for row in [*listed, *answer.json()["results"]]]
        database = make_database(
            tmp_path, russell2000=tickers[:2000], tech_sector=parse_ticker_file(TECH_SECTOR_FILE)
        )
        sandbox.clear_log()
        source = make_source(tmp_path, sandbox.url, BEFORE, concurrency=8)
        run_backfill(source, database, A_YEAR_AGO, BEFORE, "tech_sector")
        assert count(sandbox) == {"ticker": 65}
        run_backfill(source, database, FIVE_YEARS_AGO, BEFORE, "russell2000", staged_from_bars=HUGE)
        assert count(sandbox) == {"grouped": SESSIONS}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_run_at_a_hundred_a_minute_takes_the_forecast_time_and_is_never_refused(
    tmp_path: Path,
) -> None:
    """Real minutes: 250 sessions of 300 tickers at the quota of the guide."""
    per_minute, sessions = 100, 250
    with running_sandbox(
        "--tickers", "300", "--requests-per-minute", str(per_minute), today=TODAY
    ) as sandbox:
        tickers = [
            f"Z{first}{second}A" for first in "ABCDEFGHIJKLMNOPQRST" for second in "ABCDEFGHIJKLMNO"
        ]
        database = make_database(tmp_path, many=tickers)
        source = make_source(
            tmp_path, sandbox.url, TODAY, concurrency=1, POLYGON_REQUESTS_PER_MINUTE=str(per_minute)
        )
        start = source.calendar.sessions[
            source.calendar.sessions.get_loc(TODAY) - sessions + 1
        ].date()
        run_backfill(source, database, start.isoformat(), TODAY, "many")
        log = sandbox.fetch_log()
        assert sandbox.fetch_most_in_window() <= per_minute
    assert len(log) == sessions
    assert {entry["status"] for entry in log} == {200}
    arrivals = [entry["arrived"] for entry in log]
    forecast, real = duration_seconds(sessions, per_minute), arrivals[-1] - arrivals[0]
    print(f"forecast {forecast:.1f} s, real {real:.1f} s, {abs(real / forecast - 1):.2%} apart")
    assert real == pytest.approx(forecast, rel=0.05)
    full_minutes = (arrivals[2 * per_minute] - arrivals[0]) / 60
    used = 2 * per_minute / (full_minutes * per_minute)
    print(f"used {used:.1%} of the quota")
    assert used >= 0.97
