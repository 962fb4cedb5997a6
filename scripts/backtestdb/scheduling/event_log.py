"""One line an event, on standard output and in backup.log; failures in backup-error.log as well.
All bounded."""

import logging
import os
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_NAME, ERROR_LOG_NAME = "backup.log", "backup-error.log"
UPDATE_LOG_NAMES = ("update.log", "update-error.log")
MAX_BYTES = 1_000_000
FORMAT = "%(asctime)s %(message)s"


def open_event_log(
    folder: Path | None,
    max_bytes: int = MAX_BYTES,
    names: tuple[str, str] = (LOG_NAME, ERROR_LOG_NAME),
) -> logging.Logger:
    """Given the folder of the files, return the log; None: on standard output alone, because the
    folder's disk is absent. Each file keeps one predecessor, `.1`. Failures are events of level
    ERROR.

    launchd appends standard output to the log by itself: then the file is not written twice.
    """
    # A full disk must not end the loop; standard output still gets the line.
    logging.raiseExceptions = False
    log = logging.getLogger("ai-backtest.backups")
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
        with suppress(OSError):  # a line that a full disk did not take
            old.close()

    if folder is None:
        add_handler(log, logging.StreamHandler(sys.stdout))
        return log

    log_path = folder / names[0]
    if is_standard_output(log_path):
        keep_bounded(log_path, max_bytes)
    else:
        add_handler(
            log, RotatingFileHandler(log_path, maxBytes=max_bytes, backupCount=1, delay=True)
        )

    add_handler(log, logging.StreamHandler(sys.stdout))
    errors = RotatingFileHandler(folder / names[1], maxBytes=max_bytes, backupCount=1, delay=True)
    errors.setLevel(logging.ERROR)
    add_handler(log, errors)
    return log


def add_handler(log: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)


def print_failures_only(log: logging.Logger) -> None:
    """Keep what is no failure from standard output; the files still get every event."""
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setLevel(logging.ERROR)


def is_standard_output(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def keep_bounded(path: Path, max_bytes: int) -> None:
    """Move a log that has grown too long aside; launchd opens it anew for the next run."""
    if path.stat().st_size > max_bytes:
        path.replace(path.with_name(path.name + ".1"))
