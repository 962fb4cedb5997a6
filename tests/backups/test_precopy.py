"""Copying the bytes of a file ahead of the lock, and patching what changed meanwhile."""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb.backups import precopy
from backtestdb.backups.precopy import (
    BLOCK_BYTES,
    FileMark,
    copy_ahead,
    create_private,
    make_mark,
    patch_changed_blocks,
)
from backtestdb.errors import BusyError
from backup_tools import make_platform_database

Opened = tuple[Path, Path, int, int]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Opened]:
    """An empty source and an empty copy, and a descriptor of each."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    descriptors = os.open(source, os.O_RDONLY), create_private(target)
    yield source, target, *descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def seen_nowhere(_done: int, _total: int) -> None:
    pass


@pytest.mark.parametrize("seed", range(20))
def test_patching_makes_a_torn_copy_the_same_as_its_source(files: Opened, seed: int) -> None:
    source, target, live, copy = files
    chance = random.Random(seed)
    size = chance.choice([1, BLOCK_BYTES, chance.randrange(1, 12 * BLOCK_BYTES)])
    source.write_bytes(chance.randbytes(size + chance.choice([0, 4096])))
    torn = bytearray(source.read_bytes()[: chance.randrange(size + 1)])
    for _ in range(chance.randrange(5)):
        if torn:
            torn[chance.randrange(len(torn))] ^= 1
    target.write_bytes(torn + chance.choice([b"", bytes(BLOCK_BYTES)]))
    patch_changed_blocks(live, copy, size)
    assert target.read_bytes() == source.read_bytes()[:size]
    assert patch_changed_blocks(live, copy, size) == 0


@pytest.mark.parametrize("seed", range(20))
def test_patching_by_hashes_writes_the_blocks_that_changed_since_they_were_copied(
    files: Opened, seed: int
) -> None:
    source, target, live, copy = files
    chance = random.Random(seed)
    size = chance.choice([1, BLOCK_BYTES, 4 * BLOCK_BYTES, chance.randrange(1, 12 * BLOCK_BYTES)])
    before = chance.randbytes(size)
    source.write_bytes(before)
    hashes = copy_ahead(live, copy, deadline_seconds=60, on_bytes=seen_nowhere, hash_blocks=True)
    assert target.read_bytes() == before
    assert patch_changed_blocks(live, copy, size, hashes=hashes) == 0

    after = bytearray(before) + chance.randbytes(chance.choice([0, 4096, 2 * BLOCK_BYTES]))
    for _ in range(chance.randrange(5)):
        after[chance.randrange(len(after))] ^= 1
    end = chance.randrange(1, len(after) + 1) if seed % 3 == 0 else len(after)
    source.write_bytes(after)
    changed = sum(
        after[start : min(start + BLOCK_BYTES, end)] != before[start : start + BLOCK_BYTES]
        for start in range(0, end, BLOCK_BYTES)
    )
    assert patch_changed_blocks(live, copy, end, hashes=hashes) == changed
    assert target.read_bytes() == after[:end]


def test_mark_of_a_database_proves_nothing_after_a_commit_or_a_page_written_before_one(
    tmp_path: Path,
) -> None:
    live = make_platform_database(tmp_path / "live.db", bars=2000)
    os.utime(live, (1_700_000_000, 1_700_000_000))
    descriptor = os.open(live, os.O_RDONLY)
    before = make_mark(descriptor)
    assert before.proves_unchanged(make_mark(descriptor))
    with closing(sqlite3.connect(live, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.execute("UPDATE ohlcv_data SET volume = volume + 1")
        assert not before.proves_unchanged(make_mark(descriptor)), (
            "pages were written before the commit"
        )
        other.execute("ROLLBACK")
        assert not before.proves_unchanged(make_mark(descriptor))
        other.execute("UPDATE strategies SET name = 'other'")
    assert not before.proves_unchanged(make_mark(descriptor))
    os.close(descriptor)


@pytest.mark.parametrize(("age_seconds", "is_old"), [(0.0, False), (0.04, False), (0.06, True)])
def test_mark_is_old_when_a_later_change_would_show_in_the_time(
    files: Opened, monkeypatch: pytest.MonkeyPatch, age_seconds: float, is_old: bool
) -> None:
    source, _target, live, _copy = files
    source.write_bytes(bytes(range(200)))
    os.utime(source, (1_700_000_000, 1_700_000_000))
    monkeypatch.setattr(precopy, "time", SimpleNamespace(time=lambda: 1_700_000_000 + age_seconds))
    mark = make_mark(live)
    assert mark.header == bytes(range(100))
    assert mark.is_old == is_old
    assert mark.proves_unchanged(make_mark(live)) == is_old


MARK = FileMark(header=b"header", bytes=4096, inode=7, changed_ns=10, is_old=True)


@pytest.mark.parametrize(
    "change", [{"header": b"other"}, {"bytes": 8192}, {"inode": 8}, {"changed_ns": 11}]
)
def test_mark_that_differs_in_one_thing_proves_nothing(change: dict[str, object]) -> None:
    assert not MARK.proves_unchanged(replace(MARK, **change))  # type: ignore[arg-type]


def test_mark_proves_by_its_own_age_alone() -> None:
    assert MARK.proves_unchanged(replace(MARK, is_old=False))
    assert not replace(MARK, is_old=False).proves_unchanged(MARK)


def test_copying_ahead_tells_how_far_it_is_and_hashes_only_when_asked(files: Opened) -> None:
    source, target, live, copy = files
    data = random.Random(1).randbytes(9 * BLOCK_BYTES + 5)
    source.write_bytes(data)
    seen: list[tuple[int, int]] = []
    hashes = copy_ahead(
        live, copy, deadline_seconds=60, on_bytes=lambda *numbers: seen.append(numbers)
    )
    assert target.read_bytes() == data
    assert hashes == []
    assert seen == [(4 * BLOCK_BYTES, len(data)), (8 * BLOCK_BYTES, len(data)), (len(data),) * 2]


def test_copying_ahead_needs_neither_memory_that_is_used_again_nor_whole_writes(
    files: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, live, copy = files
    source.write_bytes(bytes(range(100)))
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:30], offset))
    monkeypatch.delattr(os, "preadv", raising=False)
    copy_ahead(live, copy, deadline_seconds=60, on_bytes=seen_nowhere)
    assert target.read_bytes() == bytes(range(100))


def test_what_a_writer_adds_during_the_copy_is_patched(files: Opened) -> None:
    source, target, live, copy = files
    source.write_bytes(b"page")

    def add(_done: int, _total: int) -> None:
        with source.open("ab") as file:
            file.write(bytes(BLOCK_BYTES))

    hashes = copy_ahead(live, copy, deadline_seconds=60, on_bytes=add, hash_blocks=True)
    assert len(hashes) == 1
    assert patch_changed_blocks(live, copy, BLOCK_BYTES + 4, hashes=hashes) == 2
    assert target.read_bytes() == source.read_bytes()


def test_copying_ahead_with_a_deadline_in_the_past_is_given_up(files: Opened) -> None:
    source, _target, live, copy = files
    source.write_bytes(b"page")
    with pytest.raises(BusyError, match="given up after -1 s"):
        copy_ahead(live, copy, deadline_seconds=-1, on_bytes=seen_nowhere)


def test_patching_is_given_up_at_its_limit(files: Opened) -> None:
    source, _target, live, copy = files
    source.write_bytes(b"page")
    assert patch_changed_blocks(live, copy, 4, limit_seconds=-1) is None
    assert patch_changed_blocks(live, copy, 4, limit_seconds=600) == 1


@pytest.mark.parametrize("hashes", [(), (b"hash",)])
def test_patching_from_a_file_that_ends_early_says_where(
    files: Opened, hashes: tuple[bytes, ...]
) -> None:
    source, _target, live, copy = files
    source.write_bytes(bytes(1234))
    with pytest.raises(EOFError, match="ends at 1,234 bytes"):
        patch_changed_blocks(live, copy, 4096, hashes=hashes)


def test_copy_is_readable_by_its_owner_alone_and_never_an_older_file(tmp_path: Path) -> None:
    os.close(create_private(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "copy")
