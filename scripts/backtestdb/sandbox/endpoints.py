"""From a path to the endpoint that answers it, keys and quota first."""

import re
from collections.abc import Callable
from math import ceil
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import orjson

from backtestdb.sandbox.aggregates import answer_grouped, answer_range
from backtestdb.sandbox.journal import Window
from backtestdb.sandbox.reference import (
    answer_old_splits,
    answer_splits,
    answer_ticker,
    answer_ticker_events,
    answer_tickers,
)
from backtestdb.sandbox.request import Answer, Refusal, Request
from backtestdb.sandbox.state import Sandbox

Payload = dict[str, Any]
TOO_MANY = {
    "status": "ERROR",
    "error": "You've exceeded the maximum requests per minute of your plan.",
}


Endpoint = Callable[..., Payload]
ENDPOINTS: tuple[tuple[str, Endpoint], ...] = (
    (
        r"/v2/aggs/ticker/([^/]+)/range/(\d+)/(\w+)/([^/]+)/([^/]+)",
        lambda sandbox, *rest: answer_range(sandbox.exchange, sandbox.settings.plan, *rest),
    ),
    (
        r"/v2/aggs/grouped/locale/us/market/stocks/([^/]+)",
        lambda sandbox, *rest: answer_grouped(sandbox.exchange, sandbox.settings.plan, *rest),
    ),
    (r"/v3/reference/tickers", lambda sandbox, request: answer_tickers(sandbox.exchange, request)),
    (
        r"/v3/reference/tickers/([^/]+)",
        lambda sandbox, *rest: answer_ticker(sandbox.exchange, *rest),
    ),
    (
        r"/vX/reference/tickers/([^/]+)/events",
        lambda sandbox, *rest: answer_ticker_events(sandbox.exchange, *rest),
    ),
    (r"/stocks/v1/splits", lambda sandbox, request: answer_splits(sandbox.exchange, request)),
    (
        r"/v3/reference/splits",
        lambda sandbox, request: answer_old_splits(sandbox.exchange, request),
    ),
)


def verify_key(sandbox: Sandbox, key: str | None) -> str:
    """Return the key when it is right; 401 when it is wrong or missing."""
    if not key:
        raise Refusal(401, {"status": "ERROR", "error": "API Key was not provided"})
    if key not in sandbox.settings.keys:
        raise Refusal(401, {"status": "ERROR", "error": "Unknown API Key"})
    return key


def verify_quota(sandbox: Sandbox, key: str, arrived: float) -> None:
    """Count a request; 429 when the last minute already holds as many as the plan allows."""
    settings, window = sandbox.settings, sandbox.windows.setdefault(key, Window())
    limit, seconds = settings.requests_per_minute, settings.window_seconds
    wait = window.admit(arrived, limit=limit, seconds=seconds)
    if wait is not None:
        raise Refusal(
            429, TOO_MANY, {"Retry-After": str(ceil(wait))} if settings.retry_after else {}
        )


def answer_request(sandbox: Sandbox, request: Request) -> Payload:
    """Return what the endpoint of a path says; 404 as text where there is no endpoint."""
    for pattern, endpoint in ENDPOINTS:
        if match := re.fullmatch(pattern, request.path):
            return endpoint(sandbox, request, *(unquote(part) for part in match.groups()))
    raise Refusal(404, {"status": "NOT_FOUND", "message": f"There is no endpoint {request.path}."})


def make_json_answer(
    status: int, payload: Payload, headers: dict[str, str] | None = None
) -> Answer:
    """Return a payload on its way, with a request_id of its own like the vendor's."""
    body = orjson.dumps({"request_id": uuid4().hex, **payload})
    return Answer(status, body, {"Content-Type": "application/json", **(headers or {})})
