"""One cheap request: does the vendor answer, does it accept the key, what does its clock say?"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from backtestdb.config import Settings
from backtestdb.health.problem import Problem, note, ok, wrong
from backtestdb.market.client import KeyRefusedError, MarketData, MarketDataError, PassingFaultError

TOO_MANY = 429


def ask_vendor(settings: Settings) -> tuple[Problem, datetime | None]:
    """Ask once; return what came of it, and the vendor's clock (UTC) where it told. The request
    counts in the quota."""
    if not settings.api_key:
        return wrong(
            "vendor", "not asked: no API key is set", "write POLYGON_API_KEY into .env"
        ), None

    client = MarketData(settings)
    wait_seconds = client.quota.reserve() if settings.requests_per_minute else 0.0
    # Our own commands have used the quota up.
    if wait_seconds:
        what = (
            f"not asked: {client.quota.used()} of {settings.requests_per_minute} requests a "
            "minute are used"
        )
        return note("vendor", what, f"wait {wait_seconds:.0f} s, then ask again"), None

    answers: list[requests.Response] = []
    client.session.hooks["response"].append(lambda answer, *_, **__: answers.append(answer))
    finding = ask_once(client, answers)
    return finding, parse_date(answers[-1]) if answers else None


def ask_once(client: MarketData, answers: list[requests.Response]) -> Problem:
    """Send one cheap request; return what its answer means."""
    try:
        client.attempt_json(
            f"{client.base_url}/v3/reference/tickers", {"market": "stocks", "limit": 1}
        )
    except KeyRefusedError as error:
        return wrong("vendor", str(error), "check POLYGON_API_KEY in .env")
    except PassingFaultError as fault:
        if answers and answers[-1].status_code == TOO_MANY:
            return wrong(
                "vendor",
                f"{fault}: more requests a minute than the key's plan allows",
                "set POLYGON_REQUESTS_PER_MINUTE in .env to your plan's number (free: 5), and stop "
                "other programs that use the key; then start the same command again: it continues",
            )
        return wrong(
            "vendor", f"{client.base_url}: {fault}", "check the connection, or try again later"
        )
    except MarketDataError as error:
        return wrong("vendor", str(error), "check the key's plan and POLYGON_BASE_URL")

    return ok("vendor", f"{client.base_url} answers and accepts the key")


def parse_date(answer: requests.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None
