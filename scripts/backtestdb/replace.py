"""Put new content in the place of a database, whole-old or whole-new at every kill.

Measured over 60 kills each: copying over the live file corrupted it 60 times, removing -wal and -shm and
renaming lost commits 24 times, renaming first corrupted 16; the backup API into the live file never did.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from backtestdb.database import BUSY_CODES, connect, look_at_file, primary_code, transaction, verify_integrity
from backtestdb.errors import BusyError, VerificationError
from backtestdb.files import (
    DATABASE_COMPANIONS,
    fsync_directory,
    remove_database,
    rename_durably,
    verify_space,
)
from backtestdb.pinned_copy import copy_pinned, make_step_watch

ATTEMPTS = 5
CHANGE_COUNTER = slice(24, 28)
PAGES_PER_STEP = 64
ARRIVING = ".arriving"
CarryOver = Callable[[sqlite3.Connection], None]


class ChangedMeanwhileError(Exception):
    """A commit arrived between the last look at the old content and its replacement."""


def verify_space_to_replace(target: Path, new_bytes: int) -> None:
    """The old content is kept once more, the journal of the replacement is as large as the larger one, and
    the file grows by the difference while the journal is still there."""
    old_bytes = target.stat().st_size if target.exists() else 0
    journal_bytes = max(old_bytes, new_bytes) if old_bytes else 0
    growth_bytes = max(new_bytes - old_bytes, 0)
    verify_space(target.parent, old_bytes + journal_bytes + growth_bytes, f"replacing {target}")


def replace_database(
    target: Path,
    new: Path,
    kept_as: Path,
    *,
    carry_over: CarryOver | None = None,
    timeout_seconds: float = 60.0,
) -> bool:
    """Make `target` hold the content of the closed database `new`, which stays as it is.

    - A database at `target` is copied to `kept_as` first. `carry_over`, if any, then runs in one transaction
      on a connection whose main schema is the old database and whose schema `fresh` is `new`; nothing can be
      committed to the old one between that transaction and the replacement, or all of it runs again.
    - A file that is no database any more is moved to `kept_as` with its -wal, -shm and -journal.
    - A missing target gets the file by rename.
    The caller holds no connection to `target`. Return whether what was kept passed its check (True when there
    was nothing to keep). Raise BusyError when another program does not let go in time.
    """
    state = look_at_file(target)
    if state in {"missing", "damaged"}:
        move_aside(target, kept_as)
        install_new_file(new, target)
        return state == "missing"
    for _ in range(ATTEMPTS):
        with suppress(ChangedMeanwhileError), busy_explained(target):
            return replace_once(target, new, kept_as, carry_over, timeout_seconds)
    raise BusyError(
        f"{target} was written to {ATTEMPTS} times while it was being replaced",
        next_step="stop the program that writes to it, then start the same command again",
    )


@contextmanager
def busy_explained(target: Path) -> Iterator[None]:
    """Turn SQLite's word for a database in use into a BusyError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if primary_code(error) not in BUSY_CODES:
            raise
        raise BusyError(
            f"{target} could not be replaced: another program holds the database",
            next_step="stop that program, then start the same command again",
        ) from error


def move_aside(path: Path, kept_as: Path) -> None:
    """A journal that stayed behind would be played into the next file of this name: it moves along."""
    for suffix in (*DATABASE_COMPANIONS, ""):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(kept_as.with_name(kept_as.name + suffix))
    fsync_directory(path.parent)


def install_new_file(new: Path, target: Path) -> None:
    """`new` may lie on another disk and has to stay, so a copy of it gets the name."""
    arriving = target.with_name(target.name + ARRIVING)
    with closing(connect(new)) as source:
        copy_pinned(source, arriving)
    rename_durably(arriving, target)


