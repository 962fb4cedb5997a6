"""Settings, read here and nowhere else: the environment first, then `.env`."""

import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backtestdb.env_file import read_env_file, verify_names
from backtestdb.errors import SettingsError

PROJECT_DIR = Path(__file__).resolve().parents[2]
SCRIPTS_FOLDER = "claude-generated-scripts"
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}
ADDRESS_BREAK = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, checked. `origins` tells where each came from: environment, the file, default.
    `database_link`: what DATABASE_PATH says, where that is a symbolic link to `database_path`."""

    database_path: Path
    backup_dir: Path
    generated_scripts_dirs: tuple[Path, ...]
    generated_scripts_max_megabytes: int
    max_backups: int
    keep_full_weekly: int
    keep_full_monthly: int
    keep_small_hourly: int
    keep_small_daily: int
    keep_small_weekly: int
    keep_small_monthly: int
    min_backups: int
    backup_time: time
    irreplaceable_every_minutes: int
    heartbeat_url: str = field(repr=False)
    notify_urls: tuple[str, ...] = field(repr=False)
    before_backup: str
    after_backup: str
    on_failure: str
    api_key: str = field(repr=False)
    base_url: str
    requests_per_minute: int
    concurrency: int
    timeout_seconds: float
    watchlist_tickers: tuple[str, ...]
    us_stock_types: tuple[str, ...]
    platform_schema: Path | None
    update_delay_minutes: int | None
    port: int
    offsite: str
    offsite_endpoint: str
    offsite_key_id: str = field(repr=False)
    offsite_secret: str = field(repr=False)
    offsite_passphrase: str = field(repr=False)
    offsite_every_seconds: int
    sidecar_user: str
    sidecar_zone: str
    lake: str
    lake_endpoint: str
    lake_region: str
    lake_access_key: str = field(repr=False)
    lake_secret_key: str = field(repr=False)
    flatfiles_endpoint: str
    flatfiles_bucket: str
    flatfiles_access_key: str = field(repr=False)
    flatfiles_secret: str = field(repr=False)
    engine: str
    state_dir: Path
    origins: Mapping[str, str]
    database_link: Path | None = None

    @property
    def scripts_dirs_are_default(self) -> bool:
        """Return whether the user named no folder of scripts. The sidecar's default is
        beside the database, because the project is not in the container."""
        beside = self.database_path.parent / SCRIPTS_FOLDER
        return self.origins[
            "GENERATED_SCRIPTS_DIR"
        ] == "default" or self.generated_scripts_dirs == (beside,)


def parse_absolute_path(text: str) -> Path:
    """Given a path, return it with `~` expanded. Raise ValueError for a relative one."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~ and a user that this machine does not have") from None
    # A relative path would name another file from every folder.
    if not path.is_absolute():
        raise ValueError("is a relative path; write it absolute, beginning with / or ~")
    return path


def parse_absolute_paths(text: str) -> tuple[Path, ...]:
    """Given one folder, or several with a colon between them, return each once."""
    paths = [parse_absolute_path(part.strip()) for part in text.split(":") if part.strip()]
    if not paths:
        raise ValueError("names no folder")
    return tuple(
        path
        for path in dict.fromkeys(paths)
        # A folder inside another of them is part of that one.
        if not any(path != other and path.is_relative_to(other) for other in paths)
    )


def follow_link(path: Path) -> Path:
    """Return the file that a symbolic link leads to: SQLite puts -wal and -journal beside that one,
    so everything here has to look there. A link that leads nowhere stays itself; commands then say
    that its disk is not there."""
    return path.resolve() if path.is_symlink() and os.path.exists(path) else path  # noqa: PTH110  never raises


def parse_optional_path(text: str) -> Path | None:
    return parse_absolute_path(text) if text else None


def parse_integer(minimum: int, maximum: int = 1_000_000) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not WHOLE_NUMBER.fullmatch(text.strip()) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def parse_delay(text: str) -> int | None:
    return None if text.strip() == OFF else parse_integer(0, 1440)(text)


def parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError("must be a number of seconds above 0 and up to 3600")
    return seconds


def parse_local_time(text: str) -> time:
    try:
        hours, minutes = text.split(":")
        return time(int(hours), int(minutes))
    except ValueError as error:
        raise ValueError("must be a time of day such as 02:00") from error


