"""The way back, decision by decision, on a database of two tables: one irreplaceable, one not."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backtestdb.backups import restore as restore_module
from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import Backup, lock_backups
from backtestdb.backups.identity import Identity, load_id_of_source, save_database_id
from backtestdb.backups.manifest import GeneratedScripts, Kind
from backtestdb.backups.restore import (
    bring_scripts_back,
    build,
    choose_database_id,
    describe_replacement,
    lock_if_possible,
    restore_database,
    restore_from_backup,
    verify_same_encoding,
)
from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.errors import BusyError, DeclinedError, ProjectError, SpaceError, VerificationError
from backtestdb.newer_sqlite import load_writer_version
from backtestdb.replace import Replacement
from backup_tools import NOON, back_up, copy_with_backups, make_settings
from manifests import FIRST_TAKEN_AT_UTC, make_backup_of, make_exact_manifest, make_manifest
from schema_text import NEWER_VERSION, NEWER_VIEW, make_too_new
from small_disk import leave_free

LATER = NOON + timedelta(days=1)
LAB = "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT);"
BARS = "CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT);"
OLD = f"{LAB} {BARS} INSERT INTO lab VALUES (1, 'old'); INSERT INTO ohlcv_data VALUES (1, 'OLD');"
NEW = f"{LAB} {BARS} INSERT INTO lab VALUES (1, 'new'); INSERT INTO ohlcv_data VALUES (1, 'NEW');"
SMALL = f"{LAB} INSERT INTO lab VALUES (1, 'small'), (2, 'small');"


def make(path: Path, sql: str, *, database_id: str = "", pragma: str = "user_version = 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA {pragma}")
        database.executescript(f"BEGIN; {sql} COMMIT;")
        if database_id:
            save_database_id(database, database_id)
            database.commit()
    return path


def make_backup(
    path: Path,
    sql: str,
    kind: Kind = "full",
    *,
    database_id: str = "",
    pragma: str = "user_version = 0",
) -> Backup:
    """A backup with the manifest of what it really holds."""
    make(path, sql, database_id=database_id, pragma=pragma)
    return make_backup_of(path, make_exact_manifest(path, kind, database_id=database_id))


def rows_of(path: Path, table: str = "lab") -> list[object]:
    with closing(connect(path, lenient=True)) as database:
        return [value for (value,) in database.execute(f"SELECT {column_of(table)} FROM {table}")]


def column_of(table: str) -> str:
    return {"lab": "name", "ohlcv_data": "ticker"}[table]


def put_back(
    choice: RestoreChoice, target: Path, *, database_id: str = "", said: list[str] | None = None
) -> Replacement:
    kept_as = target.with_name(f"{target.name}.backup-2026-11-24-020000")
    says: list[str] = [] if said is None else said
    return restore_database(choice, target, kept_as, database_id, says.append)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "live" / "live.db"


@pytest.fixture
def live(target: Path) -> Path:
    return make(target, NEW)


# ── the whole of it


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database and its full backup."""
    folder = tmp_path_factory.mktemp("original")
    settings = make_settings(folder)
    make(settings.database_path, OLD)
    back_up(settings)
    return folder


@pytest.fixture
def settings(original: Path, tmp_path: Path) -> Settings:
    return copy_with_backups(original, tmp_path / "all")


def restore(settings: Settings, **how: object) -> restore_module.RestoreResult:
    return restore_from_backup(settings, None, LATER, **how)  # type: ignore[arg-type]


def test_restore_takes_its_steps_in_order_and_says_what_stands_where(settings: Settings) -> None:
    target = settings.database_path
    left = target.with_name(f"{target.name}.backup-2020-01-01-000000.arriving")
    left.write_bytes(b"of a run that was killed")
    steps: list[str] = []
    said: list[str] = []
    result = restore(settings, hooks=Hooks(say=said.append, step=steps.append))
    assert steps == ["chosen", "database restored", "scripts restored"]
    assert said[0] == f"the database is in its place, opened again and compared: {target}"
    assert said[1].startswith("undo with: make restore-from-backup BACKUP=")
    assert not left.exists()
    assert rows_of(target) == ["old"]
    assert result.replacement.kept_as is not None
    assert rows_of(result.replacement.kept_as) == ["old"]
    assert (result.choice.irreplaceable, result.scripts) == (None, [])


