"""Put new content in the place of a database, whole-old or whole-new at every kill.

Measured over 60 kills each: copying over the live file corrupted it 60 times, removing -wal and
-shm and renaming lost commits 24 times, renaming first corrupted 16; the backup API into the live
file never did.
"""

import glob
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from backtestdb.commit_counter import CommitCounter
from backtestdb.database import (
    BUSY_CODES,
    FileState,
    connect,
    look_at_file,
    primary_code,
    table_names,
    transaction,
    verify_integrity,
)
from backtestdb.errors import BusyError, DatabaseFileError, ProjectError, VerificationError
from backtestdb.files import fsync_file, remove_database, rename_durably, verify_space
from backtestdb.free_name import (
    NameTakenError,
    can_be_locked,
    move_aside,
    move_stray_companions,
    take_free_name,
)
from backtestdb.names import ARRIVING, make_undo_command
from backtestdb.newer_sqlite import load_writer_version, sqlite_version_number, write_version
from backtestdb.outline import Outline, find_differences, read_outline
from backtestdb.pinned_copy import copy_pinned, make_step_watch

# A platform that commits every few milliseconds on a slow machine was faster five times in a row.
LEAST_ATTEMPTS = 5
PAGES_PER_STEP = 64
CarryOver = Callable[[sqlite3.Connection], None]


class ChangedMeanwhileError(Exception):
    """A commit arrived between the last look at the old content and its replacement."""


@dataclass(frozen=True)
class Replacement:
    """`kept_as`: the copy of the database that stood there; `kept_is_sound`: whether it passed its
    check. `moved_to`: where a file is now that was no database any more. Both are None where there
    was nothing. `written_since`: how the database differs already from what was put in, because
    another program has written to it."""

    kept_as: Path | None
    kept_is_sound: bool
    moved_to: Path | None
    written_since: tuple[str, ...] = ()

    @property
    def kept(self) -> list[Path]:
        return [path for path in (self.kept_as, self.moved_to) if path]


