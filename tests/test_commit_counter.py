"""The number that tells a replacement whether another program has committed: none goes unseen."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backtestdb.commit_counter import CommitCounter
from backtestdb.database import connect


@pytest.fixture(params=["DELETE", "TRUNCATE", "PERSIST", "WAL"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """At rest: nothing stands beside a database in WAL mode that every program has closed."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA journal_mode = {request.param}")
        database.execute("CREATE TABLE t (x)")
    return path


@contextmanager
def following(path: Path) -> Iterator[CommitCounter]:
    counter = CommitCounter(path)
    try:
        with closing(connect(path)) as observer:
            counter.follow(observer)
            yield counter
    finally:
        counter.close()


def test_each_commit_of_another_program_counts_by_one(path: Path) -> None:
    with following(path) as counter, closing(connect(path)) as other:
        other.execute("PRAGMA synchronous = OFF")
        start = counter.read()
        # Across the bound of a byte, where a part of the number would stand still.
        for number in range(1, 301):
            other.execute("INSERT INTO t VALUES (1)")
            assert counter.read() == start + number


def test_what_is_read_or_rolled_back_counts_for_nothing(path: Path) -> None:
    with following(path) as counter, closing(connect(path)) as other:
        before = counter.read()
        other.execute("SELECT count(*) FROM t").fetchone()
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO t VALUES (1)")
        assert counter.read() == before
        other.execute("ROLLBACK")
        assert counter.read() == before
        other.execute("INSERT INTO t VALUES (1)")
        assert counter.read() == before + 1


def test_counter_that_was_closed_holds_nothing(path: Path) -> None:
    before = sorted(Path("/dev/fd").iterdir())
    with following(path) as counter:
        counter.read()
    assert sorted(Path("/dev/fd").iterdir()) == before


def test_counter_that_followed_nothing_yet_can_be_closed(path: Path) -> None:
    before = sorted(Path("/dev/fd").iterdir())
    CommitCounter(path).close()
    assert sorted(Path("/dev/fd").iterdir()) == before
