"""A disk that fills up in the middle: exit 1, the cause named, nothing lost, nothing pruned."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb import console
from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.restore import restore_from_backup
from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SpaceError
from backup_tools import (
    back_up,
    change,
    leftovers,
    make_platform_database,
    make_settings,
    read_all,
    verify_every_listed,
)
from small_disk import fill, leave_free, small_disk

pytestmark = pytest.mark.root
DISK_BYTES = 12 << 20


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def exit_code_of(work: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def main(_arguments: object) -> int:
        work()
        return 0

    code = console.guard(main, None)
    return code, capsys.readouterr().err


@pytest.fixture
def settings(tmp_path: Path, tiny_disk: Path) -> Settings:
    settings = make_settings(tmp_path, backup_dir=tiny_disk / "backups", max_backups=2)
    make_platform_database(settings.database_path, bars=6000)
    settings.generated_scripts_dirs[0].mkdir()
    (settings.generated_scripts_dirs[0] / "large.py").write_bytes(b"# pattern\n" * 100_000)
    for minutes in range(2):
        back_up(settings, minutes=minutes)
    return settings


@pytest.fixture
def filled_after_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the free space comes too early: somebody else fills the disk after it."""
    leave_free(monkeypatch, 1 << 40)


@pytest.mark.usefixtures("filled_after_the_look")
@pytest.mark.parametrize(
    ("step", "leave_bytes"),
    [("pinned", 300_000), ("scripts copied", 0)],
    ids=["snapshot", "manifest"],
)
def test_disk_that_fills_during_a_backup_fails_it_and_loses_nothing(
    settings: Settings,
    tiny_disk: Path,
    step: str,
    leave_bytes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [backup.path for backup in verify_every_listed(settings.backup_dir)]

    def fill_at(name: str) -> None:
        if name == step:
            fill(tiny_disk, leave_bytes)

    work = lambda: back_up(settings, minutes=9, hooks=Hooks(step=fill_at))  # noqa: E731
    code, message = exit_code_of(work, capsys)
    assert code == 1
    assert "the disk is full" in message
    assert [backup.path for backup in verify_every_listed(settings.backup_dir)] == before
    assert leftovers(settings.backup_dir) == []
    (tiny_disk / "filler").unlink()
    back_up(settings, minutes=10)
    assert len(verify_every_listed(settings.backup_dir)) == 2


@pytest.mark.usefixtures("filled_after_the_look")
def test_disk_that_fills_during_the_copy_of_the_scripts_costs_that_script_alone(
    settings: Settings, tiny_disk: Path
) -> None:
    fill_at = lambda name: fill(tiny_disk, 100_000) if name == "checked" else None  # noqa: E731
    outcome = back_up(settings, minutes=9, hooks=Hooks(step=fill_at))
    assert set(outcome.not_copied) == {"large.py"}
    assert outcome.backup in verify_every_listed(settings.backup_dir)
    assert leftovers(settings.backup_dir) == []


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
def test_disk_that_is_full_already_is_named_with_the_missing_bytes(
    settings: Settings, tiny_disk: Path, kind: str
) -> None:
    fill(tiny_disk, 100_000)
    with pytest.raises(SpaceError, match=r"bytes in .*backups; .* are missing"):
        back_up(settings, kind, minutes=9)
    assert leftovers(settings.backup_dir) == []
    assert len(verify_every_listed(settings.backup_dir)) == 2


@pytest.mark.usefixtures("filled_after_the_look")
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.2, 1.6])
def test_disk_that_fills_during_a_restore_leaves_the_old_database(
    settings: Settings,
    tiny_disk: Path,
    share: float,
    journal: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backups = [backup.path for backup in verify_every_listed(settings.backup_dir)]
    for path in backups[1:]:
        path.with_suffix(".json").unlink()
        path.unlink()
    live = replace(settings, database_path=tiny_disk / "live.db")
    make_platform_database(live.database_path, word="other", bars=6000, journal=journal)
    before = read_all(live.database_path)
    fill(tiny_disk, int(share * live.database_path.stat().st_size))
    code, message = exit_code_of(
        lambda: restore_from_backup(live, backups[0], datetime.now(UTC)), capsys
    )
    assert code == 1, "the disk had room enough"
    assert "disk is full" in message
    assert read_all(live.database_path) == before
    (tiny_disk / "filler").unlink()
    assert len(verify_every_listed(settings.backup_dir)) == 1


def test_restore_without_room_is_refused_before_anything_is_written(
    settings: Settings, tiny_disk: Path
) -> None:
    live = replace(settings, database_path=tiny_disk / "live.db")
    make_platform_database(live.database_path, word="other", bars=6000)
    fill(tiny_disk, 100_000)
    with pytest.raises(SpaceError, match="are missing"):
        restore_from_backup(live, load_catalogue(settings.backup_dir)[0].path, datetime.now(UTC))
    assert not list(tiny_disk.glob("live.db?*"))


def test_backup_folder_whose_disk_went_away_is_refused(settings: Settings, tiny_disk: Path) -> None:
    subprocess.run(["umount", str(tiny_disk)], check=True)
    try:
        with pytest.raises(ProjectError, match="nothing is mounted at"):
            back_up(settings, minutes=9)
        assert list(tiny_disk.iterdir()) == []
    finally:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tiny_disk)], check=True)


def test_backup_to_a_read_only_disk_is_refused(
    settings: Settings, tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(settings.database_path, "new")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    try:
        code, message = exit_code_of(lambda: back_up(settings, minutes=9), capsys)
        assert code == 1
        assert "Read-only file system" in message
        restore_from_backup(settings, None, datetime.now(UTC))
        assert "new" not in str(read_all(settings.database_path)["strategies"])
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
