"""The names of all copies that this machine sent: a check notices the loss of any."""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from backtestdb.files import write_atomically
from backtestdb.offsite.prune import KEEP
from backtestdb.offsite.record import CopyName, parse_name

NAME = "sent.txt"
# Two minutes' names are 170 bytes: about a month of busy days.
LARGEST_BYTES = 8_000_000


def note_sent(folder: Path, name: CopyName) -> None:
    path = folder / NAME
    with path.open("a") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())


def load_sent(folders: Iterable[Path]) -> list[CopyName]:
    return [name for folder in folders for name in read_names(folder)]


def read_names(folder: Path) -> Iterator[CopyName]:
    path = folder / NAME
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            if name := parse_name(line):
                yield name


def choose_due(names: Iterable[CopyName], now_utc: datetime) -> list[CopyName]:
    """Return those that no rule lets go yet: prune.KEEP, as in a bucket's lifecycle."""
    return [name for name in names if now_utc - name.taken_at_utc < KEEP[name.copy_class]]


def shorten(folder: Path, now_utc: datetime) -> None:
    """Drop what may be gone, when the list has become long."""
    path = folder / NAME
    if not path.is_file() or path.stat().st_size < LARGEST_BYTES:
        return
    kept = choose_due(read_names(folder), now_utc)
    write_atomically(path, "".join(f"{name}\n" for name in kept))
