"""What the tests of copies off the machine share: a project with a target, copies without commands, readings."""

import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.backups.content_hash import hash_contents
from backtestdb.database import connect
from backtestdb.files import hash_file
from backtestdb.offsite.fetch import fetch_copy, list_copies
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import SMALL_CLASSES, Record
from backtestdb.offsite.seal import make_data_key
from backtestdb.offsite.send import Content, Sender, send_small
from backtestdb.offsite.small_copy import take_small_copy
from backtestdb.offsite.state import load_state
from backtestdb.offsite.store import FolderStore, Store

PASSPHRASE = "correct horse battery"
KEY = make_data_key()


@dataclass
class Machine:
    """A database and its way to a store, without the commands around it: for many copies in a short time."""

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
            taken_at_utc=copy.taken_at_utc,
            sha256=hash_file(path),
            rows=copy.rows,
        )
        return send_small(self.sender, content, is_minute=is_minute)

    def fetch(self, record: Record) -> Path:
        target = self.folder / f"fetched-{random.getrandbits(32):08x}.db"
        fetch_copy(self.remote, record.name, target)
        return target


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
