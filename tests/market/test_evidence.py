"""An answer is evidence: after odd answers and an honest update the content equals a fresh
download, or exit 3 says what is missing. Against the sandbox, whose answers change at run time;
what is right is downloaded, not typed."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import pytest

from backtestdb.database import connect
from backtestdb.market.client import MarketDataError
from backtestdb.market.evidence import find_thin_sessions, weigh_range
from backtestdb.market.jobs import Report
from backtestdb.market.refetch import refetch_ticker
from backtestdb.market.session_mask import EMPTY, SessionMask
from backtestdb.new_york import midnight_ms
from backtestdb.sandbox.listings import letters
from commands import Project
from contents import query_all
from market_runs import DIRECTLY, make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxOptions, SandboxProcess

FEW = ["AAPL", "IBM", "MSFT"]
# So many that a session of the whole market costs fewer requests than each ticker's range.
MANY = [*FEW, *(f"Z{letters(number)}" for number in range(30))]
BEFORE_WEEK = "2026-11-09"
START, BEFORE, TODAY, NEXT = "2026-10-01", "2026-11-18", "2026-11-19", "2026-11-20"
SANDBOX = SandboxOptions("--tickers", "400", today=TODAY)
CONTENT = {
    "ohlcv_data": "ticker, timeframe, timestamp, open, high, low, close, volume, time_of_day, "
    "day_of_week",
    "daily_metrics": "ticker, date, open, high, low, close, volume, change_percent, rsi_14, "
    "sma_20, sma_200",
    "_bars_set_aside": "ticker, timeframe, timestamp, reason, bar",
}


@pytest.fixture(autouse=True)
def honest_vendor(sandbox: SandboxProcess) -> None:
    sandbox.reset(TODAY)
    sandbox.clear_log()


def read_content(database: Path, tickers: Sequence[str] = FEW) -> dict[str, list[tuple]]:
    named = ", ".join(f"'{ticker}'" for ticker in tickers)
    return {
        table: query_all(
            database, f"SELECT {columns} FROM {table} WHERE ticker IN ({named}) ORDER BY 1, 2, 3"
        )
        for table, columns in CONTENT.items()
    }


def bars_since(day: str, content: dict[str, list[tuple]]) -> list[tuple]:
    """Without the warm-up, which only comes where tickers are asked for one by one."""
    first_ms = midnight_ms(date.fromisoformat(day))
    return [row for row in content["ohlcv_data"] if row[2] >= first_ms]


def download(
    folder: Path,
    sandbox: SandboxProcess,
    end: str,
    tickers: Sequence[str] = FEW,
    timeframe: str = "1day",
) -> dict[str, list[tuple]]:
    """What a new database has after one backfill by an honest vendor."""
    database = make_database(folder / f"fresh-{end}-{timeframe}", few=tickers)
    source = make_source(database.parent, sandbox.url, end)
    (report,) = run_backfill(source, database, START, end, "few", timeframe=timeframe)
    assert not report.has_holes
    return read_content(database, tickers)


def begin(
    folder: Path, sandbox: SandboxProcess, end: str, tickers: Sequence[str] = FEW
) -> tuple[Path, Report]:
    database = make_database(folder / "own", few=tickers)
    source = make_source(database.parent, sandbox.url, end)
    return database, run_backfill(source, database, START, end, "few")[0]


def follow_up(database: Path, sandbox: SandboxProcess, end: str, hour: str = "") -> list[Report]:
    source = make_source(database.parent, sandbox.url, f"{end}{hour}")
    return [report for _, _, report in run_update(source, database, end).reports]


ODD_ANSWERS = {
    "404": {"kind": "refusal", "status": 404, "times": None},
    "HTML with 403": {"kind": "gateway", "status": 403, "times": None},
    "null": {"kind": "null_results", "times": None},
    "empty": {"kind": "empty", "times": None},
    "fewer rows than counted": {"kind": "fewer_rows", "rows": 1, "times": None},
    "not adjusted": {"kind": "odd_frame", "changes": {"adjusted": False}, "times": None},
    "another ticker": {"kind": "odd_frame", "changes": {"ticker": "GOOG"}, "times": None},
    "bad bars": {"kind": "bad_bars", "bars": ["null", "negative"], "times": None},
}


@pytest.mark.parametrize("odd", ODD_ANSWERS)
def test_odd_answers_about_one_ticker_during_an_update_are_asked_again_by_the_next(
    tmp_path: Path, sandbox: SandboxProcess, odd: str
) -> None:
    """Before: a 404 made nine sessions of every ticker "known empty", for ever, with exit 0."""
    database, _ = begin(tmp_path, sandbox, BEFORE)
    sandbox.set_faults(
        {"match": "/ticker/IBM/", **ODD_ANSWERS[odd]},
        {"match": "grouped", "kind": "server_error", "times": None},
    )
    with suppress(MarketDataError):
        follow_up(database, sandbox, TODAY)
    sandbox.reset(NEXT)
    assert not any(report.has_holes for report in follow_up(database, sandbox, NEXT))
    assert read_content(database) == download(tmp_path, sandbox, NEXT)


@pytest.mark.parametrize("odd", ["404", "null", "empty", "bad bars"])
def test_odd_first_answer_is_no_fact(tmp_path: Path, sandbox: SandboxProcess, odd: str) -> None:
    sandbox.set_faults({"match": "/ticker/IBM/", **ODD_ANSWERS[odd]})
    database, _ = begin(tmp_path, sandbox, TODAY)
    sandbox.reset(TODAY)
    assert not any(report.has_holes for report in follow_up(database, sandbox, TODAY))
    assert read_content(database) == download(tmp_path, sandbox, TODAY)


def test_ticker_that_ended_is_asked_once_more_and_then_known(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """ANSS went on 2025-07-17: an empty answer is no failure, a second one of another run makes it
    a fact."""
    database, report = begin(tmp_path, sandbox, TODAY, [*FEW, "ANSS"])
    assert not report.has_holes
    assert report.coverage.silent == ["ANSS"]
    assert report.coverage.provisional == report.coverage.known_empty == 36
    sandbox.clear_log()
    (again,) = follow_up(database, sandbox, TODAY)
    splits = 1
    assert (again.coverage.provisional, again.run.requests) == (0, 1 + splits)
    sandbox.clear_log()
    follow_up(database, sandbox, TODAY)
    assert not [entry for entry in sandbox.fetch_log() if "/aggs/" in entry["path"]]


def test_stray_refusal_is_no_wall(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """Before: one 403 at the fifth session made 8 sessions of 1,259, state complete, exit 0."""
    tickers = [*FEW, *(f"Z{n}" for n in range(60))]
    sandbox.set_faults({"match": "grouped.*2026-11-13", "kind": "refusal", "status": 403})
    database, report = begin(tmp_path, sandbox, TODAY, tickers)
    assert report.history_starts is None
    assert report.coverage.beyond_plan == 0
    sandbox.reset(TODAY)
    follow_up(database, sandbox, TODAY)
    fresh = download(tmp_path, sandbox, TODAY)
    assert bars_since(START, read_content(database)) == bars_since(START, fresh)


def test_ticker_that_the_plan_does_not_include_costs_no_other_ticker_a_bar(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """Before: an index first in a universe, 0 bars of all six tickers, exit 0."""
    sandbox.set_settings(refused_tickers=["I:SPX"])
    database, report = begin(tmp_path, sandbox, TODAY, ["I:SPX", *FEW])
    assert report.refused_tickers == ["I:SPX"]
    assert report.has_holes
    assert report.coverage.beyond_plan == 36
    assert read_content(database) == download(tmp_path, sandbox, TODAY)


def test_plan_without_the_whole_market_falls_back_to_ranges_and_says_so(
    tmp_path: Path, sandbox: SandboxProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    market = [
        row["ticker"]
        for row in sandbox.get(
            "/v3/reference/tickers", market="stocks", type="CS", active="true", limit=60
        ).json()["results"]
    ]
    fresh = download(tmp_path, sandbox, TODAY, market)
    sandbox.set_settings(grouped=False)
    database, report = begin(tmp_path, sandbox, TODAY, market)
    assert "asking ticker by ticker" in capsys.readouterr().err
    assert not report.has_holes
    assert bars_since(START, read_content(database, market)) == bars_since(START, fresh)


def test_wall_of_the_plan_is_believed_with_a_witness_and_is_a_hole(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.set_settings(history_years=2)
    database = make_database(tmp_path / "own", few=FEW)
    source = make_source(database.parent, sandbox.url, TODAY)
    (report,) = run_backfill(source, database, "2024-10-01", TODAY, "few")
    assert str(report.history_starts) == "2024-11-19"
    assert report.has_holes
    refused = [entry["path"] for entry in sandbox.fetch_log() if entry["status"] == 403]
    assert len(refused) == 2


@pytest.mark.parametrize("weekday_of_wall", ["2026-11-21", "2026-11-22"])
def test_plan_that_begins_on_a_weekend_is_found(
    tmp_path: Path, sandbox: SandboxProcess, weekday_of_wall: str
) -> None:
    """Before: the probe asked for a day without a session, and two years were "known empty" for
    good."""
    sandbox.set_today(weekday_of_wall)
    sandbox.set_settings(history_years=5)  # 2021-11-21 is a Sunday, 2021-11-22 a Monday
    database = make_database(tmp_path / "own", few=["AAPL", "IBM"])
    source = make_source(database.parent, sandbox.url, "2026-11-20")
    (report,) = run_backfill(source, database, "2021-06-01", "2026-11-20", "few")
    assert str(report.history_starts) == "2021-11-22"
    assert report.coverage.known_empty == 0


def test_wrong_record_of_a_probe_on_a_weekend_is_mended_by_the_next_run(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.set_today("2026-11-21")
    sandbox.set_settings(history_years=5)
    database = make_database(tmp_path / "own", few=["AAPL", "IBM"])
    source = make_source(database.parent, sandbox.url, "2026-11-20")
    run_backfill(source, database, "2021-06-01", "2026-11-20", "few")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE _ranges_asked SET start_date = '2020-08-13', run = ''")
        connection.execute("DROP TABLE _vendor_limits")
        connection.execute(
            "CREATE TABLE _plan_limits (id INTEGER PRIMARY KEY, covered_from, proven_from)"
        )
        connection.execute("INSERT INTO _plan_limits VALUES (1, NULL, '2020-08-13')")
    (report,) = run_backfill(source, database, "2021-06-01", "2026-11-20", "few")
    assert str(report.history_starts) == "2021-11-22"
    assert report.coverage.known_empty == 0
    assert query_all(database, "SELECT name FROM sqlite_master WHERE name = '_plan_limits'") == []


def test_unfinished_session_is_asked_again(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """Before: at 16:01 a bar with half of its volume was stored as final."""
    sandbox.set_settings(unfinished=True)
    database = make_database(tmp_path / "own", few=FEW)
    source = make_source(database.parent, sandbox.url, f"{TODAY}T21:01:00")
    (report,) = run_backfill(source, database, START, TODAY, "few")
    assert report.coverage.provisional == len(FEW)
    sandbox.reset(TODAY)
    (after,) = run_backfill(
        make_source(database.parent, sandbox.url, TODAY), database, START, TODAY, "few"
    )
    assert after.coverage.provisional == 0
    assert read_content(database) == download(tmp_path, sandbox, TODAY)


def test_session_that_nobody_has_yet_is_a_hole_until_it_is_there(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """The same as a clock that is ahead: two runs agree, and it is still no fact."""
    database, _ = begin(tmp_path, sandbox, BEFORE)
    sandbox.set_missing(TODAY)
    for _ in range(2):
        assert any(report.has_holes for report in follow_up(database, sandbox, TODAY))
    sandbox.reset(TODAY)
    assert not any(report.has_holes for report in follow_up(database, sandbox, TODAY))
    assert read_content(database) == download(tmp_path, sandbox, TODAY)


@pytest.mark.parametrize(
    "tickers", [FEW, [*FEW, *(f"Z{n}" for n in range(60))]], ids=["few", "many"]
)
def test_closure_that_the_calendar_does_not_know_is_said_once_and_not_asked_again(
    tmp_path: Path, sandbox: SandboxProcess, capsys: pytest.CaptureFixture[str], tickers: list[str]
) -> None:
    sandbox.set_missing("2026-11-12")
    database, report = begin(tmp_path, sandbox, TODAY, tickers)
    assert "nothing traded on 2026-11-12" in capsys.readouterr().err
    assert query_all(database, "SELECT session_date FROM _closed_sessions") == [("2026-11-12",)]
    assert not report.has_holes
    sandbox.clear_log()
    follow_up(database, sandbox, TODAY)
    assert not [entry for entry in sandbox.fetch_log() if "2026-11-12" in entry["path"]]
    assert "2026-11-12" not in capsys.readouterr().err


def test_two_ranges_stay_two_and_the_update_goes_on_from_the_newest(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """Before: the newer range was forgotten, and update fetched eight years between."""
    database, _ = begin(tmp_path, sandbox, BEFORE)
    source = make_source(database.parent, sandbox.url, BEFORE)
    run_backfill(source, database, "2012-10-01", "2012-11-30", "few")
    assert json.loads(query_all(database, "SELECT ranges FROM _coverage")[0][0]) == [
        ["2012-10-01", "2012-11-30"],
        [START, BEFORE],
    ]
    sandbox.clear_log()
    reports = follow_up(database, sandbox, TODAY)
    assert not any(report.has_holes for report in reports)
    asked = [entry["path"] for entry in sandbox.fetch_log() if "/aggs/" in entry["path"]]
    assert asked
    assert not [
        path for path in asked if not any(day in path for day in ("2026-11-1", "2026-11-19"))
    ]


def test_removed_and_changed_bars_are_replaced_by_asking_again(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database, _ = begin(tmp_path, sandbox, TODAY)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE ohlcv_data SET close = close * 7 WHERE ticker = 'IBM' AND id % 3 = 0"
        )
        connection.execute("DELETE FROM ohlcv_data WHERE ticker = 'IBM' AND id % 5 = 0")
    source = make_source(database.parent, sandbox.url, TODAY)
    with closing(connect(database)) as connection:
        (done,) = refetch_ticker(connection, source, "IBM")
    assert (done.not_answered, done.removed) == (0, 0)
    assert read_content(database) == download(tmp_path, sandbox, TODAY)


def test_ticker_left_out_of_the_newest_session_comes_back_when_asked_for_by_name(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """The command that the guide names for a ticker which the answer about the whole market left
    out. So many members that one answer about the market costs less than each member's range."""
    sandbox.set_missing(("MSFT", TODAY))
    members = [*FEW, *(f"Z{letters(number)}" for number in range(30))]
    database = make_database(tmp_path / "own", few=members)
    source = make_source(database.parent, sandbox.url, TODAY)
    run_backfill(source, database, "2026-11-09", TODAY, "few")
    at_ms = midnight_ms(date.fromisoformat(TODAY))
    newest = f"SELECT close FROM ohlcv_data WHERE ticker = 'MSFT' AND timestamp = {at_ms}"
    assert query_all(database, newest) == []

    sandbox.reset(TODAY)
    Project(database.parent, sandbox.url).check(
        "update_database.py", "--end", TODAY, "--again", "--tickers", "MSFT"
    )
    assert len(query_all(database, newest)) == 1


