"""restore_database.py from scratch: real processes, real HTTP against the sandbox, real files."""

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect
from commands import Project
from contents import digest_market, find_damage, query_all, read_tables
from platform_database import KEPT_TABLES, make_used_database
from sandbox_process import SandboxOptions, SandboxProcess
from small_disk import fill, small_disk

END = "2013-03-01"
FEW = "AAPL,MSFT,IBM"


SANDBOX = SandboxOptions(today="2013-03-02")


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxProcess) -> Project:
    sandbox.set_faults()
    sandbox.set_settings(latency_seconds=0)
    sandbox.clear_log()
    return Project(tmp_path, url=sandbox.url, settings={"WATCHLIST_TICKERS": FEW})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess) -> dict[str, str]:
    """What an undisturbed rebuild of FEW holds."""
    sandbox.set_faults()
    settings = {"WATCHLIST_TICKERS": FEW}
    project = Project(tmp_path_factory.mktemp("reference"), url=sandbox.url, settings=settings)
    project.check("restore_database.py", "--end", END)
    return digest_market(project.database)


def test_restore_of_tech_sector_brings_everything_within_the_planned_requests(
    project: Project, sandbox: SandboxProcess
) -> None:
    output = project.check("restore_database.py", "--end", END, WATCHLIST_TICKERS="")
    paths = [entry["path"] for entry in sandbox.fetch_log()]
    assert len([path for path in paths if "/1/day/" in path]) == 65
    assert len([path for path in paths if "/5/minute/" in path]) == 65
    assert len(paths) <= 135
    assert "the vendor has nothing of" in output
    assert find_damage(project.database) == "ok"
    tables = {
        name
        for (name,) in query_all(
            project.database, "SELECT name FROM sqlite_schema WHERE type = 'table'"
        )
    }
    assert len([name for name in tables if not name.startswith(("_", "sqlite_"))]) == 37
    assert query_all(project.database, "SELECT name, total_stocks FROM universe") == [
        ("tech_sector", 65)
    ]
    assert not list(project.folder.glob("*.rebuilding"))


def test_restore_keeps_what_no_download_brings_back_row_for_row(project: Project) -> None:
    make_used_database(project.database)
    before = read_tables(project.database, KEPT_TABLES)
    output = project.check("restore_database.py", "--end", END, "--yes")
    assert read_tables(project.database, KEPT_TABLES) == before
    assert "carried over:" in output
    assert "undo with: make restore-from-backup" in output
    (kept,) = project.folder.glob("backtesting.db.backup-*")
    assert read_tables(kept, KEPT_TABLES) == before
    objects = (
        "SELECT name, sql FROM sqlite_schema "
        "WHERE name IN ('noted', 'note_strategies', 'lab_notes_by_note')"
    )
    assert query_all(project.database, objects) == query_all(kept, objects)
    assert query_all(project.database, "SELECT count(*) FROM noted")[0][0] > 0
    sequence = "SELECT seq FROM sqlite_sequence WHERE name = 'lab_notes'"
    assert query_all(project.database, sequence) == query_all(kept, sequence)


def test_restore_with_discard_leaves_the_old_rows_in_the_kept_file_only(project: Project) -> None:
    make_used_database(project.database)
    project.check("restore_database.py", "--end", END, "--yes", "--discard-irreplaceable")
    assert query_all(project.database, "SELECT count(*) FROM strategies") == [(0,)]
    (kept,) = project.folder.glob("backtesting.db.backup-*")
    assert query_all(kept, "SELECT count(*) FROM strategies") == [(40,)]


def test_restore_of_a_renamed_agents_table_makes_no_second_one(project: Project) -> None:
    make_used_database(project.database)
    with closing(connect(project.database)) as connection:
        connection.execute("ALTER TABLE trading_agents RENAME TO agents")
    project.check("restore_database.py", "--end", END, "--yes")
    tables = {name for (name,) in query_all(project.database, "SELECT name FROM sqlite_schema")}
    assert "agents" in tables
    assert "trading_agents" not in tables
    assert query_all(project.database, "SELECT count(*) FROM agents") == [(40,)]


