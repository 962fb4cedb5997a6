"""What the tests of status and doctor share: a schedule that is loaded, and the printed command,
really run."""

import os
import shlex
import subprocess
from pathlib import Path

from backtestdb.config import PROJECT_DIR
from backtestdb.health.schedule_facts import LAUNCHD_LABEL, SYSTEMD_UNIT
from commands import Project

SCHEDULER = '#!/bin/sh\ncase "$*" in *ExecMainStatus*) echo 0;; esac\n'


def with_schedule(project: Project) -> Project:
    """A home folder with an installed schedule, and programs on PATH that call it loaded."""
    home, programs = project.folder / "home", project.folder / "bin"
    for path in (
        home / ".config" / "systemd" / "user" / f"{SYSTEMD_UNIT}.service",
        home / "Library" / "LaunchAgents" / f"{LAUNCHD_LABEL}.plist",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    programs.mkdir(exist_ok=True)
    for name in ("systemctl", "launchctl"):
        (programs / name).write_text(SCHEDULER)
        (programs / name).chmod(0o700)
    project.settings |= {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    return project


def run_printed_command(
    project: Project, command: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a `make …` as the user would type it, with the .venv that runs the tests."""
    words = shlex.split(command)
    if words[0] == "make":
        words[1:1] = ["-C", str(PROJECT_DIR)]
    return subprocess.run(
        words,
        env=project.environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the last change of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