def test_again_replaces_what_the_records_take_for_final(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database, _ = begin(tmp_path, sandbox, TODAY)
    fresh = download(tmp_path, sandbox, TODAY)
    project = Project(database.parent, sandbox.url)
    for command, changed in (
        (
            ("02_backfill_daily.py", "--universe", "few", "--again", "--tickers", "IBM"),
            "ticker = 'IBM'",
        ),
        (
            ("update_database.py", "--again", "--start", "2026-11-02", "--end", "2026-11-06"),
            "id % 2 = 0",
        ),
    ):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(
                "UPDATE ohlcv_data SET close = close * 1.5, high = high * 2 "
                f"WHERE timestamp BETWEEN 1793595600000 AND 1793941200000 AND {changed}"
            )
        project.check(*command)
        assert read_content(database) == fresh
    output = project.check("update_database.py", "--again", "--tickers", "NOBODY", expect=2)
    assert "NOBODY" in output


def test_bar_that_the_vendor_withdrew_goes_at_the_second_answer(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database, _ = begin(tmp_path, sandbox, TODAY)
    sandbox.set_missing(("IBM", "2026-11-17"))
    withdrawn = download(tmp_path, sandbox, TODAY)
    for expected in (1, 0):
        source = make_source(database.parent, sandbox.url, TODAY)
        with closing(connect(database)) as connection:
            (done,) = refetch_ticker(connection, source, "IBM")
        assert done.not_answered == expected
    assert read_content(database) == withdrawn


def test_history_that_the_plan_does_not_reach_any_more_is_kept(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path / "own", few=["IBM"])
    source = make_source(database.parent, sandbox.url, TODAY)
    run_backfill(source, database, "2024-06-03", TODAY, "few")
    before = read_content(database, ["IBM"])
    sandbox.set_settings(history_years=2)
    for _ in range(2):
        later = make_source(database.parent, sandbox.url, TODAY)
        with closing(connect(database)) as connection:
            (done,) = refetch_ticker(connection, later, "IBM")
        assert done.not_answered > 0
    assert read_content(database, ["IBM"]) == before


def test_second_run_for_the_same_bars_is_told_of_the_first(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database, _ = begin(tmp_path, sandbox, BEFORE)
    project = Project(database.parent, sandbox.url)
    sandbox.set_faults({"match": "/aggs/", "kind": "slow", "seconds": 60, "times": None})
    sandbox.clear_log()
    first = project.start("update_database.py", "--end", TODAY)
    try:
        while not [entry for entry in sandbox.fetch_log() if entry["path"].startswith("/v2/aggs")]:
            assert first.poll() is None
        output = project.check("update_database.py", "--end", TODAY, expect=1)
        assert "already running" in output
    finally:
        first.kill()
        first.communicate()
        sandbox.reset(TODAY)


def test_first_interrupt_ends_a_run_that_waits_for_an_answer(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    import signal

    database, _ = begin(tmp_path, sandbox, BEFORE)
    sandbox.set_faults({"match": "/aggs/", "kind": "timeout", "seconds": 600, "times": None})
    sandbox.clear_log()
    process = Project(database.parent, sandbox.url).start("update_database.py", "--end", TODAY)
    try:
        while not [entry for entry in sandbox.fetch_log() if entry["path"].startswith("/v2/aggs")]:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 130, errors
    finally:
        process.kill()
        sandbox.reset(TODAY)


def test_captive_portal_costs_five_requests(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """Before: everything 302, and all 230 requests were sent."""
    sandbox.set_faults({"match": "/aggs/", "kind": "gateway", "status": 302, "times": None})
    sandbox.clear_log()
    with pytest.raises(MarketDataError, match="302"):
        begin(tmp_path, sandbox, TODAY, [*FEW, *(f"Z{n}" for n in range(30))])
    assert len(sandbox.fetch_log()) <= 5 + 2 * 4


def test_state_of_one_universe_is_not_hidden_by_another(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """Before: a killed backfill was forgotten when that of another universe ended."""
    database = make_database(tmp_path / "own", few=FEW, other=["GOOG"])
    sandbox.set_faults({"match": "/aggs/", "kind": "gateway", "status": 302, "times": None})
    source = make_source(database.parent, sandbox.url, TODAY, concurrency=1)
    with pytest.raises(RuntimeError, match="killed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("backtestdb.market.backfill.fetch_all", raise_killed)
        run_backfill(source, database, START, TODAY, "few")
    sandbox.reset(TODAY)
    run_backfill(make_source(database.parent, sandbox.url, TODAY), database, START, TODAY, "other")
    states = query_all(database, "SELECT universe, state FROM _coverage ORDER BY 1")
    assert states == [("few", "running"), ("other", "counted")]
    follow_up(database, sandbox, TODAY)
    assert query_all(database, "SELECT DISTINCT state FROM _coverage") == [("counted",)]


def raise_killed(*_: object) -> None:
    raise RuntimeError("killed")


def test_answers_far_shorter_than_those_around_them_are_thin() -> None:
    assert find_thin_sessions([11_000, 11_050, 20, 11_020, 5_000]) == [2, 4]
    assert find_thin_sessions([450]) == find_thin_sessions([]) == []
    cut_for_a_week_and_a_half = [11_000] * 14 + [1] * 8
    assert find_thin_sessions(cut_for_a_week_and_a_half) == list(range(14, 22))


@pytest.mark.parametrize("staged_from_bars", [DIRECTLY, 1], ids=["directly", "set aside first"])
def test_ticker_that_the_newest_session_lacks_is_asked_for_again_the_same_evening(
    tmp_path: Path, sandbox: SandboxProcess, staged_from_bars: int
) -> None:
    """Before: the rest of the market was the second sign, unless the session before was stored
    when the newest came; the newest comes first, and a first fill is set aside."""
    sandbox.set_missing(("MSFT", TODAY))
    database = make_database(tmp_path / "own", few=MANY)
    source = make_source(database.parent, sandbox.url, TODAY)
    run_backfill(source, database, BEFORE_WEEK, TODAY, "few", staged_from_bars=staged_from_bars)
    sandbox.reset(TODAY)
    follow_up(database, sandbox, TODAY)
    assert bars_of_week(database) == download_week(tmp_path, sandbox)


def test_ticker_that_did_not_trade_is_known_after_two_answers(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.set_missing(("MSFT", TODAY))
    database = make_database(tmp_path / "own", few=MANY)
    run_backfill(
        make_source(database.parent, sandbox.url, TODAY), database, BEFORE_WEEK, TODAY, "few"
    )
    follow_up(database, sandbox, TODAY)
    sandbox.clear_log()
    (report,) = follow_up(database, sandbox, TODAY)
    assert not [entry for entry in sandbox.fetch_log() if "/aggs/" in entry["path"]]
    assert not report.coverage.provisional


def test_market_that_is_cut_to_one_row_each_day_is_not_closed(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    """Before: all sessions but the newest were recorded as closed, for ever."""
    sandbox.set_faults({"match": "grouped", "kind": "few_rows", "rows": 1, "times": None})
    database = make_database(tmp_path / "own", few=MANY)
    run_backfill(
        make_source(database.parent, sandbox.url, TODAY), database, BEFORE_WEEK, TODAY, "few"
    )
    sandbox.reset(NEXT)
    follow_up(database, sandbox, NEXT)
    follow_up(database, sandbox, NEXT)
    assert query_all(database, "SELECT * FROM _closed_sessions") == []
    assert bars_of_week(database) == download_week(tmp_path, sandbox, NEXT)


@pytest.mark.parametrize("by", ["ticker", "session"])
def test_bar_that_cannot_be_true_and_then_none_is_asked_for_again(
    tmp_path: Path, sandbox: SandboxProcess, by: str
) -> None:
    """Before: two runs without a good bar were the same answer twice, and it was believed."""
    path = f"/v2/aggs/grouped/locale/us/market/stocks/{TODAY}"
    rows = sandbox.get(path).json()["results"]
    spoilt = rows[len(rows) // 2]["T"]  # where the sandbox puts its broken bar
    tickers = FEW if by == "ticker" else [*MANY, spoilt]
    match = "/ticker/IBM/" if by == "ticker" else f"grouped.*{TODAY}"
    sandbox.set_faults({"match": match, "kind": "bad_bars", "bars": ["junk"], "times": None})
    database = make_database(tmp_path / "own", few=tickers)
    run_backfill(
        make_source(database.parent, sandbox.url, TODAY), database, BEFORE_WEEK, TODAY, "few"
    )
    [(ticker, day)] = query_all(database, "SELECT ticker, session_date FROM _bars_set_aside")
    assert ticker == ("IBM" if by == "ticker" else spoilt)

    sandbox.reset(TODAY)
    sandbox.set_missing((ticker, day))
    follow_up(database, sandbox, TODAY)
    sandbox.reset(TODAY)
    follow_up(database, sandbox, TODAY)
    stamp = midnight_ms(date.fromisoformat(day))
    query = "SELECT count(*) FROM ohlcv_data WHERE ticker = ? AND timestamp = ?"
    assert query_all(database, query, ticker, stamp) == [(1,)]
    assert query_all(database, "SELECT * FROM _bars_set_aside") == []


def download_week(folder: Path, sandbox: SandboxProcess, end: str = TODAY) -> list[tuple]:
    database = make_database(folder / "fresh", few=MANY)
    source = make_source(database.parent, sandbox.url, end)
    run_backfill(source, database, BEFORE_WEEK, end, "few")
    return bars_of_week(database)


def bars_of_week(database: Path) -> list[tuple]:
    return bars_since(BEFORE_WEEK, read_content(database, MANY))


def test_empty_sessions_are_believed_at_a_second_sign() -> None:
    every, none = SessionMask(0b1111), EMPTY
    later_bar = weigh_range(every, good=SessionMask(0b1000), rejected=none, stored=none)
    assert (later_bar.replaced, later_bar.doubtful) == (every, 0)
    behind = weigh_range(every, good=SessionMask(0b0011), rejected=none, stored=none)
    assert (behind.replaced, behind.doubtful) == (0b0011, 0b1100)
    again = weigh_range(
        every,
        good=SessionMask(0b0011),
        rejected=none,
        stored=none,
        doubted_before=SessionMask(0b1100),
    )
    assert (again.replaced, again.doubtful) == (every, 0)
    cut = weigh_range(every, good=SessionMask(0b1100), rejected=none, stored=SessionMask(0b0001))
    assert (cut.kept, cut.doubtful) == (0b0001, 0)
    spoilt = weigh_range(
        every, good=SessionMask(0b1011), rejected=SessionMask(0b0100), stored=every
    )
    assert (spoilt.replaced, spoilt.doubtful) == (0b1011, 0b0100)
