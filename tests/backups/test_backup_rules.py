"""One backup from beginning to end, decision by decision, on a database of two tables."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb import files
from backtestdb.backups import backup as backup_module
from backtestdb.backups.backup import (
    Hooks,
    Outcome,
    check_copy,
    confirm,
    find_missing_folders,
    holds_the_same,
    keep_scripts,
    make_backup,
    prune,
    publish,
    readable_source,
    removed_on_failure,
    say_what_shrank,
    take_snapshot_with_room,
)
from backtestdb.backups.catalogue import Backup, load_catalogue
from backtestdb.backups.content_hash import Contents
from backtestdb.backups.manifest import GeneratedScripts, Kind, Loss
from backtestdb.backups.shrinkage import Shrinkage
from backtestdb.backups.snapshot import SPARE_BYTES, SourceFacts
from backtestdb.backups.verify import Findings, examine
from backtestdb.config import Settings
from backtestdb.errors import DatabaseFileError, ProjectError, SpaceError, VerificationError
from backup_tools import BACKUP_STEPS, NOON, make_settings
from manifests import make_backups, make_manifest
from schema_text import change_text
from small_database import make_small_database, run_sql
from small_disk import leave_free

LAB = "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT);"
BARS = "CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT);"
ROWS = "INSERT INTO lab (name) VALUES ('a'), ('b'); INSERT INTO ohlcv_data VALUES (1, 'AAPL');"
SCRIPTS = GeneratedScripts(
    folder="claude-scripts-2026-11-23-020000",
    count=1234,
    files={},
    links={},
    parts={},
    not_copied={f"{number}.csv": "too large" for number in range(7)},
)
LOSS = Loss(before=40, before_at_utc=NOON.astimezone(UTC), now=0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    settings.database_path.parent.mkdir()
    make_small_database(settings.database_path, f"{LAB} {BARS} {ROWS}")
    return settings


class Listener:
    """What was said, and the steps that were done, the same ones in a row once."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []
        self.hooks = Hooks(say=self.said.append, step=self.note)

    def note(self, step: str) -> None:
        if self.steps[-1:] != [step]:
            self.steps.append(step)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def back_up(
    settings: Settings, kind: Kind = "full", *, minutes: int = 0, hooks: Hooks | None = None
) -> Outcome:
    return make_backup(settings, kind, NOON + timedelta(minutes=minutes), False, hooks or Hooks())


def names_in(folder: Path) -> set[str]:
    """Without the lock and the mark of the disk."""
    return {path.name for path in folder.iterdir() if not path.name.startswith((".", "backup"))}


# ── from beginning to end


def test_full_backup_takes_its_steps_in_order_and_tells_them(
    settings: Settings, listener: Listener
) -> None:
    scripts = settings.generated_scripts_dirs[0]
    scripts.mkdir()
    (scripts / "one.py").write_text("print()\n")
    outcome = back_up(settings, hooks=listener.hooks)
    made = outcome.backup
    stamp = f"{NOON:%Y-%m-%d-%H%M%S}"
    assert listener.steps == [step for step in BACKUP_STEPS if not step.startswith("expired")]
    assert [line.partition(":")[0] for line in listener.said] == [
        "snapshot",
        "checked",
        "generated scripts",
    ]
    assert listener.said[1] == "checked: quick_check ok, 2 tables, 3 rows"
    assert names_in(settings.backup_dir) == {
        f"backtesting-{stamp}.db",
        f"backtesting-{stamp}.json",
        f"claude-scripts-{stamp}",
    }
    assert outcome.is_new
    assert (outcome.removed, outcome.missing_folders, outcome.not_copied) == ([], (), {})
    assert made.is_verified
    assert made.confirmed_at_utc == made.taken_at_utc == NOON.astimezone(UTC)
    assert made.manifest is not None
    assert made.manifest.rows == {"lab": 2, "ohlcv_data": 1}
    assert made.manifest.generated_scripts is not None
    assert made.manifest.generated_scripts.count == 1
    assert settings.database_path.with_name("backtesting.db.disks.json").exists()


def test_names_are_flushed_one_after_the_other_the_manifests_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[list[str]] = []

    def note(folder: Path) -> None:
        flushed.append(sorted(path.suffix for path in folder.glob("backtesting-*")))

    monkeypatch.setattr(backup_module, "fsync_directory", note)
    back_up(settings)
    assert flushed == [[".partial", ".partial"], [".db", ".partial"], [".db", ".json"]]


