"""Folders of generated scripts: copied and hashed with a full backup, brought back with it."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from backtestdb.backups.manifest import GeneratedScripts
from backtestdb.console import Say
from backtestdb.errors import SettingsError, VerificationError
from backtestdb.files import (
    choose_free_names,
    free_bytes,
    fsync_directory,
    fsync_file,
    hash_file,
    remove_tree,
)
from backtestdb.names import ARRIVING, kept_path

# A mounted folder can hold itself; and each level costs a level of recursion.
DEEPEST = 64
SPARE_BYTES = 64 << 20


@dataclass
class Copying:
    """One copy under way: what it may still take, and what had to be left out, name -> reason."""

    left_bytes: int
    limit: str
    not_copied: dict[str, str] = field(default_factory=dict)


def copy_scripts(
    sources: Sequence[Path], target: Path, folder: str, *, limit_bytes: int
) -> GeneratedScripts | None:
    """Copy the folders `sources` to the new folder `target`, flushed and private; None when there
    are none.

    One folder is copied as it is, each of several into a folder of its own. Names and times stay; a
    symbolic link is copied as a link and never followed; sockets and pipes hold nothing and are
    left out. What cannot be copied is listed with its reason. `folder` is the name that the
    manifest gives the copy.
    """
    if not sources:
        return None
    for source in sources:
        if target.resolve().is_relative_to(source.resolve()):
            raise SettingsError(
                f"BACKUP_DIR {target.parent} lies inside GENERATED_SCRIPTS_DIR {source}: each "
                "backup would hold all earlier ones",
                next_step="change BACKUP_DIR or GENERATED_SCRIPTS_DIR",
            )

    free = free_bytes(target.parent) - SPARE_BYTES
    limit = f"larger than the {limit_bytes // 1_000_000:,} MB of GENERATED_SCRIPTS_MAX_MB in all"
    copying = Copying(
        min(limit_bytes, free), limit if limit_bytes <= free else "the disk of BACKUP_DIR is full"
    )
    parts = name_parts(sources)
    target.mkdir(mode=0o700)

    for part, path in parts.items():
        copy_tree(Path(path), target / part, copying, name=part, depth=0)
    fsync_directory(target)
    return replace(describe_scripts(target, folder), parts=parts, not_copied=copying.not_copied)


def name_parts(sources: Sequence[Path]) -> dict[str, str]:
    """Return the folder inside the copy -> the folder that it was made from."""
    if len(sources) == 1:
        return {"": str(sources[0])}
    return {f"{number}-{source.name}": str(source) for number, source in enumerate(sources, 1)}


def copy_tree(source: Path, target: Path, copying: Copying, *, name: str, depth: int) -> None:
    """Copy a folder with everything below it; note in `copying` what cannot be copied. `name`: of
    the folder inside the copy."""
    target.mkdir(mode=0o700, exist_ok=depth == 0)
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except OSError as error:
        copying.not_copied[name or "."] = explain(error)
        return

    lower_names: dict[str, str] = {}
    for entry in entries:
        path = f"{name}/{entry.name}" if name else entry.name
        other = lower_names.setdefault(entry.name.lower(), entry.name)
        try:
            if other != entry.name and (target / entry.name).exists():
                raise FileExistsError(
                    0, f"differs from {other} only in case, which the disk of BACKUP_DIR ignores"
                )
            copy_entry(entry, target / entry.name, copying, name=path, depth=depth)
        except (OSError, ValueError) as error:
            remove_copy(target / entry.name)
            if os.path.lexists(entry.path):  # else it was removed since the folder was listed
                copying.not_copied[path] = explain(error)

    keep_times(source, target)
    fsync_directory(target)


def copy_entry(
    entry: "os.DirEntry[str]", target: Path, copying: Copying, *, name: str, depth: int
) -> None:
    """Raise OSError when it cannot be copied."""
    if entry.is_symlink():
        target.symlink_to(Path(entry.path).readlink())
        shutil.copystat(entry.path, target, follow_symlinks=False)
    elif entry.is_dir():
        if depth + 1 >= DEEPEST:
            raise OSError(0, f"lies more than {DEEPEST} folders deep")
        copy_tree(Path(entry.path), target, copying, name=name, depth=depth + 1)
    elif entry.is_file():
        size = entry.stat().st_size
        if size > copying.left_bytes:
            raise OSError(0, f"{size:,} bytes: {copying.limit}")
        copying.left_bytes -= size
        copy_file(Path(entry.path), target)


def copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    keep_times(source, target)
    fsync_file(target)


def remove_copy(path: Path) -> None:
    """Remove a copy that failed; a folder says itself what it lacks, and stays."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)


