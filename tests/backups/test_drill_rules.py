"""What a drill tries, what it makes of what comes back, and what it remembers."""

import errno
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb.backups import drill as drill_module
from backtestdb.backups.backup_dir import DRILL_LOCK, drill_folder
from backtestdb.backups.catalogue import FAILED_DRILL, Backup
from backtestdb.backups.drill import (
    Drill,
    Rehearsal,
    drill_is_due,
    is_lack_of_space,
    load_drills,
    load_last_drill,
    mark,
    newest_of_each_kind,
    parse_drill,
    rehearse,
    run_drill,
    save_drill,
    verify_restored,
)
from backtestdb.backups.generated_scripts import copy_scripts
from backtestdb.backups.manifest import Manifest
from backtestdb.config import Settings
from backtestdb.errors import BusyError, ProjectError, SpaceError, VerificationError
from backtestdb.files import exclusive_lock
from backup_tools import NOON, make_settings
from manifests import (
    FIRST_TAKEN_AT_UTC,
    make_backups,
    make_exact_manifest,
    make_manifest,
    name_backup,
)
from small_database import make_small_database, pages_of

DATABASE = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');"
    "CREATE TABLE other (id INTEGER PRIMARY KEY); INSERT INTO other VALUES (1);"
)
GOOD = Rehearsal(
    backup="a.db", kind="full", is_good=True, problem="", seconds=1.5, bytes=7, tables=2, rows=3
)
BAD = replace(GOOD, is_good=False, problem="torn")
LATER = FIRST_TAKEN_AT_UTC + timedelta(hours=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    settings.backup_dir.mkdir()
    settings.database_path.parent.mkdir()
    return settings


def write_backup(settings: Settings, kind: str = "full", hour: int = 2) -> Backup:
    """A file of one byte with its manifest: what a catalogue looks at."""
    stem = {"full": "backtesting", "irreplaceable": "irreplaceable"}[kind]
    path = settings.backup_dir / f"{stem}-2026-11-23-{hour:02}0000.db"
    path.write_bytes(b"x")
    source = os.path.realpath(settings.database_path)
    taken = FIRST_TAKEN_AT_UTC + timedelta(hours=hour)
    manifest = make_manifest(path, kind, taken, {"t": 2, "other": 1}, source_path=source)  # type: ignore[arg-type]
    return name_backup(manifest, path)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """A restore that succeeds, and to what settings it was asked for."""
    asked: list[Settings] = []

    def restore(aside: Settings, _path: Path, _now: datetime) -> None:
        make_small_database(aside.database_path, DATABASE)
        asked.append(aside)

    monkeypatch.setattr(drill_module, "restore_from_backup", restore)
    monkeypatch.setattr(drill_module, "verify_restored", lambda *_: None)
    return asked


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception, *, only: str = "") -> None:
    def restore(_aside: Settings, path: Path, _now: datetime) -> None:
        if only in path.name:
            raise error

    monkeypatch.setattr(drill_module, "restore_from_backup", restore)
    monkeypatch.setattr(drill_module, "verify_restored", lambda *_: None)


# ── what is tried


def test_newest_of_each_kind_is_tried_unless_it_is_anothers_or_known_to_be_bad(
    tmp_path: Path,
) -> None:
    small = ("irreplaceable", {}, {})
    full = ("full", {}, {})
    backups = make_backups(tmp_path, full, small, full, small, full)  # type: ignore[arg-type]
    assert newest_of_each_kind(backups) == [backups[0], backups[1]]
    assert newest_of_each_kind(backups[1:]) == [backups[2], backups[1]]
    assert newest_of_each_kind(backups[1:2]) == [backups[1]]
    assert newest_of_each_kind([]) == []

    damaged = replace(backups[0], problem="torn")
    assert newest_of_each_kind([damaged, *backups[1:]])[0] == damaged
    foreign = replace(backups[0], manifest=None, problem="no manifest")
    others = replace(backups[0], other_database="/other.db")
    for left_out in (foreign, others):
        assert newest_of_each_kind([left_out, *backups[1:]]) == [backups[2], backups[1]]
    backups[0].path.with_suffix(FAILED_DRILL).touch()
    assert newest_of_each_kind(backups) == [backups[2], backups[1]]


