"""The endpoints of reference data: tickers, one ticker, and splits (new and old)."""

from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

from backtestdb.sandbox.exchange import Exchange
from backtestdb.sandbox.listings import Listing
from backtestdb.sandbox.noise import make_key
from backtestdb.sandbox.request import Refusal, Request, parse_day
from backtestdb.sandbox.splits import Split

Row = dict[str, Any]
Found = TypeVar("Found")
EXCHANGES = ("XNYS", "XNAS", "XASE", "ARCX")
COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "": lambda value, bound: value == bound,
    ".gte": lambda value, bound: value >= bound,
    ".gt": lambda value, bound: value > bound,
    ".lte": lambda value, bound: value <= bound,
    ".lt": lambda value, bound: value < bound,
}


def answer_tickers(exchange: Exchange, request: Request) -> Row:
    """Return the reference list by ticker: companies of a date, or those gone by then."""
    limit, active = request.number("limit", 100, 1000), request.flag("active", default=True)
    day = find_day(exchange, request)

    wanted = request.params
    stocks = wanted.get("market", "stocks") == "stocks"
    found = [
        listing
        for listing in exchange.universe.listings
        if stocks
        and listing.in_reference
        and wanted.get("type", listing.kind) == listing.kind
        and (listing.is_listed(day) if active else listing.delisted <= day)
        and matches(request, "ticker", listing.ticker)
    ]
    found.sort(key=lambda listing: (listing.ticker, listing.first))

    return make_page(request, found, lambda listing: make_ticker_row(listing, day), limit)


def answer_ticker(exchange: Exchange, request: Request, ticker: str) -> Row:
    """Return the company that has a ticker on a date; 404 when none has."""
    day = find_day(exchange, request)
    listings = [
        exchange.universe.listings[index] for index in exchange.universe.by_ticker.get(ticker, [])
    ]
    for listing in listings:
        if listing.in_reference and listing.is_listed(day):
            return {"status": "OK", "count": 1, "results": make_ticker_row(listing, day)}
    raise Refusal(404, {"status": "NOT_FOUND", "message": "Ticker not found."})


def answer_ticker_events(exchange: Exchange, request: Request, ticker: str) -> Row:  # noqa: ARG001
    """Return names of a ticker's company, newest first; 404 if no company had the ticker."""
    if ticker not in exchange.universe.by_ticker:
        raise Refusal(404, {"status": "NOT_FOUND", "message": "Ticker not found."})
    first = exchange.universe.listings[exchange.universe.by_ticker[ticker][0]].first
    names = [(first, ticker)]
    names += [(each.day, each.successor) for each in exchange.renames if each.ticker == ticker]
    events = [
        {"type": "ticker_change", "date": day.isoformat(), "ticker_change": {"ticker": name}}
        for day, name in reversed(names)
        if day <= exchange.today
    ]

    return {"status": "OK", "results": {"name": f"{ticker} (sandbox)", "events": events}}


def find_day(exchange: Exchange, request: Request) -> date:
    """Return the date asked for, today without one."""
    return parse_day(request.params["date"]) if request.params.get("date") else exchange.today


def make_ticker_row(listing: Listing, day: date) -> Row:
    """Return a row of the reference list; identifiers are the company's, not the ticker's."""
    code = make_key(listing.company)
    row: Row = {
        "ticker": listing.ticker,
        "name": f"{listing.company} (sandbox)",
        "market": "stocks",
        "locale": "us",
        "primary_exchange": EXCHANGES[code % len(EXCHANGES)],
        "type": listing.kind,
        "active": listing.is_listed(day),
        "currency_name": "usd",
        "cik": f"{code % 10**7:010d}",
        "composite_figi": f"BBG{code % 36**6:09X}",
        "share_class_figi": f"BBG{code // 36**6 % 36**6:09X}",
        "last_updated_utc": f"{day}T00:00:00Z",
    }

    return row if row["active"] else row | {"delisted_utc": f"{listing.delisted}T00:00:00Z"}


def answer_splits(exchange: Exchange, request: Request) -> Row:
    """Return the new endpoint: oldest first, at most 5000 a page."""
    limit, found = request.number("limit", 100, 5000), find_splits(exchange, request)
    return make_page(
        request,
        found,
        lambda split: make_split_row(split) | {"adjustment_type": split.direction},
        limit,
    )


def answer_old_splits(exchange: Exchange, request: Request) -> Row:
    """Return the old endpoint: newest first, at most 1000 a page, no adjustment_type."""
    limit, found = request.number("limit", 10, 1000), find_splits(exchange, request)
    return make_page(request, found[::-1], make_split_row, limit)


def find_splits(exchange: Exchange, request: Request) -> list[Split]:
    """Return the splits that are listed today and fit the request, doubled entries included."""
    found = [
        split
        for split in exchange.splits
        if split.is_listed(exchange.today)
        and matches(request, "ticker", split.ticker)
        and matches(request, "execution_date", split.execution_date.isoformat())
    ]
    found.sort(key=lambda split: (split.execution_date, split.ticker))
    return [split for split in found for _ in range(split.copies)]


def make_split_row(split: Split) -> Row:
    """Return what both endpoints say about a split."""
    name = f"{split.ticker} {split.execution_date} {split.split_from} {split.split_to}"
    return {
        "id": f"{make_key(name):016x}",
        "ticker": split.ticker,
        "execution_date": split.execution_date.isoformat(),
        "split_from": split.split_from,
        "split_to": split.split_to,
    }


def matches(request: Request, name: str, value: str) -> bool:
    """Return whether a value fits the parameters `name` and `name.` gte, gt, lte, lt."""
    return all(
        compare(value, request.params[name + suffix])
        for suffix, compare in COMPARISONS.items()
        if name + suffix in request.params
    )


def make_page(
    request: Request, found: list[Found], make_row: Callable[[Found], Row], limit: int
) -> Row:
    """Return rows from the cursor's offset on; `next_url` when there are more."""
    offset = request.number("offset", 1, 10**6) if "offset" in request.params else 0
    page = [make_row(each) for each in found[offset : offset + limit]]

    answer: Row = {"status": "OK", "count": len(page)}
    if page:
        answer["results"] = page

    if offset + limit < len(found):
        rest = {name: value for name, value in request.params.items() if name != "offset"}
        answer["next_url"] = request.next_url(request.path, rest | {"offset": str(offset + limit)})
    return answer
