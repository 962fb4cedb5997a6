"""A year of one machine: it sleeps, is switched off, goes on holiday; the vendor is away for two
days, the backups' disk is full for three.

The clock is the test's. The schedule, the backups, the drills, the updates against the sandbox, the
watchers of messages are the project's own; what the loop starts as a process runs in this one, so
that it sees the same clock.
"""

import contextlib
import io
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from backtestdb import console
from backtestdb.backups import report
from backtestdb.backups.catalogue import load_catalogue
from backtestdb.backups.drill import run_drill
from backtestdb.config import Settings, load_settings
from backtestdb.market import cli
from backtestdb.market.sessions import last_completed_session, load_calendar, sessions_between
from backtestdb.new_york import NEW_YORK
from backtestdb.scheduling import loop
from backtestdb.scheduling.event_log import open_event_log
from backtestdb.scheduling.loop import Job, Scheduler, Task, tick_safely
from backtestdb.scheduling.notify import run_backup
from contents import query_all
from market_runs import KEY, make_database, make_source
from market_runs import run_backfill as backfill
from receivers import receiver
from sandbox_process import SandboxProcess, running_sandbox

TICKERS = ["AAPL", "MSFT"]
STEP = timedelta(hours=1)
# By then of a day the machine has had the time for a pause after a failure, an hour at most.
SETTLED = timedelta(hours=2)
DAY = timedelta(days=1)


@dataclass
class Machine:
    """One machine and the world around it. `failures`: what its messages were about."""

    settings: Settings
    sandbox: SandboxProcess
    folder: Path
    now: datetime
    schedulers: dict[Job, Scheduler] = field(default_factory=dict)
    disk_is_full: bool = False

    def clock(self) -> datetime:
        return self.now.astimezone(UTC)

    def boot(self) -> None:
        """What the memory of the loops held is gone."""
        self.schedulers = {
            job: Scheduler(
                settings=self.settings,
                log=open_event_log(None),
                clock=self.clock,
                stop=threading.Event(),
                job=job,
            )
            for job in ("backups", "updates")
        }

    def look(self) -> None:
        self.sandbox.set_today(self.now.astimezone(NEW_YORK).date().isoformat())
        for scheduler in self.schedulers.values():
            tick_safely(scheduler)

    def run_process(self, _scheduler: Scheduler, kind: Task) -> tuple[int, str, str]:
        """In the place of the loop's: exit code, standard output and error of the command."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = console.guard(lambda _: self.run_command(kind), None)
        return code, out.getvalue(), err.getvalue()

    def run_command(self, kind: Task) -> int:
        if kind == "drill":
            done, written = run_drill(self.settings, self.now.astimezone(), say=console.say)
            print(written.read_text())
            return console.DONE if done.is_good else console.FAILED
        if kind == "update":
            asked = SimpleNamespace(again=False, tickers=[], end=None, plan=False, json=True)
            source = replace(
                make_source(self.folder, self.sandbox.url, self.now.date().isoformat()),
                clock=self.clock,
            )
            return cli.run_update(self.settings, asked, self.clock(), source)  # type: ignore[arg-type]
        assert kind in {"full", "irreplaceable"}
        outcome = run_backup(self.settings, kind, self.now.astimezone())  # type: ignore[arg-type]
        print(report.backups_as_json([outcome.backup], {}))
        return report.print_faults(outcome)

    def stored_until(self) -> set[object]:
        query = (
            """SELECT date(max(timestamp) / 1000, 'unixepoch') FROM ohlcv_data GROUP BY ticker"""
        )
        return {row[0] for row in query_all(self.settings.database_path, query)}


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Machine, list[dict[str, str]]]]:
    folder = tmp_path / "live"
    database = make_database(folder, few=TICKERS)
    begin = date(2025, 1, 2)
    with running_sandbox("--tickers", "60", today=begin.isoformat()) as sandbox:
        source = make_source(folder, sandbox.url, begin.isoformat())
        backfill(source, database, "2024-12-20", begin.isoformat(), "few")
        with receiver() as (url, got, _):
            values = {
                "DATABASE_PATH": str(database),
                "BACKUP_DIR": str(tmp_path / "backups"),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "POLYGON_BASE_URL": sandbox.url,
                "POLYGON_API_KEY": KEY,
                "POLYGON_REQUESTS_PER_MINUTE": "0",
                "NOTIFY_URLS": url,
                "IRREPLACEABLE_EVERY_MINUTES": "1440",
                # Nothing gives way: a full disk is a failure.
                "MIN_BACKUPS": "400",
            }
            settings = load_settings(values, tmp_path / "no.env")
            settings.backup_dir.mkdir()
            settings.state_dir.mkdir(parents=True)
            start = datetime(2025, 1, 3, 9, tzinfo=NEW_YORK)
            made = Machine(settings, sandbox, folder, start)
            monkeypatch.setattr(loop, "run_process", made.run_process)
            monkeypatch.setattr(loop, "find_due_updates", without_audit(loop.find_due_updates))
            usage = shutil.disk_usage
            full = SimpleNamespace(total=1, used=1, free=0)
            monkeypatch.setattr(
                shutil, "disk_usage", lambda path: full if made.disk_is_full else usage(path)
            )
            yield made, got


def without_audit(find: object) -> object:
    """The audit keeps its date by the system's clock."""
    return lambda settings, now: [task for task in find(settings, now) if task != "audit"]  # type: ignore[operator]


