"""The folder of generated scripts: copied with each full backup, hashed, and brought back with it."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from backtestdb.backups.manifest import GeneratedScripts
from backtestdb.errors import SettingsError, VerificationError
from backtestdb.files import fsync_directory, fsync_file, hash_file, remove_tree

ARRIVING = ".arriving"


def copy_scripts(source: Path, target: Path, folder: str) -> GeneratedScripts | None:
    """Copy `source` to the new folder `target`, flushed and private; None when there is no such folder.

    Names and times stay; a symbolic link is copied as a link and never followed; sockets and pipes hold
    nothing and are left out. `folder` is the name that the manifest gives the copy.
    """
    if not source.is_dir():
        return None
    if target.resolve().is_relative_to(source.resolve()):
        raise SettingsError(
            f"BACKUP_DIR {target.parent} lies inside GENERATED_SCRIPTS_DIR {source}: each backup would hold"
            " all earlier ones",
            next_step="change BACKUP_DIR or GENERATED_SCRIPTS_DIR",
        )
    copy_tree(source, target)
    return describe_scripts(target, folder)


def copy_tree(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(Path(entry.path).readlink())
            shutil.copystat(entry.path, copy, follow_symlinks=False)
        elif entry.is_dir():
            copy_tree(Path(entry.path), copy)
        elif entry.is_file():
            copy_file(Path(entry.path), copy)
    keep_times(source, target)
    fsync_directory(target)


def copy_file(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        if source.exists():
            raise
        return  # removed since the folder was listed
    keep_times(source, target)
    fsync_file(target)


def keep_times(source: Path, target: Path) -> None:
    """Times, and of the permissions only the owner's."""
    about = source.stat()
    target.chmod(stat.S_IMODE(about.st_mode) & 0o700 | 0o400)
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def describe_scripts(directory: Path, folder: str) -> GeneratedScripts:
    files, links = {}, {}
    for path in walk(directory):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            links[name] = str(path.readlink())
        else:
            files[name] = hash_file(path)
    return GeneratedScripts(folder=folder, count=len(files) + len(links), files=files, links=links)


def walk(directory: Path) -> Iterator[Path]:
    """Files and links below `directory`, links not followed."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        elif entry.is_symlink() or entry.is_file():
            yield Path(entry.path)


def tree_bytes(directory: Path) -> int:
    """What a copy needs, a block for each file at least; 0 when there is no such folder."""
    if not directory.is_dir():
        return 0
    return sum(path.lstat().st_size + 4096 for path in walk(directory))


def verify_scripts(directory: Path, expected: GeneratedScripts) -> None:
    """Raise VerificationError unless every file and link is there as it was. Others, such as those that a
    file manager leaves, are no damage."""
    if not directory.is_dir():
        raise VerificationError(f"the folder {directory.name} is missing")
    found = describe_scripts(directory, expected.folder)
    for name in (*expected.files, *expected.links):
        recorded = (expected.files.get(name), expected.links.get(name))
        if (found.files.get(name), found.links.get(name)) != recorded:
            raise VerificationError(f"{directory.name}/{name} is missing or not what it was")


def restore_scripts(copy: Path, expected: GeneratedScripts, target: Path, kept_as: Path) -> bool:
    """Put a verified copy of the scripts at `target`, the folder that stands there at `kept_as`; return
    whether there was one to keep. When it holds the same already, nothing is done. A run that is killed
    between the two renames leaves the old folder under its kept name; the next run brings the new one."""
    if target.is_dir() and describe_scripts(target, expected.folder) == expected:
        return False
    arriving = target.with_name(target.name + ARRIVING)
    remove_tree(arriving)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(copy, arriving)
    verify_scripts(arriving, expected)
    is_kept = os.path.lexists(target)
    if is_kept:
        target.rename(kept_as)
    arriving.rename(target)
    fsync_directory(target.parent)
    return is_kept
