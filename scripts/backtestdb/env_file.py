"""The file `.env`: read whole or not at all, and no name in it that nothing reads."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

from dotenv.parser import parse_stream

from backtestdb.errors import SettingsError

# As alike as DATABSE_PATH and DATABASE_PATH. Settings of other programs may stand in the same file.
ALIKE = 0.85


def read_env_file(env_file: Path) -> Mapping[str, str | None]:
    """Name -> text, nothing put in for $NAME. Raise SettingsError when a line cannot be read."""
    if not env_file.is_file():
        return {}
    try:
        with env_file.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8 text", next_step="save it as UTF-8") from None

    for binding in bindings:
        # Passed over, its setting would be the default, and another database be in use.
        if binding.error:
            line = (
                binding.original.line
                + len(binding.original.string)
                - len(binding.original.string.lstrip("\n"))
            )
            # The line itself may hold a key, and is not shown.
            raise SettingsError(
                f"line {line} of {env_file} is no NAME=VALUE: perhaps a quote is not closed",
                next_step=f"mend that line: ${{EDITOR:-vi}} +{line} {quote(str(env_file))}",
            )

    return {binding.key: binding.value for binding in bindings if binding.key}


def verify_names(names: Iterable[str], known: Collection[str], env_file: Path) -> None:
    """Raise SettingsError for a name that nothing reads and that nearly is an unset setting."""
    for name, setting in find_misspelt(names, known).items():
        raise SettingsError(
            f"{name} in {env_file} is read by nothing: the setting is called {setting}",
            next_step=f"write {setting} instead of {name}",
        )


def find_misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return for each unknown name the setting that it nearly is, unless that is set too."""
    given = set(names)
    found = {}

    for name in sorted(given - set(known)):
        near = get_close_matches(
            name.upper(), [one for one in known if one not in given], n=1, cutoff=ALIKE
        )
        if near and not name.startswith("COMPOSE_"):
            found[name] = near[0]
    return found


def find_unknown(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return names of nothing that this project or Docker Compose reads."""
    return sorted(name for name in set(names) - set(known) if not name.startswith("COMPOSE_"))
