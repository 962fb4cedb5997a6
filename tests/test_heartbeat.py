"""The heartbeat goes out on success and failure, and never costs a backup."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from backtestdb.backups.backup import Hooks
from backtestdb.errors import ProjectError
from backtestdb.scheduling import notify
from backup_tools import back_up, make_platform_database, make_settings, verified_names


@contextmanager
def watcher(status: int = 200, delay_seconds: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a real server and the paths that were asked of it."""
    paths: list[str] = []
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            released.wait(delay_seconds)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ping/secret-id", paths
    finally:
        released.set()
        server.shutdown()
        server.server_close()


def test_heartbeat_tells_success_and_failure(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with watcher() as (url, paths):
        settings = replace(settings, heartbeat_url=url)
        with pytest.raises(ProjectError):
            back_up(settings)
        make_platform_database(settings.database_path)
        back_up(settings)
        back_up(settings, "irreplaceable")
    assert paths == ["/ping/secret-id/fail", "/ping/secret-id", "/ping/secret-id"]


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
        assert time.monotonic() - started < 10
    assert len(verified_names(settings.backup_dir)) == 1
    assert "heartbeat was not delivered" in said[-1]
    assert "secret-id" not in " ".join(said)
