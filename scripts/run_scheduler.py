#!/usr/bin/env python3
"""Make backups when they are due: as a loop (the container's), or once (launchd, systemd, cron).

With --updates: run make update and the weekly audit when they are due, in the same two ways.

State and logs are in BACKUP_DIR, those of the updates in ~/.local/state/ai-backtest.

SIGTERM and SIGINT end the loop with exit code 0: within 2 seconds when it
is idle, within 8 when a backup is under way.
"""

import argparse
import os
import signal
import sys
import threading
import zoneinfo
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from backtestdb import console
from backtestdb.arguments import Parser, add_flag
from backtestdb.backups.backup_dir import ensure_backup_dir
from backtestdb.config import Settings, load_settings
from backtestdb.errors import BusyError, SettingsError
from backtestdb.files import exclusive_lock
from backtestdb.scheduling.backup_disk import RESTART_EXIT_CODE, tell_absent_disk, wait_for_disk
from backtestdb.scheduling.event_log import UPDATE_LOG_NAMES, open_event_log, print_failures_only
from backtestdb.scheduling.health import (
    describe_newest,
    find_problems,
    find_update_problems,
    remove_liveness,
    scheduler_path,
)
from backtestdb.scheduling.loop import (
    Job,
    Scheduler,
    folder_of,
    run_loop,
    tick_safely,
    why_disk_is_absent,
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    verify_time_zone(os.environ.get("TZ", ""))
    settings = load_settings()

    if options.health or options.newest:
        return report_health(
            settings, options.now or local_now(), loop=options.health, updates=options.updates
        )

    job: Job = "updates" if options.updates else "backups"
    if options.forget:
        remove_liveness(folder_of(settings, job), settings.database_path)
        return console.DONE

    os.umask(0o077)
    scheduler = make_scheduler(settings, job, stop, once=options.once)
    if options.once:
        return run_once(scheduler, quiet=options.quiet)

    return run_until_stopped(scheduler)


def make_scheduler(settings: Settings, job: Job, stop: threading.Event, *, once: bool) -> Scheduler:
    """Return the scheduler of the job; its log is on standard output until `enter_folder`."""
    return Scheduler(
        settings=settings,
        log=open_event_log(None),
        clock=local_now,
        stop=stop,
        kind="once" if once else "loop",
        job=job,
    )


def run_once(scheduler: Scheduler, *, quiet: bool) -> int:
    """Make what is due and end; return the exit code. Raise AbsentDiskError."""
    if reason := why_disk_is_absent(scheduler):
        tell_absent_disk(scheduler, reason)
    enter_folder(scheduler)
    if quiet:
        print_failures_only(scheduler.log)

    try:
        with lock_schedule(scheduler):
            return console.DONE if tick_safely(scheduler) else console.FAILED
    except BusyError as error:
        scheduler.log.info("nothing done: %s", error)
        return console.DONE


def run_until_stopped(scheduler: Scheduler) -> int:
    """Run the loop until a signal ends it; return the exit code."""
    while not scheduler.stop.is_set():
        # No lock and no log is open meanwhile: the disk can be taken off, and comes back.
        if not wait_for_disk(scheduler):
            return RESTART_EXIT_CODE
        if scheduler.stop.is_set():
            break
        enter_folder(scheduler)
        with lock_schedule(scheduler):
            scheduler.log.info("scheduler started: %s", describe(scheduler))
            run_loop(scheduler)
            scheduler.log.info("scheduler stopped")
        scheduler.log = open_event_log(None)

    return console.DONE


def enter_folder(scheduler: Scheduler) -> None:
    """Open the log of the job. Raise AbsentDiskError where the folder must not be written to."""
    settings = scheduler.settings
    if scheduler.job == "backups":
        ensure_backup_dir(settings.backup_dir, settings.database_path)
        scheduler.log = open_event_log(settings.backup_dir)
    else:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        scheduler.log = open_event_log(settings.state_dir, names=UPDATE_LOG_NAMES)


def lock_schedule(scheduler: Scheduler) -> AbstractContextManager[None]:
    database = scheduler.settings.database_path
    path = scheduler_path(scheduler.folder, database, ".lock")
    return exclusive_lock(path, f"a scheduler for {database}")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Exit with code 2 for options that the command does not know."""
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group()
    add_flag(what, "--once", "make what is due and end; exit code 1 on failure")
    add_flag(what, "--health", "exit code 1 when backups are stale or the loop hangs")
    add_flag(what, "--newest", "exit code 1 when backups are stale")
    add_flag(what, "--forget", "this schedule was taken down: remove its sign of life")

    add_flag(parser, "--updates", "the market data's schedule in the place of the backups'")
    add_flag(parser, "--quiet", "print failures only: cron mails what is printed")
    parser.add_argument(
        "--now", type=parse_moment, help="with --health: the time to judge by (ISO 8601)"
    )

    return parser.parse_args(arguments)


def parse_moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


def local_now() -> datetime:
    return datetime.now().astimezone()


def verify_time_zone(name: str) -> None:
    """Raise SettingsError for a zone that the system does not know."""
    if not name or name.startswith(("/", ":")):
        return
    try:
        # The system would take an unknown name for UTC, without a word.
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise SettingsError(
            f"TZ={name} is no time zone", next_step="write it like Europe/Berlin"
        ) from None


def report_health(settings: Settings, now: datetime, *, loop: bool, updates: bool) -> int:
    if updates:
        problems = find_update_problems(settings.state_dir, settings.database_path, now, loop=loop)
        print("; ".join(problems) or "no update of the market data failed")
        return console.FAILED if problems else console.DONE
    folders = (settings.backup_dir, settings.database_path)
    ailments = find_problems(*folders, now, loop=loop)
    print("; ".join(ailments) or describe_newest(*folders, now))
    return console.FAILED if ailments else console.DONE


def describe(scheduler: Scheduler) -> str:
    """Return what a loop says at its start."""
    settings = scheduler.settings
    if scheduler.job == "updates":
        return describe_updates(settings)
    return (
        f"full backup of {settings.database_path} at {settings.backup_time:%H:%M} "
        f"{local_now().tzname()}, small ones every {settings.irreplaceable_every_minutes} minutes, "
        f"into {settings.backup_dir}"
    )


def describe_updates(settings: Settings) -> str:
    """Return a line that says when market data is updated, or why it is not."""
    if settings.update_delay_minutes is None:
        return "UPDATE_DELAY_MINUTES is empty, so market data is updated by hand alone"
    if not settings.api_key:
        return (
            "no API key is set, so no market data is updated; next: write POLYGON_API_KEY into .env"
        )
    return (
        f"market data of {settings.database_path}, {settings.update_delay_minutes} minutes "
        "after 20:15 New York"
    )


if __name__ == "__main__":
    sys.exit(console.guard(main, None))
