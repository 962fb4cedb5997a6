"""The heartbeat goes out on success and failure, and never costs a backup."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.errors import ProjectError
from backtestdb.scheduling import notify
from backup_tools import back_up, make_platform_database, make_settings, verified_names
from receivers import watcher


def test_heartbeat_tells_success_and_failure(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with watcher() as (url, paths):
        settings = replace(settings, heartbeat_url=url)
        with pytest.raises(ProjectError):
            back_up(settings)
        make_platform_database(settings.database_path)
        back_up(settings)
        back_up(settings, "irreplaceable")
    start, success = "/ping/secret-id/start", "/ping/secret-id"
    assert paths[0] == start
    assert paths[1].startswith("/ping/secret-id/fail there is no database at")
    assert paths[2:] == [start, success, start, success]


@pytest.mark.parametrize(
    ("url", "event", "expected"),
    [
        ("https://hc/ping/1", "start", "https://hc/ping/1/start"),
        ("https://hc/ping/1/?a=b", "fail", "https://hc/ping/1/fail?a=b"),
        ("https://hc/ping/1?a=b", "success", "https://hc/ping/1?a=b"),
        (
            "https://kuma/api/push/k?status=up&msg=OK&ping=",
            "success",
            "https://kuma/api/push/k?status=up&msg=OK",
        ),
        (
            "https://kuma/api/push/k?status=up&msg=OK&ping=",
            "fail",
            "https://kuma/api/push/k?status=down&msg=no+disk",
        ),
        ("https://kuma/api/push/k?status=up", "start", None),
    ],
)
def test_address_of_an_event_goes_to_the_path_and_a_push_address_gets_its_query(
    url: str, event: notify.Event, expected: str | None
) -> None:
    assert notify.make_address(url, event, "no disk") == expected


def test_heartbeat_is_repeated_twice_and_then_told() -> None:
    said: list[str] = []
    with watcher(status=503) as (url, paths):
        notify.send_heartbeat(url, "success", say=said.append)
    assert len(paths) == notify.ATTEMPTS
    assert said == ["the heartbeat was not delivered: the answer was 503"]


@pytest.mark.parametrize("case", ["error", "slow", "refused", "no address"])
def test_heartbeat_that_fails_delays_nothing_and_says_so_without_its_address(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LIMIT_SECONDS", 0.5)
    settings = make_settings(tmp_path)
    make_platform_database(settings.database_path)
    said: list[str] = []
    with watcher(status=500, delay_seconds=30 if case == "slow" else 0) as (url, _):
        bad = {"refused": "http://127.0.0.1:9/secret-id", "no address": "secret-id"}
        started = time.monotonic()
        back_up(replace(settings, heartbeat_url=bad.get(case, url)), hooks=Hooks(say=said.append))
        assert time.monotonic() - started < 25  # the server holds its answer for 30
    assert len(verified_names(settings.backup_dir)) == 1
    assert "heartbeat was not delivered" in said[-1]
    assert "secret-id" not in " ".join(said)
