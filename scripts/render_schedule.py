#!/usr/bin/env python3
"""Print the files of the scheduled backup, for install_scheduled_backup.sh."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from backtestdb import console
from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.scheduling import host_units

PARTS: dict[str, Callable[[host_units.Job], str]] = {
    "launchd": host_units.make_plist,
    "service": host_units.make_service,
    "timer": host_units.make_timer,
    "crontab": host_units.make_crontab_line,
    "backup-dir": lambda job: f"{job.settings.backup_dir}\n",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "check", "check-macos"], help="what to print or check")
    part = parser.parse_args(arguments).part
    job = host_units.Job(load_settings(), PROJECT_DIR)
    if part in PARTS:
        print(PARTS[part](job), end="")
        return console.DONE
    host_units.verify_settings_reach_job(job.settings)
    if part == "check-macos":
        host_units.verify_folders_are_open(job, Path.home())
    return console.DONE


if __name__ == "__main__":
    console.run(main)
