"""The scheduler: asks what is due, starts a process for each backup, outlives whatever happens to
it."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import schedule

from backtestdb.backups.backup_dir import (
    CONNECT_DISK,
    AbsentDiskError,
    describe_absent,
    find_reason_to_keep_off,
)
from backtestdb.backups.catalogue import lock_backups
from backtestdb.backups.drill import NO_ROOM, drill_is_due, load_last_drill
from backtestdb.backups.leftovers import clean_leftovers
from backtestdb.backups.manifest import Kind
from backtestdb.config import PROJECT_DIR, Settings
from backtestdb.console import describe_error, format_bytes, join_advice
from backtestdb.errors import ProjectError
from backtestdb.scheduling.due import RETRY_LAST, BackupTimes, find_stale, retry_at, what_is_due
from backtestdb.scheduling.health import (
    find_kinds_that_failed_a_drill,
    find_offsite_overdue,
    find_suspicion,
    load_backup_times,
    load_liveness,
    make_liveness,
    save_liveness,
)
from backtestdb.scheduling.messages import (
    find_changes,
    load_told,
    make_message,
    save_told,
    send_message,
    told_path,
)
from backtestdb.scheduling.notify import send_heartbeat
from backtestdb.scheduling.updates import UpdateTask, find_due_updates
from backtestdb.scheduling.user_commands import run_user_command

Task = Kind | Literal["drill", "disk", "message"] | UpdateTask
Job = Literal["backups", "updates"]
OPTIONS: dict[Task, tuple[str, ...]] = {
    "full": ("backup_database.py", "--json", "--no-heartbeat"),
    "irreplaceable": ("backup_database.py", "--json", "--irreplaceable-only", "--no-heartbeat"),
    "drill": ("run_drill.py", "--json"),
    "update": ("update_database.py", "--json"),
    "audit": ("audit_database.py", "--json"),
}
WORDS: dict[Task, str] = {
    **{"full": "full backup", "irreplaceable": "small backup", "drill": "drill"},
    **{"update": "update of the market data", "audit": "audit of the market data"},
    **{"disk": "the backups' disk", "message": "a message"},
}
# What is told beside the tasks: rows that the newest backup misses.
STATE_WORDS: dict[str, str] = {
    **{str(task): words for task, words in WORDS.items()},
    **{"rows": "comparison with the last backup", "backups": "backups"},
    "offsite": "copies off this machine",
}
NAMED_AT_MOST = 3
TICK_SECONDS = 60
LOOK_SECONDS = 0.2
# A process that is told to end has 8 seconds altogether; the rest is for cleaning up.
FINISH_SECONDS = 6.0
RUN_LIMIT_SECONDS = 2 * 3600.0
# 5-minute bars of a large universe at 5 requests a minute take hours. A killed update continues.
UPDATE_LIMIT_SECONDS = 24 * 3600.0
STUCK_SECONDS = 15 * 60.0
STUCK_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


@dataclass(kw_only=True)
class Scheduler:
    """What one scheduler knows while it runs. `job`: backups and drills, or updates and audits of
    the market data, each in a process of its own, so that neither waits for the other. `attempts`
    and `not_before` are forgotten with the process: at a start, overdue means now. `failures` (task
    -> reason) are kept in the liveness file until that task succeeds; `told`: those that the last
    message was about. `clock` returns the time with its zone; `stop` is set by a signal."""

    settings: Settings
    log: logging.Logger
    clock: Callable[[], datetime]
    stop: threading.Event
    kind: Literal["loop", "once"] = "loop"
    job: Job = "backups"
    attempts: dict[Task, int] = field(default_factory=dict)
    not_before: dict[Task, datetime] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    ticked: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        left = load_liveness(self.folder, self.settings.database_path)
        self.failures = dict(left.failures) if left else {}
        self.told = load_told(told_path(self.settings.database_path, self.job))

    @property
    def folder(self) -> Path:
        return folder_of(self.settings, self.job)


def folder_of(settings: Settings, job: Job) -> Path:
    """Return where a job keeps its sign of life and its log: market data is updated also while the
    backups' disk is away."""
    return settings.backup_dir if job == "backups" else settings.state_dir


