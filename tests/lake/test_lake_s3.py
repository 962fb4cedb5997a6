"""The lake on a real S3 server: whole versions for every reader, and no store without conditional
writes."""

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from backtestdb.config import load_settings
from backtestdb.lake.compute import compute_metrics
from backtestdb.lake.executor import Engine
from backtestdb.lake.probe import verify_conditional_writes
from backtestdb.lake.publish import publish
from backtestdb.lake.scan import Lake
from backtestdb.lake.store import Store, StoreError, make_store
from backtestdb.lake.table import open_lake
from commands import Project
from lake_tools import (
    NOW,
    kill_at_random,
    make_lake_database,
    measure_seconds,
    read_database,
    start_tool,
    take_newest_day_away,
    wait_until_ready,
)
from s3_server import free_port

# moto writes its objects into memory and speaks S3 over HTTP, conditional writes included.
SERVER = "from moto.server import main; import sys; main(['-p', sys.argv[1]])"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                continue
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def settings(endpoint: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """A bucket of its own for each test."""
    bucket = f"b{abs(hash(request.node.name))}"
    assert requests.put(f"{endpoint}/{bucket}", timeout=30).ok
    return {
        "LAKE": f"s3://{bucket}/a/lake",
        "LAKE_ENDPOINT": endpoint,
        "LAKE_ACCESS_KEY": "key",
        "LAKE_SECRET_KEY": "sesame-secret",
    }


def make_s3_store(settings: dict[str, str]) -> Store:
    return make_store(load_settings(settings, Path(os.devnull)))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake_database(tmp_path_factory.mktemp("s3") / "backtesting.db", minute_sessions=2)


def copy_database(original: Path, target: Path) -> Path:
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return target


def test_lake_on_s3_is_published_computed_and_asked(
    settings: dict[str, str], original: Path
) -> None:
    store = make_s3_store(settings)
    verify_conditional_writes(store)
    assert publish(original, store, NOW).is_new
    assert not publish(original, store, NOW).is_new
    with Engine(processes=0) as engine:
        # Tasks travel without keys: a worker has its own.
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            assert compute_metrics(store, engine, NOW).parts > 0
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    lake = Lake(open_lake(store))
    assert lake.connection.execute("SELECT count(*) FROM bars_5min").fetchall() == [
        (len(read_database(original, "5min")),)
    ]
    (rows,) = lake.connection.execute(
        "SELECT count(*) FROM days_of('NA') WHERE rsi_14 IS NOT NULL"
    ).fetchall()
    assert rows[0] > 0
    leftovers = requests.get(
        f"{settings['LAKE_ENDPOINT']}/{settings['LAKE'].split('/')[2]}", timeout=30
    ).text
    assert "_probe" not in leftovers


def test_keys_are_neither_shown_nor_sent_along(settings: dict[str, str]) -> None:
    import pickle

    store = make_s3_store(settings)
    assert "sesame-secret" not in repr(store) + repr(load_settings(settings, Path(os.devnull)))
    assert b"sesame-secret" not in pickle.dumps(store)


class WithoutConditions(BaseHTTPRequestHandler):
    """A store before the one of the tests that drops the header on which conditional writes
    hang."""

    protocol_version = "HTTP/1.1"
    origin = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def forward(self) -> None:
        body = self.read_body()
        dropped = {"if-none-match", "transfer-encoding", "content-length"}
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in dropped
        }
        answer = requests.request(
            self.command,
            self.origin + self.path,
            headers=headers,
            data=body,
            timeout=30,
            stream=True,
        )
        content = answer.raw.read()
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = (
            answer.headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        )
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815


def test_store_without_conditional_writes_is_refused_before_anything_is_written(
    settings: dict[str, str], original: Path, tmp_path: Path
) -> None:
    handler = type("Handler", (WithoutConditions,), {"origin": settings["LAKE_ENDPOINT"]})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        project = Project(
            tmp_path,
            settings={**settings, "LAKE_ENDPOINT": f"http://127.0.0.1:{proxy.server_port}"},
        )
        copy_database(original, project.database)
        told = project.check("publish_lake.py", expect=1)
        proxy.shutdown()
    assert "no conditional PUT" in told and "next: choose a store with conditional writes" in told
    assert (
        "versions"
        not in requests.get(
            f"{settings['LAKE_ENDPOINT']}/{settings['LAKE'].split('/')[2]}", timeout=30
        ).text
    )


def test_server_that_does_not_answer_is_told_and_the_key_is_not(
    original: Path, tmp_path: Path
) -> None:
    dead = {"LAKE": "s3://b/lake", "LAKE_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    project = Project(
        tmp_path, settings={**dead, "LAKE_ACCESS_KEY": "key", "LAKE_SECRET_KEY": "sesame-secret"}
    )
    copy_database(original, project.database)
    with pytest.raises(StoreError, match="cannot be written"):
        verify_conditional_writes(make_s3_store(project.settings))
    told = project.run("check_environment.py")
    assert "does not answer" in told.stdout + told.stderr
    assert "sesame-secret" not in told.stdout + told.stderr


def publish_with_kills(settings: dict[str, str], database: Path, rounds: int, seed: int) -> None:
    """Readers in a loop see whole versions of two tables while publications are made, every second
    one killed."""
    store, dice = make_s3_store(settings), random.Random(seed)
    publish(database, store, NOW)
    longest = 1.2 * measure_seconds(start_tool("publish", database, **settings))
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        stop = database.with_name("stop reading")
        reader = start_tool("read", stop, **settings)
        wait_until_ready(reader)
        killed = published = 0
        for turn in range(rounds):
            with connection:  # each version has as many metrics as day bars
                connection.execute(
                    "UPDATE ohlcv_data SET close = close * 1.01 WHERE timeframe = '1day'"
                )
                take_newest_day_away(connection)
            process = start_tool("publish", database, **settings)
            if turn % 2:
                killed += kill_at_random(process, dice, longest)
            else:
                measure_seconds(process)
                published += process.returncode == 0
        stop.touch()
        out, err = reader.communicate(timeout=300)
    assert reader.returncode == 0, err
    assert killed and published and json.loads(out)["reads"] > 0
    publish(database, store, NOW)
    lake = Lake(open_lake(store)).connection
    assert lake.execute("SELECT count(*) FROM bars_1day").fetchall() == [
        (len(read_database(database, "1day")),)
    ]


def test_readers_of_s3_see_whole_versions_while_publications_are_killed(
    settings: dict[str, str], original: Path, tmp_path: Path
) -> None:
    publish_with_kills(settings, copy_database(original, tmp_path / "b.db"), 4, seed=3)


@pytest.mark.long
def test_readers_of_s3_see_whole_versions_over_a_hundred_publications(
    settings: dict[str, str], original: Path, tmp_path: Path
) -> None:
    publish_with_kills(settings, copy_database(original, tmp_path / "b.db"), 100, seed=4)