def test_restore_needs_no_one_who_listens_and_makes_the_folder_that_is_missing(
    settings: Settings, tmp_path: Path
) -> None:
    other = replace(settings, database_path=tmp_path / "a" / "b" / "new.db")
    settings.database_path.unlink()
    restore(other)
    assert rows_of(other.database_path) == ["old"]


def test_restore_that_is_not_confirmed_changes_nothing(settings: Settings) -> None:
    before = settings.database_path.read_bytes()
    with pytest.raises(DeclinedError, match="nothing was changed"):
        restore(settings, approve=lambda _choice: False)
    assert settings.database_path.read_bytes() == before


def test_restore_takes_a_suspicious_backup_only_when_all_are_meant(settings: Settings) -> None:
    (manifest,) = settings.backup_dir.glob("*.json")
    lost = '{"lab": {"before": 40, "before_at_utc": "2026-11-19T02:00:00Z", "now": 1}}'
    manifest.write_text(manifest.read_text().replace('"losses": {}', f'"losses": {lost}'))
    with pytest.raises(VerificationError):
        restore(settings)
    restore(settings, all_are_meant=True)


@pytest.mark.parametrize(
    ("done", "lines"),
    [
        (Replacement(None, False, None), []),
        (Replacement(Path("/k"), True, None), ["undo with: make restore-from-backup BACKUP=/k"]),
        (Replacement(Path("/k"), False, None), ["what stood there is damaged, and kept as /k"]),
        (
            Replacement(None, False, Path("/m"), ("one", "two")),
            [
                "what stood there was no database any more, and is kept as /m",
                "another program has written to it since: one; two",
            ],
        ),
    ],
)
def test_replacement_is_described_with_the_way_back(done: Replacement, lines: list[str]) -> None:
    first = "the database is in its place, opened again and compared: /live.db"
    assert describe_replacement(done, Path("/live.db")) == [first, *lines]


def test_folder_of_backups_is_locked_meanwhile_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestdb.backups.catalogue.WAIT_FOR_LOCK_SECONDS", 0.0)
    before = os.umask(0)
    try:
        with lock_if_possible(tmp_path):
            with pytest.raises(BusyError), lock_backups(tmp_path):
                pass
            (lock,) = tmp_path.iterdir()
            assert lock.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    with lock_if_possible(tmp_path / "missing"):
        assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("full", "small", "current", "chosen"),
    [
        ("of full", "of small", "", "of full"),
        (None, "of small", "", "of small"),
        ("of full", None, "its own", "its own"),
        (None, None, "its own", "its own"),
        (None, None, "", ""),
    ],
)
def test_database_stays_the_one_that_it_was_or_becomes_the_backups(
    tmp_path: Path, full: str | None, small: str | None, current: str, chosen: str
) -> None:
    def backup_of(database_id: str | None, kind: Kind) -> Backup | None:
        path = tmp_path / f"{kind}.db"
        manifest = make_manifest(path, kind, FIRST_TAKEN_AT_UTC, {}, database_id=database_id or "")
        return make_backup_of(path, manifest) if database_id else None

    choice = RestoreChoice(backup_of(full, "full"), backup_of(small, "irreplaceable"))
    assert choose_database_id(choice, Identity(current, "/live.db")) == chosen


def test_database_becomes_no_one_by_a_file_without_a_manifest(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "x.db", "full", FIRST_TAKEN_AT_UTC, {}, database_id="id")
    foreign = replace(make_backup_of(tmp_path / "x.db", manifest), manifest=None)
    assert choose_database_id(RestoreChoice(foreign, None), Identity("", "/live.db")) == ""


