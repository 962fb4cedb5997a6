"""The way back: which backup is taken, what happens to what stood there, and kills in the
middle."""

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups import verify
from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.restore import RestoreResult, restore_from_backup
from backtestdb.backups.restore_choice import choose_backup
from backtestdb.backups.verify import verify_all
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.database import connect, table_names, verify_integrity
from backtestdb.errors import ProjectError, VerificationError
from backtestdb.files import make_stamp, staging_path
from backup_tools import (
    DAMAGES,
    NOON,
    add_strategy,
    back_up,
    change,
    damage,
    environment_of,
    fingerprint,
    kill_after,
    make_platform_database,
    make_settings,
    read_all,
    run_in_child,
    strategy_names,
    time_of,
)
from commands import Project
from holder import running_holder

LATER = NOON + timedelta(days=1)
RESTORE = PROJECT_DIR / "scripts" / "restore_database.py"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    settings.generated_scripts_dirs[0].mkdir()
    (settings.generated_scripts_dirs[0] / "pattern.py").write_text("print('old')\n")
    return settings


def restore(
    settings: Settings, path: Path | None = None, hooks: Hooks | None = None
) -> RestoreResult:
    return restore_from_backup(settings, path, LATER, hooks=hooks)


def test_restore_brings_back_database_and_scripts_and_undoes_itself(settings: Settings) -> None:
    old = read_all(settings.database_path)
    back_up(settings)
    change(settings.database_path, "new")
    new = read_all(settings.database_path)
    script = settings.generated_scripts_dirs[0] / "pattern.py"
    script.write_text("print('new')\n")
    restored = restore(settings)
    assert read_all(settings.database_path) == old
    assert script.read_text() == "print('old')\n"
    (part,) = restored.scripts
    assert part.kept_as
    assert (part.kept_as / "pattern.py").read_text() == "print('new')\n"
    assert restored.replacement.kept_as
    assert restored.replacement.kept_is_sound
    assert restored.replacement.kept_as.name == f"backtesting.db.backup-{make_stamp(LATER)}"
    restore(settings, restored.replacement.kept_as)
    assert read_all(settings.database_path) == new


def test_restore_removes_what_a_first_fill_of_the_replaced_database_had_set_aside(
    settings: Settings,
) -> None:
    back_up(settings)
    staging_path(settings.database_path).write_bytes(b"sessions of the database that was replaced")
    command = [sys.executable, str(RESTORE), "--from-backup", "--yes"]
    subprocess.run(command, check=True, capture_output=True, env=environment_of(settings))
    assert not staging_path(settings.database_path).exists()


def test_restore_puts_a_newer_small_backup_on_top_of_the_full_one(settings: Settings) -> None:
    back_up(settings)
    with closing(connect(settings.database_path)) as connection:
        add_strategy(connection, "after the full one")
        connection.execute("DELETE FROM ohlcv_data")
    back_up(settings, "irreplaceable", minutes=60)
    expected = strategy_names(settings.database_path)
    settings.database_path.unlink()
    restored = restore(settings)
    assert restored.replacement.kept_as is None
    assert strategy_names(settings.database_path) == expected
    assert len(read_all(settings.database_path)["ohlcv_data"]) == 2000


def test_restore_passes_over_newer_backups_that_do_not_verify_and_says_why(
    settings: Settings,
) -> None:
    for minutes in range(3):
        change(settings.database_path, f"minute {minutes}")
        back_up(settings, minutes=minutes)
    backups = sorted(settings.backup_dir.glob("backtesting-*.db"))
    damage(backups[2], "value", random.Random(1), backups[0])
    backups[1].with_suffix(".json").write_text("{}")
    said: list[str] = []
    restore(settings, hooks=Hooks(say=said.append))
    assert strategy_names(settings.database_path)[-1] == "minute 0"
    passed_over = [message.split(":")[0] for message in said if message.startswith("passed over")]
    assert passed_over == [f"passed over {b.name}" for b in backups[:0:-1]]


def test_restore_without_any_good_backup_is_refused_and_changes_nothing(settings: Settings) -> None:
    before = read_all(settings.database_path)
    with pytest.raises(VerificationError, match="no backup in"):
        restore(settings)
    assert read_all(settings.database_path) == before