def test_drill_tries_both_kinds_says_so_and_remembers(
    settings: Settings, restored: list[Settings]
) -> None:
    full, small = write_backup(settings), write_backup(settings, "irreplaceable", 3)
    said: list[str] = []
    drill, report = run_drill(settings, NOON, say=said.append)
    folder = drill_folder(settings.backup_dir)
    assert said == [f"restoring {one.path.name} into {folder / 'scratch'}" for one in (full, small)]
    assert [one.backup for one in drill.rehearsals] == [full.path.name, small.path.name]
    assert len(restored) == 2
    assert (drill.is_good, drill.problem) == (True, "")
    assert drill.started_at_utc == NOON
    assert drill.started_at_utc.tzinfo == UTC
    assert drill.database == os.path.realpath(settings.database_path)
    assert load_last_drill(settings.backup_dir, settings.database_path) == drill
    assert json.loads(report.read_text())["is_good"] is True
    assert folder.stat().st_mode & 0o777 == 0o700


def test_drill_makes_the_folders_it_needs_and_keeps_off_while_another_runs(
    settings: Settings, restored: list[Settings]
) -> None:
    settings.backup_dir.rmdir()
    with pytest.raises(ProjectError, match="there is no backup of") as caught:
        run_drill(settings, NOON)
    assert caught.value.next_step == "make backup"
    write_backup(settings)
    folder = drill_folder(settings.backup_dir)
    with exclusive_lock(folder / DRILL_LOCK, "a drill"), pytest.raises(BusyError):
        run_drill(settings, NOON)
    assert restored == []
    assert load_drills(settings.backup_dir, settings.database_path) == []


@pytest.mark.parametrize("bad", ["backtesting", "irreplaceable"])
def test_drill_with_one_bad_backup_is_bad_and_marks_that_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    both = [write_backup(settings), write_backup(settings, "irreplaceable", 3)]
    fail_with(monkeypatch, VerificationError("torn"), only=bad)
    drill, _ = run_drill(settings, NOON)
    assert not drill.is_good
    for backup, rehearsal in zip(both, drill.rehearsals, strict=True):
        is_bad = backup.path.name.startswith(bad)
        assert rehearsal.is_good is not is_bad
        assert backup.path.with_suffix(FAILED_DRILL).exists() is is_bad


def test_backup_is_marked_by_what_went_wrong_unless_it_could_not_be_tried(
    settings: Settings,
) -> None:
    backup = write_backup(settings)
    marked = backup.path.with_suffix(FAILED_DRILL)
    mark(backup, GOOD)
    mark(backup, replace(BAD, lacked_space=True))
    assert not marked.exists()
    mark(backup, BAD)
    assert marked.read_text() == "torn"


# ── one rehearsal


