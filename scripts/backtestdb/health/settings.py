"""Settings: are they valid, do the environment and `.env` agree, and what did a relative path leave behind?"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from backtestdb.config import PARSERS, Settings, load_settings, parse_absolute_path
from backtestdb.console import format_bytes
from backtestdb.errors import SettingsError
from backtestdb.files import same_file
from backtestdb.health.finding import Finding, note, ok, wrong

NOT_SEARCHED = {".git", ".venv", "venv", "node_modules", "demo", "__pycache__"}


def check_settings(environment: Mapping[str, str], env_file: Path) -> tuple[Settings | None, list[Finding]]:
    """The settings, None when one of them is wrong, and what was found."""
    findings = list(check_agreement(environment, env_file))
    try:
        settings = load_settings(environment, env_file)
    except SettingsError as error:
        return None, [wrong("settings", str(error), error.next_step), *findings]
    if not env_file.is_file():
        findings.append(note("settings", f"there is no {env_file}: the defaults hold", "make setup"))
    origin = settings.origins["DATABASE_PATH"]
    return settings, [
        ok("settings", f"DATABASE_PATH={settings.database_path} (from {origin})"),
        check_key(settings),
        *findings,
    ]


def check_agreement(environment: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    """DATABASE_PATH in a forgotten shell variable wins over the `.env` that the user looks at."""
    here = environment.get("DATABASE_PATH") or ""
    there = (
        (dotenv_values(env_file, interpolate=False).get("DATABASE_PATH") or "") if env_file.is_file() else ""
    )
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
            yield wrong("settings", f"DATABASE_PATH={there} (in {env_file}) {error}", "change DATABASE_PATH")


def check_key(settings: Settings) -> Finding:
    """Whether there is one; its text is nowhere shown."""
    for name in ("POLYGON_API_KEY", "MASSIVE_API_KEY"):
        if settings.origins[name] != "default":
            return ok("key", f"{name} is set (from {settings.origins[name]})")
    return note("key", "no API key is set: no market data can be fetched", "write POLYGON_API_KEY into .env")


def find_other_databases(database: Path | None, folders: Mapping[Path, int]) -> list[Finding]:
    """Databases of the same name nearby: a relative DATABASE_PATH makes one in every folder that a program is
    started from. `folders`: where to look -> how many levels below."""
    name = database.name if database else Path(PARSERS["DATABASE_PATH"][0]).name
    found = {path.resolve() for folder, depth in folders.items() for path in search(folder, name, depth)}
    return [
        wrong(
            "other databases",
            f"{path} ({format_bytes(path.stat().st_size)}) is not the database in use",
            f"look what is in it: DATABASE_PATH='{path}' make status; then move it away",
        )
        for path in sorted(found)
        if database is None or not same_file(path, database)
    ]


def search(folder: Path, name: str, depth: int) -> Iterator[Path]:
    """Files of this name in `folder` and `depth` levels below; folders that may not be read are passed over."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name == name and entry.is_file():
            yield entry
        elif depth and entry.name not in NOT_SEARCHED and entry.is_dir() and not entry.is_symlink():
            yield from search(entry, name, depth - 1)
