"""The compose that this machine has: docker's plugin, or docker-compose 1.28 and later, the only
one in the packages of Debian 12, whose engine is Docker 20.10."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

from backtestdb.config import PROJECT_DIR
from backtestdb.errors import ProjectError

USE_HOST_SCHEDULE = (
    "start Docker, or let this machine's own schedule make the backups: make schedule-install"
)
INSTALL_COMPOSE = (
    "install docker-compose-plugin (Debian, Ubuntu: docker-compose), or use make schedule-install"
)
# The first that knows profiles, which keep services that have nothing to do from being started.
OLDEST_VERSION = (1, 28)
MAIN_FILE = "docker-compose.yml"
NO_NEW_FOLDERS_FILE = "docker-compose.no-new-folders.yml"
USERS_FILE = "docker-compose.override.yml"


@dataclass(frozen=True)
class Compose:
    """`words`: how it is called. `is_first`: whether it is docker-compose 1, which does not know
    `up --wait` and the words of NO_NEW_FOLDERS_FILE."""

    words: tuple[str, ...]
    is_first: bool

    @property
    def files(self) -> str:
        """Return COMPOSE_FILE, with names inside the project's folder."""
        added = [] if self.is_first else [NO_NEW_FOLDERS_FILE]
        users = [USERS_FILE] if (PROJECT_DIR / USERS_FILE).exists() else []
        return ":".join([MAIN_FILE, *added, *users])


def verify_engine() -> None:
    """Raise ProjectError unless a container engine answers, and compose is there."""
    if not shutil.which("docker"):
        raise ProjectError("there is no docker command on PATH", next_step=USE_HOST_SCHEDULE)
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = asked.stderr.strip().splitlines()[-1:]
        raise ProjectError(
            f"no container engine answers: {''.join(reason)}", next_step=USE_HOST_SCHEDULE
        )
    find_compose()


def find_compose() -> Compose:
    """Return the plugin, else docker-compose. Raise ProjectError where neither is there."""
    # Without it docker would take --project-directory for a flag that it does not know.
    if ask("docker", "compose", "version"):
        return Compose(("docker", "compose"), is_first=False)

    found = shutil.which("docker-compose")
    said = ask(found, "version", "--short") if found else ""
    numbers = re.match(r"v?(\d+)\.(\d+)", said)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if found and version >= OLDEST_VERSION:
        return Compose((found,), is_first=version < (2, 0))

    what = f"without its compose plugin{f', and docker-compose {said} is too old' if said else ''}"
    raise ProjectError(f"docker is there {what}", next_step=INSTALL_COMPOSE)


def compose(variables: dict[str, str], *arguments: str) -> int:
    """Run it in the project's folder, where the names of COMPOSE_FILE are. Return its exit code."""
    found = find_compose()
    waits_here = found.is_first and arguments[0] == "up" and "--wait" in arguments
    passed = [each for each in arguments if not (waits_here and each == "--wait")]

    code = subprocess.run(
        [*found.words, "--project-directory", str(PROJECT_DIR), *passed],
        env=os.environ | variables,
        cwd=PROJECT_DIR,
        check=False,
    ).returncode
    return code or (wait_until_healthy(variables) if waits_here else 0)


def list_containers(variables: dict[str, str], *options: str) -> list[str]:
    """Return the ids of the project's containers."""
    command = (*find_compose().words, "--project-directory", str(PROJECT_DIR), "ps", "--quiet")
    return ask(*command, *options, variables=variables).split()


def wait_until_healthy(variables: dict[str, str]) -> int:
    """Return what `up --wait` does: 0 when all are healthy, 1 when a container is unhealthy or
    ends."""
    containers = list_containers(variables)
    template = "{{.State.Status}} {{.State.Health.Status}}"
    # After its start period a container is one or the other.
    while states := ask_docker("inspect", "--format", template, *containers).splitlines():
        if set(states) == {"running healthy"}:
            return 0
        if set(states) - {"running healthy", "running starting", "created starting"}:
            return 1
        time.sleep(1)
    return 1


def ask_docker(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """Return what docker prints; empty where it fails."""
    return ask("docker", *arguments, variables=variables)


def ask(*command: str, variables: dict[str, str] | None = None) -> str:
    """Return what a command prints, in the project's folder; empty where it fails."""
    done = subprocess.run(
        command,
        env=os.environ | (variables or {}),
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode else done.stdout.strip()
