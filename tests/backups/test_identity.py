"""Several databases in one backup folder: each backup counts for the database that it was made
from."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups.identity import (
    identify_current,
    load_database_id,
    read_database_id,
    save_database_id,
)
from backtestdb.database import connect
from backup_tools import back_up, make_platform_database, make_settings, strategy_names
from commands import Project

WITH_ID = "0123456789abcdef0123456789abcdef"


def make_checkout(folder: Path, backups: Path, *, word: str = "", database_id: str = "") -> Project:
    """A checkout with a database of its own, whose strategies are named after `word` (none
    without)."""
    folder.mkdir(exist_ok=True)
    project = Project(folder, settings={"BACKUP_DIR": str(backups)})
    if word:
        make_platform_database(project.database, word=word, bars=200)
    if database_id:
        give_id(project.database, database_id)
    return project


def give_id(database: Path, database_id: str) -> None:
    with closing(connect(database)) as connection:
        save_database_id(connection, database_id)


def listed(project: Project) -> list[dict[str, object]]:
    done = project.run("backup_database.py", "--list", "--json")
    assert done.returncode == 0, done.stderr
    values: list[dict[str, object]] = json.loads(done.stdout)
    return values


def counted(project: Project) -> int:
    return sum(not backup["other_database"] for backup in listed(project))


def make_empty(database: Path) -> None:
    """As the platform's start-up leaves a file that was not there."""
    with closing(connect(database)) as connection:
        connection.execute("DELETE FROM strategies")


