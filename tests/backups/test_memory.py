"""Memory of the commands that read every row, with rows of a megabyte; and where a backup is read
back from."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups.verify import examine
from backtestdb.database import connect
from backtestdb.schema import ensure_schema
from commands import SCRIPTS, Project

MEGABYTE = 1 << 20
LIMIT_MB = 64
# Runs a command and prints the largest memory that it had, in kilobytes, behind what it prints
# itself.
MEASURE = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
MEASURE += "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"


def make_charts(path: Path, count: int) -> None:
    with closing(connect(path, create=True)) as connection:
        ensure_schema(connection)
        connection.execute(
            "CREATE TABLE charts (id INTEGER PRIMARY KEY, name TEXT, png BLOB, svg TEXT)"
        )
        for number in range(count):
            values = (f"chart {number}", os.urandom(MEGABYTE), "x" * MEGABYTE)
            connection.execute("INSERT INTO charts (name, png, svg) VALUES (?, ?, ?)", values)


@pytest.mark.parametrize(
    "count", [40, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_every_backup_command_with_rows_of_megabytes_stays_below_64_mb(
    tmp_path: Path, count: int
) -> None:
    project = Project(tmp_path)
    make_charts(project.database, count)
    peaks = {}
    for name, command in {
        "backup": ["backup_database.py"],
        "small backup": ["backup_database.py", "--irreplaceable-only"],
        "verify": ["backup_database.py", "--verify"],
        "drill": ["run_drill.py"],
        "restore": ["restore_database.py", "--from-backup", "--yes"],
    }.items():
        script, *options = command
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, sys.executable, SCRIPTS / script, *options],
            env=project.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        peaks[name] = int(done.stdout.split()[-1]) // 1024
    print(peaks)
    assert max(peaks.values()) <= LIMIT_MB, peaks


def read_bytes_from_disk() -> int:
    (line,) = [
        line
        for line in Path("/proc/self/io").read_text().splitlines()
        if line.startswith("read_bytes")
    ]
    return int(line.split()[1])


@pytest.mark.skipif(
    not Path("/proc/self/io").is_file(), reason="counts what the kernel read from the disk"
)
def test_backup_is_read_back_from_the_disk_and_not_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "backup.db"
    make_charts(path, 8)
    examine(path)
    before = read_bytes_from_disk()
    examine(path)
    cached = read_bytes_from_disk() - before
    examine(path, flush=True)
    from_disk = read_bytes_from_disk() - before - cached
    if from_disk == 0 and os.statvfs(tmp_path).f_blocks and "tmpfs" in mount_type(tmp_path):
        pytest.skip("this folder is in memory")
    assert cached < MEGABYTE
    assert from_disk >= path.stat().st_size


def mount_type(folder: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", folder]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