def hours_of(day: date, rng: random.Random, away: range) -> tuple[int, int, bool]:
    """From which hour to which the machine is awake on a day, New York time (the same: not at all),
    and whether it was switched off before."""
    if day.timetuple().tm_yday in away or (day.weekday() > 4 and rng.random() < 0.5):
        return 0, 0, True
    begin = rng.choice([7, 8, 9, 13, 19])
    return begin, min(begin + rng.choice([3, 8, 14]), 24), rng.random() < 0.3


def live(
    machine: Machine, days: int, *, outage: range, full: range, away: range, seed: int
) -> None:
    """Let the days pass; the ranges are of days of the year."""
    calendar, rng = load_calendar(), random.Random(seed)
    first = machine.now.date()
    machine.boot()
    for day in (first + timedelta(n) for n in range(days)):
        begin, end, was_off = hours_of(day, rng, away)
        number = day.timetuple().tm_yday
        if number in (*outage, *full):
            begin, end = 8, 14
        faults = [{"match": "/", "kind": "gateway", "status": 404, "times": None}]
        machine.sandbox.set_faults(*(faults if number in outage else []))
        machine.disk_is_full = number in full
        if was_off and begin != end:
            machine.boot()
        woke = datetime.combine(day, time(begin), NEW_YORK)
        for hour in range(begin, end):
            machine.now = datetime.combine(day, time(hour, 50), NEW_YORK)
            machine.look()
            if number not in outage and machine.now - woke >= min(
                SETTLED, STEP * (end - begin - 1)
            ):
                # The next morning: all that was final when it woke.
                wanted = last_completed_session(calendar, woke.astimezone(UTC))
                assert min(machine.stored_until()) >= wanted.isoformat(), machine.now  # type: ignore[type-var]
    machine.sandbox.set_faults()


def check(machine: Machine, got: list[dict[str, str]], *, days: int, outages: int) -> None:
    last = last_completed_session(load_calendar(), machine.now.astimezone(UTC))
    sessions = sessions_between(load_calendar(), date(2024, 12, 20), last)
    query = "SELECT ticker, count(*) FROM ohlcv_data GROUP BY ticker ORDER BY ticker"
    stored = dict(query_all(machine.settings.database_path, query))
    assert set(stored) == set(TICKERS)
    assert min(stored.values()) >= len(sessions) - 1  # today's, when it ended before the close
    # The vendor's outage and the full disk: each begins once and ends once.
    types = [message["type"] for message in got]
    assert sorted(types) == ["failure"] * outages + ["success"] * outages, "\n".join(
        m["message"] for m in got
    )
    kept = [backup for backup in load_catalogue(machine.settings.backup_dir) if backup.is_verified]
    assert len(kept) > min(days, 30) // 3


def test_week_with_an_outage_and_a_full_disk_is_two_messages_of_each(
    machine: tuple[Machine, list[dict[str, str]]],
) -> None:
    one, got = machine
    live(one, 7, outage=range(7, 8), full=range(8, 9), away=range(3), seed=1)
    check(one, got, days=7, outages=2)


@pytest.mark.long
@pytest.mark.parametrize("days", [90, 362])
def test_year_stores_each_session_by_the_next_morning_and_tells_each_change_once(
    machine: tuple[Machine, list[dict[str, str]]], days: int
) -> None:
    one, got = machine
    away = range(30, 40) if days < 100 else range(200, 215)
    live(one, days, outage=range(50, 52), full=range(70, 73), away=away, seed=days)
    check(one, got, days=days, outages=2)
