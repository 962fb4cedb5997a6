#!/usr/bin/env python3
"""Print the files of the scheduled backup, for install_scheduled_backup.sh."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from backtestdb import console
from backtestdb.backups import jobs
from backtestdb.config import PROJECT_DIR, load_settings

PARTS: dict[str, Callable[[jobs.Job], str]] = {
    "launchd": jobs.make_plist,
    "service": jobs.make_service,
    "timer": jobs.make_timer,
    "crontab": jobs.make_crontab_line,
    "backup-dir": lambda job: f"{job.settings.backup_dir}\n",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "check", "check-macos"], help="what to print or check")
    part = parser.parse_args(arguments).part
    job = jobs.Job(load_settings(), PROJECT_DIR)
    if part in PARTS:
        print(PARTS[part](job), end="")
        return console.DONE
    jobs.verify_settings_reach_job(job.settings)
    if part == "check-macos":
        jobs.verify_folders_are_open(job, Path.home())
    return console.DONE


if __name__ == "__main__":
    console.run(main)
