"""Words lead out of every corner: each situation, what is printed, the printed step taken, and it
is better."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backtestdb.backups.backup_dir import find_missing_disk
from backtestdb.backups.named import find_named
from backtestdb.config import load_settings
from backtestdb.env_file import find_misspelt, read_env_file
from backtestdb.errors import ProjectError, SettingsError
from commands import SCRIPTS, Project
from mending import run_printed_command
from platform_database import make_used_database


def next_step(printed: str) -> str:
    (step,) = re.findall(r"^ +next: (.+)$", printed, re.MULTILINE)
    return step


def run_with_input(
    project: Project, text: str, script: str, *arguments: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        env=project.environment(**changes),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def make_backed_up(folder: Path) -> Project:
    project = Project(folder)
    make_used_database(project.database, rows=3)
    project.check("backup_database.py")
    return project


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DATABSE_PATH", "DATABASE_PATH"),
        ("BACKUP_DIRECTORY", ""),
        ("BACKUPDIR", "BACKUP_DIR"),
        ("backup_dir", "BACKUP_DIR"),
        ("COMPOSE_PROFILES", ""),
        ("OPENAI_API_KEY", ""),
    ],
)
def test_name_in_env_that_nothing_reads_offers_the_nearest_setting(
    name: str, expected: str
) -> None:
    known = {"DATABASE_PATH", "BACKUP_DIR", "POLYGON_API_KEY", "MAX_BACKUPS"}
    assert find_misspelt([name], known).get(name, "") == expected


def test_misspelt_setting_is_refused_and_the_offered_name_works(tmp_path: Path) -> None:
    project = make_backed_up(tmp_path)
    env_file = tmp_path / ".env"
    env_file.write_text(f"DATABSE_PATH={project.database}\n")
    changes = {"BACKTEST_ENV_FILE": str(env_file), "DATABASE_PATH": ""}
    printed = project.check("show_status.py", expect=2, **changes)
    assert next_step(printed) == "write DATABASE_PATH instead of DATABSE_PATH"
    env_file.write_text(env_file.read_text().replace("DATABSE_PATH", "DATABASE_PATH"))
    assert str(project.database) in project.run("show_status.py", **changes).stdout


@pytest.mark.parametrize(
    "text", ["MAX_BACKUPS=3\n\nDATABASE_PATH='/data/x.db\nPORT=3001\n", 'A=1\n\nB="x']
)
def test_quote_that_is_not_closed_names_the_line_and_not_what_it_says(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "a b.env").write_text(text)
    with pytest.raises(SettingsError, match=r"line 3 of .* quote is not closed") as caught:
        read_env_file(tmp_path / "a b.env")
    assert "/data" not in str(caught.value)
    assert f"+3 '{tmp_path}/a b.env'" in caught.value.next_step


def test_database_whose_disk_is_not_mounted_is_not_made_anew_on_the_systems_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestdb.backups.backup_dir.MOUNT_ROOTS", (Path("/mnt"),))
    assert find_missing_disk(Path("/mnt/no-such-disk/db/backtesting.db")) == Path(
        "/mnt/no-such-disk"
    )
    assert find_missing_disk(tmp_path / "new" / "backtesting.db") is None
    project = make_backed_up(tmp_path)
    away = "/mnt/no-such-disk/backtesting.db"
    found = project.run("show_status.py", DATABASE_PATH=away).stdout
    assert "is on a disk that is to be mounted at /mnt/no-such-disk" in found
    assert "restore-from-backup" not in found
    for arguments in (("--from-backup",), ("--skip-backfill",)):
        printed = project.check("restore_database.py", *arguments, expect=1, DATABASE_PATH=away)
        assert next_step(printed) == "connect the disk, or change DATABASE_PATH"
    assert not Path("/mnt/no-such-disk").exists()


def test_restore_by_date_and_the_offered_name_restore_that_backup(tmp_path: Path) -> None:
    project = make_backed_up(tmp_path)
    (backup,) = (tmp_path / "backups").glob("*.db")
    printed = project.check(
        "restore_database.py", "--from-backup", "backtesting-2020-01-01-000000.db", expect=2
    )
    project.database.unlink()
    assert run_printed_command(project, next_step(printed)).returncode == 0
    assert project.database.is_file()
    date = backup.stem.removeprefix("backtesting-")[:10]
    assert backup.name in project.check("restore_database.py", "--from-backup", date, "--yes")


@pytest.mark.parametrize("answer", ["n\n", "no\n", "what?\n"])
@pytest.mark.parametrize("arguments", [("--from-backup",), ("--skip-backfill",)])
def test_no_through_a_pipe_changes_nothing_and_exits_1(
    tmp_path: Path, answer: str, arguments: tuple[str, ...]
) -> None:
    project = make_backed_up(tmp_path)
    before = project.database.read_bytes()
    done = run_with_input(project, answer, "restore_database.py", *arguments)
    assert done.returncode == 1, done.stderr
    assert "nothing was changed" in done.stderr
    assert project.database.read_bytes() == before
    assert not list(tmp_path.glob("backtesting.db.backup-*"))


def test_backups_on_the_disk_of_the_database_are_mentioned(tmp_path: Path) -> None:
    project = make_backed_up(tmp_path)
    assert "is on the same disk as the database" in project.run("check_environment.py").stdout


@pytest.mark.root
@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root runs behind sudo")
def test_sudo_backup_is_refused_and_the_home_is_the_users(tmp_path: Path) -> None:
    project = make_backed_up(tmp_path)
    for path in tmp_path.rglob("*"):
        os.chown(path, 65534, 65534)
    changes = {"SUDO_UID": "65534", "BACKUP_DIR": ""}
    settings = load_settings(project.environment(**changes))
    # Nobody's home on Debian.
    assert settings.backup_dir == Path("/nonexistent/Backups/ai-backtest")
    printed = project.check("backup_database.py", expect=2, SUDO_UID="65534")
    assert next_step(printed) == "the same without sudo"
    assert len(list((tmp_path / "backups").glob("*.db"))) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminal_that_is_not_utf_8_gets_plain_characters(tmp_path: Path, encoding: str) -> None:
    project = make_backed_up(tmp_path)
    for script, arguments in (("show_status.py", ()), ("backup_database.py", ("--list",))):
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / script), *arguments],
            env=project.environment(PYTHONIOENCODING=encoding),
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.stdout.decode(encoding)


@pytest.mark.parametrize("loaded", ["backtestdb", "backtestdb.config", "backtestdb.market"])
def test_ctrl_c_while_packages_are_loaded_ends_without_a_traceback(
    tmp_path: Path, loaded: str
) -> None:
    project = make_backed_up(tmp_path)
    process = subprocess.Popen(
        [
            sys.executable,
            str(SCRIPTS / "02_backfill_daily.py"),
            "--plan",
            "--universe",
            "tech_sector",
        ],
        env=project.environment(PYTHONPROFILEIMPORTTIME="1"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == loaded:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {-signal.SIGINT, 130}
    assert "Traceback" not in err


def test_step_without_its_universe_says_what_to_type_and_that_works(tmp_path: Path) -> None:
    project = Project(tmp_path, settings={"WATCHLIST_TICKERS": "IBM"})
    for script in ("01_create_universe.py", "02_backfill_daily.py", "03_backfill_intraday.py"):
        printed = project.check(script, expect=2)
        assert re.search("arguments are required: --universe|whose bars", printed)
        assert "usage:" not in printed
        command = next_step(printed).partition(";")[0]
        done = run_printed_command(project, command.replace('tech_sector"', 'tech_sector --help"'))
        assert done.returncode == 0, done.stderr


def test_restore_from_backup_without_a_backup_names_the_way_that_is_left(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with pytest.raises(ProjectError, match="there is no backup in"):
        find_named("2026-11-28", tmp_path / "backups")
    printed = project.check("restore_database.py", "--from-backup", expect=1)
    assert "make restore" in next_step(printed)


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root")
def test_backup_folder_that_is_closed_to_this_user_leaves_the_other_findings(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    found = project.run("check_environment.py", "--json", BACKUP_DIR=str(closed / "backups"))
    what = [finding["what"] for finding in json.loads(found.stdout)]
    assert f"the folder {closed / 'backups'} of BACKUP_DIR cannot be read by you" in what
    assert any(one.startswith("there is no database at") for one in what)
