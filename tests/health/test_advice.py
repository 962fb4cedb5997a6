"""What is printed as the next step harms nobody: the commands are run, and around them everything
stays as it was."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from backtestdb.health.permissions import CLOSE, check_permissions, close_to_others, is_ours_alone
from backtestdb.health.problem import Problem
from commands import SCRIPTS, Project
from large_database import make_large_database
from mending import run_printed_command, with_schedule

# What a shell would run; everything else is a sentence for a person.
COMMAND = re.compile(r"^(make|\./db|sudo|chmod|chown|rm|mv|find|unset|[A-Z_]+=\S+ make) ")
BACKUP = "backtesting-2026-11-22-020000.db"


def fingerprint(folder: Path, without: tuple[Path, ...]) -> dict[str, tuple[int, int, str]]:
    """Mode, owner and content of everything below `folder`, but for what lies in `without`."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        if any(path.is_relative_to(one) for one in without):
            continue
        facts = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (facts.st_mode, facts.st_uid, digest)
    return found


def make_project(folder: Path) -> Project:
    """A project in a folder with neighbours: a home with files, another checkout's live
    database."""
    project = with_schedule(Project(folder))
    make_large_database(project.database, tickers=3, sessions=4, journal="DELETE")
    other = folder / "other checkout" / "backtesting.db"
    other.parent.mkdir()
    make_large_database(other, tickers=2, sessions=2, journal="WAL")
    (folder / "home" / "letters").mkdir()
    for path in (folder / "home" / "letters" / "a.txt", folder / "home" / "notes.txt"):
        path.write_text("mine")
        path.chmod(0o644)
    return project


