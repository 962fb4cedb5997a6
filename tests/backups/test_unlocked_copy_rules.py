"""When a copy of a database counts whose locks cannot be relied on: with files that a test changes
at a known moment, and a clock that stands still."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb import mounts
from backtestdb.backups import unlocked_copy
from backtestdb.backups.unlocked_copy import (
    cannot_be_opened,
    is_in_wal_mode,
    steady_copy,
    total_bytes,
)
from backtestdb.errors import BusyError, DatabaseFileError, SpaceError
from small_disk import leave_free

Pauses = list[float]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source.db")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """The seconds that were waited, on a clock that only waiting moves."""
    clock = StillClock()
    monkeypatch.setattr(unlocked_copy, "time", clock)
    return clock.pauses


class StillClock:
    def __init__(self) -> None:
        self.pauses: Pauses = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def make_source(path: Path, journal: str = "DELETE") -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.executescript(
            "CREATE TABLE agents (name TEXT); INSERT INTO agents VALUES ('first')"
        )
    return path


def leave_log_behind(source: Path) -> None:
    """A commit that stands in the -wal alone, as a killed writer leaves it."""
    kept = source.with_name("kept.db-wal")
    with closing(sqlite3.connect(source)) as database:
        database.execute("INSERT INTO agents VALUES ('second')")
        database.commit()
        shutil.copyfile(f"{source}-wal", kept)
        header = source.read_bytes()
    source.write_bytes(header)
    kept.rename(f"{source}-wal")


def names_of_agents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM agents ORDER BY rowid")]


def steady(source: Path, copy: Path, *, give_up_after_seconds: float = 60) -> list[str]:
    """What a steady copy holds; it is removed again."""
    with steady_copy(
        source, copy, say=lambda _text: None, give_up_after_seconds=give_up_after_seconds
    ):
        return names_of_agents(copy)


def change_while_copying(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], *, times: int = 1
) -> None:
    """Change something after each of the first copies of a file."""
    copied = 0
    copyfile = shutil.copyfile

    def copy_and_change(old: Path, new: Path) -> None:
        nonlocal copied
        copyfile(old, new)
        copied += 1
        if copied <= times:
            change()

    monkeypatch.setattr(unlocked_copy.shutil, "copyfile", copy_and_change)


# ── when SQLite has to keep off


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    ("kind", "option", "keeps_off"),
    [
        ("ext4", "rw", {"DELETE": False, "WAL": False}),
        ("ext4", "ro", {"DELETE": False, "WAL": True}),
        ("fuse.grpcfuse", "rw", {"DELETE": True, "WAL": True}),
        (None, "", {"DELETE": False, "WAL": False}),
    ],
)
def test_sqlite_keeps_off_where_there_are_no_locks_and_off_a_log_that_it_cannot_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    journal: str,
    kind: str | None,
    option: str,
    keeps_off: dict[str, bool],
) -> None:
    source = make_source(tmp_path / "source.db", journal)
    told = tmp_path / "mountinfo"
    if kind:
        told.write_text(f"22 1 0:21 / / {option},relatime - {kind} source rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", told)
    assert bool(cannot_be_opened(source)) is keeps_off[journal]
    assert is_in_wal_mode(source) is (journal == "WAL")
    assert is_in_wal_mode(tmp_path / "missing.db") is False


# ── a copy that counts


def test_steady_copy_is_private_said_and_removed_with_all_that_is_beside_it(
    source: Path, copy: Path, pauses: Pauses
) -> None:
    Path(f"{copy}-journal").write_bytes(b"of an earlier run")
    said: list[str] = []
    before = os.umask(0)
    try:
        with steady_copy(source, copy, say=said.append, give_up_after_seconds=60) as yielded:
            assert yielded == copy
            assert copy.stat().st_mode & 0o777 == 0o600
            assert not Path(f"{copy}-journal").exists()
            assert copy.read_bytes() == source.read_bytes()
            Path(f"{copy}-wal").touch()
    finally:
        os.umask(before)
    assert [path.name for path in copy.parent.iterdir()] == ["source.db"]
    assert said == [
        f"SQLite must keep off the mount of {source}: reading from a private copy that is proven "
        "first"
    ]
    assert pauses == [unlocked_copy.MTIME_STEP_SECONDS]


def test_steady_copy_holds_what_stands_only_in_the_log(tmp_path: Path, copy: Path) -> None:
    source = make_source(tmp_path / "source.db", "WAL")
    leave_log_behind(source)
    assert total_bytes(source) == source.stat().st_size + Path(f"{source}-wal").stat().st_size
    assert steady(source, copy) == ["first", "second"]


def test_log_of_an_earlier_attempt_is_not_played_into_the_copy(tmp_path: Path, copy: Path) -> None:
    """The source has emptied its log meanwhile and gone on."""
    source = make_source(tmp_path / "source.db", "WAL")
    leave_log_behind(source)
    shutil.copyfile(f"{source}-wal", f"{copy}-wal")
    with closing(sqlite3.connect(source)) as database, database:
        database.execute("UPDATE agents SET name = 'newest'")
    assert not Path(f"{source}-wal").exists()
    assert steady(source, copy) == ["newest", "newest"]


def test_source_that_is_missing_is_an_error_at_once(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(DatabaseFileError, match="there is no database at"):
        steady(tmp_path / "missing.db", copy)


def test_copy_for_which_a_byte_is_missing_is_not_begun(
    source: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the copy, and for the journal or log that its readers may need."""
    needed = 2 * source.stat().st_size
    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError) as refused:
        steady(source, copy)
    assert refused.value.missing_bytes == 1
    leave_free(monkeypatch, needed)
    assert steady(source, copy) == ["first"]


