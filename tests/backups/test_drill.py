"""The drill: a real restore of real backups, green on good ones, red on each that is damaged."""

import json
import random
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups import drill as drill_module
from backtestdb.backups.catalogue import FAILED_DRILL, load_catalogue
from backtestdb.backups.drill import (
    Drill,
    drill_folder,
    drill_is_due,
    load_drills,
    load_last_drill,
    run_drill,
    save_drill,
)
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.errors import ProjectError
from backtestdb.scheduling.health import find_kinds_that_failed_a_drill
from backup_tools import (
    DAMAGES,
    NOON,
    back_up,
    change,
    damage,
    make_platform_database,
    make_settings,
    strategy_names,
)
from commands import Project
from platform_database import make_used_database

QUICK_SEEDS = range(len(DAMAGES))
LONG_SEEDS = range(1000, 1100)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    settings.generated_scripts_dirs[0].mkdir()
    (settings.generated_scripts_dirs[0] / "scan.py").write_text("print('scan')\n")
    back_up(settings)
    change(settings.database_path, "new")
    back_up(settings, minutes=1)
    back_up(settings, "irreplaceable", minutes=2)
    return settings


def left_in(settings: Settings) -> set[str]:
    return {path.name for path in drill_folder(settings.backup_dir).iterdir()}


def test_drill_of_good_backups_is_green_and_leaves_a_report_and_nothing_else(
    settings: Settings,
) -> None:
    before = settings.database_path.read_bytes()
    drill, report = run_drill(settings, NOON)
    assert drill.is_good
    assert [(r.kind, r.problem) for r in drill.rehearsals] == [("full", ""), ("irreplaceable", "")]
    assert all(r.seconds > 0 and r.rows for r in drill.rehearsals)
    assert json.loads(report.read_text())["is_good"] is True
    assert left_in(settings) == {".lock", "history.jsonl", report.name}
    assert load_last_drill(settings.backup_dir, settings.database_path) == drill
    assert settings.database_path.read_bytes() == before
    assert strategy_names(settings.database_path)[-1] == "new"


def drill_on_damage(settings: Settings, kind: str, seed: int) -> None:
    name = {"full": "backtesting", "irreplaceable": "irreplaceable"}[kind]
    victim = max(settings.backup_dir.glob(f"{name}-*.db"))
    other = min(settings.backup_dir.glob("backtesting-*.db"))
    good = victim.read_bytes()
    damage(victim, DAMAGES[seed % len(DAMAGES)], random.Random(seed), other)
    try:
        drill, _ = run_drill(settings, NOON + timedelta(minutes=seed))
    finally:
        victim.write_bytes(good)
    bad = [rehearsal for rehearsal in drill.rehearsals if not rehearsal.is_good]
    assert not drill.is_good
    assert [(rehearsal.backup, bool(rehearsal.problem)) for rehearsal in bad] == [
        (victim.name, True)
    ]
    assert "scratch" not in left_in(settings)


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
def test_drill_of_a_damaged_backup_is_red_and_names_it(settings: Settings, kind: str) -> None:
    for seed in QUICK_SEEDS:
        drill_on_damage(settings, kind, seed)
        forget_drills(settings)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
def test_drill_of_100_damaged_backups_is_red_each_time(settings: Settings, kind: str) -> None:
    for seed in LONG_SEEDS:
        drill_on_damage(settings, kind, seed)
        forget_drills(settings)


def forget_drills(settings: Settings) -> None:
    """A backup that a drill could not restore is left out of the next one."""
    for failed in settings.backup_dir.glob(f"*{FAILED_DRILL}"):
        failed.unlink()


def test_backup_that_a_drill_could_not_restore_counts_no_more_and_a_new_one_is_due(
    settings: Settings,
) -> None:
    newest = max(settings.backup_dir.glob("backtesting-*.db"))
    script = max(settings.backup_dir.glob("claude-scripts-*")) / "scan.py"
    script.write_text("print('another script')\n")
    drill, _ = run_drill(settings, NOON)
    assert not drill.is_good
    (marked,) = [
        backup
        for backup in load_catalogue(settings.backup_dir)
        if "drill could not" in backup.problem
    ]
    assert (marked.path, marked.is_verified) == (newest, False)
    assert find_kinds_that_failed_a_drill(settings.backup_dir, settings.database_path) == ["full"]
    back_up(settings, "full", minutes=600)
    assert find_kinds_that_failed_a_drill(settings.backup_dir, settings.database_path) == []