def parse_tickers(text: str) -> tuple[str, ...]:
    """Return tickers that commas separate, each once, as written: tickers are case-sensitive."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_url(text: str) -> str:
    """Return the vendor's address. Raise ValueError for plain http outside this machine."""
    # Plain http would show the key, which travels in a header.
    url = urlsplit(text.strip())
    if (url.scheme == "https" and url.hostname) or (
        url.scheme == "http" and url.hostname in LOOPBACK_HOSTS
    ):
        return text.strip().rstrip("/")
    raise ValueError("must begin with https:// (http:// only on 127.0.0.1)")


def parse_watcher(text: str) -> str:
    """Return the address of a watcher; plain http too: it may be in the user's own network."""
    address = text.strip()
    url = urlsplit(address)
    if address and (url.scheme not in {"https", "http"} or not url.hostname or " " in address):
        raise ValueError("must be an address such as https://hc-ping.com/…")
    return address


def parse_addresses(text: str) -> tuple[str, ...]:
    """Return Apprise addresses, one a line or with a comma or blank between them. A comma may also
    be part of an address, so it separates only before the next scheme."""
    parts = tuple(part for part in ADDRESS_BREAK.split(text.strip()) if part)
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", part) for part in parts):
        raise ValueError("must be Apprise addresses such as mailto://user:pass@example.org")
    return parts


def parse_user_and_group(text: str) -> str:
    user, _, group = text.partition(":")
    if text and not (user.isdigit() and group.isdigit()):
        raise ValueError("must be two numbers such as 1000:1000")
    return text


def parse_text(text: str) -> str:
    return text.strip()


def parse_key(text: str) -> str:
    """Return a key of visible ASCII; any other would fail deep inside of the first request."""
    key = text.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            "holds a blank or a character that no key has; copy it from the vendor's page again"
        )
    return key


def parse_lake(text: str) -> str:
    """Return a folder of this machine, or s3://bucket/folder; empty: there is no lake."""
    if not text.strip():
        return ""
    if text.startswith("s3://"):
        if not urlsplit(text).netloc:
            raise ValueError("names no bucket; write it like s3://bucket/lake")
        return text.rstrip("/")
    return str(parse_absolute_path(text))


def parse_engine(text: str) -> str:
    """Return where `make lake-metrics` computes."""
    url = urlsplit(text.strip())
    if text != "processes" and not (url.scheme in {"tcp", "tls"} and url.hostname):
        raise ValueError("must be processes, or a Dask scheduler such as tcp://10.0.0.5:8786")
    return text.strip()


def parse_offsite(text: str) -> str:
    """Return the target's address, which holds no secret, so that messages can show it."""
    address = text.strip().rstrip("/")
    if not address:
        return ""
    if address.startswith("s3://"):
        parts = urlsplit(address)
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "must be s3://bucket/prefix; keys go into OFFSITE_KEY_ID and OFFSITE_SECRET"
            )
        return address

    if "://" in address:
        raise ValueError(
            "must be s3://bucket/prefix or the absolute path of a folder on another disk"
        )

    return str(parse_absolute_path(address))


def parse_endpoint(text: str) -> str:
    """Return the address of an S3 server, empty for AWS."""
    address = text.strip().rstrip("/")
    url = urlsplit(address)
    # Plain http is taken in the user's own network: what goes offsite is sealed before it is sent,
    # the lake is no secret, and keys never travel, only signatures do.
    if address and (url.scheme not in {"https", "http"} or not url.hostname or "@" in url.netloc):
        raise ValueError(
            "must begin with https:// (or http:// in your own network) and hold no password"
        )
    return address


def parse_passphrase(text: str) -> str:
    """Return a passphrase of 12 characters or more, safe where a guess costs scrypt a second."""
    if text and len(text.strip()) < 12:
        raise ValueError("is shorter than 12 characters")
    return text.strip()


PARSERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DATABASE_PATH": (str(PROJECT_DIR / "backtesting.db"), parse_absolute_path),
    "BACKUP_DIR": ("~/Backups/ai-backtest", parse_absolute_path),
    "GENERATED_SCRIPTS_DIR": (str(PROJECT_DIR / SCRIPTS_FOLDER), parse_absolute_paths),
    "GENERATED_SCRIPTS_MAX_MB": ("1024", parse_integer(1)),
    "MAX_BACKUPS": ("30", parse_integer(1)),
    "KEEP_FULL_WEEKLY": ("4", parse_integer(0)),
    "KEEP_FULL_MONTHLY": ("3", parse_integer(0)),
    "KEEP_SMALL_HOURLY": ("336", parse_integer(0)),
    "KEEP_SMALL_DAILY": ("60", parse_integer(0)),
    "KEEP_SMALL_WEEKLY": ("52", parse_integer(0)),
    "KEEP_SMALL_MONTHLY": ("120", parse_integer(0)),
    "MIN_BACKUPS": ("7", parse_integer(1)),
    "BACKUP_TIME": ("02:00", parse_local_time),
    "IRREPLACEABLE_EVERY_MINUTES": ("60", parse_integer(0)),
    "HEARTBEAT_URL": ("", parse_watcher),
    "NOTIFY_URLS": ("", parse_addresses),
    "BEFORE_BACKUP": ("", parse_text),
    "AFTER_BACKUP": ("", parse_text),
    "ON_FAILURE": ("", parse_text),
    "POLYGON_API_KEY": ("", parse_key),
    "MASSIVE_API_KEY": ("", parse_key),
    "POLYGON_BASE_URL": ("https://api.massive.com", parse_url),
    "POLYGON_REQUESTS_PER_MINUTE": ("5", parse_integer(0)),
    "POLYGON_CONCURRENCY": ("0", parse_integer(0)),
    "POLYGON_TIMEOUT_SECONDS": ("30", parse_seconds),
    "WATCHLIST_TICKERS": ("", parse_tickers),
    "US_STOCK_TYPES": ("CS,ADRC,PFD", parse_tickers),
    "PLATFORM_SCHEMA": ("", parse_optional_path),
    "UPDATE_DELAY_MINUTES": ("30", parse_delay),
    "PORT": ("3000", parse_integer(1, 65535)),
    "OFFSITE": ("", parse_offsite),
    "OFFSITE_ENDPOINT": ("", parse_endpoint),
    "OFFSITE_KEY_ID": ("", parse_key),
    "OFFSITE_SECRET": ("", parse_key),
    "OFFSITE_PASSPHRASE": ("", parse_passphrase),
    "OFFSITE_EVERY_SECONDS": ("30", parse_integer(1, 3600)),
    "SIDECAR_USER": ("", parse_user_and_group),
    "SIDECAR_TZ": ("", parse_text),
    "LAKE": ("", parse_lake),
    "LAKE_ENDPOINT": ("", parse_endpoint),
    "LAKE_REGION": ("us-east-1", parse_text),
    "LAKE_ACCESS_KEY": ("", parse_key),
    "LAKE_SECRET_KEY": ("", parse_key),
    "FLATFILES_ENDPOINT": ("https://files.massive.com", parse_url),
    "FLATFILES_BUCKET": ("flatfiles", parse_text),
    "FLATFILES_ACCESS_KEY": ("", parse_key),
    "FLATFILES_SECRET": ("", parse_key),
    "ENGINE": ("processes", parse_engine),
}
# Fields of Settings that are not called like the setting, see field_of.
OTHER_FIELDS = {
    "GENERATED_SCRIPTS_DIR": "generated_scripts_dirs",
    "GENERATED_SCRIPTS_MAX_MB": "generated_scripts_max_megabytes",
    "SIDECAR_TZ": "sidecar_zone",
}
# Read when the new name is empty: what an older .env calls it.
OLDER_NAMES = {"KEEP_SMALL_HOURLY": "MAX_IRREPLACEABLE_BACKUPS"}
SECRETS = {
    *("POLYGON_API_KEY", "MASSIVE_API_KEY", "HEARTBEAT_URL", "NOTIFY_URLS"),
    *("OFFSITE_KEY_ID", "OFFSITE_SECRET", "OFFSITE_PASSPHRASE"),
    *("LAKE_ACCESS_KEY", "LAKE_SECRET_KEY", "FLATFILES_ACCESS_KEY", "FLATFILES_SECRET"),
}
# Everywhere else an empty value means the default.
OFF, OFF_WHEN_EMPTY = "off", {"UPDATE_DELAY_MINUTES"}
# What `make sidecar-up` works out and writes into .env, for `docker compose` by hand.
WORKED_OUT = {
    *("DATABASE_DIR", "SIDECAR_BACKUPS", "SIDECAR_BELOW", "SIDECAR_PROPAGATION"),
    *("SIDECAR_OWNER", "SIDECAR_ZONE", "SIDECAR_STATE_DIR", "SIDECAR_EXTRA", "SIDECAR_SCRIPTS"),
    *("OFFSITE_FOLDER", "OFFSITE_SECRETS_DIR"),
}
# NAME_FILE names a file that holds the value: a container's secret, a file only its owner reads.
FROM_FILES = (
    *("POLYGON_API_KEY", "MASSIVE_API_KEY", "HEARTBEAT_URL", "NOTIFY_URLS"),
    *("OFFSITE", "OFFSITE_ENDPOINT", "OFFSITE_KEY_ID", "OFFSITE_SECRET", "OFFSITE_PASSPHRASE"),
)


