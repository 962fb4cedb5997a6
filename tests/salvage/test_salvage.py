"""Salvage: what is left of a damaged database, united with the newest backup; never a wrong
value."""

import os
import random
import shlex
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestdb.database import connect, transaction
from backtestdb.errors import BusyError, DatabaseFileError
from backtestdb.files import remove_database
from backtestdb.salvage import working_copy
from backtestdb.salvage.pages import open_pages
from backtestdb.salvage.records import decode
from backtestdb.salvage.rows import read_rows
from backtestdb.salvage.salvage import NothingSalvagedError, SalvageResult, salvage
from backtestdb.salvage.scan import find_trunks
from backtestdb.salvage.shapes import describe_table
from backtestdb.salvage.trees import read_tree
from backup_tools import DAMAGES, KillAtStep, back_up, damage, run_in_child
from commands import Project
from contents import find_damage, query_all
from salvage_tools import (
    LATER,
    PAGE,
    DamagedDatabase,
    find_missing,
    find_wrong,
    make_history,
    pages_of,
    read_content,
    share_of_newer,
    zero_pages,
)
from small_database import zero

LEAST = {0.01: 0.95, 0.05: 0.85}
WITHOUT_INDEX = ("lab_pairs", "lab_blobs")
QUICK_SEEDS = range(1)
LONG_SEEDS = range(1, 101)


@pytest.fixture(scope="module")
def long_original(tmp_path_factory: pytest.TempPathFactory) -> DamagedDatabase:
    return make_history(tmp_path_factory.mktemp("long"), rows=700)


