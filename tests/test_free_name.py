"""Names that are given to a new database only while they are free, and taken from what is none."""

import errno
import os
import sqlite3
import time
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb import free_name
from backtestdb.errors import BusyError, VerificationError
from backtestdb.free_name import (
    NameTakenError,
    can_be_locked,
    choose_kept_name,
    companions_of,
    find_unfinished_move,
    held_by_nobody,
    link_or_reserve,
    move_aside,
    move_stray_companions,
    take_free_name,
    take_lock,
)
from holder import running_holder
from schema_text import NEWER_VIEW, add_newer_view

NOW = datetime(2026, 11, 23, 2).astimezone()
KEPT = "live.db.backup-2026-11-23-020000"
# Holds one byte of those that SQLite locks, until it is told to end.
# Holds one byte of a file.
HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def make_database(path: Path, rows: int = 3) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE agents (id INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO agents VALUES (?)", [(n,) for n in range(rows)])
    return path


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_companions_are_those_that_are_there_dangling_links_too(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    assert companions_of(live) == []
    (tmp_path / "live.db-wal").touch()
    (tmp_path / "live.db-journal").symlink_to("nowhere")
    assert [path.name for path in companions_of(live)] == ["live.db-wal", "live.db-journal"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_kept_name_has_nothing_beside_it(tmp_path: Path, suffix: str) -> None:
    assert choose_kept_name(tmp_path / "live.db", NOW).name == KEPT
    (tmp_path / (KEPT + suffix)).touch()
    assert choose_kept_name(tmp_path / "live.db", NOW).name == KEPT.replace("0000", "0001")


def test_move_aside_takes_what_lies_beside_it_along(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    for suffix in ("", "-wal", "-shm", "-journal"):
        (tmp_path / f"live.db{suffix}").write_text(suffix)
    assert move_aside(live, tmp_path / KEPT, timeout_seconds=600) == tmp_path / KEPT
    assert names_in(tmp_path) == {KEPT + suffix for suffix in ("", "-wal", "-shm", "-journal")}
    assert (tmp_path / f"{KEPT}-wal").read_text() == "-wal"


def test_move_that_a_kill_broke_off_is_ended_under_its_name(tmp_path: Path) -> None:
    live, earlier = tmp_path / "live.db", tmp_path / "live.db.backup-2026-11-22-020000"
    live.write_text("damaged")
    (tmp_path / f"{earlier.name}-wal").touch()
    assert move_aside(live, tmp_path / KEPT, timeout_seconds=600) == earlier
    assert names_in(tmp_path) == {earlier.name, f"{earlier.name}-wal"}


@pytest.mark.parametrize(
    ("names", "unfinished"),
    [
        ([], None),
        ([KEPT], None),
        ([KEPT, f"{KEPT}-wal"], None),
        ([f"{KEPT}-shm"], KEPT),
        (["other.db.backup-2026-11-23-020000-wal"], None),
        (["live.db-wal"], None),
    ],
)
def test_unfinished_move_is_a_log_without_its_file(
    tmp_path: Path, names: list[str], unfinished: str | None
) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = find_unfinished_move(tmp_path / "live.db")
    assert found == (tmp_path / unfinished if unfinished else None)


# https://www.sqlite.org/src/file/src/os.h: PENDING_BYTE, and the last of the SHARED_SIZE.
@pytest.mark.parametrize("byte", [0x40000000, 0x40000000 + 2 + 510 - 1])
def test_file_with_a_locked_byte_is_not_moved(tmp_path: Path, byte: int) -> None:
    live = tmp_path / "live.db"
    live.write_text("damaged")
    with running_holder(HOLDER, live, byte), live.open("r+b") as file:
        assert not take_lock(file.fileno())
    with live.open("r+b") as file:
        assert take_lock(file.fileno())
    assert live.read_text() == "damaged"


@pytest.mark.parametrize("byte", [0x40000000 - 1, 0x40000000 + 2 + 510])
def test_file_that_is_only_open_is_not_moved_and_its_holder_is_named(
    tmp_path: Path, byte: int
) -> None:
    """The byte is none of those that SQLite locks."""
    live = tmp_path / "live.db"
    live.write_text("damaged")
    with running_holder(HOLDER, live, byte) as holder:
        with live.open("r+b") as file:
            assert take_lock(file.fileno())
        with (
            pytest.raises(BusyError, match=rf"\({holder.pid}\) has it open"),
            held_by_nobody(live, -1),
        ):
            pass
    assert names_in(tmp_path) == {"live.db"}


def test_free_name_is_given_to_the_file_that_arrived(tmp_path: Path) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    inode = arriving.stat().st_ino
    take_free_name(arriving, live)
    assert live.stat().st_ino == inode
    assert names_in(tmp_path) == {"live.db"}
    with closing(sqlite3.connect(live, timeout=0)) as database:
        database.execute("INSERT INTO agents VALUES (77)")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_name_that_is_not_free_is_not_taken(tmp_path: Path, suffix: str) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    taken = tmp_path / f"live.db{suffix}"
    taken.write_bytes(b"of the platform")
    with pytest.raises(NameTakenError):
        take_free_name(arriving, live)
    assert taken.read_bytes() == b"of the platform"
    assert names_in(tmp_path) == {"live.db.arriving", taken.name}


def test_name_beside_a_log_is_not_taken_even_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    (tmp_path / "live.db-wal").write_bytes(b"of the platform")
    linked: list[Path] = []
    monkeypatch.setattr(free_name, "link_or_reserve", lambda _source, target: linked.append(target))
    with pytest.raises(NameTakenError):
        take_free_name(arriving, live)
    assert linked == []


def test_name_beside_which_a_log_appeared_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"

    def link_late(source: Path, target: Path) -> None:
        link_or_reserve(source, target)
        (tmp_path / "live.db-wal").write_bytes(b"of the platform")

    monkeypatch.setattr(free_name, "link_or_reserve", link_late)
    with pytest.raises(NameTakenError):
        take_free_name(arriving, live)
    assert names_in(tmp_path) == {"live.db.arriving", "live.db-wal"}


@pytest.mark.parametrize(
    ("rows", "reason"), [(2, "table agents has 2 rows instead of 3"), (3, "it is another file")]
)
def test_name_under_which_something_else_stands_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, reason: str
) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    monkeypatch.setattr(
        free_name, "link_or_reserve", lambda _source, target: make_database(target, rows)
    )
    with pytest.raises(VerificationError, match=reason):
        take_free_name(arriving, live)
    assert arriving.exists()


@pytest.mark.parametrize("is_taken", [False, True])
def test_name_is_reserved_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    live = tmp_path / "live.db"
    if is_taken:
        live.write_bytes(b"of the platform")

    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(NameTakenError):
        link_or_reserve(tmp_path / "live.db.arriving", live)
    assert live.read_bytes() == (b"of the platform" if is_taken else b"")
    if not is_taken:
        assert live.stat().st_mode & 0o777 == 0o600


def test_disk_that_refuses_the_name_is_an_error_and_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        link_or_reserve(tmp_path / "live.db.arriving", tmp_path / "live.db")
    assert names_in(tmp_path) == set()


def test_stray_log_goes_under_a_name_that_no_database_has(tmp_path: Path) -> None:
    (tmp_path / "live.db-wal").write_text("wal")
    (tmp_path / "live.db-journal").write_text("journal")
    move_stray_companions(tmp_path / "live.db", tmp_path / KEPT)
    stray = "live.db.stray-2026-11-23-020000"
    assert names_in(tmp_path) == {f"{stray}-wal", f"{stray}-journal"}
    assert (tmp_path / f"{stray}-wal").read_text() == "wal"


@pytest.mark.parametrize(
    ("offset", "value", "is_known"),
    [
        (0, 0, False),
        (18, 0, False),
        (18, 3, False),
        (19, 0, False),
        (19, 3, False),
        (44, 1, False),
        (47, 1, True),
        (47, 4, True),
        (47, 5, False),
        (56, 1, False),
        (59, 3, True),
        (59, 4, False),
    ],
)
def test_database_of_an_unknown_format_cannot_be_locked(
    tmp_path: Path, offset: int, value: int, is_known: bool
) -> None:
    content = bytearray(make_database(tmp_path / "whole.db").read_bytes())
    content[offset] = value
    live = tmp_path / "live.db"
    live.write_bytes(content)
    assert can_be_locked(live) == is_known


@pytest.mark.parametrize("pragma", ["journal_mode = WAL", "auto_vacuum = FULL"])
def test_database_in_each_mode_can_be_locked(tmp_path: Path, pragma: str) -> None:
    with closing(sqlite3.connect(tmp_path / "live.db")) as database:
        database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE agents (id INTEGER PRIMARY KEY)")
    assert can_be_locked(tmp_path / "live.db")


@pytest.mark.parametrize("size", [0, 16, 99])
def test_file_shorter_than_a_header_cannot_be_locked(tmp_path: Path, size: int) -> None:
    live = tmp_path / "live.db"
    live.write_bytes(make_database(tmp_path / "whole.db").read_bytes()[:size])
    assert not can_be_locked(live)


def test_database_in_use_is_one_that_can_be_locked_and_is_left_as_it_is(tmp_path: Path) -> None:
    live = make_database(tmp_path / "live.db")
    before = live.read_bytes()
    assert can_be_locked(live)
    with closing(sqlite3.connect(live)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert can_be_locked(live)
    assert live.read_bytes() == before


def test_database_whose_header_sqlite_refuses_cannot_be_locked(tmp_path: Path) -> None:
    content = bytearray(make_database(tmp_path / "whole.db").read_bytes())
    content[16:18] = b"\x00\x03"  # a page size that is no power of two
    live = tmp_path / "live.db"
    live.write_bytes(content)
    assert not can_be_locked(live)


# ── what happens in between


def test_file_is_moved_as_soon_as_its_holder_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live.db"
    live.write_text("damaged")
    pauses: list[float] = []
    with ExitStack() as held:
        held.enter_context(running_holder(HOLDER, live, 0x40000000))

        def let_go(seconds: float) -> None:
            pauses.append(seconds)
            held.close()

        clock = SimpleNamespace(sleep=let_go, monotonic=time.monotonic)
        monkeypatch.setattr(free_name, "time", clock)
        with held_by_nobody(live, 600):
            assert len(pauses) == 1
            assert pauses[0] > 0


def test_every_change_of_a_name_is_flushed_before_anything_else_goes_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves is then one of the states that the next run knows."""
    seen: list[set[str]] = []
    monkeypatch.setattr(free_name, "fsync_directory", lambda folder: seen.append(names_in(folder)))
    live = tmp_path / "live.db"
    live.write_text("damaged")
    move_aside(live, tmp_path / KEPT, timeout_seconds=600)
    assert seen == [{KEPT}]

    (tmp_path / "live.db-wal").write_text("wal")
    move_stray_companions(live, tmp_path / KEPT)
    assert seen[1:] == [{KEPT, "live.db.stray-2026-11-23-020000-wal"}]

    arriving = make_database(tmp_path / "live.db.arriving")
    before = names_in(tmp_path)
    take_free_name(arriving, live)
    assert seen[2:] == [before | {"live.db"}]


def test_free_name_cannot_be_written_to_until_it_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    tried: list[str] = []

    def write(_folder: Path) -> None:
        with closing(sqlite3.connect(live, timeout=0)) as other:
            try:
                other.execute("INSERT INTO agents VALUES (77)")
            except sqlite3.OperationalError as error:
                tried.append(str(error))

    monkeypatch.setattr(free_name, "fsync_directory", write)
    take_free_name(arriving, live)
    assert tried == ["database is locked"]


def test_free_name_is_given_to_a_database_that_a_newer_sqlite_wrote(tmp_path: Path) -> None:
    arriving, live = make_database(tmp_path / "live.db.arriving"), tmp_path / "live.db"
    add_newer_view(arriving)
    assert can_be_locked(arriving)
    take_free_name(arriving, live)
    assert NEWER_VIEW.encode() in live.read_bytes()