def why_disk_is_absent(scheduler: Scheduler) -> str:
    """Return why the backups' disk is not there; empty while it is. Market data is updated without
    it."""
    settings = scheduler.settings
    if scheduler.job != "backups":
        return ""
    return find_reason_to_keep_off(settings.backup_dir, settings.database_path)


def run_loop(scheduler: Scheduler) -> None:
    """Ask at once and then every minute, until `stop` is set or the backups' disk goes away."""
    jobs = schedule.Scheduler()
    threading.Thread(target=end_when_stuck, args=(scheduler,), daemon=True).start()
    tick_safely(scheduler)
    while not scheduler.stop.is_set() and not why_disk_is_absent(scheduler):
        plan_ticks(jobs, lambda: tick_safely(scheduler))
        jobs.run_pending()
        scheduler.stop.wait(min(max(jobs.idle_seconds or 0.0, 0.0), TICK_SECONDS))


def end_when_stuck(scheduler: Scheduler) -> None:
    """End the process of a loop that has not looked for STUCK_SECONDS: it hangs, say on a disk that
    does not answer, and what started it starts it anew. While a backup is made, the loop looks at
    it every LOOK_SECONDS."""
    while not scheduler.stop.wait(TICK_SECONDS):
        if time.monotonic() - scheduler.ticked > STUCK_SECONDS:
            os._exit(STUCK_EXIT_CODE)


def plan_ticks(jobs: schedule.Scheduler, tick: Callable[[], object]) -> None:
    """Plan the next look. `schedule` plans in local wall-clock time: when the clock goes back, in
    autumn or by hand, its next run lies up to an hour or more ahead. Such a plan is made anew."""
    if jobs.idle_seconds is None or jobs.idle_seconds > TICK_SECONDS:
        jobs.clear()
        jobs.every(TICK_SECONDS).seconds.do(tick)


def tick_safely(scheduler: Scheduler) -> bool:
    """Make what is due; return whether nothing failed. The disk of the backups may come and go
    meanwhile."""
    try:
        return tick(scheduler)
    except (ProjectError, OSError, sqlite3.Error) as error:
        scheduler.log.error("the schedule could not be looked at: %s", describe_error(error))
        return False


def tick(scheduler: Scheduler) -> bool:
    """Look once: say that the scheduler lives, then make what is due; return whether nothing
    failed."""
    settings, now = scheduler.settings, scheduler.clock()
    if reason := why_disk_is_absent(scheduler):
        raise AbsentDiskError(describe_absent(settings.backup_dir, reason), next_step=CONNECT_DISK)
    save_liveness_if_possible(scheduler)

    due: Sequence[Task] = (
        find_due(settings, now) if scheduler.job == "backups" else find_due_updates(settings, now)
    )
    if settle_failures(scheduler, due):
        save_liveness_if_possible(scheduler)
    wanted = [task for task in due if is_time_to_try(scheduler, task, now)]
    if not wanted:
        tell_person(scheduler)
        return True

    # The loop tells the watcher, not its child: one that the system kills has no last words.
    had_failed = bool(scheduler.failures)
    if scheduler.job == "backups":
        send_heartbeat(settings.heartbeat_url, "start", say=scheduler.log.info)
    results = [make_one(scheduler, task) for task in wanted if not scheduler.stop.is_set()]
    # Watchers wait for the rhythm of the backups: an update that is well is no event.
    if not scheduler.stop.is_set():
        if scheduler.job == "backups" or had_failed or scheduler.failures:
            tell_watcher(scheduler)
        tell_person(scheduler)

    return all(results)


def settle_failures(scheduler: Scheduler, due: Sequence[Task]) -> list[str]:
    """Forget and return what failed and is not due any more: it was made by hand since."""
    # Not a drill or an audit: failed, it is not due at once, and stays a failure until the next
    # one.
    settled: list[str] = [
        task
        for task in ("full", "irreplaceable", "update", "disk")
        if task in scheduler.failures and task not in due
    ]
    for task in settled:
        del scheduler.failures[task]
    return settled


