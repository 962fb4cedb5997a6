"""Databases behind a mount that carries no locks: what is kept is one state, or nothing is kept."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.unlocked_copy import is_in_wal_mode, read_mark, steady_copy
from backtestdb.database import connect
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.pinned_copy import copy_pinned
from backup_tools import (
    back_up,
    leftovers,
    make_platform_database,
    make_settings,
    read_all,
    strategy_names,
    verify_every_listed,
)
from blind_writer import is_torn, make_twin_tables, running_blind_writer
from holder import running_holder

BLIND = Hooks(cannot_be_opened=lambda _path: True)
JOURNALS = ("DELETE", "WAL", "PERSIST", "TRUNCATE")


def count_torn(folder: Path, journal: str, seed: int, snapshots: int) -> tuple[int, int]:
    """Return how many snapshots were kept, and how many of those are torn."""
    source, copy = folder / "live" / "source.db", folder / "copy.db"
    make_twin_tables(source, journal)
    kept = torn = 0
    with running_blind_writer(source, journal, seed):
        for _ in range(snapshots):
            with steady_copy(source, copy, say=lambda _text: None, give_up_after_seconds=60):
                kept += 1
                torn += is_torn(copy)
    return kept, torn


@pytest.mark.parametrize("journal", JOURNALS)
def test_snapshots_beside_a_lock_blind_writer_are_not_torn(tmp_path: Path, journal: str) -> None:
    assert count_torn(tmp_path, journal, seed=1, snapshots=5) == (5, 0)


@pytest.mark.long
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("seed", range(2, 5))
def test_hundred_snapshots_beside_a_lock_blind_writer_are_not_torn(
    tmp_path: Path, journal: str, seed: int
) -> None:
    assert count_torn(tmp_path, journal, seed=seed, snapshots=100) == (100, 0)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_copy_during_which_a_commit_arrived_does_not_count(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would notice: the first copy is sound, and a moment too old for its -wal or its
    successor."""
    source, copy = tmp_path / "source.db", tmp_path / "copy.db"
    make_twin_tables(source, journal)
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("UPDATE one SET n = 1")
    copied = 0
    plain_copy = shutil.copyfile

    def copy_and_commit(old: Path, new: Path) -> None:
        nonlocal copied
        plain_copy(old, new)
        copied += 1
        if copied == 1:
            writer.execute("UPDATE one SET n = 2")

    monkeypatch.setattr(shutil, "copyfile", copy_and_commit)
    with steady_copy(source, copy, say=lambda _text: None, give_up_after_seconds=60):
        assert copied == (2 if journal == "DELETE" else 4)
        with closing(connect(copy)) as connection:
            assert connection.execute("SELECT DISTINCT n FROM one").fetchall() == [(2,)]
    writer.close()


def copy_without_proof(source: Path, copy: Path) -> None:
    shutil.copyfile(source, copy)


def copy_through_sqlite(source: Path, copy: Path) -> None:
    with closing(connect(source)) as connection:
        copy_pinned(connection, copy)


@pytest.mark.parametrize(
    ("journal", "make_copy"),
    [("DELETE", copy_without_proof), ("DELETE", copy_through_sqlite), ("WAL", copy_through_sqlite)],
)
def test_without_the_proof_torn_snapshots_are_caught(
    tmp_path: Path, journal: str, make_copy: Callable[[Path, Path], None]
) -> None:
    """The same writer and the same question: the tests above can fail.

    A reader that rolls back what the writer is writing may cost the writer its journal, and with it
    its life: what is left then holds still. So there is a new writer on a new database, again and
    again.
    """
    copy = tmp_path / "copy.db"
    for seed in range(1, 101):
        source = tmp_path / str(seed) / "source.db"
        make_twin_tables(source, journal)
        with running_blind_writer(source, journal, seed=seed) as writer:
            for _ in range(100):
                if writer.poll() is not None:
                    break
                # Damage that SQLite itself finds while copying.
                with suppress(sqlite3.DatabaseError):
                    make_copy(source, copy)
                    if is_torn(copy):
                        return
    pytest.fail("no snapshot was torn, beside 100 writers")


