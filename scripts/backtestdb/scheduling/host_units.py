"""The files of the jobs that the system's own scheduler starts: pure text from settings.

`run_scheduler.py --once` is woken at its times, once for the backups and once for the market data
(`--updates`). `run_offsite.py watch` lives all the time and is started again when it ends.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal
from xml.sax.saxutils import escape

from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.names import PROTECTED_FOLDERS, SYNCED_FOLDERS, launchd_label, systemd_unit
from backtestdb.scheduling.due import wake_minutes
from backtestdb.scheduling.updates import FINAL_AT

Name = Literal["backup", "update", "offsite"]
USED_SETTINGS = (
    *(
        "DATABASE_PATH",
        "BACKUP_DIR",
        "GENERATED_SCRIPTS_DIR",
        "BACKUP_TIME",
        "IRREPLACEABLE_EVERY_MINUTES",
    ),
    *("GENERATED_SCRIPTS_MAX_MB", "MAX_BACKUPS", "KEEP_FULL_WEEKLY", "KEEP_FULL_MONTHLY"),
    *("KEEP_SMALL_HOURLY", "KEEP_SMALL_DAILY", "KEEP_SMALL_WEEKLY", "KEEP_SMALL_MONTHLY"),
    *("MIN_BACKUPS", "HEARTBEAT_URL", "NOTIFY_URLS", "OFFSITE"),
    *("BEFORE_BACKUP", "AFTER_BACKUP", "ON_FAILURE"),
)
# What the job that updates market data reads besides, and what the backups' job is never given.
UPDATE_SETTINGS = (
    *("POLYGON_API_KEY", "MASSIVE_API_KEY", "POLYGON_BASE_URL", "POLYGON_REQUESTS_PER_MINUTE"),
    *("POLYGON_CONCURRENCY", "POLYGON_TIMEOUT_SECONDS", "US_STOCK_TYPES", "UPDATE_DELAY_MINUTES"),
)
# What the process that sends copies off this machine reads besides.
OFFSITE_SETTINGS = (
    *("OFFSITE", "OFFSITE_ENDPOINT", "OFFSITE_KEY_ID", "OFFSITE_SECRET", "OFFSITE_PASSPHRASE"),
    "OFFSITE_EVERY_SECONDS",
)
SETTINGS_OF: dict[Name, tuple[str, ...]] = {
    "backup": USED_SETTINGS,
    "update": (*USED_SETTINGS, *UPDATE_SETTINGS),
    "offsite": ("DATABASE_PATH", "BACKUP_DIR", *OFFSITE_SETTINGS),
}
WHAT: dict[Name, str] = {
    "backup": "Backup of the backtesting database",
    "update": "Update of its market data",
    "offsite": "Copies of the backtesting database off this machine",
}
OPTIONS: dict[Name, list[str]] = {
    "backup": ["--once"],
    "update": ["--updates", "--once"],
    "offsite": ["watch"],
}
# cron starts it anew where it ended; where it lives, the second one leaves at once.
LOOK_EVERY_MINUTES = 5


@dataclass(frozen=True)
class Job:
    """`project`: the folder of the checkout; its .venv has the Python. `name`: what the job
    does. `mark`: part of its names where another checkout has the plain ones."""

    settings: Settings
    project: Path
    name: Name = "backup"
    mark: str = ""

    @property
    def label(self) -> str:
        return launchd_label(self.name, self.mark)

    @property
    def unit(self) -> str:
        return systemd_unit(self.name, self.mark)

    @property
    def marker(self) -> str:
        return escape_crontab(f"# ai-backtest-{self.name} {self.project}")

    @property
    def what(self) -> str:
        return WHAT[self.name]

    @property
    def options(self) -> list[str]:
        return OPTIONS[self.name]

    @property
    def lives(self) -> bool:
        """Tell whether it is a process that stays, and not a job that is woken at times."""
        return self.name == "offsite"

    @property
    def minutes(self) -> list[int]:
        """Return the minutes of each hour at which the job asks what is due."""
        if self.lives:
            return list(range(0, 60, LOOK_EVERY_MINUTES))
        if self.name == "backup":
            return wake_minutes(
                self.settings.backup_time, self.settings.irreplaceable_every_minutes
            )
        first = (FINAL_AT.minute + (self.settings.update_delay_minutes or 0)) % 30
        return [first, first + 30]

    @property
    def python(self) -> Path:
        return self.project / ".venv" / "bin" / "python"

    @property
    def starter(self) -> Path:
        """Return what is started in the place of `python`: it mends .venv after an upgrade."""
        return self.project / "scripts" / "run_scheduled.sh"

    @property
    def program(self) -> Path:
        name = "run_offsite.py" if self.lives else "run_scheduler.py"
        return self.project / "scripts" / name


def make_plist(job: Job, home: Path) -> str:
    """Return the property list that launchd loads."""
    # Full Disk Access is given to a program: to this Python, not to a shell, which could not even
    # read the script.
    starter = job.python if find_closed_folders(job, home) else job.starter
    # The jobs keep bounded logs themselves. What Python says when it cannot start goes to the
    # user's Library: a log on a disk that is not connected would be exit code 78, with no log.
    log, error_log = Path("/dev/null"), home / "Library" / "Logs" / f"{job.label}.log"
    paths = {
        **{"starter": starter, "program": job.program, "project": job.project},
        **{"log": log, "error_log": error_log, "label": job.label},
    }
    values = {name: escape(str(path)) for name, path in paths.items()}
    values["options"] = "\n".join(f"\t\t<string>{option}</string>" for option in job.options)
    if job.lives:
        return fill(job, "living.plist", values)

    entries: list[Mapping[str, int]] = [{"Minute": minute} for minute in job.minutes]
    if job.name == "backup":
        at = job.settings.backup_time
        entries.insert(0, {"Hour": at.hour, "Minute": at.minute})
    return fill(
        job, "job.plist", values | {"calendar": "\n".join(map(make_calendar_entry, entries))}
    )


def make_calendar_entry(entry: Mapping[str, int]) -> str:
    lines = [
        f"\t\t\t<key>{key}</key>\n\t\t\t<integer>{value}</integer>" for key, value in entry.items()
    ]
    return "\n".join(["\t\t<dict>", *lines, "\t\t</dict>"])


def make_service(job: Job) -> str:
    values = {"starter": escape_unit(job.starter), "program": escape_unit(job.program)}
    words = {"what": job.what, "unit": job.unit, "options": " ".join(job.options)}
    template = "living.service" if job.lives else "job.service"
    return fill(job, template, values | words)


def escape_unit(path: Path) -> str:
    """Return it as it stands within double quotes of ExecStart, see systemd.service(5): specifiers,
    variables, escapes."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("%", "%%").replace("$", "$$")