def test_small_backup_has_no_market_data_and_no_scripts(
    settings: Settings, listener: Listener
) -> None:
    outcome = back_up(settings, "irreplaceable", hooks=listener.hooks)
    made = outcome.backup
    assert listener.steps == [
        "locked",
        "cleaned",
        "pinned",
        "copied",
        "checked",
        "manifest written",
        "database named",
        "manifest named",
        "pruned",
    ]
    assert not any("scripts" in line for line in listener.said)
    assert made.manifest is not None
    assert made.manifest.rows == {"lab": 2}
    assert made.manifest.generated_scripts is None


def test_small_backup_of_what_has_not_changed_is_the_newest_confirmed(settings: Settings) -> None:
    first = back_up(settings, "irreplaceable").backup
    run_sql(settings.database_path, "INSERT INTO lab (name) VALUES ('c');")
    second = back_up(settings, "irreplaceable", minutes=1).backup
    before = names_in(settings.backup_dir)
    outcome = back_up(settings, "irreplaceable", minutes=60)
    assert (outcome.is_new, outcome.removed) == (False, [])
    assert outcome.backup.path == second.path
    assert outcome.backup.confirmed_at_utc == (NOON + timedelta(minutes=60)).astimezone(UTC)
    assert outcome.backup.taken_at_utc == second.taken_at_utc
    assert names_in(settings.backup_dir) == before
    again = {one.path: one for one in load_catalogue(settings.backup_dir)}
    assert again[first.path].confirmed_at_utc == first.confirmed_at_utc


def test_accepted_loss_is_a_new_backup_even_of_what_has_not_changed(settings: Settings) -> None:
    back_up(settings, "irreplaceable")
    outcome = make_backup(
        settings, "irreplaceable", NOON + timedelta(hours=1), False, Hooks(), accept_loss=True
    )
    assert outcome.is_new
    assert outcome.backup.manifest is not None
    assert outcome.backup.manifest.accepts_loss


def test_table_that_was_emptied_makes_a_suspicious_backup_and_is_said(
    settings: Settings, listener: Listener
) -> None:
    assert not back_up(settings).is_suspicious
    run_sql(settings.database_path, "DELETE FROM lab;")
    outcome = back_up(settings, minutes=1, hooks=listener.hooks)
    assert outcome.is_suspicious
    assert any(line.startswith("SUSPICIOUS, rows were lost: lab:") for line in listener.said)


def test_older_backups_have_had_their_time_and_are_named(
    settings: Settings, listener: Listener
) -> None:
    settings = replace(
        settings, max_backups=1, min_backups=1, keep_full_weekly=0, keep_full_monthly=0
    )
    first = back_up(settings).backup
    outcome = back_up(settings, minutes=1, hooks=listener.hooks)
    assert [one.path for one in outcome.removed] == [first.path]
    assert not first.path.exists()
    assert f"removed {first.path.name}: newer ones are kept" in listener.said
    assert listener.steps[-1] == "pruned"
    assert listener.steps.index("expired") > listener.steps.index("manifest named")
    assert prune(settings, [outcome.backup], "full", Hooks()) == []


def test_what_a_killed_run_had_finished_but_for_its_name_is_completed_and_said(
    settings: Settings, listener: Listener
) -> None:
    made = back_up(settings).backup
    made.manifest_path.rename(f"{made.manifest_path}.partial")
    back_up(settings, minutes=1, hooks=listener.hooks)
    assert listener.said[0].startswith(f"completed {made.path.name}")
    assert made.manifest_path.exists()


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
def test_folder_of_scripts_that_the_user_named_and_that_is_not_there_is_told(
    settings: Settings, tmp_path: Path, kind: Kind
) -> None:
    missing = tmp_path / "missing"
    named = replace(
        settings,
        generated_scripts_dirs=(missing, tmp_path),
        origins={**settings.origins, "GENERATED_SCRIPTS_DIR": "environment"},
    )
    assert find_missing_folders(named) == (missing,)
    by_default = {**settings.origins, "GENERATED_SCRIPTS_DIR": "default"}
    assert find_missing_folders(replace(named, origins=by_default)) == ()
    named = replace(named, generated_scripts_dirs=(missing,))
    assert back_up(named, kind).missing_folders == ((missing,) if kind == "full" else ())