def find_due(settings: Settings, now: datetime) -> list[Task]:
    """Return the backups and the drill that are to be made now, the most important first."""
    taken = load_backup_times(settings.backup_dir, settings.database_path)
    due: list[Task] = [
        *what_is_due(
            now,
            taken,
            backup_time=settings.backup_time,
            every_minutes=settings.irreplaceable_every_minutes,
        )
    ]

    failed = find_kinds_that_failed_a_drill(settings.backup_dir, settings.database_path)
    due += [kind for kind in failed if kind not in due]

    last_drill = load_last_drill(settings.backup_dir, settings.database_path)
    if is_a_day_old(taken, now) and drill_is_due(last_drill, now):
        due.append("drill")

    return due


def tell_everybody(scheduler: Scheduler) -> None:
    tell_watcher(scheduler)
    tell_person(scheduler)


def tell_watcher(scheduler: Scheduler) -> None:
    """Tell the watcher of success only when nothing that should have succeeded waits for its next
    attempt."""
    settings, say = scheduler.settings, scheduler.log.info
    taken = load_backup_times(settings.backup_dir, settings.database_path)
    other = load_liveness(
        folder_of(settings, "updates" if scheduler.job == "backups" else "backups"),
        settings.database_path,
    )
    others = other.failures.values() if other else ()

    state = find_state(scheduler)
    reasons = [*state.values(), *others, find_stale(scheduler.clock(), taken.full)]
    reason = "\n".join(filter(None, reasons))
    send_heartbeat(settings.heartbeat_url, "fail" if reason else "success", reason=reason, say=say)


def find_state(scheduler: Scheduler) -> dict[str, str]:
    """Return what is wrong now, by task: what failed, and rows that the newest backup misses."""
    settings = scheduler.settings
    if scheduler.job != "backups" or why_disk_is_absent(scheduler):
        return scheduler.failures
    lost = find_suspicion(settings.backup_dir, settings.database_path)
    state = scheduler.failures | ({"rows": f"rows were lost: {lost}"} if lost else {})
    behind = find_offsite_overdue(settings, scheduler.clock())
    return state | ({"offsite": "; ".join(behind)} if behind else {})


def join_backups(state: Mapping[str, str]) -> dict[str, str]:
    """Return the state with both kinds of backup as one."""
    # What stops one of them, such as a full disk, soon stops the other: one piece of news. A drill
    # that found no room is part of it.
    joined = {
        task: why
        for task, why in state.items()
        if task in {"full", "irreplaceable"} or (task == "drill" and NO_ROOM in why)
    }
    others = {task: why for task, why in state.items() if task not in joined}
    return others | ({"backups": "\n".join(joined.values())} if joined else {})


def tell_person(scheduler: Scheduler) -> None:
    """Send a message and run ON_FAILURE, once for each change of state."""
    settings = scheduler.settings
    if not (settings.notify_urls or settings.on_failure):
        return

    state = join_backups(find_state(scheduler))
    began, ended = find_changes(scheduler.told, state)
    if not (began or ended) or not is_time_to_try(scheduler, "message", scheduler.clock()):
        return

    message = make_message(began, ended, STATE_WORDS, settings.database_path)
    if settings.notify_urls and not send_message(
        settings.notify_urls, message, say=scheduler.log.info
    ):
        # Tried again after a pause, and by then it may be another message.
        attempts = scheduler.attempts["message"] = scheduler.attempts.get("message", 0) + 1
        scheduler.not_before["message"] = retry_at(scheduler.clock(), attempts)
        return

    scheduler.attempts.pop("message", None)
    if began:
        reason, what = "\n".join(began.values()), ", ".join(began)
        run_user_command(settings, "ON_FAILURE", scheduler.log.error, kind=what, reason=reason)

    scheduler.told = dict(state)
    save_told(told_path(settings.database_path, scheduler.job), scheduler.told)