def test_backup_of_another_checkout_is_listed_and_does_not_count(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    out = second.check("backup_database.py", "--list")
    assert f"of another database: {first.database}" in out
    status = second.run("show_status.py", "--json")
    facts = json.loads(status.stdout)
    assert "no_backup" in {problem["name"] for problem in facts["problems"]}
    assert facts["backups"]["of_others"] == {str(first.database): 1}
    assert "of another database" in second.run("show_status.py").stdout


def test_restore_takes_the_backup_of_this_database_although_another_one_is_newer(
    tmp_path: Path,
) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    second.check("backup_database.py", "--irreplaceable-only")
    make_empty(first.database)
    first.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(first.database)[0] == "first 0"


def test_restore_without_a_backup_of_this_database_names_the_others_and_changes_nothing(
    tmp_path: Path,
) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    said = second.check("restore_database.py", "--from-backup", "--yes", expect=1)
    assert str(first.database) in said
    assert "BACKUP=" in said
    assert strategy_names(second.database)[0] == "second 0"
    newest = str(listed(second)[0]["path"])
    said = second.check("restore_database.py", "--from-backup", newest, "--yes")
    assert f"is of another database: {first.database}" in said
    assert strategy_names(second.database)[0] == "first 0"


def test_retention_of_one_database_leaves_the_backups_of_the_other(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    of_first = Path(str(listed(first)[0]["path"]))
    for _ in range(3):
        second.check(
            "backup_database.py", MAX_BACKUPS="1", KEEP_FULL_WEEKLY="0", KEEP_FULL_MONTHLY="0"
        )
    assert of_first.exists()
    assert counted(first) == 1
    assert counted(second) == 1


def test_drill_rehearses_the_backups_of_this_database_alone(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    assert "there is no backup of" in second.check("run_drill.py", expect=1)
    assert len(json.loads(first.run("run_drill.py", "--json").stdout)["rehearsals"]) == 1
    assert json.loads(second.run("show_status.py", "--json").stdout)["drills"] == []
    assert json.loads(first.run("show_status.py", "--json").stdout)["drills"][0]["passed"] is True


def test_schedules_of_two_databases_each_make_their_own_backup(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    for project in (first, second):
        project.check("run_scheduler.py", "--once")
    assert counted(first) == counted(second) == 2  # a full and a small one each
    assert (first.run("run_scheduler.py", "--newest").returncode) == 0


def test_new_machine_takes_the_only_database_of_the_folder_and_names_it(tmp_path: Path) -> None:
    old = make_checkout(
        tmp_path / "old machine", tmp_path / "backups", word="old", database_id=WITH_ID
    )
    old.check("backup_database.py")
    shutil.rmtree(old.folder)
    new = make_checkout(tmp_path / "new machine", tmp_path / "backups")
    said = new.check("restore_database.py", "--from-backup", "--yes")
    assert str(old.database) in said
    assert strategy_names(new.database)[0] == "old 0"
    assert read_database_id(new.database) == WITH_ID
    assert counted(new) == 1  # it was moved: its older backups go on counting
    new.check("backup_database.py")
    assert counted(new) == 2


def test_new_machine_with_several_databases_in_the_folder_has_to_choose(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    second.check("backup_database.py")
    for project in (first, second):
        shutil.rmtree(project.folder)
    new = make_checkout(tmp_path / "new", tmp_path / "backups")
    done = new.run("restore_database.py", "--from-backup", "--yes")
    assert done.returncode == 2
    assert str(first.database) in done.stderr
    assert str(second.database) in done.stderr
    assert not new.database.exists()


def test_second_checkout_begins_with_nothing_of_the_first(tmp_path: Path) -> None:
    """The first is still in use on this machine: its backups are restored by name, and a rebuild
    takes none."""
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    first.check("backup_database.py")
    second = make_checkout(tmp_path / "second", tmp_path / "backups")
    said = second.check("restore_database.py", "--from-backup", "--yes", expect=1)
    assert str(first.database) in said
    second.check("restore_database.py", "--skip-backfill", "--yes")
    assert strategy_names(second.database) == []


def test_platform_that_was_started_first_is_no_database_yet(tmp_path: Path) -> None:
    old = make_checkout(tmp_path / "old", tmp_path / "backups", word="old")
    old.check("backup_database.py")
    shutil.rmtree(old.folder)
    new = make_checkout(tmp_path / "new", tmp_path / "backups")
    with closing(sqlite3.connect(new.database)) as connection:
        connection.execute("CREATE TABLE strategies (id INTEGER PRIMARY KEY, name TEXT)")
        connection.commit()
    new.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(new.database)[0] == "old 0"


@pytest.mark.parametrize("database_id", ["", WITH_ID])
def test_moved_folder_keeps_its_backups_when_its_database_has_an_id(
    tmp_path: Path, database_id: str
) -> None:
    old = make_checkout(tmp_path / "old", tmp_path / "backups", word="old", database_id=database_id)
    old.check("backup_database.py")
    old.folder.rename(tmp_path / "moved")
    moved = Project(tmp_path / "moved", settings=old.settings)
    assert counted(moved) == bool(database_id)
    moved.check("backup_database.py")
    assert counted(moved) == 1 + bool(database_id)
    if not database_id:  # it was known by its path alone: adopting tells whose the older one is
        (older,) = [str(backup["path"]) for backup in listed(moved) if backup["other_database"]]
        moved.check("backup_database.py", "--adopt", older)
        assert counted(moved) == 2


def test_copied_checkout_has_the_same_id_and_the_path_decides(tmp_path: Path) -> None:
    first = make_checkout(
        tmp_path / "first", tmp_path / "backups", word="first", database_id=WITH_ID
    )
    first.check("backup_database.py")
    shutil.copytree(first.folder, tmp_path / "copy")
    copy = Project(tmp_path / "copy", settings=first.settings)
    assert counted(copy) == 0
    copy.check("backup_database.py")
    assert (counted(first), counted(copy)) == (1, 1)
    first.database.unlink()  # from here on it looks moved, but the copy has had backups of its own
    assert (counted(first), counted(copy)) == (1, 1)
    first.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(first.database)[0] == "first 0"


def test_adopting_a_backup_of_a_database_that_is_still_there_is_refused(tmp_path: Path) -> None:
    first = make_checkout(tmp_path / "first", tmp_path / "backups", word="first")
    second = make_checkout(tmp_path / "second", tmp_path / "backups", word="second")
    first.check("backup_database.py")
    path = str(listed(first)[0]["path"])
    assert "of another database" in second.check("backup_database.py", "--adopt", path, expect=2)
    assert counted(first) == 1


def test_link_to_the_database_is_the_same_database(tmp_path: Path) -> None:
    project = make_checkout(tmp_path / "project", tmp_path / "backups", word="old")
    project.check("backup_database.py")
    link = tmp_path / "link.db"
    link.symlink_to(project.database)
    through_link = Project(
        tmp_path / "project", settings=project.settings | {"DATABASE_PATH": str(link)}
    )
    assert counted(through_link) == 1


def test_emptied_file_is_still_the_database_that_its_backups_were_made_from(tmp_path: Path) -> None:
    """A file that the platform made anew at the path has no id: the path tells."""
    project = make_checkout(
        tmp_path / "project", tmp_path / "backups", word="old", database_id=WITH_ID
    )
    project.check("backup_database.py")
    project.database.unlink()
    with closing(sqlite3.connect(project.database)) as connection:
        connection.execute("CREATE TABLE strategies (id INTEGER PRIMARY KEY, name TEXT)")
        connection.commit()
    assert counted(project) == 1
    project.check("restore_database.py", "--from-backup", "--yes")
    assert read_database_id(project.database) == WITH_ID


def test_another_database_put_at_the_same_path_does_not_take_over_the_backups(
    tmp_path: Path,
) -> None:
    project = make_checkout(
        tmp_path / "project", tmp_path / "backups", word="old", database_id=WITH_ID
    )
    project.check("backup_database.py")
    project.database.unlink()
    make_platform_database(project.database, word="new", bars=200)
    give_id(project.database, "f" * 32)
    assert counted(project) == 0


def test_restore_of_another_database_leaves_the_database_the_one_it_was(tmp_path: Path) -> None:
    first = make_checkout(
        tmp_path / "first", tmp_path / "backups", word="first", database_id=WITH_ID
    )
    second = make_checkout(
        tmp_path / "second", tmp_path / "backups", word="second", database_id="f" * 32
    )
    first.check("backup_database.py")
    second.check("backup_database.py")
    (of_first,) = [str(backup["path"]) for backup in listed(second) if backup["other_database"]]
    second.check("restore_database.py", "--from-backup", of_first, "--yes")
    assert strategy_names(second.database)[0] == "first 0"
    assert read_database_id(second.database) == "f" * 32
    assert (counted(first), counted(second)) == (1, 1)


def test_rebuild_carries_the_identity_on_and_gives_a_new_database_one(tmp_path: Path) -> None:
    project = make_checkout(tmp_path / "project", tmp_path / "backups", word="old")
    project.check("backup_database.py")
    project.check("restore_database.py", "--skip-backfill", "--yes")
    given = read_database_id(project.database)
    assert len(given) == 32
    assert counted(project) == 1
    project.check("backup_database.py")
    project.check("restore_database.py", "--skip-backfill", "--yes")
    assert read_database_id(project.database) == given
    project.database.unlink()
    project.check("restore_database.py", "--skip-backfill", "--yes")
    assert read_database_id(project.database) == given
    assert counted(project) == 2


def test_manifest_of_before_identities_counts_for_its_path(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    backup = back_up(settings).backup
    values = json.loads(backup.manifest_path.read_text())
    for name in ("database_id", "earlier_paths"):
        del values[name]
    backup.manifest_path.write_text(json.dumps(values | {"format": 1}))
    project = Project(
        tmp_path,
        settings={
            "DATABASE_PATH": str(settings.database_path),
            "BACKUP_DIR": str(settings.backup_dir),
        },
    )
    assert counted(project) == 1
    assert (
        counted(
            Project(tmp_path, settings=project.settings | {"DATABASE_PATH": str(tmp_path / "x.db")})
        )
        == 0
    )


def test_id_is_read_without_a_trace_beside_a_resting_wal_database(tmp_path: Path) -> None:
    database = make_platform_database(tmp_path / "backtesting.db", journal="WAL", bars=10)
    give_id(database, WITH_ID)
    before = sorted(tmp_path.iterdir())
    assert read_database_id(database) == WITH_ID
    assert identify_current(database, tmp_path / "none").path == str(database)
    assert sorted(tmp_path.iterdir()) == before
    with closing(connect(database)) as connection:
        assert load_database_id(connection) == WITH_ID
