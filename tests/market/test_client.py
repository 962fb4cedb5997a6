"""The client against the sandbox: every answer in its own class, and where the key goes and does
not go."""

import logging
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from backtestdb.errors import ProjectError, SettingsError
from backtestdb.market.client import (
    ATTEMPTS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    WAITS_FOR_QUOTA,
    ForeignHostError,
    KeyRefusedError,
    MarketData,
    MarketDataError,
    NotInPlanError,
    NotListedError,
    UnreachableError,
    VendorFaultError,
    WrongClockError,
    make_pause_seconds,
    parse_retry_after,
)
from backtestdb.market.quota import WINDOW_SECONDS, StoppedError
from foreign_host import ForeignHost, running_foreign_host
from market_setup import make_market_settings
from sandbox_process import KEY, SandboxOptions, SandboxProcess, running_sandbox

SANDBOX = SandboxOptions()

START, END = date(2012, 11, 1), date(2012, 11, 30)
SESSIONS = 21
WRONG_KEY = "a-secret-that-nobody-may-see"
PASSING_FAULTS: dict[str, dict[str, Any]] = {
    "server error": {"kind": "server_error"},
    "HTML from a gateway": {"kind": "bad_gateway"},
    "429": {"kind": "too_many"},
    "429 without Retry-After": {"kind": "too_many", "retry_after": None},
    "429 without a body": {"kind": "too_many", "empty_body": True},
    "reset": {"kind": "reset"},
    "reset in the body": {"kind": "reset_midway"},
    "connection closed in the body": {"kind": "cut_json"},
    "half of the JSON": {"kind": "invalid_json"},
    "no answer": {"kind": "timeout", "seconds": 0},
}


