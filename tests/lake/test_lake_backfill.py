"""`make backfill-lake`: what the flat files hold, once, whatever is killed; splits; what the API
would have given."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from backtestdb.lake.api_bars import backfill_by_api, plan_ranges
from backtestdb.lake.backfill import Filled, backfill_from_flat_files
from backtestdb.lake.coverage import count_coverage
from backtestdb.lake.flat_files import FlatFiles
from backtestdb.lake.layout import bucket_of
from backtestdb.lake.owned import load_owned
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.market.client import MarketData
from backtestdb.market.splits import parse_splits
from commands import Project
from lake_tools import BARS, read_lake
from market_setup import make_market_settings, sessions_of
from sandbox_process import SandboxProcess, fetch_rows, running_sandbox

FIRST, LAST, TODAY = "2026-10-28", "2026-11-06", "2026-11-07"
SPLIT = {"ticker": "ZAAA", "execution_date": "2026-11-04", "split_from": 1, "split_to": 4}
NEVER_HAPPENED = {
    "ticker": "ZAAB",
    "execution_date": "2026-11-03",
    "split_from": 1,
    "split_to": 3,
    "moves_prices": False,
}


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox("--tickers", "80", today=TODAY) as running:
        yield running


def make_files(sandbox: SandboxProcess) -> FlatFiles:
    keys = {
        "AWS_ACCESS_KEY_ID": sandbox.key,
        "AWS_SECRET_ACCESS_KEY": sandbox.key,
        "AWS_REGION": "us-east-1",
    }
    return FlatFiles("flatfiles", {"AWS_ENDPOINT_URL": sandbox.url, **keys})


def clock() -> datetime:
    return datetime(2026, 11, 7, 12, tzinfo=UTC)


def fill(sandbox: SandboxProcess, folder: Path, first: str = FIRST, last: str = LAST) -> Filled:
    rows = fetch_rows(sandbox, "/stocks/v1/splits", **{"execution_date.gte": FIRST})
    return backfill_from_flat_files(
        Store(str(folder / "lake")),
        make_files(sandbox),
        sessions_of(first, last),
        parse_splits(rows),
        folder / "staging",
        clock,
        processes=0,
    )


def fetch_bars(
    sandbox: SandboxProcess, ticker: str, first: str = FIRST, last: str = LAST
) -> list[tuple[Any, ...]]:
    """As the API adjusts them."""
    path = f"/v2/aggs/ticker/{ticker}/range/5/minute/{first}/{last}"
    return [
        (ticker, row["t"], row["o"], row["h"], row["l"], row["c"], round(row["v"]))
        for row in fetch_rows(sandbox, path, limit=50000)
    ]


def test_flat_files_fill_the_lake_once_with_the_bars_of_the_api(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.set_splits(SPLIT, NEVER_HAPPENED)
    done = fill(sandbox, tmp_path)
    assert (done.sessions, done.missing, done.rejected) == (8, {}, {})
    assert [split.ticker for split in done.splits] == ["ZAAA"]
    rows = read_lake(tmp_path / "lake", "bars_5min", BARS)
    assert len(rows) == done.stored
    for ticker in ("AAPL", "NA", "TRUE", "ZAAA", "ZAAB"):
        expected = fetch_bars(sandbox, ticker)
        found = [row for row in rows if row[0] == ticker]
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert one[2:] == pytest.approx(other[2:], rel=1e-12)
    sandbox.clear_log()
    again = fill(sandbox, tmp_path)
    assert (again.sessions, again.version) == (0, done.version)
    assert not [entry for entry in sandbox.fetch_log() if "flatfiles" in entry["path"]]


def test_split_after_the_backfill_changes_that_tickers_files_and_equals_a_fresh_backfill(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    fill(sandbox, tmp_path / "early", last="2026-11-03")
    before = {
        key: part.path
        for key, part in open_lake(Store(str(tmp_path / "early" / "lake"))).parts.items()
    }
    sandbox.set_splits(SPLIT, NEVER_HAPPENED)
    assert [split.ticker for split in fill(sandbox, tmp_path / "early").splits] == ["ZAAA"]
    fill(sandbox, tmp_path / "fresh")
    early, fresh = (
        open_lake(Store(str(tmp_path / name / "lake"))).parts for name in ("early", "fresh")
    )
    october = [
        key for key, path in before.items() if key.period == "2026-10" and early[key].path != path
    ]
    assert [key.bucket for key in october] == [bucket_of("ZAAA")]
    bars = [key for key in fresh if key.table == "bars_5min"]
    assert {key: early[key].content for key in bars} == {key: fresh[key].content for key in bars}


def test_session_without_a_file_is_named_and_the_others_are_stored(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    rule = {"match": "2026-11-03", "kind": "refusal", "status": 404, "times": None}
    sandbox.set_faults(rule)
    done = fill(sandbox, tmp_path)
    assert (done.sessions, list(done.missing)) == (7, [date(2026, 11, 3)])
    sandbox.set_faults()
    assert fill(sandbox, tmp_path).sessions == 1
    fresh = fill(sandbox, tmp_path / "fresh")
    assert fresh.stored == len(read_lake(tmp_path / "lake", "bars_5min", BARS))


def test_coverage_of_a_universe_adds_up(sandbox: SandboxProcess, tmp_path: Path) -> None:
    fill(sandbox, tmp_path, last="2026-11-03")
    version = open_lake(Store(str(tmp_path / "lake")))
    found = count_coverage(
        version, "u", ["AAPL", "NA", "KIMpL", "NOBODY"], sessions_of(FIRST, LAST)
    )
    traded = {
        (row[0], row[1]) for row in read_lake(tmp_path / "lake", "bars_5min", "ticker session_date")
    }
    stored = len([pair for pair in traded if pair[0] in {"AAPL", "NA", "KIMpL"}])
    assert (found.expected, found.stored, found.failed) == (32, stored, 12)
    assert found.known_empty == 20 - stored and found.rejected == 0


def test_api_fills_what_flat_files_did_not_and_as_traded_bars_are_adjusted(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.set_splits(SPLIT)
    fill(sandbox, tmp_path, first="2026-11-05")
    settings = make_market_settings(tmp_path, sandbox.url)
    client, store = MarketData(settings), Store(str(tmp_path / "lake"))
    listed = parse_splits(client.fetch_splits(date(2026, 10, 1)).rows)
    ranges = plan_ranges(
        load_owned(open_lake(store)), ["ZAAA", "NA", "NOBODY"], sessions_of(FIRST, LAST)
    )
    assert {(each.start, each.end) for each in ranges} == {(date(2026, 10, 28), date(2026, 11, 4))}
    done = backfill_by_api(store, client, 2, ranges, listed, tmp_path / "staging", clock)
    assert (done.requests, done.failures, [split.ticker for split in done.splits]) == (
        3,
        {},
        ["ZAAA"],
    )
    rows = read_lake(tmp_path / "lake", "bars_5min", BARS)
    for ticker in ("ZAAA", "NA"):
        found, expected = [row for row in rows if row[0] == ticker], fetch_bars(sandbox, ticker)
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert one[2:] == pytest.approx(other[2:], rel=1e-12)
    assert (
        plan_ranges(
            load_owned(open_lake(store)), ["ZAAA", "NA", "NOBODY"], sessions_of(FIRST, LAST)
        )
        == []
    )
    # A ticker whose sessions the lake got from the API is overtaken by the whole market's file.
    fill(sandbox, tmp_path)
    fill(sandbox, tmp_path / "fresh")
    assert read_lake(tmp_path / "lake", "bars_5min", BARS) == read_lake(
        tmp_path / "fresh" / "lake", "bars_5min", BARS
    )


def backfill_with_kills(
    sandbox: SandboxProcess, folder: Path, kills: int, seed: int, longest: float
) -> None:
    """The command as a user starts it, killed at seeded moments; in the end the lake is that of a
    run in one go."""
    settings = {
        "LAKE": str(folder / "killed"),
        "FLATFILES_ENDPOINT": sandbox.url,
        "FLATFILES_ACCESS_KEY": sandbox.key,
        "FLATFILES_SECRET": sandbox.key,
    }
    project, dice = Project(folder, sandbox.url, settings=settings), random.Random(seed)
    command = ("backfill_lake.py", "--start", FIRST, "--end", LAST)
    for _ in range(kills):
        process = project.start(*command)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=dice.random() * longest)
        process.kill()
        process.communicate()  # ends when the last worker has let go of the pipe, too
    project.check(*command)
    project.check(*command, LAKE=str(folder / "whole"))
    killed, whole = (open_lake(Store(str(folder / name))).parts for name in ("killed", "whole"))
    bars = [key for key in whole if key.table == "bars_5min"]
    assert {key: killed[key].content for key in bars} == {key: whole[key].content for key in bars}
    assert "is whole" in project.check("audit_lake.py")


def test_killed_backfills_end_as_one_that_was_not(sandbox: SandboxProcess, tmp_path: Path) -> None:
    backfill_with_kills(sandbox, tmp_path, 2, seed=5, longest=12)


@pytest.mark.long
def test_backfills_killed_thirty_times_end_as_one_that_was_not(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    backfill_with_kills(sandbox, tmp_path, 30, seed=6, longest=12)
