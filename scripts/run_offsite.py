#!/usr/bin/env python3
"""Encrypted copies off this machine: set up, sent, listed, checked, pruned. Settings: OFFSITE… in
.env.

`watch` is the living process: it sends what was committed, every OFFSITE_EVERY_SECONDS, until
SIGTERM.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from backtestdb import console
from backtestdb.arguments import Parser, add_flag
from backtestdb.backups.backup_dir import ensure_backup_dir
from backtestdb.config import Settings, load_settings
from backtestdb.errors import BusyError
from backtestdb.offsite.cli import run_check, run_drill, run_init, run_list, run_prune
from backtestdb.offsite.facts import find_offsite_problems, load_offsite_facts
from backtestdb.offsite.target import make_target
from backtestdb.offsite.watch import Watch, make_watch, run_watch, send_once

LOG_NAME, LOG_BYTES = "offsite.log", 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings, now_utc = load_settings(), datetime.now(UTC)
    make_target(settings)

    commands: dict[str, Callable[[], int]] = {
        "init": lambda: run_init(settings),
        "list": lambda: run_list(settings, as_json=options.json),
        "check": lambda: run_check(
            settings, now_utc, everything=options.everything, as_json=options.json
        ),
        "drill": lambda: run_drill(settings, now_utc.astimezone()),
        "prune": lambda: run_prune(settings, now_utc, dry_run=options.dry_run),
        "send": lambda: send(settings),
        "watch": lambda: watch(settings, quiet=options.quiet),
        "health": lambda: report_health(settings, now_utc),
    }

    return commands[options.command]()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Exit with code 2 for options that the command does not know."""
    parser = Parser(__doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, parser_class=argparse.ArgumentParser
    )
    commands.add_parser(
        "init", help="make the target ready, try what it protects, print the recovery sheet"
    )
    commands.add_parser("list", help="the copies, newest first").add_argument(
        "--json", action="store_true"
    )

    check = commands.add_parser("check", help="read this week's share of the copies and compare")
    add_flag(check, "--everything", "read all of them")
    add_flag(check, "--json", "the result for programs")
    commands.add_parser(
        "drill", help="bring the newest copies back into a scratch folder, compare and measure"
    )

    pruning = commands.add_parser("prune", help="delete old copies, with a key that may")
    add_flag(pruning, "--dry-run", "only say what would go")
    commands.add_parser("send", help="send once what was not sent yet")

    watching = commands.add_parser("watch", help="send whatever is committed, until SIGTERM")
    add_flag(watching, "--quiet", "for cron: only the log; no error when it runs already")
    commands.add_parser("health", help="exit code 1 when what lies elsewhere is behind")

    return parser.parse_args(arguments)


def report_health(settings: Settings, now_utc: datetime) -> int:
    problems = find_offsite_problems(load_offsite_facts(settings, now_utc))
    print("; ".join(problem.what for problem in problems) or f"all well at {settings.offsite}")
    return console.FAILED if problems else console.DONE


def send(settings: Settings) -> int:
    send_once(prepare(settings, threading.Event()))
    return console.DONE


def watch(settings: Settings, *, quiet: bool) -> int:
    """Send what is committed until a signal ends the process; return the exit code."""
    stop = threading.Event()
    watching = prepare(settings, stop, quiet=quiet)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    try:
        run_watch(watching)
    except BusyError:
        if not quiet:
            raise

    return console.DONE


def prepare(settings: Settings, stop: threading.Event, *, quiet: bool = False) -> Watch:
    """Return the watch that is to run. Folders and files that are made from here on are the user's
    alone."""
    os.umask(0o077)
    ensure_backup_dir(settings.backup_dir, settings.database_path)
    return make_watch(settings, open_log(settings.backup_dir, quiet), stop)


def open_log(backup_dir: Path, quiet: bool) -> logging.Logger:
    """Return the log of the process: a line an event, in offsite.log, which is bounded, and on
    standard output unless `quiet`."""
    logging.raiseExceptions = False  # a full disk must not end the process
    log = logging.getLogger("ai-backtest.offsite")
    log.setLevel(logging.INFO)
    log.propagate = False

    file = RotatingFileHandler(backup_dir / LOG_NAME, maxBytes=LOG_BYTES, backupCount=1, delay=True)
    for handler in (file,) if quiet else (file, logging.StreamHandler(sys.stdout)):
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        )
        log.addHandler(handler)

    return log


if __name__ == "__main__":
    console.run(main)
