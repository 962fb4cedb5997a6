"""What a rebuild keeps of the user's: lists of tickers, the platform's own tables and numbers, and
what a backup holds where the database is gone."""

import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.database import connect
from commands import Project
from contents import find_damage, query_all, read_tables
from platform_database import KEPT_TABLES, make_used_database
from sandbox_process import SandboxOptions, SandboxProcess

END = "2013-03-01"


SANDBOX = SandboxOptions(today="2013-03-02")


@pytest.fixture
def project(tmp_path: Path, sandbox: SandboxProcess) -> Project:
    sandbox.set_faults()
    sandbox.clear_log()
    return Project(tmp_path, url=sandbox.url, settings={"WATCHLIST_TICKERS": "AAPL,MSFT"})


def give_universes(database: Path) -> None:
    """Two lists of the user's own, with ids and columns that no download knows, and bars of
    both."""
    with closing(connect(database)) as connection:
        connection.executescript("""
            BEGIN;
            ALTER TABLE universe_stocks ADD COLUMN conviction REAL;
            INSERT INTO universe (id, name, description)
                VALUES (17, 'swing', 'my own'), (23, 'tech_sector', 'mine');
            INSERT INTO universe_stocks (id, universe_id, ticker, sector, conviction) VALUES
                (301, 17, 'IBM', 'old iron', 0.75), (302, 17, 'GOOG', 'ads', 0.5),
                (303, 23, 'AAPL', 'phones', 0.9),
                (304, 23, 'GONE', 'gone', 0.1);
            CREATE TABLE of_a_newer_platform (universe_id INTEGER NOT NULL
                REFERENCES universe (id), note TEXT);
            INSERT INTO of_a_newer_platform VALUES (17, 'swing'), (23, 'tech');
            INSERT INTO scan_history (id, user_prompt, universe_id) VALUES ('scan-1', 'gaps', '17');
            INSERT INTO ohlcv_data (ticker, timestamp, open, high, low, close, volume,
                timeframe) VALUES
                ('IBM', 1361509200000, 1, 1, 1, 1, 1, '1day'),
                ('IBM', 1361800800000, 1, 1, 1, 1, 1, '5min'),
                ('AAPL', 1230872400000, 1, 1, 1, 1, 1, '1day'),
                ('AAPL', 1361509200000, 1, 1, 1, 1, 1, '1day'),
                ('AAPL', 1361509260000, 1, 1, 1, 1, 1, '1min'),
                ('LOOSE', 1361509200000, 1, 1, 1, 1, 1, '1day');
            COMMIT;
        """)


def test_restore_keeps_the_users_universes_with_ids_and_columns_and_updates_the_planned_one(
    project: Project,
) -> None:
    make_used_database(project.database)
    give_universes(project.database)
    project.check("restore_database.py", "--end", END, "--yes")
    assert query_all(
        project.database, "SELECT id, name, description FROM universe ORDER BY id"
    ) == [(17, "swing", "my own"), (23, "tech_sector", "mine")]
    members = (
        "SELECT id, universe_id, ticker, sector, conviction, is_active FROM universe_stocks "
        "ORDER BY id"
    )
    found = query_all(project.database, members)
    assert found[4][0] > 304, "a new member gets a number that was never given out"
    assert [*found[:4], (305, *found[4][1:])] == [
        (301, 17, "IBM", "old iron", 0.75, 1),
        (302, 17, "GOOG", "ads", 0.5, 1),
        (303, 23, "AAPL", "phones", 0.9, 1),
        (304, 23, "GONE", "gone", 0.1, 0),
        (305, 23, "MSFT", None, None, 1),
    ]
    assert query_all(project.database, "SELECT * FROM of_a_newer_platform") == [
        (17, "swing"),
        (23, "tech"),
    ]
    assert query_all(project.database, "PRAGMA foreign_key_check") == []


def test_restore_names_the_bars_it_does_not_carry_over_and_its_commands_bring_them_back(
    project: Project,
) -> None:
    make_used_database(project.database)
    give_universes(project.database)
    done = project.run("restore_database.py", "--end", END, "--yes")
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if "not carried over:" in line
    ]
    assert len(said) == 5, said
    # LOOSE, and the 1min bar.
    assert sum("only the kept file has them" in line for line in said) == 2
    ways_back = re.findall(r'back with: make ([a-z-]+) ARGS="(.*)"', "\n".join(said))
    assert {name for name, _ in ways_back} == {"backfill-daily", "backfill-intraday"}
    scripts = {
        "backfill-daily": "02_backfill_daily.py",
        "backfill-intraday": "03_backfill_intraday.py",
    }
    for name, options in ways_back:
        project.check(scripts[name], *shlex.split(options), "--end", END)
    bars = "SELECT count(*) FROM ohlcv_data WHERE ticker = ? AND timeframe = ?"
    assert query_all(project.database, bars, "IBM", "1day")[0][0] >= 5
    assert query_all(project.database, bars, "IBM", "5min")[0][0] >= 78
    first = "SELECT min(timestamp) FROM ohlcv_data WHERE ticker = 'AAPL' AND timeframe = '1day'"
    assert query_all(project.database, first)[0][0] <= 1230872400000


def test_small_backup_brings_the_universes_back(project: Project) -> None:
    make_used_database(project.database)
    give_universes(project.database)
    before = read_tables(project.database, ["universe", "universe_stocks"])
    project.check("backup_database.py", "--irreplaceable-only")
    project.database.unlink()
    project.check("restore_database.py", "--from-backup", "--yes")
    assert read_tables(project.database, ["universe", "universe_stocks"]) == before


