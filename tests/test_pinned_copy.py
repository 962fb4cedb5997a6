"""A copy through one pinned read transaction."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect
from backtestdb.errors import BusyError
from backtestdb.newer_sqlite import load_writer_version, sqlite_version_number
from backtestdb.pinned_copy import PAGES_PER_STEP, copy_pinned, make_step_watch
from schema_text import NEWER_VERSION, NEWER_VIEW, add_newer_view

PAGE_BYTES = 4096


def make_large(path: Path) -> Path:
    """A database of three steps."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        size = PAGE_BYTES * PAGES_PER_STEP * 5 // 2
        database.execute(f"CREATE TABLE chart AS SELECT zeroblob({size}) AS image")
    return path


def make_small(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE agents (name TEXT)")
    return path


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_pinned_copy_is_the_state_at_its_first_step_and_tells_each(
    tmp_path: Path, journal: str
) -> None:
    live, copy = make_large(tmp_path / "live.db"), tmp_path / "copy.db"
    copy.write_bytes(b"an older one")
    seen: list[tuple[int, int]] = []

    def commit(done: int, total: int) -> None:
        seen.append((done, total))
        if journal == "WAL":
            with closing(sqlite3.connect(live)) as other, other:
                other.execute("UPDATE chart SET image = 'other'")

    with closing(connect(live)) as source:
        source.execute(f"PRAGMA journal_mode = {journal}")
        copy_pinned(source, copy, on_step=commit)
        assert not source.in_transaction
        pages = copy.stat().st_size // PAGE_BYTES
    assert seen == [(PAGES_PER_STEP, pages), (2 * PAGES_PER_STEP, pages), (pages, pages)]
    assert copy.read_bytes()[18:20] == b"\x01\x01", "it opens on read-only media"
    with closing(sqlite3.connect(copy)) as reader:
        row = reader.execute("SELECT length(image), image = 'other' FROM chart").fetchone()
    assert row == (PAGE_BYTES * PAGES_PER_STEP * 5 // 2, 0)


def test_pinned_copy_leaves_a_transaction_of_the_caller_open(tmp_path: Path) -> None:
    live = make_large(tmp_path / "live.db")
    with closing(connect(live)) as source:
        source.execute("BEGIN")
        opened = len([*Path("/dev/fd").iterdir()])
        copy_pinned(source, tmp_path / "copy.db")
        assert source.in_transaction
        assert len([*Path("/dev/fd").iterdir()]) == opened


def test_private_copy_is_readable_by_its_owner_alone_from_its_first_step_on(
    tmp_path: Path,
) -> None:
    live, copy = make_large(tmp_path / "live.db"), tmp_path / "copy.db"
    modes: list[int] = []

    def look(_done: int, _total: int) -> None:
        modes.append(copy.stat().st_mode & 0o777)

    with closing(connect(live)) as source:
        copy_pinned(source, copy, private=True, on_step=look)
    assert [*modes, copy.stat().st_mode & 0o777] == [0o600] * 4


@pytest.mark.parametrize(
    ("code", "remaining", "reason"),
    [
        (sqlite3.SQLITE_OK, 1, "it took too long"),
        (sqlite3.SQLITE_BUSY, 0, "another program holds the database"),
        (sqlite3.SQLITE_LOCKED, 0, "another program holds the database"),
    ],
)
def test_step_after_the_deadline_is_the_last_unless_all_is_done(
    code: int, remaining: int, reason: str
) -> None:
    seen: list[tuple[int, int]] = []
    late = make_step_watch("copying", -1, lambda *numbers: seen.append(numbers))
    with pytest.raises(BusyError, match=f"copying was given up after -1 s: {reason}"):
        late(code, remaining, 5)
    assert seen == ([(4, 5)] if code == sqlite3.SQLITE_OK else [])

    late(sqlite3.SQLITE_OK, 0, 5)
    in_time = make_step_watch("copying", 600, lambda *numbers: seen.append(numbers))
    in_time(code, remaining, 5)
    assert seen.count((5, 5)) == 1


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_copy_may_be_read_by_others_unless_it_is_private(
    tmp_path: Path, private: bool, mode: int
) -> None:
    """What the user's umask takes away comes on top of that."""
    live, copy = make_small(tmp_path / "live.db"), tmp_path / "copy.db"
    before = os.umask(0)
    try:
        with closing(connect(live)) as source:
            if private:
                copy_pinned(source, copy, private=True)
            else:
                copy_pinned(source, copy)
    finally:
        os.umask(before)
    assert copy.stat().st_mode & 0o777 == mode


def test_copy_of_what_a_newer_sqlite_wrote_is_whole_and_says_who_wrote_it(tmp_path: Path) -> None:
    live, copy = make_small(tmp_path / "live.db"), tmp_path / "copy.db"
    add_newer_view(live)
    with closing(connect(live, lenient=True)) as source:
        copy_pinned(source, copy, written_by=NEWER_VERSION)
    assert NEWER_VIEW.encode() in copy.read_bytes()
    assert copy.read_bytes()[96:100] == NEWER_VERSION.to_bytes(4)


def test_copy_without_a_word_about_who_wrote_the_source_keeps_the_version_of_this_sqlite(
    tmp_path: Path,
) -> None:
    live, copy = make_small(tmp_path / "live.db"), tmp_path / "copy.db"
    with closing(connect(live)) as source:
        copy_pinned(source, copy)
    assert load_writer_version(copy) == sqlite_version_number()
