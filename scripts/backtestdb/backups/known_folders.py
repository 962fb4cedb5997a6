"""Which folders took backups of a database: kept beside the database, and in the folder by a mark.

The mount point of a disk that is absent is an ordinary, empty folder; in a container it even is a
mount. So a folder that took a backup holds a mark, a random id, and the database's side knows it:
a folder of the same name without the mark is another one.
"""

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from backtestdb.files import write_atomically

MARK_NAME = ".ai-backtest-backups"


@dataclass(frozen=True)
class KnownFolder:
    """`mount_point`: where its disk was mounted at the last success. `marks`: the ids that were
    found in it; several where disks take turns."""

    mount_point: str
    marks: tuple[str, ...] = ()


def memory_path(database: Path) -> Path:
    return database.with_name(database.name + ".disks.json")


def load_known_folders(database: Path) -> dict[str, KnownFolder]:
    """Return the known backup folders of a database, by path; none if there is no memory."""
    try:
        values = json.loads(memory_path(database).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(folder): parse_known(value) for folder, value in values.items()}


def parse_known(value: object) -> KnownFolder:
    """Return what the memory says; before there were marks it kept the mount point alone."""
    if not isinstance(value, dict):
        return KnownFolder(str(value))
    marks = value.get("marks")
    return KnownFolder(
        str(value.get("mount_point", "/")),
        tuple(map(str, marks)) if isinstance(marks, list) else (),
    )


def find_absent_disk(backup_dir: Path, database: Path) -> str:
    """Given the folder of the backups and the path of the database, return why this cannot be the
    folder that took them before; empty where it is, or where none is known."""
    folders = load_known_folders(database)
    known = folders.get(str(backup_dir))
    if known is None:
        return ""
    if not Path(known.mount_point).is_mount():
        return f"nothing is mounted at {known.mount_point}"

    # In a container the same folder has another name, so the marks of all names count.
    accepted = {mark for folder in folders.values() for mark in folder.marks}
    if known.marks and read_mark(backup_dir) not in accepted:
        return f"its mark {MARK_NAME} is missing, or another one"
    return ""


def read_mark(backup_dir: Path) -> str:
    """Return the mark in the folder; empty where there is none."""
    try:
        return (backup_dir / MARK_NAME).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def ensure_mark(backup_dir: Path) -> str:
    """Return the folder's mark, made if there is none; databases that share it have one."""
    path = backup_dir / MARK_NAME
    if not read_mark(backup_dir):
        write_atomically(path, uuid.uuid4().hex + "\n")
    return read_mark(backup_dir)


def remember_folder(database: Path, backup_dir: Path) -> None:
    """Remember a folder that just took a backup, or that the user accepts."""
    # Beside the database: the disk of the backups may be the one that is missing next time.
    folders = load_known_folders(database)
    mark = ensure_mark(backup_dir)
    known = folders.get(str(backup_dir))
    marks = dict.fromkeys((*(known.marks if known else ()), mark))
    now = KnownFolder(str(find_mount_point(backup_dir)), tuple(marks))
    if now != known:
        save_known_folders(database, folders | {str(backup_dir): now})


def save_known_folders(database: Path, folders: Mapping[str, KnownFolder]) -> None:
    values = {name: asdict(folder) for name, folder in folders.items()}
    with suppress(OSError):
        write_atomically(
            memory_path(database), json.dumps(values, indent=1) + "\n", mode=0o666, durably=False
        )


def find_mount_point(path: Path) -> Path:
    """Return the nearest folder at or above `path` on which a disk is mounted."""
    return next(folder for folder in (path, *path.parents) if folder.is_mount())
