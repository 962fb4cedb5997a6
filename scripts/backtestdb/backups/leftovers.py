"""What a killed run left in the backup folder. Only the next backup looks here, and it holds the
lock."""

import re
from contextlib import suppress
from pathlib import Path

from backtestdb.backups.backup_dir import DRILL_LOCK, DRILL_SCRATCH, drill_folder
from backtestdb.backups.catalogue import NAME, PARTIAL, PREFIXES, scripts_path_of
from backtestdb.backups.generated_scripts import verify_scripts
from backtestdb.backups.manifest import Manifest, load_manifest
from backtestdb.backups.retention import finish_removals
from backtestdb.backups.verify import verify_against_manifest
from backtestdb.errors import BusyError, VerificationError
from backtestdb.files import DATABASE_COMPANIONS, exclusive_lock, fsync_directory, remove_tree

OURS = re.compile(
    r"(backtesting|irreplaceable|claude-scripts)-\d{4}-\d{2}-\d{2}-\d{6}(\.db|\.json)?\.partial.*"
)


def clean_leftovers(backup_dir: Path) -> list[str]:
    """Finish or remove what a killed run began; return a sentence for each finished backup."""
    finish_removals(backup_dir)
    messages = []
    for waiting in sorted(backup_dir.glob(f"*.json{PARTIAL}")):
        database = waiting.with_name(waiting.name.removesuffix(f".json{PARTIAL}") + ".db")
        if NAME.fullmatch(database.name):
            messages += complete_or_drop(waiting, database)

    for path in sorted(backup_dir.glob(f"*{PARTIAL}*")):
        if OURS.fullmatch(path.name) and path.name.endswith((PARTIAL, *DATABASE_COMPANIONS)):
            remove_tree(path)

    remove_drill_scratch(backup_dir)
    return messages


def remove_drill_scratch(backup_dir: Path) -> None:
    """Remove what a killed drill restored: large, and the next drill may be a week away."""
    folder = drill_folder(backup_dir)
    if (folder / DRILL_SCRATCH).exists():
        with suppress(BusyError), exclusive_lock(folder / DRILL_LOCK, "a drill"):
            remove_tree(folder / DRILL_SCRATCH)


def complete_or_drop(waiting: Path, database: Path) -> list[str]:
    """Finish or remove what a killed backup left; return a line if it was finished."""
    try:
        manifest = load_manifest(waiting)
    except VerificationError:
        return []

    if not database.exists():
        remove_scripts(manifest, database)
        return []

    # The manifest is complete before anything gets its name, and gets its own last. So this is a
    # whole backup if it is what the manifest says, and otherwise a file of no use.
    try:
        verify_against_manifest(database, manifest)
        if manifest.generated_scripts:
            verify_scripts(scripts_path_of(database), manifest.generated_scripts)
    except VerificationError:
        return []

    waiting.rename(database.with_suffix(".json"))
    fsync_directory(database.parent)
    return [f"completed {database.name}, which a killed run had finished but for its name"]


def remove_scripts(manifest: Manifest, database: Path) -> None:
    if manifest.generated_scripts and database.name.startswith(PREFIXES["full"]):
        remove_tree(scripts_path_of(database))
