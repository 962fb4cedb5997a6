"""What a person may write after BACKUP=: a path, a name as `make backups` prints it, or how its
date begins."""

import re
from difflib import get_close_matches
from pathlib import Path

from backtestdb.backups.catalogue import is_backup_name
from backtestdb.errors import UsageError

DATE = re.compile(r"\d{4}(-\d{0,2})*([ T]\d{0,2}(:?\d{0,2}){0,2})?")


def find_named(text: str, backup_dir: Path) -> Path:
    """Given what the user wrote, return the one file that is meant. A path that is there wins.
    Raise UsageError with the three nearest names when there is none, or more than one that the text
    could mean."""
    path = Path(text).expanduser()
    if path.exists() or "/" in text:
        return path.absolute()

    names = list_names(backup_dir)
    if text in names:
        return backup_dir / text

    wanted = normalise(text)
    matches = [
        name
        for name in names
        if wanted and (name.startswith(wanted) or stamp(name).startswith(wanted))
    ]
    # A day has many small backups; the full one of it is what "Monday's backup" means.
    full = [name for name in matches if name.startswith("backtesting-")]
    chosen = full if len(full) == 1 else matches

    if len(chosen) == 1:
        return backup_dir / chosen[0]
    nearest = matches[:3] or find_nearest(wanted, names)
    if not nearest:
        raise UsageError(
            f"there is no backup in {backup_dir}, nor a file {path.absolute()}",
            next_step="write the file's whole path after BACKUP=",
        )

    what = (
        f"{len(matches):,} backups begin with {text!r}"
        if matches
        else f"there is no backup {text!r}"
    )

    raise UsageError(
        f"{what}; the nearest are {', '.join(nearest)}",
        next_step=f"make restore-from-backup BACKUP={nearest[0]}",
    )


def list_names(backup_dir: Path) -> list[str]:
    """Return the newest first."""
    try:
        names = [
            path.name
            for path in backup_dir.iterdir()
            if path.suffix == ".db" and is_backup_name(path)
        ]
    except OSError:
        return []
    return sorted(names, key=stamp, reverse=True)


def normalise(text: str) -> str:
    """Return a text as names have it: `2026-11-28 02:00` becomes 2026-11-28-0200."""
    wanted = text.strip().removesuffix(".db").removesuffix(".json")
    if DATE.fullmatch(wanted):
        return wanted.replace(" ", "-").replace("T", "-").replace(":", "")
    return wanted


def stamp(name: str) -> str:
    """Return the time in a name: `backtesting-2026-11-28-020000.db` -> `2026-11-28-020000`."""
    return name.removesuffix(".db").partition("-")[2]


def find_nearest(wanted: str, names: list[str]) -> list[str]:
    """Return the backups whose names look like the text, or else the newest."""
    by_stamp = {stamp(name): name for name in reversed(names)}
    near = [
        by_stamp[one]
        for one in get_close_matches(wanted.partition("-")[2], by_stamp, n=3, cutoff=0.5)
    ]
    near += [by_stamp[one] for one in get_close_matches(wanted, by_stamp, n=3, cutoff=0.5)]
    near += get_close_matches(wanted, names, n=3, cutoff=0.5)
    return list(dict.fromkeys([*near, *names]))[:3]