@pytest.fixture
def long_damaged(long_original: DamagedDatabase, tmp_path: Path) -> DamagedDatabase:
    """Large enough that a share of its pages is a share of its rows."""
    return long_original.copy_to(tmp_path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> DamagedDatabase:
    return make_history(tmp_path_factory.mktemp("original"), rows=150)


@pytest.fixture
def damaged(original: DamagedDatabase, tmp_path: Path) -> DamagedDatabase:
    return original.copy_to(tmp_path)


def salvage_of(damaged: DamagedDatabase) -> SalvageResult:
    """Salvage, and see that it left the damaged file and its folder as they were."""
    folder = damaged.settings.database_path.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    salvaged = salvage(damaged.settings.database_path, damaged.settings.backup_dir, LATER)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(after) - set(before) == {salvaged.path.name, "backtesting.db.salvaging.lock"}
    assert {name: after[name] for name in before} == before
    assert find_damage(salvaged.path) == "ok"
    return salvaged


def assert_nothing_wrong(
    damaged: DamagedDatabase, salvaged: SalvageResult, *, left_out: Collection[str] = ()
) -> float:
    """Return the share of the newer rows that came through; `left_out`: tables."""
    result = read_content(salvaged.path)
    assert find_wrong(result, damaged) == []
    assert find_missing(result, damaged) == []
    return share_of_newer(result, damaged, left_out=left_out)


@pytest.mark.parametrize("first_page", [False, True], ids=["with first page", "first page gone"])
@pytest.mark.parametrize("share", [0.01, 0.05], ids=["1 percent", "5 percent"])
@pytest.mark.parametrize(
    "seed", [*QUICK_SEEDS, *[pytest.param(seed, marks=pytest.mark.long) for seed in LONG_SEEDS]]
)
def test_salvage_of_zeroed_pages_brings_the_backup_and_nearly_all_newer_rows(
    long_damaged: DamagedDatabase, seed: int, share: float, first_page: bool
) -> None:
    database = long_damaged.settings.database_path
    roots = {table: pages_of(database, table)[0] for table in WITHOUT_INDEX}
    hit = zero_pages(database, share, seed, first_page=first_page)
    salvaged = salvage_of(long_damaged)
    # Without its root, without an index and without the list of free pages, nothing tells the pages
    # of a table from freed ones: the backup stands in for all of it (seeds 60 and 61).
    unproven = {
        outcome.table
        for outcome in salvaged.tables
        if roots.get(outcome.table) in hit and not outcome.from_damaged
    }
    assert len(unproven) <= 1
    assert assert_nothing_wrong(long_damaged, salvaged, left_out=unproven) >= LEAST[share]


def test_salvage_of_tables_that_are_whole_is_exact(damaged: DamagedDatabase) -> None:
    """Damage in the market data is no reason to bring deleted rows back."""
    zero(
        damaged.settings.database_path, *pages_of(damaged.settings.database_path, "ohlcv_data")[:10]
    )
    salvaged = salvage_of(damaged)
    assert salvaged.is_complete
    assert read_content(salvaged.path) == damaged.live
    kept = "tbl_name IN ('strategies', 'lab_notes', 'lab_pairs', 'noted') ORDER BY type, name"
    objects = f"SELECT type, name, sql FROM sqlite_schema WHERE {kept}"
    assert query_all(salvaged.path, objects) == query_all(damaged.settings.database_path, objects)
    sequences = "SELECT name, seq FROM sqlite_sequence WHERE name = 'lab_notes'"
    assert query_all(salvaged.path, sequences) == query_all(
        damaged.settings.database_path, sequences
    )


def test_salvage_of_a_table_whose_root_became_an_empty_page_brings_the_backup(
    damaged: DamagedDatabase,
) -> None:
    """A write that went to the wrong place: nothing in the page itself is wrong."""
    database = damaged.settings.database_path
    page = bytearray(database.read_bytes())
    (source,) = pages_of(database, "tradestation_orders")[:1]
    empty = page[(source - 1) * PAGE : source * PAGE]
    for table in ("trades", "strategies"):
        (root,) = pages_of(database, table)[:1]
        page[(root - 1) * PAGE : root * PAGE] = empty
    database.write_bytes(page)
    assert_nothing_wrong(damaged, salvage_of(damaged))


@pytest.mark.parametrize(
    "table", ["trading_agents", "strategies", "lab_notes", "lab_pairs", "lab_blobs"]
)
def test_salvage_without_the_root_of_a_table_finds_its_pages(
    damaged: DamagedDatabase, table: str
) -> None:
    zero(damaged.settings.database_path, pages_of(damaged.settings.database_path, table)[0])
    salvaged = salvage_of(damaged)
    assert assert_nothing_wrong(damaged, salvaged) > 0.99
    assert [outcome.table for outcome in salvaged.tables if not outcome.is_whole] == [table]


@pytest.mark.parametrize("first_page", [False, True], ids=["with first page", "first page gone"])
def test_salvage_without_the_list_of_free_pages_brings_no_deleted_row_back(
    damaged: DamagedDatabase, first_page: bool
) -> None:
    """The pages of deleted rows look like pages of the table; its indexes tell them apart."""
    database = damaged.settings.database_path
    with open_pages(database) as file:
        trunks = list(find_trunks(file))
    assert trunks
    roots = [pages_of(database, table)[0] for table in ("trading_agents", "backtest_sets")]
    zero(database, *trunks, *[1] * first_page, *roots)
    assert assert_nothing_wrong(damaged, salvage_of(damaged)) > 0.9


def test_salvage_of_a_row_whose_overflow_page_is_lost_takes_the_one_of_the_backup(
    damaged: DamagedDatabase,
) -> None:
    database = damaged.settings.database_path
    with closing(connect(database)) as connection:
        overflow = [
            row[0]
            for row in connection.execute(
                "SELECT pageno FROM dbstat WHERE name = 'agent_knowledge' AND pagetype = 'overflow'"
            )
        ]
    zero(database, *overflow)
    salvaged = salvage_of(damaged)
    assert_nothing_wrong(damaged, salvaged)
    (outcome,) = [outcome for outcome in salvaged.tables if outcome.table == "agent_knowledge"]
    assert outcome.lost_rows > 5
    assert outcome.from_backup > 2
    assert outcome.lost_pages == 0


def test_salvage_with_the_whole_schema_gone_takes_that_of_the_backup(
    damaged: DamagedDatabase,
) -> None:
    zero(
        damaged.settings.database_path,
        1,
        *pages_of(damaged.settings.database_path, "sqlite_schema"),
    )
    assert assert_nothing_wrong(damaged, salvage_of(damaged)) > 0.99


def test_salvage_with_the_schema_gone_after_a_vacuum_mistakes_no_table_for_another(
    damaged: DamagedDatabase,
) -> None:
    """Every table begins at another page than the backup says, and rows without a key of their own
    have other rowids: of which table those are, nothing tells any more."""
    database = damaged.settings.database_path
    with closing(connect(database)) as connection:
        connection.execute("VACUUM")
    zero(database, 1, *pages_of(database, "sqlite_schema"))
    assert assert_nothing_wrong(damaged, salvage_of(damaged)) > 0.8


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_salvage_sees_what_stands_in_the_log_and_not_what_was_never_committed(
    tmp_path: Path, journal: str
) -> None:
    damaged = make_history(tmp_path / "a", rows=200, journal=journal)
    database = damaged.settings.database_path
    copied = tmp_path / "b"
    with closing(connect(database)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) VALUES ('last','A','1day','')"
        )
        committed = read_content(database)
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("PRAGMA cache_spill = 5")
        connection.execute("BEGIN")
        connection.execute("UPDATE strategies SET name = 'never committed'")
        connection.execute("UPDATE trading_agents SET name = 'never committed'")
        copy = DamagedDatabase(damaged.settings, committed, damaged.saved).copy_to(copied)
        connection.execute("ROLLBACK")
    log = copied / "live" / ("backtesting.db-wal" if journal == "WAL" else "backtesting.db-journal")
    assert log.stat().st_size > PAGE
    zero(copy.settings.database_path, 1)
    salvaged = salvage_of(copy)
    assert assert_nothing_wrong(copy, salvaged) > 0.99
    assert b"last" in b"".join(
        repr(row).encode() for row in read_content(salvaged.path)["strategies"].values()
    )