def explain(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def keep_times(source: Path, target: Path) -> None:
    """Keep the times, and of the permissions only the owner's."""
    about = source.stat()
    target.chmod(stat.S_IMODE(about.st_mode) & 0o700 | 0o400)
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def describe_scripts(directory: Path, folder: str) -> GeneratedScripts:
    """Return every file below a folder with its SHA-256, and every link with its target."""
    files, links = {}, {}
    for path in walk(directory):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            links[name] = str(path.readlink())
        else:
            files[name] = hash_file(path)

    return GeneratedScripts(
        folder=folder,
        count=len(files) + len(links),
        files=files,
        links=links,
        parts={},
        not_copied={},
    )


def walk(directory: Path) -> Iterator[Path]:
    """Yield files and links below `directory`, links not followed."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        elif entry.is_symlink() or entry.is_file():
            yield Path(entry.path)


def verify_scripts(directory: Path, expected: GeneratedScripts) -> None:
    """Raise VerificationError unless every file and link is there as it was. Others, such as those
    that a file manager leaves, are no damage."""
    if not directory.is_dir():
        raise VerificationError(f"the folder {directory.name} is missing")
    found = describe_scripts(directory, expected.folder)
    for name in (*expected.files, *expected.links):
        recorded = (expected.files.get(name), expected.links.get(name))
        if (found.files.get(name), found.links.get(name)) != recorded:
            raise VerificationError(f"{directory.name}/{name} is missing or not what it was")


@dataclass(frozen=True)
class RestoredPart:
    """A folder of scripts, and where the one before it is now (None: none, or the same one)."""

    folder: Path
    kept_as: Path | None


def restore_parts(
    copy: Path, expected: GeneratedScripts, folders: Sequence[Path], now_local: datetime, say: Say
) -> list[RestoredPart]:
    """Bring each folder back to where it was; to its place in GENERATED_SCRIPTS_DIR on a machine
    with others."""
    restored = []
    for part, target in match_parts(expected.parts, folders).items():
        if target is None:
            say(
                f"{copy / part} has no folder of its own in GENERATED_SCRIPTS_DIR, and was not "
                "restored"
            )
            continue
        (kept_as,) = choose_free_names(
            lambda stamp, target=target: [kept_path(target, stamp)],  # type: ignore[misc]
            now_local,
        )
        is_kept = restore_scripts(copy / part, select_part(expected, part), target, kept_as)
        restored.append(RestoredPart(target, kept_as if is_kept else None))

    return restored


def match_parts(parts: Mapping[str, str], folders: Sequence[Path]) -> dict[str, Path | None]:
    """Return each part of the copy -> the folder that it goes back to, None for one too many."""
    # A manifest of before several folders has no parts: all of it belongs into the first.
    parts = parts or {"": str(folders[0])}
    matched: dict[str, Path | None] = {
        part: Path(source) for part, source in parts.items() if Path(source) in folders
    }

    free = [folder for folder in folders if folder not in matched.values()]
    for part in parts:
        if part not in matched:
            matched[part] = free.pop(0) if free else None
    return matched


def select_part(expected: GeneratedScripts, part: str) -> GeneratedScripts:
    """Return what of the copy lies in one of its folders, with names as they are in there."""
    if not part:
        return expected
    files, links = (
        {
            name.removeprefix(f"{part}/"): value
            for name, value in names.items()
            if name.startswith(f"{part}/")
        }
        for names in (expected.files, expected.links)
    )

    return replace(expected, count=len(files) + len(links), files=files, links=links)


def restore_scripts(copy: Path, expected: GeneratedScripts, target: Path, kept_as: Path) -> bool:
    """Put a verified copy of the scripts at `target`, the folder that stands there at `kept_as`;
    return whether there was one to keep. When it holds the same already, nothing is done."""
    if target.is_dir() and holds_exactly(target, copy, expected):
        return False

    arriving = target.with_name(target.name + ARRIVING)
    remove_tree(arriving)
    target.parent.mkdir(parents=True, exist_ok=True)
    copying = Copying(free_bytes(target.parent), "the disk is full")
    copy_tree(copy, arriving, copying, name="", depth=0)
    verify_scripts(arriving, expected)

    # Killed between the two renames, the old folder is under its kept name; the next run goes on.
    is_kept = os.path.lexists(target)
    if is_kept:
        target.rename(kept_as)
    arriving.rename(target)
    fsync_directory(target.parent)

    return is_kept


def holds_exactly(directory: Path, copy: Path, expected: GeneratedScripts) -> bool:
    """Return whether `directory` is what `copy`, which `expected` describes, would make of it. What
    cannot be read is not the same."""
    try:
        # Names and sizes first: a sparse file of 200 GB takes 15 minutes to hash. What a file
        # manager left in the copy since is not described.
        described = {*expected.files, *expected.links}
        sizes = {name: size for name, size in list_sizes(copy).items() if name in described}
        if list_sizes(directory) != sizes:
            return False

        found = describe_scripts(directory, expected.folder)
    except OSError:
        return False

    return (found.files, found.links) == (expected.files, expected.links)


def list_sizes(directory: Path) -> dict[str, int]:
    """Return file or link below `directory` -> bytes."""
    return {
        path.relative_to(directory).as_posix(): path.lstat().st_size for path in walk(directory)
    }
