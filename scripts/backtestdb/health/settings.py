"""Settings: valid? The same in the environment and `.env`? What did a relative path leave?"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from backtestdb.config import PARSERS, Settings, known_names, load_settings, parse_absolute_path
from backtestdb.console import format_bytes
from backtestdb.env_file import find_unknown, read_env_file
from backtestdb.errors import SettingsError
from backtestdb.files import same_file
from backtestdb.health.problem import Level, Problem, note, ok, wrong

NOT_SEARCHED = {".git", ".venv", "venv", "node_modules", "demo", "__pycache__"}


def check_settings(
    environment: Mapping[str, str], env_file: Path
) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, None when one of them is wrong, and what was found."""
    findings = list(check_agreement(environment, env_file))
    try:
        settings = load_settings(environment, env_file)
    except SettingsError as error:
        return None, [wrong("settings", str(error), error.next_step), *findings]

    if not env_file.is_file():
        findings.append(
            note("settings", f"there is no {env_file}: the defaults hold", "make setup")
        )

    origin = settings.origins["DATABASE_PATH"]
    return settings, [
        ok("settings", f"DATABASE_PATH={settings.database_path} (from {origin})"),
        check_key(settings),
        *check_names(env_file),
        *check_backup_disk(settings),
        *findings,
    ]


def check_agreement(environment: Mapping[str, str], env_file: Path) -> Iterator[Problem]:
    """Yield settings of the environment that differ from `.env`."""
    # A forgotten shell variable wins over the file that the user looks at.
    here = environment.get("DATABASE_PATH") or ""
    there = read_names(env_file).get("DATABASE_PATH") or ""
    if here and there and Path(here).expanduser() != Path(there).expanduser():
        yield wrong(
            "settings",
            f"DATABASE_PATH is {here} in the environment, which wins, and {there} in {env_file}",
            "unset DATABASE_PATH",
        )

    if there and here:
        try:
            parse_absolute_path(there)
        except ValueError as error:
            yield wrong(
                "settings", f"DATABASE_PATH={there} (in {env_file}) {error}", "change DATABASE_PATH"
            )


def check_names(env_file: Path) -> Iterator[Problem]:
    if unknown := find_unknown(read_names(env_file), known_names()):
        yield note("settings", f"nothing here reads {', '.join(unknown)} in {env_file}")


def check_backup_disk(settings: Settings) -> Iterator[Problem]:
    """Yield a BACKUP_DIR on the database's own disk, as the default is."""
    database, backups = (
        nearest_there(path) for path in (settings.database_path, settings.backup_dir)
    )
    # That helps against a program, not against a disk that dies.
    if not settings.offsite and database.stat().st_dev == backups.stat().st_dev:
        yield note(
            "backups",
            f"{settings.backup_dir} is on the same disk as the database: when that disk dies, "
            "both are gone",
            "set BACKUP_DIR to a folder on another disk, or OFFSITE in .env: docs/DATABASE.md, "
            "make offsite-init",
        )


def nearest_there(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if os.path.exists(one))  # noqa: PTH110  never raises


def read_names(env_file: Path) -> Mapping[str, str | None]:
    """Return the settings of the file; load_settings tells about one that cannot be read."""
    try:
        return read_env_file(env_file)
    except SettingsError:
        return {}


def check_key(settings: Settings) -> Problem:
    """Judge whether there is a key; its text is nowhere shown."""
    for name in ("POLYGON_API_KEY", "MASSIVE_API_KEY"):
        if settings.origins[name] != "default":
            return ok("key", f"{name} is set (from {settings.origins[name]})")
    return note(
        "key", "no API key is set: no market data can be fetched", "write POLYGON_API_KEY into .env"
    )


def find_other_databases(
    database: Path, folders: Mapping[Path, int], *, is_lost: bool
) -> list[Problem]:
    """Return databases of the same name nearby. `is_lost`: nothing is in `database`, so that the
    other may be the one that is meant."""
    # A relative DATABASE_PATH makes one in every folder that a program is started from; another
    # checkout has its own, in use. Which it is cannot be told from here: to look is all the advice.
    level: Level = "wrong" if is_lost else "note"
    return [
        Problem(
            "other databases",
            f"{path} ({format_bytes(path.stat().st_size)}) is not the database in use",
            look_at(path),
            level=level,
        )
        for path in find_databases(database.name, folders)
        if not same_file(path, database)
    ]


def list_databases(folders: Mapping[Path, int]) -> list[Problem]:
    """Return what lies nearby, where the settings do not tell which of them is in use."""
    name = Path(PARSERS["DATABASE_PATH"][0]).name
    return [
        note("databases", f"{path} ({format_bytes(path.stat().st_size)}) is here", look_at(path))
        for path in find_databases(name, folders)
    ]


def look_at(path: Path) -> str:
    return f"look what is in it: DATABASE_PATH={quote(str(path))} make status"


def find_databases(name: str, folders: Mapping[Path, int]) -> list[Path]:
    """Return files of this name. `folders`: where to look, and how many levels below."""
    return sorted(
        {
            path.resolve()
            for folder, depth in folders.items()
            for path in search(folder, name, depth)
        }
    )


def search(folder: Path, name: str, depth: int) -> Iterator[Path]:
    """Yield files of this name in `folder` and `depth` levels below, as far as they may be read."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name == name and entry.is_file():
            yield entry
        elif depth and entry.name not in NOT_SEARCHED and entry.is_dir() and not entry.is_symlink():
            yield from search(entry, name, depth - 1)
