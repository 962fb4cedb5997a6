"""A salvage from beginning to end, on a database of one table: what is said, in which order, and
what it calls complete."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.config import Settings
from backtestdb.errors import DatabaseFileError, VerificationError
from backtestdb.salvage import salvage as salvage_module
from backtestdb.salvage.build import Built
from backtestdb.salvage.salvage import (
    NothingSalvagedError,
    SalvageResult,
    choose_newest,
    copy_database,
    describe,
    removed_afterwards,
    salvage,
    verify_result,
)
from backtestdb.salvage.union import TableOutcome
from backup_tools import NOON, back_up, copy_with_backups, make_settings
from manifests import make_backups
from small_database import make_small_database, pages_of

LATER = NOON + timedelta(hours=5)
TABLE = "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT);"
TWO = f"{TABLE} INSERT INTO lab VALUES (1, 'a'), (2, 'b');"
SALVAGED = f"live.db.salvaged-{LATER:%Y-%m-%d-%H%M%S}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database and its full backup."""
    folder = tmp_path_factory.mktemp("original")
    settings = settings_in(folder)
    settings.database_path.parent.mkdir()
    make_small_database(settings.database_path, TWO)
    back_up(settings)
    return folder


def settings_in(folder: Path) -> Settings:
    return make_settings(folder, database_path=folder / "live" / "live.db")


@pytest.fixture
def settings(original: Path, tmp_path: Path) -> Settings:
    """A copy of both, in which the database has a row more."""
    copy_with_backups(original, tmp_path)
    settings = settings_in(tmp_path)
    with closing(sqlite3.connect(settings.database_path)) as database, database:
        database.execute("INSERT INTO lab VALUES (3, 'c')")
    return settings


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM lab").fetchall()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ── from beginning to end


def test_salvage_says_what_it_does_and_takes_its_steps_in_order(settings: Settings) -> None:
    live = settings.database_path
    folder, new = live.parent, live.with_name("live.db.salvaging.new")
    new.write_bytes(b"of a run that was killed")
    said: list[str] = []
    seen: list[tuple[str, set[str]]] = []
    result = salvage(
        live,
        settings.backup_dir,
        LATER,
        say=said.append,
        step=lambda name: seen.append((name, names_in(folder) - {"live.db"})),
    )
    (backup,) = settings.backup_dir.glob("backtesting-*.db")
    lock = "live.db.salvaging.lock"
    assert seen == [
        ("copied", {"live.db.salvaging", lock}),
        ("built", {"live.db.salvaging", new.name, lock}),
        ("named", {"live.db.salvaging", SALVAGED, lock}),
    ]
    assert names_in(folder) == {"live.db", SALVAGED, lock}
    assert said == [f"reading {live}, united with {backup.name}"]
    assert result.path == folder / SALVAGED
    assert result.backup is not None
    assert result.backup.path == backup
    assert [one.table for one in result.tables] == ["lab"]
    assert result.is_complete
    assert rows_of(result.path) == [(1, "a"), (2, "b"), (3, "c")]


def test_salvage_of_a_kept_file_is_united_with_the_backups_of_the_database_in_use(
    settings: Settings,
) -> None:
    live = settings.database_path
    kept = live.rename(live.with_name("live.db.backup-2026-11-20-020000"))
    make_small_database(live, TABLE)
    result = salvage(kept, settings.backup_dir, LATER, in_use=live)
    assert result.backup is not None
    assert result.path.name.startswith(f"{kept.name}.salvaged-")
    assert rows_of(result.path) == [(1, "a"), (2, "b"), (3, "c")]


def test_salvage_through_a_link_reads_what_it_leads_to(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(settings.database_path)
    result = salvage(tmp_path / "link.db", settings.backup_dir, LATER)
    assert result.path == settings.database_path.with_name(SALVAGED)


def test_salvage_without_a_backup_says_so(settings: Settings) -> None:
    said: list[str] = []
    result = salvage(settings.database_path, settings.backup_dir / "none", LATER, say=said.append)
    assert result.backup is None
    assert said[0].startswith("no backup in")
    assert said[1].endswith("united with no backup, because none is there")
    assert rows_of(result.path) == [(1, "a"), (2, "b"), (3, "c")]


@pytest.mark.parametrize("content", [None, b""])
def test_salvage_of_nothing_is_refused(settings: Settings, content: bytes | None) -> None:
    settings.database_path.unlink()
    if content is not None:
        settings.database_path.write_bytes(content)
    with pytest.raises(DatabaseFileError, match=r"there is nothing to salvage: .*live\.db is miss"):
        salvage(settings.database_path, settings.backup_dir, LATER)


def test_salvage_of_a_link_that_leads_nowhere_names_the_disk(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "disk" / "live.db")
    with pytest.raises(DatabaseFileError, match="is a symbolic link to"):
        salvage(tmp_path / "link.db", settings.backup_dir, LATER)


def test_result_has_no_name_until_it_is_checked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_result: object) -> None:
        raise VerificationError("a page is damaged")

    monkeypatch.setattr(salvage_module, "verify_result", refuse)
    with pytest.raises(VerificationError):
        salvage(settings.database_path, settings.backup_dir, LATER)
    assert names_in(settings.database_path.parent) == {"live.db", "live.db.salvaging.lock"}


