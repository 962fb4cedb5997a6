"""What makes backups by itself: launchd, a systemd user timer, cron, or the container's loop."""

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import unescape

from backtestdb.config import PROJECT_DIR
from backtestdb.names import launchd_label, make_mark, systemd_unit
from backtestdb.scheduling.due import STALE_AFTER, STUCK_AFTER
from backtestdb.scheduling.health import file_identity, load_liveness

LAUNCHD_LABEL = launchd_label("backup")
SYSTEMD_UNIT = systemd_unit("backup")
CRON_COMMAND = "run_scheduler.py"
ASK_SECONDS = 3.0
# systemd.exec(5) 203: the program was not found; launchd's 78: its log could not be opened; 126 and
# 127: the shell's.
COULD_NOT_START = {"203", "78", "126", "127"}


@dataclass(frozen=True)
class User:
    """Whose schedule: the user's number, the home folder, and where settings of programs lie."""

    number: int
    home: Path
    config_home: Path


@dataclass(frozen=True, kw_only=True)
class ScheduleFacts:
    """`kind`: launchd, systemd, cron, container, or none. `last_result`: of the last run, empty
    when not known; `failed`: whether it was a failure. `could_not_start`: the system did not find
    or could not run its program. `runs_without_login`: also while the user is not logged in, where
    the system makes that difference."""

    kind: str
    installed: bool
    loaded: bool
    last_result: str = ""
    failed: bool = False
    sees_other_file: bool = False
    runs_without_login: bool = True
    could_not_start: bool = False


NONE = ScheduleFacts(kind="none", installed=False, loaded=False)


def look_at_schedule(
    platform: str, user: User, backup_dir: Path, database: Path, now: datetime
) -> ScheduleFacts:
    """Return the first loaded schedule, else the first installed. `platform`: sys.platform."""
    native = look_at_launchd(user) if platform == "darwin" else look_at_systemd(user)
    found = [
        native,
        look_at_container(backup_dir, database, now),
        NONE if native.installed else look_at_cron(),
    ]
    return max(found, key=lambda facts: (facts.loaded, facts.installed))


def look_at_launchd(user: User) -> ScheduleFacts:
    """Return what launchd says of this checkout's job."""
    folder = user.home / "Library" / "LaunchAgents"
    label = find_own(
        folder, launchd_label("backup", make_mark(PROJECT_DIR)), LAUNCHD_LABEL, ".plist"
    )
    if not label:
        return NONE

    code, out = ask("launchctl", "print", f"gui/{user.number}/{label}")
    found = make_native("launchd", code == 0, re.findall(r"last exit code = (\d+)", out))
    # Instead of an exit code, where a signal ended it: `last terminating signal = Killed: 9`.
    if ended := re.search(r"last terminating signal = (.+)", out):
        return replace(found, failed=True, last_result=f"ended by signal {ended[1].strip()}")

    return found


def look_at_systemd(user: User) -> ScheduleFacts:
    """Return what systemd says of this checkout's timer and service."""
    folder = user.config_home / "systemd" / "user"
    unit = find_own(
        folder, systemd_unit("backup", make_mark(PROJECT_DIR)), SYSTEMD_UNIT, ".service"
    )
    if not unit:
        return NONE

    code, _ = ask("systemctl", "--user", "is-active", f"{unit}.timer")
    _, out = ask(
        "systemctl", "--user", "show", "--property=ExecMainStatus", "--value", f"{unit}.service"
    )
    lingers, linger = ask("loginctl", "show-user", str(user.number), "--property=Linger", "--value")
    found = make_native("systemd", code == 0, re.findall(r"^\d+$", out.strip()))

    return replace(found, runs_without_login=lingers != 0 or linger.strip() == "yes")


def find_own(folder: Path, marked: str, plain: str, suffix: str) -> str:
    """Return the name of this checkout's job: with its mark, else the plain name. Empty where there
    is none."""
    if (folder / f"{marked}{suffix}").is_file():
        return marked

    try:
        text = unescape((folder / f"{plain}{suffix}").read_text()).replace("%%", "%")
    except OSError:
        return ""

    # A plain name may be of another checkout that is there: its file says so.
    found = re.search(r"[\">](/[^\"<>]*)/scripts/run_\w+\.py", text)
    if found and Path(found[1]) != PROJECT_DIR and Path(found[1], "scripts").is_dir():
        return ""
    return plain


def make_native(kind: str, is_loaded: bool, exit_codes: list[str]) -> ScheduleFacts:
    """Return the facts of an installed job, from the exit code of its last run."""
    result = f"exit code {exit_codes[0]}" if exit_codes else ""
    failed = bool(exit_codes) and exit_codes[0] != "0"
    could_not_start = failed and exit_codes[0] in COULD_NOT_START

    return ScheduleFacts(
        kind=kind,
        installed=True,
        loaded=is_loaded,
        last_result=result,
        failed=failed,
        could_not_start=could_not_start,
    )


def look_at_cron() -> ScheduleFacts:
    _, out = ask("crontab", "-l")
    lines = [
        line
        for line in out.splitlines()
        if CRON_COMMAND in line and not line.lstrip().startswith("#")
    ]
    return ScheduleFacts(kind="cron", installed=True, loaded=True) if lines else NONE


def look_at_container(backup_dir: Path, database: Path, now: datetime) -> ScheduleFacts:
    """Return the facts of the container's loop."""
    liveness = load_liveness(backup_dir, database)
    # The host's schedule leaves a sign of another kind. After 26 hours the engine is asked.
    if liveness is None or liveness.kind != "loop" or abs(now - liveness.ticked_at) > STALE_AFTER:
        return ask_engine() or NONE

    # A loop that left no sign of life for five minutes is installed and does not run.
    is_alive = abs(now - liveness.ticked_at) <= STUCK_AFTER
    seen = (liveness.database_device, liveness.database_inode)
    # A bind mount keeps the folder that was there when the container started, also after it was
    # replaced.
    sees_other_file = is_alive and seen != (0, 0) and file_identity(database) not in {(0, 0), seen}

    return ScheduleFacts(
        kind="container",
        installed=True,
        loaded=is_alive,
        last_result=liveness.last_failure,
        failed=bool(liveness.last_failure),
        sees_other_file=sees_other_file,
    )


def ask_engine() -> ScheduleFacts | None:
    """Return what the engine says of this checkout's container, which left no sign of life: one
    whose disk was absent at a boot was never started. None without an engine or a container."""
    if not shutil.which("docker"):
        return None
    label = "com.docker.compose"
    code, out = ask(
        *("docker", "ps", "--all", "--filter", f"label={label}.service=backup"),
        *("--filter", f"label={label}.project.working_dir={PROJECT_DIR}"),
        *("--format", "{{.Status}}"),
    )
    if code or not out.strip():
        return None

    return ScheduleFacts(
        kind="container", installed=True, loaded=False, last_result=out.splitlines()[0]
    )


def ask(*command: str) -> tuple[int, str]:
    """Exit code and output; a program that is not there or does not answer counts as a failure."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1, ""
    return done.returncode, done.stdout
