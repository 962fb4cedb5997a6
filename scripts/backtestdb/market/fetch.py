"""Several requests at once, in bounded numbers; the answers come to one thread, which alone writes."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from backtestdb.market.bars import ParsedBars, parse_bars
from backtestdb.market.client import (
    Answer,
    ForeignHostError,
    KeyRefusedError,
    MarketData,
    MarketDataError,
    NotInPlanError,
    NotListedError,
    VendorFaultError,
)
from backtestdb.market.plan_limits import PlanLimits
from backtestdb.market.request_plan import RangeRequest, Request, SessionRequest

ONE_DAY = timedelta(days=1)
Sent = TypeVar("Sent")
Received = TypeVar("Received")
FAULTS_IN_A_ROW = 5


def fetch_all(
    requests: Iterable[Sent],
    fetch: Callable[[Sent], Received],
    concurrency: int,
    stopping: threading.Event,
) -> Iterator[tuple[Sent, Received | MarketDataError]]:
    """Yield each request with its result or its error, in the order of arrival.

    The first request goes out alone, so that a refused key costs one request. At most `concurrency` are under
    way, and as many answers wait to be taken. A refused key, a foreign host, and `FAULTS_IN_A_ROW` faults of
    the vendor one after the other end the run: they are raised, not yielded.
    """
    remaining = iter(requests)
    pool = ThreadPoolExecutor(concurrency)
    under_way: dict[Future[Received], Sent] = {}
    arrived: SimpleQueue[Future[Received]] = SimpleQueue()
    faults, room = 0, 1
    try:
        while True:
            for request in islice(remaining, room - len(under_way)):
                future = pool.submit(fetch, request)
                under_way[future] = request
                future.add_done_callback(arrived.put)
            if not under_way:
                return
            future = arrived.get()
            request, result = under_way.pop(future), result_or_error(future)
            faults = faults + 1 if isinstance(result, VendorFaultError) else 0
            if faults == FAULTS_IN_A_ROW:
                raise result  # type: ignore[misc]
            yield request, result
            room = 2 * concurrency
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
        stopping.clear()


def result_or_error(future: Future[Received]) -> Received | MarketDataError:
    try:
        return future.result()
    except (KeyRefusedError, ForeignHostError):
        raise
    except MarketDataError as error:
        return error


class EmptySessionError(MarketDataError):
    """A session of the calendar of which the vendor has no bar at all: not there yet, never legally empty."""


@dataclass(frozen=True)
class RangeAnswer:
    """`request`: what was really asked for, which may be less than what was planned."""

    request: RangeRequest
    answer: Answer


@dataclass(frozen=True)
class SessionAnswer:
    """The day bars of the whole market in one session, parsed by the thread that fetched them."""

    session_date: date
    bars: ParsedBars


Result = RangeAnswer | SessionAnswer | None


class Requester:
    """Asks for what is planned, from several threads. A refusal of the newest session concerns that session,
    any other one all earlier sessions too; what is known to be refused is not asked for again."""

    def __init__(
        self, client: MarketData, sessions: Sequence[date], limits: PlanLimits, wanted: Collection[str] | None
    ) -> None:
        """`sessions`: those of the jobs, in order. `wanted`: whose bars to keep of the whole market's; None for
        everyone's."""
        self.client, self.sessions, self.wanted = client, sessions, wanted
        self.limits, self.learning = limits, threading.Lock()

    def fetch(self, request: Request) -> Result:
        """The answer, or None when the plan does not cover any of it."""
        if isinstance(request, SessionRequest):
            return self.fetch_session(request.session_date)
        return self.fetch_range(request)

    def fetch_session(self, session_date: date) -> SessionAnswer | None:
        if self.is_refused(session_date):
            return None
        try:
            answer = self.client.fetch_grouped(session_date)
        except NotInPlanError:
            self.learn_refusal(session_date)
            return None
        if not answer.rows:
            raise EmptySessionError(f"the vendor has no bar of the session {session_date} yet")
        bars = parse_bars(answer.rows, "1day", [session_date], wanted=self.wanted)
        return SessionAnswer(session_date, bars)

    def fetch_range(self, request: RangeRequest) -> RangeAnswer | None:
        while True:
            trimmed = self.trim(request)
            if trimmed is None:
                return None
            try:
                answer = self.client.fetch_bars(trimmed.ticker, trimmed.timeframe, trimmed.start, trimmed.end)
            except NotListedError:
                answer = Answer([])
            except NotInPlanError:
                self.learn_refusal(trimmed.end)
                continue
            return RangeAnswer(trimmed, answer)

    def is_refused(self, session_date: date) -> bool:
        limits = self.limits
        too_early = limits.history_starts is not None and session_date < limits.history_starts
        return too_early or session_date == limits.refused_session

    def trim(self, request: RangeRequest) -> RangeRequest | None:
        """What the plan covers of a range, as far as is known."""
        covered = [
            day for day in self.sessions if request.start <= day <= request.end and not self.is_refused(day)
        ]
        return replace(request, start=covered[0], end=covered[-1]) if covered else None

    def learn_refusal(self, session_date: date) -> None:
        """A refused range ends with a refused session, since plans cut off at the beginning without a word."""
        with self.learning:
            if session_date == self.sessions[-1] and self.limits.refused_session is None:
                self.limits = replace(self.limits, refused_session=session_date)
            else:
                earlier = self.limits.history_starts or date.min
                self.limits = replace(self.limits, history_starts=max(earlier, session_date + ONE_DAY))
