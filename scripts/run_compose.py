#!/usr/bin/env python3
"""Call `docker compose` with what the compose file cannot work out: folders, owner and time zone of
the host."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backtestdb import console
from backtestdb.config import PROJECT_DIR, Settings, load_settings
from backtestdb.errors import DatabaseFileError, ProjectError
from backtestdb.scheduling.health import remove_liveness

USE_HOST_SCHEDULE = (
    "start Docker, or let this machine's own schedule make the backups: make schedule-install"
)
INSTALL_COMPOSE = (
    "install docker-compose-plugin (Debian: docker-compose), or use make schedule-install"
)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(f"{__doc__}\n\nusage: run_compose.py ARGUMENTS OF docker compose", flush=True)
        return console.DONE
    settings = load_settings()
    verify_engine()
    if arguments[0] in {"up", "run"}:
        prepare_folders(settings)
        prepare_offsite(settings)
    command = ["docker", "compose", "--project-directory", str(PROJECT_DIR), *arguments]
    variables = make_variables(settings) | make_offsite_variables(settings)
    if arguments[0] == "down":
        # What once ran goes, whatever is set now.
        variables["COMPOSE_PROFILES"] = "update,offsite"
    code = subprocess.run(command, env=os.environ | variables, check=False).returncode
    if arguments[0] == "down" and code == 0:
        remove_liveness(settings.backup_dir, settings.database_path)
    return code


def verify_engine() -> None:
    """Raise ProjectError unless a container engine answers."""
    if not shutil.which("docker"):
        raise ProjectError("there is no docker command on PATH", next_step=USE_HOST_SCHEDULE)
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = asked.stderr.strip().splitlines()[-1:]
        raise ProjectError(
            f"no container engine answers: {''.join(reason)}", next_step=USE_HOST_SCHEDULE
        )
    # The plugin is a package of its own; without it docker takes --project-directory for a flag it
    # does not know.
    if subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    ).returncode:
        raise ProjectError("docker is there without its compose plugin", next_step=INSTALL_COMPOSE)


def prepare_folders(settings: Settings) -> None:
    """Create the folders that are mounted: the engine would create a missing one for root, or
    refuse to."""
    folder = settings.database_path.parent
    if not folder.is_dir():
        raise DatabaseFileError(
            f"the folder of DATABASE_PATH, {folder}, is missing", next_step="change DATABASE_PATH"
        )
    for made in (settings.backup_dir, settings.state_dir):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    for scripts in settings.generated_scripts_dirs:
        if not scripts.is_dir() or scripts.resolve().is_relative_to(folder.resolve()):
            continue
        console.say(
            f"warning: the sidecar sees {folder} only, and GENERATED_SCRIPTS_DIR {scripts} lies "
            "elsewhere: its "
            "backups will hold no generated scripts. Mount that folder in a "
            "docker-compose.override.yml, "
            "or use make schedule-install"
        )


def make_variables(settings: Settings) -> dict[str, str]:
    """Return the variables of docker-compose.yml: paths, profiles, user and time zone."""
    return {
        "PWD": str(PROJECT_DIR),
        "DATABASE_PATH": str(settings.database_path),
        "DATABASE_DIR": str(settings.database_path.parent),
        "BACKUP_DIR": str(settings.backup_dir),
        "COMPOSE_PROFILES": choose_profiles(settings),
        "SIDECAR_STATE_DIR": str(settings.state_dir),
        # Empty: the compose file's default, beside the database, because the project is not in the
        # container.
        "GENERATED_SCRIPTS_DIR": ""
        if settings.scripts_dirs_are_default
        else ":".join(map(str, settings.generated_scripts_dirs)),
        "SIDECAR_USER": settings.sidecar_user or f"{os.getuid()}:{os.getgid()}",
        "SIDECAR_TZ": settings.sidecar_zone or find_time_zone(),
    }


def choose_profiles(settings: Settings) -> str:
    """Return the containers of market data and of copies off the machine only where they have
    something to do; what the user's environment says wins."""
    wanted = []
    if settings.api_key and settings.update_delay_minutes is not None:
        wanted.append("update")
    if settings.offsite:
        wanted.append("offsite")
    return os.environ.get("COMPOSE_PROFILES", ",".join(wanted))


def prepare_offsite(settings: Settings) -> None:
    """Write keys and passphrase as files that only the container's user reads: docker inspect shows
    its environment. Raise ProjectError when the folder of OFFSITE is not there."""
    if not settings.offsite:
        return
    if settings.offsite.startswith("/") and not Path(settings.offsite).is_dir():
        raise ProjectError(
            f"the folder OFFSITE={settings.offsite} is not there",
            next_step="connect its disk, or make offsite-init",
        )
    folder = secrets_folder(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secrets = {
        "key_id": settings.offsite_key_id,
        "secret": settings.offsite_secret,
        "passphrase": settings.offsite_passphrase,
    }
    for name, value in secrets.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)
    if os.getuid() == 0 and settings.sidecar_user:
        # Root may start a container of another user, who has to read them.
        user, _, group = settings.sidecar_user.partition(":")
        for path in (folder, *folder.iterdir()):
            os.chown(path, int(user), int(group or user))


def secrets_folder(settings: Settings) -> Path:
    return settings.state_dir / "offsite-secrets"


def make_offsite_variables(settings: Settings) -> dict[str, str]:
    """Return the variables of the offsite container without key and passphrase: these are in
    files."""
    if not settings.offsite:
        return {}
    return {
        "OFFSITE": settings.offsite,
        "OFFSITE_ENDPOINT": settings.offsite_endpoint,
        "OFFSITE_EVERY_SECONDS": str(settings.offsite_every_seconds),
        "OFFSITE_SECRETS_DIR": str(secrets_folder(settings)),
        "OFFSITE_FOLDER": settings.offsite if settings.offsite.startswith("/") else "",
    }


def find_time_zone() -> str:
    """Return the name of this machine's zone: /etc/localtime is a link into the zones' folder, on
    macOS as on Linux."""
    found = re.search(r"/zoneinfo[^/]*/(.+)", os.path.realpath(Path("/etc/localtime")))
    return found[1] if found else os.environ.get("TZ") or "UTC"


if __name__ == "__main__":
    console.run(main)
