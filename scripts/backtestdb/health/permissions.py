"""Who may read the key and the backups, and whether this user may write them.

What is offered for a change is ours: `.env` of the project, files with the names of our backups,
and BACKUP_DIR itself where it holds nothing else. A folder of the system, a home or a disk is never
offered.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from backtestdb.config import PROJECT_DIR
from backtestdb.console import say
from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.mounts import mount_of

OTHERS = stat.S_IRWXG | stat.S_IRWXO
# The names that this project gives to what it keeps in BACKUP_DIR.
OURS = re.compile(
    r"(backtesting|irreplaceable)-\d{4}-\d{2}-\d{2}-\d{6}\.(db|json)(\..*)?"
    r"|claude-scripts-\d{4}-\d{2}-\d{2}-\d{6}(\..*)?"
    r"|backup(-error)?\.log(\..*)?|\.lock|\.ai-backtest-backups|drills|lost\+found|\.?(scheduler|drill)[A-Za-z0-9._-]*"
)
# Folders that many programs share. Their own mode is not ours to change, nor that of what lies in
# the first ones.
OF_THE_SYSTEM = tuple(
    Path("/") / name
    for name in (
        *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64"),
        *("proc", "run", "sbin", "sys", "usr"),
        *("Applications", "Library", "System", "private/etc"),
    )
)
SHARED = {
    Path("/") / name
    for name in (
        *("", "home", "media", "mnt", "opt", "root", "srv", "tmp", "var", "Users", "Volumes"),
        *("var/backups", "var/lib", "var/log", "var/tmp", "usr/local", "run/media"),
    )
}
WITHOUT_PERMISSIONS = {"vfat", "msdos", "exfat", "fuseblk", "ntfs", "ntfs3"}
CLOSE = "make doctor ARGS=--close"


def check_permissions(env_file: Path, backup_dir: Path, database: Path) -> list[Problem]:
    """Return wrong modes: key and backups are for the user alone, folders have to be writable."""
    found = [
        *check_env_file(env_file),
        *check_backups(backup_dir),
        *check_writable("BACKUP_DIR", backup_dir),
        *check_writable("DATABASE_PATH", database.parent),
    ]
    return found or [ok("permissions", ".env, backups and folders are yours alone")]


def check_env_file(env_file: Path) -> Iterator[Problem]:
    if not env_file.is_file() or not is_open(env_file):
        return
    what = f"others can read {env_file}, and the key in it"
    if env_file.parent == PROJECT_DIR and env_file.stat().st_uid == os.getuid():
        yield wrong("permissions", what, f"chmod 600 {quote(str(env_file))}")
    else:
        yield wrong("permissions", what, "keep the settings in a file that you alone can read")


def check_backups(backup_dir: Path) -> Iterator[Problem]:
    """Yield what others may read of the backups. Of a disk that keeps no permissions (exFAT) every
    file is open, and chmod changes nothing."""
    shown = find_open(backup_dir)
    if not shown:
        return
    what = f"others can read {shown[0]}" + (
        f" and {len(shown) - 1:,} more" if len(shown) > 1 else ""
    )

    mount = mount_of(backup_dir)
    if mount and mount.kind in WITHOUT_PERMISSIONS:
        yield note("permissions", f"{what}: {mount.kind} keeps no permissions")
    else:
        yield wrong("permissions", what, CLOSE)


def find_open(backup_dir: Path) -> list[Path]:
    """Return what of ours others may read and this user may change. In a folder that also holds
    other things the folder itself is left as it is."""
    ours = [path for path in list_ours(backup_dir) if path.lstat().st_uid == os.getuid()]
    folder = [backup_dir] if is_ours_alone(backup_dir) else []
    return [path for path in (*folder, *ours) if is_open(path)]


def close_to_others(backup_dir: Path) -> int:
    """Take every right of others on what `find_open` names, which no link is; return how many."""
    shown = find_open(backup_dir)
    for path in shown:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
    say(f"closed to others: {len(shown):,} of our files and folders in {backup_dir}")
    return len(shown)


def check_writable(name: str, folder: Path) -> Iterator[Problem]:
    """Yield a folder that this user cannot write, and what helps."""
    if not folder.exists() or os.access(folder, os.W_OK | os.X_OK):
        return

    what = f"the folder {folder} of {name} cannot be written by you"
    if name == "BACKUP_DIR" and is_ours_alone(folder, owner=0):
        # As `sudo make backup` leaves it: what belongs to root in there is a backup of ours.
        where, user = quote(str(folder)), os.getuid()
        mend = f"sudo find {where} -xdev -user root -exec chown -h {user} {{}} +"
        yield wrong("permissions", what, mend)
    else:
        yield wrong("permissions", what, f"choose another folder and change {name}")


def list_ours(backup_dir: Path) -> list[Path]:
    """Return files and folders in BACKUP_DIR with a name of ours; none that is a link."""
    try:
        return [
            path
            for path in sorted(backup_dir.iterdir())
            if OURS.fullmatch(path.name) and path.name != "lost+found" and not path.is_symlink()
        ]
    except OSError:
        return []


def is_ours_alone(folder: Path, owner: int | None = None) -> bool:
    """Return whether a folder is there for our backups and nothing else: no user's home, no disk,
    no folder that programs share, and every entry has a name of ours. `owner`: whose it has to be,
    this user's without."""
    if not folder.is_dir() or is_shared(folder):
        return False
    if folder.stat().st_uid != (os.getuid() if owner is None else owner):
        return False

    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return False
    return bool(names) and all(OURS.fullmatch(name) for name in names)


def is_shared(folder: Path) -> bool:
    """Return whether a folder is not ours alone, so that no command to change it is printed: a
    system folder, a home, a mount point, or what holds a home or this project."""
    real, kept = folder.resolve(), (Path.home().resolve(), PROJECT_DIR.resolve())
    return (
        real in SHARED
        or real.parent in {Path("/home"), Path("/Users")}
        or any(real.is_relative_to(system) for system in OF_THE_SYSTEM)
        or any(path.is_relative_to(real) for path in kept)
        or real.is_mount()
    )


def is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & OTHERS)