def test_rehearsal_restores_into_an_empty_private_folder_and_empties_it(
    settings: Settings, restored: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = settings.backup_dir / "scratch"
    (scratch / "left by a killed one").mkdir(parents=True)
    seen: list[object] = []

    def look(aside: Settings, _manifest: Manifest | None) -> None:
        names = [path.name for path in scratch.iterdir()]
        seen.append((aside.database_path.is_file(), names, scratch.stat().st_mode & 0o777))

    monkeypatch.setattr(drill_module, "verify_restored", look)
    clock = iter([100.0, 107.12345])
    stopwatch = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(drill_module, "time", stopwatch)
    found = rehearse(settings, write_backup(settings), scratch, NOON)

    assert seen == [(True, ["backtesting.db"], 0o700)]
    assert not scratch.exists()
    (aside,) = restored
    assert aside.database_path == scratch / "backtesting.db"
    assert aside.generated_scripts_dirs == (scratch / "generated",)
    assert found == Rehearsal(
        backup="backtesting-2026-11-23-020000.db",
        kind="full",
        is_good=True,
        problem="",
        seconds=7.123,
        bytes=1,
        tables=2,
        rows=3,
    )


def test_rehearsal_gives_each_folder_of_scripts_a_place_of_its_own(
    settings: Settings, restored: list[Settings], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    scripts = copy_scripts(
        [tmp_path / "one", tmp_path / "two"], tmp_path / "copy", "copy", limit_bytes=10
    )
    backup = write_backup(settings)
    assert backup.manifest
    backup = replace(backup, manifest=replace(backup.manifest, generated_scripts=scripts))
    scratch = settings.backup_dir / "scratch"
    assert rehearse(settings, backup, scratch, NOON).is_good
    places = tuple(scratch / "generated" / part for part in ("1-one", "2-two"))
    assert restored[0].generated_scripts_dirs == places


def test_rehearsal_of_a_backup_without_a_manifest_counts_nothing(
    settings: Settings, restored: list[Settings]
) -> None:
    backup = replace(write_backup(settings), manifest=None)
    found = rehearse(settings, backup, settings.backup_dir / "scratch", NOON)
    assert (found.tables, found.rows, len(restored)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("error", "lacked_space"),
    [
        (VerificationError("torn"), False),
        (OSError(errno.EIO, "torn"), False),
        (sqlite3.DatabaseError("torn"), False),
        (SpaceError("torn"), True),
        (OSError(errno.ENOSPC, "torn"), True),
    ],
)
def test_rehearsal_that_fails_says_why_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, lacked_space: bool
) -> None:
    fail_with(monkeypatch, error)
    scratch = settings.backup_dir / "scratch"
    found = rehearse(settings, write_backup(settings), scratch, NOON)
    assert (found.is_good, found.lacked_space, found.seconds) == (False, lacked_space, 0.0)
    assert found.problem == ("there was no room to try it: " if lacked_space else "") + str(error)
    assert not scratch.exists()


def test_lack_of_space_is_told_from_other_errors(tmp_path: Path) -> None:
    assert is_lack_of_space(SpaceError("no room"))
    assert is_lack_of_space(OSError(errno.ENOSPC, ""))
    assert is_lack_of_space(OSError(errno.EDQUOT, ""))
    assert not is_lack_of_space(OSError(errno.EACCES, ""))
    assert not is_lack_of_space(ProjectError("torn"))
    path = make_small_database(tmp_path / "small.db", DATABASE)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA max_page_count = 3")
        with pytest.raises(sqlite3.Error, match="full") as full:
            database.execute("INSERT INTO t VALUES (9, zeroblob(99999))")
        with pytest.raises(sqlite3.Error) as other:
            database.execute("INSERT INTO t VALUES (1, '')")
        with pytest.raises(sqlite3.Error) as unknown:
            database.execute("SELECT * FROM unknown")
    assert is_lack_of_space(full.value)
    assert not is_lack_of_space(other.value)
    assert not is_lack_of_space(unknown.value)


# ── what came back


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("", ""),
        ("DELETE FROM t WHERE id = 2", "table t came back with 1 rows instead of 2"),
        ("INSERT INTO t VALUES (3, 'c')", "table t came back with 3 rows instead of 2"),
        ("DELETE FROM other", "table other came back with 0 rows instead of 1"),
        ("UPDATE t SET text = 'c' WHERE id = 1", "table t came back with other rows"),
        ("UPDATE other SET id = 4", "table other came back with other rows"),
    ],
)
def test_restored_rows_are_those_of_the_manifest(settings: Settings, sql: str, found: str) -> None:
    make_small_database(settings.database_path, DATABASE)
    manifest = make_exact_manifest(settings.database_path)
    with closing(sqlite3.connect(settings.database_path)) as database:
        database.executescript(f"PRAGMA synchronous = OFF; {sql}")
    if not found:
        verify_restored(settings, manifest)
        return
    with pytest.raises(VerificationError, match=found):
        verify_restored(settings, manifest)


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_restored_rows_have_the_hash_of_the_manifest(settings: Settings, digest: str) -> None:
    make_small_database(settings.database_path, DATABASE)
    manifest = make_exact_manifest(settings.database_path)
    contents = dict(manifest.content_sha256) | {"other": digest}
    with pytest.raises(VerificationError, match="table other came back with other rows"):
        verify_restored(settings, replace(manifest, content_sha256=contents))


def test_restored_database_without_a_manifest_proves_nothing(settings: Settings) -> None:
    make_small_database(settings.database_path, DATABASE)
    with pytest.raises(VerificationError, match="the manifest is missing or damaged"):
        verify_restored(settings, None)


def test_restored_database_is_checked_in_full(settings: Settings) -> None:
    """An index that has another value than its table: a quick check does not see that."""
    sql = DATABASE + "CREATE INDEX named ON t (text);"
    path = make_small_database(settings.database_path, sql)
    manifest = make_exact_manifest(path)
    (page,) = pages_of(path, "named")
    data = bytearray(path.read_bytes())
    page_size = int.from_bytes(data[16:18])
    data[data.rindex(b"b", 0, page * page_size)] += 1
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        verify_restored(settings, manifest)


@pytest.mark.parametrize("is_several", [False, True])
def test_restored_scripts_are_those_of_the_manifest(
    settings: Settings, tmp_path: Path, is_several: bool
) -> None:
    make_small_database(settings.database_path, DATABASE)
    folders = [tmp_path / "one", tmp_path / "two"][: 1 + is_several]
    for folder in folders:
        folder.mkdir()
        (folder / "scan.py").write_text(folder.name)
    scripts = copy_scripts(folders, tmp_path / "copy", "copy", limit_bytes=100)
    manifest = make_exact_manifest(settings.database_path, generated_scripts=scripts)
    aside = replace(settings, generated_scripts_dirs=tuple(folders))
    verify_restored(aside, manifest)
    # A manifest of before several folders.
    if not is_several and scripts:
        older = replace(manifest, generated_scripts=replace(scripts, parts={}))
        verify_restored(aside, older)
    with pytest.raises(ValueError, match="zip"):
        verify_restored(replace(aside, generated_scripts_dirs=(*folders, tmp_path)), manifest)
    (folders[-1] / "scan.py").write_text("changed")
    with pytest.raises(VerificationError, match=r"scan\.py is missing or not what it was"):
        verify_restored(aside, manifest)


