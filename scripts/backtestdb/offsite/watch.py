"""The living process: looks whether anything was committed, and sends what changed.

Small copies and full ones go side by side: the first upload of a large backup takes hours on a slow
line, and the minutes must not wait for it.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.backups.catalogue import Backup, verified
from backtestdb.backups.identity import load_id_of_source, load_own_catalogue, read_database_id
from backtestdb.backups.manifest import Kind
from backtestdb.backups.unlocked_copy import cannot_be_opened, steady_copy
from backtestdb.config import Settings
from backtestdb.console import describe_error, format_bytes
from backtestdb.errors import ProjectError
from backtestdb.files import exclusive_lock, hash_file, remove_database
from backtestdb.offsite.commits import Commits
from backtestdb.offsite.distrust import drop_distrusted, load_distrusted
from backtestdb.offsite.drill import run_and_save
from backtestdb.offsite.facts import CHECK_EVERY, DRILL_EVERY, is_due, load_offsite_facts
from backtestdb.offsite.history import check_and_save
from backtestdb.offsite.liveness import Liveness, load_liveness, save_liveness, target_folder
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.send import Content, Sender, describe_backup
from backtestdb.offsite.send_full import drop_left_bases, send_full
from backtestdb.offsite.send_small import send_small
from backtestdb.offsite.small_copy import SmallCopy, take_small_copy
from backtestdb.offsite.state import load_state
from backtestdb.offsite.target import open_remote

LARGEST_SHARE_OF_A_CORE = 0.05
FULL_EVERY_SECONDS = 30.0
UNLOCKED_LIMIT_SECONDS = 60.0
Errors = (ProjectError, OSError, sqlite3.Error)


@dataclass(kw_only=True)
class Watch:
    """`interval_seconds`: how long until the next look; stretched when looks are dear."""

    settings: Settings
    folder: Path
    log: logging.Logger
    stop: threading.Event
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    remote: Remote | None = None
    interval_seconds: float = 0.0
    liveness: Liveness = field(default_factory=Liveness)
    lock: threading.Lock = field(default_factory=threading.Lock)
    known_backups: dict[str, tuple[int, Backup | None]] = field(default_factory=dict)


def make_watch(settings: Settings, log: logging.Logger, stop: threading.Event) -> Watch:
    """Given the settings with OFFSITE, make the folders of its state and return the watch that goes
    on from what they remember."""
    folder = target_folder(settings.backup_dir, settings.offsite)
    for name in ("full", "small"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    drop_left_bases(folder.parent.iterdir(), datetime.now(UTC))

    return Watch(
        settings=settings,
        folder=folder,
        log=log,
        stop=stop,
        interval_seconds=settings.offsite_every_seconds,
        liveness=load_liveness(folder) or Liveness(),
    )


def run_watch(watch: Watch) -> None:
    """Send what is committed and every new full backup, until `stop` is set. Failures are logged,
    and tried again. Raise BusyError when another process sends from this BACKUP_DIR already."""
    with sole_sender(watch):
        watch.log.info(
            "watching %s, every %d s, to %s",
            watch.settings.database_path,
            watch.settings.offsite_every_seconds,
            watch.settings.offsite,
        )

        fulls = threading.Thread(target=watch_backups, args=(watch,), daemon=True)
        fulls.start()
        watch_commits(watch)


def send_once(watch: Watch) -> None:
    """Look once at the database and at the backups, and send what is new. Raise BusyError when the
    process that stays is running, ProjectError, OSError or sqlite3.Error when a copy fails."""
    with sole_sender(watch):
        look_at_commits(watch, make_sender(watch, "small"), Commits(watch.settings.database_path))
        note_success(watch, "small")
        look_at_backups(watch, make_sender(watch, "full"))
        note_success(watch, "full")


def sole_sender(watch: Watch) -> AbstractContextManager[None]:
    purpose = f"the sender of copies to {watch.settings.offsite}"
    return exclusive_lock(watch.folder / ".lock", purpose)


def make_sender(watch: Watch, name: str) -> Sender:
    """Given `full` or `small`, return the sender of such copies. Raise ProjectError when the store
    cannot be opened."""
    with watch.lock:
        # Tried again at each look: the network may come later than this process.
        if watch.remote is None:
            watch.remote = open_remote(watch.settings)
    folder = watch.folder / name

    return Sender(
        remote=watch.remote,
        state=load_state(folder),
        folder=folder,
        clock=watch.clock,
        say=watch.log.info,
    )


def watch_commits(watch: Watch) -> None:
    """Look for commits every `interval_seconds`, until `stop` is set."""
    sender: Sender | None = None
    commits = Commits(watch.settings.database_path)

    while not watch.stop.is_set():
        started, cpu = time.monotonic(), time.thread_time()
        try:
            sender = sender or make_sender(watch, "small")
            look_at_commits(watch, sender, commits)
            note_success(watch, "small")
        except Errors as error:
            commits.forget()
            note_failure(watch, "small", error)

        stretch(watch, time.thread_time() - cpu)
        watch.stop.wait(max(watch.interval_seconds - (time.monotonic() - started), 0.2))


def stretch(watch: Watch, cpu_seconds: float) -> None:
    """Given what the last look cost, set when the next one comes."""
    wanted = max(float(watch.settings.offsite_every_seconds), cpu_seconds / LARGEST_SHARE_OF_A_CORE)
    # One at 157 MB irreplaceable costs 1.5 s of a core: there are fewer, and the log says so.
    if wanted > 1.5 * watch.interval_seconds:
        watch.log.info(
            "a look costs %.1f s of a core: the next ones come every %.0f s", cpu_seconds, wanted
        )
        watch.interval_seconds = wanted
    elif cpu_seconds > 0.01 and wanted < watch.interval_seconds / 1.5:
        watch.interval_seconds = wanted


def look_at_commits(watch: Watch, sender: Sender, commits: Commits) -> None:
    """Send a new small backup, then what was committed since; without a commit read nothing."""
    looked_at = watch.clock()
    if drop_damaged(watch, sender):
        commits.seen = None

    backup = newest_backup(watch, "irreplaceable")
    if backup and backup.path.name != sender.state.small_file:
        send_small_backup(watch, sender, backup)

    mark = commits.mark()
    if commits.seen is None or mark != commits.seen:
        send_changes(watch, sender, commits.writer_version())
        commits.seen = mark

    watch.liveness.covered_until_utc = looked_at


def send_small_backup(watch: Watch, sender: Sender, backup: Backup) -> None:
    """Send a small backup. Older than what the newest minute holds, it still becomes the reference
    of the minutes to come."""
    content = describe_backup(backup)
    newest = watch.liveness.newest_small_utc
    record = send_small(sender, content, is_minute=False)
    watch.liveness.newest_small_utc = max(filter(None, (newest, record.name.taken_at_utc)))
    watch.log.info("sent %s: %s", record.name, format_bytes(record.sent_bytes))


def send_changes(watch: Watch, sender: Sender, written_by: int | None) -> None:
    """Copy the irreplaceable tables as they are now, and send them unless they are what was sent
    last."""
    path = sender.folder / "now.db"
    try:
        copy = copy_now(watch, path, written_by)

        digest = hash_file(path)
        # A commit may have touched market data alone.
        if digest == sender.state.small_sha256:
            return

        record = send_small(sender, describe_copy(watch, copy, digest), is_minute=True)
        watch.liveness.newest_small_utc = record.name.taken_at_utc
        watch.log.info("sent %s: %s", record.name, format_bytes(record.sent_bytes))
    finally:
        remove_database(path)


def copy_now(watch: Watch, path: Path, written_by: int | None) -> SmallCopy:
    """Return a copy of the irreplaceable tables. Where SQLite must not open the live file (mounts
    without locks), a steady copy of it is read in its place."""
    database = watch.settings.database_path
    if not cannot_be_opened(database):
        return take_small_copy(database, path, written_by)

    with steady_copy(
        database,
        path.with_name("steady.db"),
        say=lambda _message: None,
        give_up_after_seconds=UNLOCKED_LIMIT_SECONDS,
    ) as source:
        return take_small_copy(source, path)


def describe_copy(watch: Watch, copy: SmallCopy, digest: str) -> Content:
    """Return what a record says of a copy."""
    local = copy.taken_at_utc.astimezone()
    return Content(
        path=copy.path,
        file=f"irreplaceable-{local:%Y-%m-%d-%H%M%S}.db",
        database=os.path.realpath(watch.settings.database_path),
        database_id=copy.database_id,
        taken_at_utc=copy.taken_at_utc,
        sha256=digest,
        rows=copy.rows,
    )


def watch_backups(watch: Watch) -> None:
    """Look for full backups, and prove what was sent, until `stop` is set."""
    sender: Sender | None = None
    while not watch.stop.is_set():
        try:
            sender = sender or make_sender(watch, "full")
            look_at_backups(watch, sender)
            note_success(watch, "full")
            prove(watch, sender)
        except Errors as error:
            note_failure(watch, "full", error)
        watch.stop.wait(FULL_EVERY_SECONDS)


def look_at_backups(watch: Watch, sender: Sender) -> None:
    """Send the newest full backup, if it was not sent yet."""
    drop_damaged(watch, sender)
    backup = newest_backup(watch, "full")
    if not backup:
        return
    if backup.path.name != sender.state.full_file:
        watch.log.info("sending %s (%s)", backup.path.name, format_bytes(backup.bytes))
        record = send_full(sender, backup)
        watch.log.info("sent %s: %s", record.name, format_bytes(record.sent_bytes))
    watch.liveness.newest_full_utc = backup.taken_at_utc


def prove(watch: Watch, sender: Sender) -> None:
    """Read a share of the copies again when a week has passed, restore from them when a month
    has."""
    now, facts = watch.clock(), load_offsite_facts(watch.settings, watch.clock())
    first = sender.state.full
    # A day after the first full copy there is something to read.
    if facts is None or first is None or now - first.sent_at_utc < timedelta(days=1):
        return

    # After a failure each of them is due daily.
    daily = timedelta(days=1)
    if is_due(facts.checked_at_utc, daily if facts.check_problems else CHECK_EVERY, now):
        check_and_save(watch.settings, sender.remote, now, everything=False, say=watch.log.error)
    if is_due(facts.drilled_at_utc, daily if facts.drill_problem else DRILL_EVERY, now):
        database_id = find_database_id(watch.settings.database_path)
        local = now.astimezone()
        run_and_save(
            watch.settings, sender.remote, watch.folder, database_id, local, watch.log.info
        )


def drop_damaged(watch: Watch, sender: Sender) -> bool:
    """Forget what a check found damaged: it is sent anew. Return whether there was any."""
    dropped = drop_distrusted(sender.state, load_distrusted(watch.folder))
    for name in dropped:
        watch.log.error("%s is damaged where it lies: a new base is sent", name)
    return bool(dropped)


def newest_backup(watch: Watch, kind: Kind) -> Backup | None:
    """Return the newest verified backup of this database. Manifests are read again only when the
    folder of the backups has changed."""
    backup_dir = watch.settings.backup_dir
    changed_at = backup_dir.stat().st_mtime_ns
    known = watch.known_backups.get(kind)
    if known is None or known[0] != changed_at:
        database = watch.settings.database_path
        found = verified(load_own_catalogue(backup_dir, database, find_database_id(database)), kind)
        known = watch.known_backups[kind] = (changed_at, found[0] if found else None)
    return known[1]


def find_database_id(database: Path) -> str:
    """Return the id in the database, empty where there is none. It is read through SQLite where
    that may open the file: this process has it open, and a plain open() would drop its locks."""
    if not database.is_file():
        return ""
    if cannot_be_opened(database):
        return read_database_id(database)
    return load_id_of_source(database, read_only=True)


def note_success(watch: Watch, what: str) -> None:
    with watch.lock:
        if watch.liveness.failures.pop(what, ""):
            watch.log.info("the %s copies go on", what)
        keep_liveness(watch)


def note_failure(watch: Watch, what: str, error: ProjectError | OSError | sqlite3.Error) -> None:
    """Say a failure once for each cause, not at every look."""
    message = describe_error(error)
    with watch.lock:
        if watch.liveness.failures.get(what) != message:
            watch.log.error("no %s copy could be sent: %s", what, message)
        watch.liveness.failures[what] = message
        keep_liveness(watch)


def keep_liveness(watch: Watch) -> None:
    watch.liveness.looked_at_utc = watch.clock()
    watch.liveness.interval_seconds = watch.interval_seconds
    try:
        save_liveness(watch.folder, watch.liveness)
    except OSError as error:
        watch.log.error("no sign of life could be left: %s", error.strerror)
