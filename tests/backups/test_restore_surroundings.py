"""What stands around a restore: links, odd names, files that others left, damage in words that are
no words."""

import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import connect, look_at_file
from backtestdb.errors import DatabaseFileError, VerificationError
from backtestdb.salvage.salvage import salvage
from backup_tools import (
    NOON,
    add_strategy,
    back_up,
    change,
    environment_of,
    make_platform_database,
    make_settings,
    strategy_names,
    verify_every_listed,
)
from commands import Project
from salvage_tools import LATER
from small_database import pages_of, zero


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    return settings


@pytest.fixture
def linked(tmp_path: Path) -> Settings:
    """DATABASE_PATH is a link to a database in WAL mode on another disk."""
    real = make_platform_database(tmp_path / "other disk" / "real.db", journal="WAL")
    link = tmp_path / "live" / "backtesting.db"
    link.parent.mkdir()
    link.symlink_to(real)
    return make_settings(tmp_path)


def leave_log(database: Path) -> None:
    """A commit that stands in the -wal alone, as after a crash: the files are put back as they were
    before the last connection closed them."""
    with closing(connect(database)) as connection:
        add_strategy(connection, "only in the log")
        kept = {path: path.read_bytes() for path in (database, Path(f"{database}-wal"))}
    for path, data in kept.items():
        path.write_bytes(data)


def test_link_is_resolved_once_and_both_names_are_known(linked: Settings, tmp_path: Path) -> None:
    assert linked.database_path == tmp_path / "other disk" / "real.db"
    assert linked.database_link == tmp_path / "live" / "backtesting.db"
    project = Project(
        tmp_path, settings=environment_of(linked) | {"DATABASE_PATH": str(linked.database_link)}
    )
    said = project.run("show_status.py").stdout
    assert str(linked.database_link) in said
    assert str(linked.database_path) in said


@pytest.mark.parametrize("must_copy", [True, False])
def test_backup_through_a_link_holds_what_stands_in_the_log(
    linked: Settings, must_copy: bool
) -> None:
    leave_log(linked.database_path)
    back_up(linked, hooks=Hooks(cannot_be_opened=lambda _path: must_copy))
    (backup,) = load_catalogue(linked.backup_dir)
    assert strategy_names(backup.path)[-1] == "only in the log"


def test_salvage_through_a_link_reads_the_log(linked: Settings) -> None:
    back_up(linked)
    leave_log(linked.database_path)
    assert linked.database_link
    salvaged = salvage(linked.database_link, linked.backup_dir, LATER)
    assert strategy_names(salvaged.path)[-1] == "only in the log"


@pytest.mark.parametrize("state", ["database", "no database"])
def test_restore_through_a_link_leaves_the_link(linked: Settings, state: str) -> None:
    names = strategy_names(linked.database_path)
    back_up(linked)
    if state == "database":
        change(linked.database_path, "later")
    else:
        linked.database_path.write_bytes(b"no database")
    restore_from_backup(linked, None, NOON)
    assert linked.database_link
    assert linked.database_link.is_symlink()
    assert strategy_names(linked.database_link) == names


@pytest.mark.parametrize(
    "command",
    [
        ["backup_database.py"],
        ["restore_database.py", "--from-backup", "--yes"],
        ["restore_database.py", "--skip-backfill", "--yes"],
        ["salvage_database.py"],
        ["show_status.py"],
    ],
)
def test_link_that_leads_nowhere_is_a_disk_that_is_not_there(
    linked: Settings, tmp_path: Path, command: list[str]
) -> None:
    back_up(linked)
    linked.database_path.parent.rename(tmp_path / "unplugged")
    project = Project(
        tmp_path, settings=environment_of(linked) | {"DATABASE_PATH": str(linked.database_link)}
    )
    said = " ".join(project.check(*command, expect=1).split())  # a report is filled to the terminal
    assert "is a symbolic link to" in said
    assert re.search(
        r"connect (that disk|the disk that it leads to), or change DATABASE_PATH", said
    )
    assert linked.database_link
    assert linked.database_link.is_symlink()
    assert not linked.database_path.parent.exists()


def damage_schema(database: Path, letter: bytes | None) -> None:
    """None: a page of the schema is lost, and its text with it."""
    if letter is None:
        zero(database, pages_of(database, "sqlite_schema")[2])
        return
    data = database.read_bytes()
    assert b"CREATE TABLE strategies" in data
    database.write_bytes(
        data.replace(b"CREATE TABLE strategies", b"CREATE TABL" + letter + b" strategies", 1)
    )


@pytest.mark.parametrize("letter", [b"\xff", b"\xc3", b"\x00", None])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_schema_damaged_beyond_utf_8_is_damage_to_every_command(
    tmp_path: Path, letter: bytes | None, journal: str
) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, journal=journal)
    back_up(settings)
    names = strategy_names(settings.database_path)
    damage_schema(settings.database_path, letter)
    assert look_at_file(settings.database_path) == "damaged"
    project = Project(tmp_path, settings=environment_of(settings))
    for command in (
        ["backup_database.py"],
        ["backup_database.py", "--irreplaceable-only"],
        ["show_status.py"],
    ):
        assert "damaged" in project.check(*command, expect=1)
    assert "Traceback" not in project.run("check_environment.py").stderr
    assert "Traceback" not in project.run("update_database.py").stderr
    assert "Traceback" not in project.run("salvage_database.py").stderr
    project.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(settings.database_path) == names


