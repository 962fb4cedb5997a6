"""Snapshots of a database that another process writes to without a pause."""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups import snapshot
from backtestdb.backups.precopy import BLOCK_BYTES, copy_ahead, make_mark, patch_changed_blocks
from backtestdb.backups.snapshot import copy_everything
from backtestdb.database import connect, verify_integrity
from backtestdb.errors import BusyError
from backtestdb.pinned_copy import copy_pinned
from backup_tools import BYTES_PER_BAR, make_platform_database
from writers import read_counters, running_writer

MB = 1_000_000
LONGEST_DELAY_MS = 250


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
def test_snapshot_under_a_writer_delays_no_commit_for_long(
    tmp_path: Path, journal: str, size: int, pause_seconds: float
) -> None:
    slowest, steps = snapshot_under_writer(tmp_path, journal, size, pause_seconds)
    real = (tmp_path / "copy.db").stat().st_size
    print(
        f"{journal} {real / MB:.0f} MB, a commit every {pause_seconds} s: slowest {slowest:.0f} ms"
    )
    assert slowest <= LONGEST_DELAY_MS
    assert steps.count("copying") <= real // (BLOCK_BYTES * 4) + 10, "the copy began again"


def test_snapshot_with_a_deadline_in_the_past_is_given_up(tmp_path: Path) -> None:
    live = make_filled(tmp_path / "live.db", "DELETE", 20 * MB)
    with closing(connect(live)) as source, pytest.raises(BusyError, match="it took too long"):
        copy_pinned(source, tmp_path / "copy.db", deadline_seconds=-1)
    descriptors = [os.open(live, os.O_RDONLY), os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)]
    with pytest.raises(BusyError, match="given up"):
        copy_ahead(*descriptors, deadline_seconds=-1, on_bytes=lambda _done, _total: None)


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


@pytest.mark.parametrize("seed", range(20))
def test_settling_makes_a_torn_copy_the_same_as_its_source(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    size = chance.choice([1, BLOCK_BYTES, chance.randrange(1, 12 * BLOCK_BYTES)])
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(chance.randbytes(size + chance.choice([0, 4096])))
    torn = bytearray(source.read_bytes()[: chance.randrange(size + 1)])
    for _ in range(chance.randrange(5)):
        if torn:
            torn[chance.randrange(len(torn))] ^= 1
    target.write_bytes(torn + chance.choice([b"", bytes(BLOCK_BYTES)]))
    live, copy = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR)
    patch_changed_blocks(live, copy, size)
    assert target.read_bytes() == source.read_bytes()[:size]
    assert patch_changed_blocks(live, copy, size) == 0
    for descriptor in (live, copy):
        os.close(descriptor)


@pytest.mark.parametrize("seed", range(20))
def test_patching_by_hashes_writes_the_blocks_that_changed_since_they_were_copied(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    source, target = tmp_path / "source", tmp_path / "target"
    size = chance.choice([1, BLOCK_BYTES, 4 * BLOCK_BYTES, chance.randrange(1, 12 * BLOCK_BYTES)])
    before = chance.randbytes(size)
    source.write_bytes(before)
    live, copy = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
    hashes = copy_ahead(
        live, copy, deadline_seconds=60, on_bytes=lambda _done, _total: None, hash_blocks=True
    )
    assert target.read_bytes() == before
    assert patch_changed_blocks(live, copy, size, hashes=hashes) == 0

    after = bytearray(before) + chance.randbytes(chance.choice([0, 4096, 2 * BLOCK_BYTES]))
    for _ in range(chance.randrange(5)):
        after[chance.randrange(len(after))] ^= 1
    end = chance.randrange(1, len(after) + 1) if seed % 3 == 0 else len(after)
    source.write_bytes(after)
    changed = sum(
        after[start : min(start + BLOCK_BYTES, end)] != before[start : start + BLOCK_BYTES]
        for start in range(0, end, BLOCK_BYTES)
    )
    assert patch_changed_blocks(live, copy, end, hashes=hashes) == changed
    assert target.read_bytes() == after[:end]
    for descriptor in (live, copy):
        os.close(descriptor)


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


def test_mark_of_a_database_proves_nothing_after_a_commit_or_a_page_written_before_one(
    tmp_path: Path,
) -> None:
    live = make_filled(tmp_path / "live.db", "DELETE", MB)
    os.utime(live, (1_700_000_000, 1_700_000_000))
    descriptor = os.open(live, os.O_RDONLY)
    before = make_mark(descriptor)
    assert before.proves_unchanged(make_mark(descriptor))
    with closing(sqlite3.connect(live, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.execute("UPDATE ohlcv_data SET volume = volume + 1")
        assert not before.proves_unchanged(make_mark(descriptor)), (
            "pages were written before the commit"
        )
        other.execute("ROLLBACK")
        assert not before.proves_unchanged(make_mark(descriptor))
        other.execute("UPDATE strategies SET name = 'other'")
    assert not before.proves_unchanged(make_mark(descriptor))
    assert not make_mark(descriptor).proves_unchanged(make_mark(descriptor)), (
        "the change is too young to tell"
    )
    os.close(descriptor)


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