def test_restore_of_a_missing_database_takes_the_irreplaceable_from_the_newest_backup(
    project: Project,
) -> None:
    make_used_database(project.database)
    before = read_tables(project.database, KEPT_TABLES)
    project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    project.database.unlink()
    output = project.check("restore_database.py", "--end", END)
    assert "from irreplaceable-" in output
    assert read_tables(project.database, KEPT_TABLES) == before


def test_restore_of_a_missing_database_whose_backups_are_all_bad_stops_before_the_first_request(
    project: Project, sandbox: SandboxProcess
) -> None:
    make_used_database(project.database)
    project.check("backup_database.py")
    (backup,) = (project.folder / "backups").glob("*.db")
    backup.write_bytes(backup.read_bytes()[:-1] + b"\xff")
    project.database.unlink()
    done = project.run("restore_database.py", "--end", END)
    assert done.returncode == 1
    assert "--discard-irreplaceable" in done.stderr
    assert sandbox.fetch_log() == []
    project.check("restore_database.py", "--end", END, "--discard-irreplaceable")
    assert query_all(project.database, "SELECT count(*) FROM strategies") == [(0,)]


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_restore_keeps_the_platforms_numbers_and_its_journal_mode(
    project: Project, journal: str
) -> None:
    make_used_database(project.database, journal=journal)
    with closing(connect(project.database)) as connection:
        connection.execute("PRAGMA user_version = 42")
        connection.execute("PRAGMA application_id = 1234567")
    project.check("restore_database.py", "--skip-backfill", "--yes")
    assert read_numbers(project.database) == (42, 1234567, journal.lower())
    project.check("backup_database.py", "--irreplaceable-only")
    (small,) = (project.folder / "backups").glob("irreplaceable-*.db")
    assert read_numbers(small)[:2] == (42, 1234567)


def read_numbers(database: Path) -> tuple[int, int, str]:
    with closing(sqlite3.connect(database)) as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("user_version", "application_id", "journal_mode")
        )


def test_carry_over_that_cannot_work_is_found_before_the_first_request(
    project: Project, sandbox: SandboxProcess
) -> None:
    """A list of universes without the UNIQUE that updating it by its name needs."""
    make_used_database(project.database)
    with closing(connect(project.database)) as connection:
        connection.execute("DROP TABLE universe")
        connection.execute("CREATE TABLE universe (name TEXT)")
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) VALUES ('a', 'b', 'c', 'd')"
        )
    before = project.database.read_bytes()
    done = project.run("restore_database.py", "--end", END, "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sandbox.fetch_log() == []
    assert project.database.read_bytes() == before
    assert not list(project.folder.glob("*trial*"))


NEWER_PLATFORM = """
-- The platform of another month.
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS learning_agents (id TEXT PRIMARY KEY, name TEXT NOT NULL,
    generation INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS strategies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT,
    genome BLOB);
CREATE INDEX IF NOT EXISTS idx_strategies_name ON strategies (name);
CREATE TABLE IF NOT EXISTS ohlcv_data (id INTEGER PRIMARY KEY, ticker TEXT, other_shape TEXT);
CREATE TABLE IF NOT EXISTS app_settings (key TEXT PRIMARY KEY, value TEXT);
INSERT OR IGNORE INTO app_settings VALUES ('theme', 'dark');
CREATE VIEW IF NOT EXISTS strategy_names AS SELECT name FROM strategies;
"""


def test_restore_with_the_platforms_schema_makes_its_tables_in_the_place_of_ours(
    project: Project, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.sql"
    schema.write_text(NEWER_PLATFORM)
    output = project.check("restore_database.py", "--end", END, PLATFORM_SCHEMA=str(schema))
    assert "the rest from PLATFORM_SCHEMA" in output
    tables = {name for (name,) in query_all(project.database, "SELECT name FROM sqlite_schema")}
    assert {
        "learning_agents",
        "strategies",
        "app_settings",
        "strategy_names",
        "universe",
        "ohlcv_data",
    } <= tables
    assert "trading_agents" not in tables
    assert query_all(project.database, "SELECT * FROM app_settings") == [("theme", "dark")]
    assert (
        query_all(project.database, "SELECT count(*) FROM ohlcv_data WHERE timeframe = '1day'")[0][
            0
        ]
        > 400
    )
    assert find_damage(project.database) == "ok"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE IF EXISTS strategies;",
        "DELETE FROM app_settings;",
        "ATTACH '{folder}/other.db' AS other;",
    ],
)
def test_platform_schema_with_a_statement_that_takes_away_is_refused_before_anything(
    project: Project, tmp_path: Path, sandbox: SandboxProcess, statement: str
) -> None:
    schema = tmp_path / "schema.sql"
    schema.write_text(NEWER_PLATFORM + statement.format(folder=tmp_path) + "\n")
    done = project.run("restore_database.py", "--end", END, PLATFORM_SCHEMA=str(schema))
    assert done.returncode == 2, done.stdout + done.stderr
    assert statement.split(maxsplit=1)[0] in done.stderr
    assert sandbox.fetch_log() == []
    assert not project.database.exists()
    assert not (tmp_path / "other.db").exists()


def test_restore_of_the_market_only_leaves_every_other_table_to_the_platform(
    project: Project,
) -> None:
    project.check("restore_database.py", "--end", END, "--market-only")
    names = query_all(project.database, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    assert {name for (name,) in names if not name.startswith(("_", "sqlite_"))} == {
        "universe",
        "universe_stocks",
        "ohlcv_data",
        "daily_metrics",
    }


def test_demo_refuses_a_folder_with_files_that_no_demonstration_made(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    done = Project(tmp_path).run("run_demo.py", "--folder", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert precious.read_text() == "years of work"
    assert "nothing was removed" in done.stderr
