"""What the benchmarks share: seconds, CPU seconds and memory of a piece of work, the machine, and
how a result is printed."""

import os
import platform
import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from backtestdb.database import connect


def measured(
    work: Callable[[], Any], *, apart_from: int | None = None
) -> tuple[Any, float, float, float]:
    """Do a piece of work; return its result, seconds, CPU seconds and peak MB. `apart_from`: a
    child that has no part in it, such as the vendor's stand-in."""
    peak, stopping = [0.0], threading.Event()
    watcher = threading.Thread(target=watch_workers, args=(peak, stopping, {str(apart_from)}))
    watcher.start()
    started, cpu = time.monotonic(), cpu_seconds()
    result = work()
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    stopping.set()
    watcher.join()
    return result, seconds, cpu, peak[0]


def watch_workers(peak: list[float], stopping: threading.Event, others: set[str]) -> None:
    """Keep the most memory, in MB, that this process and its children had at a time, without
    `others`."""
    while not stopping.wait(0.2):
        processes = {str(os.getpid()), *list_children()} - others
        peak[0] = max(peak[0], sum(read_memory(int(process)) for process in processes))


def read_memory(process: int) -> float:
    """Return the megabytes that a process holds, 0 when it is gone."""
    try:
        command = ["ps", "-o", "rss=", "-p", str(process)]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        return float(answer.stdout.strip() or 0) / 1024
    except ValueError:
        return 0.0


def cpu_seconds() -> float:
    """Return those of this process and of the children that have ended."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def pool_cpu_seconds() -> float:
    """Return those of the children that run, in which the pool's processes are."""
    ticks = 0
    for pid in list_children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def list_children() -> set[str]:
    """Return the process ids of the children that run."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {pid for task in tasks.glob("*/children") for pid in task.read_text().split()}


def process_seconds(process_id: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    with suppress(OSError):
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    shown = ["ps", "-o", "cputimes=", "-p", str(process_id)]
    return float(subprocess.run(shown, capture_output=True, text=True, check=True).stdout)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make_file(path: Path) -> sqlite3.Connection:
    """Return a connection to a new database, with the settings of a rebuild."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = connect(path, create=True)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -131072")
    return connection


def describe_machine() -> str:
    """Return what a figure depends on: cores, memory, versions, load."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, load {load:.1f} at "
        "the start"
    )


def print_result(result: dict[str, Any]) -> None:
    """Print `what` was measured, then a line for each figure."""
    print(f"\n{result['what']}")
    for name, value in result.items():
        if name != "what":
            print(f"  {name}: {value:,}" if isinstance(value, int) else f"  {name}: {value}")
