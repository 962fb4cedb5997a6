"""The folder that backups go to: there, writable, on its usual disk, and not the source itself."""

from pathlib import Path

from backtestdb.backups.catalogue import is_backup_name
from backtestdb.backups.known_folders import find_absent_disk, find_mount_point
from backtestdb.errors import DatabaseFileError, ProjectError
from backtestdb.files import same_file

# Where systems mount disks that come and go. The folder of a disk that is not there must not be
# made anew on the disk of the system.
MOUNT_ROOTS = tuple(map(Path, ("/Volumes", "/media", "/mnt", "/run/media")))

CONNECT_DISK = (
    "connect the disk, or change BACKUP_DIR; to use this folder from now on: "
    "make backup ARGS=--new-folder"
)
DRILL_LOCK, DRILL_SCRATCH = ".lock", "scratch"


class AbsentDiskError(ProjectError):
    """The disk of the backups is not there; what stands in its place must not be written to."""


def ensure_backup_dir(backup_dir: Path, database: Path) -> None:
    """Create the folder where it may be created; else raise ProjectError with the reason."""
    if backup_dir.exists() and not backup_dir.is_dir():
        raise ProjectError(f"BACKUP_DIR {backup_dir} is a file", next_step="change BACKUP_DIR")
    if reason := find_reason_to_keep_off(backup_dir, database):
        raise AbsentDiskError(describe_absent(backup_dir, reason), next_step=CONNECT_DISK)
    backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def find_reason_to_keep_off(backup_dir: Path, database: Path) -> str:
    """Given the folder of the backups, return why what is there must not be written to: its disk is
    absent. Empty where it may."""
    if reason := find_absent_disk(backup_dir, database):
        return reason
    is_new_on_system_disk = not backup_dir.exists() and find_mount_point(backup_dir) == Path("/")
    if is_new_on_system_disk and any(backup_dir.is_relative_to(root) for root in MOUNT_ROOTS):
        return f"nothing is mounted at {backup_dir.parent}"
    return ""


def describe_absent(backup_dir: Path, reason: str) -> str:
    return f"the disk of BACKUP_DIR {backup_dir} is not there: {reason}"


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
    """Raise DatabaseFileError where a new database would lie below a disk that is not mounted."""
    if missing := find_missing_disk(database):
        raise DatabaseFileError(
            f"the disk of DATABASE_PATH {database} is not there: nothing is mounted at {missing}",
            next_step="connect the disk, or change DATABASE_PATH",
        )


def verify_source_is_no_backup(database: Path, backup_dir: Path) -> None:
    """Raise ProjectError when DATABASE_PATH leads, by a link or by name, to a backup."""
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
