"""The vendor's REST API over HTTP: what it answers, as values or as errors of one class each.

Facts and their sources: the vendor's OpenAPI description and its Python client; see
docs/DATABASE.md. This module knows no database.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NameResolutionError, ReadTimeoutError

from backtestdb.config import Settings
from backtestdb.console import say
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.market.quota import Quota, StoppedError, quota_path

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
# Another program may use the key: its requests leave the window within a minute, so a refusal is
# waited for and is no attempt. Half an hour of refusals is a fault.
WAITS_FOR_QUOTA = 30
# An answer that trickles in resets the time-out with each byte.
TIMEOUTS_IN_AN_ANSWER = 4
CHUNK_BYTES = 65536
CLOCK_IS_SAID_SECONDS = 120
CLOCK_IS_WRONG_SECONDS = 12 * 3600
# Base bars (minutes or days) in one page; the default of 5000 cuts a month of minutes.
BARS_LIMIT = 50000
TICKERS_LIMIT = 1000
SPLITS_LIMIT = 5000


class MarketDataError(ProjectError):
    """A request that brought no data. `kind`: the same for failures of one cause."""

    @property
    def kind(self) -> str:
        return type(self).__name__


class StoppedRunError(MarketDataError):
    """Nothing that a run asks can succeed; what it stored so far stays."""


class KeyRefusedError(StoppedRunError):
    """401: no other request can succeed either."""


class UnreachableError(StoppedRunError):
    """The request never left: the name, the proxy or the certificate is wrong."""


class WrongClockError(StoppedRunError):
    """This machine's clock is a day from the vendor's: no session can be told to be over."""


class NotInPlanError(MarketDataError):
    """403 in the vendor's own words: the range lies outside of what the key's plan covers."""


class UndocumentedAnswerError(MarketDataError):
    """A status not documented for what was asked: a wrong address, a captive portal."""

    def __init__(self, what: str, status: int, *, next_step: str = "") -> None:
        super().__init__(what, next_step=next_step)
        self.status = status

    @property
    def kind(self) -> str:
        return f"status {self.status}"


class NotListedError(UndocumentedAnswerError):
    """404: the vendor does not know it."""


class VendorFaultError(MarketDataError):
    """A passing fault that did not pass in `ATTEMPTS` attempts."""


class ForeignHostError(StoppedRunError):
    """The next page lies on another host: neither the request nor the key goes there."""


class PassingFaultError(Exception):
    """A fault worth another attempt, after `retry_after_seconds` where the vendor says so."""

    def __init__(self, cause: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_seconds = retry_after_seconds


class OverQuotaError(PassingFaultError):
    """429: the window is full."""


@dataclass(frozen=True)
class Answer:
    """All pages of an answer. `rows` as the vendor sent them; none is a legal answer."""

    rows: list[dict[str, Any]]
    is_delayed: bool = False


Verify = Callable[[dict[str, Any]], None]


def accept(body: dict[str, Any]) -> None:
    """Verify nothing of a page."""


class HeaderKey(requests.auth.AuthBase):
    """The key as a header, for one host only."""

    def __init__(self, api_key: str, base_url: str) -> None:
        self.api_key, self.origin = api_key, parse_origin(base_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if parse_origin(request.url or "") == self.origin:
            request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


class MarketData:
    """A client for one key. Its methods may be called from several threads at once."""

    def __init__(
        self,
        settings: Settings,
        stopping: threading.Event | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raise SettingsError without a key. `stopping`, once set, ends every wait. `clock`:
        compared with the vendor's."""
        if not settings.api_key:
            raise SettingsError(
                "no API key: POLYGON_API_KEY (or MASSIVE_API_KEY) is empty",
                next_step="write the key into .env, or try everything without one: make demo",
            )

        self.base_url = settings.base_url
        self.api_key = settings.api_key
        self.timeout_seconds = settings.timeout_seconds
        self.stopping = stopping or threading.Event()

        path = quota_path(settings.state_dir, settings.base_url, settings.api_key)
        self.quota = Quota(path, settings.requests_per_minute, stopping=self.stopping)
        self.counting, self.requests_sent = threading.Lock(), 0

        self.clock, self.clock_was_compared, self.was_reached = clock, False, False
        self.clock_is_ahead_by = timedelta(0)
        self.date_header: str | None = None

        self.session = requests.Session()
        self.session.mount("https://", HTTPAdapter(pool_maxsize=settings.concurrency))
        self.session.mount("http://", HTTPAdapter(pool_maxsize=settings.concurrency))
        self.session.auth = HeaderKey(settings.api_key, settings.base_url)
        # Plain http is spoken with this machine only, and a proxy on the way would read the key.
        self.session.trust_env = settings.base_url.startswith("https:")
        self.session.headers["Accept-Encoding"] = "gzip"

    def fetch_bars(
        self, ticker: str, timeframe: str, start: date, end: date, *, adjusted: bool = True
    ) -> Answer:
        """Return bars (1day or 5min) of the sessions from `start` to `end`, both included:
        split-adjusted, or as traded."""
        multiplier, timespan = {"1day": (1, "day"), "5min": (5, "minute")}[timeframe]
        path = (
            f"/v2/aggs/ticker/{quote(ticker, safe='')}/range/{multiplier}/{timespan}/{start}/{end}"
        )
        query = {"adjusted": "true" if adjusted else "false", "sort": "asc", "limit": BARS_LIMIT}
        return self.fetch_pages(
            path, query, lambda body: verify_bars(body, ticker, adjusted=adjusted)
        )

    def fetch_grouped(self, session_date: date) -> Answer:
        """Return the day bar of every US ticker of one session; `T` is a row's ticker."""
        path = f"/v2/aggs/grouped/locale/us/market/stocks/{session_date}"
        return self.fetch_pages(path, {"adjusted": "true"}, verify_bars)

    def fetch_tickers(self, ticker_type: str) -> Answer:
        """Return reference rows of all active tickers of a type (CS common stock, ADRC, PFD …)."""
        query = {"market": "stocks", "type": ticker_type, "active": "true", "limit": TICKERS_LIMIT}
        return self.fetch_pages("/v3/reference/tickers", query)

    def fetch_delisted(self, ticker_type: str, since: date) -> Answer:
        """Return reference rows of tickers of a type that were delisted on or after `since`."""
        # The list goes back decades: newest first, and no page that is before `since` as a whole.
        query = {
            "market": "stocks",
            "type": ticker_type,
            "active": "false",
            "sort": "delisted_utc",
            "order": "desc",
            "limit": TICKERS_LIMIT,
        }
        rows: list[dict[str, Any]] = []

        for body in self.iterate_pages(f"{self.base_url}/v3/reference/tickers", query):
            page = body.get("results") or []
            days = [str(row.get("delisted_utc") or "")[:10] for row in page]
            rows += [row for row, day in zip(page, days, strict=True) if day >= since.isoformat()]
            if days and max(days) < since.isoformat() and days == sorted(days, reverse=True):
                break

        return Answer(rows)

    def fetch_splits(self, executed_since: date) -> Answer:
        """Return splits from a day on, by the endpoint before 2026 if there is no new one."""
        query = {"execution_date.gte": executed_since.isoformat()}
        try:
            return self.fetch_pages("/stocks/v1/splits", {**query, "limit": SPLITS_LIMIT})
        except (NotListedError, NotInPlanError):
            return self.fetch_pages("/v3/reference/splits", {**query, "limit": TICKERS_LIMIT})

    def fetch_ticker_events(self, ticker: str) -> Any:
        """Return the `results` about the names of a ticker's company."""
        url = f"{self.base_url}/vX/reference/tickers/{quote(ticker, safe='')}/events"
        return self.fetch_json(url, {"types": "ticker_change"}).get("results")

    def fetch_pages(self, path: str, query: Mapping[str, Any], verify: Verify = accept) -> Answer:
        """Follow `next_url` to the end; `results` is absent where there are none. `verify` raises
        PassingFaultError for a page that does not say what was asked."""
        rows: list[dict[str, Any]] = []
        is_delayed = False
        for body in self.iterate_pages(self.base_url + path, query, verify):
            rows += body.get("results") or []
            is_delayed = is_delayed or body["status"] == "DELAYED"
        return Answer(rows, is_delayed)

    def iterate_pages(
        self, url: str, query: Mapping[str, Any], verify: Verify = accept
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of an answer. Raise ForeignHostError when the next page lies on another
        host, VendorFaultError when pages go round in a circle."""
        seen = set()
        while url:
            body = self.fetch_json(url, query, lambda page: verify_page(page, verify))
            yield body
            seen.add(url)
            url, query = body.get("next_url") or "", {}
            if url in seen:
                raise VendorFaultError(
                    f"{urlsplit(url).path}: the pages of the answer go round in a circle"
                )

            if url and parse_origin(url) != parse_origin(self.base_url):
                raise ForeignHostError(
                    f"the next page lies on {urlsplit(url).netloc}, not on "
                    f"{urlsplit(self.base_url).netloc}; it was not followed",
                    next_step="check POLYGON_BASE_URL",
                )

    def fetch_json(
        self, url: str, query: Mapping[str, Any], verify: Verify = accept
    ) -> dict[str, Any]:
        """Return one answer. Passing faults are tried again `ATTEMPTS` times in all, each attempt
        within the quota, after a random pause that doubles its bound (full jitter), or after
        Retry-After. A full window is waited for and is no attempt."""
        cause, attempt, waits = "", 0, 0

        while attempt < ATTEMPTS and waits < WAITS_FOR_QUOTA:
            self.quota.take()
            with self.counting:
                self.requests_sent += 1

            try:
                body = self.attempt_json(url, query)
                # A clock that is half a day off ends the run before an answer is believed.
                self.compare_clocks()
                verify(body)
                return body

            except OverQuotaError as fault:
                cause, waits = str(fault), waits + 1
                if waits == 1:
                    say(
                        "over the quota (429): another program may use this key; waiting for the "
                        "rest of the minute"
                    )
                asked = fault.retry_after_seconds
                self.pause(self.quota.window_seconds if asked is None else asked)

            except PassingFaultError as fault:
                cause, attempt = str(fault), attempt + 1
                if attempt < ATTEMPTS:
                    asked = fault.retry_after_seconds
                    self.pause(make_pause_seconds(attempt - 1) if asked is None else asked)

        raise VendorFaultError(
            f"{urlsplit(url).path}: {cause}, {max(attempt, waits)} times",
            next_step="start the same command again later: it fetches only what is missing",
        )

    def pause(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise StoppedError

    def attempt_json(self, url: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request once and return its answer. Raise PassingFaultError for a fault that may
        pass, UnreachableError when the first request never left."""
        deadline = time.monotonic() + TIMEOUTS_IN_AN_ANSWER * self.timeout_seconds
        try:
            # A redirect would take the request, and with it the question, to another place.
            with self.session.get(
                url,
                params=dict(query),
                timeout=self.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                self.was_reached = True
                content = self.read_content(response, deadline)
        except (requests.Timeout, ReadTimeoutError) as error:
            raise PassingFaultError(f"no answer within {self.timeout_seconds:.0f} s") from error
        except requests.RequestException as error:
            if reason := explain_unreachable(error, self.base_url):
                self.quota.give_back()
                # Hours into a run the network may come back; at its beginning the user sits before
                # it.
                if not self.was_reached:
                    raise UnreachableError(reason[0], next_step=reason[1]) from error
                raise PassingFaultError(reason[0]) from error
            raise PassingFaultError(f"the connection broke ({type(error).__name__})") from error
        except (HTTPError, OSError) as error:
            raise PassingFaultError(f"the connection broke ({type(error).__name__})") from error

        self.date_header = response.headers.get("Date")
        return self.read_answer(response, content)

    def read_content(self, response: requests.Response, deadline: float) -> bytes:
        """Return the whole body before `deadline` (monotonic), as long as the run goes on."""
        parts = []
        # read1 returns what is there; read would wait for the whole chunk, however slowly it comes.
        while part := response.raw.read1(CHUNK_BYTES, decode_content=True):
            parts.append(part)
            if self.stopping.is_set():
                raise StoppedError
            if time.monotonic() > deadline:
                seconds = TIMEOUTS_IN_AN_ANSWER * self.timeout_seconds
                raise PassingFaultError(f"the answer was not complete after {seconds:.1f} s")

        return b"".join(parts)

    def compare_clocks(self) -> None:
        """Compare the clocks once in a run, at the first answer. Raise WrongClockError where they
        are half a day apart."""
        if self.clock_was_compared or not self.date_header:
            return
        self.clock_was_compared = True

        try:
            vendor = parsedate_to_datetime(self.date_header).astimezone(UTC)
        except ValueError:
            return

        ahead = self.clock() - vendor
        ahead_seconds = ahead.total_seconds()
        direction = "ahead of" if ahead_seconds > 0 else "behind"
        apart = (
            f"this machine's clock is {abs(ahead_seconds) / 60:,.0f} minutes {direction} the "
            "vendor's"
        )

        if abs(ahead_seconds) >= CLOCK_IS_WRONG_SECONDS:
            raise WrongClockError(
                f"{apart} ({vendor:%Y-%m-%d %H:%M} UTC)",
                next_step="set the clock, then start the same command again",
            )

        if abs(ahead_seconds) >= CLOCK_IS_SAID_SECONDS:
            # Minutes or hours: the vendor's clock dates the answers from here on.
            self.clock_is_ahead_by = ahead
            say(f"{apart}: answers are dated by the vendor's, which decides what is over")

    def read_answer(self, response: requests.Response, content: bytes) -> dict[str, Any]:
        """Return the answer, or raise what its status means: docs/DATABASE.md, "What the vendor
        answers"."""
        status, path = response.status_code, urlsplit(response.url).path
        if status == requests.codes.too_many_requests:
            raise OverQuotaError(
                "over the quota (429)", parse_retry_after(response.headers.get("Retry-After"))
            )

        if status >= 500:
            raise PassingFaultError(f"a fault of the vendor ({status})")

        if status == requests.codes.ok:
            return parse_body(content)
        if status == requests.codes.unauthorized:
            raise KeyRefusedError(
                "the vendor does not accept the API key (401)",
                next_step="check POLYGON_API_KEY in .env",
            )

        word, message = self.read_message(content)
        if status == requests.codes.forbidden and word != "NOT_AUTHORIZED":
            raise PassingFaultError("refused (403), but not in the vendor's words")
        what = f"{path}: {message or f'status {status}'}"
        if status == requests.codes.forbidden:
            raise NotInPlanError(what)

        next_step = (
            "check POLYGON_BASE_URL, and whether a page wants a log-in before this network works"
        )
        if status == requests.codes.not_found:
            raise NotListedError(what, status, next_step=next_step)

        raise UndocumentedAnswerError(f"{what} (status {status})", status, next_step=next_step)

    def read_message(self, content: bytes) -> tuple[str, str]:
        """Return the vendor's status word, and its own words, shortened; should they ever repeat
        the key, it is struck out."""
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            return "", ""
        message = str(body.get("message") or body.get("error") or body.get("status") or "")
        return str(body.get("status") or ""), message.replace(self.api_key, "***")[:200]


def verify_bars(body: Mapping[str, Any], ticker: str = "", *, adjusted: bool = True) -> None:
    """Raise PassingFaultError when a page of bars is not what was asked for: of another ticker, not
    adjusted (or adjusted), or with another number of rows than it says."""
    rows = body.get("results") or []
    said = body.get("resultsCount", len(rows))
    if said != len(rows):
        raise PassingFaultError(f"the answer says {said} bars and holds {len(rows)}")
    if "results" in body and body["results"] is None:
        raise PassingFaultError("the results of the answer are null")

    if body.get("adjusted", adjusted) is not adjusted:
        raise PassingFaultError(f"the answer is {'not ' if adjusted else ''}adjusted for splits")
    if ticker and body.get("ticker", ticker) != ticker:
        raise PassingFaultError(
            f"the answer is about {str(body['ticker'])[:20]!r}, not about {ticker}"
        )


def explain_unreachable(error: BaseException, base_url: str) -> tuple[str, str] | None:
    """Return why a request never left, and what to do; None for what may work again."""
    host = urlsplit(base_url).netloc
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy on the way to {host} does not answer", "check HTTPS_PROXY and NO_PROXY"

    if isinstance(error, requests.exceptions.SSLError):
        return f"the certificate of {host} is not accepted ({find_cause(error)})", (
            "check the clock, and whether something on this network reads along "
            "(REQUESTS_CA_BUNDLE)"
        )

    if isinstance(find_cause(error), NameResolutionError):
        return f"the name {host} does not resolve (DNS)", "check the network and POLYGON_BASE_URL"
    return None


def find_cause(error: BaseException) -> BaseException:
    """Return the error of urllib3 inside of one of requests."""
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    return reason if isinstance(reason, HTTPError) else error


def verify_page(page: dict[str, Any], verify: Verify) -> None:
    """Raise PassingFaultError for a page without a list of rows, and what `verify` raises."""
    if isinstance(page.get("results"), dict):
        raise PassingFaultError("the results of the answer are no list of rows")
    verify(page)


def parse_body(content: bytes) -> dict[str, Any]:
    """Return a body of the documented shape. Raise PassingFaultError for any other."""
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise PassingFaultError("the answer was cut short or is not JSON") from error

    if not isinstance(body, dict) or body.get("status") not in ("OK", "DELAYED"):
        raise PassingFaultError("the answer has another form than documented")
    results = body.get("results") or []
    # Of an endpoint about one ticker: an object.
    rows = [results] if isinstance(results, dict) else results
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PassingFaultError("the results of the answer are no list of rows")

    if not isinstance(body.get("next_url") or "", str):
        raise PassingFaultError("the next_url of the answer is no text")
    return body


def parse_origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port as far as they decide where a request goes."""
    # Case and a written-out default port do not.
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, parts.hostname or "", port or {"https": 443, "http": 80}.get(parts.scheme)


def parse_retry_after(text: str | None) -> float | None:
    """Return bounded seconds; None if the header is missing or a date (the vendor: seconds)."""
    if not text or not text.strip().isdecimal():
        return None
    return min(float(text), LONGEST_RETRY_AFTER_SECONDS)


def make_pause_seconds(attempt: int) -> float:
    bound = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
    return random.uniform(bound / 2, bound)  # noqa: S311  spreads retries, guards nothing
