"""Several requests at once, in bounded numbers; the answers come to one thread, which alone writes."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from backtestdb.market.client import ForeignHostError, KeyRefusedError, MarketDataError, VendorFaultError

Request = TypeVar("Request")
Result = TypeVar("Result")
FAULTS_IN_A_ROW = 5


def fetch_all(
    requests: Iterable[Request],
    fetch: Callable[[Request], Result],
    concurrency: int,
    stopping: threading.Event,
) -> Iterator[tuple[Request, Result | MarketDataError]]:
    """Yield each request with its result or its error, in the order of arrival.

    The first request goes out alone, so that a refused key costs one request. At most `concurrency` are under
    way, and as many answers wait to be taken. A refused key, a foreign host, and `FAULTS_IN_A_ROW` faults of
    the vendor one after the other end the run: they are raised, not yielded.
    """
    remaining = iter(requests)
    pool = ThreadPoolExecutor(concurrency)
    under_way: dict[Future[Result], Request] = {}
    arrived: SimpleQueue[Future[Result]] = SimpleQueue()
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
            request, result = under_way.pop(future), settle(future)
            faults = faults + 1 if isinstance(result, VendorFaultError) else 0
            if faults == FAULTS_IN_A_ROW:
                raise result  # type: ignore[misc]
            yield request, result
            room = 2 * concurrency
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
        stopping.clear()


def settle(future: Future[Result]) -> Result | MarketDataError:
    try:
        return future.result()
    except (KeyRefusedError, ForeignHostError):
        raise
    except MarketDataError as error:
        return error