@pytest.mark.parametrize(("offset", "value"), [(18, 3), (19, 3), (47, 9), (59, 7)])
def test_header_of_no_known_format_is_damage(settings: Settings, offset: int, value: int) -> None:
    back_up(settings)
    names = strategy_names(settings.database_path)
    with settings.database_path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([value]))
    assert look_at_file(settings.database_path) == "damaged"
    with pytest.raises(DatabaseFileError, match="damaged"):
        back_up(settings, minutes=1)
    restore_from_backup(settings, None, NOON)
    assert strategy_names(settings.database_path) == names
    change(settings.database_path, "it can be written")


def test_error_behind_the_database_leaves_word_of_what_stands_where(
    settings: Settings, tmp_path: Path
) -> None:
    generated = settings.generated_scripts_dirs[0]
    generated.mkdir(parents=True)
    (generated / "pattern.py").write_text("print()\n")
    back_up(settings)
    change(settings.database_path, "later")
    generated.rename(tmp_path / "gone")
    generated.parent.joinpath("generated").write_text("a file stands in the way")
    said: list[str] = []

    def fail(name: str) -> None:
        if name == "database restored":
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        restore_from_backup(settings, None, NOON, hooks=Hooks(say=said.append, step=fail))
    text = "\n".join(said)
    assert (
        f"the database is in its place, opened again and compared: {settings.database_path}" in text
    )
    assert "undo with: make restore-from-backup BACKUP=" in text


def test_empty_journal_beside_a_backup_is_no_problem_and_a_filled_one_is(
    settings: Settings,
) -> None:
    back_up(settings)
    (backup,) = load_catalogue(settings.backup_dir)
    journal = Path(f"{backup.path}-journal")
    journal.touch()
    assert load_catalogue(settings.backup_dir)[0].is_verified
    restore_from_backup(settings, None, NOON)
    journal.write_bytes(b"not empty")
    assert "stands beside it" in load_catalogue(settings.backup_dir)[0].problem


def test_named_file_with_an_unrelated_json_beside_it_is_restored(
    settings: Settings, tmp_path: Path
) -> None:
    names = strategy_names(settings.database_path)
    copy = tmp_path / "x.db"
    with closing(connect(settings.database_path)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    copy.with_suffix(".json").write_text(json.dumps({"editor": "settings"}))
    change(settings.database_path, "later")
    restore_from_backup(settings, copy, NOON)
    assert strategy_names(settings.database_path) == names


def test_folder_with_brackets_in_its_name_is_cleaned_and_restored(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "a [very] odd * name")
    make_platform_database(settings.database_path)
    back_up(settings)
    left = settings.database_path.with_name("backtesting.db.arriving")
    left.write_bytes(b"left by a killed restore")
    settings.database_path.unlink()
    restore_from_backup(settings, None, NOON)
    assert not left.exists()
    assert len(strategy_names(settings.database_path)) == 50


def test_scratch_of_a_killed_drill_is_removed_by_the_next_backup(settings: Settings) -> None:
    scratch = settings.backup_dir / "drills" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "backtesting.db").write_bytes(b"as large as a backup")
    back_up(settings)
    assert not scratch.exists()


def test_error_of_the_disk_is_not_called_damage() -> None:
    from backtestdb.console import explain_sqlite_error

    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    what, next_step = explain_sqlite_error(error)
    assert "does not say that the file is damaged" in what
    assert "restore" not in next_step
    assert os.strerror(5) not in what


def test_table_renamed_between_full_and_small_backup_is_not_revived_without_a_word(
    settings: Settings,
) -> None:
    with closing(connect(settings.database_path)) as connection:
        connection.execute("CREATE TABLE lab_agents (name TEXT)")
        connection.execute("INSERT INTO lab_agents VALUES ('one'), ('two')")
    back_up(settings)
    with closing(connect(settings.database_path)) as connection:
        connection.execute("ALTER TABLE lab_agents RENAME TO lab_bots")
    back_up(settings, "irreplaceable", minutes=1)
    settings.database_path.unlink()
    said: list[str] = []
    restore_from_backup(settings, None, NOON, hooks=Hooks(say=said.append))
    text = "\n".join(said)
    assert "lab_agents is in the full backup and not in the newer small one" in text
    assert "new in it: lab_bots" in text
    with closing(connect(settings.database_path)) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM lab_agents), (SELECT count(*) FROM lab_bots)"
        )
        assert counts.fetchone() == (2, 2)


def test_table_whose_name_is_no_utf_8_comes_back_with_a_full_backup(settings: Settings) -> None:
    with closing(connect(settings.database_path)) as connection:
        connection.execute("CREATE TABLE lab_odd (a)")
        connection.execute("INSERT INTO lab_odd VALUES (7)")
    data = settings.database_path.read_bytes().replace(b"lab_odd", b"lab_\xff\xfed")
    settings.database_path.write_bytes(data)
    names = strategy_names(settings.database_path)
    back_up(settings)
    (backup,) = verify_every_listed(settings.backup_dir)
    assert b"lab_\xff\xfed" in backup.path.read_bytes()
    with pytest.raises(VerificationError, match="its name is not UTF-8"):
        back_up(settings, "irreplaceable", minutes=1)
    change(settings.database_path, "later")
    restore_from_backup(settings, None, NOON)
    assert strategy_names(settings.database_path) == names
    assert b"lab_\xff\xfed" in settings.database_path.read_bytes()
