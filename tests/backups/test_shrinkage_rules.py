"""What counts as a loss, a rename and the highest count, told by rows and manifests alone: without
commands."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.manifest import Loss
from backtestdb.backups.shrinkage import (
    Expected,
    TableShape,
    compare_with_newest,
    describe_losses,
    find_highest,
    find_losses,
    find_renames,
    load_expected,
)
from manifests import FIRST_TAKEN_AT_UTC as MONDAY
from manifests import Told, make_backups


@pytest.mark.parametrize(
    ("before", "now", "is_lost"),
    [
        (1, 0, True),
        (2, 0, True),
        (2, 1, False),
        (19, 1, False),
        (20, 10, False),
        (20, 9, True),
        (1000, 499, True),
        (1000, 500, False),
        (0, 0, False),
        (5, 9, False),
    ],
)
def test_loss_is_an_emptied_table_or_more_than_half_of_twenty(
    before: int, now: int, is_lost: bool
) -> None:
    losses = find_losses({"agents": Expected(before, MONDAY)}, {"agents": now})
    assert bool(losses) == is_lost


def test_loss_holds_what_was_there_when_and_now() -> None:
    losses = find_losses({"gone": Expected(40, MONDAY), "less": Expected(40, MONDAY)}, {"less": 3})
    assert losses == {"gone": Loss(40, MONDAY, 0), "less": Loss(40, MONDAY, 3)}
    few = {"gone": Expected(2, MONDAY)}
    assert find_losses(few, {}) == {"gone": Loss(2, MONDAY, 0)}
    assert describe_losses({"less": Loss(4000, MONDAY, 3)}) == (
        f"less: 4,000 on {MONDAY.astimezone():%A %Y-%m-%d %H:%M}, 3 now"
    )


def test_table_that_is_gone_is_lost_and_a_full_text_index_may_tidy_up() -> None:
    expected = {
        name: Expected(40, MONDAY) for name in ("agents", "notes_data", "notes_content", "my_data")
    }
    losses = find_losses(
        expected, {"notes_data": 3, "notes_content": 40, "notes_docsize": 40, "my_data": 3}
    )
    assert set(losses) == {"agents", "my_data"}


def test_rename_is_a_new_table_with_as_many_rows_and_similar_columns() -> None:
    columns = frozenset({"id", "name", "note"})
    gone = {"agents": TableShape(40, columns)}
    assert find_renames(gone, {"traders": TableShape(40, columns | {"mood"})}) == {
        "agents": "traders"
    }
    assert find_renames(gone, {"traders": TableShape(39, columns)}) == {}
    assert (
        find_renames(gone, {"prices": TableShape(40, frozenset({"id", "open", "close", "high"}))})
        == {}
    )
    assert (
        find_renames({"agents": TableShape(0, columns)}, {"traders": TableShape(0, columns)}) == {}
    )


def test_renamed_table_is_the_most_similar_one_and_each_takes_one() -> None:
    def shape(*names: str) -> TableShape:
        return TableShape(40, frozenset(names))

    gone = {"agents": shape("id", "name", "note", "mood")}
    half = shape("id", "name", "other")  # 2 of 5 columns: no
    assert find_renames(gone, {"half": half}) == {}
    assert find_renames(gone, {"just": shape("id", "name")}) == {"agents": "just"}  # 2 of 4
    most = {"just": shape("id", "name"), "best": shape("id", "name", "note")}
    assert find_renames(gone, most) == {"agents": "best"}
    assert find_renames({"one": shape("id"), "two": shape("id")}, {"new": shape("id")}) == {
        "one": "new"
    }
    both = {"same": shape("id"), "wider": shape("id", "name")}
    assert find_renames({"one": shape("id")}, both) == {"one": "same"}
    assert find_renames(gone, {}) == {}
    assert find_renames({"none": shape()}, {"new": shape()}) == {}
    more, fewer = TableShape(41, frozenset({"id"})), TableShape(39, frozenset({"id"}))
    assert find_renames({"one": shape("id")}, {"more": more, "fewer": fewer}) == {}


# ── a catalogue of manifests, without files


def highest(folder: Path, *told: Told) -> set[str]:
    return {path.stem for path in find_highest(make_backups(folder, *told))}


def test_highest_count_is_that_of_the_newest_that_holds_it(tmp_path: Path) -> None:
    assert highest(tmp_path, ("full", {"a": 5}, {}), ("full", {"a": 4}, {})) == {"0"}
    assert highest(tmp_path, ("full", {"a": 4}, {}), ("full", {"a": 5}, {})) == {"1"}
    assert highest(tmp_path, ("full", {"a": 5}, {}), ("full", {"a": 5}, {})) == {"1"}
    assert highest(tmp_path, ("full", {"a": 0}, {})) == set()
    assert highest(tmp_path, ("full", {"a": 1}, {})) == {"0"}
    assert highest(tmp_path, ("full", {"a": 5, "b": 1}, {}), ("full", {"a": 4, "b": 2}, {})) == {
        "0",
        "1",
    }


def test_highest_count_is_rather_held_by_a_small_backup(tmp_path: Path) -> None:
    small: Told = ("irreplaceable", {"a": 5}, {})
    full: Told = ("full", {"a": 5}, {})
    assert highest(tmp_path, small, full) == {"0"}
    assert highest(tmp_path, full, small) == {"1"}
    assert highest(tmp_path, small, small, full) == {"1"}
    fewer: Told = ("irreplaceable", {"a": 4}, {})
    assert highest(tmp_path, fewer, full) == {"1"}


def test_highest_count_of_before_an_accepted_loss_or_a_rename_is_given_up(tmp_path: Path) -> None:
    accepted: dict[str, object] = {"accepts_loss": True}
    renamed: dict[str, object] = {"renames": {"a": "new"}}
    assert highest(tmp_path, ("full", {"a": 5}, {}), ("full", {"a": 1}, accepted)) == {"1"}
    assert highest(tmp_path, ("full", {"a": 5}, {}), ("full", {"new": 5}, renamed)) == {"1"}
    others = highest(tmp_path, ("full", {"a": 5, "b": 9}, {}), ("full", {"new": 5}, renamed))
    assert others == {"0", "1"}


def test_foreign_files_and_other_databases_hold_no_count(tmp_path: Path) -> None:
    mine, other = make_backups(tmp_path, ("full", {"a": 5}, {}), ("full", {"a": 1}, {}))[::-1]
    foreign = replace(mine, manifest=None, problem="no manifest")
    of_other = replace(mine, other_database="/elsewhere.db")
    assert find_highest([foreign, of_other, other]) == {other.path}


def test_expected_rows_are_those_of_before_the_loss_unless_it_was_accepted(tmp_path: Path) -> None:
    lost: dict[str, object] = {"losses": {"a": Loss(40, MONDAY, 0)}}
    (backup,) = make_backups(tmp_path, ("full", {"a": 0, "b": 3}, lost))
    assert load_expected(backup.manifest) == {
        "a": Expected(40, MONDAY),
        "b": Expected(3, backup.taken_at_utc),
    }
    (backup,) = make_backups(tmp_path, ("full", {"a": 0}, {**lost, "accepts_loss": True}))
    assert load_expected(backup.manifest) == {"a": Expected(0, backup.taken_at_utc)}
    assert load_expected(None) == {}


def make_tables(path: Path, **columns: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for table, listed in columns.items():
            connection.execute(f"CREATE TABLE {table} ({listed})")


def test_losses_are_since_the_newest_that_counts_and_a_rename_is_none(tmp_path: Path) -> None:
    older, newest = make_backups(
        tmp_path, ("full", {"a": 90}, {}), ("full", {"a": 40, "b": 7}, {})
    )[::-1]
    make_tables(newest.path, a="id, name", b="id")
    copy = tmp_path / "copy.db"
    make_tables(copy, c="id, name", b="id")
    backups = [replace(newest, problem="damaged"), newest, older]

    renamed = compare_with_newest(copy, {"b": 7, "c": 40}, backups)
    assert (dict(renamed.losses), dict(renamed.renames)) == ({}, {"a": "c"})
    lost = compare_with_newest(copy, {"b": 0, "c": 40}, backups)
    assert lost.losses == {"b": Loss(7, newest.taken_at_utc, 0)}
    assert lost.renames == {"a": "c"}
    gone = compare_with_newest(copy, {"b": 7}, backups)
    assert (set(gone.losses), dict(gone.renames)) == ({"a"}, {})
    less = compare_with_newest(copy, {"a": 3, "b": 7}, backups)
    assert (set(less.losses), dict(less.renames)) == ({"a"}, {})
    assert compare_with_newest(copy, {"a": 1}, []).losses == {}


def test_backup_that_cannot_be_read_any_more_tells_no_rename_and_no_error(tmp_path: Path) -> None:
    (newest,) = make_backups(tmp_path, ("full", {"a": 40}, {}))
    copy = tmp_path / "copy.db"
    make_tables(copy, c="id")
    assert set(compare_with_newest(copy, {"c": 40}, [newest]).losses) == {"a"}
    newest.path.write_bytes(b"no database" * 100)
    assert set(compare_with_newest(copy, {"c": 40}, [newest]).losses) == {"a"}
    assert {path.name for path in tmp_path.iterdir()} == {newest.path.name, copy.name}
