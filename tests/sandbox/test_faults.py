"""Each fault of the sandbox, seen from the client's end of the wire."""

import json
import socket
import threading
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from sandbox_process import SandboxOptions, SandboxProcess, running_sandbox

WEEK = "/v2/aggs/ticker/NVDA/range/1/day/2013-02-25/2013-03-01"
NEW_YORK = ZoneInfo("America/New_York")


SANDBOX = SandboxOptions()


def set_one(sandbox: SandboxProcess, kind: str, **rule: Any) -> None:
    sandbox.set_faults({"match": "/NVDA/", "kind": kind, **rule})


def read_raw(sandbox: SandboxProcess) -> bytes:
    """All that the server sends for one request, until it closes the connection; resets are
    raised."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(
            f"GET {WEEK}?apiKey={sandbox.key} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        )
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_server_error_and_bad_gateway_answer_as_servers_and_gateways_do(
    sandbox: SandboxProcess,
) -> None:
    set_one(sandbox, "server_error")
    answer = sandbox.get(WEEK)
    assert (answer.status_code, answer.json()["status"]) == (500, "ERROR")
    set_one(sandbox, "bad_gateway")
    answer = sandbox.get(WEEK)
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html")
    assert answer.text.startswith("<html>")
    assert sandbox.get(WEEK).status_code == 200
    assert [(entry["status"], entry["fault"]) for entry in sandbox.fetch_log()] == [
        (500, "server_error"),
        (502, "bad_gateway"),
        (200, None),
    ]


@pytest.mark.parametrize(("status", "name"), [(403, "NOT_AUTHORIZED"), (404, "NOT_FOUND")])
def test_refusal_closes_an_endpoint(sandbox: SandboxProcess, status: int, name: str) -> None:
    sandbox.set_faults(
        {"match": "^/stocks/v1/splits", "kind": "refusal", "status": status, "times": None}
    )
    assert sandbox.get("/stocks/v1/splits").status_code == status
    assert sandbox.get("/stocks/v1/splits").json()["status"] == name
    assert sandbox.get("/v3/reference/splits").status_code == 200


@pytest.mark.parametrize(
    ("rule", "header", "has_body"),
    [
        ({"retry_after": 7}, "7", True),
        ({"retry_after": None}, None, True),
        ({"retry_after": None, "empty_body": True}, None, False),
    ],
)
def test_too_many_answers_429_with_or_without_header_and_body(
    sandbox: SandboxProcess, rule: dict[str, Any], header: str | None, has_body: bool
) -> None:
    set_one(sandbox, "too_many", **rule)
    answer = sandbox.get(WEEK)
    assert answer.status_code == 429
    assert answer.headers.get("Retry-After") == header
    assert bool(answer.content) is has_body


@pytest.mark.parametrize("kind", ["reset", "reset_midway"])
def test_reset_is_a_real_reset(sandbox: SandboxProcess, kind: str) -> None:
    set_one(sandbox, kind)
    with pytest.raises(ConnectionResetError):
        read_raw(sandbox)
    assert sandbox.fetch_log()[-1]["status"] is None
    assert sandbox.get(WEEK).status_code == 200


def test_cut_json_promises_the_whole_length_and_closes_early(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "cut_json")
    head, _, body = read_raw(sandbox).partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    assert length // 2 == len(body) > 100
    set_one(sandbox, "cut_json")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        sandbox.get(WEEK)


def test_invalid_json_is_complete_as_http(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "invalid_json")
    answer = sandbox.get(WEEK)
    assert answer.status_code == 200
    assert len(answer.content) == int(answer.headers["Content-Length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.content)


def test_timeout_holds_the_answer_until_released(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "timeout", seconds=600)
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(sandbox.url + WEEK, params={"apiKey": sandbox.key}, timeout=0.3)
    set_one(sandbox, "timeout", seconds=600)
    received: list[bytes] = []
    waiting = threading.Thread(target=lambda: received.append(read_raw(sandbox)))
    waiting.start()
    while len(sandbox.fetch_log()) < 2 or sandbox.fetch_log()[1]["fault"] is None:
        pass
    sandbox.release()
    waiting.join(timeout=120)
    assert received == [b""]


def test_slow_answers_late_and_right(sandbox: SandboxProcess) -> None:
    plain = sandbox.get(WEEK).json()["results"]
    set_one(sandbox, "slow", seconds=0.3)
    started = time.monotonic()
    assert sandbox.get(WEEK).json()["results"] == plain
    assert time.monotonic() - started >= 0.3


def test_foreign_next_url_points_to_another_host(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "foreign_next_url")
    assert sandbox.get(WEEK).json()["next_url"].startswith("http://foreign.invalid/")
    set_one(sandbox, "foreign_next_url", root="http://127.0.0.1:9")
    assert sandbox.get(WEEK).json()["next_url"].startswith("http://127.0.0.1:9/")


def test_missing_results_leaves_the_frame(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "missing_results")
    body = sandbox.get(WEEK).json()
    assert body["ticker"] == "NVDA"
    assert "results" not in body


def test_bad_bars_replace_or_join_the_good_ones(sandbox: SandboxProcess) -> None:
    good = sandbox.get(WEEK).json()["results"]

    def fetch(kind: str) -> list[dict[str, Any]]:
        set_one(sandbox, "bad_bars", bars=[kind])
        rows: list[dict[str, Any]] = sandbox.get(WEEK).json()["results"]
        return rows

    assert fetch("null")[2]["c"] is None
    assert fetch("high_below_low")[2]["h"] < fetch("high_below_low")[2]["l"]
    assert fetch("negative")[2]["o"] < 0
    assert fetch("zero")[2]["c"] == 0
    assert fetch("negative_volume")[2]["v"] < 0
    assert fetch("junk")[2]["h"] == 9e11
    assert fetch("duplicate") == [*good, good[0]]
    *same, weekend = fetch("weekend")
    assert same == good
    assert datetime.fromtimestamp(weekend["t"] / 1000, NEW_YORK).strftime("%a %H:%M") == "Sat 00:00"
    *same, future = fetch("future")
    assert same == good
    assert (
        datetime.fromtimestamp(future["t"] / 1000, NEW_YORK).strftime("%F %H:%M")
        == "2013-03-08 00:00"
    )
    assert sandbox.get(WEEK).json()["results"] == good


def test_bad_bars_of_the_grouped_answer_keep_the_hour(sandbox: SandboxProcess) -> None:
    sandbox.set_faults({"match": "grouped", "kind": "bad_bars", "bars": ["weekend", "future"]})
    rows = sandbox.get("/v2/aggs/grouped/locale/us/market/stocks/2013-02-28").json()["results"]
    days = [
        datetime.fromtimestamp(row["t"] / 1000, NEW_YORK).strftime("%F %H:%M") for row in rows[-2:]
    ]
    assert days == ["2013-03-02 16:00", "2013-03-08 16:00"]


def test_rules_are_a_queue_with_spared_and_counted_requests(sandbox: SandboxProcess) -> None:
    sandbox.set_faults(
        {"match": "/NVDA/", "kind": "server_error", "after": 1, "times": 2},
        {"match": "/NVDA/", "kind": "bad_gateway", "times": 1},
    )
    statuses = [sandbox.get(WEEK).status_code for _ in range(5)]
    assert statuses == [502, 500, 500, 200, 200]
    assert [rule["fired"] for rule in sandbox.fetch_faults()] == [2, 1]
    assert sandbox.get(WEEK.replace("NVDA", "AMD")).status_code == 200


def test_probability_is_seeded_and_independent_of_order(sandbox: SandboxProcess) -> None:
    paths = [WEEK.replace("NVDA", ticker) for ticker in ("NVDA", "AMD", "INTC", "IBM", "MSFT")] * 6
    rule = {"match": "aggs", "kind": "server_error", "times": None, "probability": 0.3}

    def run(asked: list[str], seed: int) -> list[tuple[str, int]]:
        sandbox.set_faults({**rule, "seed": seed})
        return sorted((path, sandbox.get(path).status_code) for path in asked)

    first = run(paths, 1)
    assert first == run(paths[::-1], 1)
    assert first != run(paths, 2)
    assert 2 < sum(status == 500 for _, status in first) < 20


def test_key_that_is_wrong_meets_no_fault(sandbox: SandboxProcess) -> None:
    set_one(sandbox, "server_error")
    assert sandbox.get(WEEK, key="wrong").status_code == 401
    assert sandbox.get(WEEK).status_code == 500


def test_stopped_server_refuses_connections() -> None:
    with running_sandbox() as sandbox:
        sandbox.stop()
        with pytest.raises(requests.exceptions.ConnectionError):
            sandbox.get(WEEK)