def make_timer(job: Job) -> str:
    times = [f"*:{','.join(f'{minute:02}' for minute in job.minutes)}:00"]
    if job.name == "backup":
        times.insert(0, f"{job.settings.backup_time:%H:%M}:00")
    calendar = "\n".join(f"OnCalendar=*-*-* {each}" for each in times)
    return fill(job, "job.timer", {"what": job.what, "calendar": calendar})


def make_crontab_line(job: Job) -> str:
    """Return the line for systems with neither launchd nor systemd; cron mails what the job says of
    failures."""
    command = (
        f"{shlex.quote(str(job.starter))} {shlex.quote(str(job.program))} "
        f"{' '.join(job.options)} --quiet"
    )
    # A % would begin the command's input; the marker is a comment of the shell, by which the line
    # is found again.
    return (
        f"{','.join(map(str, job.minutes))} * * * * nice {escape_crontab(command)} {job.marker}\n"
    )


def escape_crontab(text: str) -> str:
    return text.replace("%", "\\%")


def fill(job: Job, name: str, values: Mapping[str, str]) -> str:
    template = (job.project / "scripts" / "templates" / name).read_text(encoding="utf-8")
    return Template(template).substitute(values)


def verify_settings_reach_job(job: Job) -> None:
    """Raise SettingsError for what only the environment says."""
    used = SETTINGS_OF[job.name]
    # The job is not started from the user's shell, and would not know it.
    lost = [name for name in used if job.settings.origins[name] == "the environment"]
    if lost:
        raise SettingsError(
            f"{', '.join(lost)} comes from the environment, which a background job does not have",
            next_step="write it into .env",
        )


def find_closed_folders(job: Job, home: Path) -> list[Path]:
    """Return those of the job's folders that macOS keeps from background jobs."""
    used = (job.project, job.settings.database_path.parent, job.settings.backup_dir)
    # Disks that can be taken off, too, since macOS 10.15.
    closed = [Path("/Volumes")]
    closed += [home / name for name in (*PROTECTED_FOLDERS, *SYNCED_FOLDERS)]
    return [
        path
        for path in dict.fromkeys(used)
        if any(path.resolve().is_relative_to(folder) for folder in closed)
    ]


def verify_folders_are_open(job: Job, home: Path) -> None:
    """Raise ProjectError for folders that macOS keeps from background jobs."""
    found = find_closed_folders(job, home)
    if found:
        raise ProjectError(
            f"macOS keeps background jobs out of {' and '.join(map(str, found))}",
            next_step="move it (for example to your home folder), or give Full Disk Access to"
            f" {job.python.resolve()} in System Settings and add ARGS=--anyway",
        )
