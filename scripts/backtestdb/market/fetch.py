"""Several requests at once, in bounded numbers; one thread takes the answers and alone writes."""

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import TypeVar

from backtestdb.market.bars import ParsedBars, parse_bars
from backtestdb.market.client import (
    Answer,
    MarketData,
    MarketDataError,
    NotInPlanError,
    StoppedRunError,
    VendorFaultError,
)
from backtestdb.market.plan_limits import (
    GROUPED,
    KnownLimits,
    PlanLimits,
    Refused,
    ask_whether_refused,
    judge_refusal,
)
from backtestdb.market.request_plan import RangeRequest, Request, SessionRequest

Sent = TypeVar("Sent")
Received = TypeVar("Received")
SAME_FAILURES_IN_A_ROW = 5
# A refusal that an older session contradicts is asked again so often.
REFUSALS = 3
# Tickers that are asked for in the place of a refused one; the last one is in every plan.
WITNESSES = 3
WITNESS = "AAPL"


def fetch_all(
    requests: Iterable[Sent],
    fetch: Callable[[Sent], Received],
    concurrency: int,
    stopping: threading.Event,
) -> Iterator[tuple[Sent, Received | MarketDataError]]:
    """Yield each request with its result or its error, in the order of arrival.

    At most `concurrency` are under way, and as many answers wait to be taken. What no other request
    can change ends the run (a refused key, a foreign host, no way to the vendor), and so do
    `SAME_FAILURES_IN_A_ROW` equal failures one after the other: they are raised, not yielded.
    """
    remaining, failures = iter(requests), FailureCount()
    waiting: queue.SimpleQueue[Sent | None] = queue.SimpleQueue()
    arrived: queue.SimpleQueue[tuple[Sent, Received | BaseException]] = queue.SimpleQueue()

    # Daemons: an interrupted run does not wait for their answers.
    workers = [
        threading.Thread(target=work, args=(waiting, arrived, fetch, stopping), daemon=True)
        for _ in range(concurrency)
    ]
    for worker in workers:
        worker.start()

    # The first request goes out alone, so that a refused key costs one request.
    under_way, room = 0, 1
    is_interrupted = False

    try:
        while True:
            for request in islice(remaining, room - under_way):
                waiting.put(request)
                under_way += 1
            if not under_way:
                return

            request, result = arrived.get()
            under_way -= 1
            if isinstance(result, BaseException):
                result = failures.judge(result)
            else:
                failures.forget()

            yield request, result
            room = 2 * concurrency
    except KeyboardInterrupt:
        is_interrupted = True
        raise
    finally:
        stopping.set()
        for _ in workers:
            waiting.put(None)
        if not is_interrupted:
            for worker in workers:
                worker.join()
            stopping.clear()


def work(
    waiting: queue.SimpleQueue[Sent | None],
    arrived: queue.SimpleQueue[tuple[Sent, Received | BaseException]],
    fetch: Callable[[Sent], Received],
    stopping: threading.Event,
) -> None:
    """Send requests in one thread until there are no more, or the run ends."""
    while (request := waiting.get()) is not None and not stopping.is_set():
        try:
            arrived.put((request, fetch(request)))
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that writes)
            arrived.put((request, error))


@dataclass
class FailureCount:
    """How often the same failure came one after the other."""

    kind: str = ""
    count: int = 0

    def judge(self, error: BaseException) -> MarketDataError:
        """Return the error to yield. Raise one that ends the run."""
        if not isinstance(error, MarketDataError) or isinstance(error, StoppedRunError):
            raise error
        self.count = self.count + 1 if error.kind == self.kind else 1
        self.kind = error.kind
        if self.count == SAME_FAILURES_IN_A_ROW:
            raise error
        return error

    def forget(self) -> None:
        self.count = 0


class EmptySessionError(MarketDataError):
    """A session of the calendar without any bar: not there yet, or nothing traded."""

    @property
    def kind(self) -> str:
        """Return what failed. Each session is a failure of its own: a clock that is a week ahead
        has several."""
        return str(self)