# ── what is refused


def test_missing_database_is_refused_before_anything_is_made(settings: Settings) -> None:
    settings.database_path.unlink()
    with pytest.raises(DatabaseFileError, match="there is no database at"):
        back_up(settings)
    assert not settings.backup_dir.exists()


def test_backup_of_a_backup_is_refused(settings: Settings) -> None:
    made = back_up(settings).backup
    with pytest.raises(ProjectError, match="is one of the backups in"):
        back_up(replace(settings, database_path=made.path), minutes=1)


def test_run_that_fails_leaves_nothing_of_its_own_and_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "backtesting-2026-11-23-020000.db"
    of_another = tmp_path / "backtesting-2026-11-22-020000.db.partial"
    with pytest.raises(KeyboardInterrupt), removed_on_failure(path):
        path.with_name(f"{path.name}.partial").touch()
        path.with_name(f"{path.name}.partial-journal").touch()
        of_another.touch()
        scripts = tmp_path / "claude-scripts-2026-11-23-020000.partial"
        scripts.mkdir()
        (scripts / "one.py").touch()
        raise KeyboardInterrupt
    assert names_in(tmp_path) == set()


# ── the source


def test_source_is_the_database_itself_or_a_proven_copy_of_it(
    settings: Settings, listener: Listener
) -> None:
    settings.backup_dir.mkdir()
    path = settings.backup_dir / "backtesting-2026-11-23-020000.db"
    with readable_source(settings, path, listener.hooks, False) as source:
        assert source == settings.database_path
    with readable_source(settings, path, listener.hooks, True) as source:
        assert source == path.with_name(f"{path.name}.partial.source.partial")
        assert source.read_bytes() == settings.database_path.read_bytes()
    assert names_in(settings.backup_dir) == set()
    assert "SQLite must keep off" in listener.said[0]


def test_database_that_sqlite_must_keep_off_is_not_opened_first(settings: Settings) -> None:
    hooks = Hooks(cannot_be_opened=lambda _path: True)
    settings.database_path.write_bytes(b"no database" * 100)
    with pytest.raises(ProjectError, match="no steady copy of"):
        back_up(settings, hooks=replace(hooks, give_up_after_seconds=-1))


# ── room


@pytest.mark.parametrize("earlier", [[], [5000], [5000, 9000], [9000, 5000]])
def test_small_backup_needs_as_much_as_the_newest_of_its_kind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, earlier: list[int]
) -> None:
    catalogue = make_backups(settings.backup_dir, *[("irreplaceable", {}, {})] * len(earlier))
    catalogue = [replace(one, bytes=size) for one, size in zip(catalogue, earlier, strict=True)]
    needed = (earlier[0] if earlier else 0) + SPARE_BYTES
    settings.backup_dir.mkdir()
    path = settings.backup_dir / "irreplaceable-2026-11-23-020000.db"

    def take() -> SourceFacts | None:
        return take_snapshot_with_room(
            settings, settings.database_path, "irreplaceable", path, catalogue, Hooks(), False
        )

    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError) as refused:
        take()
    assert refused.value.missing_bytes == 1
    leave_free(monkeypatch, needed)
    facts = take()
    assert facts is not None
    assert facts.tables == ["lab"]


def test_oldest_full_backups_give_way_to_a_new_one(
    settings: Settings, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, min_backups=1)
    for minutes in range(3):
        back_up(settings, minutes=minutes)
    catalogue = load_catalogue(settings.backup_dir)
    oldest = catalogue[-1]
    size = settings.database_path.stat().st_size
    monkeypatch.setattr(
        files, "free_bytes", lambda _folder: size + SPARE_BYTES - 1 + (not oldest.path.exists())
    )
    path = settings.backup_dir / "backtesting-2026-11-23-020000.db"
    facts = take_snapshot_with_room(
        settings, settings.database_path, "full", path, catalogue, listener.hooks, False
    )
    assert facts is not None
    assert facts.tables == ["lab", "ohlcv_data"]
    assert len(catalogue) == 2
    assert listener.said[0] == (
        f"removed {oldest.path.name}: the disk is full, and MIN_BACKUPS newer ones are kept"
    )
    assert "expired" in listener.steps
    assert Path(f"{path}.partial").exists()


