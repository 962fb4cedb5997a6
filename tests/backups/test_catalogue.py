"""What counts as a backup: names and manifests, never trust."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups.adopt import adopt
from backtestdb.backups.catalogue import choose_name, load_catalogue, look_at_backup
from backtestdb.backups.manifest import load_manifest, write_manifest
from backtestdb.backups.verify import verify_all
from backtestdb.config import Settings
from backtestdb.errors import UsageError, VerificationError
from backtestdb.files import make_stamp
from backup_tools import (
    NOON,
    back_up,
    damage,
    make_platform_database,
    make_settings,
    verified_names,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    back_up(settings)
    return settings


@pytest.fixture
def manifest_path(settings: Settings) -> Path:
    return load_catalogue(settings.backup_dir)[0].manifest_path


def test_manifest_is_read_as_it_was_written(manifest_path: Path, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_path)
    write_manifest(manifest, tmp_path / manifest_path.name)
    assert load_manifest(tmp_path / manifest_path.name) == manifest


WRONG_VALUES = {
    "format": 3,
    "database_id": None,
    "earlier_paths": [1],
    "losses": {"agents": {"before": 40}},
    "accepts_loss": 0,
    "renames": {"a": 1},
    "content_format": "1",
    "kind": "other",
    "file": "backtesting-2000-01-01-000000.db",
    "taken_at_utc": "2026-11-20T12:00:00",
    "clock_utc": "noon",
    "bytes": "12",
    "sha256": None,
    "rows": {"strategies": "50"},
    "schema_version": True,
    "content_sha256": [],
    "generated_scripts": {"folder": "x"},
}


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, "wrong") for name in WRONG_VALUES]
    + [(name, "missing") for name in WRONG_VALUES if name != "generated_scripts"],
)
def test_manifest_with_a_wrong_or_missing_value_makes_no_backup(
    settings: Settings, manifest_path: Path, name: str, way: str
) -> None:
    values = json.loads(manifest_path.read_text())
    if way == "wrong":
        values[name] = WRONG_VALUES[name]
    else:
        del values[name]
    manifest_path.write_text(json.dumps(values))
    backup = load_catalogue(settings.backup_dir)[0]
    assert not backup.is_verified
    assert backup.problem
    assert list(verify_all([backup], full=False, say=str)) == [backup.path]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"a": 1e999', "[" * 100_000])
def test_manifest_that_is_no_manifest_makes_no_backup(
    settings: Settings, manifest_path: Path, text: str
) -> None:
    manifest_path.write_text(text)
    assert verified_names(settings.backup_dir) == set()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_backup_beside_which_a_journal_stands_is_not_counted(
    settings: Settings, suffix: str
) -> None:
    path = load_catalogue(settings.backup_dir)[0].path
    Path(f"{path}{suffix}").write_bytes(b"journal")
    assert verified_names(settings.backup_dir) == set()


def test_foreign_files_are_listed_and_make_verify_fail_for_nobody(settings: Settings) -> None:
    (settings.backup_dir / "backtesting-2020-01-01-000000.db").write_bytes(b"foreign")
    (settings.backup_dir / "backtesting-9999-99-99-999999.db").write_bytes(b"no such day")
    (settings.backup_dir / "notes.db").write_bytes(b"not named like a backup")
    catalogue = load_catalogue(settings.backup_dir)
    assert sorted(backup.problem for backup in catalogue) == ["", "no manifest", "no manifest"]
    assert verify_all(catalogue, full=False, say=str) == {}


def test_foreign_backup_that_passes_is_adopted_and_then_counts(
    settings: Settings, tmp_path: Path
) -> None:
    foreign = settings.backup_dir / "backtesting-2024-03-01-020000.db"
    make_platform_database(foreign, journal="WAL")
    adopted = adopt(foreign, settings.backup_dir, settings.database_path, NOON)
    assert adopted.is_verified
    assert adopted.taken_at_utc == datetime(2024, 3, 1, 2).astimezone(UTC)
    assert verify_all(load_catalogue(settings.backup_dir), full=True, say=str) == {}
    with pytest.raises(UsageError, match="is not named"):
        adopt(
            make_platform_database(tmp_path / "elsewhere.db"),
            settings.backup_dir,
            settings.database_path,
            NOON,
        )


@pytest.mark.parametrize("way", ["cut", "cut at a page", "empty", "zeroed"])
def test_foreign_backup_that_does_not_pass_is_not_adopted(settings: Settings, way: str) -> None:
    foreign = make_platform_database(settings.backup_dir / "backtesting-2024-03-01-020000.db")
    damage(foreign, way, random.Random(3), foreign)
    before = foreign.read_bytes()
    with pytest.raises(VerificationError):
        adopt(foreign, settings.backup_dir, settings.database_path, NOON)
    assert not look_at_backup(foreign).is_verified
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_names_in_the_hour_that_comes_twice_are_all_different(tmp_path: Path, zone: str) -> None:
    from zoneinfo import ZoneInfo

    made = []
    for minutes in range(0, 60 * 9, 15):
        now = (datetime(2026, 10, 25, tzinfo=UTC) + timedelta(minutes=minutes)).astimezone(
            ZoneInfo(zone)
        )
        path = choose_name(tmp_path, "full", now)
        path.touch()
        made.append(path)
    assert len(set(made)) == 36
    stamp = make_stamp(datetime(2026, 10, 25, tzinfo=UTC).astimezone(ZoneInfo(zone)))
    assert made[0].name == f"backtesting-{stamp}.db"


def test_small_backup_found_unchanged_is_confirmed_at_that_time(settings: Settings) -> None:
    first = back_up(settings, "irreplaceable").backup
    # After the full one of this moment.
    assert first.taken_at_utc == NOON + timedelta(milliseconds=1)
    assert first.confirmed_at_utc == NOON  # what the clock said
    again = back_up(settings, "irreplaceable", minutes=60).backup
    assert again.path == first.path
    assert again.confirmed_at_utc == NOON + timedelta(minutes=60)
