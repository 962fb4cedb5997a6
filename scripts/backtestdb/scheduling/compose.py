"""Before and after compose: what it is told, may the container write, what does it say."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from backtestdb import console
from backtestdb.backups.backup_dir import ensure_backup_dir
from backtestdb.backups.forecast import warn_of_full_disk
from backtestdb.backups.known_folders import MARK_NAME, remember_folder
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.errors import DatabaseFileError, ProjectError
from backtestdb.scheduling.compose_command import (
    ask_docker,
    compose,
    find_compose,
    list_containers,
)
from backtestdb.scheduling.offsite_container import make_offsite_variables, prepare_offsite
from backtestdb.scheduling.sidecar import (
    Owner,
    choose_profiles,
    give_to,
    is_of_this_project,
    make_project_name,
    make_variables,
    outside_of_block,
    put_into_env_text,
)

SHOWN_LINES = 3
# Without a shell of Python's own, which that user may not be allowed to read.
PROBE = 'file="./.write-probe-$$"; : >"$file" && rm "$file"'


def prepare_folders(settings: Settings, owner: Owner) -> None:
    """Create what is mounted, as the owner's. Raise ProjectError for a folder that the container's
    user may not write to."""
    folder = settings.database_path.parent
    if not folder.is_dir():
        raise DatabaseFileError(
            f"the folder of DATABASE_PATH, {folder}, is missing", next_step="change DATABASE_PATH"
        )

    # The engine would create a missing folder for root, or refuse to.
    make_folder(settings.state_dir, owner)
    make_backup_folder(settings, owner)
    for place in (settings.backup_dir, folder):
        verify_writable(place, owner)

    remember_folder(settings.database_path, settings.backup_dir)
    give_to(owner, [settings.backup_dir / MARK_NAME])
    if warning := warn_of_full_disk(settings):
        console.say(warning)
    prepare_offsite(settings, owner)

    for scripts in settings.generated_scripts_dirs:
        if not scripts.is_dir() or scripts.resolve().is_relative_to(folder.resolve()):
            continue
        console.say(
            f"warning: the sidecar sees {folder} only, and GENERATED_SCRIPTS_DIR {scripts} lies "
            "elsewhere: its backups will hold no generated scripts. Mount that folder in a "
            "docker-compose.override.yml, or use make schedule-install"
        )


def make_backup_folder(settings: Settings, owner: Owner) -> None:
    """Make BACKUP_DIR, as the owner's. Raise AbsentDiskError where its disk is absent: the
    container would write below the place of it."""
    missing = [
        path for path in (settings.backup_dir, *settings.backup_dir.parents) if not path.exists()
    ]
    ensure_backup_dir(settings.backup_dir, settings.database_path)
    give_to(owner, missing)


def make_folder(folder: Path, owner: Owner) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    give_to(owner, missing)


def verify_writable(folder: Path, owner: Owner) -> None:
    """Try to write as the container's user will; only root can try that for another user. Raise
    ProjectError."""
    if os.geteuid() not in {0, owner.user}:
        return
    identity = {"user": owner.user, "group": owner.group} if os.geteuid() == 0 else {}
    groups: dict[str, list[int]] = {"extra_groups": []} if identity else {}

    tried = subprocess.run(
        ["/bin/sh", "-c", PROBE],
        capture_output=True,
        check=False,
        cwd=folder,  # entered as root: in the container no folder above has to be passed
        **identity,  # type: ignore[call-overload]
        **groups,
    )
    if tried.returncode:
        raise ProjectError(
            f"the container's user {owner} may not write to {folder}",
            next_step=f"sudo chown {owner} '{folder}', or set SIDECAR_USER in .env to its owner",
        )


def verify_database(settings: Settings) -> None:
    """Raise DatabaseFileError where there is none: the container would wait for its first backup
    until it is called unhealthy."""
    if not settings.database_path.is_file():
        raise DatabaseFileError(
            f"there is no database at {settings.database_path}, so nothing to back up",
            next_step="make restore, or make restore-from-backup, then make sidecar-up",
        )


def make_environment(settings: Settings, owner: Owner) -> dict[str, str]:
    """Return the variables of the compose file. What the user says of the project's name and
    profiles, in the environment or in `.env`, wins."""
    engine = ask_docker("info", "--format", "{{.OperatingSystem}}")
    own = outside_of_block(read_env_text())
    computed = {
        "COMPOSE_PROJECT_NAME": make_project_name(PROJECT_DIR),
        "COMPOSE_PROFILES": choose_profiles(settings),
        "COMPOSE_FILE": find_compose().files,
    }
    chosen = {
        name: value
        for name, value in computed.items()
        if name not in os.environ and f"\n{name}=" not in f"\n{own}"
    }

    return {
        "DATABASE_PATH": str(settings.database_path),
        "BACKUP_DIR": str(settings.backup_dir),
        "NOTIFY_URLS": " ".join(settings.notify_urls),
        **make_variables(settings, owner, engine),
        **make_offsite_variables(settings),
        **chosen,
    }


def env_path() -> Path:
    return Path(os.environ.get("BACKTEST_ENV_FILE") or PROJECT_DIR / ".env")


def read_env_text() -> str:
    try:
        return env_path().read_text(encoding="utf-8")
    except OSError:
        return ""


def keep_for_compose(variables: dict[str, str]) -> None:
    """Write them into `.env`, so that compose by hand means the same container."""
    path = env_path()
    if not path.is_file():
        return

    names = (
        "DATABASE_DIR",
        "COMPOSE_PROJECT_NAME",
        "COMPOSE_PROFILES",
        "COMPOSE_FILE",
        "OFFSITE_SECRETS_DIR",
        "OFFSITE_FOLDER",
    )

    kept = {
        name: value
        for name, value in variables.items()
        if name.startswith("SIDECAR_") or name in names
    }
    text = put_into_env_text(read_env_text(), kept)
    if text != read_env_text():
        replace_text(path.resolve(), text)


def replace_text(path: Path, text: str) -> None:
    """Put the text in its place in one step, with its owner and mode."""
    state = path.stat()
    arriving = path.with_name(path.name + ".arriving")
    arriving.unlink(missing_ok=True)
    descriptor = os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL, state.st_mode & 0o777)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        # Under sudo, too, `.env` is the user's.
        if os.geteuid() == 0:
            os.fchown(file.fileno(), state.st_uid, state.st_gid)
    arriving.replace(path)


def remove_earlier_projects(variables: dict[str, str]) -> None:
    """Remove the containers of releases that named the project after the folder alone."""
    name = variables.get("COMPOSE_PROJECT_NAME")
    if not name:
        return
    label = "com.docker.compose.project"
    listed = ask_docker(
        "ps",
        "--all",
        "--filter",
        f"label={label}.working_dir={PROJECT_DIR}",
        "--format",
        "{{json .}}",
    )
    projects = set()

    for line in listed.splitlines():
        with suppress(ValueError):
            labels = dict(
                part.partition("=")[::2] for part in json.loads(line)["Labels"].split(",")
            )
            if is_of_this_project(labels.get(f"{label}.working_dir", "")):
                projects.add(labels.get(label, ""))

    # Beside the new ones, two loops would share one database.
    for project in sorted(projects - {name, ""}):
        console.say(f"removing the containers of {project}, as this project was called before")
        compose(variables | {"COMPOSE_PROJECT_NAME": project}, "down")


def show_why_not(variables: dict[str, str]) -> None:
    """Print the last health output and log lines: the engine says `is unhealthy` and no more."""
    for container in list_containers(variables, "--all"):
        template = "{{.Name}}|{{json .State}}"
        name, _, state = ask_docker("inspect", "--format", template, container).partition("|")
        with suppress(ValueError):
            show_container(name.lstrip("/"), json.loads(state), container)


def show_container(name: str, state: dict[str, object], container: str) -> None:
    """Print how one container is, in the words of `docker inspect` and of its log."""
    health = state.get("Health")
    probes = health.get("Log") or [] if isinstance(health, dict) else []
    console.say(f"{name}: {state.get('Status')}, exit code {state.get('ExitCode')}")
    if probes:
        console.say(f"{name}: health: {str(probes[-1].get('Output', '')).strip()}")

    done = subprocess.run(
        ["docker", "logs", "--tail", str(SHOWN_LINES), container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    for line in done.stdout.splitlines():
        console.say(f"{name}: {line}")