def verify_space_to_replace(target: Path, new_bytes: int) -> None:
    """Raise SpaceError unless there is room: the old content is kept once more, the journal of the
    replacement is as large as the larger one, and the file grows by the difference while the
    journal is still there."""
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
) -> Replacement:
    """Make `target` hold the content of the closed database `new`, which stays as it is; return
    when that is proven by opening `target` anew. What was there is kept at `kept_as`. `carry_over`
    runs on a connection whose main schema is the old database and whose schema `fresh` is `new`.
    The caller holds no connection to `target`.

    Raise BusyError when another program does not let go within `timeout_seconds`, VerificationError
    when `target` does not hold the new content afterwards."""
    moved_to, attempts = None, 0
    deadline = time.monotonic() + timeout_seconds

    # A commit of another program in between makes all of it begin again.
    while attempts < LEAST_ATTEMPTS or time.monotonic() < deadline:
        attempts += 1
        with suppress(ChangedMeanwhileError, NameTakenError), busy_explained(target):
            state = look_at_file(target)

            # A database is copied to `kept_as`; then `carry_over` runs in one transaction, and
            # nothing can be committed between that and the replacement.
            if state != "missing" and not (state == "damaged" and not can_be_locked(target)):
                kept_as = kept_as if kept_as != moved_to else second_name(kept_as)
                done = replace_through_sqlite(
                    target, new, kept_as, state, carry_over, timeout_seconds
                )
                return replace(done, moved_to=moved_to)

            # A file that is no database any more is moved aside with its -wal, -shm and -journal,
            # while no process has it open. The free name is taken by a whole file; when another
            # program takes it first, what that program made is a database like any other.
            with arriving_copy(new, target) as arriving:
                if state == "damaged":
                    moved_to = move_aside(target, kept_as, timeout_seconds=timeout_seconds)
                move_stray_companions(target, kept_as)
                take_free_name(arriving, target)
            return Replacement(None, kept_is_sound=False, moved_to=moved_to)

    raise BusyError(
        f"{target} was written to {attempts} times while it was being replaced",
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


def second_name(kept_as: Path) -> Path:
    """Return a second name: the first one is taken by the file that was no database, before a
    program made a new one."""
    return kept_as.with_name(f"{kept_as.name}-2")


@contextmanager
def arriving_copy(new: Path, target: Path) -> Iterator[Path]:
    """Yield a copy of `new` beside `target`, to get its name."""
    arriving = target.with_name(target.name + ARRIVING)
    written_by = load_writer_version(new)
    # `new` may lie on another disk, and has to stay.
    with closing(connect(new, lenient=True)) as source:
        copy_pinned(source, arriving, written_by=written_by)
    fsync_file(arriving)
    try:
        yield arriving
    finally:
        remove_database(arriving)


def replace_through_sqlite(
    target: Path,
    new: Path,
    kept_as: Path,
    state: FileState,
    carry_over: CarryOver | None,
    timeout_seconds: float,
) -> Replacement:
    """Replace through the backup interface, which takes SQLite's locks: others may stay connected.
    `state` need not be a sound database, as long as nothing has to be carried over from it."""
    if carry_over and state in {"damaged", "too_new"}:
        raise DatabaseFileError(
            f"{target} cannot be read any more: nothing was carried over from it, and nothing was "
            "changed",
            next_step="make doctor",
        )

    written_by, new_written_by = load_writer_version(target), load_writer_version(new)
    with ExitStack() as closed_last:
        # Before SQLite opens the file, and closed after it: see the note on closing in database.py.
        counter = closed_last.enter_context(closing(CommitCounter(target)))
        file = closed_last.enter_context(target.open("r+b", buffering=0))
        # Both are opened now: between the end of the first one's transaction and the start of the
        # second one's another program can commit, so that time has to be short.
        with (
            closing(connect(target, lenient=True, timeout_seconds=timeout_seconds)) as observer,
            closing(connect(target, lenient=True, timeout_seconds=timeout_seconds)) as live,
        ):
            if carry_over:
                observer.execute("PRAGMA foreign_keys = OFF")
                observer.execute("ATTACH ? AS fresh", (str(new),))

            counter.follow(observer)
            with transaction(observer):
                has_content = state in {"damaged", "too_new"} or bool(table_names(observer))
                kept_is_sound = (
                    has_content and keep_copy(target, kept_as, written_by) and state != "damaged"
                )
                if carry_over:
                    carry_over(observer)
                seen = counter.read()

            written = copy_into_place(new, live, target, kept_as, counter, seen, timeout_seconds)
            keep_version_in_header(observer, file.fileno(), new_written_by)

    return Replacement(kept_as if has_content else None, kept_is_sound, None, written)


def keep_copy(target: Path, kept_as: Path, written_by: int) -> bool:
    """Copy the current state to an ordinary file; return whether it passed its check. The caller's
    transaction keeps writers out meanwhile. `written_by`: see copy_pinned."""
    arriving = kept_as.with_name(kept_as.name + ARRIVING)
    with closing(connect(target, lenient=True)) as source:
        # A damaged database is kept as it is, page by page.
        copy_pinned(source, arriving, private=True, written_by=written_by)

    try:
        with closing(connect(arriving, read_only=True, lenient=True)) as copy:
            verify_integrity(copy)
        is_sound = True
    except VerificationError:
        is_sound = False

    rename_durably(arriving, kept_as)
    return is_sound


def copy_into_place(
    new: Path,
    live: sqlite3.Connection,
    target: Path,
    kept_as: Path,
    counter: CommitCounter,
    seen: int,
    timeout_seconds: float,
) -> tuple[str, ...]:
    """Return how the database differs already because another program wrote to it; see prove."""
    with source_that_fits(new, live, target) as source:
        try:
            copy_pages(source, live, target, lambda: counter.read() == seen, timeout_seconds)
            # By a new connection: a damaged header may have named another text encoding to `live`.
            with closing(connect(target, lenient=True, timeout_seconds=timeout_seconds)) as again:
                shrink_log(again)
            expected = read_outline(source)
            return prove(target, expected, lambda: counter.read() == seen + 1, timeout_seconds)
        except (sqlite3.Error, OSError) as error:
            is_busy = isinstance(error, sqlite3.Error) and primary_code(error) in BUSY_CODES
            if is_busy and counter.read() == seen:
                raise
            raise describe_failure(
                error, target, kept_as, source, lambda: counter.read() != seen
            ) from error


def copy_pages(
    source: sqlite3.Connection,
    live: sqlite3.Connection,
    target: Path,
    unchanged: Callable[[], bool],
    timeout_seconds: float,
) -> None:
    """Copy in one transaction on the live database. Raise ChangedMeanwhileError when another
    program committed first."""
    wait = make_step_watch(f"replacing {target}", timeout_seconds, lambda _done, _total: None)
    is_locked = False

    def step(code: int, remaining: int, total: int) -> None:
        nonlocal is_locked
        if code in BUSY_CODES and not is_locked:
            wait(code, remaining, total)
        elif not is_locked:
            # The first step that succeeds holds the write lock: no other program commits from here
            # on.
            is_locked = True
            if not unchanged():
                raise ChangedMeanwhileError

    pages = source.execute("PRAGMA page_count").fetchone()[0]
    # The last step commits, so the first must not be the last.
    source.backup(live, pages=min(PAGES_PER_STEP, max(pages - 1, 1)), progress=step, sleep=0.05)


def prove(
    target: Path, expected: Outline, is_ours: Callable[[], bool], timeout_seconds: float
) -> tuple[str, ...]:
    """Open the name anew and compare what it leads to with what was put in; return the differences.
    Raise VerificationError when they are not of another program."""
    with closing(connect(target, lenient=True, timeout_seconds=timeout_seconds)) as live:
        live.execute("BEGIN")
        differences = find_differences(expected, read_outline(live))
        # A difference is right only where another program has committed since.
        if differences and is_ours():
            raise VerificationError(
                f"{target} does not hold what was put there: {'; '.join(differences)}",
                next_step="make status",
            )
    return tuple(differences)


def describe_failure(
    error: Exception,
    target: Path,
    kept_as: Path,
    source: sqlite3.Connection,
    is_committed: Callable[[], bool],
) -> ProjectError:
    """Return what stands where after an error that came during or behind the commit, and the way
    on."""
    kept = f"what stood there is in {kept_as}"
    undo = f"{make_undo_command(kept_as)} brings that back"
    try:
        with closing(connect(target, read_only=True, lenient=True)) as live:
            is_new = not find_differences(read_outline(source), read_outline(live))
        # Old and new content may have the same outline: without a commit it is the old one. To read
        # has rolled back what a commit had begun, its count too.
        is_new = is_new and is_committed()
    except (sqlite3.Error, OSError, ProjectError) as second:
        return ProjectError(
            f"{target} could not be replaced ({error}), nor read again ({second}); {kept}",
            next_step=undo,
        )

    if is_new:
        return ProjectError(
            f"{target} holds the new content, whole, but then: {error}; {kept}", next_step=undo
        )

    return ProjectError(
        f"{target} was not replaced: {error}; it holds what it held before, and {kept} too",
        next_step="see that the disk is well (make doctor), then start the same command again",
    )


@contextmanager
def source_that_fits(
    new: Path, live: sqlite3.Connection, target: Path
) -> Iterator[sqlite3.Connection]:
    """Yield a connection to what goes in: `new`, or, when the sizes of pages differ, a copy with
    those of the live database."""
    size = live.execute("PRAGMA page_size").fetchone()[0]
    resized = target.with_name(target.name + ".resized" + ARRIVING)
    with closing(connect(new, read_only=True, lenient=True)) as source:
        fits = source.execute("PRAGMA page_size").fetchone()[0] == size
        # Under WAL a database cannot change its page size, nor leave WAL while another program is
        # connected.
        if fits or live.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            yield source
            return
        remove_database(resized)
        source.execute(f"PRAGMA page_size = {size}")
        source.execute("VACUUM INTO ?", (str(resized),))

    try:
        with closing(connect(resized, read_only=True, lenient=True)) as source:
            yield source
    finally:
        remove_database(resized)


def shrink_log(live: sqlite3.Connection) -> None:
    """Cut the log, which after a replacement under WAL is as large as the database; readers may
    still need it."""
    try:
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if primary_code(error) not in BUSY_CODES:
            raise


def remove_arriving(target: Path) -> None:
    """Remove what a killed replacement left beside `target`."""
    for path in target.parent.glob(f"{glob.escape(target.name)}*{ARRIVING}"):
        remove_database(path)


def keep_version_in_header(live: sqlite3.Connection, descriptor: int, version: int) -> None:
    """Write the version of a newer SQLite back into the header, where this one has put its own; see
    keep_writer_version. Other programs do not write meanwhile, and SQLite itself does not go by
    this number."""
    if version > sqlite_version_number():
        with transaction(live):
            write_version(descriptor, version)
