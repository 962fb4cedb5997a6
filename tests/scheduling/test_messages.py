"""One message for each change of state, by Apprise to a real receiver; and the user's commands."""

import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.config import Settings, parse_addresses
from backtestdb.database import connect
from backtestdb.errors import ProjectError
from backtestdb.health.receivers import ask_receivers
from backtestdb.scheduling.event_log import open_event_log
from backtestdb.scheduling.loop import Scheduler, tick_safely
from backtestdb.scheduling.messages import find_changes
from backtestdb.scheduling.notify import run_backup
from backup_tools import back_up, environment_of, make_platform_database, make_settings
from receivers import receiver, watcher


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = replace(make_settings(tmp_path), irreplaceable_every_minutes=0)
    make_platform_database(made.database_path)
    for name, value in environment_of(made).items():
        monkeypatch.setenv(name, value)
    made.backup_dir.mkdir()
    return made


class Clock:
    """Begins with the time of the processes that are started, and goes when it is told."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def go(self, **delta: float) -> None:
        self.now += timedelta(**delta)


def make_scheduler(settings: Settings, clock: Clock) -> Scheduler:
    log = open_event_log(settings.backup_dir)
    return Scheduler(settings=settings, log=log, clock=clock, stop=threading.Event())


def test_failure_and_recovery_are_one_message_each_however_often_it_fails(
    settings: Settings,
) -> None:
    clock = Clock()
    hidden = settings.database_path.rename(settings.database_path.with_name("hidden"))
    with receiver() as (url, got, _):
        settings = replace(settings, notify_urls=(url,))

        def look() -> None:
            """As a process of its own each time: what was told survives it."""
            tick_safely(make_scheduler(settings, clock))

        for _ in range(3):
            look()
            clock.go(hours=1)
        assert [message["type"] for message in got] == ["failure"]
        assert got[0]["title"].endswith(": backups failed")
        assert "full backup failed" in got[0]["message"]
        assert "there is no database" in got[0]["message"]

        hidden.rename(settings.database_path)
        for _ in range(2):
            look()
            clock.go(minutes=1)
    assert [message["type"] for message in got] == ["failure", "success"]
    assert "works again: backups" in got[1]["message"]


def test_suspicious_backup_is_told_once_and_again_when_it_is_accepted(settings: Settings) -> None:
    run_backup(settings, "full", datetime.now().astimezone() - timedelta(days=2))
    with closing(connect(settings.database_path)) as connection:
        connection.execute("DELETE FROM strategies")
    clock = Clock()
    with receiver() as (url, got, _):
        settings = replace(settings, notify_urls=(url,))
        scheduler = make_scheduler(settings, clock)
        for _ in range(3):
            tick_safely(scheduler)
            clock.go(minutes=1)
        assert [message["type"] for message in got] == ["failure"]
        assert "rows were lost: strategies" in got[0]["message"]

        run_backup(settings, "full", datetime.now().astimezone(), accept_loss=True)
        tick_safely(scheduler)
    assert [message["type"] for message in got] == ["failure", "success"]


def test_message_that_nobody_took_is_sent_after_a_pause_and_names_no_address(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    settings.database_path.unlink()
    with receiver() as (url, got, answer):
        answer["status"] = 503
        scheduler = make_scheduler(replace(settings, notify_urls=(url,)), clock)
        tick_safely(scheduler)
        answer["status"] = 200
        clock.go(minutes=1)
        tick_safely(scheduler)
        assert got == []
        clock.go(minutes=5)
        tick_safely(scheduler)
        assert len(got) == 1
    printed = "".join(capfd.readouterr())
    assert "the message was not delivered by NOTIFY_URLS: 1 of 1 addresses" in printed
    assert "secret-path" not in printed


def test_another_reason_of_the_same_failure_is_no_change() -> None:
    assert find_changes({"full": "one"}, {"full": "two"}) == ({}, {})
    assert find_changes({"full": "one"}, {"drill": "two"}) == ({"drill": "two"}, {"full": "one"})


def test_addresses_may_hold_a_comma() -> None:
    assert parse_addresses("json://a/?x=1,2, tgram://t/c\nntfy://n") == (
        "json://a/?x=1,2",
        "tgram://t/c",
        "ntfy://n",
    )
    with pytest.raises(ValueError, match="must be Apprise addresses"):
        parse_addresses("me@example.org")


WRITE = (
    'echo "$BACKTEST_EVENT $BACKTEST_KIND ${BACKTEST_PATH##*/} $BACKTEST_REASON"'
    ' >>"$BACKUP_DIR/told"'
)


def test_commands_see_what_happened_and_never_make_a_good_backup_bad(settings: Settings) -> None:
    said: list[str] = []
    broken = replace(settings, before_backup="echo no luck; exit 3", after_backup=WRITE)
    outcome = back_up(broken, hooks=Hooks(say=said.append))
    assert outcome.backup.is_verified
    assert "warning: BEFORE_BACKUP failed: exit code 3: no luck" in said
    told = settings.backup_dir / "told"
    assert told.read_text().split() == ["AFTER_BACKUP", "full", outcome.backup.path.name]

    told.unlink()
    settings.database_path.unlink()
    with pytest.raises(ProjectError):
        back_up(replace(settings, on_failure=WRITE))
    assert told.read_text().startswith("ON_FAILURE full  there is no database at")


def test_scheduled_failure_runs_the_command_once(settings: Settings) -> None:
    clock = Clock()
    settings.database_path.unlink()
    scheduler = make_scheduler(replace(settings, on_failure=WRITE), clock)
    for _ in range(3):
        tick_safely(scheduler)
        clock.go(hours=1)
    assert (settings.backup_dir / "told").read_text().count("ON_FAILURE backups") == 1


def test_doctor_online_sends_a_test_to_watcher_and_person(settings: Settings) -> None:
    with receiver() as (address, got, answer), watcher() as (url, paths):
        asked = replace(settings, notify_urls=(address,), heartbeat_url=url)
        assert [problem.level for problem in ask_receivers(asked)] == ["ok", "ok"]
        answer["status"] = 503
        assert [problem.level for problem in ask_receivers(asked)] == ["ok", "wrong"]
    assert paths == ["/ping/secret-id/start"] * 2
    assert "a test" in got[0]["title"]


def test_address_that_fails_makes_no_second_message_for_the_other(settings: Settings) -> None:
    clock = Clock()
    settings.database_path.unlink()
    with receiver() as (url, got, _):
        both = replace(settings, notify_urls=("json://127.0.0.1:9/nobody", url))
        scheduler = make_scheduler(both, clock)
        for _ in range(3):
            tick_safely(scheduler)
            clock.go(hours=1)
    assert len(got) == 1