@pytest.mark.parametrize("way", ["cut", "other table", "deleted database", "deleted script"])
def test_drill_of_a_backup_whose_other_parts_are_damaged_is_red(
    settings: Settings, way: str
) -> None:
    newest = max(settings.backup_dir.glob("backtesting-*.db"))
    manifest = newest.with_suffix(".json")
    if way == "cut":
        manifest.write_bytes(manifest.read_bytes()[:-40])
    elif way == "other table":
        values = json.loads(manifest.read_text())
        values["content_sha256"]["strategies"] = "0" * 64
        manifest.write_text(json.dumps(values))
    elif way == "deleted database":
        newest.unlink()
    else:
        (max(settings.backup_dir.glob("claude-scripts-*")) / "scan.py").unlink()
    drill, _ = run_drill(settings, NOON)
    assert [r.is_good for r in drill.rehearsals] == [False, True]


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        ("DELETE FROM strategies WHERE id = 3", "rows instead of"),
        ("UPDATE strategies SET name = 'x' WHERE id = 3", "other rows"),
    ],
)
def test_drill_of_a_restore_that_brings_other_rows_is_red(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, loss: str, found: str
) -> None:
    def restore_badly(aside: Settings, backup: Path, now: datetime) -> None:
        restore_from_backup(aside, backup, now)
        with closing(connect(aside.database_path)) as connection:
            connection.execute(loss)

    monkeypatch.setattr(drill_module, "restore_from_backup", restore_badly)
    drill, _ = run_drill(settings, NOON)
    assert [found in rehearsal.problem for rehearsal in drill.rehearsals] == [True, True]


def test_drill_without_any_backup_says_so_and_is_no_drill(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with pytest.raises(ProjectError, match=r"no backup .* to try"):
        run_drill(settings, NOON)
    assert load_drills(settings.backup_dir, settings.database_path) == []


def test_drill_takes_no_foreign_file_for_a_backup(settings: Settings) -> None:
    (settings.backup_dir / "backtesting-2030-01-01-000000.db").write_bytes(b"something else")
    drill, _ = run_drill(settings, NOON)
    assert drill.is_good


def test_drill_cleans_what_a_killed_one_left(settings: Settings) -> None:
    scratch = drill_folder(settings.backup_dir) / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "backtesting.db").write_bytes(b"half")
    assert run_drill(settings, NOON)[0].is_good
    assert not scratch.exists()


def test_history_stays_bounded_and_survives_a_broken_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_module, "HISTORY_LINES", 5)
    monkeypatch.setattr(drill_module, "REPORTS_KEPT", 3)
    folder = drill_folder(tmp_path)
    folder.mkdir()
    drills = [
        Drill(
            started_at_utc=NOON + timedelta(days=n), is_good=bool(n % 2), problem="", rehearsals=()
        )
        for n in range(12)
    ]
    for drill in drills:
        save_drill(drill, folder, drill.started_at_utc)
    assert load_drills(tmp_path, tmp_path / "backtesting.db") == drills[-5:]
    assert len(list(folder.glob("drill-*.json"))) == 3
    with (folder / "history.jsonl").open("a") as history:
        history.write('{"half": \n')
    assert load_last_drill(tmp_path, tmp_path / "backtesting.db") == drills[-1]


@pytest.mark.parametrize(
    ("age", "was_good", "due"),
    [
        (timedelta(days=6, hours=23), True, False),
        (timedelta(days=7), True, True),
        (timedelta(hours=23), False, False),
        (timedelta(hours=24), False, True),
        (timedelta(hours=-1), True, True),
    ],
)
def test_drill_is_due_weekly_and_daily_after_a_failure(
    age: timedelta, was_good: bool, due: bool
) -> None:
    now = datetime(2026, 11, 22, 3, tzinfo=UTC)
    assert (
        drill_is_due(
            Drill(started_at_utc=now - age, is_good=was_good, problem="", rehearsals=()), now
        )
        is due
    )
    assert drill_is_due(None, now)


def test_command_ends_with_1_when_a_backup_is_bad(tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_used_database(project.database)
    project.check("backup_database.py")
    assert "yes" in project.check("run_drill.py")
    (backup,) = (tmp_path / "backups").glob("backtesting-*.db")
    damage(backup, "anywhere", random.Random(1), backup)
    report = json.loads(project.run("run_drill.py", "--json").stdout)
    assert report["is_good"] is False
    assert "no backup" in project.check("run_drill.py", expect=1)
    project.check("backup_database.py")
    assert "yes" in project.check("run_drill.py")
