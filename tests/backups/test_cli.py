"""`make restore-from-backup` from the question to the exit code, on a database of a few rows."""

import io
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from backtestdb.backups import cli
from backtestdb.backups.cli import load_kept_rows, run_restore_from_backup
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.errors import DeclinedError, VerificationError
from backtestdb.files import staging_path
from backup_tools import NOON, back_up, flip_bit, make_settings
from small_database import make_small_database

LATER = NOON + timedelta(days=1)
LAB = "CREATE TABLE lab (id INTEGER PRIMARY KEY, name TEXT);"
BARS = "CREATE TABLE ohlcv_data (id INTEGER PRIMARY KEY, timeframe TEXT);"
ROWS = "INSERT INTO lab VALUES (1, 'old'), (2, 'old'); INSERT INTO ohlcv_data VALUES (1, '1day');"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two rows and its backup; since then one of them was lost, and one changed."""
    folder = tmp_path_factory.mktemp("original")
    settings = make_settings(folder)
    settings.database_path.parent.mkdir()
    make_small_database(settings.database_path, f"{LAB} {BARS} {ROWS}")
    back_up(settings)
    with closing(sqlite3.connect(settings.database_path)) as database:
        database.executescript("DELETE FROM lab WHERE id = 2; UPDATE lab SET name = 'new';")
    return folder


@pytest.fixture
def settings(original: Path, tmp_path: Path) -> Settings:
    shutil.copytree(original, tmp_path / "all")
    settings = make_settings(tmp_path / "all")
    for manifest in settings.backup_dir.glob("*.json"):
        text = manifest.read_text()
        manifest.write_text(text.replace(str(original), str(tmp_path / "all")))
    staging_path(settings.database_path).write_text("whole sessions of the database of before")
    return settings


def names_in(settings: Settings) -> list[str]:
    with closing(connect(settings.database_path, read_only=True)) as database:
        return [name for (name,) in database.execute("SELECT name FROM lab ORDER BY id")]


def test_restore_says_what_it_takes_what_changes_and_what_was_restored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # each row of a table as a block of lines
    assert run_restore_from_backup(settings, None, LATER, assume_yes=True) == 0
    assert names_in(settings) == ["old", "old"]
    said = capsys.readouterr()
    (backup,) = settings.backup_dir.glob("*.db")
    assert f" restoring {backup} of " in said.err
    lines = said.out.splitlines()
    assert lines[:5] == [
        "rows that no download brings back",
        *("  lab", "    now       1", "    restored  2"),
        "0 of 1 such tables keep their number of rows",
    ]
    assert lines[5].startswith(f"restored {settings.database_path}: {backup} of ")
    assert lines[-1].startswith("undo with: make restore-from-backup BACKUP=")
    assert "file locks" not in said.err
    # What was staged belonged to the database of before.
    assert not staging_path(settings.database_path).exists()


def test_restore_that_is_answered_with_no_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = settings.database_path.read_bytes()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(DeclinedError):
        run_restore_from_backup(settings, None, LATER, assume_yes=False)
    assert f"Replace {settings.database_path}? [y/N]" in capsys.readouterr().err
    assert settings.database_path.read_bytes() == before
    assert staging_path(settings.database_path).exists()


def test_restore_that_passed_over_a_newer_backup_ends_with_3(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    back_up(settings, minutes=60)
    newest = max(settings.backup_dir.glob("*.db"))
    flip_bit(newest, newest.stat().st_size - 1, 0)
    assert run_restore_from_backup(settings, None, LATER, assume_yes=True) == 3
    assert names_in(settings) == ["old", "old"]
    assert f"error: left out: {newest.name} of " in capsys.readouterr().err


def test_suspicious_backup_is_restored_only_when_all_are_meant(settings: Settings) -> None:
    (manifest,) = settings.backup_dir.glob("*.json")
    lost = '{"lab": {"before": 40, "before_at_utc": "2026-11-19T02:00:00Z", "now": 2}}'
    manifest.write_text(manifest.read_text().replace('"losses": {}', f'"losses": {lost}'))
    with pytest.raises(VerificationError):
        run_restore_from_backup(settings, None, LATER, assume_yes=True)
    assert names_in(settings) == ["new"]
    done = run_restore_from_backup(settings, None, LATER, assume_yes=True, all_are_meant=True)
    assert (done, names_in(settings)) == (0, ["old", "old"])


def test_restore_across_a_mount_without_locks_warns_before_it_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "cannot_be_opened", lambda _path: True)
    run_restore_from_backup(settings, None, LATER, assume_yes=True)
    said = capsys.readouterr()
    assert (
        "warning: file locks do not cross this mount: stop every program on the other side that "
        f"has {settings.database_path} open before you go on"
    ) in said.err
    # The rows of now cannot be counted there.
    assert "rows that no download" not in said.out


# ── the rows of now


def test_rows_that_no_download_brings_back_are_counted_without_virtual_tables(
    tmp_path: Path,
) -> None:
    sql = f"{LAB} {BARS} {ROWS} CREATE VIRTUAL TABLE words USING fts5(word);"
    database = make_small_database(tmp_path / "a.db", sql)
    found = load_kept_rows(database)
    assert found["lab"] == 2
    # The words themselves lie in ordinary tables.
    assert "words_content" in found
    assert not {"words", "ohlcv_data"} & found.keys()


def test_rows_are_not_counted_where_the_database_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_kept_rows(tmp_path / "missing.db") == {}
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"overwritten " * 1000)
    assert load_kept_rows(damaged) == {}
    sound = make_small_database(tmp_path / "a.db", LAB)
    assert load_kept_rows(sound) == {"lab": 0}
    monkeypatch.setattr(cli, "cannot_be_opened", lambda _path: True)
    assert load_kept_rows(sound) == {}
