#!/usr/bin/env python3
"""Print the files of the scheduled jobs, for install_scheduled_backup.sh."""

from collections.abc import Callable, Sequence
from pathlib import Path

from backtestdb import console
from backtestdb.arguments import Parser, add_flag
from backtestdb.backups.forecast import warn_of_full_disk
from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.names import make_mark
from backtestdb.scheduling import host_units


def describe_need(job: host_units.Job) -> str:
    """Return whether the schedule is to have this job: `yes`, or why not."""
    settings = job.settings
    if job.name == "offsite":
        return "yes\n" if settings.offsite else "OFFSITE is not set\n"
    if job.name == "update" and settings.update_delay_minutes is None:
        return "UPDATE_DELAY_MINUTES is empty\n"
    if job.name == "update" and not settings.api_key:
        return "no API key is set\n"
    return "yes\n"


PARTS: dict[str, Callable[[host_units.Job], str]] = {
    "launchd": lambda job: host_units.make_plist(job, Path.home()),
    "service": host_units.make_service,
    "timer": host_units.make_timer,
    "crontab": host_units.make_crontab_line,
    "mark": lambda job: f"{make_mark(job.project)}\n",
    "marker": lambda job: f"{job.marker}\n",
    "wanted": describe_need,
    "packages": lambda job: "notify\n" if job.settings.notify_urls else "",
    "warnings": lambda job: "".join(
        f"{line}\n" for line in [warn_of_full_disk(job.settings)] if line
    ),
    "folders": lambda job: f"{job.settings.backup_dir}\n{job.settings.state_dir}\n",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "part", choices=[*PARTS, "check", "check-macos"], help="what to print or check"
    )
    kinds = parser.add_mutually_exclusive_group()
    add_flag(kinds, "--updates", "of the job that updates market data")
    add_flag(kinds, "--offsite", "of the process that sends copies")
    parser.add_argument("--mark", default="", help="part of the job's names")
    options = parser.parse_args(arguments)

    part = options.part
    name: host_units.Name = "backup"
    if options.updates or options.offsite:
        name = "update" if options.updates else "offsite"

    job = host_units.Job(load_settings(), PROJECT_DIR, name, options.mark)
    if part in PARTS:
        print(PARTS[part](job), end="")
        return console.DONE

    host_units.verify_settings_reach_job(job)
    if part == "check-macos":
        host_units.verify_folders_are_open(job, Path.home())
    return console.DONE


if __name__ == "__main__":
    console.run(main)