# ── what is remembered


def make_drill(**values: object) -> Drill:
    known = {"started_at_utc": LATER, "is_good": True, "problem": "", "rehearsals": (GOOD, BAD)}
    return Drill(**(known | values))  # type: ignore[arg-type]


def test_drill_is_saved_as_a_report_and_a_line_of_the_history(tmp_path: Path) -> None:
    folder = drill_folder(tmp_path)
    folder.mkdir()
    drill = make_drill(database=str(tmp_path / "live.db"))
    report = save_drill(drill, folder, NOON)
    assert report == folder / f"drill-{NOON:%Y-%m-%d-%H%M%S}.json"
    line = (folder / "history.jsonl").read_text()
    assert json.loads(report.read_text()) == json.loads(line)
    assert json.loads(line)["started_at_utc"] == "2026-11-23T05:00:00Z"
    assert load_drills(tmp_path, tmp_path / "live.db") == [drill]
    assert save_drill(drill, folder, NOON) != report


def test_reports_and_history_do_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_module, "HISTORY_LINES", 3)
    monkeypatch.setattr(drill_module, "REPORTS_KEPT", 2)
    folder = drill_folder(tmp_path)
    folder.mkdir()
    (folder / "other.json").touch()
    drills = [make_drill(started_at_utc=LATER + timedelta(days=n)) for n in range(5)]
    reports = [
        save_drill(drill, folder, NOON + timedelta(days=n)) for n, drill in enumerate(drills)
    ]
    assert sorted(folder.glob("*.json")) == [*reports[-2:], folder / "other.json"]
    assert load_drills(tmp_path, tmp_path / "live.db") == drills[-3:]


def test_history_is_of_one_database_and_of_drills_that_do_not_say_of_which(
    tmp_path: Path,
) -> None:
    folder = drill_folder(tmp_path)
    assert load_drills(tmp_path, tmp_path / "live.db") == []
    assert load_last_drill(tmp_path, tmp_path / "live.db") is None
    folder.mkdir()
    names = ("", str(tmp_path / "live.db"), str(tmp_path / "other.db"))
    drills = [make_drill(database=name) for name in names]
    for number, drill in enumerate(drills):
        save_drill(drill, folder, NOON + timedelta(days=number))
    assert load_drills(tmp_path, tmp_path / "live.db") == drills[:2]
    assert load_last_drill(tmp_path, tmp_path / "live.db") == drills[1]
    assert load_drills(tmp_path, tmp_path / "third.db") == drills[:1]


def test_line_of_the_history_that_is_none_is_passed_over() -> None:
    values = asdict(make_drill(database="/live.db")) | {"started_at_utc": LATER.isoformat()}
    assert parse_drill(json.dumps(values)) == make_drill(database="/live.db")
    del values["database"]
    assert parse_drill(json.dumps(values)) == make_drill()
    assert parse_drill('{"half": ') is None
    assert parse_drill("[]") is None
    for key in ("started_at_utc", "is_good", "problem", "rehearsals"):
        assert parse_drill(json.dumps({one: values[one] for one in values if one != key})) is None
    assert parse_drill(json.dumps(values | {"rehearsals": [{"unknown": 1}]})) is None


def test_rehearsal_from_before_room_was_noted_is_read() -> None:
    values = asdict(make_drill(rehearsals=(GOOD,))) | {"started_at_utc": LATER.isoformat()}
    del values["rehearsals"][0]["lacked_space"]
    found = parse_drill(json.dumps(values))
    assert found
    assert found.rehearsals == (GOOD,)
    assert not found.rehearsals[0].lacked_space


# ── when the next is due


@pytest.mark.parametrize(
    ("age", "was_good", "due"),
    [
        (timedelta(days=7), True, True),
        (timedelta(days=7, seconds=-1), True, False),
        (timedelta(days=8), True, True),
        (timedelta(days=1), False, True),
        (timedelta(days=1, seconds=-1), False, False),
        (timedelta(days=3), False, True),
        (timedelta(0), True, False),
        (timedelta(0), False, False),
        (timedelta(seconds=-1), True, True),
        (timedelta(days=-9), False, True),
    ],
)
def test_drill_is_due_after_a_week_or_the_day_after_a_failure(
    age: timedelta, was_good: bool, due: bool
) -> None:
    last = make_drill(is_good=was_good)
    assert drill_is_due(last, LATER + age) is due
    assert drill_is_due(None, LATER) is True
