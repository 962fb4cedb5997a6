"""The pipeline's scripts against the sandbox: real prices, zones, sessions, the shared quota."""

import csv
import gzip
import importlib.util
import math
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from backtestdb.database import connect
from backtestdb.schema import ensure_schema
from commands import Project
from contents import query_all
from naive_metrics import make_naive_metrics
from sandbox_process import SandboxOptions, SandboxProcess, running_sandbox

REAL = ["AAPL", "MSFT", "IBM", "GOOG", "FB"]
NEW_YORK = ZoneInfo("America/New_York")
# Execution day and ratio; the source is unadjusted.
SPLITS = {
    "AAPL": [(date(2000, 6, 21), 2.0), (date(2005, 2, 28), 2.0)],
    "MSFT": [(date(2003, 2, 18), 2.0)],
}


SANDBOX = SandboxOptions(today="2013-03-02")


def make_project(folder: Path, url: str, universe: str, tickers: str) -> Project:
    folder.mkdir(exist_ok=True)
    project = Project(folder, url)
    with closing(connect(project.database, create=True)) as connection:
        ensure_schema(connection)
    project.check("01_create_universe.py", "--universe", universe, "--tickers", tickers)
    return project


def load_source() -> dict[tuple[str, str], tuple[float, ...]]:
    """(ticker, session) to split-adjusted open, high, low, close and volume, straight from the
    package's file."""
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec and spec.origin
    bars = {}
    with gzip.open(Path(spec.origin).parent / "_data" / "stocks.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            ticker, day = row["Ticker"], row["Date"]
            factor = math.prod(
                ratio
                for executed, ratio in SPLITS.get(ticker, [])
                if date.fromisoformat(day) < executed
            )
            prices = [float(row[name]) / factor for name in ("Open", "High", "Low", "Close")]
            bars[ticker, day] = (*prices, float(row["Volume"]) * factor)
    return bars


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo", "UTC"])
def test_daily_backfill_of_real_prices_in_any_zone_equals_the_source_and_its_metrics(
    tmp_path: Path, sandbox: SandboxProcess, zone: str
) -> None:
    project = make_project(tmp_path, sandbox.url, "real", ",".join(REAL))
    project.check(
        "02_backfill_daily.py",
        "--universe",
        "real",
        "--start",
        "2000-03-01",
        "--end",
        "2013-03-01",
        TZ=zone,
    )
    source = load_source()
    stored = query_all(
        project.database,
        "SELECT ticker, date, timestamp, open, high, low, close, volume FROM daily_metrics "
        "ORDER BY ticker, date",
    )
    mine = {(ticker, day): values for ticker, day, _, *values in stored}
    missing = {key for key in source if key not in mine}
    assert not missing - aside(project)
    for key, (*prices, volume) in source.items():
        if key in mine:
            assert mine[key][:4] == pytest.approx(prices, rel=1e-9)
            assert mine[key][4] == pytest.approx(volume, abs=0.5)
    for _, day, timestamp, *_ in stored:
        assert (
            datetime.fromtimestamp(timestamp / 1000, NEW_YORK).isoformat()[:19] == f"{day}T00:00:00"
        )
    assert not {day for _, day, *_ in stored} & {"2012-10-29", "2012-10-30"}
    compare_metrics(project)


def aside(project: Project) -> set[tuple[str, str]]:
    return set(query_all(project.database, "SELECT ticker, session_date FROM _bars_set_aside"))


def compare_metrics(project: Project) -> None:
    """Against an implementation that shares no line with the project's: within 1e-9."""
    for ticker in REAL:
        bars = query_all(
            project.database,
            "SELECT timestamp, open, high, low, close, volume FROM ohlcv_data"
            " WHERE timeframe = '1day' AND ticker = ? ORDER BY timestamp",
            ticker,
        )
        names = ("open", "high", "low", "close", "volume")
        expected = make_naive_metrics(
            [dict(zip(names, values, strict=True)) for _, *values in bars]
        )
        by_time = dict(zip([timestamp for timestamp, *_ in bars], expected, strict=True))
        columns = list(expected[0])
        stored = query_all(
            project.database,
            f"SELECT timestamp, {', '.join(columns)} FROM daily_metrics WHERE ticker = ?",
            ticker,
        )
        for timestamp, *values in stored:
            for name, value in zip(columns, values, strict=True):
                both = (value, by_time[timestamp][name])
                assert both == (None, None) or math.isclose(*both, rel_tol=1e-9, abs_tol=1e-9), (
                    ticker,
                    name,
                )


def test_daily_backfill_brings_the_warm_up_so_that_the_first_session_has_every_metric(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    project = make_project(tmp_path, sandbox.url, "one", "IBM")
    project.check("02_backfill_daily.py", "--universe", "one", "--end", "2013-03-01")
    rows = query_all(project.database, "SELECT * FROM daily_metrics ORDER BY date")
    assert len(rows) == 250
    assert None not in rows[0]
    assert query_all(project.database, "SELECT count(*) FROM ohlcv_data") == [(450,)]


def test_intraday_backfill_has_the_sessions_the_exchange_had(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    project = make_project(tmp_path, sandbox.url, "one", "AAPL")
    project.check(
        "03_backfill_intraday.py",
        "--universe",
        "one",
        "--start",
        "2012-10-26",
        "--end",
        "2012-11-26",
        TZ="Asia/Tokyo",
    )
    regular = dict(
        query_all(
            project.database,
            "SELECT date((timestamp - 18000000) / 1000, 'unixepoch') AS session, count(*) "
            "FROM ohlcv_data WHERE time_of_day >= '09:30:00' "
            "AND time_of_day < CASE WHEN date((timestamp - 18000000) / 1000, "
            "'unixepoch') = '2012-11-23' THEN '13:00:00' ELSE '16:00:00' END GROUP BY session",
        )
    )
    assert regular["2012-11-23"] == 42
    assert regular["2012-11-05"] == 78
    assert not regular.keys() & {"2012-10-29", "2012-10-30", "2012-11-22"}
    # Daylight saving ended on 2012-11-04: 14:30 UTC is 10:30 in New York before, 09:30 after.
    weekday = query_all(
        project.database,
        "SELECT DISTINCT day_of_week FROM ohlcv_data"
        " WHERE date((timestamp - 18000000) / 1000, 'unixepoch') = '2012-11-05'",
    )
    assert weekday == [(1,)]


def test_backfill_asked_again_sends_no_request_but_one_to_confirm_an_empty_answer(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    project = make_project(tmp_path, sandbox.url, "few", "IBM,NOT-A-TICKER")
    arguments = ("02_backfill_daily.py", "--universe", "few", "--end", "2013-03-01")
    output = project.check(*arguments)
    assert "the vendor has nothing of NOT-A-TICKER" in output
    sandbox.clear_log()
    project.check(*arguments)
    (again,) = fetch_price_log(sandbox)
    assert "/NOT-A-TICKER/" in again["path"]
    project.check(*arguments)
    assert fetch_price_log(sandbox) == [again]


def fetch_price_log(sandbox: SandboxProcess) -> list[dict[str, object]]:
    """The requests for bars: each run looks at the list of splits besides."""
    return [entry for entry in sandbox.fetch_log() if "/splits" not in str(entry["path"])]


def test_plan_sends_no_request_and_needs_no_key(tmp_path: Path, sandbox: SandboxProcess) -> None:
    project = make_project(tmp_path, sandbox.url, "few", "IBM,AAPL")
    sandbox.clear_log()
    output = project.check(
        "03_backfill_intraday.py", "--universe", "few", "--plan", "--json", POLYGON_API_KEY=""
    )
    assert '"requests": 4}' in output or '"requests": 4,' in output  # two looks at the splits
    assert sandbox.fetch_log() == []


def test_backfill_of_an_unknown_universe_names_those_there_are(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    project = make_project(tmp_path, sandbox.url, "few", "IBM")
    output = project.check("02_backfill_daily.py", "--universe", "many", expect=2)
    assert "there are: few" in output


@pytest.mark.long
def test_two_backfills_at_once_share_one_quota(tmp_path: Path) -> None:
    """A real minute: 90 requests at 40 a minute by two processes, against a server that counts
    arrivals."""
    with running_sandbox("--requests-per-minute", "40", today="2013-03-02") as strict:
        tickers = [
            line for line in (TECH_FILE.read_text()).splitlines() if not line.startswith("#")
        ][:45]
        project = make_project(tmp_path, strict.url, "some", ",".join(tickers))
        other = make_project(tmp_path / "other", strict.url, "some", ",".join(tickers))
        settings = {"POLYGON_REQUESTS_PER_MINUTE": "40", "XDG_STATE_HOME": str(tmp_path / "state")}
        arguments = ("02_backfill_daily.py", "--universe", "some", "--end", "2013-03-01")
        processes = [each.start(*arguments, **settings) for each in (project, other)]
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        assert strict.fetch_most_in_window() <= 40
        assert {entry["status"] for entry in strict.fetch_log()} == {200}


TECH_FILE = Path(__file__).parents[2] / "scripts" / "backtestdb" / "market" / "tech_sector.txt"