def test_backup_through_a_blind_mount_is_a_whole_backup_and_leaves_nothing(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, word="word", journal="WAL")
    for kind in ("full", "irreplaceable"):
        outcome = back_up(settings, kind, hooks=BLIND)
        assert strategy_names(outcome.backup.path) == strategy_names(settings.database_path)
    assert len(verify_every_listed(settings.backup_dir)) == 2
    assert leftovers(settings.backup_dir) == []
    full = next(backup for backup in load_catalogue(settings.backup_dir) if backup.kind == "full")
    assert read_all(full.path) == read_all(settings.database_path)
    assert not back_up(settings, "irreplaceable", minutes=1, hooks=BLIND).is_new


def test_commits_that_stand_only_in_the_wal_are_in_the_backup(tmp_path: Path) -> None:
    """A writer that was killed left them there; the source is not touched by reading it."""
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path, journal="WAL")
    code = "import sqlite3, os; c = sqlite3.connect(os.environ['DB']); "
    code += (
        'c.execute("INSERT INTO strategies (name, ticker, timeframe, config) VALUES '
        "('hot','A','1day','{}')\"); "
    )
    code += "c.commit(); os._exit(0)"
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"DB": str(settings.database_path)},
        check=True,
    )
    before = read_mark(settings.database_path)
    assert "hot" in strategy_names(back_up(settings, hooks=BLIND).backup.path)
    assert read_mark(settings.database_path) == before


def test_transaction_under_way_on_the_other_side_is_waited_for_and_not_rolled_back(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    with transaction_under_way(settings.database_path):
        journal = Path(f"{settings.database_path}-journal").read_bytes()
        started = time.monotonic()
        with pytest.raises(BusyError, match=r"a transaction is under way") as refused:
            back_up(settings, hooks=replace(BLIND, give_up_after_seconds=1.0))
        assert time.monotonic() - started < 20
        assert "make schedule-install" in refused.value.next_step
        assert "named volume" in refused.value.next_step
        assert Path(f"{settings.database_path}-journal").read_bytes() == journal
    assert load_catalogue(settings.backup_dir) == []
    assert leftovers(settings.backup_dir) == []


@contextmanager
def transaction_under_way(database: Path) -> Iterator[None]:
    """Another process has written pages and not committed; unix-none, so no lock tells about it."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect('file:' + sys.argv[1] + '?vfs=unix-none', "
        "uri=True, isolation_level=None); c.execute('PRAGMA cache_size = 5'); c.execute('BEGIN'); "
        "c.execute('UPDATE ohlcv_data SET close = close + 1'); print('held', flush=True); "
        "sys.stdin.read()"
    )
    with running_holder(program, database):
        yield


def test_rollback_that_leaves_size_and_counter_changes_the_mark(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    make_twin_tables(source, "DELETE")
    before = read_mark(source)
    with transaction_under_way_on(source):
        pass
    after = read_mark(source)
    assert before is not None
    assert after is not None
    assert before[0] == after[0]
    assert before != after


@contextmanager
def transaction_under_way_on(source: Path) -> Iterator[None]:
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA cache_size = 5")
    connection.execute("BEGIN")
    connection.execute("UPDATE one SET n = -1")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def test_missing_source_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match="no database"):
        back_up(make_settings(tmp_path), hooks=BLIND)


def test_wal_mode_is_read_from_the_header(tmp_path: Path) -> None:
    for journal, expected in (("WAL", True), ("DELETE", False)):
        assert (
            is_in_wal_mode(make_platform_database(tmp_path / f"{journal}.db", journal=journal))
            is expected
        )
    assert not is_in_wal_mode(tmp_path / "missing.db")