# ── a small backup that goes on standing


def write_pair(
    folder: Path, *, small: dict[str, object] | None = None, full: dict[str, object] | None = None
) -> list[Backup]:
    """A small backup and a newer full one of the same contents, but for these fields."""
    path = folder / "small.db"
    path.write_bytes(b"x")
    same = {
        "content_sha256": {"lab": "h"},
        "structure_sha256": "m",
        "sha256": files.hash_file(path),
    }
    told = [("irreplaceable", {"lab": 0}, same | (small or {}))]
    if full is not None:
        told.append(("full", {"lab": 0}, same | full))
    catalogue = make_backups(folder, *told)  # type: ignore[arg-type]
    return [*catalogue[:-1], replace(catalogue[-1], path=path)]


CONTENTS = Contents({"lab": "h"}, "m", 0)
LOST = {"losses": {"lab": LOSS}}
ACCEPTED = {"losses": {"lab": LOSS}, "accepts_loss": True}


@pytest.mark.parametrize(
    ("small", "full", "holds"),
    [
        ({}, None, True),
        ({}, {}, True),
        ({"content_sha256": {"lab": "other"}}, None, False),
        ({"structure_sha256": "a"}, None, False),
        ({"structure_sha256": "z"}, None, False),
        ({"sha256": "0" * 64}, None, False),
        ({"sha256": "f" * 64}, None, False),
        # A restore would take the newer full one for the newer state.
        ({}, {"content_sha256": {"lab": "other"}}, False),
        (LOST, None, True),
        (ACCEPTED, None, True),
        ({}, LOST, False),
        (LOST, ACCEPTED, False),
        (LOST, LOST, True),
    ],
)
def test_small_backup_holds_the_same_when_every_sign_says_so(
    tmp_path: Path, small: dict[str, object], full: dict[str, object] | None, holds: bool
) -> None:
    assert holds_the_same(write_pair(tmp_path, small=small, full=full), CONTENTS) is holds


def test_nothing_holds_the_same_without_a_small_backup_or_without_contents(tmp_path: Path) -> None:
    catalogue = write_pair(tmp_path, full={})
    assert not holds_the_same([one for one in catalogue if one.kind == "full"], CONTENTS)
    assert not holds_the_same([], CONTENTS)
    assert not holds_the_same(catalogue, None)


# ── the copy


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return make_small_database(tmp_path / "copy.db", f"{LAB} {BARS} {ROWS}")


