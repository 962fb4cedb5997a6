"""The user's own commands around a backup: BEFORE_BACKUP, AFTER_BACKUP, ON_FAILURE.

Each is a line for the shell, and gets what happened in its environment. A command that fails is
reported, and changes nothing about the backup.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from backtestdb.config import Settings

LIMIT_SECONDS = 600.0


def run_user_command(
    settings: Settings, name: str, say: Callable[[str], None], **happened: str
) -> bool:
    """Given the name of the setting (empty: there is no command) and what happened (`kind`, `path`,
    `reason`), run it; return whether it was well. The command sees BACKTEST_KIND and so on, beside
    BACKTEST_EVENT, DATABASE_PATH and BACKUP_DIR."""
    command = getattr(settings, name.lower())
    if not command:
        return True
    environment = os.environ | {
        "BACKTEST_EVENT": name,
        "DATABASE_PATH": str(settings.database_path),
        "BACKUP_DIR": str(settings.backup_dir),
        **{f"BACKTEST_{key.upper()}": value for key, value in happened.items()},
    }
    problem = run_in_shell(command, environment)
    if problem:
        say(f"warning: {name} failed: {problem}")

    return not problem


def run_in_shell(command: str, environment: dict[str, str]) -> str:
    """Run it; return why it failed, empty when it was well."""
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Whatever it started ends with it at LIMIT_SECONDS.
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"not done after {LIMIT_SECONDS / 60:.0f} minutes, and ended"

    if process.returncode == 0:
        return ""
    last = said.strip().splitlines()[-1:]
    return f"exit code {process.returncode}" + (f": {last[0][:200]}" if last else "")