def is_a_day_old(taken: BackupTimes, now: datetime) -> bool:
    """Tell whether the oldest full backup is a day old: the first drill waits for that, because the
    first day of a schedule has enough to watch."""
    return bool(taken.full) and now - min(taken.full) >= timedelta(days=1)


def is_time_to_try(scheduler: Scheduler, kind: Task, now: datetime) -> bool:
    """Tell whether a task may be tried: after a failure there is a pause, unless the clock was set
    back so far that it would never end."""
    after = scheduler.not_before.get(kind)
    return after is None or now >= after or after - now > RETRY_LAST


def make_one(scheduler: Scheduler, kind: Task) -> bool:
    """Make one backup, or hold a drill; return False when it failed. What a signal
    interrupts is no failure."""
    scheduler.log.info("%s started", WORDS[kind])
    started = time.monotonic()

    code, out, err = run_process(scheduler, kind)
    if code == 0:
        forget_failures(scheduler, kind)
        if kind == "update":
            # It may have found that the key's plan has the last session tomorrow: it is due still,
            # and not at once.
            scheduler.not_before[kind] = scheduler.clock() + RETRY_LAST

        scheduler.log.info(
            "%s ok: %s, %.1f s", WORDS[kind], describe_made(out), time.monotonic() - started
        )
        for warning in find_warnings(err):
            scheduler.log.error(warning)

    elif is_suspicious(out):
        # It was made, and counts; what it misses is told until it is accepted or brought back.
        forget_failures(scheduler, kind)
        scheduler.log.error("%s made: %s", WORDS[kind], describe_failure(err, out))
    elif scheduler.stop.is_set() and code < 0:
        scheduler.log.info("%s interrupted: it will be made at the next start", WORDS[kind])
    else:
        note_failure(
            scheduler,
            kind,
            f"{WORDS[kind]} failed ({describe_code(code, kind)}): {describe_failure(err, out)}",
        )

    save_liveness_if_possible(scheduler)
    return code == 0 or scheduler.stop.is_set()


def forget_failures(scheduler: Scheduler, kind: Task) -> None:
    for notes in (scheduler.attempts, scheduler.not_before, scheduler.failures):
        notes.pop(kind, None)


def is_suspicious(out: str) -> bool:
    """Tell whether a backup was made that misses rows, by what its process printed for programs."""
    try:
        made = json.loads(out)
        return bool(made[0]["losses"]) and not made[0]["loss_accepted"]
    except (ValueError, LookupError, TypeError):
        return False


def describe_code(code: int, kind: Task) -> str:
    """Return how a process ended; a negative code is the signal that killed it."""
    if code == -signal.SIGKILL:
        return (
            f"killed by signal 9: out of memory, or the limit of {limit_seconds(kind) / 3600:.0f} h"
        )
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def note_failure(scheduler: Scheduler, kind: Task, message: str) -> None:
    scheduler.attempts[kind] = scheduler.attempts.get(kind, 0) + 1
    scheduler.not_before[kind] = retry_at(scheduler.clock(), scheduler.attempts[kind])
    scheduler.failures[kind] = message
    scheduler.log.error(
        "%s; tried again at %s", message, f"{scheduler.not_before[kind].astimezone():%H:%M}"
    )