def test_salvage_unites_with_a_newer_small_backup(damaged: DamagedDatabase) -> None:
    back_up(damaged.settings, "irreplaceable", minutes=60)
    saved = DamagedDatabase(damaged.settings, damaged.live, damaged.live)
    for first_page in (False, True):
        zero_pages(damaged.settings.database_path, 0.2, 3, first_page=first_page)
        salvaged = salvage(damaged.settings.database_path, damaged.settings.backup_dir, LATER)
        assert salvaged.backup is not None
        assert salvaged.backup.kind == "irreplaceable"
        result = read_content(salvaged.path)
        assert find_missing(result, saved) == []
        assert find_wrong(result, saved) == []


@pytest.mark.parametrize("first_page", [False, True], ids=["with first page", "first page gone"])
def test_salvage_without_any_backup_brings_what_can_be_read(
    damaged: DamagedDatabase, first_page: bool
) -> None:
    for path in damaged.settings.backup_dir.glob("*.json"):
        path.unlink()
    zero_pages(damaged.settings.database_path, 0.03, 5, first_page=first_page)
    salvaged = salvage_of(damaged)
    assert salvaged.backup is None
    result = read_content(salvaged.path)
    assert find_wrong(result, DamagedDatabase(damaged.settings, damaged.live, {})) == []
    assert share_of_newer(result, DamagedDatabase(damaged.settings, damaged.live, {})) > 0.85


@pytest.mark.parametrize("way", ["cut", "noise", "other file"])
def test_salvage_of_a_file_with_nothing_in_it_is_the_backup(
    damaged: DamagedDatabase, way: str
) -> None:
    database = damaged.settings.database_path
    if way == "cut":
        os.truncate(database, 300)
    elif way == "noise":
        database.write_bytes(random.Random(1).randbytes(400 * PAGE))
    else:
        database.write_bytes(b"Some other text.\n" * 20_000)
    salvaged = salvage_of(damaged)
    assert read_content(salvaged.path) == damaged.saved


def test_salvage_without_anything_to_read_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    database = tmp_path / "backtesting.db"
    with pytest.raises(DatabaseFileError, match="nothing to salvage"):
        salvage(database, tmp_path / "backups", LATER)
    database.write_bytes(b"not a database" * 1000)
    with pytest.raises(NothingSalvagedError, match="not one row"):
        salvage(database, tmp_path / "backups", LATER)
    assert {path.name for path in tmp_path.iterdir()} == {
        "backtesting.db",
        "backtesting.db.salvaging.lock",
    }


