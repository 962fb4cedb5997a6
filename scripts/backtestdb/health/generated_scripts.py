"""The folders of generated scripts: there or not, and do they hold what the database refers to?"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.database import table_names
from backtestdb.errors import ProjectError
from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.untouched import read_untouched

TABLE = "strategy_backtest_scripts"


def check_generated_scripts(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with the folders of scripts."""
    for folder in settings.generated_scripts_dirs:
        if folder.is_dir():
            yield ok("scripts", f"{folder} is copied with each full backup")
        # Not every platform writes scripts.
        elif settings.scripts_dirs_are_default:
            what = f"there is no folder {folder}: backups hold no generated scripts"
            yield note(
                "scripts", what, "set GENERATED_SCRIPTS_DIR in .env, if the platform writes some"
            )
        else:
            what = (
                f"GENERATED_SCRIPTS_DIR {folder} is not there: each full backup ends with exit "
                "code 2"
            )
            yield wrong("scripts", what, "change GENERATED_SCRIPTS_DIR in .env")

    yield from check_script_paths(settings.database_path, settings.generated_scripts_dirs)


def check_script_paths(database: Path, folders: Sequence[Path]) -> Iterator[Problem]:
    """Yield scripts of the platform that are not in the folders that are backed up."""
    if not database.is_file():
        return
    try:
        paths = read_untouched(database, load_script_paths)
    # Missing, damaged or in use: other checks tell.
    except (sqlite3.Error, ProjectError, UnicodeDecodeError):
        return

    outside = find_outside(paths, folders)
    if outside:
        what = (
            f"{len(outside):,} of {len(paths):,} scripts that the database refers to lie "
            "outside of these folders"
        )
        yield note(
            "scripts",
            f"{what}: {outside[0]}",
            "add their folder to GENERATED_SCRIPTS_DIR, after a colon",
        )
    elif paths:
        yield ok(
            "scripts",
            f"all {len(paths):,} scripts that the database refers to lie in these folders",
        )


def load_script_paths(connection: sqlite3.Connection) -> list[str]:
    if TABLE not in table_names(connection):
        return []
    query = (
        f"SELECT DISTINCT script_path FROM {TABLE} "
        "WHERE typeof(script_path) = 'text' AND script_path <> ''"
    )
    return [path for (path,) in connection.execute(query)]


def find_outside(paths: Iterable[str], folders: Sequence[Path]) -> list[str]:
    """Return a relative path, as the platform's older versions wrote, is inside when one of the
    folders has such a file."""
    return [
        path
        for path in paths
        if not any(
            Path(path).is_relative_to(folder)
            if Path(path).is_absolute()
            else any((base / path).exists() for base in (folder, *folder.parents[:2]))
            for folder in folders
        )
    ]
