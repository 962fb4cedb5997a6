"""`make lake-metrics`: the database's own values, wherever they are computed and whoever dies;
session summaries."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from backtestdb.lake.compute import compute_metrics
from backtestdb.lake.executor import Engine, EngineError
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.market.metrics import COMPUTED_METRICS
from commands import Project
from lake_tools import BARS, NOW, make_lake_database, publish_here, read_lake

NAMES = ("ticker", "timestamp", *COMPUTED_METRICS)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 200 sessions, so that every window is full in the end."""
    return make_lake_database(
        tmp_path_factory.mktemp("metrics") / "backtesting.db", start="2025-03-03"
    )


@pytest.fixture
def store(database: Path, tmp_path: Path) -> Store:
    publish_here(database, tmp_path / "lake")
    return Store(str(tmp_path / "lake"))


def compute_here(store: Store) -> int:
    with Engine(processes=0) as engine:
        return compute_metrics(store, engine, NOW).parts


def verify_metrics(database: Path, root: Path) -> None:
    """Every row and column as the database computed it: 1e-9, NULL where that is NULL."""
    with closing(sqlite3.connect(database)) as connection:
        expected = connection.execute(
            f"SELECT {', '.join(NAMES)} FROM daily_metrics ORDER BY ticker, timestamp"
        ).fetchall()
    found = read_lake(root, "daily_metrics", " ".join(NAMES))
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    for one, other in zip(found, expected, strict=True):
        for name, mine, theirs in zip(NAMES[2:], one[2:], other[2:], strict=True):
            assert (mine is None) == (theirs is None), (name, one[:2])
            assert mine is None or math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-12), (
                name,
                one[:2],
            )
    for place in range(2, len(NAMES)):
        assert any(row[place] is not None for row in found), NAMES[place]


def test_computed_metrics_are_those_of_the_database(database: Path, store: Store) -> None:
    assert compute_here(store) > 0
    assert all(part.made_from for part in open_lake(store).parts_of("daily_metrics"))
    verify_metrics(database, Path(store.root))


def test_what_follows_its_bars_is_not_computed_again_and_is_left_by_publish(
    database: Path, store: Store
) -> None:
    compute_here(store)
    number = open_lake(store).number
    assert compute_here(store) == 0
    assert not publish_here(database, Path(store.root)).is_new
    assert open_lake(store).number == number


def test_only_parts_whose_bars_changed_are_computed_again(
    database: Path, store: Store, tmp_path: Path
) -> None:
    compute_here(store)
    changed = tmp_path / "changed.db"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(changed)) as target:
        source.backup(target)
        with target:
            target.execute(
                "UPDATE ohlcv_data SET close = close * 1.001 WHERE id = (SELECT max(id) "
                "FROM ohlcv_data WHERE ticker = 'NA' AND timeframe = '1day')"
            )
    publish_here(changed, Path(store.root))
    # Of the newest year of that bucket; the year before is as it was.
    assert compute_here(store) == 1


def test_worker_that_is_killed_costs_its_part_once_more(database: Path, tmp_path: Path) -> None:
    publish_here(database, tmp_path / "lake")
    project = Project(tmp_path, settings={"LAKE": str(tmp_path / "lake")})
    command = project.start("compute_lake_metrics.py", "--processes", "2")
    worker = wait_for_worker(command.pid)
    os.kill(worker, signal.SIGKILL)
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, err
    assert "files of metrics" in out
    verify_metrics(database, tmp_path / "lake")


