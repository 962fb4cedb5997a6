"""The files that make the system's own scheduler wake `run_scheduler.py --once`: pure text from settings."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from xml.sax.saxutils import escape

from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.scheduling.due import wake_minutes
from backtestdb.scheduling.event_log import ERROR_LOG_NAME, LOG_NAME

LAUNCHD_NAME = "com.aibacktest.backup.plist"
SERVICE_NAME, TIMER_NAME = "ai-backtest-backup.service", "ai-backtest-backup.timer"
USED_SETTINGS = (
    *("DATABASE_PATH", "BACKUP_DIR", "GENERATED_SCRIPTS_DIR", "BACKUP_TIME", "IRREPLACEABLE_EVERY_MINUTES"),
    *("GENERATED_SCRIPTS_MAX_MB", "MAX_BACKUPS", "KEEP_FULL_WEEKLY", "KEEP_FULL_MONTHLY"),
    *("KEEP_SMALL_HOURLY", "KEEP_SMALL_DAILY", "KEEP_SMALL_WEEKLY", "KEEP_SMALL_MONTHLY"),
    *("MIN_BACKUPS", "HEARTBEAT_URL"),
)
# macOS asks the user before a program may look into these; a background job has nobody to ask.
PROTECTED_FOLDERS = ("Documents", "Desktop", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")


@dataclass(frozen=True)
class Job:
    """`project`: the folder of the checkout; its .venv has the Python."""

    settings: Settings
    project: Path

    @property
    def python(self) -> Path:
        return self.project / ".venv" / "bin" / "python"

    @property
    def program(self) -> Path:
        return self.project / "scripts" / "run_scheduler.py"


def make_plist(job: Job) -> str:
    settings = job.settings
    paths = {
        "python": job.python,
        "program": job.program,
        "project": job.project,
        "log": settings.backup_dir / LOG_NAME,
        "error_log": settings.backup_dir / ERROR_LOG_NAME,
    }
    values = {name: escape(str(path)) for name, path in paths.items()}
    minutes = wake_minutes(settings.backup_time, settings.irreplaceable_every_minutes)
    daily = {"Hour": settings.backup_time.hour, "Minute": settings.backup_time.minute}
    entries: list[Mapping[str, int]] = [daily, *({"Minute": minute} for minute in minutes)]
    return fill(job, LAUNCHD_NAME, values | {"calendar": "\n".join(map(make_calendar_entry, entries))})


def make_calendar_entry(entry: Mapping[str, int]) -> str:
    lines = [f"\t\t\t<key>{key}</key>\n\t\t\t<integer>{value}</integer>" for key, value in entry.items()]
    return "\n".join(["\t\t<dict>", *lines, "\t\t</dict>"])


def make_service(job: Job) -> str:
    values = {"python": escape_unit(job.python), "program": escape_unit(job.program)}
    return fill(job, SERVICE_NAME, values)


def escape_unit(path: Path) -> str:
    """Within double quotes of ExecStart, see systemd.service(5): specifiers, variables, escapes."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("%", "%%").replace("$", "$$")


def make_timer(job: Job) -> str:
    settings = job.settings
    minutes = wake_minutes(settings.backup_time, settings.irreplaceable_every_minutes)
    daily = f"{settings.backup_time:%H:%M}"
    return fill(job, TIMER_NAME, {"daily": daily, "minutes": ",".join(f"{m:02}" for m in minutes)})


def make_crontab_line(job: Job) -> str:
    """For systems with neither launchd nor systemd. A % begins the input of the command in a crontab."""
    settings = job.settings
    minutes = wake_minutes(settings.backup_time, settings.irreplaceable_every_minutes)
    command = f"{shlex.quote(str(job.python))} {shlex.quote(str(job.program))} --once >/dev/null"
    return f"{','.join(map(str, minutes))} * * * * nice {command}".replace("%", "\\%") + "\n"


def fill(job: Job, name: str, values: Mapping[str, str]) -> str:
    template = (job.project / "scripts" / "templates" / name).read_text(encoding="utf-8")
    return Template(template).substitute(values)


def verify_settings_reach_job(settings: Settings) -> None:
    """The job is not started from the user's shell: what only the environment says, it would not know."""
    lost = [name for name in USED_SETTINGS if settings.origins[name] == "the environment"]
    if lost:
        raise SettingsError(
            f"{', '.join(lost)} comes from the environment, which a background job does not have",
            next_step="write it into .env",
        )


def verify_folders_are_open(job: Job, home: Path) -> None:
    """Raise ProjectError for folders that macOS keeps from background jobs."""
    used = (job.project, job.settings.database_path.parent, job.settings.backup_dir)
    closed = [home / name for name in PROTECTED_FOLDERS]
    found = [
        path
        for path in dict.fromkeys(used)
        if any(path.resolve().is_relative_to(folder) for folder in closed)
    ]
    if found:
        raise ProjectError(
            f"macOS keeps background jobs out of {' and '.join(map(str, found))}",
            next_step="move it (for example to your home folder), or give Full Disk Access to"
            f" {job.python.resolve()} in System Settings and add ARGS=--anyway",
        )