def test_source_that_holds_still_is_copied_in_the_one_attempt_that_is_always_made(
    source: Path, copy: Path
) -> None:
    assert steady(source, copy, give_up_after_seconds=-1) == ["first"]


# ── a copy that does not


@pytest.mark.parametrize("hours", [-1, 1])
def test_copy_across_a_change_is_made_again(
    source: Path, copy: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The time may also go back: the file was put there by a program that keeps times."""
    changed = source.stat().st_mtime + hours * 3600
    change_while_copying(monkeypatch, lambda: os.utime(source, (changed, changed)))
    assert steady(source, copy) == ["first"]
    step = unlocked_copy.MTIME_STEP_SECONDS
    assert pauses == [step, unlocked_copy.PAUSE_SECONDS, step]


def test_copy_across_a_log_that_is_written_from_its_beginning_again_is_made_again(
    tmp_path: Path, copy: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(tmp_path / "source.db", "WAL")
    log = Path(f"{source}-wal")
    log.write_bytes(b"one")
    change_while_copying(monkeypatch, lambda: log.write_bytes(b"two"), times=2)
    steady(source, copy)
    assert pauses.count(unlocked_copy.PAUSE_SECONDS) == 1


def test_source_that_never_holds_still_is_given_up_with_the_number_of_attempts(
    source: Path, copy: Path, pauses: Pauses
) -> None:
    Path(f"{source}-journal").write_bytes(b"a header")
    with pytest.raises(BusyError) as refused:
        steady(source, copy, give_up_after_seconds=0.9)
    attempts = 1 + len(pauses)
    assert attempts > 3
    assert f"in {attempts} attempts (last: a transaction is under way)" in str(refused.value)
    assert set(pauses) == {unlocked_copy.PAUSE_SECONDS}
    assert refused.value.next_step == unlocked_copy.ADVICE
    assert not copy.exists()


@pytest.mark.parametrize("rest", [b"", bytes(100)])
def test_journal_of_a_finished_transaction_is_not_waited_for(
    source: Path, copy: Path, pauses: Pauses, rest: bytes
) -> None:
    Path(f"{source}-journal").write_bytes(rest)
    assert steady(source, copy) == ["first"]
    assert len(pauses) == 1


def test_copy_in_which_sqlite_finds_damage_does_not_count(
    source: Path, copy: Path, pauses: Pauses
) -> None:
    content = bytearray(source.read_bytes())
    content[-4096:] = bytes(4096)  # the page of the rows
    source.write_bytes(content)
    with pytest.raises(BusyError, match=r"last: quick_check found"):
        steady(source, copy, give_up_after_seconds=0.1)
    assert pauses