# ── what is complete


WHOLE = TableOutcome(table="lab", from_damaged=1, is_whole=True)
PART = TableOutcome(table="more", from_damaged=1)


@pytest.mark.parametrize(
    ("built", "is_complete"),
    [
        (Built([WHOLE], 0, [], {}), True),
        (Built([WHOLE, PART], 0, [], {}), False),
        (Built([WHOLE], 1, [], {}), False),
        (Built([WHOLE], 0, ["view"], {}), False),
        (Built([WHOLE], 0, [], {"lab": "no such function"}), False),
        (Built([PART], 1, ["view"], {"lab": "no such function"}), False),
    ],
)
def test_salvage_is_complete_when_nothing_at_all_is_missing(
    built: Built, is_complete: bool
) -> None:
    result = SalvageResult(Path("/new.db"), None, built)
    assert bool(result.is_complete) is is_complete
    assert result.tables == built.tables


@pytest.mark.parametrize(
    ("values", "is_something"),
    [
        ({"is_whole": True}, True),
        ({"from_damaged": 1}, True),
        ({"from_backup": 1}, True),
        ({"rows_beside": 1}, True),
        ({"lost_pages": 1, "lost_rows": 1, "left_out": 1}, False),
    ],
)
def test_result_is_something_when_one_table_is(
    tmp_path: Path, values: dict[str, int], is_something: bool
) -> None:
    new = make_small_database(tmp_path / "new.db", TWO)
    tables = [TableOutcome(table="empty"), TableOutcome(table="lab", **values)]  # type: ignore[arg-type]
    if is_something:
        verify_result(new, tables, tmp_path / "live.db")
        return
    with pytest.raises(NothingSalvagedError, match="not one row could be read of") as refused:
        verify_result(new, tables, tmp_path / "live.db")
    assert refused.value.next_step == "make restore"


def test_result_whose_index_is_not_its_tables_is_refused(tmp_path: Path) -> None:
    new = make_small_database(
        tmp_path / "new.db", f"{TWO} CREATE INDEX a ON lab (id); CREATE INDEX b ON lab (name);"
    )
    with closing(sqlite3.connect(new)) as database:
        database.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = "
            "(SELECT sum(rootpage) FROM sqlite_schema WHERE type = 'index') - rootpage "
            "WHERE type = 'index';"
        )
    with pytest.raises(VerificationError, match="integrity_check found"):
        verify_result(new, [WHOLE], tmp_path / "live.db")


# ── what it stands on


def test_files_of_a_salvage_are_removed_before_and_afterwards(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, Path(f"{one}-wal"), other):
        path.write_text("of a run that was killed")
    with removed_afterwards(one, other):
        assert names_in(tmp_path) == set()
        one.write_text("")
        Path(f"{other}-journal").write_text("")
    assert names_in(tmp_path) == set()


def test_backup_is_described_by_its_name_or_said_to_be_none(tmp_path: Path) -> None:
    (backup,) = make_backups(tmp_path, ("full", {}, {}))
    assert describe(RestoreChoice(backup, None)) == backup.path.name
    assert describe(None) == "no backup, because none is there"


def test_backups_that_do_not_verify_are_said_and_left(settings: Settings) -> None:
    said: list[str] = []
    choice = choose_newest(settings.backup_dir, settings.database_path, said.append)
    assert choice is not None
    assert choice.full is not None
    assert said == []
    choice.full.path.write_bytes(choice.full.path.read_bytes()[:-1])
    assert choose_newest(settings.backup_dir, settings.database_path, said.append) is None
    assert "verifies" in said[-1]


def test_lost_first_page_takes_the_header_of_the_full_backup_or_of_a_new_database(
    tmp_path: Path,
) -> None:
    live = make_small_database(tmp_path / "live.db", TWO)
    full, small = make_backups(tmp_path, ("irreplaceable", {}, {}), ("full", {}, {}))
    make_small_database(full.path, f"{TABLE} PRAGMA user_version = 1;")
    make_small_database(small.path, f"{TABLE} PRAGMA user_version = 2;")
    copy, new = tmp_path / "copy.db", tmp_path / "new.db"

    def version_of_copy(choice: RestoreChoice | None) -> int:
        assert copy_database(live, copy, new, choice) is True
        assert not new.exists()
        with closing(sqlite3.connect(copy)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])

    assert pages_of(live, "lab") == [2]
    assert copy_database(live, copy, new, None) is False
    live.write_bytes(bytes(4096) + live.read_bytes()[4096:])
    assert version_of_copy(RestoreChoice(full, None)) == 1
    assert version_of_copy(RestoreChoice(full, small)) == 1
    assert version_of_copy(RestoreChoice(None, small)) == 2
    assert version_of_copy(None) == 0
