"""What replacements and interrupted work leave beside the database, until the user is sure."""

from dataclasses import dataclass
from pathlib import Path

from backtestdb.files import DATABASE_COMPANIONS, remove_database
from backtestdb.names import KEPT_SUFFIX, work_path


@dataclass(frozen=True)
class KeptCopy:
    """`bytes` with the log and journal beside it."""

    path: Path
    bytes: int


def find_kept(database: Path) -> list[KeptCopy]:
    """Return copies of this very database that something replaced, the newest first."""
    start = len(database.name)
    try:
        paths = [
            path
            for path in database.parent.iterdir()
            if path.name.startswith(database.name)
            and KEPT_SUFFIX.fullmatch(path.name[start:])
            and is_plain(path)
        ]
    except OSError:
        return []

    return [KeptCopy(path, size_with_companions(path)) for path in sorted(paths, reverse=True)]


def find_interrupted_rebuild(database: Path) -> KeptCopy | None:
    path = work_path(database)
    return KeptCopy(path, size_with_companions(path)) if is_plain(path) else None


def remove_kept(copies: list[KeptCopy]) -> int:
    """Remove these; return the bytes that are free again."""
    for copy in copies:
        remove_database(copy.path)
    return sum(copy.bytes for copy in copies)


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def size_with_companions(path: Path) -> int:
    names = (path, *(path.with_name(path.name + suffix) for suffix in DATABASE_COMPANIONS))
    return sum(one.stat().st_size for one in names if one.is_file())
