"""A copy of a database that other programs are writing to: exactly one committed state of it."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backtestdb.database import BUSY_CODES, connect
from backtestdb.errors import BusyError
from backtestdb.files import remove_database
from backtestdb.newer_sqlite import keep_writer_version

# 8 MB, flushed before the next where no program waits for the copy, see flushing.
PAGES_PER_STEP = 2048
StepsSeen = Callable[[int, int], None]


def copy_pinned(
    source: sqlite3.Connection,
    target: Path,
    *,
    deadline_seconds: float = 3600.0,
    on_step: StepsSeen = lambda _done, _total: None,
    private: bool = False,
    written_by: int = 0,
) -> None:
    """Copy what `source` sees now into the new file `target`, whose end is not flushed. `on_step`
    receives pages done and pages in all. `private`: only its owner may read it, from its first byte
    on. `written_by`: see load_writer_version; read it before this process opens the source. Raise
    BusyError after `deadline_seconds`."""
    remove_database(target)
    target.touch(0o600 if private else 0o644)

    # A commit by another process makes the backup API begin again, and with a commit every 5 ms it
    # never ends. A read transaction that has really read pins the state. It reads the header alone:
    # a page of the schema may be what is damaged.
    pinned_here = not source.in_transaction
    if pinned_here:
        source.execute("BEGIN")

    try:
        source.execute("PRAGMA main.user_version").fetchone()
        with (
            flushing(source, target, on_step) as on_flushed_step,
            closing(connect(target, create=True, lenient=True)) as copy,
        ):
            copy.execute("PRAGMA synchronous = OFF")
            step = make_step_watch(f"copying to {target}", deadline_seconds, on_flushed_step)
            source.backup(copy, pages=PAGES_PER_STEP, progress=step, sleep=0.01)
            # So that it opens on read-only media.
            copy.execute("PRAGMA journal_mode = DELETE")
        keep_writer_version(target, written_by)
    finally:
        if pinned_here:
            source.execute("ROLLBACK")


@contextmanager
def flushing(source: sqlite3.Connection, target: Path, on_step: StepsSeen) -> Iterator[StepsSeen]:
    """Yield what is called after each step: it flushes what the step wrote, then calls
    `on_step`."""
    # The flush of another program's commit waits for all that was given to the disk before it:
    # 0.2 s beside a copy of 966 MB that is flushed in one go. Under a rollback journal writers wait
    # for the copy itself, so there the flush is left for later.
    in_wal = source.execute("PRAGMA main.journal_mode").fetchone()[0] == "wal"
    descriptor = os.open(target, os.O_RDONLY)

    def flush_step(done: int, total: int) -> None:
        if in_wal and done < total:
            os.fsync(descriptor)
        on_step(done, total)

    try:
        yield flush_step
    finally:
        os.close(descriptor)  # after SQLite is done with the file: closing it drops SQLite's lock


def make_step_watch(
    purpose: str, deadline_seconds: float, on_step: StepsSeen
) -> Callable[[int, int, int], None]:
    """Return a progress function for `Connection.backup` that gives up at the deadline."""
    # By itself SQLite waits for a lock without end.
    deadline = time.monotonic() + deadline_seconds

    def step(code: int, remaining: int, total: int) -> None:
        is_busy = code in BUSY_CODES
        if not is_busy:
            on_step(total - remaining, total)

        # Before the first step that succeeds nothing is known to remain.
        if (is_busy or remaining) and time.monotonic() > deadline:
            reason = "another program holds the database" if is_busy else "it took too long"
            raise BusyError(
                f"{purpose} was given up after {deadline_seconds:.0f} s: {reason}",
                next_step="stop the program that uses the database, then start the same command "
                "again",
            )

    return step
