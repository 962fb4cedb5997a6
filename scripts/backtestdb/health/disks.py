"""Where files lie: mounts that lose locks, folders that background jobs may not read."""

from collections.abc import Iterator
from pathlib import Path

from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.mounts import carries_no_locks, mount_of
from backtestdb.names import PROTECTED_FOLDERS, SYNCED_FOLDERS

HEADER_WAL = 2  # byte 18 of the file: https://sqlite.org/fileformat2.html


def uses_wal(database: Path) -> bool:
    """Return whether the header says WAL. Not in a process that has the database open: see
    database.py."""
    if not database.is_file():
        return False
    with database.open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and header[18] == HEADER_WAL


def check_mount(database: Path, *, is_wal: bool) -> Problem:
    """Judge the mount of the database."""
    # File locks and WAL's shared memory do not cross network file systems and the mounts of virtual
    # machines.
    mount = mount_of(database)
    if mount is None or not carries_no_locks(mount):
        return ok(
            "disk",
            f"the database lies on a local disk ({mount.kind if mount else 'type not known'})",
        )

    what = f"the database lies on {mount.kind}, which does not carry file locks"
    if is_wal:
        return wrong(
            "disk",
            f"{what}, and is in WAL mode: two programs on two sides of it will damage it",
            "move it to a local disk and change DATABASE_PATH, or let one side alone use it",
        )

    return note("disk", what, "move it to a local disk and change DATABASE_PATH")


def check_protected_folders(platform: str, home: Path, paths: dict[str, Path]) -> Iterator[Problem]:
    """Yield the folders that macOS keeps from background jobs or copies to a cloud. `paths`: by
    setting."""
    if platform != "darwin":
        return

    for name, path in paths.items():
        for folder in SYNCED_FOLDERS:
            if path.is_relative_to(home / folder):
                yield wrong(
                    "folders",
                    f"{name} {path} is synchronised with a cloud, which copies a database while "
                    "it changes",
                    f"choose another folder and change {name}",
                )

        for folder in PROTECTED_FOLDERS:
            if path.is_relative_to(home / folder):
                yield wrong(
                    "folders",
                    f"{name} {path} is in ~/{folder}, which macOS keeps from background jobs",
                    f"choose another folder and change {name}",
                )