def test_copy_is_read_from_the_disk_and_told(
    copy: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: list[tuple[bool, bool]] = []

    def examine_and_note(path: Path, *, full: bool, flush: bool) -> Findings:
        how.append((full, flush))
        return examine(path, full=full, flush=flush)

    monkeypatch.setattr(backup_module, "examine", examine_and_note)
    facts = SourceFacts(["lab", "ohlcv_data"], ["lab"])
    findings = check_copy(copy, facts, True, listener.hooks)
    assert how == [(True, True)]
    assert findings.rows == {"lab": 2, "ohlcv_data": 1}
    assert listener.steps == ["checked"]
    assert listener.said == ["checked: integrity_check ok, 2 tables, 3 rows"]


def test_copy_of_a_small_backup_has_the_structure_of_its_source(copy: Path) -> None:
    contents = Contents({"lab": examine(copy).content_sha256["lab"]}, "of the source", 0)
    facts = SourceFacts(["lab", "ohlcv_data"], [], "of the source", contents)
    assert check_copy(copy, facts, False, Hooks()).structure_sha256 == "of the source"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (SourceFacts(["lab", "zzz"], []), "do not have the same tables: ohlcv_data, zzz"),
        (SourceFacts(["aaa", "lab"], []), "do not have the same tables: aaa, ohlcv_data"),
        (
            SourceFacts(["lab", "ohlcv_data"], [], "", Contents({"lab": "other"}, "", 0)),
            "the copied tables do not hold what the source held",
        ),
    ],
)
def test_copy_that_is_not_what_its_source_was_is_refused(
    copy: Path, facts: SourceFacts, message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        check_copy(copy, facts, False, Hooks())


def test_table_that_arrived_empty_is_refused(copy: Path) -> None:
    run_sql(copy, "DELETE FROM lab;")
    with pytest.raises(VerificationError, match=r"tables arrived empty .*: lab$"):
        check_copy(copy, SourceFacts(["lab", "ohlcv_data"], ["lab"]), False, Hooks())


def test_rows_that_break_a_rule_are_noted(copy: Path, listener: Listener) -> None:
    sql = "CREATE TABLE child (lab INT REFERENCES lab (id)); INSERT INTO child VALUES (99);"
    run_sql(copy, sql)
    with closing(sqlite3.connect(copy)) as database:
        database.execute("CREATE TABLE broken (x)")
        database.execute("INSERT INTO broken VALUES (NULL)")
        database.commit()
    change_text(copy, "broken", "CREATE TABLE broken (x NOT NULL)")
    check_copy(
        copy, SourceFacts(["broken", "child", "lab", "ohlcv_data"], []), False, listener.hooks
    )
    assert listener.said[1:] == [
        "note: 1 rows refer to a row that does not exist",
        "note: a row breaks a rule of its table, and is in the backup as it is: "
        "NULL value in broken.x",
    ]


# ── scripts, and what is said


def test_scripts_are_copied_up_to_the_limit_and_what_is_left_out_is_said(
    settings: Settings, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def note(_folders: object, _target: object, _name: object, *, limit_bytes: int) -> object:
        limits.append(limit_bytes)
        return SCRIPTS

    monkeypatch.setattr(backup_module, "copy_scripts", note)
    there, missing = tmp_path, tmp_path / "missing"
    settings = replace(
        settings, generated_scripts_dirs=(there, missing), generated_scripts_max_megabytes=3
    )
    path = settings.backup_dir / "backtesting-2026-11-23-020000.db"
    assert keep_scripts(settings, path, listener.hooks) is SCRIPTS
    assert limits == [3_000_000]
    assert listener.steps == ["scripts copied"]
    named = [f"not copied: {number}.csv: too large" for number in range(5)]
    assert listener.said == [
        f"no generated scripts: there is no folder {missing}",
        "generated scripts: 1,234 files",
        *named,
    ]


def test_outcome_tells_of_scripts_that_could_not_be_copied(tmp_path: Path) -> None:
    (backup,) = make_backups(tmp_path, ("full", {}, {"generated_scripts": SCRIPTS, **LOST}))
    (plain,) = make_backups(tmp_path, ("full", {}, {}))
    assert Outcome(backup, True, []).not_copied == SCRIPTS.not_copied
    assert Outcome(backup, True, []).is_suspicious is True
    assert Outcome(plain, True, []).not_copied == {}
    assert Outcome(plain, True, []).is_suspicious is False
    assert Outcome(replace(plain, manifest=None), True, []).not_copied == {}


@pytest.mark.parametrize(("accepted", "word"), [(True, "accepted: "), (False, "SUSPICIOUS, ")])
def test_what_shrank_is_said_with_what_the_user_meant(
    listener: Listener, accepted: bool, word: str
) -> None:
    say_what_shrank(
        Shrinkage({"lab": LOSS}, {"old": "new"}), accept_loss=accepted, hooks=listener.hooks
    )
    assert listener.said[0] == "note: table old seems to have been renamed to new"
    assert listener.said[1].startswith(word)
    assert "lab: 40 on " in listener.said[1]
    say_what_shrank(Shrinkage({}, {}), accept_loss=accepted, hooks=listener.hooks)
    assert len(listener.said) == 2


def test_published_backup_is_confirmed_when_the_clock_says_and_not_when_it_was_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "backtesting-2026-11-23-020000.db"
    path.with_name(f"{path.name}.partial").write_bytes(b"x")
    clock = datetime(2026, 11, 23, 2, tzinfo=UTC)
    steps: list[str] = []
    publish(make_manifest(path, "full", clock, {}), path, Hooks(step=steps.append))
    assert steps == ["manifest written", "database named", "manifest named"]
    manifest = path.with_suffix(".json")
    assert manifest.stat().st_mtime == clock.timestamp()
    confirm(manifest, clock + timedelta(hours=1))
    assert manifest.stat().st_mtime == manifest.stat().st_atime == clock.timestamp() + 3600