def load_settings(
    environment: Mapping[str, str] = os.environ, env_file: Path | None = None
) -> Settings:
    """Given the environment and the `.env` file, return the settings.

    An empty value means the default, or off (OFF_WHEN_EMPTY). Raise SettingsError with name, value,
    origin and rule; the value of a secret is never part of it.
    """
    env_file = env_file or Path(environment.get("BACKTEST_ENV_FILE") or PROJECT_DIR / ".env")
    from_file = read_env_file(env_file)
    verify_names(from_file, known_names(), env_file)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    for name, (default, parse) in PARSERS.items():
        text, origin = find_value(name, environment, from_file, env_file)
        if not text:
            text, origin = default, "default"
        try:
            values[name] = parse(with_home_of_user(text, environment))
        except ValueError as error:
            shown = "" if name in SECRETS else f"={text}"
            raise SettingsError(
                f"{name}{shown} (from {origin}) {error}", next_step=f"change {name}"
            ) from None
        origins[name] = origin

    return make_settings(values, origins, find_state_home(environment) / "ai-backtest")


def known_names() -> set[str]:
    """Return what may stand in `.env`: settings, their older names, and names for files of them."""
    return {
        *(*PARSERS, *OLDER_NAMES.values()),
        *(f"{name}_FILE" for name in PARSERS),
        *("BACKTEST_ENV_FILE", "TZ"),
        *WORKED_OUT,
    }


def with_home_of_user(text: str, environment: Mapping[str, str]) -> str:
    """Given a path, return it with the `~` of the user who typed sudo."""
    # Backups in root's home would be missed by all.
    number = environment.get("SUDO_UID", "")
    if not text.startswith(("~/", "~")) or text[1:2] not in {"", "/"} or os.geteuid() != 0:
        return text
    try:
        return pwd.getpwuid(int(number)).pw_dir + text[1:]
    except (KeyError, ValueError):
        return text


def find_value(
    name: str, environment: Mapping[str, str], from_file: Mapping[str, str | None], env_file: Path
) -> tuple[str, str]:
    """Return the text of a setting and where it came from, under its name or an older one; empty
    when it is set nowhere."""
    for known_as in (name, OLDER_NAMES.get(name, name)):
        for values, origin in ((environment, "the environment"), (from_file, str(env_file))):
            if text := values.get(known_as):
                return text, origin
            if name in OFF_WHEN_EMPTY and name in values:
                return OFF, origin
            if name in FROM_FILES and (path := values.get(f"{name}_FILE")):
                return read_value_file(f"{name}_FILE", Path(path), origin), path
    return "", ""


def read_value_file(name: str, path: Path, origin: str) -> str:
    """Return the only line of a file; a line's end that an editor added is no part of the value."""
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"{name}={path} (from {origin}) cannot be read: {reason}", next_step=f"change {name}"
        ) from None


def find_state_home(environment: Mapping[str, str]) -> Path:
    """Return the folder of the XDG base directory specification, which ignores a relative path: it
    would give every folder a quota of its own."""
    state_home = Path(environment.get("XDG_STATE_HOME", ""))
    return state_home if state_home.is_absolute() else Path.home() / ".local" / "state"


def make_settings(
    values: Mapping[str, Any], origins: Mapping[str, str], state_dir: Path
) -> Settings:
    """Given one parsed value for each name in PARSERS, return the settings."""
    fields = {field_of(name): value for name, value in values.items()}
    other_key = fields.pop("massive_api_key")
    fields["api_key"] = fields["api_key"] or other_key

    slow_plan = 0 < fields["requests_per_minute"] <= 100
    fields["concurrency"] = fields["concurrency"] or (1 if slow_plan else 8)

    path = fields["database_path"]
    fields["database_path"] = follow_link(path)
    return Settings(
        **fields,
        database_link=path if path.is_symlink() else None,
        state_dir=state_dir,
        origins=origins,
    )


def field_of(name: str) -> str:
    """Return the field of Settings for a name: POLYGON_BASE_URL is `base_url`."""
    return OTHER_FIELDS.get(name) or name.lower().removeprefix("polygon_")