def test_restore_schema_sends_no_request_and_keeps_the_irreplaceable(
    project: Project, sandbox: SandboxProcess
) -> None:
    make_used_database(project.database)
    project.check("restore_database.py", "--skip-backfill", "--yes", POLYGON_API_KEY="")
    assert sandbox.fetch_log() == []
    assert query_all(project.database, "SELECT count(*) FROM strategies") == [(40,)]


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "server_error"},
        {"kind": "bad_gateway"},
        {"kind": "reset"},
        {"kind": "reset_midway"},
        {"kind": "cut_json"},
        {"kind": "invalid_json"},
        {"kind": "too_many", "retry_after": 0},
        {"kind": "too_many", "retry_after": None, "empty_body": True},
        {"kind": "timeout", "seconds": 5},
    ],
    ids=lambda rule: "-".join(str(value) for value in rule.values()),
)
def test_restore_under_a_passing_fault_ends_with_the_same_content(
    project: Project, sandbox: SandboxProcess, reference: dict[str, str], rule: dict[str, object]
) -> None:
    sandbox.set_faults({"match": "/v2/aggs/", "times": 2, "after": 1, **rule})
    project.check("restore_database.py", "--end", END, POLYGON_TIMEOUT_SECONDS="1")
    assert sandbox.fetch_faults()[0]["fired"] == 2
    assert digest_market(project.database) == reference


def test_restore_under_a_storm_of_faults_ends_with_the_same_content(
    project: Project, sandbox: SandboxProcess, reference: dict[str, str]
) -> None:
    kinds = ["server_error", "reset", "cut_json", "too_many"]
    sandbox.set_faults(
        *[
            {"match": "/v2/aggs/", "kind": kind, "times": None, "probability": 0.1, "seed": seed}
            for seed, kind in enumerate(kinds)
        ]
    )
    project.check("restore_database.py", "--end", END)
    assert digest_market(project.database) == reference


def test_restore_with_a_wrong_key_stops_after_one_request_without_a_trace_of_it(
    project: Project, sandbox: SandboxProcess
) -> None:
    make_used_database(project.database)
    before = project.database.read_bytes()
    secret = "wrong-key-7a41c9"
    output = project.check(
        "restore_database.py",
        "--end",
        END,
        "--yes",
        expect=1,
        POLYGON_API_KEY=secret,
        POLYGON_CONCURRENCY="8",
    )
    assert len(sandbox.fetch_log()) == 1
    assert "API key" in output
    assert project.database.read_bytes() == before
    for file in [path for path in project.folder.rglob("*") if path.is_file()]:
        assert secret.encode() not in file.read_bytes() + file.name.encode()
    assert secret not in output


def fetch_price_paths(sandbox: SandboxProcess) -> list[str]:
    """Requests for bars: each run looks at the list of splits besides."""
    return [entry["path"] for entry in sandbox.fetch_log() if "/splits" not in entry["path"]]


def test_restore_without_a_key_names_the_demo(project: Project, sandbox: SandboxProcess) -> None:
    output = project.check("restore_database.py", expect=2, POLYGON_API_KEY="")
    assert "make demo" in output
    assert sandbox.fetch_log() == []
    assert not project.database.exists()


def test_restore_with_a_ticker_that_fails_says_so_and_later_fetches_only_that(
    project: Project, sandbox: SandboxProcess, reference: dict[str, str]
) -> None:
    make_used_database(project.database)
    before = read_tables(project.database, KEPT_TABLES)
    sandbox.set_faults(
        {"match": "ticker/IBM/range/1/day", "kind": "too_many", "retry_after": 0, "times": None}
    )
    output = project.check("restore_database.py", "--end", END, "--yes", expect=3)
    assert "FAILED IBM, 250 sessions" in output
    sandbox.set_faults()
    sandbox.clear_log()
    output = project.check("restore_database.py", "--end", END, "--yes")
    assert ["ticker/IBM/range/1/day" in path for path in fetch_price_paths(sandbox)] == [True]
    assert digest_market(project.database) == reference
    assert read_tables(project.database, KEPT_TABLES) == before


def test_restore_with_a_vendor_that_is_down_leaves_the_old_database_and_continues_later(
    project: Project, sandbox: SandboxProcess, reference: dict[str, str]
) -> None:
    make_used_database(project.database)
    before = project.database.read_bytes()
    rule = {"kind": "too_many", "retry_after": 0, "times": None}
    sandbox.set_faults({"match": "minute", **rule})
    output = project.check("restore_database.py", "--end", END, "--yes", expect=1)
    assert "the database was not touched" in output
    assert project.database.read_bytes() == before
    sandbox.set_faults()
    sandbox.clear_log()
    project.check("restore_database.py", "--end", END, "--yes")
    assert all("/5/minute/" in path for path in fetch_price_paths(sandbox))
    assert digest_market(project.database) == reference


def test_restore_sets_impossible_bars_aside_and_names_them(
    project: Project, sandbox: SandboxProcess
) -> None:
    sandbox.set_faults({"match": "ticker/MSFT/range/1/day", "kind": "bad_bars", "bars": ["junk"]})
    output = project.check("restore_database.py", "--end", END)
    assert "bars rejected: MSFT: price above" in output
    assert query_all(project.database, "SELECT DISTINCT ticker FROM _bars_set_aside") == [("MSFT",)]
    assert query_all(project.database, "SELECT max(high) < 1e7 FROM ohlcv_data") == [(1,)]


