"""Whether something makes the backups by itself: launchd, a systemd user timer, or the container's loop."""

import json
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

LABEL = "com.aibacktest.backup"
PULSE_NAME = ".scheduler.json"  # the loop's sign of life in the backup folder
PULSE_COUNTS_FOR = timedelta(minutes=5)
ASK_SECONDS = 3.0


@dataclass(frozen=True)
class ScheduleFacts:
    """`kind`: launchd, systemd, container, or none. `last_result`: of the last run, empty when not known;
    `failed`: whether it was a failure."""

    kind: str
    installed: bool
    loaded: bool
    last_result: str = ""
    failed: bool = False


def look_at_schedule(
    platform: str, home: Path, user_id: int, backup_dir: Path, now: datetime
) -> ScheduleFacts:
    """`platform` as in sys.platform. A loaded one is reported before one that is only installed."""
    native = look_at_launchd(home, user_id) if platform == "darwin" else look_at_systemd(home)
    found = [native, look_at_container(backup_dir, now)]
    return max(found, key=lambda facts: (facts.loaded, facts.installed))


def look_at_launchd(home: Path, user_id: int) -> ScheduleFacts:
    installed = (home / "Library" / "LaunchAgents" / f"{LABEL}.plist").is_file()
    code, out = ask("launchctl", "print", f"gui/{user_id}/{LABEL}")
    exit_code = re.search(r"last exit code = (\d+)", out)
    result = f"exit code {exit_code[1]}" if exit_code else ""
    failed = bool(exit_code and exit_code[1] != "0")
    return ScheduleFacts(
        "launchd" if installed else "none", installed, installed and code == 0, result, failed
    )


def look_at_systemd(home: Path) -> ScheduleFacts:
    folder = home / ".config" / "systemd" / "user"
    installed = (folder / f"{LABEL}.timer").is_file()
    if not installed:
        return ScheduleFacts("none", installed=False, loaded=False)
    code, _ = ask("systemctl", "--user", "is-active", f"{LABEL}.timer")
    _, result = ask("systemctl", "--user", "show", "--property=Result", "--value", f"{LABEL}.service")
    failed = result.strip() not in {"", "success"}
    return ScheduleFacts("systemd", installed, code == 0, result.strip(), failed)


def look_at_container(backup_dir: Path, now: datetime) -> ScheduleFacts:
    """A loop that left no sign of life for five minutes is installed and does not run."""
    try:
        pulse = json.loads((backup_dir / PULSE_NAME).read_text())
        ticked_at = datetime.fromisoformat(pulse["ticked_at"])
        failure = str(pulse.get("last_failure", ""))
        is_alive = abs(now - ticked_at) <= PULSE_COUNTS_FOR or bool(pulse.get("running"))
    except (OSError, ValueError, TypeError, KeyError):
        return ScheduleFacts("none", installed=False, loaded=False)
    return ScheduleFacts("container", True, is_alive, failure, bool(failure))


def ask(*command: str) -> tuple[int, str]:
    """Exit code and output; a program that is not there or does not answer counts as a failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 1, ""
    return done.returncode, done.stdout
