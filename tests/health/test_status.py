"""`make status`: what it sees, what it says, and that nobody notices it."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.health.backup_facts import BackupFacts, KindFacts
from backtestdb.health.coverage_facts import UniverseCoverage, load_universe_coverage
from backtestdb.health.database_facts import DatabaseFacts, Table, count_quickly
from backtestdb.health.drill_facts import load_drill_facts
from backtestdb.health.facts import Facts, QuotaFacts, load_facts
from backtestdb.health.problems import judge
from backtestdb.health.schedule_facts import ScheduleFacts, User, look_at_container
from backtestdb.market.sessions import load_calendar, sessions_back
from backtestdb.scheduling.health import make_liveness, save_liveness, scheduler_path
from backtestdb.schema import SQL_DIR
from backtestdb.untouched import read_untouched
from commands import COMMANDS, SCRIPTS, Project
from large_database import LAST, make_large_database
from mending import list_files, with_schedule
from platform_database import make_used_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def make_facts(**changes: object) -> Facts:
    """All is well."""
    newest = KindFacts(
        kind="full",
        count=5,
        newest=Path("/b/x.db"),
        newest_at_utc=NOW,
        newest_age=timedelta(hours=10),
        newest_bytes=1000,
        bytes_used=5000,
    )
    facts = Facts(
        checked_at=NOW,
        database=DatabaseFacts(
            path=Path("/db"),
            origin="default",
            state="present",
            bytes=1000,
            tables=[Table("universe", "recoverable", 1, is_exact=True)],
        ),
        universes=[
            UniverseCoverage(
                universe="tech",
                timeframe="1day",
                tickers=2,
                unanswered=0,
                first="2026-11-19",
                last="2026-11-20",
                start="",
                end="",
                sessions=2,
                expected=4,
                stored=4,
                known_empty=0,
                set_aside=0,
                beyond_plan=0,
                failed=0,
            )
        ],
        backups=BackupFacts(
            folder=Path("/b"),
            full=newest,
            irreplaceable=replace(newest, kind="irreplaceable"),
            unverified={},
            free_bytes=9000,
            room_for=9,
            missing_disk="",
        ),
        schedule=ScheduleFacts(kind="systemd", installed=True, loaded=True),
        drills=[],
        quota=QuotaFacts(0, 5),
    )
    return replace(facts, **changes)


def names_of(facts: Facts) -> list[str]:
    return [problem.name for problem in judge(facts)]


def make_whole_project(folder: Path, journal: str = "DELETE") -> Project:
    project = with_schedule(Project(folder))
    make_large_database(project.database, tickers=3, sessions=4, journal=journal)
    project.check("backup_database.py")
    return project


def test_status_of_a_whole_project_finds_nothing_and_exits_0(tmp_path: Path) -> None:
    project = make_whole_project(tmp_path)
    printed = project.check("show_status.py")
    values = json.loads(project.check("show_status.py", "--json"))
    assert "all is well" in printed
    assert str(project.database) in printed
    assert (values["ok"], values["problems"], values["database"]["state"]) == (True, [], "present")
    rows = {table["name"]: table["rows"] for table in values["database"]["tables"]}
    assert (rows["ohlcv_data"], rows["daily_metrics"], rows["universe_stocks"]) == (12, 12, 3)
    (universe,) = values["universes"]
    assert (universe["universe"], universe["first"], universe["last"]) == (
        "us-stocks",
        sessions_back(load_calendar(), LAST, 3).isoformat(),
        LAST.isoformat(),
    )
    assert values["backups"]["full"]["count"] == 1
    assert values["backups"]["full"]["newest_bytes"] == project.database.stat().st_size
    assert project.key not in printed + json.dumps(values)


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_status_of_a_resting_database_leaves_every_file_as_it_was(
    tmp_path: Path, journal: str
) -> None:
    project = make_whole_project(tmp_path, journal)
    before = list_files(tmp_path)
    project.check("show_status.py")
    assert list_files(tmp_path) == before


def test_status_sees_commits_that_a_killed_program_left_in_the_log(tmp_path: Path) -> None:
    project = make_whole_project(tmp_path, "WAL")
    code = (
        "import sqlite3, os; c = sqlite3.connect(os.environ['DATABASE_PATH'], "
        "isolation_level=None);"
        "c.execute(\"INSERT INTO strategies (name, ticker, timeframe, config) VALUES ('s', 'A', "
        "'1day', '{}')\");"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], env=project.environment(), check=False)
    before = list_files(tmp_path)
    values = json.loads(project.check("show_status.py", "--json"))
    assert [
        table["rows"] for table in values["database"]["tables"] if table["name"] == "strategies"
    ] == [1]
    assert [entry for entry in list_files(tmp_path) if "-shm" not in entry[0]] == [
        entry for entry in before if "-shm" not in entry[0]
    ]


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_writer_that_never_waits_commits_while_status_reads(tmp_path: Path, journal: str) -> None:
    database = make_large_database(tmp_path / "a.db", tickers=1, sessions=1, journal=journal)
    seen = []

    def look(connection: sqlite3.Connection) -> int:
        seen.append(connection.execute("SELECT count(*) FROM strategies").fetchone()[0])
        with closing(sqlite3.connect(database, timeout=0)) as writer, writer:
            writer.execute(
                "INSERT INTO strategies (name, ticker, timeframe, config) "
                "VALUES ('s', 'A', '1day', '')"
            )
        return seen[-1]

    assert read_untouched(database, look) == 1
    assert seen == [0, 1]


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    project = make_whole_project(tmp_path)
    heavy = {"pandas", "numpy", "exchange_calendars", "requests", "orjson"}
    code = (
        f"import runpy, sys\ntry: runpy.run_path({str(SCRIPTS / 'show_status.py')!r}, "
        "run_name='__main__')\n"
    )
    code += f"except SystemExit: print('IMPORTED', {heavy!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n{code}"],
        env=project.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "IMPORTED set()" in done.stdout


@pytest.mark.long
def test_status_of_two_gigabytes_takes_less_than_a_second(tmp_path: Path) -> None:
    project = with_schedule(Project(tmp_path))
    make_large_database(project.database, tickers=4000, sessions=1000)
    assert project.database.stat().st_size > 2e9
    seconds = []
    for _ in range(5):  # other tests run beside this one
        started = time.monotonic()
        printed = project.run("show_status.py").stdout
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1
    assert "4,000" in printed


def test_facts_without_fault_are_no_problem() -> None:
    assert judge(make_facts()) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-20T12:00:00+00:00", []),
        ("2026-11-27T01:14:00+00:00", []),  # four weekdays, one of which may have been a holiday
        ("2026-11-28T01:15:00+00:00", ["stale_bars"]),
        ("2027-05-20T12:00:00+00:00", ["stale_bars"]),
    ],
)
def test_bars_of_more_than_three_sessions_ago_are_stale(now: str, expected: list[str]) -> None:
    """The newest are of Friday, 2026-11-20."""
    assert names_of(make_facts(checked_at=datetime.fromisoformat(now))) == expected


def test_schedule_that_could_not_start_or_ends_at_logout_leads_to_what_helps() -> None:
    moved = ScheduleFacts(
        kind="systemd",
        installed=True,
        loaded=True,
        last_result="exit code 203",
        failed=True,
        could_not_start=True,
    )
    (problem,) = judge(make_facts(schedule=moved))
    assert (problem.name, problem.next_step) == ("schedule_failed", "make schedule-install")
    bound = ScheduleFacts(kind="systemd", installed=True, loaded=True, runs_without_login=False)
    (problem,) = judge(make_facts(schedule=bound))
    assert (problem.name, problem.next_step) == ("only_while_logged_in", "loginctl enable-linger")


@pytest.mark.parametrize(("hours", "expected"), [(26, []), (26.1, ["stale_backup"])])
def test_a_full_backup_counts_for_26_hours(hours: float, expected: list[str]) -> None:
    backups = make_facts().backups
    full = replace(backups.full, newest_age=timedelta(hours=hours))
    assert names_of(make_facts(backups=replace(backups, full=full))) == expected


@pytest.mark.parametrize(
    ("room", "expected"), [(3, []), (2, ["little_space"]), (0, ["little_space"])]
)
def test_space_for_fewer_than_three_backups_is_a_problem(room: int, expected: list[str]) -> None:
    backups = replace(make_facts().backups, free_bytes=room * 1000, room_for=room)
    assert names_of(make_facts(backups=backups)) == expected


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ScheduleFacts(kind="none", installed=False, loaded=False), ["no_schedule"]),
        (ScheduleFacts(kind="launchd", installed=True, loaded=False), ["schedule_not_loaded"]),
        (
            ScheduleFacts(
                kind="launchd", installed=True, loaded=True, last_result="exit code 1", failed=True
            ),
            ["schedule_failed"],
        ),
    ],
)
def test_schedule_that_makes_no_backups_is_a_problem(
    schedule: ScheduleFacts, expected: list[str]
) -> None:
    assert names_of(make_facts(schedule=schedule)) == expected


def test_backup_disk_that_is_gone_is_named_instead_of_missing_backups() -> None:
    backups = make_facts().backups
    gone = replace(
        backups, missing_disk="/Volumes/Backup", full=replace(backups.full, newest_age=None)
    )
    assert names_of(make_facts(backups=gone)) == ["no_backup_disk"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"failed": 1}, ["holes"]),
        ({"is_stale": True}, ["holes"]),
        ({"expected": None, "unanswered": 1}, ["holes"]),
        ({"expected": None, "failed": None, "first": ""}, ["no_bars"]),
        ({"known_empty": 3, "stored": 1}, []),
    ],
)
def test_holes_are_what_was_asked_for_and_not_answered(
    changes: dict[str, object], expected: list[str]
) -> None:
    coverage = replace(make_facts().universes[0], **changes)
    assert names_of(make_facts(universes=[coverage])) == expected


def test_coverage_is_stale_while_a_run_that_asks_has_not_counted(tmp_path: Path) -> None:
    """Each universe by itself: that another one was counted later says nothing about it."""
    database = make_large_database(tmp_path / "a.db", tickers=2, sessions=3)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript((SQL_DIR / "schema" / "bookkeeping" / "_coverage.sql").read_text())
        connection.execute(
            "INSERT INTO _coverage (universe, timeframe, start_date, end_date, tickers, expected, "
            "stored, known_empty, set_aside, beyond_plan, failed, counted_at_utc) "
            "VALUES ('us-stocks', '1day', '2026-11-18', '2026-11-20', 2, 6, 5, 0, 0, 0, 1, "
            "'2026-11-21T00:00:01+00:00')"
        )
        (coverage,) = load_universe_coverage(connection)
        assert (coverage.expected, coverage.failed, coverage.sessions, coverage.is_stale) == (
            6,
            1,
            3,
            False,
        )
        connection.execute("UPDATE _coverage SET state = 'running'")
        (coverage,) = load_universe_coverage(connection)
        assert coverage.is_stale


def test_large_tables_are_bounded_and_small_ones_counted(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        assert count_quickly(connection, "t") == (0, True)
        connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in (5, 6, 100)])
        assert count_quickly(connection, "t") == (3, True)
        connection.execute("INSERT INTO t VALUES (1000004)")
        assert count_quickly(connection, "t") == (1_000_000, False)


def test_platform_database_with_unknown_tables_is_counted_whole(tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_used_database(project.database)
    values = json.loads(project.run("show_status.py", "--json").stdout)
    groups = {
        table["name"]: (table["group"], table["rows"]) for table in values["database"]["tables"]
    }
    assert groups["lab_notes"] == ("irreplaceable", 37)
    assert groups["odd names"] == ("irreplaceable", 40)


def test_container_loop_is_loaded_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    database = tmp_path / "backtesting.db"
    path = scheduler_path(tmp_path, database, ".json")
    liveness = {
        "kind": "loop",
        "ticked_at": NOW.isoformat(),
        "process_id": 1,
        "running": "",
        "failures": {},
    }
    assert not look_at_container(tmp_path, database, NOW).installed
    path.write_text(json.dumps(liveness))
    assert look_at_container(tmp_path, database, NOW + timedelta(minutes=4)).loaded
    late = look_at_container(tmp_path, database, NOW + timedelta(minutes=6))
    assert (late.installed, late.loaded) == (True, False)
    assert not look_at_container(tmp_path, database, NOW + timedelta(hours=27)).installed
    path.write_text(json.dumps(liveness | {"failures": {"full": "the disk is full"}}))
    assert look_at_container(tmp_path, database, NOW).last_result == "the disk is full"
    path.write_text(json.dumps(liveness | {"kind": "once"}))
    assert not look_at_container(tmp_path, database, NOW).installed, (
        "the host's own schedule is no container"
    )


def test_container_that_sees_a_folder_that_was_replaced_is_told_by_the_file_it_sees(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    database = make_used_database(folder / "backtesting.db")
    save_liveness(tmp_path, database, make_liveness("loop", NOW, database))
    assert not look_at_container(tmp_path, database, NOW).sees_other_file
    shutil.copytree(folder, tmp_path / "new")
    folder.rename(tmp_path / "old")
    (tmp_path / "new").rename(folder)
    assert look_at_container(tmp_path, database, NOW).sees_other_file


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("0", (True, "exit code 0", False)), ("1", (True, "exit code 1", True))],
)
def test_last_result_of_the_timer_is_shown(
    tmp_path: Path, answer: str, expected: tuple[bool, str, bool]
) -> None:
    project = with_schedule(Project(tmp_path))
    for name in ("systemctl", "launchctl"):
        script = tmp_path / "bin" / name
        script.write_text(
            f"#!/bin/sh\necho {answer if name == 'systemctl' else f'last exit code = {answer}'}\n"
        )
    schedule = json.loads(project.run("show_status.py", "--json").stdout)["schedule"]
    assert (schedule["loaded"], schedule["last_result"], schedule["failed"]) == expected


def test_drills_are_shown_newest_first_and_torn_lines_left_out(tmp_path: Path) -> None:
    (tmp_path / "drills").mkdir()
    bad = {
        "backup": "b.db",
        "kind": "full",
        "is_good": False,
        "problem": "other rows",
        "seconds": 2.5,
    }
    bad |= {"bytes": 1, "tables": 1, "rows": 1}
    lines = [
        {
            "started_at_utc": "2026-11-01T00:00:00Z",
            "is_good": True,
            "problem": "",
            "rehearsals": [],
        },
        {
            "started_at_utc": "2026-11-08T00:00:00Z",
            "is_good": False,
            "problem": "",
            "rehearsals": [bad],
        },
    ]
    history = "\n".join(json.dumps(line) for line in lines) + '\n{"started_at'
    (tmp_path / "drills" / "history.jsonl").write_text(history)
    newest, oldest = load_drill_facts(tmp_path, tmp_path / "backtesting.db")
    assert (newest.passed, newest.seconds, newest.detail) == (False, 2.5, "b.db: other rows")
    assert oldest.passed


def test_a_folder_in_the_place_of_the_database_is_named(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.database.mkdir()
    done = project.run("show_status.py")
    assert done.returncode == 1
    assert "cannot be read: it is a folder" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_facts_can_be_loaded_without_any_file_there(tmp_path: Path) -> None:
    settings = load_settings(
        {"DATABASE_PATH": str(tmp_path / "no.db"), "BACKUP_DIR": str(tmp_path / "b")}, tmp_path
    )
    facts = load_facts(settings, User(os.getuid(), tmp_path, tmp_path), NOW)
    assert facts.database.state == "missing"
    assert not list(tmp_path.iterdir())


def test_every_command_that_is_printed_is_there() -> None:
    package = PROJECT_DIR / "scripts" / "backtestdb"
    files = [path for room in ("health", "page") for path in (package / room).rglob("*")]
    sources = [path for path in files if path.suffix in {".py", ".html"}]
    named = {
        name for path in sources for name in re.findall(r"\bmake ([a-z0-9-]{3,})", path.read_text())
    }
    assert {"restore", "backup", "schedule-install", "drill", "sidecar-up"} <= named
    assert named <= set(COMMANDS)
