"""No false alarm: real prices through real backfills, and the sandbox's whole market, have no
finding."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from audit_market import save_day_bars, save_metric_rows
from backtestdb.database import connect, transaction
from backtestdb.market.audit.accepted import Accepted
from backtestdb.market.audit.read import load_known
from backtestdb.market.audit.run import AuditResult, audit
from backtestdb.new_york import midnight_ms
from backtestdb.sandbox.source import REAL_TICKERS, load_real_prices
from backtestdb.schema import ensure_schema
from market_runs import make_database, make_source, run_backfill
from market_setup import CALENDAR, sessions_of
from planted_defects import add_split
from sandbox_process import running_sandbox

FIRST, LAST = "2000-03-01", "2013-03-01"
SPLITS = [("AAPL", "2000-06-21"), ("AAPL", "2005-02-28"), ("MSFT", "2003-02-18")]
AFTER_LAST = datetime(2013, 3, 2, 12, tzinfo=UTC)


def audit_file(path: Path, now_utc: datetime) -> AuditResult:
    with closing(connect(path, read_only=True)) as connection:
        return audit(connection, load_known(connection, CALENDAR, now_utc), accepted=Accepted())


def test_real_daily_bars_with_their_five_minute_bars_raise_no_alarm(tmp_path: Path) -> None:
    """12,154 public bars of AAPL, MSFT, IBM, GOOG and FB with three splits, two crashes, the flash
    crash of 2010 and a half day; the sandbox adds the bars before them that the metrics need, and
    makes their 5-minute bars."""
    database = make_database(tmp_path / "real", real=REAL_TICKERS)
    with running_sandbox(today="2013-03-01") as sandbox:
        source = make_source(tmp_path / "real", sandbox.url, "2013-03-01")
        run_backfill(source, database, FIRST, LAST, "real")
        run_backfill(source, database, "2012-10-15", "2012-12-05", "real", timeframe="5min")
    result = audit_file(database, AFTER_LAST)
    assert result.findings == []
    assert result.metrics == 12_154
    assert result.day_bars >= 12_154
    assert result.minute_bars > 5 * 33 * 78


@pytest.mark.parametrize("listed", [True, False])
def test_real_splits_show_when_the_prices_before_them_are_those_of_the_day(
    tmp_path: Path, listed: bool
) -> None:
    """The source as it was traded: AAPL 2000-06-21 and 2005-02-28, MSFT 2003-02-18, each 2:1."""
    sessions = sessions_of(FIRST, LAST)
    real = load_real_prices()
    with closing(connect(tmp_path / "raw.db", create=True)) as connection:
        ensure_schema(connection)
        for ticker in ("AAPL", "MSFT", "IBM"):
            columns = dict(
                zip(("open", "high", "low", "close", "volume"), real[ticker].columns, strict=True)
            )
            bars = pd.DataFrame({"ticker": ticker, "date": [day.isoformat() for day in sessions]})
            bars["timestamp"] = [midnight_ms(day) for day in sessions]
            bars = bars.assign(**columns).astype({"volume": "int64"})
            with transaction(connection):
                save_day_bars(connection, bars)
                save_metric_rows(connection, bars)
        for ticker, day in SPLITS if listed else ():
            add_split(connection, ticker, day, 1, 2)
    result = audit_file(tmp_path / "raw.db", AFTER_LAST)
    rule = "split-not-applied" if listed else "split-like-jump"
    found = [each for each in result.findings if each.rule != "orphan-rows"]
    assert {each.rule for each in found} == {rule}
    assert sum(each.sessions for each in found) == 3
    assert {(each.ticker, each.first_session) for each in found} == {SPLITS[0], SPLITS[2]}


def test_market_of_the_sandbox_with_thin_new_gone_and_renamed_tickers_raises_no_alarm(
    tmp_path: Path,
) -> None:
    """META changes its company in the time before, which the metrics need; years not asked for are
    no hole."""
    with running_sandbox("--tickers", "150", today="2026-11-21") as sandbox:
        answer = sandbox.get("/v3/reference/tickers", market="stocks", limit=1000).json()
        tickers = [row["ticker"] for row in answer["results"] if row["type"] != "ETF"]
        database = make_database(tmp_path, everyone=[*tickers, "ANSS", "PARA"])
        source = make_source(tmp_path, sandbox.url, "2026-11-21")
        for start, end in (("2022-05-02", "2022-07-29"), ("2026-10-01", "2026-11-20")):
            run_backfill(source, database, start, end, "everyone", staged_from_bars=0)
        run_backfill(source, database, "2026-11-20", "2026-11-20", "everyone", timeframe="5min")
    result = audit_file(database, datetime(2026, 11, 21, 12, tzinfo=UTC))
    assert result.findings == []
    assert result.tickers > 140
    assert result.minute_bars > 10_000
