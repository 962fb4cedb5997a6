"""Grouped backfills against the sandbox: few requests, the same bars, nothing lost, nothing asked
twice."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from backtestdb.errors import BusyError
from backtestdb.files import staging_path
from backtestdb.market.backfill import backfill_together
from backtestdb.market.bars import parse_bars
from backtestdb.market.client import KeyRefusedError
from backtestdb.market.first_fill import load_staging
from backtestdb.market.jobs import make_job
from backtestdb.market.metrics import COMPUTED_METRICS
from backtestdb.market.request_log import EVERY_TICKER
from backtestdb.market.sessions import make_new_york_times
from backtestdb.market.staging import create_staging, stage_session
from backtestdb.market.universes import update_us_stocks
from backtestdb.new_york import midnight_ms
from contents import digest_market, find_damage, query_all
from market_runs import DIRECTLY, KEY, database_of, make_database, make_source, run_backfill
from naive_metrics import make_naive_metrics
from sandbox_process import SandboxOptions, SandboxProcess

NOW = "2026-11-21"
START, END = "2026-11-02", "2026-11-20"  # 15 sessions
LAST_DAYS = ["2026-11-18", "2026-11-19", END]
SESSIONS = 15
INDEXES = 12
TRAPS = ["NA", "TRUE", "BRK.B", "KIMpL"]
RUNNER = Path(__file__).parents[1] / "support" / "market_runs.py"
BARS = "SELECT ticker, timestamp, open, high, low, close, volume, day_of_week FROM ohlcv_data"


SANDBOX = SandboxOptions("--tickers", "150", today=NOW)


@pytest.fixture(scope="module")
def market(sandbox: SandboxProcess) -> list[str]:
    """Every stock that is listed or was within the time of these tests, but for those that did not
    trade in one of its last two sessions: about these the next run asks once more (see
    test_evidence)."""
    found = []
    for active in ("true", "false"):
        answer = sandbox.get(
            "/v3/reference/tickers", market="stocks", active=active, limit=1000
        ).json()
        found += [row["ticker"] for row in answer["results"] if row["type"] != "ETF"]
    of_day = [traded_on(sandbox, day) for day in LAST_DAYS]
    silent = (of_day[0] - of_day[1]) | (of_day[1] - of_day[2])
    assert silent
    return sorted(set(found) - silent)


def traded_on(sandbox: SandboxProcess, day: str) -> set[str]:
    path = f"/v2/aggs/grouped/locale/us/market/stocks/{day}"
    return {row["T"] for row in sandbox.get(path).json()["results"]}


@pytest.fixture(autouse=True)
def quiet(sandbox: SandboxProcess) -> None:
    calm(sandbox)


def calm(sandbox: SandboxProcess) -> None:
    sandbox.set_faults()
    sandbox.set_settings(history_years=0, free=False, junk=False, latency_seconds=0)
    sandbox.clear_log()


def paths(sandbox: SandboxProcess) -> list[str]:
    return [entry["path"] for entry in sandbox.fetch_log()]


def test_market_asked_by_session_holds_what_each_ticker_has_when_asked_alone(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    together = make_database(tmp_path / "together", everyone=market)
    source = make_source(tmp_path / "together", sandbox.url, NOW)
    (report,) = run_backfill(source, together, START, END, "everyone")
    assert len(paths(sandbox)) == SESSIONS
    assert all("/grouped/" in path for path in paths(sandbox))
    some = [*TRAPS, "AAPL", "IBM"]
    alone = make_database(tmp_path / "alone", few=some)
    run_backfill(make_source(tmp_path / "alone", sandbox.url, NOW), alone, START, END, "few")
    marks = ", ".join("?" * len(some))
    query = f"{BARS} WHERE ticker IN ({marks}) AND timestamp >= 1793592000000 ORDER BY 1, 2"
    assert query_all(together, query, *some) == query_all(alone, query, *some)
    assert set(TRAPS) <= {
        ticker for (ticker,) in query_all(together, "SELECT DISTINCT ticker FROM ohlcv_data")
    }
    coverage = report.coverage
    assert coverage.expected == len(market) * SESSIONS
    assert coverage.stored == query_all(together, "SELECT count(*) FROM ohlcv_data")[0][0]
    assert coverage.stored + coverage.known_empty + coverage.set_aside == coverage.expected
    assert coverage.failed == coverage.beyond_plan == 0
    assert report.run.dropped > 0


def test_market_set_aside_first_ends_as_the_same_database(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    digests = []
    for name, staged_from_bars in (("directly", DIRECTLY), ("staged", 1)):
        database = make_database(tmp_path / name, everyone=market)
        source = make_source(tmp_path / name, sandbox.url, NOW)
        run_backfill(source, database, START, END, "everyone", staged_from_bars=staged_from_bars)
        assert not staging_path(database).exists()
        assert find_damage(database) == "ok"
        assert count_indexes(database) == INDEXES
        digests.append(digest_market(database))
    assert digests[0] == digests[1]


def count_indexes(database: Path) -> int:
    return int(
        query_all(
            database,
            "SELECT count(*) FROM sqlite_schema WHERE type = 'index' "
            "AND tbl_name IN ('ohlcv_data', 'daily_metrics', 'universe_stocks', 'universe')",
        )[0][0]
    )


def test_market_asked_again_sends_no_request_whatever_the_universe(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market, some=market[:40], few=TRAPS)
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, START, END, "everyone")
    sandbox.clear_log()
    reports = run_backfill(source, database, START, END, "everyone", "some")
    reports += run_backfill(source, database, START, END, "few")
    assert paths(sandbox) == []
    assert [report.has_holes for report in reports] == [False] * 3


def test_universes_together_need_the_requests_of_the_largest(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, few=TRAPS, some=market[:40], everyone=market)
    source = make_source(tmp_path, sandbox.url, NOW)
    reports = run_backfill(source, database, START, END, "few", "some", "everyone")
    assert len(paths(sandbox)) == SESSIONS
    assert [report.coverage.expected for report in reports] == [
        count * SESSIONS for count in (len(TRAPS), 40, len(market))
    ]
    assert not any(report.has_holes for report in reports)


def test_universe_that_grew_asks_for_its_new_tickers_only(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    source = make_source(tmp_path, sandbox.url, NOW)
    database = make_database(tmp_path, everyone=[t for t in market if t not in TRAPS])
    run_backfill(source, database, START, END, "everyone")
    sandbox.clear_log()
    make_members(database, "everyone", market)
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert sorted(path.split("/")[4] for path in paths(sandbox)) == sorted(TRAPS)
    assert not report.has_holes


def make_members(database: Path, name: str, tickers: list[str]) -> None:
    from backtestdb.database import connect
    from backtestdb.market.universes import save_universe

    with closing(connect(database)) as connection:
        save_universe(connection, name, tickers)


def test_every_ticker_of_the_answers_is_kept_on_demand(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market, more=[*market, "QAAA.WS"])
    source = make_source(tmp_path, sandbox.url, NOW)
    (report,) = run_backfill(source, database, START, END, "everyone", keep_every_ticker=True)
    assert report.run.dropped == 0
    assert query_all(database, "SELECT count(*) > 10 FROM ohlcv_data WHERE ticker LIKE '%.WS'") == [
        (1,)
    ]
    sandbox.clear_log()
    run_backfill(source, database, START, END, "more")
    assert paths(sandbox) == []


def test_junk_in_the_market_is_set_aside_and_counted(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    sandbox.set_settings(junk=True)
    source = make_source(tmp_path, sandbox.url, NOW)
    (report,) = run_backfill(source, database, START, END, "everyone", keep_every_ticker=True)
    assert report.run.set_aside == {"JUNK\x1b: a broken ticker name": SESSIONS}
    assert query_all(database, "SELECT count(*) FROM _bars_set_aside") == [(SESSIONS,)]
    assert query_all(database, "SELECT count(*) FROM ohlcv_data WHERE ticker LIKE 'JUNK%'") == [
        (0,)
    ]
    assert sum(
        getattr(report.coverage, name)
        for name in ("stored", "known_empty", "set_aside", "beyond_plan", "failed")
    ) == (report.coverage.expected)


def test_session_that_the_vendor_does_not_have_yet_is_a_hole_and_asked_again(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    source = make_source(tmp_path, sandbox.url, NOW)
    sandbox.set_faults({"match": "grouped.*2026-11-20", "kind": "empty"})
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert report.coverage.failed == len(market)
    assert report.run.failures == {
        "session 2026-11-20": "the vendor has no bar of the session 2026-11-20 yet"
    }
    sandbox.set_faults()
    sandbox.clear_log()
    (report,) = run_backfill(source, database, START, END, "everyone")
    assert len(paths(sandbox)) == 1
    assert not report.has_holes


def test_ticker_that_changed_its_company_shows_in_the_report(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, few=["META", "AAPL"])
    source = make_source(tmp_path, sandbox.url, NOW)
    for _ in range(2):
        (report,) = run_backfill(source, database, "2021-07-01", "2023-01-31", "few")
        (gap,) = report.gaps
        assert gap.startswith(
            "META: no bar between 2022-01-28 and 2022-06-09; the prices before may be those of"
        )


def load_naive_metrics(
    database: Path, ticker: str, since: str = ""
) -> dict[str, dict[str, float | None]]:
    """By date, from the stored bars on or after `since`, one number at a time."""
    query = (
        "SELECT timestamp, open, high, low, close, volume FROM ohlcv_data "
        "WHERE ticker = ? AND timeframe = '1day' AND timestamp >= ? ORDER BY timestamp"
    )
    rows = query_all(
        database, query, ticker, midnight_ms(date.fromisoformat(since)) if since else 0
    )
    names = ("open", "high", "low", "close", "volume")
    bars = [dict(zip(names, row[1:], strict=True)) for row in rows]
    days = make_new_york_times(np.array([row[0] for row in rows])).strftime("%Y-%m-%d")
    return dict(zip(days, make_naive_metrics(bars), strict=True))


def verify_against_naive(
    database: Path, ticker: str, naive: dict[str, dict[str, float | None]]
) -> int:
    """Compare the rows of `daily_metrics` on the days of `naive`; return how many there were."""
    rows = query_all(
        database,
        f"SELECT date, {', '.join(COMPUTED_METRICS)} FROM daily_metrics WHERE ticker = ?",
        ticker,
    )
    stored = {row[0]: dict(zip(COMPUTED_METRICS, row[1:], strict=True)) for row in rows}
    for day in stored.keys() & naive.keys():
        for name, value in naive[day].items():
            assert stored[day][name] == (value if value is None else pytest.approx(value)), (
                day,
                name,
            )
    return len(stored.keys() & naive.keys())


def test_metrics_of_another_company_begin_anew(tmp_path: Path, sandbox: SandboxProcess) -> None:
    database = make_database(tmp_path, few=["META", "AAPL"])
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, "2021-07-01", "2023-01-31", "few")
    fields = "change_percent, sma_20, rsi_14, consecutive_up_days"
    query = f"SELECT {fields} FROM daily_metrics WHERE ticker = 'META' AND date = '2022-06-09'"
    assert query_all(database, query) == [(None, None, None, 0)]
    assert (
        verify_against_naive(database, "META", load_naive_metrics(database, "META", "2022-06-09"))
        > 150
    )
    run_backfill(source, database, "2021-07-01", "2023-06-30", "few")
    assert (
        verify_against_naive(database, "META", load_naive_metrics(database, "META", "2022-06-09"))
        > 250
    )


def test_metrics_that_were_there_follow_a_warm_up_that_comes_ahead_of_them(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market, few=TRAPS)
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, START, "2026-11-13", "everyone")
    run_backfill(source, database, "2026-11-16", END, "few")
    query = "SELECT count(*) FROM daily_metrics WHERE ticker = 'BRK.B' AND sma_50 IS NOT NULL"
    assert query_all(database, query) == [(SESSIONS,)]
    for ticker in TRAPS:
        assert verify_against_naive(database, ticker, load_naive_metrics(database, ticker)) > 0


def test_ticker_whose_years_between_were_never_asked_for_changed_nothing(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, few=["IBM"])
    source = make_source(tmp_path, sandbox.url, NOW)
    run_backfill(source, database, "2024-01-02", "2024-02-28", "few")
    (report,) = run_backfill(source, database, "2026-10-01", "2026-11-20", "few")
    assert report.gaps == []
    assert query_all(database, "SELECT * FROM _ticker_gaps") == []


def test_us_stocks_have_the_delisted_of_the_asked_years_as_inactive_members(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    from backtestdb.database import connect
    from backtestdb.market.universes import load_members, load_tickers

    database = make_database(tmp_path)
    client = make_source(tmp_path, sandbox.url, NOW).client
    with closing(connect(database)) as connection:
        change = update_us_stocks(connection, client, ["CS", "ADRC", "PFD"], date(2025, 7, 20))
        assert change.total == len(load_tickers(connection, "us-stocks"))
        gone = set(load_members(connection, "us-stocks")) - set(
            load_tickers(connection, "us-stocks")
        )
    assert "PARA" in gone  # delisted 2025-08-07
    assert "ANSS" not in gone  # delisted 2025-07-17
    assert set(TRAPS) <= set(load_tickers(sqlite3.connect(database), "us-stocks"))
    assert not query_all(database, "SELECT 1 FROM universe_stocks WHERE ticker LIKE 'X%'")
    assert len(paths(sandbox)) == 6


QUICK_SEEDS = range(3)
LONG_SEEDS = range(3, 53)
CONCURRENCY = 4


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess, market: list[str]
) -> tuple[dict[str, str], float]:
    # A module's fixture is made before `quiet` has undone what the test before it set.
    calm(sandbox)
    folder = tmp_path_factory.mktemp("undisturbed")
    database = make_database(folder, everyone=market)
    sandbox.set_settings(latency_seconds=0.03)
    started = time.monotonic()
    start_runner(folder, sandbox.url, 1).wait()
    seconds = time.monotonic() - started
    return digest_market(database), seconds


def start_runner(folder: Path, url: str, staged_from_bars: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(RUNNER),
        str(folder),
        url,
        NOW,
        str(staged_from_bars),
        START,
        END,
        "everyone",
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "seed", [*QUICK_SEEDS, *[pytest.param(seed, marks=pytest.mark.long) for seed in LONG_SEEDS]]
)
def test_market_killed_at_a_random_moment_continues_to_the_same_end(
    tmp_path: Path,
    sandbox: SandboxProcess,
    market: list[str],
    undisturbed: tuple[dict[str, str], float],
    seed: int,
) -> None:
    reference, seconds = undisturbed
    dice = random.Random(seed)
    staged_from_bars = dice.choice([1, DIRECTLY])
    database = make_database(tmp_path, everyone=market)
    sandbox.set_settings(latency_seconds=0.03)
    sandbox.clear_log()
    kills = dice.randint(1, 2)
    for _ in range(kills):
        process = start_runner(tmp_path, sandbox.url, staged_from_bars)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=dice.uniform(0.9, seconds + 0.1))
        process.kill()
        process.communicate()
    process = start_runner(tmp_path, sandbox.url, staged_from_bars)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert digest_market(database) == reference
    assert find_damage(database) == "ok"
    assert count_indexes(database) == INDEXES
    assert not staging_path(database).exists()
    assert len(paths(sandbox)) <= SESSIONS + kills * 2 * CONCURRENCY
    assert KEY not in errors
    assert database == database_of(tmp_path)


def test_second_process_does_not_touch_what_the_first_sets_aside(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    sandbox.set_faults({"match": "2026-11-0", "kind": "slow", "seconds": 60})
    first = start_runner(tmp_path, sandbox.url, 1)
    while len(paths(sandbox)) < 10:
        assert first.poll() is None, first.communicate()
    with pytest.raises(BusyError, match="another process fills this database"):
        run_backfill(make_source(tmp_path, sandbox.url, NOW), database, START, END, "everyone")
    sandbox.set_faults()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors


def test_staging_file_that_is_no_database_is_asked_for_again(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path, everyone=market)
    staging_path(database).write_bytes(b"not a database, but long enough to be looked at" * 100)
    (report,) = run_backfill(
        make_source(tmp_path, sandbox.url, NOW), database, START, END, "everyone"
    )
    assert not report.has_holes
    assert not staging_path(database).exists()


def stop_while_setting_aside(
    sandbox: SandboxProcess, folder: Path, database: Path, refetch: int = 0
) -> None:
    """A first fill that ends after its newest sessions, as one does whose key is withdrawn
    meanwhile."""
    sandbox.set_faults({"match": "grouped.*2026-11-0", "kind": "refusal", "status": 401})
    with pytest.raises(KeyRefusedError):
        fill(sandbox, folder, database, refetch)
    sandbox.set_faults()
    assert staging_path(database).exists()


def fill(sandbox: SandboxProcess, folder: Path, database: Path, refetch: int) -> None:
    from backtestdb.database import connect
    from backtestdb.market.universes import load_members

    source = make_source(folder, sandbox.url, NOW, concurrency=1)
    with closing(connect(database)) as connection:
        days = (date.fromisoformat(START), date.fromisoformat(END))
        members = load_members(connection, "everyone")
        job = make_job(
            source.calendar, "1day", members, *days, universe="everyone", refetch=refetch
        )
        backfill_together(connection, source, [job], "everyone", staged_from_bars=1)


def test_sessions_set_aside_are_not_asked_for_again_as_corrections(
    tmp_path: Path, sandbox: SandboxProcess, market: list[str]
) -> None:
    database = make_database(tmp_path / "stopped", everyone=market)
    stop_while_setting_aside(sandbox, tmp_path / "stopped", database, refetch=3)
    asked = [path for path in paths(sandbox) if "2026-11-1" in path or "2026-11-2" in path]
    sandbox.clear_log()
    fill(sandbox, tmp_path / "stopped", database, refetch=3)
    assert not set(asked) & set(paths(sandbox))
    fresh = make_database(tmp_path / "fresh", everyone=market)
    fill(sandbox, tmp_path / "fresh", fresh, refetch=3)
    assert digest_market(database) == digest_market(fresh)


def test_session_set_aside_twice_counts_once(tmp_path: Path) -> None:
    from backtestdb.database import connect

    day = date(2026, 11, 20)
    row = {"T": "IBM", "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 5, "t": 1795208400000}
    with closing(connect(make_database(tmp_path))) as connection:
        staging = create_staging(connection, EVERY_TICKER, "2026-11-21T00:00:00+00:00")
        for close in (1.0, 1.005):
            bars = parse_bars(
                [{**row, "c": close, "h": close}, {**row, "T": "BAD", "v": -1}], "1day", [day]
            )
            stage_session(staging, day, bars, "2026-11-21T00:00:00+00:00")
        load_staging(connection, staging, "a run", lambda _: None)
        assert connection.execute("SELECT ticker, close FROM ohlcv_data").fetchall() == [
            ("IBM", 1.005)
        ]
        assert connection.execute("SELECT count(*) FROM _bars_set_aside").fetchone() == (1,)


@pytest.mark.parametrize("restored", ["before the fill", "another one"])
def test_what_was_set_aside_for_another_state_of_the_database_is_removed(
    tmp_path: Path,
    sandbox: SandboxProcess,
    market: list[str],
    capfd: pytest.CaptureFixture[str],
    restored: str,
) -> None:
    database = make_database(tmp_path / "restored", everyone=market, some=market[:70])
    backup = tmp_path / "backup.db"
    if restored == "another one":
        backup = make_database(tmp_path / "other", some=market[:70], everyone=[*market, "ZZZZ"])
        stop_while_setting_aside(sandbox, tmp_path / "other", backup)
    else:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM INTO ?", (str(backup),))
    stop_while_setting_aside(sandbox, tmp_path / "restored", database)
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)

    fill(sandbox, tmp_path / "restored", database, 0)
    assert f"removed {staging_path(database)}" in capfd.readouterr().err
    fresh = make_database(tmp_path / "fresh", everyone=market, some=market[:70])
    fill(sandbox, tmp_path / "fresh", fresh, 0)
    bars = f"{BARS} WHERE ticker <> 'ZZZZ' ORDER BY 1, 2"
    assert query_all(database, bars) == query_all(fresh, bars)
    assert not staging_path(database).exists()
