"""The guide's troubleshooting: each state is produced for real, named with a command, and mended by
that command.

`status` or `doctor` runs as a real process; the command that it prints is run as printed.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.market.sessions import last_completed_session, load_calendar
from commands import SCRIPTS, Project
from contents import find_damage, query_all
from large_database import make_large_database
from mending import run_printed_command, with_schedule
from sandbox_process import running_sandbox
from small_disk import small_disk

# Bars of today's market: older ones would be stale, as status says.
END = last_completed_session(load_calendar(), datetime.now(UTC)).isoformat()
COUNT_STRATEGIES = "SELECT count(*) FROM strategies"


def ask_status(project: Project) -> dict[str, str]:
    """Problem -> the command that helps."""
    values = json.loads(project.run("show_status.py", "--json").stdout)
    return {problem["name"]: problem["next_step"] for problem in values["problems"]}


def ask_doctor(project: Project, *arguments: str, **changes: str) -> dict[str, tuple[str, str]]:
    """What is wrong: topic -> sentence and the command or change that mends it."""
    done = project.run("check_environment.py", "--json", *arguments, **changes)
    assert project.key not in done.stdout + done.stderr
    wrong = [finding for finding in json.loads(done.stdout) if finding["level"] == "wrong"]
    assert done.returncode == (1 if wrong else 0)
    # The database of whoever runs the tests lies near the project, too.
    return {
        finding["name"]: (finding["what"], finding["next_step"])
        for finding in wrong
        if finding["name"] != "other databases" or str(project.folder) in finding["what"]
    }


def make_project(folder: Path) -> Project:
    """Market data, a strategy, a backup, a schedule: nothing to complain about."""
    project = with_schedule(Project(folder))
    make_large_database(project.database, tickers=20, sessions=50, journal="DELETE")
    add_strategy(project.database)
    project.check("backup_database.py")
    assert ask_status(project) == {}
    return project


def add_strategy(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            "VALUES ('s', 'A', '1day', '{}')"
        )


def delete_database(database: Path) -> None:
    database.unlink()


def empty_database(database: Path) -> None:
    database.write_bytes(b"")


def overwrite_database(database: Path) -> None:
    database.write_bytes(b"\xff" * database.stat().st_size)


@pytest.mark.parametrize(
    ("disaster", "name"),
    [
        (delete_database, "no_database"),
        (empty_database, "empty_database"),
        (overwrite_database, "damaged_database"),
    ],
)
def test_database_lost_with_a_backup_is_mended_by_the_named_command(
    tmp_path: Path, disaster: Callable[[Path], None], name: str
) -> None:
    project = make_project(tmp_path)
    disaster(project.database)
    command = ask_status(project)[name]
    assert command == "make restore-from-backup"
    mended = run_printed_command(project, command)
    assert mended.returncode == 0, mended.stderr
    assert query_all(project.database, COUNT_STRATEGIES) == [(1,)]
    assert ask_status(project) == {}


def test_database_not_found_without_a_backup_is_mended_by_make_restore(tmp_path: Path) -> None:
    with running_sandbox(today=END) as sandbox:
        project = with_schedule(
            Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": "IBM,AAPL"})
        )
        command = ask_status(project)["no_database"]
        mended = run_printed_command(project, command, ARGS=f"--end {END}")
    assert (command, mended.returncode) == ("make restore", 0), mended.stderr
    problems = ask_status(project)
    assert problems == {"no_backup": "make backup"}
    assert run_printed_command(project, problems["no_backup"]).returncode == 0
    assert ask_status(project) == {}


def test_schema_without_market_data_is_mended_by_make_restore(tmp_path: Path) -> None:
    with running_sandbox(today=END) as sandbox:
        project = with_schedule(
            Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": "IBM"})
        )
        project.check("restore_database.py", "--skip-backfill", "--yes")
        assert ask_status(project)["empty_database"] == "make restore"
        add_strategy(project.database)
        command = ask_status(project)["no_universe"]
        mended = run_printed_command(project, command, ARGS=f"--end {END}")
    assert (command, mended.returncode) == ("make restore", 0), mended.stderr
    assert query_all(project.database, COUNT_STRATEGIES) == [(1,)]
    assert set(ask_status(project)) == {"no_backup"}


def test_holes_in_the_coverage_are_mended_by_the_named_backfills(tmp_path: Path) -> None:
    with running_sandbox(today=END) as sandbox:
        project = with_schedule(
            Project(tmp_path, sandbox.url, settings={"WATCHLIST_TICKERS": "IBM,AAPL"})
        )
        project.check("restore_database.py", "--end", END)
        project.check("backup_database.py")
        project.check(
            "01_create_universe.py", "--universe", "tech_sector", "--tickers", "IBM,AAPL,MSFT"
        )
        mended_by = []
        while command := ask_status(project).get("holes"):
            mended_by.append(command)
            mended = run_printed_command(project, command)
            assert mended.returncode == 0, mended.stderr
            assert len(mended_by) <= 2
    assert sorted(command.split(" --start")[0] for command in mended_by) == [
        'make backfill-daily ARGS="--universe tech_sector',
        'make backfill-intraday ARGS="--universe tech_sector',
    ]
    assert ask_status(project) == {}


def test_no_new_backups_for_27_hours_is_mended_by_make_backup(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (manifest,) = (tmp_path / "backups").glob("*.json")
    values = json.loads(manifest.read_text())
    earlier = (datetime.now(UTC) - timedelta(hours=27)).isoformat().replace("+00:00", "Z")
    manifest.write_text(json.dumps(values | {"taken_at_utc": earlier, "clock_utc": earlier}))
    command = ask_status(project)["stale_backup"]
    assert command == "make backup"
    assert run_printed_command(project, command).returncode == 0
    assert ask_status(project) == {}


@pytest.mark.parametrize(
    ("index", "column"),
    [("idx_daily_metrics_date", "date"), ("idx_daily_metrics_volume_ratio", "ticker")],
)
def test_malformed_disk_image_deep_in_the_file_is_named_by_doctor_and_mended(
    tmp_path: Path, index: str, column: str
) -> None:
    """Status counts with the help of the first index and meets the damage; the second only doctor
    reads."""
    project = make_project(tmp_path)
    (root,) = query_all(
        project.database, "SELECT rootpage FROM sqlite_schema WHERE name = ?", index
    )
    with project.database.open("r+b") as file:
        file.seek((root[0] - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(sqlite3.DatabaseError, match="database disk image is malformed"):
        query_all(
            project.database,
            f"SELECT close FROM daily_metrics INDEXED BY {index} WHERE {column} >= ''",
        )
    assert (ask_status(project) == {}) is (column == "ticker")
    what, command = ask_doctor(project)["damaged_database"]
    assert "is damaged" in what
    assert command == "make restore-from-backup"
    assert run_printed_command(project, command).returncode == 0
    assert find_damage(project.database) == "ok"
    assert "database" not in ask_doctor(project)


def test_transaction_of_a_killed_program_is_named_and_taken_back_by_the_next_backup(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path)
    code = (
        "import sqlite3, os; c = sqlite3.connect(os.environ['DATABASE_PATH'], "
        "isolation_level=None);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN'); "
        "c.execute('DELETE FROM strategies'); "
        "c.execute('DELETE FROM ohlcv_data'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], env=project.environment(), check=False)
    problems = ask_status(project)
    assert problems == {"interrupted_transaction": "make backup"}
    assert run_printed_command(project, problems["interrupted_transaction"]).returncode == 0
    assert ask_status(project) == {}
    assert query_all(project.database, COUNT_STRATEGIES) == [(1,)]


def test_doctor_does_not_block_a_writer_with_a_rollback_journal(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with closing(sqlite3.connect(project.database, timeout=0, isolation_level=None)) as writer:
        writer.execute("BEGIN")
        writer.execute("UPDATE strategies SET name = 'changed'")
        found = json.loads(project.run("check_environment.py", "--json").stdout)
        writer.execute("COMMIT")
    (database,) = [
        finding for finding in found if (finding["where"] or finding["name"]) == "database"
    ]
    assert database["level"] == "note"
    assert "was not read as a whole" in database["what"]


def test_429s_are_named_by_doctor_online_and_end_with_the_named_setting(tmp_path: Path) -> None:
    with running_sandbox(today="2013-03-02") as sandbox:
        project = Project(tmp_path, sandbox.url)
        assert "vendor" not in ask_doctor(project, "--online")
        sandbox.clear_log()
        sandbox.set_settings(requests_per_minute=3, window_seconds=60)
        codes = {sandbox.get("/v3/reference/tickers", limit=1).status_code for _ in range(4)}
        assert codes == {200, 429}
        what, advice = ask_doctor(project, "--online")["vendor"]
        assert "over the quota (429)" in what
        assert "POLYGON_REQUESTS_PER_MINUTE" in advice
        assert len(sandbox.fetch_log()) == 5
        sandbox.set_settings(requests_per_minute=0)
        assert "vendor" not in ask_doctor(project, "--online", POLYGON_REQUESTS_PER_MINUTE="3")


@pytest.mark.root
def test_no_space_is_named_with_the_missing_bytes_and_mended_by_keeping_fewer(
    tmp_path: Path,
) -> None:
    project = with_schedule(Project(tmp_path))
    make_large_database(project.database, tickers=20, sessions=50, journal="DELETE")
    each = project.database.stat().st_size
    with small_disk(tmp_path / "backups", each * 6):
        for _ in range(3):
            project.check("backup_database.py")
        command = ask_status(project)["little_space"]
        assert command.startswith("free ")
        assert "MAX_BACKUPS below 3" in command
        project.settings |= {"MAX_BACKUPS": "1"}
        project.settings |= {"KEEP_FULL_WEEKLY": "0", "KEEP_FULL_MONTHLY": "0"}
        run_printed_command(project, "make backup")
        assert ask_status(project) == {}


def test_relative_path_is_named_with_the_databases_that_it_made(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    stray = tmp_path / "server" / "backtesting.db"
    stray.parent.mkdir()
    stray.write_bytes(project.database.read_bytes())
    found = json.loads(
        subprocess.run(
            [sys.executable, str(SCRIPTS / "check_environment.py"), "--json"],
            env=project.environment(DATABASE_PATH="backtesting.db"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    )
    wrong = [finding["what"] for finding in found if finding["level"] == "wrong"]
    assert any(
        "DATABASE_PATH=backtesting.db (from the environment) is a relative path" in what
        for what in wrong
    )
    near = [finding for finding in found if str(stray) in finding["what"]]
    assert [(finding["level"], finding["name"]) for finding in near] == [("note", "databases")]
    project.database.unlink()
    _what, command = ask_doctor(project)["no_database"]
    assert command == "make restore-from-backup"


def test_another_path_in_the_environment_is_named_and_mended_by_unset(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    env_file = tmp_path / ".env"
    env_file.write_text(f"DATABASE_PATH={project.database}\n")
    env_file.chmod(0o600)
    other = str(tmp_path / "other.db")
    what, command = ask_doctor(project, BACKTEST_ENV_FILE=str(env_file), DATABASE_PATH=other)[
        "settings"
    ]
    assert other in what
    assert str(project.database) in what
    assert command == "unset DATABASE_PATH"
    assert ask_doctor(project, BACKTEST_ENV_FILE=str(env_file), DATABASE_PATH="") == {}


def test_open_permissions_are_named_and_mended_by_the_named_command(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    env_file = tmp_path / ".env"
    env_file.write_text("POLYGON_API_KEY=abc\n")
    env_file.chmod(0o644)
    project.settings["BACKTEST_ENV_FILE"] = str(env_file)
    what, advice = ask_doctor(project)["permissions"]
    assert f"others can read {env_file}" in what
    assert advice == "keep the settings in a file that you alone can read"
    env_file.chmod(0o600)
    (backup,) = (tmp_path / "backups").glob("*.db")
    backup.chmod(0o644)
    what, command = ask_doctor(project)["permissions"]
    assert str(backup) in what
    assert run_printed_command(project, command).returncode == 0
    assert backup.stat().st_mode & 0o077 == 0
    assert ask_doctor(project) == {}
