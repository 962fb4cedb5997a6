"""What a power cut must not undo: each new name is flushed with its folder, before anything that
goes by it is removed. No kill can show that, so the system calls of the commands are read."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backup_tools import change, make_platform_database
from commands import SCRIPTS, Project

NAMING = {"rename", "renameat", "renameat2", "link", "linkat"}
CALLS = (*NAMING, "fsync", "fdatasync", "unlink", "unlinkat")
# A line of strace's log: thread, call, arguments with the paths of descriptors (-y), and success,
# which stands in a later line when another thread made a call meanwhile.
LINE = re.compile(r"^\d+ +(\w+)\((.*?)(?:\) += 0| <unfinished \.\.\.>)$")
PRUNING = {
    "MAX_BACKUPS": "1",
    "MIN_BACKUPS": "1",
    "KEEP_FULL_WEEKLY": "0",
    "KEEP_FULL_MONTHLY": "0",
}

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (apt-get install strace)"
)


def trace(project: Project, script: str, *options: str) -> list[tuple[str, str]]:
    """Run a command; return its calls in their order, each with its arguments."""
    log = project.folder / "calls"
    strace = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-s",
        "4096",
        "-o",
        log,
        "-e",
        f"trace={','.join(CALLS)}",
    ]
    command = [*strace, sys.executable, SCRIPTS / script, *options]
    subprocess.run(command, env=project.environment(), capture_output=True, check=True)
    found = map(LINE.match, log.read_text(errors="replace").splitlines())
    return [(line[1], line[2]) for line in found if line]


def find_faults(calls: list[tuple[str, str]], folder: Path) -> list[str]:
    """Every name below `folder` that was not flushed with its folder, at the end or when a database
    was removed; and every file that got its name before its content was flushed."""
    waiting: dict[Path, str] = {}
    flushed: set[Path] = set()
    faults = []
    for call, arguments in calls:
        if call in NAMING:
            source, target = map(Path, re.findall(r'"([^"]*)"', arguments))
            if target.is_relative_to(folder):
                waiting[target.parent] = target.name
            if source.suffix in {".partial", ".arriving"} and source not in flushed:
                faults.append(f"{source} got its name before it was flushed")
        elif call in {"fsync", "fdatasync"}:
            flushed.add(Path(arguments.partition("<")[2].rstrip(">")))
            waiting.pop(Path(arguments.partition("<")[2].rstrip(">")), None)
        elif re.search(r'\.db"', arguments):
            faults += [f"{name} before {arguments} was removed" for name in waiting.values()]
    return faults + [f"{name} at the end" for name in waiting.values()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path, settings=PRUNING)
    make_platform_database(project.database, bars=100)
    scripts = tmp_path / "claude-generated-scripts"
    scripts.mkdir()
    (scripts / "one.py").write_text("print()\n")
    project.check("backup_database.py")
    change(project.database, "new")
    return project


def test_new_names_of_backups_and_the_end_of_old_ones_are_flushed(project: Project) -> None:
    calls = trace(project, "backup_database.py")
    named = [arguments for call, arguments in calls if call in NAMING]
    assert any(".expired" in arguments for arguments in named)
    assert any(".json" in arguments and "expired" not in arguments for arguments in named)
    assert find_faults(calls, project.folder / "backups") == []


@pytest.mark.parametrize("state", ["live", "missing", "damaged"])
def test_new_names_of_a_restore_are_flushed(project: Project, state: str) -> None:
    (project.folder / "claude-generated-scripts" / "one.py").write_text("print(1)\n")
    if state == "missing":
        project.database.unlink()
    elif state == "damaged":
        project.database.write_bytes(b"no database")
    calls = trace(project, "restore_database.py", "--from-backup", "--yes")
    assert any(call in NAMING for call, _ in calls)
    assert find_faults(calls, project.folder) == []


COPY = """
import os, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from backtestdb.backups.precopy import copy_ahead, create_private
from backtestdb.pinned_copy import copy_pinned
way, journal, live, copy = sys.argv[2:]
source = sqlite3.connect(live, isolation_level=None)
source.execute(f"PRAGMA journal_mode = {journal}")
source.execute("CREATE TABLE chart AS SELECT zeroblob(20000000) AS image")
if way == "pinned":
    copy_pinned(source, Path(copy))
else:
    ahead = {"deadline_seconds": 60, "on_bytes": lambda done, total: None}
    ahead["hash_blocks"] = way == "hashed"
    copy_ahead(os.open(live, os.O_RDONLY), create_private(Path(copy)), **ahead)
"""


@pytest.mark.parametrize(
    ("way", "journal", "flushes"),
    [
        ("ahead", "DELETE", 2),
        ("hashed", "DELETE", 2),
        ("pinned", "WAL", 2),
        ("pinned", "DELETE", 0),
    ],
)
def test_copy_is_flushed_as_it_grows_unless_writers_wait_for_it(
    tmp_path: Path, way: str, journal: str, flushes: int
) -> None:
    """The flush of their commits waits for ours, so that is never one of the whole copy."""
    log, copy = tmp_path / "calls", tmp_path / "copy.db"
    strace = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", "trace=fsync,fdatasync,fadvise64"]
    words = [str(SCRIPTS), way, journal, str(tmp_path / "live.db"), str(copy)]
    subprocess.run([*strace, sys.executable, "-c", COPY, *words], check=True)
    lines = [line for line in log.read_text().splitlines() if f"<{copy}>" in line]
    assert len([line for line in lines if "sync(" in line]) == flushes

    # What is hashed is not read again, and leaves the memory to the source.
    forgotten = [re.findall(r">, (\d+), (\d+),", line) for line in lines if "fadvise64(" in line]
    mb = 1 << 20
    parts = [[(str(start * mb), str(8 * mb))] for start in (0, 8)]
    assert forgotten == (parts if way == "hashed" else [])
