"""What the tests of copies off the machine share: a project with a target, copies without commands,
readings."""

import logging
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks, make_backup
from backtestdb.backups.content_hash import hash_contents
from backtestdb.backups.manifest import Kind
from backtestdb.config import Settings
from backtestdb.console import guard
from backtestdb.database import connect
from backtestdb.files import hash_file
from backtestdb.offsite.cli import run_check, run_restore_from_offsite
from backtestdb.offsite.fetch import fetch_copy, list_copies
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import SMALL_CLASSES, CopyName, Record
from backtestdb.offsite.seal import lock_key, make_data_key
from backtestdb.offsite.send import Content, Sender
from backtestdb.offsite.send_small import send_small
from backtestdb.offsite.small_copy import take_small_copy
from backtestdb.offsite.state import load_state
from backtestdb.offsite.store import FolderStore, Store, Target
from backtestdb.offsite.target import KEY_NAME, make_target, open_remote, open_store
from backtestdb.offsite.watch import make_watch, send_once
from backup_tools import environment_of, make_settings
from commands import PROJECT_DIR

# The promise is 60 seconds at a look every 30. Here every 2, so that a test need not live for
# minutes, and with the same share for the work between two looks.
EVERY_SECONDS = 2
WATCH = PROJECT_DIR / "scripts" / "run_offsite.py"
PASSPHRASE = "correct horse battery"
KEY = make_data_key()
LOCKED_KEY = lock_key(KEY, PASSPHRASE)


@dataclass
class Machine:
    """A database and its way to a store, without the commands around it: for many copies in a short
    time."""

    folder: Path
    store: Store
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state_folder = self.folder / "state"
        state_folder.mkdir(exist_ok=True)
        self.sender = Sender(
            remote=Remote(self.store, KEY), state=load_state(state_folder), folder=state_folder
        )

    @property
    def database(self) -> Path:
        return self.folder / "backtesting.db"

    @property
    def remote(self) -> Remote:
        return self.sender.remote

    def send(self, *, is_minute: bool = True) -> Record:
        """What the living process does when something was committed."""
        path = self.folder / "now.db"
        copy = take_small_copy(self.database, path)
        content = Content(
            path=path,
            file="irreplaceable-2026-11-24-140500.db",
            database=str(self.database),
            database_id=copy.database_id,
            taken_at_utc=copy.taken_at_utc,
            sha256=hash_file(path),
            rows=copy.rows,
        )
        return send_small(self.sender, content, is_minute=is_minute)

    def fetch(self, record: Record) -> Path:
        target = self.folder / f"fetched-{random.getrandbits(32):08x}.db"
        fetch_copy(self.remote, record.name, target)
        return target


@dataclass
class Site:
    """A whole installation with a target, worked by the functions behind the commands: a command of
    its own costs seconds of scrypt and of Python each, so one test goes through them and the others
    do not."""

    settings: Settings

    def init(self) -> None:
        """As make offsite-init, with a key that is already unlocked in this process."""
        store = open_store(make_target(self.settings))
        store.put(KEY_NAME, LOCKED_KEY)

    def back_up(self, kind: Kind = "full", *, accept_loss: bool = False) -> None:
        now = datetime.now().astimezone()
        make_backup(self.settings, kind, now, False, Hooks(), accept_loss=accept_loss)

    def send(self) -> None:
        send_once(make_watch(self.settings, logging.getLogger("test"), threading.Event()))

    def copies(self) -> list[CopyName]:
        return list_copies(open_remote(self.settings))

    def check(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        code = run_check(self.settings, datetime.now(UTC), everything=True, as_json=False)
        return code, said(capsys)

    def restore(
        self,
        capsys: pytest.CaptureFixture[str],
        moment: str = "",
        *,
        beside: bool = False,
        writer: str = "",
    ) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        code = guard(
            lambda _arguments: run_restore_from_offsite(
                self.settings,
                moment,
                datetime.now().astimezone(),
                beside=beside,
                assume_yes=True,
                writer=writer,
            ),
            None,
        )
        return code, said(capsys)

    def wipe(self) -> None:
        """The machine is gone; what lies elsewhere stays."""
        wipe(self.settings.database_path.parent, self.settings.backup_dir)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    return out + err


def make_site(folder: Path, target: Target | None = None, **values: object) -> Site:
    """`target`: where the copies go; a second folder by default."""
    target = target or Target(address=str(folder / "elsewhere"))
    settings = make_settings(
        folder,
        offsite=target.address,
        offsite_endpoint=target.endpoint,
        offsite_key_id=target.key_id,
        offsite_secret=target.secret,
        offsite_passphrase=PASSPHRASE,
        **values,
    )
    return Site(settings)


def make_machine(folder: Path) -> Machine:
    """With a second folder as its store."""
    return Machine(folder, FolderStore(folder / "remote"))


def read_hashes(database: Path) -> tuple[dict[str, str], str]:
    """Of everything irreplaceable: table -> hash, and the hash of the structure."""
    with closing(connect(database)) as connection:
        contents = hash_contents(connection)
    return contents.tables, contents.structure


def small_copies(remote: Remote) -> int:
    return sum(name.copy_class in SMALL_CLASSES for name in list_copies(remote))


def copy_database(source: Path, target: Path) -> None:
    """One committed state, by SQLite itself."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def wipe(*paths: Path) -> None:
    """A machine that is gone."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def now() -> datetime:
    return datetime.now(UTC)


def start_watch(site: Site) -> subprocess.Popen[str]:
    settings = site.settings
    environment = environment_of(settings) | {
        "OFFSITE": settings.offsite,
        "OFFSITE_ENDPOINT": settings.offsite_endpoint,
        "OFFSITE_KEY_ID": settings.offsite_key_id,
        "OFFSITE_SECRET": settings.offsite_secret,
        "OFFSITE_PASSPHRASE": PASSPHRASE,
        "OFFSITE_EVERY_SECONDS": str(EVERY_SECONDS),
    }
    return subprocess.Popen(
        [sys.executable, str(WATCH), "watch"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