def ask(project: Project, script: str, **changes: str) -> list[dict[str, str]]:
    """What status or doctor, started among the neighbours, says is not well."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--json"],
        env=project.environment(**changes),
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    values = json.loads(done.stdout)
    found = values if isinstance(values, list) else values["problems"]
    return [one for one in found if one["level"] != "ok" and str(Path.home()) not in one["what"]]


def open_backups(project: Project) -> None:
    project.check("backup_database.py")
    for path in (project.folder / "backups").iterdir():
        path.chmod(0o644)
    (project.folder / "backups").chmod(0o755)


def open_backups_among_other_files(project: Project) -> None:
    """BACKUP_DIR is the home itself."""
    project.settings["BACKUP_DIR"] = str(project.folder / "home")
    project.check("backup_database.py")
    for path in (project.folder / "home").glob("backtesting-*"):
        path.chmod(0o644)
    (project.folder / "home").chmod(0o755)


def lose_database(project: Project) -> None:
    project.check("backup_database.py")
    project.database.unlink()


def damage_database(project: Project) -> None:
    project.check("backup_database.py")
    project.database.write_bytes(b"\xff" * 8192)


def empty_database(project: Project) -> None:
    project.check("backup_database.py")
    project.database.write_bytes(b"")


def set_wrong_number(project: Project) -> None:
    project.settings["MAX_BACKUPS"] = "0"


def set_relative_path(project: Project) -> None:
    project.settings["DATABASE_PATH"] = "backtesting.db"


SITUATIONS = [
    *(open_backups, open_backups_among_other_files, lose_database, damage_database, empty_database),
    *(set_wrong_number, set_relative_path, lambda _project: None),
]


@pytest.mark.root
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__.strip("<>"))
def test_printed_commands_when_run_change_nothing_outside_of_project_and_backups(
    tmp_path: Path, situation: Callable[[Project], None]
) -> None:
    if situation in {open_backups, open_backups_among_other_files} and os.getuid() != 0:
        pytest.skip("only root may open the folders above a test's own to others")
    project = make_project(tmp_path)
    situation(project)
    home = project.folder / "home"
    own = (project.folder / "backups", project.folder / "state", project.database)
    before = fingerprint(project.folder, own)
    commands = []
    for script in ("show_status.py", "check_environment.py"):
        try:
            found = ask(project, script)
        except json.JSONDecodeError:
            continue  # a wrong setting ends status
        for problem in found:
            step = re.sub(r"^look what is in it: ", "", problem["next_step"])
            if COMMAND.match(step) and "schedule" not in step:
                commands.append(step)
    for command in commands:
        if command.startswith("DATABASE_PATH="):
            setting, *words = shlex.split(command)
            run_printed_command(project, shlex.join(words), DATABASE_PATH=setting.partition("=")[2])
        elif command != "unset DATABASE_PATH":
            run_printed_command(project, command)
    after = fingerprint(project.folder, own)
    ours = re.compile(
        rf"{re.escape(str(project.database))}[.-].*"  # what is kept of a database that was replaced
        + rf"|{re.escape(str(home))}/(backtesting-|irreplaceable-|\.|drills|backup).*"
    )
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not {path for path in changed if not ours.fullmatch(path)}
    if situation in {open_backups, open_backups_among_other_files}:
        folder = Path(project.settings.get("BACKUP_DIR", project.folder / "backups"))
        assert "make doctor ARGS=--close" in commands
        assert {path.stat().st_mode & 0o077 for path in folder.glob("backtesting-*")} == {0}


@pytest.mark.parametrize(
    "folder",
    [
        "/usr",
        "/usr/local/share",
        "/home",
        "/",
        "/etc",
        "/var",
        "/opt",
        "/root",
        str(Path.home()),
        "/proc",
    ],
)
def test_folder_of_the_system_is_never_offered_for_a_change(folder: str, tmp_path: Path) -> None:
    if folder == "/root" and os.getuid() != 0:
        pytest.skip("only root may look into it")
    assert not is_ours_alone(Path(folder))
    assert not is_ours_alone(Path(folder), owner=0)
    environment = Project(
        tmp_path, settings={"BACKUP_DIR": folder, "DATABASE_PATH": f"{folder}/x.db"}
    )
    for problem in ask(environment, "check_environment.py"):
        step = problem["next_step"]
        assert not re.match(r"(sudo|chmod|chown|rm|mv|find) ", step), step


def as_other_user(look: Callable[[], list[Problem]]) -> list[Problem]:
    """What `look` returns for a user without rights: in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:  # whatever happens, the child must not go on as a second run of the tests
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = [asdict(problem) for problem in look()]
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return [Problem(**values) for values in json.loads(text)]


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_backups_that_sudo_left_are_given_back_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "popen-", "pytest-")):
            folder.chmod(0o755)
    backups, stranger = tmp_path / "my backups", tmp_path / "stranger.txt"
    backups.mkdir(mode=0o755)
    stranger.write_text("root's")
    (backups / BACKUP).write_text("x")
    (backups / "claude-scripts-2026-11-22-020000").symlink_to(stranger)
    look = lambda: check_permissions(tmp_path / ".env", backups, tmp_path / "db" / "x.db")  # noqa: E731
    (problem,) = [one for one in as_other_user(look) if "cannot be written" in one.what]
    assert problem.next_step.startswith("sudo find ")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin" / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    subprocess.run(["sh", "-c", problem.next_step], check=True)
    assert (backups.stat().st_uid, (backups / BACKUP).stat().st_uid) == (65534, 65534)
    assert stranger.stat().st_uid == 0
    (problem,) = as_other_user(look)
    assert problem.next_step == CLOSE
    (backups / "photos").mkdir()
    os.chown(backups, 0, 0)
    (problem,) = [one for one in as_other_user(look) if "cannot be written" in one.what]
    assert problem.next_step == "choose another folder and change BACKUP_DIR"


def test_link_in_the_backup_folder_keeps_the_mode_of_what_it_leads_to(tmp_path: Path) -> None:
    backups, target = tmp_path / "backups", tmp_path / "photos.db"
    backups.mkdir()
    target.write_text("x")
    target.chmod(0o644)
    (backups / BACKUP).symlink_to(target)
    close_to_others(backups)
    assert target.stat().st_mode & 0o777 == 0o644