def test_restore_that_is_not_approved_changes_nothing(settings: Settings) -> None:
    back_up(settings)
    change(settings.database_path, "new")
    with pytest.raises(ProjectError, match="nothing was changed"):
        restore_from_backup(settings, None, LATER, approve=lambda _choice: False)
    assert strategy_names(settings.database_path)[-1] == "new"
    assert not list(settings.database_path.parent.glob("*.backup-*"))


def test_restore_of_a_foreign_file_in_wal_mode_includes_its_log(
    settings: Settings, tmp_path: Path
) -> None:
    foreign = make_platform_database(tmp_path / "copied" / "file.db", word="foreign", journal="WAL")
    with closing(connect(foreign)) as connection:
        add_strategy(connection, "only in the log")
        for suffix in ("", "-wal"):
            shutil.copy(f"{foreign}{suffix}", f"{foreign}.copy{suffix}")
    restore(settings, Path(f"{foreign}.copy"))
    assert strategy_names(settings.database_path)[-1] == "only in the log"


def test_restore_over_a_file_that_is_no_database_moves_it_aside_with_its_journals(
    settings: Settings,
) -> None:
    old = read_all(settings.database_path)
    back_up(settings)
    settings.database_path.write_bytes(b"no database" * 1000)
    Path(f"{settings.database_path}-wal").write_bytes(b"its log")
    restored = restore(settings)
    assert read_all(settings.database_path) == old
    assert restored.replacement.moved_to
    assert not restored.replacement.kept_is_sound
    assert Path(f"{restored.replacement.moved_to}-wal").read_bytes() == b"its log"


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_restore_of_a_small_backup_keeps_the_market_data_that_is_there(
    settings: Settings, journal: str
) -> None:
    with closing(connect(settings.database_path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    expected = read_all(settings.database_path)
    small = back_up(settings, "irreplaceable").backup.path
    with (
        closing(connect(settings.database_path)) as connection,
        closing(connect(settings.database_path)) as reader,
    ):
        reader.execute("SELECT * FROM strategies").fetchone()
        connection.execute("UPDATE strategies SET name = 'overwritten'")
        connection.execute("DELETE FROM ohlcv_data WHERE id > 500")
        restored = restore(settings, small)
        names = {name for (name,) in reader.execute("SELECT name FROM strategies")}
    now = read_all(settings.database_path)
    assert "overwritten" not in names
    assert len(now["ohlcv_data"]) == 500
    assert {t: rows for t, rows in now.items() if t != "ohlcv_data"} == {
        t: rows for t, rows in expected.items() if t != "ohlcv_data"
    }
    assert restored.replacement.kept_as
    assert set(strategy_names(restored.replacement.kept_as)) == {"overwritten"}


@pytest.mark.parametrize("present", [None, b"no database" * 1000])
def test_restore_of_a_small_backup_alone_makes_a_new_schema(
    settings: Settings, present: bytes | None
) -> None:
    expected = strategy_names(settings.database_path)
    small = back_up(settings, "irreplaceable").backup.path
    settings.database_path.unlink()
    if present:
        settings.database_path.write_bytes(present)
    restore(settings, small)
    assert strategy_names(settings.database_path) == expected
    assert read_all(settings.database_path)["ohlcv_data"] == []


def test_restore_command_shows_what_there_is_now_and_how_to_undo(settings: Settings) -> None:
    back_up(settings)
    done = subprocess.run(
        [sys.executable, str(RESTORE), "--from-backup"],
        env=environment_of(settings),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tech_sector" in done.stdout
    assert "2,000" in done.stdout
    assert "undo with: make restore-from-backup BACKUP=" in done.stdout


def damage_and_refuse(settings: Settings, seed: int) -> None:
    """Damage one backup in one of the ways; verify and restore must both refuse it."""
    backups = sorted(settings.backup_dir.glob("backtesting-*.db"))
    victim, other = backups
    good = victim.read_bytes()
    way = DAMAGES[seed % len(DAMAGES)]
    damage(victim, way, random.Random(seed), other)
    before = settings.database_path.read_bytes()
    try:
        assert list(verify_all(load_catalogue(settings.backup_dir), full=False, say=str)) == [
            victim
        ]
        with pytest.raises(VerificationError):
            restore(settings, victim)
        assert settings.database_path.read_bytes() == before
        assert not list(settings.database_path.parent.glob("*.backup-*"))
    finally:
        victim.write_bytes(good)


@pytest.fixture
def two_backups(settings: Settings) -> Settings:
    back_up(settings)
    change(settings.database_path, "new")
    back_up(settings, minutes=1)
    return settings


def test_damaged_backup_is_refused_by_verify_and_restore(two_backups: Settings) -> None:
    for seed in range(2 * len(DAMAGES)):
        damage_and_refuse(two_backups, seed)


@pytest.mark.long
def test_300_damages_are_refused_by_verify_and_restore(two_backups: Settings) -> None:
    for seed in range(1000, 1300):
        damage_and_refuse(two_backups, seed)


STATES = ("clean", "hot WAL", "hot journal")
# A program that has the database open, and has read it.
READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60)
connection.execute("SELECT count(*) FROM strategies").fetchone()
print("held", flush=True)
sys.stdin.read()
"""


def make_live(path: Path, state: str, bars: int) -> None:
    """The database of a program that was killed: with a log that holds commits, or in the middle of
    one."""
    make_platform_database(path, bars=bars, journal="WAL" if state == "hot WAL" else "DELETE")

    def die() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        if state == "hot WAL":
            add_strategy(connection, "in the log")
        else:
            connection.execute("PRAGMA cache_size = 5")
            connection.execute("BEGIN")
            connection.execute("UPDATE strategies SET name = 'never committed'")
            connection.execute("UPDATE ohlcv_data SET volume = volume + 1")
        os.kill(os.getpid(), signal.SIGKILL)

    if state != "clean":
        os.waitpid(run_in_child(die), 0)
        assert Path(f"{path}{'-wal' if state == 'hot WAL' else '-journal'}").stat().st_size > 1000


def put_files(template: Path, target: Path) -> None:
    for old in target.parent.glob(target.name + "*"):
        old.unlink()
    for path in template.parent.glob(template.name + "*"):
        shutil.copy(path, target.with_name(target.name + path.name.removeprefix(template.name)))


def kill_restores(
    tmp_path: Path, state: str, reader: bool, *, kills: int, bars: int
) -> dict[str, int]:
    """Kill a restore at seeded moments; whatever the moment, the database is the old or the new
    one. Even seeds kill at any time of its life, odd ones once the old database is kept and is
    being replaced."""
    settings = make_settings(tmp_path)
    template = tmp_path / "template" / "live.db"
    make_platform_database(settings.database_path, word="new", bars=bars - 500, journal="WAL")
    back_up(settings)
    new = fingerprint(settings.database_path)
    make_live(template, state, bars)
    put_files(template, settings.database_path)
    old = fingerprint(settings.database_path)
    assert ("in the log" in strategy_names(settings.database_path)) == (state == "hot WAL")
    put_files(template, settings.database_path)
    whole = time_of(lambda: restore_from_backup(settings, None, datetime.now(UTC)))
    seen = {"old": 0, "new": 0, "not killed": 0}
    seeds = itertools.count(1000)
    while seen["old"] + seen["new"] < kills:
        seed = next(seeds)
        chance = random.Random(seed)
        put_files(template, settings.database_path)
        with running_holder(READER, settings.database_path) if reader else nullcontext():
            child = run_in_child(lambda: restore_from_backup(settings, None, datetime.now(UTC)))
            if seed % 2:
                wait_until_kept(settings.database_path)
                killed = kill_after(child, chance.uniform(0, 0.4) * whole)
            else:
                killed = kill_after(child, chance.uniform(0.2, 1) * whole)
            with closing(connect(settings.database_path)) as connection:
                verify_integrity(connection, full=True)
            found = fingerprint(settings.database_path)
            assert found in (old, new), f"{state}, reader {reader}, seed {seed}"
        seen["not killed" if not killed else "new" if found == new else "old"] += 1
        if seed % 10 == 0:
            restore_from_backup(settings, None, datetime.now(UTC))
            assert fingerprint(settings.database_path) == new
            assert not list(settings.database_path.parent.glob("*.arriving*"))
    return seen


def wait_until_kept(database: Path) -> None:
    deadline = time.monotonic() + 30
    while not any(
        path.name[-1].isdigit() for path in database.parent.glob(f"{database.name}.backup-*")
    ):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_restore_killed_leaves_the_old_or_the_new_database(
    tmp_path: Path, state: str, reader: bool
) -> None:
    kill_restores(tmp_path, state, reader, kills=2, bars=8000)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_restore_killed_200_times(tmp_path: Path, state: str, reader: bool) -> None:
    seen = kill_restores(tmp_path, state, reader, kills=200, bars=30_000)
    print(state, reader, seen)
    assert seen["old"]
    assert seen["new"]


def kill_merges(tmp_path: Path, seeds: range) -> None:
    settings = make_settings(tmp_path)
    template = tmp_path / "template" / "live.db"
    make_platform_database(settings.database_path, word="new", bars=10)
    small = back_up(settings, "irreplaceable").backup.path
    make_platform_database(template, bars=30_000)
    put_files(template, settings.database_path)
    old = strategy_names(settings.database_path)
    whole = time_of(lambda: restore_from_backup(settings, small, datetime.now(UTC)))
    new = strategy_names(settings.database_path)
    for seed in seeds:
        put_files(template, settings.database_path)
        child = run_in_child(lambda: restore_from_backup(settings, small, datetime.now(UTC)))
        kill_after(child, random.Random(seed).uniform(0.2, 1.1) * whole)
        assert strategy_names(settings.database_path) in (old, new)
        with closing(connect(settings.database_path)) as connection:
            verify_integrity(connection, full=True)
            assert connection.execute("SELECT count(*) FROM ohlcv_data").fetchone() == (30_000,)


def test_merge_of_a_small_backup_killed_leaves_the_old_or_the_new_rows(tmp_path: Path) -> None:
    kill_merges(tmp_path, range(3))


@pytest.mark.long
def test_merge_of_a_small_backup_killed_200_times(tmp_path: Path) -> None:
    kill_merges(tmp_path, range(1000, 1200))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_small_backup_of_5_million_bars_is_small_and_merges_back_without_a_difference(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path)
    live = make_platform_database(settings.database_path, bars=5_000_000)
    small = back_up(settings, "irreplaceable").backup
    print(f"{small.bytes:,} of {live.stat().st_size:,} bytes")
    assert small.bytes < live.stat().st_size / 100
    shutil.copy(live, tmp_path / "before.db")
    with closing(connect(live)) as connection:
        connection.execute("UPDATE strategies SET name = 'overwritten', config = ''")
        connection.execute("DELETE FROM strategies WHERE id > 10")
        connection.execute("DROP TABLE conversations")
    restore(settings, small.path)
    with closing(connect(live)) as connection:
        verify_integrity(connection)
        connection.execute("ATTACH ? AS before", (str(tmp_path / "before.db"),))
        for table in table_names(connection, "before"):
            for one, other in (("main", "before"), ("before", "main")):
                query = (
                    "SELECT count(*) "
                    f"FROM (SELECT * FROM {one}.{table} EXCEPT SELECT * FROM {other}.{table})"
                )
                assert connection.execute(query).fetchone() == (0,), table


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        MemoryError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    ],
)
def test_any_error_of_one_backup_passes_on_to_the_next_and_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    good = back_up(settings).backup
    change(settings.database_path, "newer")
    bad = back_up(settings, minutes=1).backup
    examine = verify.examine

    def fail_for_one(path: Path, **options: bool) -> verify.Findings:
        if path == bad.path:
            raise error
        return examine(path, **options)

    monkeypatch.setattr(verify, "examine", fail_for_one)
    choice = choose_backup(settings.backup_dir, settings.database_path, None, str)
    assert choice.full
    assert choice.full.path == good.path
    assert [left.backup.path for left in choice.left_out] == [bad.path]


def test_restore_without_the_newest_small_backup_names_it_and_is_exit_code_3(
    tmp_path: Path,
) -> None:
    """A passing read error of the newest one was once a restore without it, exit 0."""
    project = Project(tmp_path)
    make_platform_database(project.database, bars=10)
    project.check("backup_database.py")
    change(project.database, "newer")
    project.check("backup_database.py", "--irreplaceable-only")
    (small,) = (tmp_path / "backups").glob("irreplaceable-*.db")
    data = small.read_bytes()
    small.write_bytes(data[:-9] + bytes(9))
    said = project.check("restore_database.py", "--from-backup", "--yes", expect=3)
    assert f"left out: {small.name}" in said
    small.write_bytes(data)
    project.check("restore_database.py", "--from-backup", "--yes")
    assert strategy_names(project.database)[-1] == "newer"