def test_restore_with_another_plan_does_not_take_the_leftover_for_its_own(
    project: Project, sandbox: SandboxProcess
) -> None:
    sandbox.set_faults({"match": "minute", "kind": "too_many", "retry_after": 0, "times": None})
    project.check("restore_database.py", "--end", END, expect=1)
    assert list(project.folder.glob("*.rebuilding"))
    sandbox.set_faults()
    project.check("restore_database.py", "--end", END, WATCHLIST_TICKERS="GOOG")
    assert query_all(project.database, "SELECT DISTINCT ticker FROM ohlcv_data") == [("GOOG",)]


def test_restore_over_a_file_that_is_no_database_keeps_it_aside(project: Project) -> None:
    project.database.write_bytes(b"not a database" * 1000)
    output = project.check("restore_database.py", "--end", END, "--yes")
    assert "is not a database any more" in output
    (kept,) = project.folder.glob("backtesting.db.backup-*")
    assert kept.read_bytes().startswith(b"not a database")
    assert find_damage(project.database) == "ok"


def test_restore_over_a_damaged_database_salvages_its_rows_and_says_what_is_lost(
    project: Project,
) -> None:
    make_used_database(project.database, rows=400)
    before = read_tables(project.database, KEPT_TABLES)
    content = bytearray(project.database.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8 * 4096] = bytes(8 * 4096)
    project.database.write_bytes(content)
    output = project.check("restore_database.py", "--end", END, "--yes", expect=3)
    assert "is damaged" in output
    assert "NOT everything could be read of:" in output
    assert "no backup could fill the gaps" in output
    after = read_tables(project.database, KEPT_TABLES)
    assert sum(map(len, after.values())) > 0.8 * sum(map(len, before.values()))
    assert all(set(after[table]) <= set(before[table]) for table in KEPT_TABLES)
    (kept,) = project.folder.glob("backtesting.db.backup-*")
    assert kept.read_bytes()[4096:] == content[4096:]


def test_two_restores_at_once_are_one_too_many(project: Project, sandbox: SandboxProcess) -> None:
    sandbox.set_faults({"match": "ticker/AAPL", "kind": "timeout", "seconds": 60, "times": None})
    first = project.start("restore_database.py", "--end", END)
    wait_for_requests(sandbox, first)
    output = project.check("restore_database.py", "--end", END, expect=1)
    assert f"already running (process {first.pid}" in output
    first.kill()
    first.communicate()
    sandbox.release()


def wait_for_requests(sandbox: SandboxProcess, process: subprocess.Popen[str]) -> None:
    while not sandbox.fetch_log():
        assert process.poll() is None, process.communicate()


@pytest.mark.root
def test_restore_without_room_says_how_much_is_missing_before_the_first_request(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.clear_log()
    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        project = Project(disk, url=sandbox.url, settings={"WATCHLIST_TICKERS": FEW})
        make_used_database(project.database, rows=10)
        before = project.database.read_bytes()
        output = project.check("restore_database.py", "--end", END, "--yes", expect=1)
        assert "are missing" in output
        assert sandbox.fetch_log() == []
        assert project.database.read_bytes() == before


@pytest.mark.root
def test_restore_on_a_disk_that_fills_up_names_it_and_leaves_the_old_database(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.clear_log()
    sandbox.set_faults({"match": "ticker/AAPL", "kind": "slow", "seconds": 60, "times": 1})
    with small_disk(tmp_path / "disk", 16 << 20) as disk:
        project = Project(disk, url=sandbox.url, settings={"WATCHLIST_TICKERS": FEW})
        make_used_database(project.database, rows=10)
        before = project.database.read_bytes()
        process = project.start("restore_database.py", "--end", END, "--yes")
        wait_for_requests(sandbox, process)
        fill(disk)
        sandbox.release()
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 1, errors
        assert "the disk is full" in errors
        assert project.database.read_bytes() == before


@pytest.mark.root
def test_restore_in_a_read_only_folder_names_the_cause(
    tmp_path: Path, sandbox: SandboxProcess
) -> None:
    with small_disk(tmp_path / "disk", 16 << 20) as disk:
        project = Project(disk, url=sandbox.url, settings={"WATCHLIST_TICKERS": FEW})
        make_used_database(project.database, rows=10)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        output = project.check(
            "restore_database.py", "--end", END, "--yes", expect=1, XDG_STATE_HOME=str(tmp_path)
        )
        assert "Read-only file system" in output
