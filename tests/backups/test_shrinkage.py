"""A source that has shrunk is noticed, and nothing that it lost goes away before the user says
so."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.database import connect
from backup_tools import age_backups, make_platform_database, strategy_names
from commands import Project

MONDAY = datetime(2026, 11, 23, 2, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """50 strategies and their first backups of both kinds."""
    project = Project(
        tmp_path, settings={"MAX_BACKUPS": "1", "KEEP_FULL_WEEKLY": "0", "KEEP_FULL_MONTHLY": "0"}
    )
    make_platform_database(project.database, bars=200)
    project.check("backup_database.py")
    project.check("backup_database.py", "--irreplaceable-only")
    return project


def run_sql(project: Project, *statements: str) -> None:
    """As another program would: without this project's code."""
    with closing(sqlite3.connect(project.database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def newest(project: Project) -> dict[str, object]:
    backup: dict[str, object] = json.loads(
        project.run("backup_database.py", "--list", "--json").stdout
    )[0]
    return backup


@pytest.mark.parametrize("kind", ["full", "small"])
@pytest.mark.parametrize(
    "accident",
    ["DELETE FROM strategies", "DROP TABLE strategies", "DELETE FROM strategies WHERE id > 24"],
)
def test_backup_of_a_database_that_has_lost_rows_is_suspicious(
    project: Project, kind: str, accident: str
) -> None:
    run_sql(project, accident)
    option = ["--irreplaceable-only"] if kind == "small" else []
    done = project.run("backup_database.py", *option)
    assert done.returncode == 1
    assert "strategies: 50 on " in done.stderr
    assert "restore-from-backup" in done.stderr
    assert newest(project)["losses"]
    # The same state is no more right a second time.
    again = project.run("backup_database.py", *option)
    assert again.returncode == 1

    project.check("restore_database.py", "--from-backup", "--yes")
    assert len(strategy_names(project.database)) == 50
    project.check("backup_database.py", *option)
    assert not newest(project)["losses"]


def test_restore_passes_over_what_a_platform_backed_up_after_it_emptied_the_file(
    project: Project,
) -> None:
    """Seen: the newest small backup, of nothing, was laid over last night's full one: 40 agents
    before, 0 after."""
    run_sql(project, "DELETE FROM strategies")
    for _ in range(2):
        project.check("backup_database.py", "--irreplaceable-only", expect=1)
    said = project.check("restore_database.py", "--from-backup", "--yes")
    assert "suspicious" in said
    assert len(strategy_names(project.database)) == 50


def test_status_names_table_before_and_now_and_the_command_before_any_backup_is_made(
    project: Project,
) -> None:
    run_sql(project, "DELETE FROM strategies")
    facts = json.loads(project.run("show_status.py", "--json").stdout)
    (problem,) = [one for one in facts["problems"] if one["name"] == "rows_lost"]
    assert "strategies: 50 on " in problem["what"]
    assert problem["what"].endswith("0 now")
    assert "make restore-from-backup" in problem["next_step"]
    project.check("backup_database.py", "--accept-loss")
    facts = json.loads(project.run("show_status.py", "--json").stdout)
    assert "rows_lost" not in {one["name"] for one in facts["problems"]}


def test_retention_keeps_what_was_lost_until_the_loss_is_accepted(project: Project) -> None:
    run_sql(project, "DELETE FROM strategies")
    for _ in range(3):
        project.check("backup_database.py", expect=1)
    rows = [
        backup["rows"]["strategies"]
        for backup in json.loads(project.run("backup_database.py", "--list", "--json").stdout)
    ]
    assert 50 in rows
    assert "accepted" in project.check("backup_database.py", "--accept-loss")
    assert newest(project)["loss_accepted"]
    project.check("backup_database.py")
    listed = json.loads(project.run("backup_database.py", "--list", "--json").stdout)
    assert [b["rows"]["strategies"] for b in listed if b["kind"] == "full"] == [0]


def test_renamed_table_is_said_to_be_renamed_and_is_no_loss(project: Project) -> None:
    run_sql(
        project,
        "ALTER TABLE strategies RENAME TO playbooks",
        "ALTER TABLE playbooks ADD COLUMN mood TEXT",
    )
    said = project.check("backup_database.py")
    assert "strategies seems to have been renamed to playbooks" in said


def test_rows_before_and_after_are_shown_per_table(project: Project) -> None:
    run_sql(project, "DELETE FROM strategies WHERE id <= 3")
    said = project.check("restore_database.py", "--from-backup", "--yes")
    line = next(line for line in said.splitlines() if "strategies" in line and "47" in line)
    assert "50" in line


def test_heartbeat_hears_of_a_loss_as_a_failure(project: Project, tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    asked: list[str] = []

    class Watcher(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815  a failure comes with its reason

        def log_message(self, *_arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Watcher) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/ping"
        project.check("backup_database.py", HEARTBEAT_URL=url)
        run_sql(project, "DELETE FROM strategies")
        project.check("backup_database.py", expect=1, HEARTBEAT_URL=url)
        age_backups(load_catalogue(tmp_path / "backups"), timedelta(days=2))
        project.check("run_scheduler.py", "--once", expect=1, HEARTBEAT_URL=url)
        server.shutdown()
    told = [path for path, _ in groupby(asked)]  # a slow answer is asked for again
    assert told[:4] == ["/ping/start", "/ping", "/ping/start", "/ping/fail"]
    assert "rows were lost" in (tmp_path / "backups" / "backup-error.log").read_text()


def test_small_backup_after_a_full_one_with_other_rows_is_made_anew(project: Project) -> None:
    """Rows that came and went again: the small backup from before would be older than the full one
    that has them."""
    run_sql(
        project,
        "INSERT INTO strategies (name, ticker, timeframe, config) VALUES ('x', 'A', '1day', '')",
    )
    project.check("backup_database.py")
    run_sql(project, "DELETE FROM strategies WHERE name = 'x'")
    project.check("backup_database.py", "--irreplaceable-only")
    project.check("restore_database.py", "--from-backup", "--yes")
    with closing(connect(project.database)) as connection:
        assert connection.execute("SELECT count(*) FROM strategies").fetchone() == (50,)