def test_salvage_of_any_damage_ends_with_a_sound_database_that_holds_the_backup(
    damaged: DamagedDatabase,
) -> None:
    """Bits that flip inside a value cannot be seen; everything else of a backup's damages can be
    lived with."""
    database = damaged.settings.database_path
    good = database.read_bytes()
    (other,) = damaged.settings.backup_dir.glob("backtesting-*.db")
    for seed, way in enumerate(way for way in DAMAGES if way not in {"value", "empty", "swapped"}):
        damage(database, way, random.Random(seed), other)
        salvaged = salvage(database, damaged.settings.backup_dir, LATER)
        assert find_damage(salvaged.path) == "ok"
        assert find_missing(read_content(salvaged.path), damaged) == [], way
        database.write_bytes(good)


def test_salvage_takes_a_full_text_index_whole_or_from_the_backup(tmp_path: Path) -> None:
    damaged = make_history(tmp_path, rows=30)
    database = damaged.settings.database_path
    with closing(connect(database)) as connection:
        connection.execute("CREATE VIRTUAL TABLE found USING fts5(body)")
        texts = [(f"word{n} and text {n * n} " * 9,) for n in range(2000)]
        with transaction(connection):
            connection.executemany("INSERT INTO found VALUES (?)", texts)
    back_up(damaged.settings, minutes=9)
    with closing(connect(database)) as connection:
        connection.execute("INSERT INTO found VALUES ('later')")
    zero(database, *pages_of(database, "found_data")[2:5])
    salvaged = salvage(database, damaged.settings.backup_dir, LATER)
    with closing(connect(salvaged.path)) as connection:
        assert connection.execute("SELECT count(*) FROM found").fetchone() == (2000,)
        assert connection.execute(
            "SELECT count(*) FROM found WHERE found MATCH 'word77'"
        ).fetchone() == (1,)
        connection.execute("INSERT INTO found(found) VALUES ('integrity-check')")


def test_salvage_while_a_program_writes_is_refused(
    damaged: DamagedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = damaged.settings.database_path
    copy_files = working_copy.copy_files

    def copy_and_commit(source: Path, copy: Path) -> None:
        copy_files(source, copy)
        with closing(connect(source)) as connection:
            connection.execute("UPDATE strategies SET ticker = ticker || 'X' WHERE id = 7")

    monkeypatch.setattr(working_copy, "copy_files", copy_and_commit)
    with pytest.raises(BusyError, match="another program is writing"):
        salvage(database, damaged.settings.backup_dir, LATER)
    assert not [
        path
        for path in database.parent.iterdir()
        if "salvag" in path.name and path.suffix != ".lock"
    ]


@pytest.mark.parametrize("moment", ["copied", "built", "named"])
def test_salvage_killed_leaves_no_half_result_and_the_next_one_cleans_up(
    damaged: DamagedDatabase, moment: str
) -> None:
    database = damaged.settings.database_path
    zero_pages(database, 0.05, 1, first_page=True)
    child = run_in_child(
        lambda: salvage(database, damaged.settings.backup_dir, LATER, step=KillAtStep(moment))
    )
    os.waitpid(child, 0)
    results = list(database.parent.glob("*.salvaged-*"))
    assert len(results) == (moment == "named")
    assert all(find_damage(path) == "ok" for path in results)
    salvaged = salvage(database, damaged.settings.backup_dir, LATER)
    assert_nothing_wrong(damaged, salvaged)
    assert not [
        path
        for path in database.parent.iterdir()
        if ".salvaging" in path.name and path.suffix != ".lock"
    ]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_salvage_killed_at_a_random_moment_leaves_no_half_result(
    damaged: DamagedDatabase, seed: int
) -> None:
    import time

    from backup_tools import kill_after, time_of

    database = damaged.settings.database_path
    zero_pages(database, 0.05, seed, first_page=bool(seed % 2))
    before = database.read_bytes()

    def work() -> SalvageResult:
        return salvage(database, damaged.settings.backup_dir, LATER)

    seconds = time_of(work)
    for path in database.parent.glob("*.salvaged-*"):
        path.unlink()
    started = time.monotonic()
    kill_after(run_in_child(work), random.Random(seed).uniform(0, seconds))
    assert time.monotonic() - started < 60
    assert database.read_bytes() == before
    for path in database.parent.glob("*.salvaged-*"):
        assert find_damage(path) == "ok"
        assert find_wrong(read_content(path), damaged) == []
    assert_nothing_wrong(damaged, work())


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=3000),
    st.text(max_size=2000),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(VALUES, VALUES), max_size=12),
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    encoding=st.sampled_from(["UTF-8", "UTF-16le"]),
    kind=st.sampled_from(["", "WITHOUT ROWID"]),
)
def test_pages_of_a_sound_table_are_read_as_sqlite_reads_them(
    tmp_path: Path, rows: list[tuple[object, object]], page_size: int, encoding: str, kind: str
) -> None:
    database = tmp_path / "any.db"
    remove_database(database)
    with closing(connect(database, create=True)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"CREATE TABLE t (n INTEGER PRIMARY KEY, a, b REAL) {kind}")
        connection.executemany(
            "INSERT INTO t (n, a, b) VALUES (?, ?, ?)", ((n, *row) for n, row in enumerate(rows))
        )
        shape = describe_table(connection, "t")
        root = connection.execute("SELECT rootpage FROM sqlite_schema").fetchone()[0]
        expected = connection.execute("SELECT n, a, b FROM t ORDER BY n").fetchall()
    with open_pages(database) as file:
        tree = read_tree(file, root, is_index=shape.is_index)
        found = [row for row in read_rows(file, tree.pages, shape, Counter()) if row]
        values = [tuple(decode(row[1], "utf-8")) for row in found]
    assert not tree.gaps
    assert sorted(values, key=lambda row: row[0]) == expected


