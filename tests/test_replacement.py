"""Putting new content in place of a database that other programs have open."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backtestdb import replace as replace_module
from backtestdb.database import connect
from backtestdb.errors import BusyError
from backtestdb.replace import replace_database
from writers import read_counters, running_writer


def make_database(path: Path, word: str, rows: int = 3000, journal: str = "DELETE") -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO words (word) VALUES (?)", [(f"{word} {n}",) for n in range(rows)])
        connection.execute("COMMIT")
    return path


def read_words(path: Path) -> set[str]:
    with closing(connect(path)) as connection:
        return {word.split()[0] for (word,) in connection.execute("SELECT word FROM words")}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_with_reader_connected_shows_it_the_new_content(tmp_path: Path, journal: str) -> None:
    live = make_database(tmp_path / "live.db", "old", journal=journal)
    new = make_database(tmp_path / "new.db", "new")
    with closing(connect(live)) as reader:
        assert reader.execute("SELECT word FROM words").fetchone() == ("old 0",)
        assert replace_database(live, new, tmp_path / "kept.db")
        assert reader.execute("SELECT word FROM words").fetchone() == ("new 0",)
    assert (read_words(live), read_words(tmp_path / "kept.db")) == ({"new"}, {"old"})


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_under_a_writer_loses_no_commit(tmp_path: Path, journal: str) -> None:
    live = make_database(tmp_path / "live.db", "old", journal=journal)
    new = make_database(tmp_path / "new.db", "new")
    kept = tmp_path / "kept.db"

    def carry_over(connection: sqlite3.Connection) -> None:
        for table in ("counter_one", "counter_two"):
            connection.execute(f"DROP TABLE IF EXISTS fresh.{table}")
            connection.execute(f"CREATE TABLE fresh.{table} AS SELECT * FROM main.{table}")

    with running_writer(live, pause_seconds=0.001) as writer:
        replace_database(live, new, kept, carry_over=carry_over)
        writer.terminate()
        writer.wait()
    one, two = read_counters(live)
    assert one == two
    kept_one, kept_two = read_counters(kept)
    assert kept_one == kept_two <= one
    assert read_words(live) == {"new"}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_commit_between_keeping_and_replacing_is_kept_too(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_database(tmp_path / "live.db", "old", journal=journal)
    new = make_database(tmp_path / "new.db", "new")
    into_place = replace_module.copy_into_place
    calls = 0

    def commit_first(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            with closing(connect(live)) as other:
                other.execute("UPDATE words SET word = 'late ' || id")
        into_place(*arguments)

    monkeypatch.setattr(replace_module, "copy_into_place", commit_first)
    assert replace_database(live, new, tmp_path / "kept.db")
    assert calls == 2
    assert (read_words(live), read_words(tmp_path / "kept.db")) == ({"new"}, {"late"})


def test_replacement_while_a_reader_holds_on_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    live = make_database(tmp_path / "live.db", "old")
    new = make_database(tmp_path / "new.db", "new")
    with closing(connect(live)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM words").fetchone()
        with pytest.raises(BusyError, match="another program holds the database"):
            replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0.2)
    assert read_words(live) == {"old"}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_with_other_page_size_succeeds(tmp_path: Path, journal: str) -> None:
    live = make_database(tmp_path / "live.db", "old", journal=journal)
    new = tmp_path / "new.db"
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE makes_the_size_stay (x)")
    make_database(new, "new")
    with closing(connect(live)) as reader:
        reader.execute("SELECT * FROM words").fetchone()
        replace_database(live, new, tmp_path / "kept.db")
        assert reader.execute("SELECT word FROM words").fetchone() == ("new 0",)
        expected = {"DELETE": 1024, "WAL": 4096}[journal]
        assert reader.execute("PRAGMA page_size").fetchone() == (expected,)
    assert not list(tmp_path.glob("*.arriving*"))


def test_replacement_of_a_file_that_is_no_database_keeps_it_with_its_journals(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    live.write_bytes(b"no database at all" * 500)
    (tmp_path / "live.db-wal").write_bytes(b"old log")
    new = make_database(tmp_path / "new.db", "new")
    assert not replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}
    assert (tmp_path / "kept.db").read_bytes().startswith(b"no database")
    assert (tmp_path / "kept.db-wal").read_bytes() == b"old log"


def test_replacement_of_a_missing_file_is_not_fooled_by_its_stale_journal(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    (tmp_path / "live.db-journal").write_bytes(b"stale journal")
    new = make_database(tmp_path / "new.db", "new")
    replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}
    assert not (tmp_path / "live.db-journal").exists()
