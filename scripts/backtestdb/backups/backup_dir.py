"""The folder that backups go to: there, writable, on the disk it was always on, and not the source
itself."""

import json
from contextlib import suppress
from pathlib import Path

from backtestdb.backups.catalogue import is_backup_name
from backtestdb.errors import DatabaseFileError, ProjectError
from backtestdb.files import same_file, write_atomically

# Where systems mount disks that come and go. The folder of a disk that is not there must not be
# made anew on the disk of the system.
MOUNT_ROOTS = tuple(map(Path, ("/Volumes", "/media", "/mnt", "/run/media")))

DRILL_LOCK, DRILL_SCRATCH = ".lock", "scratch"


def ensure_backup_dir(backup_dir: Path, database: Path) -> None:
    """Create the folder where it may be created; raise ProjectError with the reason where it may
    not."""
    if backup_dir.exists() and not backup_dir.is_dir():
        raise ProjectError(f"BACKUP_DIR {backup_dir} is a file", next_step="change BACKUP_DIR")
    remembered = load_mount_points(database).get(str(backup_dir))
    mount_point = find_mount_point(backup_dir)
    is_new_on_system_disk = not backup_dir.exists() and mount_point == Path("/")

    if (remembered and not Path(remembered).is_mount()) or (
        is_new_on_system_disk and any(backup_dir.is_relative_to(root) for root in MOUNT_ROOTS)
    ):
        raise ProjectError(
            f"the disk of BACKUP_DIR {backup_dir} is not there: nothing is mounted at"
            f" {remembered or backup_dir.parent}",
            next_step="connect the disk, or change BACKUP_DIR",
        )

    backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def find_missing_disk(path: Path) -> Path | None:
    """Return the folder at which a disk is to be mounted for `path`, and is not: see MOUNT_ROOTS.
    None for a file that is there, and for every other place."""
    if path.exists():
        return None
    roots = [root for root in MOUNT_ROOTS if path.is_relative_to(root) and path.parent != root]
    if not roots or find_mount_point(path) != Path("/"):
        return None
    root = max(roots, key=lambda one: len(one.parts))
    return root / path.relative_to(root).parts[0]


def verify_disk_of_database(database: Path) -> None:
    """Raise DatabaseFileError before a database is made on the system's disk, below where its own
    will be mounted."""
    if missing := find_missing_disk(database):
        raise DatabaseFileError(
            f"the disk of DATABASE_PATH {database} is not there: nothing is mounted at {missing}",
            next_step="connect the disk, or change DATABASE_PATH",
        )


def find_mount_point(path: Path) -> Path:
    """Return the nearest folder at or above `path` on which a disk is mounted."""
    return next(folder for folder in (path, *path.parents) if folder.is_mount())


def memory_path(database: Path) -> Path:
    return database.with_name(database.name + ".disks.json")


def load_mount_points(database: Path) -> dict[str, str]:
    """Return backup folder -> the mount point it was on at its last success; unreadable is the same
    as none."""
    try:
        values = json.loads(memory_path(database).read_text())
    except (OSError, ValueError):
        return {}
    return (
        {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}
    )


def save_mount_point(database: Path, backup_dir: Path) -> None:
    """Remember the disk of a folder that just took a backup. Beside the database, because the
    backup disk itself may be the one that is missing next time; a read-only folder there keeps no
    memory."""
    known = load_mount_points(database)
    found = str(find_mount_point(backup_dir))
    if known.get(str(backup_dir)) == found:
        return
    path = memory_path(database)
    text = json.dumps(known | {str(backup_dir): found}, indent=1) + "\n"
    with suppress(OSError):
        write_atomically(path, text, mode=0o666, durably=False)


def verify_source_is_no_backup(database: Path, backup_dir: Path) -> None:
    """Raise ProjectError when DATABASE_PATH leads, through links or by name, to a file that is a
    backup."""
    real = database.resolve()
    backups = [
        path for path in backup_dir.iterdir() if path.suffix == ".db" and is_backup_name(path)
    ]
    if (real.parent == backup_dir.resolve() and is_backup_name(real)) or any(
        same_file(database, path) for path in backups
    ):
        raise ProjectError(
            f"DATABASE_PATH {database} is one of the backups in {backup_dir}",
            next_step="change DATABASE_PATH; make restore-from-backup copies a backup into its "
            "place",
        )


def drill_folder(backup_dir: Path) -> Path:
    """Return the folder with the reports of drills, where a drill also restores meanwhile."""
    return backup_dir / "drills"