def project_of(damaged: DamagedDatabase) -> Project:
    settings = damaged.settings
    return Project(
        settings.database_path.parents[1],
        settings={
            "DATABASE_PATH": str(settings.database_path),
            "BACKUP_DIR": str(settings.backup_dir),
        },
    )


@pytest.mark.parametrize(
    "damage_done",
    [
        "first page",
        "noise",
        pytest.param("pages", marks=pytest.mark.long),
        pytest.param("schema", marks=pytest.mark.long),
    ],
)
def test_restore_over_a_damaged_database_salvages_it_by_itself(
    damaged: DamagedDatabase, damage_done: str
) -> None:
    database = damaged.settings.database_path
    if damage_done == "noise":
        database.write_bytes(random.Random(1).randbytes(100 * PAGE))
    elif damage_done == "schema":
        zero(database, *pages_of(database, "sqlite_schema")[3:5])
    else:
        zero_pages(database, 0.05, 8, first_page=damage_done == "first page")
    output = project_of(damaged).check("restore_database.py", "--skip-backfill", "--yes", expect=3)
    assert "NOT everything could be read" in output
    assert "stand in for what was lost" in output
    result = read_content(database)
    assert find_wrong(result, damaged) == []
    assert find_missing(result, damaged) == []
    assert find_damage(database) == "ok"
    assert len(list(database.parent.glob("backtesting.db.backup-*"))) == 1
    assert not [
        path
        for path in database.parent.iterdir()
        if "salvag" in path.name and path.suffix != ".lock"
    ]


def test_salvage_command_makes_a_file_that_restore_carries_over(damaged: DamagedDatabase) -> None:
    database = damaged.settings.database_path
    project = project_of(damaged)
    zero_pages(database, 0.05, 8, first_page=True)
    output = project.check("salvage_database.py", expect=3)
    assert "rows from the backup" in output
    (salvaged,) = database.parent.glob("*.salvaged-*")
    assert f"--carry-over-from {shlex.quote(str(salvaged))}" in output
    expected = read_content(salvaged)
    project.check(
        "restore_database.py", "--skip-backfill", "--yes", "--carry-over-from", str(salvaged)
    )
    assert read_content(database) == expected


def test_salvage_command_on_a_sound_database_says_that_nothing_is_lost(
    damaged: DamagedDatabase,
) -> None:
    assert "nothing is lost" in project_of(damaged).check("salvage_database.py")