# ── which way


def fail(*_values: object, **_others: object) -> None:
    raise AssertionError("not this way")


def test_full_backup_with_the_right_id_goes_in_as_it_is(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make_backup(tmp_path / "full.db", OLD, database_id="id")
    monkeypatch.setattr(restore_module, "build", fail)
    replacement = put_back(RestoreChoice(full, None), live, database_id="id")
    assert rows_of(live) == ["old"]
    assert rows_of(live, "ohlcv_data") == ["OLD"]
    assert replacement.kept_as is not None
    assert rows_of(replacement.kept_as) == ["new"]


@pytest.mark.parametrize("backup_id", ["a", "", "c"])
def test_full_backup_with_another_id_gets_that_of_the_database(
    live: Path, tmp_path: Path, backup_id: str
) -> None:
    full = make_backup(tmp_path / "full.db", OLD, database_id=backup_id)
    put_back(RestoreChoice(full, None), live, database_id="b")
    assert rows_of(live) == ["old"]
    assert load_id_of_source(live) == "b"
    assert load_id_of_source(full.path) == backup_id


def test_file_without_a_manifest_goes_in_with_its_log(target: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "foreign.db", OLD, pragma="journal_mode = WAL")
    foreign = replace(make_backup(tmp_path / "full.db", OLD), path=path, manifest=None)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE lab SET name = 'in the log'")
        database.commit()
        target.parent.mkdir()
        put_back(RestoreChoice(foreign, None), target)
    assert rows_of(target) == ["in the log"]


@pytest.mark.parametrize("is_too_new", [False, True])
def test_small_backup_goes_into_the_database_that_is_there(
    live: Path, tmp_path: Path, is_too_new: bool
) -> None:
    if is_too_new:
        make_too_new(live)
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    inode = live.stat().st_ino
    replacement = put_back(RestoreChoice(None, small), live)
    assert live.stat().st_ino == inode
    assert rows_of(live) == ["small", "small"]
    assert rows_of(live, "ohlcv_data") == ["NEW"]
    assert replacement.kept_as is not None
    assert rows_of(replacement.kept_as) == ["new"]
    assert (replacement.kept_is_sound, replacement.moved_to) == (True, None)
    assert replacement.written_since == ()
    assert (load_writer_version(live) == NEWER_VERSION) is is_too_new


@pytest.mark.parametrize("content", [None, b"no database" * 100])
def test_small_backup_alone_brings_the_market_tables_empty(
    target: Path, tmp_path: Path, content: bytes | None
) -> None:
    target.parent.mkdir()
    if content is not None:
        target.write_bytes(content)
    left = make(target.with_name(f"{target.name}.restoring.arriving"), "CREATE TABLE left (x);")
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    said: list[str] = []
    replacement = put_back(RestoreChoice(None, small), target, database_id="id", said=said)
    assert rows_of(target) == ["small", "small"]
    assert rows_of(target, "ohlcv_data") == []
    assert load_id_of_source(target) == "id"
    assert (replacement.moved_to is None) is (content is None)
    assert said == []
    assert not left.exists()
    with closing(connect(target)) as database:
        query = "SELECT count(*) FROM sqlite_schema WHERE name = 'left'"
        assert database.execute(query).fetchone() == (0,)


def test_newer_small_backup_goes_on_top_of_the_full_one_with_a_word_about_what_it_lacks(
    live: Path, tmp_path: Path
) -> None:
    full = make_backup(tmp_path / "full.db", f"{OLD} CREATE TABLE lab_older (x);", database_id="id")
    small = make_backup(
        tmp_path / "small.db", f"{SMALL} CREATE TABLE lab_newer (x);", "irreplaceable"
    )
    said: list[str] = []
    put_back(RestoreChoice(full, small), live, database_id="id", said=said)
    assert rows_of(live) == ["small", "small"]
    assert rows_of(live, "ohlcv_data") == ["OLD"]
    (line,) = said
    assert line.startswith("note: lab_older is in the full backup and not in the newer small one")
    assert "dropped in between; new in it: lab_newer. It comes back" in line


def test_nothing_new_in_the_small_backup_is_not_mentioned(live: Path, tmp_path: Path) -> None:
    full = make_backup(tmp_path / "full.db", f"{OLD} CREATE TABLE lab_older (x);")
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    said: list[str] = []
    put_back(RestoreChoice(full, small), live, said=said)
    assert "dropped in between. It comes back" in said[0]


# ── into the live database


@pytest.mark.parametrize("live_id", ["", "a", "b", "c"])
def test_merged_database_has_the_id_that_it_shall_have(tmp_path: Path, live_id: str) -> None:
    live = make(tmp_path / "live.db", NEW, database_id=live_id)
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    put_back(RestoreChoice(None, small), live, database_id="b")
    assert load_id_of_source(live) == "b"


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_table_that_does_not_arrive_as_the_manifest_says_leaves_the_database_as_it_was(
    live: Path, tmp_path: Path, digest: str
) -> None:
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    assert small.manifest is not None
    manifest = replace(small.manifest, content_sha256={"lab": digest})
    with pytest.raises(VerificationError, match=r"table lab did not arrive as small\.db holds it"):
        put_back(RestoreChoice(None, replace(small, manifest=manifest)), live)
    assert rows_of(live) == ["new"]


def test_small_file_without_a_manifest_is_merged_all_the_same(live: Path, tmp_path: Path) -> None:
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    put_back(RestoreChoice(None, replace(small, manifest=None)), live)
    assert rows_of(live) == ["small", "small"]


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_merge_knows_its_own_commit_from_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    live = make(tmp_path / "live.db", NEW, pragma=f"journal_mode = {journal}")
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    answers: list[bool] = []

    def ask_twice(
        target: Path, _expected: object, is_ours: Callable[[], bool], _timeout: float
    ) -> tuple[str, ...]:
        answers.append(is_ours())
        with closing(sqlite3.connect(target)) as other, other:
            other.execute("INSERT INTO lab (name) VALUES ('of the platform')")
        answers.append(is_ours())
        return ("one row more",)

    monkeypatch.setattr(restore_module, "prove", ask_twice)
    replacement = put_back(RestoreChoice(None, small), live)
    assert answers == [True, False]
    assert replacement.written_since == ("one row more",)


def test_log_is_cut_after_a_merge(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db", NEW, pragma="journal_mode = WAL")
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    with closing(sqlite3.connect(live)) as platform:
        platform.execute("SELECT count(*) FROM lab").fetchone()
        put_back(RestoreChoice(None, small), live)
        assert Path(f"{live}-wal").stat().st_size == 0


# ── room


def test_full_backup_that_goes_in_as_it_is_needs_room_for_the_old_its_journal_and_more(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = f"{OLD} INSERT INTO lab VALUES (2, zeroblob(50000));"
    full = make_backup(tmp_path / "full.db", large, database_id="id")
    old = live.stat().st_size
    leave_free(monkeypatch, old + full.bytes + (full.bytes - old) - 1)
    monkeypatch.setattr(restore_module, "replace_database", fail)
    with pytest.raises(SpaceError, match="replacing") as refused:
        put_back(RestoreChoice(full, None), live, database_id="id")
    assert refused.value.missing_bytes == 1


def test_merge_needs_twice_the_database_and_the_backup(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    needed = 2 * live.stat().st_size + small.bytes
    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError, match="merging into") as refused:
        put_back(RestoreChoice(None, small), live)
    assert refused.value.missing_bytes == 1
    assert rows_of(live) == ["new"]
    leave_free(monkeypatch, needed)
    put_back(RestoreChoice(None, small), live)


def test_building_needs_twice_the_backups(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.parent.mkdir()
    full = make_backup(tmp_path / "full.db", OLD)
    small = make_backup(tmp_path / "small.db", SMALL, "irreplaceable")
    needed = 2 * (full.bytes + small.bytes)
    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError, match="building") as refused:
        put_back(RestoreChoice(full, small), target)
    assert refused.value.missing_bytes == 1
    leave_free(monkeypatch, needed)
    put_back(RestoreChoice(full, small), target)


def test_nothing_is_built_that_has_no_room_in_the_place_of_a_larger_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make(tmp_path / "live.db", f"{NEW} INSERT INTO lab VALUES (2, zeroblob(200000));")
    full = make_backup(tmp_path / "full.db", OLD, database_id="other")
    leave_free(monkeypatch, 2 * full.bytes)
    monkeypatch.setattr(restore_module, "build", fail)
    with pytest.raises(SpaceError, match="replacing"):
        put_back(RestoreChoice(full, None), live, database_id="id")


# ── what is built


def test_built_database_is_private_and_says_who_wrote_it(tmp_path: Path) -> None:
    full = make_backup(tmp_path / "full.db", OLD)
    make_too_new(full.path)
    new = tmp_path / "new.db"
    before = os.umask(0)
    try:
        build(RestoreChoice(full, None), new, "id", fail)
    finally:
        os.umask(before)
    assert new.stat().st_mode & 0o777 == 0o600
    assert load_writer_version(new) == NEWER_VERSION
    assert load_id_of_source(new) == "id"
    assert NEWER_VIEW.encode() in new.read_bytes()


def test_built_database_without_an_id_has_none(tmp_path: Path) -> None:
    build(RestoreChoice(make_backup(tmp_path / "f.db", OLD), None), tmp_path / "new.db", "", fail)
    with closing(connect(tmp_path / "new.db")) as database:
        query = "SELECT count(*) FROM sqlite_schema WHERE name = '_identity'"
        assert database.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_database_built_of_a_small_backup_alone_has_its_encoding(
    tmp_path: Path, encoding: str
) -> None:
    small = make_backup(
        tmp_path / "small.db", SMALL, "irreplaceable", pragma=f"encoding = '{encoding}'"
    )
    make_too_new(small.path)
    build(RestoreChoice(None, small), tmp_path / "new.db", "", fail)
    assert rows_of(tmp_path / "new.db") == ["small", "small"]


@pytest.mark.parametrize("encodings", [("UTF-8", "UTF-16le"), ("UTF-16le", "UTF-8")])
def test_small_backup_in_another_encoding_is_refused(
    tmp_path: Path, encodings: tuple[str, str]
) -> None:
    ours, theirs = encodings
    live = make(tmp_path / "live.db", NEW, pragma=f"encoding = '{ours}'")
    small = make_backup(
        tmp_path / "small.db", SMALL, "irreplaceable", pragma=f"encoding = '{theirs}'"
    )
    with pytest.raises(ProjectError, match=f"has its text in {theirs}, .* in {ours}"):
        put_back(RestoreChoice(None, small), live)
    verify_same_encoding(small, small.path)


# ── scripts


def test_scripts_come_back_with_a_full_backup_that_has_some(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    scripts = GeneratedScripts(
        folder="claude-scripts-2026-11-23-020000",
        count=0,
        files={},
        links={},
        parts={"": str(folder)},
        not_copied={},
    )
    full = make_backup(tmp_path / "backtesting-2026-11-23-020000.db", OLD)
    assert full.manifest is not None
    with_scripts = replace(full, manifest=replace(full.manifest, generated_scripts=scripts))
    with_scripts.scripts_path.mkdir()

    def bring(choice: RestoreChoice) -> list[Path]:
        return [part.folder for part in bring_scripts_back(choice, [folder], LATER, Hooks())]

    assert bring(RestoreChoice(with_scripts, None)) == [folder]
    assert bring(RestoreChoice(full, None)) == []
    assert bring(RestoreChoice(replace(full, manifest=None), None)) == []
    assert bring(RestoreChoice(None, with_scripts)) == []
