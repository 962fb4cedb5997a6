"""What a snapshot promises beside the copying itself: space, privacy, deadlines, and what it tells
of its source."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups import snapshot
from backtestdb.backups.snapshot import (
    copy_everything,
    copy_irreplaceable_tables,
    deadline,
    has_waiting_writers,
    pinned_source,
    read_facts,
    verify_source,
    with_contents,
)
from backtestdb.database import connect
from backtestdb.errors import BusyError, DatabaseFileError, SpaceError
from backtestdb.newer_sqlite import load_writer_version
from schema_text import NEWER_VERSION, NEWER_VIEW, make_too_new
from small_disk import leave_free

SCHEMA = """
PRAGMA synchronous = OFF;
BEGIN;
PRAGMA user_version = 7;
CREATE TABLE strategies (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE agents (id INTEGER PRIMARY KEY);
CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT);
CREATE VIRTUAL TABLE notes USING fts5(body);
INSERT INTO strategies (name) VALUES ('first'), ('second');
INSERT INTO ohlcv_data (ticker) VALUES ('AAPL');
INSERT INTO notes VALUES ('momentum breaks out');
COMMIT;
"""
SPARE_BYTES = 1 << 20
# 100,000 steps of SQLite take less than a hundredth of a second; this takes several times as many.
MANY_STEPS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
    " SELECT max(i) FROM n"
)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return make_live(tmp_path / "live.db")


def make_live(path: Path, journal: str = "DELETE") -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.executescript(SCHEMA)
    return path


def rows_of(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def count_open_files() -> int:
    return len([*Path("/dev/fd").iterdir()])


# ── the source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no database at"),
        (b"", "is an empty file"),
        (b"no database" * 100, "is not a database, or damaged beyond reading"),
    ],
)
def test_source_that_is_no_database_is_refused_with_the_way_back(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "live.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatabaseFileError, match=message) as refused:
        verify_source(path)
    assert "make restore" in refused.value.next_step


def test_source_that_is_a_database_is_taken_a_newer_sqlite_or_not(live: Path) -> None:
    verify_source(live)
    make_too_new(live)
    verify_source(live)


def test_source_without_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
    with pytest.raises(DatabaseFileError, match="holds no table"), pinned_source(path):
        pass


def test_pinned_source_sees_one_state_whatever_is_committed_meanwhile(tmp_path: Path) -> None:
    live = make_live(tmp_path / "live.db", "WAL")
    with pinned_source(live) as source:
        with closing(sqlite3.connect(live)) as other, other:
            other.execute("DELETE FROM strategies")
        assert source.execute("SELECT count(*) FROM strategies").fetchone() == (2,)
        assert source.execute("PRAGMA foreign_keys").fetchone() == (0,)


def test_fresh_file_beside_a_pinned_source_is_new_private_and_not_protected(
    live: Path, tmp_path: Path
) -> None:
    fresh = make_live(tmp_path / "fresh.db")
    fresh.chmod(0o644)
    Path(f"{fresh}-journal").write_bytes(b"of an earlier run")
    old = fresh.stat().st_ino
    keep = fresh.open("rb")  # so that the number of the file is not given to the next
    with keep, pinned_source(live, fresh=fresh) as source:
        assert fresh.stat().st_ino != old
        assert fresh.stat().st_mode & 0o777 == 0o600
        assert not Path(f"{fresh}-journal").exists()
        assert source.execute("PRAGMA fresh.journal_mode").fetchone() == ("off",)
        assert source.execute("PRAGMA fresh.synchronous").fetchone() == (0,)
        assert source.execute("SELECT count(*) FROM fresh.sqlite_schema").fetchone() == (0,)


# ── a copy of everything


@pytest.mark.parametrize("large_bytes", [0, 1 << 40])
def test_copy_of_everything_is_private_and_told_step_by_step(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", large_bytes)
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"of an earlier run")
    steps: list[str] = []
    opened = count_open_files()
    facts = copy_everything(live, copy, on_step=steps.append)
    assert count_open_files() == opened
    assert set(steps) == {"pinned", "copying"}
    assert copy.stat().st_mode & 0o777 == 0o600
    assert rows_of(copy, "SELECT name FROM strategies") == [("first",), ("second",)]
    assert facts.tables == sorted(facts.tables)
    assert {"agents", "notes", "notes_content", "ohlcv_data", "strategies"} <= set(facts.tables)
    assert {"strategies", "ohlcv_data", "notes_content"} <= set(facts.filled_tables)
    assert not {"agents", "notes"} & set(facts.filled_tables)


@pytest.mark.parametrize("large_bytes", [0, 1 << 40])
def test_copy_for_which_a_byte_is_missing_is_not_begun(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", large_bytes)
    needed = live.stat().st_size + SPARE_BYTES
    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError) as refused:
        copy_everything(live, tmp_path / "copy.db")
    assert refused.value.missing_bytes == 1
    assert not (tmp_path / "copy.db").exists()
    leave_free(monkeypatch, needed)
    copy_everything(live, tmp_path / "copy.db")


@pytest.mark.parametrize("large_bytes", [0, 1 << 40])
def test_copy_keeps_what_this_sqlite_cannot_read_and_who_wrote_it(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", large_bytes)
    make_too_new(live)
    copy_everything(live, tmp_path / "copy.db")
    assert load_writer_version(tmp_path / "copy.db") == NEWER_VERSION
    assert NEWER_VIEW.encode() in (tmp_path / "copy.db").read_bytes()


@pytest.mark.parametrize(
    ("journal", "more_bytes", "waiting"),
    [("DELETE", -1, True), ("DELETE", 0, True), ("DELETE", 1, False), ("WAL", -1, False)],
)
def test_writers_wait_for_a_pinned_copy_of_a_large_file_with_a_rollback_journal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    journal: str,
    more_bytes: int,
    waiting: bool,
) -> None:
    live = make_live(tmp_path / "live.db", journal)
    monkeypatch.setattr(snapshot, "LARGE_BYTES", live.stat().st_size + more_bytes)
    assert has_waiting_writers(live) is waiting


def test_copy_made_ahead_of_a_quiet_file_ends_where_its_last_page_does(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that was killed while the file grew leaves more behind than belongs to it."""
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    whole = live.read_bytes()
    live.write_bytes(whole + bytes(4096))
    an_hour_ago = time.time() - 3600
    os.utime(live, (an_hour_ago, an_hour_ago))
    facts = copy_everything(live, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == whole
    assert "strategies" in facts.filled_tables


def test_copy_made_ahead_of_a_file_that_becomes_wal_meanwhile_is_given_up(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)

    def change_journal(step: str) -> None:
        if step == "copying":
            assert rows_of(live, "PRAGMA journal_mode = WAL") == [("wal",)]

    with pytest.raises(BusyError, match="changed its journal mode during the copy"):
        copy_everything(live, tmp_path / "copy.db", on_step=change_journal)


def test_copy_that_no_round_can_patch_is_given_up_after_the_last(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LARGE_BYTES", 0)
    rounds: list[bool] = []
    limits: list[object] = []
    copy_ahead = snapshot.copy_ahead

    def copy_and_note(live: int, copy: int, *, hash_blocks: bool, **values: object) -> list[bytes]:
        rounds.append(hash_blocks)
        return copy_ahead(live, copy, hash_blocks=hash_blocks, **values)  # type: ignore[arg-type]

    def give_up(*_values: object, limit_seconds: float, **_others: object) -> None:
        limits.append(limit_seconds)

    monkeypatch.setattr(snapshot, "copy_ahead", copy_and_note)
    monkeypatch.setattr(snapshot, "patch_changed_blocks", give_up)
    with (
        pytest.raises(BusyError, match="copying the database was given up after 600 s"),
        closing(sqlite3.connect(live)) as other,
    ):

        def commit(step: str) -> None:
            if step == "copying":
                other.execute("UPDATE strategies SET name = name || '!'")
                other.commit()

        copy_everything(live, tmp_path / "copy.db", deadline_seconds=600, on_step=commit)
    assert rounds == [False] + [True] * (snapshot.ROUNDS - 1)
    assert limits == [snapshot.LOCKED_SECONDS] * (snapshot.ROUNDS - 1) + [600]


# ── a copy of the irreplaceable tables


def test_small_copy_holds_the_irreplaceable_tables_and_the_numbers_of_the_header(
    live: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh.db"
    with pinned_source(live, fresh=fresh) as source:
        facts = copy_irreplaceable_tables(source, fresh, expected_bytes=0)
        assert not source.in_transaction
        assert [row[1] for row in source.execute("PRAGMA database_list")] == ["main"]
    assert rows_of(fresh, "SELECT name FROM strategies") == [("first",), ("second",)]
    assert rows_of(fresh, "PRAGMA user_version") == [(7,)]
    assert rows_of(fresh, "SELECT count(*) FROM sqlite_schema WHERE name = 'ohlcv_data'") == [(0,)]
    assert "ohlcv_data" not in facts.tables
    assert "strategies" in facts.filled_tables

    complete = with_contents(facts, fresh)
    assert complete.contents is not None
    assert complete.contents.structure == facts.structure != ""
    assert "strategies" in complete.contents.tables
    assert complete.tables == facts.tables


def test_small_copy_for_which_a_byte_is_missing_is_not_begun(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = tmp_path / "fresh.db"
    leave_free(monkeypatch, 5000 + SPARE_BYTES - 1)
    with pinned_source(live, fresh=fresh) as source, pytest.raises(SpaceError) as refused:
        copy_irreplaceable_tables(source, fresh, expected_bytes=5000)
    assert refused.value.missing_bytes == 1


def test_small_copy_keeps_the_version_of_a_newer_sqlite(live: Path, tmp_path: Path) -> None:
    make_too_new(live)
    fresh = tmp_path / "fresh.db"
    with pinned_source(live, fresh=fresh) as source:
        copy_irreplaceable_tables(source, fresh, expected_bytes=0)
    assert load_writer_version(fresh) == NEWER_VERSION


# ── what it stands on


@pytest.fixture
def connection(live: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(live)) as opened:
        yield opened


def test_statements_after_the_deadline_are_given_up_and_those_behind_it_are_not(
    connection: sqlite3.Connection,
) -> None:
    with (
        pytest.raises(BusyError, match="copying was given up after -1 s"),
        deadline(connection, -1, "copying"),
    ):
        connection.execute(MANY_STEPS).fetchone()
    assert connection.execute(MANY_STEPS).fetchone() == (100_000,)
    with deadline(connection, 600, "copying"):
        assert connection.execute(MANY_STEPS).fetchone() == (100_000,)


def read_what_is_not_there(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT * FROM missing")


def fill_the_disk(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1")
    connection.execute("INSERT INTO strategies (name) VALUES (zeroblob(1000000))")


@pytest.mark.parametrize(
    ("work", "message"), [(read_what_is_not_there, "no such table"), (fill_the_disk, "full")]
)
def test_another_error_within_the_deadline_stays_what_it_is(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], None], message: str
) -> None:
    with (
        pytest.raises(sqlite3.OperationalError, match=message),
        deadline(connection, 600, "copying"),
    ):
        work(connection)


def test_facts_are_those_of_the_named_tables(connection: sqlite3.Connection) -> None:
    facts = read_facts(connection, ["strategies", "notes", "agents"], "structure")
    assert facts.tables == ["agents", "notes", "strategies"]
    assert facts.filled_tables == ["strategies"]
    assert facts.structure == "structure"
