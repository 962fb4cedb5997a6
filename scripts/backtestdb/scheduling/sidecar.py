"""What the compose file cannot work out: folders, mounts, owner, time zone and name of the project.

`make sidecar-up` passes these as variables and keeps them in `.env`, so that `docker compose up` by
hand means the same container.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.known_folders import find_mount_point
from backtestdb.config import PROJECT_DIR, SCRIPTS_FOLDER, Settings
from backtestdb.mounts import mount_of
from backtestdb.names import make_mark

BEGIN = "# Written by make sidecar-up, for docker compose by hand; written anew each time."
END = "# End of what make sidecar-up writes."
LOCALTIME, TIMEZONE, ZONES = (
    Path("/etc/localtime"),
    Path("/etc/timezone"),
    Path("/usr/share/zoneinfo"),
)


@dataclass(frozen=True)
class Owner:
    """Numbers of a user and a group of the host."""

    user: int
    group: int

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


def find_owner(settings: Settings, environment: Mapping[str, str]) -> Owner:
    """Return SIDECAR_USER, else the owner of the database, else who called sudo, else this user."""
    if settings.sidecar_user:
        user, _, group = settings.sidecar_user.partition(":")
        return Owner(int(user), int(group))
    if settings.database_path.exists():
        state = settings.database_path.stat()
        return Owner(state.st_uid, state.st_gid)

    # Root in a container without capabilities may write nothing that is not root's.
    user, group = environment.get("SUDO_UID", ""), environment.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit():
        return Owner(int(user), int(group))
    return Owner(os.getuid(), os.getgid())


def give_to(owner: Owner, made: Sequence[Path]) -> None:
    """Give folders that were made to their owner, as only root can and has to, under sudo."""
    if os.geteuid() == 0:
        for path in made:
            os.chown(path, owner.user, owner.group)


def choose_backup_mount(backup_dir: Path, database: Path) -> tuple[Path, str]:
    """Given the two paths, return what the container mounts, and where below it BACKUP_DIR is (""
    or "/folder"). On a disk of its own that is the disk's place: a folder on a disk that is absent
    is not there, and a container whose mount is missing is never started again (moby#28211)."""
    disk = find_mount_point(backup_dir)
    if disk in {Path("/"), find_mount_point(database)} or disk == backup_dir:
        return backup_dir, ""
    return disk, f"/{backup_dir.relative_to(disk)}"


def choose_propagation(mounted: Path, engine: str) -> str:
    """Return how mounts of the host reach the container. `engine`: the operating system that it
    names. rslave lets a disk that is mounted later appear in the container; engines refuse it for a
    mount that shares nothing, and one in a virtual machine has other mounts than this host."""
    mount = mount_of(mounted)
    shares = mount is not None and (mount.is_shared or mount.is_slave)
    return "rslave" if shares and engine != "Docker Desktop" else "rprivate"


def make_variables(settings: Settings, owner: Owner, engine: str) -> dict[str, str]:
    """Return what the compose file cannot work out, by the names that it uses."""
    mounted, below = choose_backup_mount(settings.backup_dir, settings.database_path)
    return {
        "DATABASE_DIR": str(settings.database_path.parent),
        "SIDECAR_BACKUPS": str(mounted),
        "SIDECAR_BELOW": below,
        "SIDECAR_PROPAGATION": choose_propagation(mounted, engine),
        "SIDECAR_OWNER": str(owner),
        "SIDECAR_ZONE": settings.sidecar_zone or find_time_zone(LOCALTIME, TIMEZONE, ZONES),
        "SIDECAR_SCRIPTS": choose_scripts_folders(settings),
        "SIDECAR_STATE_DIR": str(settings.state_dir),
        "SIDECAR_EXTRA": "notify" if settings.notify_urls else "",
    }


def choose_scripts_folders(settings: Settings) -> str:
    """Return the folders of generated scripts; where the user named none, the one beside the
    database, because the project is not in the container."""
    if settings.scripts_dirs_are_default:
        return str(settings.database_path.parent / SCRIPTS_FOLDER)
    return ":".join(map(str, settings.generated_scripts_dirs))


def choose_profiles(settings: Settings) -> str:
    """Return the profiles of market data and of copies off the machine, each only where they have
    something to do."""
    updates = bool(settings.api_key) and settings.update_delay_minutes is not None
    wanted = {"update": updates, "offsite": bool(settings.offsite)}
    return ",".join(name for name, is_wanted in wanted.items() if is_wanted)


def make_project_name(project: Path) -> str:
    """Return a name made from the whole path: compose's own, the folder's name, is the same for two
    clones, and is refused where nothing of it is Latin."""
    letters = re.sub(r"[^a-z0-9]+", "-", project.name.lower()).strip("-")[:24]
    return f"{letters or 'ai-backtest'}-{make_mark(project)}"


def find_time_zone(localtime: Path, timezone: Path, zones: Path) -> str:
    """Return the name of this machine's zone. /etc/localtime is a link into the folder of the
    zones, on macOS as on Linux. Where it is a copy, /etc/timezone names the zone, or the zone's
    file that holds the same."""
    found = re.search(r"/zoneinfo[^/]*/(.+)", os.path.realpath(localtime))
    if found:
        return found[1]
    try:
        if (zones / (named := timezone.read_text().strip())).is_file():
            return named
    except OSError:
        pass
    return find_same_zone(localtime, zones) or os.environ.get("TZ") or "UTC"


def find_same_zone(localtime: Path, zones: Path) -> str:
    """Return the name of the zone whose file holds the same, a city's before others; empty where
    there is none."""
    try:
        wanted = localtime.read_bytes()
        size = len(wanted)
        names = [
            str(path.relative_to(zones))
            for path in zones.rglob("*")
            if path.is_file() and path.stat().st_size == size and path.read_bytes() == wanted
        ]
    except OSError:
        return ""

    cities = [name for name in names if re.match(r"[A-Z][a-z]+/", name) and name[:3] != "Etc"]
    return min(cities or names, key=lambda name: (len(name), name), default="")


def put_into_env_text(text: str, values: Mapping[str, str]) -> str:
    """Given the text of `.env`, return it with these values in the block of `make sidecar-up`, and
    everything else as it is."""
    before, _, rest = text.partition(f"{BEGIN}\n")
    _, _, after = rest.partition(f"{END}\n")
    lines = [f"{name}={quote(value)}" for name, value in values.items()]
    gap = "" if not before or before.endswith("\n\n") else "\n" if before.endswith("\n") else "\n\n"
    return before + gap + "\n".join([BEGIN, *lines, END]) + "\n" + after


def quote(value: str) -> str:
    """Return it for `.env`: single quotes keep blanks, $ and # of a path; a quote inside is written
    with a backslash."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def outside_of_block(text: str) -> str:
    before, _, rest = text.partition(f"{BEGIN}\n")
    return before + rest.partition(f"{END}\n")[2]


def is_of_this_project(working_folder: str) -> bool:
    return bool(working_folder) and os.path.realpath(working_folder) == os.path.realpath(
        PROJECT_DIR
    )