class NothingInPlanError(StoppedRunError):
    """The vendor refuses whatever is asked."""


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
    """Asks for what is planned, from several threads. What a refusal concerns is found out by one
    thread, with a second request as a witness; what is known to be refused is not asked for
    again."""

    def __init__(
        self,
        client: MarketData,
        sessions: Sequence[date],
        limits: KnownLimits,
        tickers: Sequence[str],
        wanted: Collection[str] | None,
    ) -> None:
        """`sessions`: the calendar from one session before the jobs' first to their last.
        `tickers`: those of the jobs, for witnesses. `wanted`: whose bars to keep of the whole
        market's; None for all."""
        self.client, self.sessions, self.tickers, self.wanted = client, sessions, tickers, wanted
        self.limits, self.learning = limits, threading.Lock()
        self.answered_from: dict[str, date] = {}
        self.answered_tickers: dict[str, str] = {}

    def fetch(self, request: Request) -> Result:
        """Return the answer, or None when the plan does not cover any of it."""
        if isinstance(request, SessionRequest):
            return self.fetch_session(request.session_date)
        return self.fetch_range(request)

    def fetch_session(self, session_date: date) -> SessionAnswer | None:
        """Return the answer about a session of the whole market; None when the plan refuses it.
        Raise EmptySessionError when it has no bar yet."""
        for _ in range(REFUSALS):
            if self.limits.of(GROUPED).refuses(session_date):
                return None
            try:
                answer = self.client.fetch_grouped(session_date)
            except NotInPlanError as refusal:
                self.learn_refusal(GROUPED, self.tickers[0], session_date, refusal)
                continue
            if not answer.rows:
                raise EmptySessionError(f"the vendor has no bar of the session {session_date} yet")
            self.note_answer(GROUPED, session_date)
            bars = parse_bars(answer.rows, "1day", [session_date], wanted=self.wanted)
            return SessionAnswer(session_date, bars)

        raise VendorFaultError(
            f"session {session_date}: refused, although an older one is answered"
        )

    def fetch_range(self, request: RangeRequest) -> RangeAnswer | None:
        """Return the answer about one ticker, trimmed to the plan; None when it has none of it."""
        for _ in range(REFUSALS):
            trimmed = self.trim(request)
            if trimmed is None:
                return None
            try:
                answer = self.client.fetch_bars(
                    trimmed.ticker, trimmed.timeframe, trimmed.start, trimmed.end
                )
            except NotInPlanError as refusal:
                self.learn_refusal(trimmed.timeframe, trimmed.ticker, trimmed.end, refusal)
                continue
            self.note_answer(trimmed.timeframe, trimmed.end)
            if answer.rows:
                self.answered_tickers[trimmed.timeframe] = trimmed.ticker
            return RangeAnswer(trimmed, answer)

        raise VendorFaultError(f"{request.ticker}: refused, although an older session is answered")

    def note_answer(self, endpoint: str, session_date: date) -> None:
        known = self.answered_from.get(endpoint)
        self.answered_from[endpoint] = min(known, session_date) if known else session_date

    def trim(self, request: RangeRequest) -> RangeRequest | None:
        """Return what the plan covers of a range, as far as is known."""
        if request.ticker in self.limits.refused_of(request.timeframe):
            return None
        limits = self.limits.of(request.timeframe)
        covered = [
            day
            for day in self.sessions
            if request.start <= day <= request.end and not limits.refuses(day)
        ]
        return replace(request, start=covered[0], end=covered[-1]) if covered else None

    def learn_refusal(
        self, endpoint: str, ticker: str, refused: date, refusal: NotInPlanError
    ) -> None:
        """Find out what a refusal concerns, unless another thread just did."""
        with self.learning:
            limits = self.limits.of(endpoint)
            if limits.refuses(refused) or ticker in self.limits.refused_of(endpoint):
                return

            # A refused range ends with a refused session: plans cut off at the beginning without a
            # word.
            concerns, starts = judge_refusal(
                refused,
                self.sessions,
                self.answered_from.get(endpoint),
                lambda day: ask_whether_refused(self.client, endpoint, ticker, day),
                lambda day: self.is_other_refused(endpoint, ticker, day),
            )
            if concerns is Refused.EVERYTHING:
                raise NothingInPlanError(
                    f"the vendor refuses whatever is asked with this key ({refusal})",
                    next_step="check the key's subscription at the vendor",
                ) from refusal

            self.limits = self.conclude(endpoint, ticker, limits, concerns, starts, refused)

    def is_other_refused(self, endpoint: str, ticker: str, session_date: date) -> bool | None:
        """Return whether the session is refused of another ticker too, or of one for the market."""
        if endpoint == GROUPED:
            return ask_whether_refused(self.client, "1day", ticker, session_date)

        others = [self.answered_tickers.get(endpoint), *self.tickers[:WITNESSES], WITNESS]
        candidates = list(dict.fromkeys(each for each in others if each and each != ticker))
        for other in candidates[:WITNESSES]:
            refused = ask_whether_refused(self.client, endpoint, other, session_date)
            if refused is not True:
                return refused
        return True

    def conclude(
        self,
        endpoint: str,
        ticker: str,
        limits: PlanLimits,
        concerns: Refused,
        starts: date | None,
        refused: date,
    ) -> KnownLimits:
        """Return what is known with a judged refusal."""
        if concerns is Refused.NEWEST:
            return self.limits.with_limits(endpoint, replace(limits, refused_session=refused))
        if concerns is Refused.SUBJECT and endpoint == GROUPED:
            return self.limits.with_limits(endpoint, replace(limits, is_refused=True))
        if concerns is Refused.SUBJECT:
            return self.limits.with_refused_ticker(endpoint, ticker)

        if concerns is Refused.HISTORY:
            known = self.limits.with_limits(endpoint, replace(limits, history_starts=starts))
            if endpoint == GROUPED and self.is_other_refused(GROUPED, ticker, refused):
                # The wall of the whole market is that of its tickers too: or each of them would be
                # asked for.
                own = replace(self.limits.of("1day"), history_starts=starts)
                return known.with_limits("1day", own)
            return known

        return self.limits
