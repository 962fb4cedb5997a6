"""The copy that a salvage works in: the damaged file stays untouched, and SQLite can merge a log or
a journal into the copy whatever became of the first page."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb.errors import BusyError, DatabaseFileError, SpaceError
from backtestdb.salvage import working_copy
from backtestdb.salvage.working_copy import (
    graft_first_page,
    has_sound_first_page,
    make_private_copy,
    merge_log,
    page_size_of_log,
)
from small_database import make_small_database
from small_disk import leave_free

PAGE = 4096
ROWS = "CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');"
MANY_TABLES = "".join(f"CREATE TABLE table_number_{n} (a TEXT, b TEXT, c);" for n in range(120))


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return make_small_database(tmp_path / "live.db", ROWS)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Another database with the same settings; its header has something in every field."""
    deleted = "CREATE TABLE gone (x); INSERT INTO gone VALUES (zeroblob(20000)); DROP TABLE gone;"
    return make_small_database(
        tmp_path / "template.db", f"PRAGMA user_version = 7; {ROWS} {deleted}"
    )


def zero_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(PAGE))


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM t").fetchall()


def make_with_log(folder: Path, sql: str) -> Path:
    """A database in WAL mode, all of it in the log alone, as a killed program leaves it."""
    working, killed = folder / "working.db", folder / "live.db"
    with closing(sqlite3.connect(working)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.executescript(f"BEGIN; {sql} COMMIT;")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{working}{suffix}", f"{killed}{suffix}")
    return killed


# ── a copy


def test_copy_is_private_the_same_and_without_the_rest_of_an_earlier_one(
    live: Path, copy: Path, template: Path
) -> None:
    Path(f"{copy}-wal").write_bytes(b"of an earlier run")
    before, umask = live.read_bytes(), os.umask(0)
    try:
        assert make_private_copy(live, copy, template) is False
    finally:
        os.umask(umask)
    assert copy.read_bytes() == live.read_bytes() == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not Path(f"{copy}-wal").exists()


def test_log_of_an_earlier_attempt_is_not_merged_into_the_copy(
    tmp_path: Path, copy: Path, template: Path
) -> None:
    """The damaged database has emptied its log meanwhile and gone on."""
    live = make_with_log(tmp_path, ROWS)
    shutil.copyfile(f"{live}-wal", f"{copy}-wal")
    with closing(sqlite3.connect(live)) as database, database:
        database.execute("UPDATE t SET text = 'newest'")
    assert not Path(f"{live}-wal").exists()
    make_private_copy(live, copy, template)
    assert rows_of(copy) == [(1, "newest"), (2, "newest")]


def test_copy_for_which_a_byte_is_missing_is_not_begun(
    tmp_path: Path, copy: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the copy, and for what its log grows it by."""
    live = make_with_log(tmp_path, ROWS)
    needed = 2 * (live.stat().st_size + Path(f"{live}-wal").stat().st_size)
    leave_free(monkeypatch, needed - 1)
    with pytest.raises(SpaceError) as refused:
        make_private_copy(live, copy, template)
    assert refused.value.missing_bytes == 1
    assert not copy.exists()
    leave_free(monkeypatch, needed)
    make_private_copy(live, copy, template)
    assert rows_of(copy) == [(1, "a"), (2, "b")]


def change_while_copying(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], times: int
) -> tuple[list[str], list[float]]:
    """Change something after each of the first copies; return what was copied, and the pauses."""
    copied: list[str] = []
    pauses: list[float] = []
    copy_files = working_copy.copy_files

    def copy_and_change(source: Path, target: Path) -> None:
        copy_files(source, target)
        copied.append(source.name)
        if len(copied) <= times:
            change()

    monkeypatch.setattr(working_copy, "copy_files", copy_and_change)
    monkeypatch.setattr(working_copy, "time", SimpleNamespace(sleep=pauses.append))
    return copied, pauses


@pytest.mark.parametrize("hours", [-1, 1])
def test_copy_across_a_change_is_made_again_after_a_pause(
    live: Path, copy: Path, template: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    changed = live.stat().st_mtime + hours * 3600
    copied, pauses = change_while_copying(monkeypatch, lambda: os.utime(live, (0, changed)), 1)
    assert make_private_copy(live, copy, template) is False
    assert (len(copied), len(pauses)) == (2, 1)
    assert pauses[0] > 0


def test_database_that_goes_on_changing_is_not_copied(
    live: Path, copy: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow() -> None:
        with live.open("ab") as file:
            file.write(b"x")

    copied, _ = change_while_copying(monkeypatch, grow, 1000)
    with pytest.raises(BusyError, match="changed each time that it was copied"):
        make_private_copy(live, copy, template)
    assert len(copied) == working_copy.ATTEMPTS


# ── the first page


def test_lost_first_page_is_grafted_and_the_rest_stays(
    live: Path, copy: Path, template: Path
) -> None:
    rest = live.read_bytes()[PAGE:]
    zero_first_page(live)
    assert make_private_copy(live, copy, template) is True
    assert copy.read_bytes()[PAGE:] == rest
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert database.execute("PRAGMA page_count").fetchone() == (1 + len(rest) // PAGE,)
        assert database.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize(("reserved", "page_size"), [(0, 4096), (8, 4096), (0, 512), (0, 65536)])
@pytest.mark.parametrize("pages", [0.1, 1, 3.5])
@pytest.mark.parametrize("has_log", [False, True])
def test_grafted_page_is_that_of_an_empty_database_of_this_size(
    copy: Path, template: Path, reserved: int, page_size: int, pages: float, has_log: bool
) -> None:
    """Every byte of it: https://www.sqlite.org/fileformat2.html#the_database_header."""
    header = bytearray(template.read_bytes()[:100])
    header[16:18] = (1 if page_size == 65536 else page_size).to_bytes(2)
    header[20] = reserved
    header[24:28] = b"\1\2\3\4"  # how often it was changed
    header[40] = header[91] = 9
    assert any(header[32:40])
    template.write_bytes(header)
    copy.write_bytes(b"\7" * int(pages * page_size))
    if has_log:
        Path(f"{copy}-wal").touch()

    page = graft_first_page(copy, template)

    expected = bytearray(header)
    expected[18:20] = b"\2\2" if has_log else b"\1\1"
    expected[28:32] = max(int(pages), 1).to_bytes(4)
    expected[32:40] = bytes(8)
    expected[92:96] = b"\1\2\3\4"
    expected += b"\x0d\0\0\0\0" + ((page_size - reserved) % 65536).to_bytes(2) + b"\0"
    assert page == expected + bytes(page_size - len(expected))
    written = copy.read_bytes()
    assert written[:page_size] == page
    assert len(written) == max(int(pages * page_size), page_size)
    assert set(written[page_size:]) <= {7}


@pytest.mark.parametrize(
    ("offset", "value", "is_sound"),
    [
        (0, b"S", True),
        (0, b"T", False),
        (16, (512).to_bytes(2), True),
        (16, (256).to_bytes(2), False),
        (16, (1000).to_bytes(2), False),
        (16, (513).to_bytes(2), False),
        (16, (1).to_bytes(2), True),
        (16, (0).to_bytes(2), False),
        (100, b"\x05", True),
        (100, b"\x0d", True),
        (100, b"\x0a", False),
        (100, b"\x00", False),
    ],
)
def test_first_page_is_sound_when_every_part_of_it_can_be_right(
    live: Path, offset: int, value: bytes, is_sound: bool
) -> None:
    content = bytearray(live.read_bytes().ljust(65536, b"\0"))
    content[offset : offset + len(value)] = value
    live.write_bytes(content)
    assert has_sound_first_page(live) is is_sound


@pytest.mark.parametrize("size", [0, 50, 100, 101, PAGE - 1])
def test_file_shorter_than_its_first_page_has_no_sound_one(live: Path, size: int) -> None:
    live.write_bytes(live.read_bytes()[:size])
    assert has_sound_first_page(live) is False


def test_database_of_one_page_has_a_sound_first_page(tmp_path: Path) -> None:
    one = make_small_database(tmp_path / "one.db", "PRAGMA user_version = 7;")
    assert one.stat().st_size == PAGE
    assert has_sound_first_page(one) is True


# ── the log and the journal


@pytest.mark.parametrize("sql", [ROWS, MANY_TABLES + ROWS], ids=["small schema", "large schema"])
def test_first_page_that_stands_in_the_log_is_not_lost(
    tmp_path: Path, copy: Path, template: Path, sql: str
) -> None:
    live = make_with_log(tmp_path, sql)
    zero_first_page(live)
    assert make_private_copy(live, copy, template) is False
    assert rows_of(copy) == [(1, "a"), (2, "b")]
    assert not Path(f"{copy}-wal").exists()


def test_transaction_that_was_never_committed_is_taken_back(
    tmp_path: Path, copy: Path, template: Path
) -> None:
    text = "printf('%.500c', 'x')"
    sql = (
        f"{ROWS} WITH RECURSIVE m (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM m LIMIT 200) "
        f"INSERT INTO t SELECT i, {text} FROM m;"
    )
    working, killed = make_small_database(tmp_path / "working.db", sql), tmp_path / "live.db"
    before = rows_of(working)
    with closing(sqlite3.connect(working, isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 2")
        database.execute("BEGIN")
        database.execute("UPDATE t SET text = 'never committed'")
        for suffix in ("", "-journal"):
            shutil.copyfile(f"{working}{suffix}", f"{killed}{suffix}")
        database.execute("ROLLBACK")
    assert b"never committed" in killed.read_bytes()
    assert make_private_copy(killed, copy, template) is False
    assert rows_of(copy) == before
    assert b"never committed" not in copy.read_bytes()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("magic", [0x377F0682, 0x377F0683])
def test_page_size_is_read_from_the_head_of_the_log(
    tmp_path: Path, page_size: int, magic: int
) -> None:
    log = tmp_path / "live.db-wal"
    log.write_bytes(
        magic.to_bytes(4) + (3007000).to_bytes(4) + page_size.to_bytes(4) + b"\7" * 20 + b"frames"
    )
    assert page_size_of_log(log) == page_size


@pytest.mark.parametrize("content", [None, b"", b"no log at all, but long enough for a head"])
def test_file_that_is_no_log_tells_no_page_size(tmp_path: Path, content: bytes | None) -> None:
    log = tmp_path / "live.db-wal"
    if content is not None:
        log.write_bytes(content)
    assert page_size_of_log(log) == 0


def test_log_of_another_page_size_than_the_template_is_merged(tmp_path: Path, copy: Path) -> None:
    live = make_with_log(tmp_path, ROWS)
    zero_first_page(live)
    small = make_small_database(tmp_path / "small.db", ROWS)
    header = bytearray(small.read_bytes()[:100])
    header[16:18] = (1024).to_bytes(2)
    small.write_bytes(header)
    assert make_private_copy(live, copy, small) is False
    assert rows_of(copy) == [(1, "a"), (2, "b")]


def test_copy_whose_schema_is_damaged_is_merged_all_the_same(tmp_path: Path, copy: Path) -> None:
    live = make_with_log(tmp_path, f"{ROWS} CREATE TABLE second (x);")
    for suffix in ("", "-wal"):
        content = Path(f"{live}{suffix}").read_bytes()
        Path(f"{copy}{suffix}").write_bytes(content)
    with closing(sqlite3.connect(copy)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = 'CREATE TABEL t' WHERE name = 't'")
        database.commit()
        log = Path(f"{copy}-wal").read_bytes()
        main = copy.read_bytes()
    copy.write_bytes(main)
    Path(f"{copy}-wal").write_bytes(log)
    merge_log(copy)
    assert not Path(f"{copy}-wal").exists()
    assert b"CREATE TABEL t" in copy.read_bytes()


def test_copy_that_cannot_be_opened_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "copy.db").mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        merge_log(tmp_path / "copy.db")


def test_log_that_stays_behind_is_an_error(copy: Path) -> None:
    with closing(sqlite3.connect(make_small_database(copy, ROWS))) as another:
        another.execute("PRAGMA journal_mode = WAL")
        another.execute("INSERT INTO t VALUES (3, 'c')")
        another.commit()
        with pytest.raises(DatabaseFileError, match="could not be merged into the copy"):
            merge_log(copy)
    merge_log(copy)
    assert len(rows_of(copy)) == 3
