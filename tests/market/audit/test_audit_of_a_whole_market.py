"""Five years of 8,000 tickers: the clean market has no finding, and every planted defect is found,
in 3 minutes."""

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_market import make_market, ticker_name
from backtestdb.database import connect, transaction
from commands import Project
from planted_defects import PLANTS, Place

TICKERS, MINUTE_TICKERS, MINUTE_SESSIONS = 8_000, 65, 21
# Of the processor: a machine that does other things as well takes longer by the clock.
SECONDS_AT_MOST, BYTES_AT_MOST = 180, 1_000_000_000
BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


def measure(project: Project, what: str) -> dict[str, Any]:
    """Run the audit as a process, hold it to its limits, print what it took; return what it
    found."""
    started = time.monotonic()
    process = project.start("audit_database.py", "--json")
    _, _, usage = os.wait4(process.pid, 0)  # what it prints fits into the pipe
    process.returncode = 0  # collected already
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * BYTES_OF_MAXRSS
    assert process.stdout
    assert process.stderr
    printed, errors = process.stdout.read(), process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert "Traceback" not in errors, errors
    print(
        f"\naudit of {TICKERS:,} tickers, {what}: {time.monotonic() - started:.0f} s by the clock,"
        f" {seconds:.0f} s of the processor, {memory / 1e6:.0f} MB"
    )
    assert seconds < SECONDS_AT_MOST
    assert memory < BYTES_AT_MOST
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_planted_defect_is_found_in_a_whole_market_within_three_minutes(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    sessions = make_market(
        project.database, TICKERS, minute_tickers=MINUTE_TICKERS, minute_sessions=MINUTE_SESSIONS
    )
    assert len(sessions) == 1_254
    assert measure(project, "clean")["findings"] == []

    expected = set()
    with closing(connect(project.database)) as connection, transaction(connection):
        for number, (rule, defect) in enumerate(PLANTS.items()):
            # Every third ticker: the others lose their newest session to the defect of the whole
            # market.
            ticker = ticker_name(3 * number if defect.with_minutes else 300 + 3 * number)
            defect.put(Place(connection, ticker, sessions, MINUTE_SESSIONS))
            expected.add((rule, defect.shown_for or ticker))
    found = measure(project, f"with {len(PLANTS)} planted defects")["findings"]
    places = {(finding["rule"], finding["ticker"]) for finding in found}
    assert expected - places == set()
    companions = set().union(*(defect.companions for defect in PLANTS.values()))
    assert {rule for rule, _ in places - expected} <= companions
