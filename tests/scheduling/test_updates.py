"""Market data that keeps itself current: when an update is due, and what the schedule then does,
against the sandbox as real processes."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR, Settings, load_settings
from backtestdb.database import connect
from backtestdb.files import exclusive_lock
from backtestdb.market.sessions import (
    FINAL_AFTER_CLOSE,
    last_completed_session,
    load_calendar,
    sessions_back,
    sessions_between,
)
from backtestdb.scheduling.health import load_liveness
from backtestdb.scheduling.updates import (
    find_due_updates,
    last_update_moment,
    rebuild_lock_path,
    update_is_due,
)
from contents import query_all
from market_runs import KEY, make_database, make_source, run_backfill
from sandbox_process import SandboxOptions, SandboxProcess

NOW = datetime.now(UTC)
LAST = last_completed_session(load_calendar(), NOW)
BEFORE = sessions_back(load_calendar(), LAST, 4)
START = sessions_back(load_calendar(), LAST, 20)
SCRIPT = PROJECT_DIR / "scripts" / "run_scheduler.py"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # Thursday evening, a second too early.
        ("2026-11-20T01:44:59+00:00", "2026-11-19T01:45:00+00:00"),
        ("2026-11-20T01:45:00+00:00", "2026-11-20T01:45:00+00:00"),  # 20:45 in New York's winter
        # Monday morning: Friday's session.
        ("2026-11-23T12:00:00+00:00", "2026-11-21T01:45:00+00:00"),
        ("2026-07-02T00:45:00+00:00", "2026-07-02T00:45:00+00:00"),  # the same wall clock in summer
        # Clocks went back on the Sunday.
        ("2026-11-02T01:45:00+00:00", "2026-10-31T00:45:00+00:00"),
    ],
)
def test_update_moment_follows_the_clock_of_new_york(now: str, expected: str) -> None:
    assert last_update_moment(datetime.fromisoformat(now), 30) == datetime.fromisoformat(expected)


def test_each_session_of_ten_years_is_final_by_the_next_moment_of_an_update() -> None:
    """Half days are final earlier, holidays have no session: the light rule misses none and is
    never too early."""
    calendar = load_calendar()
    closes = calendar.schedule["close"]
    for session in sessions_between(calendar, date(2016, 1, 1), date(2025, 12, 31)):
        final = closes[str(session)].to_pydatetime() + FINAL_AFTER_CLOSE.to_pytimedelta()
        noon_after = datetime.combine(
            session + timedelta(days=1), datetime.min.time(), UTC
        ).replace(hour=12)
        moment = last_update_moment(noon_after, 0)
        assert final <= moment < noon_after
        assert last_completed_session(calendar, moment) == session
        assert update_is_due(noon_after, final - timedelta(seconds=1), 0)
        assert not update_is_due(noon_after, moment, 0)


@dataclass
class Market:
    """A database that has bars up to BEFORE, and the sandbox that has them up to LAST."""

    settings: Settings
    environment: dict[str, str]
    sandbox: SandboxProcess

    def run(self, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, SCRIPT, "--updates", *options],
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def newest(self) -> set[tuple[object, ...]]:
        query = (
            "SELECT ticker, date(max(timestamp) / 1000, 'unixepoch') FROM ohlcv_data "
            "GROUP BY ticker"
        )
        return set(query_all(self.settings.database_path, query))

    def due(self) -> list[str]:
        return [*find_due_updates(self.settings, datetime.now(UTC))]


SANDBOX = SandboxOptions("--tickers", "60", today=LAST.isoformat())


@pytest.fixture
def market(tmp_path: Path, sandbox: SandboxProcess) -> Market:
    sandbox.set_faults()
    folder = tmp_path / "live"
    database = make_database(folder, few=["AAPL", "MSFT"])
    source = make_source(folder, sandbox.url, BEFORE.isoformat())
    run_backfill(source, database, START.isoformat(), BEFORE.isoformat(), "few")
    sandbox.clear_log()
    values = {
        "BACKTEST_ENV_FILE": os.devnull,
        "DATABASE_PATH": str(database),
        "BACKUP_DIR": str(tmp_path / "backups"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "POLYGON_BASE_URL": sandbox.url,
        "POLYGON_API_KEY": KEY,
        "POLYGON_REQUESTS_PER_MINUTE": "0",
    }
    return Market(load_settings(values), os.environ | values, sandbox)


def test_scheduled_update_stores_the_sessions_that_became_final_once(market: Market) -> None:
    assert market.due() == ["update", "audit"]
    done = market.run("--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert market.newest() == {("AAPL", LAST.isoformat()), ("MSFT", LAST.isoformat())}
    assert query_all(market.settings.database_path, "SELECT through_session FROM _updates") == [
        (LAST.isoformat(),)
    ]
    assert "update of the market data ok: " in done.stdout
    assert "audit of the market data ok: 0 errors" in done.stdout
    assert not market.settings.backup_dir.exists()  # the backups' disk may be away

    market.sandbox.clear_log()
    assert market.due() == []
    assert market.run("--once").stdout == ""
    assert market.sandbox.fetch_log() == []


def test_outage_of_the_vendor_is_a_failure_with_its_reason_until_an_update_succeeds(
    market: Market,
) -> None:
    market.sandbox.set_faults({"match": "/", "kind": "gateway", "status": 404, "times": None})
    done = market.run("--once")
    assert done.returncode == 1
    liveness = load_liveness(market.settings.state_dir, market.settings.database_path)
    assert liveness is not None
    assert "update of the market data failed (exit code" in liveness.failures["update"]
    health = market.run("--newest")
    assert health.returncode == 1
    assert "update of the market data failed" in health.stdout

    market.sandbox.set_faults()
    assert market.run("--once").returncode == 0
    assert load_liveness(market.settings.state_dir, market.settings.database_path).failures == {}  # type: ignore[union-attr]


def test_update_by_hand_settles_what_the_schedule_could_not_do(market: Market) -> None:
    market.sandbox.set_faults({"match": "/", "kind": "gateway", "status": 404, "times": None})
    assert market.run("--once").returncode == 1
    market.sandbox.set_faults()
    by_hand = subprocess.run(
        [sys.executable, PROJECT_DIR / "scripts" / "update_database.py", "--json"],
        env=market.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert by_hand.returncode == 0, by_hand.stderr
    assert json.loads(by_hand.stdout)["list_failure"] == ""
    assert market.run("--once").returncode == 0
    assert market.run("--newest").stdout == "no update of the market data failed\n"
    assert load_liveness(market.settings.state_dir, market.settings.database_path).failures == {}  # type: ignore[union-attr]


def test_nothing_is_due_while_a_rebuild_runs_without_key_or_when_turned_off(market: Market) -> None:
    database = market.settings.database_path
    with exclusive_lock(rebuild_lock_path(database), "a rebuild of this database"):
        assert market.due() == []
    assert market.due() == ["update", "audit"]
    for changes in ({"POLYGON_API_KEY": ""}, {"UPDATE_DELAY_MINUTES": ""}):
        done = market.run("--once", **changes)
        assert (done.returncode, done.stdout) == (0, "")
    with closing(connect(database)) as connection:
        connection.execute("DELETE FROM ohlcv_data")
    assert market.due() == []
    database.unlink()
    assert market.due() == []


def test_list_of_us_stocks_is_fetched_anew_once_a_week_and_the_plan_says_so(market: Market) -> None:
    database, sandbox = market.settings.database_path, market.sandbox
    with closing(connect(database)) as connection:
        connection.execute(
            "UPDATE universe SET name = 'us-stocks', updated_at = '2020-01-01 00:00:00'"
        )
        connection.execute("UPDATE _coverage SET universe = 'us-stocks'")
    update = [sys.executable, str(PROJECT_DIR / "scripts" / "update_database.py")]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*update, *options], env=market.environment, capture_output=True, text=True, check=False
        )

    def lists_asked() -> int:
        return len(
            [entry for entry in sandbox.fetch_log() if "/reference/tickers" in entry["path"]]
        )

    assert "the list of us-stocks, weekly" in run("--plan").stdout
    assert sandbox.fetch_log() == []
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lists_asked() > 0
    (members,) = query_all(database, "SELECT count(*) FROM universe_stocks WHERE is_active")
    assert members[0] > 2
    sandbox.clear_log()
    assert "weekly" not in run("--plan").stdout
    assert run().returncode == 0
    assert lists_asked() == 0
