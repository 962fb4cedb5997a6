"""Networks, servers and keys that fail: each ends within a minute with its cause, and nothing secret is said."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_proxy import FULL, SKEWED, SLOW_DOWN, Faults, running_proxy
from offsite_tools import PASSPHRASE, Site, make_site
from s3_server import S3Server

from backtestdb.errors import ProjectError
from backtestdb.offsite.target import open_remote
from backup_tools import change, make_platform_database, read_all

FAULTS = {
    "clock": (Faults(answer=SKEWED), "clock differs", "set the clock right"),
    "full": (Faults(answer=FULL), "the store is full", "offsite-prune"),
    "busy": (Faults(answer=SLOW_DOWN), "asks for fewer requests", "go on by themselves"),
    "hangs up": (Faults(close=True), "cannot be reached", "check the network"),
    "cut short": (Faults(cut_after=10), "cannot be reached", "check the network"),
}


def make_s3_site(folder: Path, s3: S3Server, endpoint: str = "", user: str = "") -> Site:
    prefix = f"failing-{random.getrandbits(40):x}"
    site = make_site(folder, s3.target(prefix, user, endpoint))
    make_platform_database(site.settings.database_path, journal="WAL")
    site.settings.backup_dir.mkdir(parents=True, exist_ok=True)
    return site


def fail(work: Callable[[], object], limit_seconds: float = 60.0) -> str:
    """What the failure says. It comes in time and names no secret."""
    started = time.monotonic()
    with pytest.raises(ProjectError) as caught:
        work()
    assert time.monotonic() - started < limit_seconds
    told = f"{caught.value}; next: {caught.value.next_step}"
    assert PASSPHRASE not in told
    return told


@pytest.mark.parametrize("name", FAULTS)
def test_each_failure_of_the_server_is_told_with_its_cause_and_caught_up(
    name: str, tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, cause, next_step = FAULTS[name]
    with running_proxy(s3.endpoint) as proxy:
        site = make_s3_site(tmp_path, s3, proxy.endpoint)
        site.init()
        site.send()
        change(site.settings.database_path, "while it fails")
        proxy.faults = replace(faults, when=lambda _method, path: "key.age" not in path)
        told = fail(site.send)
        assert cause in told
        assert next_step in told

        proxy.faults = Faults()
        site.send()
        expected = read_all(site.settings.database_path)
        site.wipe()
        assert site.restore(capsys)[0] == 0
        assert read_all(site.settings.database_path)["strategies"] == expected["strategies"]


def test_a_server_that_never_answers_is_given_up_within_a_minute(tmp_path: Path, s3: S3Server) -> None:
    with running_proxy(s3.endpoint) as proxy:
        site = make_s3_site(tmp_path, s3, proxy.endpoint)
        proxy.faults = Faults(silent=True)
        assert "no answer within" in fail(site.send)


def test_a_server_that_is_gone_is_told_at_once(tmp_path: Path, s3: S3Server) -> None:
    site = make_s3_site(tmp_path, s3, "http://127.0.0.1:1")
    assert "cannot be reached" in fail(site.send)


def test_a_missing_bucket_and_wrong_keys_are_told(
    tmp_path: Path, s3: S3Server, s3_with_users: S3Server
) -> None:
    site = make_s3_site(tmp_path, s3)
    no_bucket = Site(replace(site.settings, offsite="s3://no-such-bucket/x"))
    assert "the bucket does not exist" in fail(no_bucket.send)

    stranger = make_s3_site(tmp_path / "a", s3_with_users)
    assert "does not know this access key" in fail(stranger.send)
    daily = make_s3_site(tmp_path / "b", s3_with_users, user="daily")
    wrong = Site(replace(daily.settings, offsite_secret="not-the-secret"))
    assert "the secret does not belong to the access key" in fail(wrong.send)


def test_a_wrong_passphrase_and_a_target_without_a_key_are_told(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    assert "holds no key.age" in fail(lambda: open_remote(site.settings))
    site.init()
    other = replace(site.settings, offsite_passphrase="another long one")
    assert "OFFSITE_PASSPHRASE does not open" in fail(lambda: open_remote(other))
    assert "OFFSITE_PASSPHRASE is empty" in fail(
        lambda: open_remote(replace(site.settings, offsite_passphrase=""))
    )
    assert "OFFSITE is empty" in fail(lambda: open_remote(replace(site.settings, offsite="")))


@pytest.mark.parametrize("direction", ["change_request", "change_answer"])
def test_bytes_that_change_on_the_way_never_count_as_sent(
    direction: str, tmp_path: Path, s3: S3Server
) -> None:
    def flip(method: str, path: str, body: bytes) -> bytes:
        is_segment = "/segments/" in path and method == ("PUT" if direction == "change_request" else "GET")
        return body[:-1] + bytes([body[-1] ^ 1]) if is_segment and body else body

    with running_proxy(s3.endpoint) as proxy:
        site = make_s3_site(tmp_path, s3, proxy.endpoint)
        site.init()
        setattr(proxy.faults, direction, flip)
        assert "other bytes" in fail(site.send)
        assert not site.copies()


def test_a_server_that_overwrites_is_named_and_still_nothing_is_written_twice(
    tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    from backtestdb.offsite.cli import run_init

    with running_proxy(s3.endpoint) as proxy:
        proxy.faults = Faults(drop_conditions=True)
        site = make_s3_site(tmp_path, s3, proxy.endpoint)
        run_init(site.settings)
        assert "this store overwrites a name that is taken" in capsys.readouterr().out
        site.back_up()
        for number in range(4):
            change(site.settings.database_path, f"change {number}")
            site.send()
        run_init(site.settings)
    written = [path for method, path, _ in proxy.log if method == "PUT" and "/probe/" not in path]
    assert len(written) == len(set(written)) > 8


def test_put_only_keys_do_everything_but_pruning(
    tmp_path: Path, s3_with_users: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    from backtestdb.offsite.cli import run_init, run_prune

    site = make_s3_site(tmp_path, s3_with_users, user="daily")
    run_init(site.settings)
    assert "cannot delete" in capsys.readouterr().out
    site.back_up()
    site.send()
    change(site.settings.database_path, "a minute")
    site.send()
    assert site.check(capsys)[0] == 0
    expected = read_all(site.settings.database_path)
    site.wipe()
    assert site.restore(capsys)[0] == 0
    assert read_all(site.settings.database_path) == expected

    from datetime import UTC, datetime, timedelta

    for _ in range(2):
        change(site.settings.database_path, "more")
        site.send()
    late = datetime.now(UTC) + timedelta(days=400)
    assert "may not do this" in fail(lambda: run_prune(site.settings, late, dry_run=False))
    owner = s3_with_users.keys["owner"]
    may = replace(site.settings, offsite_key_id=owner[0], offsite_secret=owner[1])
    assert run_prune(may, late, dry_run=False) == 0
    assert site.check(capsys)[0] == 0


def test_two_processes_never_send_from_one_folder_at_once(tmp_path: Path) -> None:
    from backtestdb.files import exclusive_lock
    from backtestdb.offsite.liveness import target_folder

    site = make_site(tmp_path)
    make_platform_database(site.settings.database_path)
    site.init()
    folder = target_folder(site.settings.backup_dir, site.settings.offsite)
    folder.mkdir(parents=True)
    with exclusive_lock(folder / ".lock", "another one"):
        assert "already running" in fail(site.send)
