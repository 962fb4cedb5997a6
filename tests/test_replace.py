"""Putting new content in place of a database that other programs have open."""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from backtestdb import free_name
from backtestdb import replace as replace_module
from backtestdb.database import connect, transaction
from backtestdb.errors import BusyError, DatabaseFileError, ProjectError, VerificationError
from backtestdb.newer_sqlite import sqlite_version_number
from backtestdb.replace import (
    LEAST_ATTEMPTS,
    busy_explained,
    keep_version_in_header,
    remove_arriving,
    replace_database,
    replace_through_sqlite,
    shrink_log,
    verify_space_to_replace,
)
from holder import running_holder
from schema_text import NEWER_VIEW, add_newer_view
from small_database import pages_of, run_sql, zero
from writers import read_counters, running_writer


def make_words(path: Path, word: str, rows: int = 3000, journal: str = "DELETE") -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO words (word) VALUES (?)", [(f"{word} {n}",) for n in range(rows)]
        )
        connection.execute("COMMIT")
    return path


def read_words(path: Path) -> set[str]:
    with closing(connect(path)) as connection:
        return {word.split()[0] for (word,) in connection.execute("SELECT word FROM words")}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_with_reader_connected_shows_it_the_new_content(
    tmp_path: Path, journal: str
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
    with closing(connect(live)) as reader:
        assert reader.execute("SELECT word FROM words").fetchone() == ("old 0",)
        assert replace_database(live, new, tmp_path / "kept.db").kept_is_sound
        assert reader.execute("SELECT word FROM words").fetchone() == ("new 0",)
        log = tmp_path / "live.db-wal"
        assert (log.stat().st_size if journal == "WAL" else 0) == 0  # else as large as the file
    assert (read_words(live), read_words(tmp_path / "kept.db")) == ({"new"}, {"old"})


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_under_a_writer_loses_no_commit(tmp_path: Path, journal: str) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
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
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
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
    assert replace_database(live, new, tmp_path / "kept.db").kept_is_sound
    assert calls == 2
    assert (read_words(live), read_words(tmp_path / "kept.db")) == ({"new"}, {"late"})


def commit_before(live: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let another program commit in front of so many replacements; return what counts them."""
    into_place = replace_module.copy_into_place
    calls = [0]

    def commit_first(*arguments: Any) -> tuple[str, ...]:
        calls[0] += 1
        if calls[0] <= times:
            with closing(connect(live)) as other:
                other.execute("UPDATE words SET word = 'late ' || random()")
        return into_place(*arguments)

    monkeypatch.setattr(replace_module, "copy_into_place", commit_first)
    return calls


def test_replacement_is_tried_again_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old", rows=3)
    new = make_words(tmp_path / "new.db", "new", rows=3)
    calls = commit_before(live, monkeypatch, LEAST_ATTEMPTS + 2)
    replace_database(live, new, tmp_path / "kept.db", timeout_seconds=600)
    assert (calls[0], read_words(live)) == (LEAST_ATTEMPTS + 3, {"new"})


def test_replacement_among_commits_without_end_is_given_up_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old", rows=3)
    new = make_words(tmp_path / "new.db", "new", rows=3)
    calls = commit_before(live, monkeypatch, 1000)
    with pytest.raises(BusyError, match=rf"was written to {LEAST_ATTEMPTS} times") as caught:
        replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0)
    assert (calls[0], read_words(live), read_words(new)) == (LEAST_ATTEMPTS, {"late"}, {"new"})
    assert caught.value.next_step


@pytest.mark.parametrize(("old", "new", "needed"), [(0, 100, 100), (50, 100, 200), (100, 50, 200)])
def test_replacement_needs_room_for_the_kept_copy_the_journal_and_the_growth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: int, new: int, needed: int
) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(
        replace_module, "verify_space", lambda path, count, _what: asked.append((path, count))
    )
    target = tmp_path / "live.db"
    if old:
        target.write_bytes(b"x" * old)
    verify_space_to_replace(target, new)
    assert asked == [(tmp_path, needed)]


@pytest.mark.parametrize("content", ["no bytes", "no tables"])
def test_replacement_of_a_database_of_nothing_keeps_nothing(tmp_path: Path, content: str) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")
    live.write_bytes(b"")
    if content == "no tables":
        with closing(sqlite3.connect(live)) as connection:
            connection.execute("PRAGMA user_version = 7")
    done = replace_database(live, new, tmp_path / "kept.db")
    assert (done.kept, done.kept_is_sound) == ([], False)
    assert read_words(live) == {"new"}
    assert not (tmp_path / "kept.db").exists()


def test_copy_of_a_database_with_a_damaged_page_is_kept_as_it_is_and_not_called_sound(
    tmp_path: Path,
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")
    damaged = bytearray(live.read_bytes())
    damaged[3 * 4096 : 3 * 4096 + 8] = b"\xff" * 8
    live.write_bytes(damaged)
    done = replace_database(live, new, tmp_path / "kept.db")
    assert (done.kept, done.kept_is_sound) == ([tmp_path / "kept.db"], False)
    assert (tmp_path / "kept.db").read_bytes()[3 * 4096 :] == damaged[3 * 4096 :]
    assert read_words(live) == {"new"}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("place", [1, -1])
def test_database_with_a_lost_page_of_its_schema_is_kept_as_it_is_and_replaced(
    tmp_path: Path, journal: str, place: int
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    run_sql(live, "".join(f"CREATE TABLE more_{number} (a, b, c);" for number in range(200)))
    new = make_words(tmp_path / "new.db", "new")
    zero(live, pages_of(live, "sqlite_schema")[place])
    damaged = live.read_bytes()
    done = replace_database(live, new, tmp_path / "kept.db")
    assert (done.kept, done.kept_is_sound) == ([tmp_path / "kept.db"], False)
    assert (tmp_path / "kept.db").read_bytes()[4096:] == damaged[4096:]
    assert read_words(live) == {"new"}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("encoding", [2, 3])
def test_database_whose_header_names_another_text_encoding_is_replaced(
    tmp_path: Path, journal: str, encoding: int
) -> None:
    """One bit of 800 in the header: to SQLite it is a sound database in UTF-16."""
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
    with live.open("r+b") as file:
        file.seek(56)
        file.write(encoding.to_bytes(4))
    done = replace_database(live, new, tmp_path / "kept.db")
    assert done.kept == [tmp_path / "kept.db"]
    assert read_words(live) == {"new"}


def spoil(path: Path, chance: random.Random) -> None:
    """Change a bit of the header or a byte, zero or overwrite a page, or cut the file."""
    data = bytearray(path.read_bytes())
    page = chance.choice([0, 0, chance.randrange(len(data) // 4096)]) * 4096
    way = chance.choice(["bit of the header", "byte", "zeros", "noise", "cut"])
    if way == "bit of the header":
        data[chance.randrange(100)] ^= 1 << chance.randrange(8)
    elif way == "byte":
        data[page + chance.randrange(4096)] = chance.randrange(256)
    elif way == "cut":
        del data[chance.randrange(1, len(data)) :]
    else:
        data[page : page + 4096] = bytes(4096) if way == "zeros" else chance.randbytes(4096)
    path.write_bytes(data)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 1000), marks=pytest.mark.long)], ids=str
)
def test_database_damaged_in_any_one_place_is_kept_and_replaced(
    tmp_path: Path, journal: str, seeds: range
) -> None:
    sound = make_words(tmp_path / "sound.db", "old", rows=500, journal=journal)
    run_sql(sound, "".join(f"CREATE TABLE more_{number} (a, b, c);" for number in range(200)))
    new = make_words(tmp_path / "new.db", "new", rows=500)
    for seed in seeds:
        live = tmp_path / f"{seed}.db"
        live.write_bytes(sound.read_bytes())
        spoil(live, random.Random(seed))
        done = replace_database(live, new, tmp_path / f"{seed}-kept.db", timeout_seconds=5)
        assert done.kept, f"seed {seed}"
        assert read_words(live) == {"new"}, f"seed {seed}"
        for path in tmp_path.glob(f"{seed}*"):
            path.unlink()


def count_newer_views(path: Path) -> int:
    with closing(connect(path, lenient=True)) as connection:
        query = "SELECT count(*) FROM sqlite_schema WHERE sql = ?"
        return int(connection.execute(query, (NEWER_VIEW,)).fetchone()[0])


@pytest.mark.parametrize("page_size", [4096, 1024, 8192])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_what_this_sqlite_cannot_read_goes_through_a_replacement_as_it_is(
    tmp_path: Path, journal: str, page_size: int
) -> None:
    new = tmp_path / "new.db"
    with closing(sqlite3.connect(new)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("CREATE TABLE makes_the_size_stay (x)")
    add_newer_view(make_words(new, "new"))
    live, missing = tmp_path / "live.db", tmp_path / "missing.db"
    make_words(live, "old", journal=journal)
    (tmp_path / "live.db.resized.arriving").write_text("left by a killed replacement")
    with closing(connect(live)) as holder:  # so that WAL stays
        holder.execute("SELECT count(*) FROM words").fetchone()
        replace_database(live, new, tmp_path / "kept.db")
        replace_database(missing, new, tmp_path / "none.db")
    assert (count_newer_views(live), count_newer_views(missing)) == (1, 1)


def test_too_new_database_is_kept_whole(tmp_path: Path) -> None:
    live = add_newer_view(make_words(tmp_path / "live.db", "old"))
    new = make_words(tmp_path / "new.db", "new")
    done = replace_through_sqlite(live, new, tmp_path / "kept.db", "too_new", None, 60)
    assert (done.kept, done.kept_is_sound) == ([tmp_path / "kept.db"], True)
    assert count_newer_views(tmp_path / "kept.db") == 1
    assert read_words(live) == {"new"}


def test_error_that_is_not_about_a_lock_is_not_explained_as_one(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="disk"), busy_explained(tmp_path):
        raise sqlite3.OperationalError("disk I/O error")


def test_what_is_kept_is_private(tmp_path: Path) -> None:
    live = make_words(tmp_path / "live.db", "old", rows=3)
    live.chmod(0o644)
    replace_database(live, make_words(tmp_path / "new.db", "new", rows=3), tmp_path / "kept.db")
    assert (tmp_path / "kept.db").stat().st_mode & 0o777 == 0o600


def test_log_that_cannot_be_cut_now_is_left_and_other_errors_are_told(tmp_path: Path) -> None:
    live = make_words(tmp_path / "live.db", "old", rows=3, journal="WAL")
    with closing(connect(live)) as connection, transaction(connection):
        connection.execute("DELETE FROM words")
        shrink_log(connection)

    class Broken:
        def execute(self, _sql: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError, match="disk"):
        shrink_log(Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_header_keeps_the_version_of_a_newer_sqlite_and_of_no_older(
    tmp_path: Path, step: int
) -> None:
    live, ours = make_words(tmp_path / "live.db", "old", rows=3), sqlite_version_number()
    with live.open("r+b", buffering=0) as file, closing(connect(live)) as connection:
        keep_version_in_header(connection, file.fileno(), ours + step)
    assert int.from_bytes(live.read_bytes()[96:100], "big") == max(ours, ours + step)


def test_nothing_is_carried_over_from_what_cannot_be_read(tmp_path: Path) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")
    for state in ("damaged", "too_new"):
        with pytest.raises(DatabaseFileError, match="nothing was changed"):
            replace_through_sqlite(live, new, tmp_path / "kept.db", state, print, 60)  # type: ignore[arg-type]
    assert read_words(live) == {"old"}


def test_carry_over_sees_both_databases_in_one_transaction_without_foreign_keys(
    tmp_path: Path,
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")
    seen: list[object] = []

    def look(connection: sqlite3.Connection) -> None:
        seen.extend(connection.execute("PRAGMA foreign_keys").fetchone())
        for schema in ("main", "fresh"):
            query = f"SELECT word FROM {schema}.words WHERE id = 1"
            seen.extend(connection.execute(query).fetchone())
        seen.append(connection.in_transaction)

    replace_database(live, new, tmp_path / "kept.db", carry_over=look)
    assert seen == [0, "old 0", "new 0", True]


def test_what_a_killed_replacement_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    live = make_words(tmp_path / "live [1].db", "old")
    left = [f"{live.name}{name}.arriving" for name in ("", ".resized", ".backup-2026")]
    others = ["live 1.db.arriving", f"{live.name}.arrived", "other.db"]
    for name in (*left, *others):
        (tmp_path / name).write_text("x")
    remove_arriving(live)
    assert {path.name for path in tmp_path.iterdir()} == {live.name, *others}


def make_busy_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), sqlite3.OperationalError("disk I/O error")], ids=str
)
def test_error_before_the_commit_says_that_nothing_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    live = add_newer_view(make_words(tmp_path / "live.db", "old"))
    new = add_newer_view(make_words(tmp_path / "new.db", "new"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(replace_module, "copy_pages", fail)
    with pytest.raises(ProjectError, match=r"was not replaced: .* holds what it held") as caught:
        replace_through_sqlite(live, new, tmp_path / "kept.db", "database", None, 60)
    assert caught.value.next_step.startswith("see that the disk is well")
    assert count_newer_views(live) == 1
    assert read_words_leniently(live) == {"old"}


def read_words_leniently(path: Path) -> set[str]:
    with closing(connect(path, lenient=True)) as connection:
        return {word.split()[0] for (word,) in connection.execute("SELECT word FROM words")}


def test_lock_before_the_commit_is_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")

    def fail(*_: object) -> None:
        raise make_busy_error()

    monkeypatch.setattr(replace_module, "copy_pages", fail)
    with pytest.raises(BusyError, match="another program holds the database"):
        replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"old"}


def test_lock_behind_the_commit_does_not_hide_that_the_new_content_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")

    def fail(_live: sqlite3.Connection) -> None:
        raise make_busy_error()

    monkeypatch.setattr(replace_module, "shrink_log", fail)
    with pytest.raises(ProjectError, match="holds the new content, whole"):
        replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}


def test_commit_for_whose_lock_the_replacement_waited_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal="WAL")
    new = make_words(tmp_path / "new.db", "new")
    into_place, writers = replace_module.copy_into_place, []

    def write_first(*arguments: Any) -> tuple[str, ...]:
        if not writers:
            writers.append(connect(live))
            writers[0].execute("BEGIN IMMEDIATE")
            writers[0].execute("UPDATE words SET word = 'late ' || id")
        return into_place(*arguments)

    def commit_when_waited_for(*_: object) -> None:
        if writers[0].in_transaction:
            writers[0].execute("COMMIT")

    monkeypatch.setattr(replace_module, "copy_into_place", write_first)
    monkeypatch.setattr(replace_module, "make_step_watch", lambda *_: commit_when_waited_for)
    replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0.2)
    writers[0].close()
    assert (read_words(live), read_words(tmp_path / "kept.db")) == ({"new"}, {"late"})


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_writer_that_does_not_end_makes_the_replacement_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    """It waited without end for a program that holds the write lock."""
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
    into_place = replace_module.copy_into_place

    def write_first(*arguments: Any) -> tuple[str, ...]:
        with closing(connect(live)) as other:
            other.execute("BEGIN IMMEDIATE")
            return into_place(*arguments)

    monkeypatch.setattr(replace_module, "copy_into_place", write_first)
    with pytest.raises(BusyError, match="another program holds the database"):
        replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0.2)
    assert read_words(live) == {"old"}


def test_error_after_which_nothing_can_be_read_names_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")

    def fail(_live: sqlite3.Connection) -> None:
        live.rename(tmp_path / "away.db")
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(replace_module, "shrink_log", fail)
    with pytest.raises(ProjectError, match=r"could not be replaced .*nor read again") as caught:
        replace_database(live, new, tmp_path / "kept.db")
    assert caught.value.next_step.endswith(" brings that back")
    assert read_words(tmp_path / "kept.db") == {"old"}


def test_replacement_while_a_reader_holds_on_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")
    with closing(connect(live)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM words").fetchone()
        with pytest.raises(BusyError, match="another program holds the database"):
            replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0.2)
    assert read_words(live) == {"old"}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_with_other_page_size_succeeds(tmp_path: Path, journal: str) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = tmp_path / "new.db"
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE makes_the_size_stay (x)")
    make_words(new, "new")
    with closing(connect(live)) as reader:
        reader.execute("SELECT * FROM words").fetchone()
        replace_database(live, new, tmp_path / "kept.db")
        assert reader.execute("SELECT word FROM words").fetchone() == ("new 0",)
        expected = {"DELETE": 1024, "WAL": 4096}[journal]
        assert reader.execute("PRAGMA page_size").fetchone() == (expected,)
    assert not list(tmp_path.glob("*.arriving*"))


def test_replacement_of_a_file_that_is_no_database_keeps_it_with_its_journals(
    tmp_path: Path,
) -> None:
    live = tmp_path / "live.db"
    live.write_bytes(b"no database at all" * 500)
    (tmp_path / "live.db-wal").write_bytes(b"old log")
    new = make_words(tmp_path / "new.db", "new")
    done = replace_database(live, new, tmp_path / "kept.db")
    assert (done.moved_to, done.kept_is_sound) == (tmp_path / "kept.db", False)
    assert read_words(live) == {"new"}
    assert (tmp_path / "kept.db").read_bytes().startswith(b"no database")
    assert (tmp_path / "kept.db-wal").read_bytes() == b"old log"


def test_replacement_of_a_missing_file_is_not_fooled_by_its_stale_journal(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    (tmp_path / "live.db-journal").write_bytes(b"stale journal")
    new = make_words(tmp_path / "new.db", "new")
    replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}
    assert not (tmp_path / "live.db-journal").exists()


def test_replacement_of_a_missing_file_whose_name_is_taken_meanwhile_keeps_what_took_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")
    take = free_name.take_free_name

    def be_late(arriving: Path, target: Path) -> None:
        make_words(target, "platform", journal="WAL")
        take(arriving, target)

    monkeypatch.setattr(replace_module, "take_free_name", be_late)
    done = replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}
    assert done.kept == [tmp_path / "kept.db"]
    assert read_words(tmp_path / "kept.db") == {"platform"}


def test_replacement_of_no_database_whose_name_is_taken_meanwhile_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")
    live.write_bytes(b"no database")
    take = free_name.take_free_name

    def be_late(arriving: Path, target: Path) -> None:
        make_words(target, "platform")
        take(arriving, target)

    monkeypatch.setattr(replace_module, "take_free_name", be_late)
    done = replace_database(live, new, tmp_path / "kept.db")
    assert read_words(live) == {"new"}
    assert done.moved_to is not None
    assert done.moved_to.read_bytes() == b"no database"
    assert done.kept_as is not None
    assert read_words(done.kept_as) == {"platform"}


def test_replacement_with_a_log_that_appears_beside_the_free_name_is_not_fooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")
    link, calls = os.link, 0

    def leave_a_log(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        link(source, target)
        if calls == 1:
            (tmp_path / "live.db-wal").write_bytes(b"log of another database")

    monkeypatch.setattr(os, "link", leave_a_log)
    replace_database(live, new, tmp_path / "kept.db")
    assert (calls, read_words(live)) == (2, {"new"})
    assert not (tmp_path / "live.db-wal").exists()


def test_replacement_of_a_missing_file_where_no_links_can_be_made_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert replace_database(live, new, tmp_path / "kept.db").kept == []
    assert read_words(live) == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live.db", "new.db"]


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM words").fetchone()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_replacement_of_no_database_that_another_process_has_open_is_refused(
    tmp_path: Path, journal: str
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")
    with running_holder(HOLDER, live) as holder:
        with live.open("r+b") as file:
            file.write(b"its header is gone")
        with pytest.raises(BusyError, match="has it open"):
            replace_database(live, new, tmp_path / "kept.db", timeout_seconds=0.2)
        assert live.read_bytes().startswith(b"its header is gone")
        assert not (tmp_path / "kept.db").exists()
        holder.communicate()
    assert replace_database(live, new, tmp_path / "kept.db").moved_to == tmp_path / "kept.db"
    assert read_words(live) == {"new"}


def test_file_and_log_that_a_kill_parted_come_together_again(tmp_path: Path) -> None:
    live, new = tmp_path / "live.db", make_words(tmp_path / "new.db", "new")
    live.write_bytes(b"no database")
    (tmp_path / "live.db.backup-2026-11-20-120000-wal").write_bytes(b"its log")
    done = replace_database(live, new, tmp_path / "live.db.backup-2026-11-20-120007")
    assert done.moved_to == tmp_path / "live.db.backup-2026-11-20-120000"
    assert done.moved_to.read_bytes() == b"no database"


def test_replacement_that_another_program_renames_away_is_not_called_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old")
    new = make_words(tmp_path / "new.db", "new")
    other = make_words(tmp_path / "other.db", "other", rows=2)
    monkeypatch.setattr(replace_module, "shrink_log", lambda _live: other.replace(live))
    with pytest.raises(
        VerificationError, match=r"does not hold what was put there.*2 rows instead of 3,000"
    ):
        replace_database(live, new, tmp_path / "kept.db")


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_commit_right_behind_a_replacement_is_told_and_no_error(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")

    def commit_at_once(_live: sqlite3.Connection) -> None:
        with closing(connect(live)) as other:
            other.execute("INSERT INTO words (word) VALUES ('later')")

    monkeypatch.setattr(replace_module, "shrink_log", commit_at_once)
    done = replace_database(live, new, tmp_path / "kept.db")
    assert done.written_since == ("table words has 3,001 rows instead of 3,000",)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_error_behind_the_commit_says_what_stands_where_and_the_undo(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_words(tmp_path / "live.db", "old", journal=journal)
    new = make_words(tmp_path / "new.db", "new")

    def fail(_live: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(replace_module, "shrink_log", fail)
    with pytest.raises(ProjectError) as caught:
        replace_database(live, new, tmp_path / "kept.db")
    assert str(caught.value) == (
        f"{live} holds the new content, whole, but then: disk I/O error; what stood there is in "
        f"{tmp_path}/kept.db"
    )
    assert (
        caught.value.next_step
        == f"make restore-from-backup BACKUP={quote(f'{tmp_path}/kept.db')} brings that back"
    )
