"""The container that keeps the market data current, in a real engine, beside that of the
backups."""

import json
import os
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR
from backtestdb.market.sessions import last_completed_session, load_calendar, sessions_back
from container_engine import engine_answers
from contents import query_all
from market_runs import KEY, make_database, make_source, run_backfill
from sandbox_process import running_sandbox

LAST = last_completed_session(load_calendar(), datetime.now(UTC))
BEFORE, START = (sessions_back(load_calendar(), LAST, count) for count in (1, 10))


@pytest.mark.long  # the first build of its image installs pandas
@pytest.mark.engine
@pytest.mark.skipif(
    not engine_answers(), reason="no container engine answers, or docker has no compose"
)
def test_update_service_is_healthy_and_stores_the_session_that_became_final(tmp_path: Path) -> None:
    database = make_database(tmp_path / "live", few=["AAPL", "MSFT"])
    # The sandbox listens on the host's loopback only.
    override = tmp_path / "override.yml"
    override.write_text(
        json.dumps({"services": {name: {"network_mode": "host"} for name in ("backup", "update")}})
    )
    with running_sandbox("--tickers", "60", today=LAST.isoformat()) as sandbox:
        source = make_source(tmp_path / "live", sandbox.url, BEFORE.isoformat())
        run_backfill(source, database, START.isoformat(), BEFORE.isoformat(), "few")
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            **{"BACKTEST_ENV_FILE": os.devnull, "COMPOSE_ENV_FILES": os.devnull},
            "COMPOSE_FILE": f"{PROJECT_DIR / 'docker-compose.yml'}:{override}",
            "COMPOSE_PROJECT_NAME": f"update-{uuid.uuid4().hex[:8]}",
            **{"DATABASE_PATH": str(database), "BACKUP_DIR": str(tmp_path / "backups")},
            **{
                "POLYGON_BASE_URL": sandbox.url,
                "POLYGON_API_KEY": KEY,
                "POLYGON_REQUESTS_PER_MINUTE": "0",
            },
        }

        def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, PROJECT_DIR / "scripts" / "run_compose.py", *arguments]
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )

        try:
            up = compose("up", "--detach", "--wait")
            assert up.returncode == 0, up.stderr
            deadline = time.monotonic() + 120
            while not query_all(database, "SELECT 1 FROM _updates"):
                assert time.monotonic() < deadline, compose("logs").stdout
                time.sleep(0.2)
        finally:
            down = compose("down", "--timeout", "1")
    assert down.returncode == 0
    newest = (
        "SELECT DISTINCT date(max(timestamp) / 1000, 'unixepoch') FROM ohlcv_data GROUP BY ticker"
    )
    assert query_all(database, newest) == [(LAST.isoformat(),)]