def wait_for_worker(parent: int, timeout_seconds: float = 120) -> int:
    """A process of the pool that a command has started."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        for pid, ppid, what in list_processes():
            if ppid == parent and "spawn_main" in what:
                return pid
        time.sleep(0.05)
    raise AssertionError("no worker came")


def list_processes() -> Iterator[tuple[int, int, str]]:
    """Number, parent, command. A small image has no ps, and macOS has no /proc."""
    if sys.platform != "linux":
        shown = ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "command="]
        listed = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            pid, ppid, what = [*line.split(None, 2), ""][:3]
            yield int(pid), int(ppid), what
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            ppid = stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            what = stat.with_name("cmdline").read_text(errors="replace")
            yield int(stat.parent.name), int(ppid), what


def test_workers_end_when_the_command_is_killed(database: Path, tmp_path: Path) -> None:
    publish_here(database, tmp_path / "lake")
    project = Project(tmp_path, settings={"LAKE": str(tmp_path / "lake")})
    command = project.start("compute_lake_metrics.py", "--processes", "2")
    wait_for_worker(command.pid)
    command.kill()
    command.communicate(timeout=60)  # hangs for as long as a worker holds the pipe
    assert compute_here(Store(str(tmp_path / "lake"))) > 0
    verify_metrics(database, tmp_path / "lake")


def die_once(path: Path) -> str:
    """A part that takes its worker down the first time."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def die_always(path: Path) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def test_engine_gives_the_part_of_a_dead_worker_to_another_one(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abc"]
    (tmp_path / "b").touch()
    (tmp_path / "c").touch()
    with Engine(processes=1) as engine:
        assert dict(engine.run(die_once, tasks)) == {task: task.name for task in tasks}


def test_engine_gives_up_on_a_part_that_kills_every_worker(tmp_path: Path) -> None:
    with Engine(processes=1) as engine, pytest.raises(EngineError, match="died 3 times"):
        list(engine.run(die_always, [tmp_path / "a"]))


def test_cluster_that_does_not_answer_is_named() -> None:
    with (
        Engine("tcp://127.0.0.1:9") as engine,
        pytest.raises(EngineError, match="no Dask scheduler answers at ENGINE=tcp") as caught,
    ):
        list(engine.run(die_always, [Path("a")]))
    assert "dask scheduler" in caught.value.next_step


def test_session_aggregates_are_what_their_bars_say(store: Store) -> None:
    """Once more from the definitions, one number at a time; 2026-02-27 and before have no half
    day."""
    compute_here(store)
    root = Path(store.root)
    names = (
        "ticker session_date open high low close volume extended_volume bars opening_range_high "
        "opening_range_low vwap first_hour_volume last_hour_volume gap_percent"
    )
    found = {row[:2]: row[2:] for row in read_lake(root, "session_aggregates", names)}
    sessions: dict[tuple[str, date], list[tuple[Any, ...]]] = defaultdict(list)
    for row in read_lake(root, "bars_5min", f"{BARS} session_date"):
        sessions[row[0], row[7]].append(row)
    assert set(found) == set(sessions)
    before: dict[str, float] = {}
    for (ticker, day), rows in sorted(sessions.items()):
        # Winter time.
        opens = datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC).timestamp() * 1000
        closes = opens + 390 * 60_000
        regular = [row for row in rows if opens <= row[1] < closes]
        first = [row for row in regular if row[1] < opens + 30 * 60_000]
        volume = sum(row[6] for row in regular)
        expected = (
            *(
                regular[0][2],
                max(row[3] for row in regular),
                min(row[4] for row in regular),
                regular[-1][5],
            ),
            *(volume, sum(row[6] for row in rows) - volume, len(rows)),
            *(max(row[3] for row in first), min(row[4] for row in first)),
            sum((row[3] + row[4] + row[5]) / 3 * row[6] for row in regular) / volume,
            sum(row[6] for row in rows if opens <= row[1] < opens + 3_600_000),
            sum(row[6] for row in rows if closes - 3_600_000 <= row[1] < closes),
            100 * (regular[0][2] / before[ticker] - 1) if ticker in before else None,
        )
        assert (found[ticker, day][-1] is None) == (expected[-1] is None)
        assert [x or 0 for x in found[ticker, day]] == pytest.approx(
            [x or 0 for x in expected], rel=1e-9
        )
        before[ticker] = regular[-1][5]