class NotedPauses(threading.Event):
    """A stopping event that is never set and notes how long each wait would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def sandbox(sandbox: SandboxProcess) -> SandboxProcess:
    sandbox.set_faults()
    sandbox.set_settings(history_years=0, free=False, keys=[KEY])
    sandbox.clear_log()
    return sandbox


@pytest.fixture(scope="module")
def foreign_server() -> Iterator[ForeignHost]:
    with running_foreign_host() as host:
        yield host


@pytest.fixture
def foreign(foreign_server: ForeignHost) -> ForeignHost:
    foreign_server.seen.clear()
    foreign_server.answer = (200, {}, b'{"status":"OK"}')
    return foreign_server


@pytest.fixture
def pauses() -> NotedPauses:
    return NotedPauses()


@pytest.fixture
def client(sandbox: SandboxProcess, tmp_path: Path, pauses: NotedPauses) -> MarketData:
    return MarketData(make_market_settings(tmp_path, sandbox.url), pauses)


def make_client(tmp_path: Path, url: str, key: str = KEY, **values: object) -> MarketData:
    return MarketData(make_market_settings(tmp_path, url, key, **values), NotedPauses())


def test_bars_come_with_the_key_in_the_header_and_the_highest_limit(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    answer = client.fetch_bars("MSFT", "1day", START, END)
    assert len(answer.rows) == SESSIONS
    assert not answer.is_delayed
    (request,) = sandbox.fetch_log()
    assert request["path"].startswith("/v2/aggs/ticker/MSFT/range/1/day/2012-11-01/2012-11-30?")
    assert set(request["path"].partition("?")[2].split("&")) == {
        "adjusted=true",
        "sort=asc",
        "limit=50000",
    }
    assert (request["key_was_right"], request["key_place"]) == (True, "header")
    assert client.requests_sent == 1


@pytest.mark.parametrize("ticker", ["BRK.B", "KIMpL", "NA", "TRUE", "A/B", "X?Y#Z", "a b"])
def test_ticker_reaches_the_vendor_in_its_own_spelling(
    client: MarketData, sandbox: SandboxProcess, ticker: str
) -> None:
    from urllib.parse import unquote

    client.fetch_bars(ticker, "1day", START, END)
    assert (
        unquote(sandbox.fetch_log()[0]["path"].split("/range/")[0]) == f"/v2/aggs/ticker/{ticker}"
    )


def test_month_of_five_minute_bars_comes_in_one_request(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    answer = client.fetch_bars("AAPL", "5min", START, END)
    assert len(answer.rows) > SESSIONS * 78
    assert len(sandbox.fetch_log()) == 1


def test_pages_are_followed_to_the_end_and_every_one_carries_the_key_in_the_header(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    answer = client.fetch_bars("AAPL", "5min", date(2011, 11, 1), END)
    log = sandbox.fetch_log()
    assert len(log) > 2
    assert {entry["key_place"] for entry in log} == {"header"}
    times = [row["t"] for row in answer.rows]
    assert times == sorted(set(times))
    assert client.requests_sent == len(log)


def test_grouped_answer_has_all_tickers_of_the_session(client: MarketData) -> None:
    rows = client.fetch_grouped(date(2012, 11, 5)).rows
    assert {"AAPL", "MSFT", "IBM", "GOOG", "FB"} <= {row["T"] for row in rows}


def test_reference_tickers_and_splits_come_in_rows(client: MarketData) -> None:
    assert "MSFT" in {row["ticker"] for row in client.fetch_tickers("CS").rows}
    splits = client.fetch_splits(date(2005, 1, 1)).rows
    assert ("AAPL", "2005-02-28") in {(row["ticker"], row["execution_date"]) for row in splits}


def test_delisted_tickers_are_those_since_a_day(tmp_path: Path) -> None:
    """ANSS went on 2025-07-17, PARA on 2025-08-07."""
    with running_sandbox(today="2026-11-21") as running:
        client = make_client(tmp_path, running.url)
        found = [
            {row["ticker"] for row in client.fetch_delisted("CS", since).rows}
            & {"ANSS", "PARA", "AAPL"}
            for since in (date(2025, 7, 17), date(2025, 7, 18), date(2025, 8, 8))
        ]
    assert found == [{"ANSS", "PARA"}, {"PARA"}, set()]


@pytest.mark.parametrize("status", [403, 404])
def test_splits_are_asked_of_the_old_endpoint_where_the_new_one_is_not_there(
    foreign: ForeignHost, tmp_path: Path, status: int
) -> None:
    foreign.answer = (status, {}, b'{"status":"NOT_AUTHORIZED"}')
    with pytest.raises((NotListedError, NotInPlanError), match="/v3/reference/splits"):
        make_client(tmp_path, foreign.url).fetch_splits(date(2005, 1, 1))
    assert [request.split("?")[0] for request in foreign.seen] == [
        "GET /stocks/v1/splits",
        "GET /v3/reference/splits",
    ]


@pytest.mark.parametrize(
    "day", [date(2012, 11, 10), date(2012, 10, 29)], ids=["weekend", "hurricane"]
)
def test_answer_without_results_is_a_legal_empty(client: MarketData, day: date) -> None:
    assert client.fetch_grouped(day).rows == []
    assert client.fetch_bars("MSFT", "1day", day, day).rows == []
    assert client.fetch_bars("UNKNOWN", "1day", START, END).rows == []


def test_delayed_answer_is_fine_and_says_so(client: MarketData) -> None:
    answer = client.fetch_bars("MSFT", "1day", date(2013, 2, 25), date(2013, 3, 1))
    assert answer.is_delayed
    assert answer.rows


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "missing_results"},
        {"kind": "null_results"},
        {"kind": "odd_frame", "changes": {"adjusted": False}},
        {"kind": "odd_frame", "changes": {"ticker": "IBM"}},
        {"kind": "odd_frame", "changes": {"resultsCount": 450}},
        {"kind": "fewer_rows", "rows": 5},
        {"kind": "refusal", "status": 403, "word": "FORBIDDEN"},
        {"kind": "gateway", "status": 403},
    ],
    ids=str,
)
def test_answer_that_does_not_say_what_was_asked_is_asked_again(
    client: MarketData, sandbox: SandboxProcess, rule: dict[str, Any]
) -> None:
    undisturbed = client.fetch_bars("MSFT", "1day", START, END)
    sandbox.set_faults({"match": "MSFT", "times": 2, **rule})
    assert client.fetch_bars("MSFT", "1day", START, END) == undisturbed
    sandbox.set_faults({"match": "MSFT", "times": None, **rule})
    with pytest.raises(VendorFaultError):
        client.fetch_bars("MSFT", "1day", START, END)


@pytest.mark.parametrize("status", [301, 302, 400, 404, 451])
def test_status_that_is_not_documented_is_no_answer_and_asked_once(
    client: MarketData, sandbox: SandboxProcess, status: int
) -> None:
    sandbox.set_faults({"match": "MSFT", "kind": "gateway", "status": status})
    with pytest.raises(MarketDataError, match=str(status)) as caught:
        client.fetch_bars("MSFT", "1day", START, END)
    assert "POLYGON_BASE_URL" in caught.value.next_step
    assert client.requests_sent == 1


def test_answer_that_trickles_in_is_given_up_at_its_deadline(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    client = make_client(tmp_path, sandbox.url, POLYGON_TIMEOUT_SECONDS="0.1")
    sandbox.set_faults({"match": "MSFT", "kind": "trickle", "seconds": 0.05, "times": None})
    with pytest.raises(VendorFaultError, match="not complete after"):
        client.fetch_bars("MSFT", "1day", START, END)


@pytest.mark.parametrize("ahead_seconds", [3 * 86_400, -3 * 86_400])
def test_clock_that_is_days_off_stops_the_run_and_minutes_are_said(
    client: MarketData,
    sandbox: SandboxProcess,
    capsys: pytest.CaptureFixture[str],
    ahead_seconds: int,
) -> None:
    sandbox.set_settings(clock_seconds=ahead_seconds)
    with pytest.raises(WrongClockError, match="4,320 minutes"):
        client.fetch_bars("MSFT", "1day", START, END)
    client.clock_was_compared = False
    sandbox.set_settings(clock_seconds=600)
    assert client.fetch_bars("MSFT", "1day", START, END).rows
    assert "10 minutes behind the vendor's" in capsys.readouterr().err
    assert abs(client.clock_is_ahead_by.total_seconds() + 600) < 120
    sandbox.set_settings(clock_seconds=0)


def test_full_window_is_waited_for_and_is_no_attempt(
    client: MarketData, sandbox: SandboxProcess, pauses: NotedPauses
) -> None:
    undisturbed = client.fetch_bars("MSFT", "1day", START, END)
    sandbox.set_faults(
        {"match": "MSFT", "kind": "too_many", "retry_after": None, "times": ATTEMPTS + 3}
    )
    assert client.fetch_bars("MSFT", "1day", START, END) == undisturbed
    assert pauses.seconds == [WINDOW_SECONDS] * (ATTEMPTS + 3)


@pytest.mark.parametrize(
    ("variable", "url", "said"),
    [
        ("NO_PROXY", "https://name.invalid", "does not resolve"),
        ("HTTPS_PROXY", "https://name.invalid", "proxy"),
        ("NO_PROXY", "https://127.0.0.1:{port}", "certificate|broke"),
    ],
)
def test_request_that_cannot_leave_is_said_at_once_and_costs_no_quota(
    tmp_path: Path,
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    url: str,
    said: str,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9" if variable == "HTTPS_PROXY" else "*")
    port = sandbox.url.rpartition(":")[2]
    client = make_client(tmp_path, url.format(port=port), POLYGON_REQUESTS_PER_MINUTE="5")
    with pytest.raises(UnreachableError, match=said):
        client.fetch_bars("MSFT", "1day", START, END)
    assert client.requests_sent == 1
    assert client.quota.used() == 0


def test_wrong_key_costs_one_request_and_is_named_nowhere(
    sandbox: SandboxProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client(tmp_path, sandbox.url, WRONG_KEY)
    with pytest.raises(KeyRefusedError, match="401") as caught:
        client.fetch_bars("MSFT", "1day", START, END)
    assert [entry["status"] for entry in sandbox.fetch_log()] == [401]
    assert "POLYGON_API_KEY" in caught.value.next_step
    assert caplog.records
    said = (
        f"{caught.value} {caught.value!r} {caught.value.next_step} {caplog.text} {client!r} "
        f"{vars(caught.value)}"
    )
    assert WRONG_KEY not in said
    assert all(
        WRONG_KEY not in path.name + path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )


def test_client_without_a_key_is_refused_with_the_way_to_try_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        MarketData(make_market_settings(tmp_path, "http://127.0.0.1:9", ""))
    assert caught.value.exit_code == 2
    assert "make demo" in caught.value.next_step


def test_range_outside_of_the_plan_is_its_own_error_and_asked_once(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    sandbox.set_settings(history_years=2)
    with pytest.raises(NotInPlanError, match="Your plan covers"):
        client.fetch_bars("MSFT", "1day", date(2005, 1, 3), date(2005, 1, 31))
    assert len(sandbox.fetch_log()) == 1


def test_range_that_begins_before_the_plan_is_cut_without_a_word(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    sandbox.set_settings(history_years=2)
    rows = client.fetch_bars("MSFT", "1day", date(2005, 1, 3), END).rows
    assert rows[0]["t"] > 1298937600000  # 2011-03-01, two years before the sandbox's day


def test_unknown_path_is_not_listed(client: MarketData) -> None:
    with pytest.raises(NotListedError, match="Ticker not found"):
        client.fetch_pages("/v3/reference/tickers/NONE", {})


def test_question_that_the_vendor_does_not_understand_is_asked_once(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    with pytest.raises(MarketDataError, match="status 400") as caught:
        client.fetch_bars("MSFT", "1day", END, START)
    assert not isinstance(caught.value, VendorFaultError)
    assert len(sandbox.fetch_log()) == 1


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_fault_that_passes_costs_its_attempts_and_changes_nothing(
    client: MarketData, sandbox: SandboxProcess, pauses: NotedPauses, fault: str, times: int
) -> None:
    undisturbed = client.fetch_bars("MSFT", "1day", START, END)
    sandbox.clear_log()
    sandbox.set_faults({"match": "MSFT", "times": times, **PASSING_FAULTS[fault]})
    assert client.fetch_bars("MSFT", "1day", START, END) == undisturbed
    assert len(sandbox.fetch_log()) == times + 1
    assert len(pauses.seconds) == times
    assert client.requests_sent == times + 2


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_fault_that_does_not_pass_is_given_up_after_the_last_attempt(
    client: MarketData, sandbox: SandboxProcess, pauses: NotedPauses, fault: str
) -> None:
    sandbox.set_faults({"match": "MSFT", "times": None, **PASSING_FAULTS[fault]})
    attempts = WAITS_FOR_QUOTA if PASSING_FAULTS[fault]["kind"] == "too_many" else ATTEMPTS
    with pytest.raises(VendorFaultError, match=f"{attempts} times") as caught:
        client.fetch_bars("MSFT", "1day", START, END)
    assert len(sandbox.fetch_log()) == client.requests_sent == attempts
    assert len(pauses.seconds) in {attempts - 1, attempts}
    assert "/v2/aggs/ticker/MSFT" in str(caught.value)
    assert "again later" in caught.value.next_step
    assert KEY not in str(caught.value)


def test_vendor_that_does_not_answer_in_time_is_a_passing_fault(
    sandbox: SandboxProcess, tmp_path: Path
) -> None:
    client = make_client(tmp_path, sandbox.url, POLYGON_TIMEOUT_SECONDS="0.1")
    sandbox.set_faults({"match": "MSFT", "kind": "timeout", "seconds": 60, "times": None})
    with pytest.raises(VendorFaultError, match="no answer within"):
        client.fetch_bars("MSFT", "1day", START, END)
    sandbox.release()
    assert len(sandbox.fetch_log()) == ATTEMPTS


def test_nobody_at_the_address_is_a_fault_of_the_vendor(tmp_path: Path) -> None:
    with running_foreign_host() as host:
        url = host.url
    with pytest.raises(VendorFaultError, match="the connection broke"):
        make_client(tmp_path, url).fetch_bars("MSFT", "1day", START, END)


def test_fault_in_a_later_page_repeats_that_page_only(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    undisturbed = client.fetch_bars("AAPL", "5min", date(2011, 11, 1), END)
    pages = len(sandbox.fetch_log())
    sandbox.clear_log()
    sandbox.set_faults({"match": "AAPL", "kind": "cut_json", "after": 1})
    assert client.fetch_bars("AAPL", "5min", date(2011, 11, 1), END) == undisturbed
    assert len(sandbox.fetch_log()) == pages + 1


def test_retry_after_is_honoured_and_bounded(
    client: MarketData, sandbox: SandboxProcess, pauses: NotedPauses
) -> None:
    rule = {"match": "MSFT", "kind": "too_many"}
    sandbox.set_faults({**rule, "retry_after": 7}, {**rule, "retry_after": 86_400})
    client.fetch_bars("MSFT", "1day", START, END)
    assert pauses.seconds == [7, LONGEST_RETRY_AFTER_SECONDS]


# Fmt: skip.
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("0", 0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("Sun, 22 Nov 2026 14:00:00 GMT", None),
        ("9" * 400, LONGEST_RETRY_AFTER_SECONDS),
    ],
)
def test_retry_after_header_is_seconds_or_nothing(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


def test_pauses_grow_at_random_up_to_their_bound() -> None:
    for attempt in range(20):
        bound = min(0.5 * 2**attempt, LONGEST_PAUSE_SECONDS)
        drawn = {make_pause_seconds(attempt) for _ in range(50)}
        assert len(drawn) > 1
        assert all(bound / 2 <= seconds <= bound for seconds in drawn)


def test_pause_ends_when_the_run_ends(sandbox: SandboxProcess, tmp_path: Path) -> None:
    stopping = threading.Event()
    client = MarketData(make_market_settings(tmp_path, sandbox.url), stopping)
    sandbox.set_faults({"match": "MSFT", "kind": "too_many", "retry_after": 100, "times": None})
    ended: list[BaseException] = []

    def fetch() -> None:
        try:
            client.fetch_bars("MSFT", "1day", START, END)
        except StoppedError as error:
            ended.append(error)

    fetching = threading.Thread(target=fetch)
    fetching.start()
    stopping.set()
    fetching.join(timeout=120)
    assert len(ended) == 1
    assert client.requests_sent <= 1


def test_retries_are_taken_from_the_quota_too(sandbox: SandboxProcess, tmp_path: Path) -> None:
    client = make_client(tmp_path, sandbox.url, POLYGON_REQUESTS_PER_MINUTE="50")
    sandbox.set_faults({"match": "MSFT", "kind": "server_error", "times": 3})
    client.fetch_bars("MSFT", "1day", START, END)
    assert client.quota.used() == len(sandbox.fetch_log()) == 4


def test_next_page_on_another_host_is_not_followed_and_the_key_stays(
    client: MarketData, sandbox: SandboxProcess, foreign: ForeignHost
) -> None:
    sandbox.set_faults({"match": "MSFT", "kind": "foreign_next_url", "root": foreign.url})
    with pytest.raises(ForeignHostError, match="was not followed") as caught:
        client.fetch_bars("MSFT", "1day", START, END)
    assert foreign.seen == []
    assert foreign.url.removeprefix("http://") in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "root",
    ["https://{host}", "http://{host}.example.com", "http://x@{host}.example.com", "//{host}:1"],
)
def test_next_page_at_an_address_that_looks_like_ours_is_not_followed(
    client: MarketData, sandbox: SandboxProcess, root: str
) -> None:
    url = root.format(host=sandbox.url.removeprefix("http://"))
    sandbox.set_faults({"match": "MSFT", "kind": "foreign_next_url", "root": url})
    with pytest.raises(ForeignHostError):
        client.fetch_bars("MSFT", "1day", START, END)
    assert len(sandbox.fetch_log()) == 1


def test_pages_that_go_round_in_a_circle_end(client: MarketData, foreign: ForeignHost) -> None:
    body = {"status": "OK", "results": [{}], "next_url": f"{foreign.url}/again"}
    foreign.answer = (200, {}, orjson.dumps(body))
    client.base_url = foreign.url
    with pytest.raises(VendorFaultError, match="circle"):
        client.fetch_grouped(START)
    assert len(foreign.seen) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(
    sandbox: SandboxProcess, foreign: ForeignHost, tmp_path: Path, status: int
) -> None:
    foreign.answer = (status, {"Location": f"{sandbox.url}/v3/reference/tickers"}, b"")
    with pytest.raises(MarketDataError, match=f"status {status}"):
        make_client(tmp_path, foreign.url).fetch_grouped(START)
    assert len(foreign.seen) == 1
    assert sandbox.fetch_log() == []


# Fmt: skip.
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"OK"',
        b"{}",
        b'{"status":[]}',
        b'{"status":"OK","results":7}',
        b'{"status":"OK","results":[7]}',
        b'{"status":"OK","next_url":7}',
        b'{"status":"ERROR"}',
        b"\xff\xfe",
    ],
)
def test_answer_of_another_form_is_a_fault_of_the_vendor(
    foreign: ForeignHost, tmp_path: Path, body: bytes
) -> None:
    foreign.answer = (200, {}, body)
    with pytest.raises(VendorFaultError):
        make_client(tmp_path, foreign.url).fetch_grouped(START)
    assert len(foreign.seen) == ATTEMPTS


def test_vendors_words_are_shown_shortened_and_without_the_key(
    foreign: ForeignHost, tmp_path: Path
) -> None:
    words = {"status": "NOT_AUTHORIZED", "message": f"key {KEY} " + "x" * 5000}
    foreign.answer = (403, {}, orjson.dumps(words))
    with pytest.raises(NotInPlanError) as caught:
        make_client(tmp_path, foreign.url).fetch_grouped(START)
    assert KEY not in str(caught.value)
    assert "key *** xxx" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("case", ["HTTP://LOCALHOST:{port}", "http://localhost:{port}/"])
def test_spelling_of_the_address_does_not_keep_the_key_from_its_host(
    sandbox: SandboxProcess, tmp_path: Path, case: str
) -> None:
    client = make_client(tmp_path, case.format(port=sandbox.url.rpartition(":")[2]))
    assert len(client.fetch_bars("MSFT", "1day", START, END).rows) == SESSIONS


def test_passwords_of_netrc_and_proxies_of_the_environment_are_not_used(
    sandbox: SandboxProcess, foreign: ForeignHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, foreign.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert make_client(tmp_path, sandbox.url).fetch_bars("MSFT", "1day", START, END).rows
    assert sandbox.fetch_log()[0]["key_was_right"]
    assert foreign.seen == []


def test_every_error_of_the_client_is_one_that_the_user_may_see() -> None:
    for error in (
        KeyRefusedError,
        NotInPlanError,
        NotListedError,
        VendorFaultError,
        ForeignHostError,
    ):
        assert issubclass(error, MarketDataError)
        assert issubclass(error, ProjectError)
        assert error.exit_code == 1


def test_client_is_used_by_several_threads_at_once(
    client: MarketData, sandbox: SandboxProcess
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.fetch_bars("MSFT", "1day", START, END), range(40)))
    assert all(answer == answers[0] for answer in answers)
    assert client.requests_sent == len(sandbox.fetch_log()) == 40
