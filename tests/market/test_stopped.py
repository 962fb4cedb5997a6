"""Tickers that stopped trading: named in report and status, with their successor where the plan
tells it."""

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from backtestdb.market.report import make_run_notes
from backtestdb.market.stopped import TickerEvent, find_successor, parse_events
from commands import Project
from contents import query_all
from market_runs import make_database, make_source, run_backfill, run_update
from sandbox_process import SandboxOptions, SandboxProcess

STOPPED = "SELECT ticker, last_bar, note FROM _stopped_tickers ORDER BY 1"
ANSS = ("ANSS", "2025-07-16", "renamed or delisted? last bar 2025-07-16")
PARA = (
    "PARA",
    "2025-08-06",
    "renamed or delisted? last bar 2025-08-06; the vendor lists it as PSKY since 2025-08-07",
)


SANDBOX = SandboxOptions("--tickers", "20", today="2025-08-29")


@pytest.fixture(autouse=True)
def quiet(sandbox: SandboxProcess) -> None:
    sandbox.set_faults()
    sandbox.clear_log()


def count_events(sandbox: SandboxProcess) -> int:
    return len([entry for entry in sandbox.fetch_log() if "/events?" in entry["path"]])


def test_ticker_that_stopped_is_named_with_its_successor_and_asked_about_once(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    database = make_database(tmp_path, mine=["IBM", "ANSS", "PARA"])
    (report,) = run_backfill(
        make_source(tmp_path, sandbox.url, "2025-08-27"),
        database,
        "2025-07-01",
        "2025-08-26",
        "mine",
    )
    assert query_all(database, STOPPED) == [ANSS, PARA]
    assert count_events(sandbox) == 2
    (note,) = [note for note in make_run_notes("mine", report.run) if "newest sessions" in note]
    assert f"ANSS ({ANSS[2]}), PARA ({PARA[2]})" in note
    assert not report.has_holes

    done = run_update(make_source(tmp_path, sandbox.url, "2025-08-29"), database, "2025-08-28")
    assert done.reports[0][2].run.stopped.keys() == {"ANSS", "PARA"}
    assert count_events(sandbox) == 2
    printed = Project(tmp_path).run("show_status.py").stdout
    assert f"stopped   PARA: {PARA[2]}" in printed


def test_plan_without_ticker_events_leaves_the_successor_unknown(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.set_faults({"match": "/events", "kind": "refusal", "status": 403, "times": None})
    database = make_database(tmp_path, mine=["IBM", "PARA"])
    source = make_source(tmp_path, sandbox.url, "2025-08-27")
    run_backfill(source, database, "2025-07-01", "2025-08-26", "mine")
    assert query_all(database, STOPPED) == [
        ("PARA", "2025-08-06", "renamed or delisted? last bar 2025-08-06")
    ]
    run_backfill(source, database, "2025-07-01", "2025-08-26", "mine")
    assert count_events(sandbox) == 1


def test_ticker_that_trades_again_is_named_no_more(tmp_path: Path, sandbox: SandboxProcess) -> None:
    database = make_database(tmp_path, mine=["IBM"])
    source = make_source(tmp_path, sandbox.url, "2025-08-27")
    run_backfill(source, database, "2025-07-01", "2025-08-25", "mine")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "INSERT INTO _stopped_tickers VALUES ('IBM', '2025-07-31', 'renamed?', NULL)"
        )
        connection.commit()
    run_backfill(source, database, "2025-07-01", "2025-08-26", "mine")
    assert query_all(database, STOPPED) == []


def test_events_of_other_shapes_are_no_successors() -> None:
    event = {"type": "ticker_change", "date": "2022-06-09", "ticker_change": {"ticker": "META"}}
    old = {**event, "date": "2012-05-18", "ticker_change": {"ticker": "FB"}}
    events = parse_events(
        {"name": "Meta", "events": [event, old, {"date": "2022"}, {"type": "other"}, None]}
    )
    assert find_successor(events, "FB", date(2022, 6, 8)) == TickerEvent(date(2022, 6, 9), "META")
    assert find_successor(events, "META", date(2024, 1, 2)) is None
    assert parse_events(None) == parse_events({"events": None}) == []
