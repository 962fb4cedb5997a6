"""The sandbox as a client meets it: keys, quota, plan, pages, control plane, options."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from sandbox_process import (
    KEY,
    SCRIPT,
    SandboxOptions,
    SandboxProcess,
    fetch_pages,
    fetch_rows,
    running_sandbox,
)

AAPL_WEEK = "/v2/aggs/ticker/AAPL/range/1/day/2013-02-25/2013-03-01"
GROUPED = "/v2/aggs/grouped/locale/us/market/stocks"


SANDBOX = SandboxOptions("--tickers", "300", today="2026-11-20")


@pytest.mark.parametrize(
    ("headers", "params", "error"),
    [
        ({"Authorization": "Bearer wrong"}, {}, "Unknown API Key"),
        ({}, {"apiKey": "wrong"}, "Unknown API Key"),
        ({}, {}, "API Key was not provided"),
    ],
)
def test_key_wrong_or_missing_is_401(
    sandbox: SandboxProcess, headers: dict[str, str], params: dict[str, str], error: str
) -> None:
    answer = requests.get(sandbox.url + AAPL_WEEK, headers=headers, params=params, timeout=120)
    assert answer.status_code == 401
    body = answer.json()
    assert (body["status"], body["error"]) == ("ERROR", error)
    assert sandbox.fetch_log()[-1]["key_was_right"] is False


def test_key_in_parameter_is_accepted_and_kept_out_of_log_and_next_url(
    sandbox: SandboxProcess,
) -> None:
    answer = requests.get(
        sandbox.url + AAPL_WEEK, params={"apiKey": KEY, "limit": "2"}, timeout=120
    )
    assert answer.status_code == 200
    assert KEY not in answer.json()["next_url"]
    (entry,) = sandbox.fetch_log()
    assert entry["key_place"] == "parameter"
    assert KEY not in str(entry)


def test_answer_frame_has_the_vendors_fields(sandbox: SandboxProcess) -> None:
    body = sandbox.get(AAPL_WEEK).json()
    assert body["status"] == "OK"
    assert body["adjusted"] is True
    assert body["ticker"] == "AAPL"
    assert body["queryCount"] == body["resultsCount"] == body["count"] == len(body["results"]) == 5
    assert body["request_id"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/aggs/ticker/AAPL/range/1/day/2013-03-02/2013-03-03",
        "/v2/aggs/ticker/NOBODY/range/1/day/2013-02-25/2013-03-01",
        "/v2/aggs/ticker/aapl/range/1/day/2013-02-25/2013-03-01",
        "/v2/aggs/ticker/FB/range/1/day/2012-01-01/2012-05-17",
        f"{GROUPED}/2013-03-02",
        f"{GROUPED}/2012-10-29",
        f"{GROUPED}/2026-11-23",
    ],
)
def test_answer_without_rows_has_no_results(sandbox: SandboxProcess, path: str) -> None:
    body = sandbox.get(path).json()
    assert "results" not in body
    assert (body["status"], body["resultsCount"]) == ("OK", 0)


@pytest.mark.parametrize(
    "path",
    [
        f"{AAPL_WEEK}?limit=50001",
        f"{AAPL_WEEK}?limit=0",
        f"{AAPL_WEEK}?limit=many",
        f"{AAPL_WEEK}?sort=up",
        f"{AAPL_WEEK}?adjusted=perhaps",
        f"{AAPL_WEEK}?cursor=%00",
        "/v2/aggs/ticker/AAPL/range/1/day/2013-03-01/2013-02-25",
        "/v2/aggs/ticker/AAPL/range/1/day/2013-02-30/2013-03-01",
        "/v2/aggs/ticker/AAPL/range/1/hour/2013-02-25/2013-03-01",
        f"{GROUPED}/yesterday",
        "/v3/reference/tickers?limit=1001",
        "/v3/reference/splits?limit=1001",
        "/stocks/v1/splits?limit=5001",
    ],
)
def test_request_out_of_bounds_is_400(sandbox: SandboxProcess, path: str) -> None:
    answer = sandbox.get(path)
    assert answer.status_code == 400
    assert answer.json()["status"] == "ERROR"


def test_day_pages_in_both_directions_make_the_whole_range(sandbox: SandboxProcess) -> None:
    path = "/v2/aggs/ticker/META/range/1/day/2021-06-01/2022-12-30"
    (whole,) = fetch_pages(sandbox, path)
    pages = fetch_pages(sandbox, path, limit=50)
    assert [page["queryCount"] for page in pages[:-1]] == [50] * (len(pages) - 1)
    assert [row for page in pages for row in page["results"]] == whole["results"]
    assert fetch_rows(sandbox, path, limit=50, sort="desc") == whole["results"][::-1]


def test_minute_limit_counts_base_bars_and_pages_make_the_whole_range(
    sandbox: SandboxProcess,
) -> None:
    path = "/v2/aggs/ticker/NVDA/range/5/minute/2026-10-01/2026-10-30"
    (whole,) = fetch_pages(sandbox, path, limit=50_000)
    assert whole["queryCount"] > 5000
    assert whole["resultsCount"] < 5000
    pages = fetch_pages(sandbox, path)
    assert len(pages) > 1
    assert all(4990 < page["queryCount"] <= 5000 for page in pages[:-1])
    assert [row for page in pages for row in page["results"]] == whole["results"]
    assert fetch_rows(sandbox, path, limit=700, sort="desc") == whole["results"][::-1]


def test_minute_pages_of_a_thin_ticker_make_the_whole_range(sandbox: SandboxProcess) -> None:
    path = "/v2/aggs/ticker/KIMpL/range/5/minute/2026-03-01/2026-10-30"
    whole = fetch_rows(sandbox, path, limit=50_000)
    assert fetch_rows(sandbox, path, limit=900) == whole
    assert fetch_rows(sandbox, path, limit=900, sort="desc") == whole[::-1]
    assert whole == sorted(whole, key=lambda row: row["t"])


def test_range_in_milliseconds_gives_the_bars_that_start_inside(sandbox: SandboxProcess) -> None:
    day = sandbox.get("/v2/aggs/ticker/NVDA/range/5/minute/2026-10-01/2026-10-01").json()["results"]
    first, last = day[10]["t"], day[20]["t"]
    path = f"/v2/aggs/ticker/NVDA/range/5/minute/{first}/{last}"
    assert sandbox.get(path).json()["results"] == day[10:21]
    path = f"/v2/aggs/ticker/NVDA/range/1/day/{first}/{last}"
    assert sandbox.get(path).json()["resultsCount"] == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/aggs/ticker/NVDA/range/1/day/2026-11-01/2026-11-20", "DELAYED"),
        ("/v2/aggs/ticker/NVDA/range/5/minute/2026-11-20/2026-11-27", "DELAYED"),
        (f"{GROUPED}/2026-11-20", "DELAYED"),
        ("/v2/aggs/ticker/NVDA/range/1/day/2026-11-01/2026-11-19", "OK"),
        (f"{GROUPED}/2026-11-19", "OK"),
    ],
)
def test_status_of_a_range_with_todays_session_is_delayed(
    sandbox: SandboxProcess, path: str, status: str
) -> None:
    assert sandbox.get(path).json()["status"] == status


def test_plan_wall_cuts_silently_and_refuses_what_lies_wholly_before(
    sandbox: SandboxProcess,
) -> None:
    sandbox.set_settings(history_years=2)
    cut = sandbox.get("/v2/aggs/ticker/NVDA/range/1/day/2020-01-01/2024-11-29").json()
    assert cut["status"] == "OK"
    assert cut["results"][0]["t"] == 1732078800000  # 2024-11-20 00:00 New York
    for path in ("/v2/aggs/ticker/NVDA/range/1/day/2020-01-01/2024-11-19", f"{GROUPED}/2024-11-19"):
        refused = sandbox.get(path)
        assert refused.status_code == 403
        assert refused.json()["status"] == "NOT_AUTHORIZED"
        assert refused.json()["message"]
    assert sandbox.get(f"{GROUPED}/2024-11-20").status_code == 200


def test_free_plan_refuses_a_range_that_ends_today(sandbox: SandboxProcess) -> None:
    sandbox.set_settings(free=True)
    assert sandbox.get("/v2/aggs/ticker/NVDA/range/1/day/2026-11-01/2026-11-20").status_code == 403
    assert sandbox.get("/v2/aggs/ticker/NVDA/range/1/day/2026-11-01/2026-11-19").status_code == 200
    assert sandbox.get(f"{GROUPED}/2026-11-20").status_code == 403


@pytest.mark.parametrize("seconds", [5.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_quota_slides_over_a_window_of_arrivals(seconds: float) -> None:
    """The window is long enough for a slow machine to send four requests within it."""
    options = ["--requests-per-minute", "3", "--window-seconds", str(seconds)]
    with running_sandbox(*options) as sandbox:
        statuses = [sandbox.get(AAPL_WEEK).status_code for _ in range(3)]
        refused = sandbox.get(AAPL_WEEK)
        assert [*statuses, refused.status_code] == [200, 200, 200, 429]
        assert refused.json()["status"] == "ERROR"
        assert 1 <= int(refused.headers["Retry-After"]) <= seconds
        assert sandbox.get(AAPL_WEEK, key="wrong").status_code == 401
        while sandbox.get(AAPL_WEEK).status_code == 429:
            time.sleep(0.05)
        log = sandbox.fetch_log()
        admitted = [entry["arrived"] for entry in log if entry["status"] == 200]
        assert len(admitted) == 4
        assert seconds <= admitted[3] - admitted[0]
        assert sandbox.fetch_most_in_window() > 3


def test_refusal_without_a_word_about_the_time_to_wait() -> None:
    with running_sandbox("--requests-per-minute", "1", "--no-retry-after") as sandbox:
        assert sandbox.get(AAPL_WEEK).status_code == 200
        refused = sandbox.get(AAPL_WEEK)
        assert refused.status_code == 429
        assert "Retry-After" not in refused.headers


def test_quota_window_is_kept_for_each_key_by_itself() -> None:
    with running_sandbox("--requests-per-minute", "1", "--key", "other") as sandbox:
        statuses = [
            sandbox.get(AAPL_WEEK, key=key).status_code for key in (KEY, KEY, "other", "other")
        ]
        assert statuses == [200, 429, 200, 429]


def test_today_moved_forward_brings_the_next_session(sandbox: SandboxProcess) -> None:
    path = "/v2/aggs/ticker/NVDA/range/1/day/2026-11-19/2026-11-30"
    assert sandbox.get(path).json()["resultsCount"] == 2
    sandbox.set_today("2026-11-24")
    assert sandbox.get(path).json()["resultsCount"] == 4
    assert sandbox.get(f"{GROUPED}/2026-11-24").json()["status"] == "DELAYED"
    assert sandbox.get(f"{GROUPED}/2026-11-23").json()["status"] == "OK"


def test_control_call_that_is_wrong_says_why(sandbox: SandboxProcess) -> None:
    for name, body in {
        "faults": {"rules": [{"match": ".", "kind": "earthquake"}]},
        "today": {"today": "tomorrow"},
        "settings": {"speed": 1},
        "splits": {"splits": [{"ticker": "A"}]},
    }.items():
        answer = requests.post(f"{sandbox.url}/_sandbox/{name}", json=body, timeout=120)
        assert answer.status_code == 400
        assert answer.json()["error"]
    assert requests.get(f"{sandbox.url}/_sandbox/secrets", timeout=120).status_code == 404
    assert sandbox.fetch_log() == []


def test_script_writes_its_port_and_stops_at_sigterm(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with running_sandbox("--port-file", str(port_file)) as sandbox:
        assert sandbox.url == f"http://127.0.0.1:{port_file.read_text().strip()}"
        assert sandbox.get(AAPL_WEEK).status_code == 200
        sandbox.process.terminate()
        assert sandbox.process.wait(timeout=120) == 0


def test_script_options_make_the_plan_the_junk_and_the_splits(tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    splits.write_text(
        '[{"ticker": "NVDA", "execution_date": "2013-02-20", "split_from": 1, "split_to": 4}]'
    )
    options = [
        "--free-plan",
        "--history-years",
        "2",
        "--latency-ms",
        "50",
        "--junk",
        "--splits",
        str(splits),
    ]
    with running_sandbox(*options) as sandbox:
        assert sandbox.get(AAPL_WEEK).status_code == 403
        assert sandbox.get(f"{GROUPED}/2011-02-28").status_code == 403
        assert sandbox.get(f"{GROUPED}/2013-02-28").json()["results"][-1]["T"] == "JUNK\x1b"
        answer = sandbox.get("/stocks/v1/splits", ticker="NVDA")
        assert answer.json()["count"] == 1
        assert answer.elapsed.total_seconds() >= 0.05


def test_script_on_a_taken_port_fails_with_the_cause() -> None:
    with running_sandbox() as sandbox:
        port = sandbox.url.rpartition(":")[2]
        command = [sys.executable, SCRIPT, "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_script_ends_when_whoever_started_it_is_gone() -> None:
    with running_sandbox() as sandbox:
        assert sandbox.process.stdin is not None
        sandbox.process.stdin.close()
        assert sandbox.process.wait(timeout=120) == 0


def test_script_refuses_options_out_of_bounds() -> None:
    for options in (["--tickers", "20000"], ["--today", "soon"], ["--splits", "/nowhere.json"]):
        done = subprocess.run(
            [sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert options[1] in done.stderr