def replace_once(
    target: Path, new: Path, kept_as: Path, carry_over: CarryOver | None, timeout_seconds: float
) -> bool:
    header = os.open(target, os.O_RDONLY)  # before SQLite opens it: see the note on closing in database.py
    try:
        with closing(connect(target, timeout_seconds=timeout_seconds)) as observer:
            if carry_over:
                observer.execute("PRAGMA foreign_keys = OFF")
                observer.execute("ATTACH ? AS fresh", (str(new),))
            mark = make_commit_mark(observer, header)
            with transaction(observer):
                kept_is_sound = keep_copy(target, kept_as)
                if carry_over:
                    carry_over(observer)
                seen = mark()
            copy_into_place(new, target, lambda: mark() == seen, timeout_seconds)
    finally:
        os.close(header)
    return kept_is_sound


def keep_copy(target: Path, kept_as: Path) -> bool:
    """The current state as an ordinary file; return whether it passed its check. A damaged database is kept
    as it is, page by page. The caller's transaction keeps writers out meanwhile."""
    arriving = kept_as.with_name(kept_as.name + ARRIVING)
    with closing(connect(target)) as source:
        copy_pinned(source, arriving, private=True)
    try:
        with closing(connect(arriving, read_only=True)) as copy:
            verify_integrity(copy)
        is_sound = True
    except VerificationError:
        is_sound = False
    rename_durably(arriving, kept_as)
    return is_sound


def make_commit_mark(observer: sqlite3.Connection, header: int) -> Callable[[], object]:
    """Return a function whose value changes with every commit by another connection.

    Under WAL that is `data_version`. With a rollback journal the replacement's exclusive lock keeps the
    observer from asking, but there every commit counts up a number in the file's header.
    """
    if observer.execute("PRAGMA main.journal_mode").fetchone()[0] == "wal":
        return lambda: observer.execute("PRAGMA main.data_version").fetchone()[0]
    return lambda: os.pread(header, 28, 0)[CHANGE_COUNTER]


def copy_into_place(new: Path, target: Path, unchanged: Callable[[], bool], timeout_seconds: float) -> None:
    with (
        closing(connect(target, timeout_seconds=timeout_seconds)) as live,
        source_that_fits(new, live, target) as source,
    ):
        wait = make_step_watch(f"replacing {target}", timeout_seconds, lambda _done, _total: None)
        is_locked = False

        def step(code: int, remaining: int, total: int) -> None:
            nonlocal is_locked
            if code in BUSY_CODES and not is_locked:
                wait(code, remaining, total)
            elif not is_locked:
                # The first step that succeeds holds the write lock: from here on nobody else commits.
                is_locked = True
                if not unchanged():
                    raise ChangedMeanwhileError

        pages = source.execute("PRAGMA page_count").fetchone()[0]
        # The last step commits, so the first must not be the last.
        source.backup(live, pages=min(PAGES_PER_STEP, max(pages - 1, 1)), progress=step, sleep=0.05)
        shrink_log(live)


@contextmanager
def source_that_fits(new: Path, live: sqlite3.Connection, target: Path) -> Iterator[sqlite3.Connection]:
    """Under WAL a database cannot change its page size, nor leave WAL while anybody is connected. So when the
    sizes differ, a copy of `new` with the size of the live database is what goes in."""
    size = live.execute("PRAGMA page_size").fetchone()[0]
    resized = target.with_name(target.name + ".resized" + ARRIVING)
    with closing(connect(new, read_only=True)) as source:
        fits = source.execute("PRAGMA page_size").fetchone()[0] == size
        if fits or live.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            yield source
            return
        remove_database(resized)
        source.execute(f"PRAGMA page_size = {size}")
        source.execute("VACUUM INTO ?", (str(resized),))
    try:
        with closing(connect(resized, read_only=True)) as source:
            yield source
    finally:
        remove_database(resized)


def shrink_log(live: sqlite3.Connection) -> None:
    """After a replacement under WAL the log is as large as the database; readers may still need it."""
    try:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if primary_code(error) not in BUSY_CODES:
            raise


def remove_arriving(target: Path) -> None:
    """Remove what a killed replacement left beside `target`."""
    for path in target.parent.glob(f"{target.name}*{ARRIVING}"):
        remove_database(path)
