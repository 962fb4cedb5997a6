"""Snapshots of a database that another process writes to without a pause."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups import snapshot
from backtestdb.backups.precopy import BLOCK_BYTES
from backtestdb.backups.snapshot import copy_everything
from backtestdb.database import connect, verify_integrity
from backtestdb.errors import BusyError
from backtestdb.pinned_copy import copy_pinned
from backup_tools import BYTES_PER_BAR, make_platform_database
from writers import read_counters, running_writer

MB = 1_000_000


def make_filled(path: Path, journal: str, size: int) -> Path:
    make_platform_database(path, bars=size // BYTES_PER_BAR, journal=journal)
    return path


def snapshot_under_writer(
    folder: Path, journal: str, size: int, pause_seconds: float
) -> tuple[float, list[str]]:
    """Return the slowest commit in milliseconds, and the steps of the copy."""
    live = make_filled(folder / "live.db", journal, size)
    steps: list[str] = []
    with running_writer(live, pause_seconds=pause_seconds) as writer:
        copy_everything(live, folder / "copy.db", on_step=steps.append)
        writer.terminate()
        assert writer.stdout
        slowest = float(writer.stdout.read().split()[1])
    one, two = read_counters(folder / "copy.db")
    assert one == two, "not one committed state"
    with closing(connect(folder / "copy.db")) as copy:
        verify_integrity(copy)
    return slowest, steps


@pytest.mark.parametrize("pause_seconds", [0.005, 0.05])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("large_bytes", [0, 1 << 40])
def test_snapshot_under_a_writer_is_one_committed_state(
    tmp_path: Path,
    journal: str,
    pause_seconds: float,
    large_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", large_bytes)
    snapshot_under_writer(tmp_path, journal, 8 * MB, pause_seconds)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pause_seconds", [0.005, 0.05])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("size", [43 * MB, 1000 * MB])
def test_snapshot_under_a_writer_is_copied_once(
    tmp_path: Path, journal: str, size: int, pause_seconds: float
) -> None:
    """How long a commit waits is for benchmarks/bench_writers.py: a busy machine is slow alone."""
    slowest, steps = snapshot_under_writer(tmp_path, journal, size, pause_seconds)
    real = (tmp_path / "copy.db").stat().st_size
    print(
        f"{journal} {real / MB:.0f} MB, a commit every {pause_seconds} s: slowest {slowest:.0f} ms"
    )
    assert steps.count("copying") <= real // (BLOCK_BYTES * 4) + 10, "the copy began again"


def test_snapshot_with_a_deadline_in_the_past_is_given_up(tmp_path: Path) -> None:
    live = make_filled(tmp_path / "live.db", "DELETE", 20 * MB)
    with closing(connect(live)) as source, pytest.raises(BusyError, match="it took too long"):
        copy_pinned(source, tmp_path / "copy.db", deadline_seconds=-1)


def test_snapshot_keeps_its_lock_until_it_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor of the live file that is closed too early would drop SQLite's lock."""
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    live = make_filled(tmp_path / "live.db", "DELETE", MB)

    def try_to_write(step: str) -> None:
        if step == "pinned":
            with (
                closing(sqlite3.connect(live, timeout=0)) as other,
                pytest.raises(sqlite3.OperationalError),
            ):
                other.executescript("BEGIN IMMEDIATE; DELETE FROM strategies; COMMIT")

    facts = copy_everything(live, tmp_path / "copy.db", on_step=try_to_write)
    assert "strategies" in facts.filled_tables
    assert (tmp_path / "copy.db").read_bytes() == live.read_bytes()


def test_snapshot_holds_what_was_committed_while_it_was_copied_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    live = make_filled(tmp_path / "live.db", "DELETE", 4 * MB)
    commits = 0

    def commit(step: str) -> None:
        nonlocal commits
        if step == "copying":
            with closing(connect(live)) as other:
                other.execute("UPDATE strategies SET name = name || '!'")
                other.execute("DELETE FROM ohlcv_data WHERE id % 50 = ?", (commits,))
            commits += 1

    copy_everything(live, tmp_path / "copy.db", on_step=commit)
    assert commits > 1
    assert (tmp_path / "copy.db").read_bytes() == live.read_bytes()


def test_snapshot_whose_first_patching_takes_too_long_is_patched_by_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    monkeypatch.setattr(snapshot, "LOCKED_SECONDS", -1.0)
    live = make_filled(tmp_path / "live.db", "DELETE", 4 * MB)
    steps: list[str] = []

    def commit(step: str) -> None:
        steps.append(step)
        if step == "copying":
            with closing(connect(live)) as other:
                other.execute("UPDATE strategies SET name = name || '!'")
                other.execute("DELETE FROM ohlcv_data WHERE id % 50 = ?", (len(steps),))
        elif steps.count("pinned") == 2:
            monkeypatch.setattr(snapshot, "LOCKED_SECONDS", 600.0)

    copy_everything(live, tmp_path / "copy.db", on_step=commit)
    assert steps.count("pinned") == 2
    assert (tmp_path / "copy.db").read_bytes() == live.read_bytes()


def test_snapshot_whose_patching_takes_too_long_is_patched_to_its_end_in_the_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    monkeypatch.setattr(snapshot, "LOCKED_SECONDS", -1.0)
    live = make_filled(tmp_path / "live.db", "DELETE", MB)
    steps = ["pinned"]

    def commit(step: str) -> None:
        is_new_round = step == "copying" and steps[-1] == "pinned"
        steps.append(step)
        if is_new_round:
            with closing(connect(live)) as other:
                other.execute("UPDATE strategies SET name = name || '!'")

    copy_everything(live, tmp_path / "copy.db", on_step=commit)
    assert steps.count("pinned") == 1 + snapshot.ROUNDS
    assert (tmp_path / "copy.db").read_bytes() == live.read_bytes()
    with closing(connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT min(name GLOB '*!!!') FROM strategies").fetchone() == (1,)