def run_process(scheduler: Scheduler, kind: Task) -> tuple[int, str, str]:
    """Return exit code (negative: killed), standard output and standard error of the backup's
    process."""
    script, *options = OPTIONS[kind]
    with subprocess.Popen(
        [sys.executable, str(PROJECT_DIR / "scripts" / script), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches this process only
    ) as process:
        out, err = wait_for(scheduler, kind, process)

    # After `stop` it had FINISH_SECONDS; a backup survives its kill by design.
    if process.returncode < 0 and scheduler.job == "backups" and not why_disk_is_absent(scheduler):
        with lock_backups(scheduler.settings.backup_dir):
            for message in clean_leftovers(scheduler.settings.backup_dir):
                scheduler.log.info(message)

    return process.returncode, out, err


def wait_for(scheduler: Scheduler, kind: Task, process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return standard output and error of a process that ends by itself, at its limit, or soon
    after `stop`."""
    kill_at = time.monotonic() + limit_seconds(kind)
    next_liveness = 0.0

    while True:
        scheduler.ticked = time.monotonic()
        if scheduler.stop.is_set():
            kill_at = min(kill_at, time.monotonic() + FINISH_SECONDS)
        if time.monotonic() > kill_at:
            process.kill()

        if time.monotonic() > next_liveness:
            next_liveness = time.monotonic() + TICK_SECONDS
            save_liveness_if_possible(scheduler, kind)

        try:
            return process.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def limit_seconds(kind: Task) -> float:
    return UPDATE_LIMIT_SECONDS if kind == "update" else RUN_LIMIT_SECONDS


def save_liveness_if_possible(scheduler: Scheduler, running: Task | None = None) -> None:
    """Leave a sign of life where that is possible."""
    settings = scheduler.settings
    scheduler.ticked = time.monotonic()
    if why_disk_is_absent(scheduler):
        return

    liveness = make_liveness(
        scheduler.kind,
        scheduler.clock(),
        settings.database_path,
        running=WORDS[running] if running else "",
        failures=scheduler.failures,
    )
    try:
        save_liveness(scheduler.folder, settings.database_path, liveness)
    # A full disk is for the backup to report, and no reason not to try it.
    except OSError as error:
        scheduler.log.error("the sign of life could not be written: %s", describe_error(error))


def describe_made(out: str) -> str:
    """Return what the process printed for programs, on one line."""
    try:
        made = json.loads(out)
        if isinstance(made, dict):
            return describe_drill(made) if "rehearsals" in made else describe_market_run(made)
        backup = made[0]
        name = str(backup["path"]).rpartition("/")[2]
        rows = sum((backup["rows"] or {}).values())
        return f"{name}, {format_bytes(backup['bytes'])}, {rows:,} rows"
    except (ValueError, LookupError, TypeError):
        return " ".join(out.split())[:200]


def describe_drill(made: Mapping[str, Any]) -> str:
    """Return what failed of a drill, with the reason, else which backups were restored."""
    failed = [f"{one['backup']}: {one['problem']}" for one in made["rehearsals"] if one["problem"]]
    if made["problem"] or failed:
        return "; ".join(filter(None, [made["problem"], *failed]))
    return ", ".join(one["backup"] for one in made["rehearsals"])


def describe_market_run(made: Mapping[str, Any]) -> str:
    """Return an update's or an audit's result, as far as it fits a line: what failed, else how much
    was new."""
    failures = [
        f"{what}: {why}"
        for report in made.get("reports", ())
        for what, why in report["failures"].items()
    ]
    failures += [made[name] for name in ("splits_failure", "list_failure") if made.get(name)]
    if failures:
        more = (
            f", and {len(failures) - NAMED_AT_MOST} more" if len(failures) > NAMED_AT_MOST else ""
        )
        return "; ".join(failures[:NAMED_AT_MOST]) + more

    if "reports" in made:
        bars, requests = (
            sum(report[name] for report in made["reports"]) for name in ("bars", "requests")
        )
        return f"{bars:,} bars by {requests:,} requests"

    levels = [finding["level"] for finding in made.get("findings", ())]
    return f"{levels.count('error')} errors, {levels.count('warning')} warnings; next: make audit"


def find_warnings(err: str) -> list[str]:
    """Return what a process that succeeded warned of, such as a command of the user's that
    failed."""
    return [
        "warning: " + line.partition("warning: ")[2]
        for line in err.splitlines()
        if "warning: " in line
    ]


def describe_failure(err: str, out: str = "") -> str:
    """Return what console.print_error wrote, on one line; where it wrote nothing, the result for
    programs."""
    lines = err.strip().splitlines()
    what = next(
        (line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), ""
    )
    advice = next((line.partition("next: ")[2] for line in reversed(lines) if "next: " in line), "")
    if what:
        return join_advice(what, advice)
    return (describe_made(out) if out.strip() else "") or "; ".join(lines[-1:]) or "it was killed"
