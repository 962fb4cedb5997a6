"""Who a database is and whose a backup is, told by ids and paths alone: without commands."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.identity import (
    Identity,
    find_identities,
    identify,
    is_same_place,
    load_id_of_source,
    load_own_catalogue,
    make_database_id,
    mark_others,
    read_database_id,
    save_database_id,
)
from manifests import FIRST_TAKEN_AT_UTC, Told, make_backups, make_manifest, write_backup_file
from schema_text import add_newer_view

ONE, TWO = "1" * 32, "2" * 32


def made_of(path: Path | str, database_id: str = "", *earlier_paths: str) -> Told:
    values = {"source_path": str(path), "database_id": database_id, "earlier_paths": earlier_paths}
    return ("full", {}, values)


def owns(identity: Identity, path: Path, database_id: str = "") -> bool:
    values = {"source_path": str(path), "database_id": database_id}
    return identity.owns(make_manifest(path, "full", FIRST_TAKEN_AT_UTC, {}, **values))


@pytest.mark.parametrize(
    ("mine", "its", "is_owned"),
    [(ONE, ONE, True), (ONE, TWO, False), (TWO, ONE, False), (ONE, "", True), ("", TWO, True)],
)
def test_backup_from_the_same_place_is_owned_unless_two_ids_differ(
    tmp_path: Path, mine: str, its: str, is_owned: bool
) -> None:
    here = tmp_path / "live.db"
    assert owns(Identity(mine, str(here)), here, its) == is_owned


def test_backup_from_an_earlier_place_is_owned_while_nothing_stands_there(tmp_path: Path) -> None:
    before, other = tmp_path / "before.db", tmp_path / "other.db"
    moved = Identity(ONE, str(tmp_path / "now.db"), (str(before),))
    assert owns(moved, before, ONE)
    assert not owns(moved, other, ONE)
    before.symlink_to("nowhere")
    assert not owns(moved, before, ONE)


def test_place_is_the_same_through_links_and_by_inode(tmp_path: Path) -> None:
    file, other = tmp_path / "b", tmp_path / "a"
    assert is_same_place(str(file), str(file))
    assert not is_same_place(str(file), str(other))
    assert not is_same_place(str(other), str(file))
    file.write_text("")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    assert is_same_place(str(tmp_path / "link"), str(file))
    assert is_same_place(str(tmp_path / "hard"), str(file))


def test_ids_are_32_digits_and_differ() -> None:
    assert len(make_database_id()) == 32
    assert make_database_id() != make_database_id()


def test_database_without_an_id_takes_that_of_the_newest_backup_from_its_place(
    tmp_path: Path,
) -> None:
    live = tmp_path / "live.db"
    told = (made_of(live, TWO, "/of-two.db"), made_of(live, ONE, "/of-one.db"))
    backups = make_backups(tmp_path, *told, made_of("/x.db", TWO))
    of_one, of_two = (
        Identity(ONE, str(live), ("/of-one.db",)),
        Identity(TWO, str(live), ("/of-two.db",)),
    )
    assert identify(live, "", backups) == identify(live, ONE, backups) == of_one
    assert identify(live, TWO, backups) == of_two
    assert identify(live, ONE, make_backups(tmp_path, *told[::-1])) == of_one
    assert identify(tmp_path / "new.db", "", backups) == Identity("", str(tmp_path / "new.db"))
    foreign = replace(backups[0], manifest=None)
    assert identify(live, "", [foreign]) == Identity("", str(live))


def test_database_that_was_moved_remembers_where_nothing_stands_any_more(tmp_path: Path) -> None:
    live, gone, still = (tmp_path / name for name in ("live.db", "gone.db", "still.db"))
    still.write_text("")
    told = (made_of(gone, ONE, "/older.db"), made_of(still, ONE), made_of("/of-two.db", TWO))
    backups = make_backups(tmp_path, *told, made_of("/of-none.db", "0" * 32))
    assert identify(live, ONE, backups) == Identity(ONE, str(live), (str(gone), "/older.db"))
    # Its first backup from here has written that down; from then on it counts, as it was.
    backups = make_backups(tmp_path, *told, made_of(live, ONE, "/older.db"))
    assert identify(live, ONE, backups) == Identity(ONE, str(live), ("/older.db",))


def test_backups_of_others_are_marked_and_foreign_files_are_nobodys(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    other, mine = make_backups(tmp_path, made_of(live), made_of("/other.db"))
    foreign = replace(mine, manifest=None)
    marked = mark_others([other, mine, foreign], Identity("", str(live)))
    assert [one.other_database for one in marked] == ["/other.db", "", ""]


def test_every_database_in_the_folder_is_found_with_its_newest_backup(tmp_path: Path) -> None:
    told = (made_of("/a.db", ONE), made_of("/b.db", TWO), made_of("/a.db", ONE, "/before.db"))
    newest_of_a, newest_of_b, _ = backups = make_backups(tmp_path, *told)
    foreign = replace(newest_of_a, manifest=None)
    damaged = replace(make_backups(tmp_path, made_of("/c.db"))[0], problem="too short")
    assert find_identities([foreign, damaged, *backups]) == [
        (Identity(ONE, "/a.db", ("/before.db",)), newest_of_a),
        (Identity(TWO, "/b.db"), newest_of_b),
    ]


def test_id_is_saved_once_and_read_back_and_missing_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE notes (id)")
        assert read_database_id(path) == load_id_of_source(path) == ""
        for database_id in (TWO, ONE):
            save_database_id(connection, database_id)
        assert read_database_id(path) == load_id_of_source(path, read_only=True) == ONE
        connection.execute("DELETE FROM _identity")
        assert read_database_id(path) == ""
    assert read_database_id(tmp_path / "none.db") == ""
    assert read_database_id(tmp_path) == ""
    path.write_bytes(b"no database")
    assert read_database_id(path) == ""


def test_own_catalogue_goes_by_the_id_that_is_told_or_read(tmp_path: Path) -> None:
    folder, live = tmp_path / "backups", tmp_path / "live.db"
    assert load_own_catalogue(folder, live) == []
    folder.mkdir()
    write_backup_file(folder, "backtesting-2026-11-20-020000", live, ONE)
    make_with_id(live, TWO)
    assert [one.other_database for one in load_own_catalogue(folder, live)] == [str(live)]
    assert [one.other_database for one in load_own_catalogue(folder, live, ONE)] == [""]


def test_id_is_read_of_a_copy_whose_schema_this_sqlite_cannot_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    make_with_id(path, ONE)
    add_newer_view(path)
    assert load_id_of_source(path) == load_id_of_source(path, read_only=True) == ONE


def test_id_is_read_of_a_copy_whose_last_transaction_was_interrupted(tmp_path: Path) -> None:
    path, copy = tmp_path / "live.db", tmp_path / "copy.db"
    make_with_id(path, ONE)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE notes (word TEXT)")
        connection.execute("PRAGMA cache_size = 5")  # so that pages are written before the commit
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 3000,)] * 50)
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        connection.execute("ROLLBACK")
    assert load_id_of_source(copy) == ONE


def make_with_id(path: Path, database_id: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        save_database_id(connection, database_id)
