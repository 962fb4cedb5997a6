"""The vendor's REST API over HTTP: what it answers, as values or as errors of one class each.

Facts and their sources: the vendor's OpenAPI description and its Python client; see docs/DATABASE.md. This
module knows no database.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter

from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.market.quota import Quota, StoppedError, quota_path

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
BARS_LIMIT = 50000  # base bars (minutes or days) in one page; the default of 5000 cuts a month of minutes
TICKERS_LIMIT = 1000
SPLITS_LIMIT = 5000


class MarketDataError(ProjectError):
    """A request that brought no data."""


class KeyRefusedError(MarketDataError):
    """401: no other request can succeed either."""


class NotInPlanError(MarketDataError):
    """403: the range lies outside of what the key's plan covers."""


class NotListedError(MarketDataError):
    """404: the vendor does not know it."""


class VendorFaultError(MarketDataError):
    """A passing fault that did not pass in `ATTEMPTS` attempts."""


class ForeignHostError(MarketDataError):
    """The next page lies on another host: neither the request nor the key goes there."""


class PassingFaultError(Exception):
    """Inside this module: worth another attempt, after `retry_after_seconds` where the vendor says so."""

    def __init__(self, cause: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Answer:
    """All pages of an answer. `rows` as the vendor sent them; none is a legal answer."""

    rows: list[dict[str, Any]]
    is_delayed: bool = False


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

    def __init__(self, settings: Settings, stopping: threading.Event | None = None) -> None:
        """Raise SettingsError without a key. `stopping`, once set, ends every wait."""
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
        """Bars (1day or 5min) of the sessions from `start` to `end`, both included: split-adjusted, or as traded."""
        multiplier, timespan = {"1day": (1, "day"), "5min": (5, "minute")}[timeframe]
        path = f"/v2/aggs/ticker/{quote(ticker, safe='')}/range/{multiplier}/{timespan}/{start}/{end}"
        query = {"adjusted": "true" if adjusted else "false", "sort": "asc", "limit": BARS_LIMIT}
        return self.fetch_pages(path, query)

    def fetch_grouped(self, session_date: date) -> Answer:
        """The day bar of every US ticker of one session; each row carries its ticker in `T`."""
        return self.fetch_pages(
            f"/v2/aggs/grouped/locale/us/market/stocks/{session_date}", {"adjusted": "true"}
        )

    def fetch_tickers(self, ticker_type: str) -> Answer:
        """Reference rows of all active tickers of a type (CS common stock, ADRC, PFD …)."""
        query = {"market": "stocks", "type": ticker_type, "active": "true", "limit": TICKERS_LIMIT}
        return self.fetch_pages("/v3/reference/tickers", query)

    def fetch_delisted(self, ticker_type: str, since: date) -> Answer:
        """Reference rows of tickers of a type that were delisted on or after `since`. The list goes back decades,
        so it is asked for newest first, and pages that are before `since` as a whole are not fetched."""
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
        """Splits executed on or after a day; the endpoint before 2026 where the new one is not there."""
        query = {"execution_date.gte": executed_since.isoformat()}
        try:
            return self.fetch_pages("/stocks/v1/splits", {**query, "limit": SPLITS_LIMIT})
        except (NotListedError, NotInPlanError):
            return self.fetch_pages("/v3/reference/splits", {**query, "limit": TICKERS_LIMIT})

    def fetch_pages(self, path: str, query: Mapping[str, Any]) -> Answer:
        """Follow `next_url` to the end; `results` is absent where there are none."""
        rows: list[dict[str, Any]] = []
        is_delayed = False
        for body in self.iterate_pages(self.base_url + path, query):
            rows += body.get("results") or []
            is_delayed = is_delayed or body["status"] == "DELAYED"
        return Answer(rows, is_delayed)

    def iterate_pages(self, url: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        seen = set()
        while url:
            body = self.fetch_json(url, query)
            yield body
            seen.add(url)
            url, query = body.get("next_url") or "", {}
            if url in seen:
                raise VendorFaultError(f"{urlsplit(url).path}: the pages of the answer go round in a circle")
            if url and parse_origin(url) != parse_origin(self.base_url):
                raise ForeignHostError(
                    f"the next page lies on {urlsplit(url).netloc}, not on {urlsplit(self.base_url).netloc}; "
                    "it was not followed",
                    next_step="check POLYGON_BASE_URL",
                )

    def fetch_json(self, url: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """One answer. Passing faults are tried again `ATTEMPTS` times in all, each attempt within the quota,
        after a random pause that doubles its bound (full jitter), or after Retry-After."""
        cause = ""
        for attempt in range(ATTEMPTS):
            self.quota.take()
            with self.counting:
                self.requests_sent += 1
            try:
                return self.attempt_json(url, query)
            except PassingFaultError as fault:
                cause = str(fault)
                if attempt + 1 < ATTEMPTS:
                    asked = fault.retry_after_seconds
                    self.pause(make_pause_seconds(attempt) if asked is None else asked)
        raise VendorFaultError(
            f"{urlsplit(url).path}: {cause}, {ATTEMPTS} times",
            next_step="start the same command again later: it fetches only what is missing",
        )

    def pause(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise StoppedError

    def attempt_json(self, url: str, query: Mapping[str, Any]) -> dict[str, Any]:
        try:
            # A redirect would take the request, and with it the question, to another place.
            response = self.session.get(
                url, params=dict(query), timeout=self.timeout_seconds, allow_redirects=False
            )
        except requests.Timeout as error:
            raise PassingFaultError(f"no answer within {self.timeout_seconds:.0f} s") from error
        except requests.RequestException as error:
            raise PassingFaultError(f"the connection broke ({type(error).__name__})") from error
        return self.read_answer(response)

    def read_answer(self, response: requests.Response) -> dict[str, Any]:
        """The table of answers: docs/DATABASE.md, "What the vendor answers"."""
        if response.status_code == requests.codes.too_many_requests:
            raise PassingFaultError(
                "over the quota (429)", parse_retry_after(response.headers.get("Retry-After"))
            )
        if response.status_code >= 500:
            raise PassingFaultError(f"a fault of the vendor ({response.status_code})")
        if response.status_code == requests.codes.ok:
            return parse_body(response.content)
        what = f"{urlsplit(response.url).path}: {self.read_message(response)}"
        if response.status_code == requests.codes.unauthorized:
            raise KeyRefusedError(
                "the vendor does not accept the API key (401)", next_step="check POLYGON_API_KEY in .env"
            )
        if response.status_code == requests.codes.forbidden:
            raise NotInPlanError(what)
        if response.status_code == requests.codes.not_found:
            raise NotListedError(what)
        raise MarketDataError(f"{what} (status {response.status_code})")

    def read_message(self, response: requests.Response) -> str:
        """The vendor's own words, shortened; should they ever repeat the key, it is struck out."""
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = None
        message = ""
        if isinstance(body, dict):
            message = str(body.get("message") or body.get("error") or body.get("status") or "")
        return message.replace(self.api_key, "***")[:200] or f"status {response.status_code}"


def parse_body(content: bytes) -> dict[str, Any]:
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise PassingFaultError("the answer was cut short or is not JSON") from error
    if not isinstance(body, dict) or body.get("status") not in ("OK", "DELAYED"):
        raise PassingFaultError("the answer has another form than documented")
    rows = body.get("results") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PassingFaultError("the results of the answer are no list of rows")
    if not isinstance(body.get("next_url") or "", str):
        raise PassingFaultError("the next_url of the answer is no text")
    return body


def parse_origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port as far as they decide where a request goes: case and a written-out default port
    do not."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, parts.hostname or "", port or {"https": 443, "http": 80}.get(parts.scheme)


def parse_retry_after(text: str | None) -> float | None:
    """Seconds, bounded; None where the header is missing or holds a date (the vendor sends seconds)."""
    if not text or not text.strip().isdecimal():
        return None
    return min(float(text), LONGEST_RETRY_AFTER_SECONDS)


def make_pause_seconds(attempt: int) -> float:
    bound = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
    return random.uniform(bound / 2, bound)  # noqa: S311  spreads retries, guards nothing
