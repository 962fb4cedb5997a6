"""Several requests at once: how many, in which order, and what ends the run. Against the
sandbox."""

import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from backtestdb.market.client import (
    Answer,
    KeyRefusedError,
    MarketData,
    MarketDataError,
    VendorFaultError,
)
from backtestdb.market.fetch import SAME_FAILURES_IN_A_ROW, fetch_all
from backtestdb.market.quota import StoppedError
from market_setup import make_market_settings
from sandbox_process import SandboxOptions, SandboxProcess

SANDBOX = SandboxOptions()
START, END = date(2012, 11, 1), date(2012, 11, 30)
TICKERS = [f"T{n}" for n in range(30)]


@pytest.fixture
def sandbox(sandbox: SandboxProcess) -> SandboxProcess:
    sandbox.set_faults()
    sandbox.set_settings(latency_seconds=0)
    sandbox.clear_log()
    return sandbox


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


class Watched:
    """A function that runs `work` for each request and knows how many were under way at once."""

    def __init__(self, work: Callable[[str], Answer]) -> None:
        self.work, self.lock = work, threading.Lock()
        self.running = self.most = 0
        self.begun: list[str] = []

    def __call__(self, ticker: str) -> Answer:
        with self.lock:
            self.running += 1
            self.begun.append(ticker)
            self.most = max(self.most, self.running)
        try:
            return self.work(ticker)
        finally:
            with self.lock:
                self.running -= 1


def requester(
    sandbox: SandboxProcess, folder: Path, stopping: threading.Event, **values: object
) -> Watched:
    client = MarketData(make_market_settings(folder, sandbox.url, **values), stopping)
    return Watched(lambda ticker: client.fetch_bars(ticker, "1day", START, END))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_request_is_answered_once_and_no_more_than_allowed_are_under_way(
    sandbox: SandboxProcess, tmp_path: Path, stopping: threading.Event, concurrency: int
) -> None:
    sandbox.set_settings(latency_seconds=0.01)
    fetch = requester(sandbox, tmp_path, stopping)
    answered = [ticker for ticker, _ in fetch_all(TICKERS, fetch, concurrency, stopping)]
    assert sorted(answered) == sorted(TICKERS)
    assert len(sandbox.fetch_log()) == len(TICKERS)
    assert fetch.most == concurrency
    assert not stopping.is_set()


def test_first_request_goes_out_alone(
    sandbox: SandboxProcess, tmp_path: Path, stopping: threading.Event
) -> None:
    fetch = requester(sandbox, tmp_path, stopping)
    answers = fetch_all(TICKERS, fetch, 8, stopping)
    assert next(answers)[0] == TICKERS[0]
    assert fetch.begun == TICKERS[:1]
    assert len(sandbox.fetch_log()) == 1
    assert len(list(answers)) == len(TICKERS) - 1


def test_requests_are_taken_from_their_source_only_as_there_is_room(
    stopping: threading.Event,
) -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for ticker in TICKERS:
            taken.append(ticker)
            yield ticker

    answers = fetch_all(source(), lambda _: Answer([]), 2, stopping)
    next(answers)
    next(answers)
    assert len(taken) <= 1 + 2 * 2
    answers.close()
    assert len(taken) <= 1 + 2 * 2


def test_answers_come_in_the_order_of_arrival(stopping: threading.Event) -> None:
    slow_may_end = threading.Event()

    def fetch(ticker: str) -> Answer:
        if ticker == "slow":
            assert slow_may_end.wait(30)
        return Answer([{"ticker": ticker}])

    answers = fetch_all(["first", "slow", "quick"], fetch, 2, stopping)
    arrived = [next(answers)[0], next(answers)[0]]
    slow_may_end.set()
    arrived += [ticker for ticker, _ in answers]
    assert arrived == ["first", "quick", "slow"]


def test_refused_key_costs_one_request_whatever_the_concurrency(
    sandbox: SandboxProcess, tmp_path: Path, stopping: threading.Event
) -> None:
    fetch = requester(sandbox, tmp_path, stopping, POLYGON_API_KEY="wrong")
    with pytest.raises(KeyRefusedError):
        list(fetch_all(TICKERS, fetch, 8, stopping))
    assert len(sandbox.fetch_log()) == 1


def scripted(outcomes: str) -> Callable[[int], Answer]:
    """f: a fault of the vendor, x: another error, anything else: an answer."""
    errors = {"f": VendorFaultError("down"), "x": MarketDataError("odd")}

    def fetch(number: int) -> Answer:
        if outcomes[number] in errors:
            raise errors[outcomes[number]]
        return Answer([])

    return fetch


@pytest.mark.parametrize("failure", ["f", "x"])
def test_same_failure_some_times_in_a_row_ends_the_run(
    stopping: threading.Event, failure: str
) -> None:
    outcomes = "." + failure * 20
    answers = fetch_all(range(21), scripted(outcomes), 1, stopping)
    assert [next(answers)[0] for _ in range(SAME_FAILURES_IN_A_ROW)] == [0, 1, 2, 3, 4]
    with pytest.raises(MarketDataError):
        next(answers)


@pytest.mark.parametrize("outcomes", ["ffff.ffff.ffff", "ffffxffff", "ffff", "xxxxfxxxx"])
def test_faults_with_an_answer_between_them_are_named_and_the_run_goes_on(
    stopping: threading.Event, outcomes: str
) -> None:
    results = dict(fetch_all(range(len(outcomes)), scripted(outcomes), 1, stopping))
    assert [isinstance(results[n], MarketDataError) for n in range(len(outcomes))] == [
        outcome != "." for outcome in outcomes
    ]


def test_mistake_of_the_program_is_raised_as_it_is(stopping: threading.Event) -> None:
    def fetch(_: str) -> Answer:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        list(fetch_all(TICKERS, fetch, 4, stopping))


def test_run_that_is_given_up_ends_what_waits_and_sends_nothing_more(
    stopping: threading.Event,
) -> None:
    waiting, ended = threading.Event(), []

    def fetch(ticker: str) -> Answer:
        if ticker == TICKERS[0]:
            return Answer([])
        waiting.set()
        if stopping.wait(30):
            ended.append(ticker)
            raise StoppedError
        return Answer([])

    answers = fetch_all(TICKERS, fetch, 2, stopping)
    next(answers)
    consumer = threading.Thread(target=lambda: waiting.wait(30) and stopping.set())
    consumer.start()
    with pytest.raises(StoppedError):
        next(answers)
    consumer.join()
    assert set(ended) <= set(TICKERS[1:5])
    assert not stopping.is_set()


def test_nothing_to_ask_is_nothing(stopping: threading.Event) -> None:
    assert list(fetch_all([], scripted(""), 4, stopping)) == []
