"""Where the files lie: mounts that lose locks, folders that the system keeps from background jobs, permissions."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.health.finding import Finding, note, ok, wrong
from backtestdb.mounts import carries_no_locks, mount_of

HEADER_WAL = 2  # byte 18 of the file: https://sqlite.org/fileformat2.html
# Folders that macOS opens only for programs that the user allowed, and never asks for in the background.
PROTECTED = ("Documents", "Desktop", "Downloads")
SYNCED = ("Library/Mobile Documents", "Library/CloudStorage")


def uses_wal(database: Path) -> bool:
    """From the header. Not in a process that has the database open: see database.py."""
    if not database.is_file():
        return False
    with database.open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and header[18] == HEADER_WAL


def check_mount(database: Path, *, is_wal: bool) -> Finding:
    """File locks and WAL's shared memory do not cross network file systems and the mounts of virtual machines."""
    mount = mount_of(database)
    if mount is None or not carries_no_locks(mount):
        return ok("disk", f"the database lies on a local disk ({mount.kind if mount else 'type not known'})")
    what = f"the database lies on {mount.kind}, which does not carry file locks"
    if is_wal:
        return wrong(
            "disk",
            f"{what}, and is in WAL mode: two programs on two sides of it will damage it",
            "move it to a local disk and change DATABASE_PATH, or let one side alone use it",
        )
    return note("disk", what, "move it to a local disk and change DATABASE_PATH")


def check_protected_folders(platform: str, home: Path, paths: dict[str, Path]) -> Iterator[Finding]:
    """`paths`: setting -> path. macOS only."""
    if platform != "darwin":
        return
    for name, path in paths.items():
        for folder in SYNCED:
            if path.is_relative_to(home / folder):
                yield wrong(
                    "folders",
                    f"{name} {path} is synchronised with a cloud, which copies a database while it changes",
                    f"choose another folder and change {name}",
                )
        for folder in PROTECTED:
            if path.is_relative_to(home / folder):
                yield wrong(
                    "folders",
                    f"{name} {path} is in ~/{folder}, which macOS keeps from background jobs",
                    f"choose another folder and change {name}",
                )


def check_permissions(env_file: Path, backup_dir: Path, database: Path) -> list[Finding]:
    """Key and backups are for the user's eyes; the folders have to be writable."""
    findings = []
    if is_open_to_others(env_file):
        findings.append(
            wrong(
                "permissions",
                f"others can read {env_file}, and the key in it",
                f"chmod 600 {quote(str(env_file))}",
            )
        )
    shown = [path for path in [backup_dir, *list_backup_files(backup_dir)] if is_open_to_others(path)]
    if shown:
        what = f"others can read {shown[0]}" + (f" and {len(shown) - 1} more" if len(shown) > 1 else "")
        findings.append(wrong("permissions", what, f"chmod -R go-rwx {quote(str(backup_dir))}"))
    findings += [
        wrong(
            "permissions",
            f"{path} cannot be written by you",
            f"sudo chown -R {os.getuid()} {quote(str(path))}",
        )
        for path in dict.fromkeys([backup_dir, database.parent])
        if path.exists() and not os.access(path, os.W_OK)
    ]
    return findings or [ok("permissions", ".env, backups and folders are yours alone")]


def list_backup_files(backup_dir: Path) -> list[Path]:
    try:
        backups = load_catalogue(backup_dir)
    except PermissionError:
        return []
    return [path for backup in backups for path in (backup.path, backup.manifest_path) if path.exists()]


def is_open_to_others(path: Path) -> bool:
    """False for what is neither a file nor a folder, or not there."""
    if not (path.is_file() or path.is_dir()):
        return False
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
