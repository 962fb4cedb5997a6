"""A schedule whose backup disk is absent: nothing is written where it should be, and a loop waits
for it."""

import time
from datetime import timedelta

from backtestdb.backups.backup_dir import CONNECT_DISK, describe_absent
from backtestdb.console import join_advice
from backtestdb.mounts import follows_host
from backtestdb.scheduling.event_log import open_event_log
from backtestdb.scheduling.loop import (
    TICK_SECONDS,
    Scheduler,
    is_time_to_try,
    note_failure,
    tell_everybody,
    why_disk_is_absent,
)

RESTART_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
# A container whose mount does not follow the host sees the disk only after it was started anew.
RESTART_AFTER = timedelta(hours=1)


def wait_for_disk(scheduler: Scheduler) -> bool:
    """Given a loop, look every minute until the backups' disk is there or the loop is stopped.
    Return False when this process has to be started anew to see the disk."""
    began = scheduler.clock()
    while not scheduler.stop.is_set() and (reason := why_disk_is_absent(scheduler)):
        scheduler.ticked = time.monotonic()
        tell_absent_disk(scheduler, reason)

        waited = scheduler.clock() - began
        if waited > RESTART_AFTER and not follows_host(scheduler.settings.backup_dir):
            scheduler.log.info("the loop ends, to be started anew with the mounts of today")
            return False
        scheduler.stop.wait(TICK_SECONDS)

    return True


def tell_absent_disk(scheduler: Scheduler, reason: str) -> None:
    """Tell of it as of a backup that failed: in the log, to the watcher and in a message, the first
    two again after pauses."""
    if not is_time_to_try(scheduler, "disk", scheduler.clock()):
        return
    # Standard output alone: the log's files lie on that disk.
    scheduler.log = open_event_log(None)
    what = describe_absent(scheduler.settings.backup_dir, reason)
    note_failure(scheduler, "disk", join_advice(what, CONNECT_DISK))
    tell_everybody(scheduler)
