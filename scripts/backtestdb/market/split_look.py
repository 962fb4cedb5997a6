"""The look at the vendor's splits that ends every run: what changed, and the tickers asked for
again because of it.

One request for the list; for each ticker concerned one for its day bars and one or two for its
5-minute bars.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from backtestdb.console import progress, say
from backtestdb.database import table_names
from backtestdb.market.client import MarketDataError, StoppedRunError
from backtestdb.market.jobs import Source
from backtestdb.market.refetch import Refetched, plan_refetch, refetch_ticker
from backtestdb.market.request_plan import Cost
from backtestdb.market.sessions import load_calendar
from backtestdb.market.split_store import (
    clear_due_ticker,
    has_bars,
    load_due_tickers,
    load_known_splits,
    load_last_look,
    save_look,
)
from backtestdb.market.splits import (
    IncompleteListError,
    KnownSplit,
    SplitLook,
    compare_splits,
    look_since,
    parse_splits,
)


def plan_looks(connection: sqlite3.Connection) -> Cost:
    """Return the requests for splits of the next run: the list, also before the first bars; and
    what is stored of each ticker that is known to be asked for again. Which others are, only the
    list tells: `look_at_splits` says it when it is there."""
    if "_splits_due" not in table_names(connection):
        return Cost(1, 0, 0)
    last_look = load_last_look(connection)
    if last_look is None:
        return Cost(1 if has_bars(connection) else 2, 0, 0)

    tickers = {split.split.ticker for split in load_waiting_splits(connection, last_look)}
    calendar = load_calendar()
    again = plan_refetch(
        connection, calendar, sorted(tickers | load_due_tickers(connection).keys())
    )
    return Cost(1 + again.requests, 0, 0)


def load_waiting_splits(connection: sqlite3.Connection, last_look: datetime) -> list[KnownSplit]:
    """Return splits seen before the opening of their day: they are judged once more after it."""
    known = load_known_splits(connection, look_since(last_look, last_look))
    return [each for each in known if each.changed_at_utc > last_look]


def look_before_first_bars(connection: sqlite3.Connection, source: Source) -> None:
    """Look at the splits before an empty database is filled: those that are listed by now are in
    every answer to come, so that none of them has a ticker asked for twice at the end. One request;
    nothing where bars are stored or a look was made."""
    if load_last_look(connection) is None and not has_bars(connection):
        failure = read_list(connection, source)
        if failure:
            say(f"splits: {failure}")


def look_at_splits(connection: sqlite3.Connection, source: Source) -> SplitLook:
    """Read the list, then ask again for the tickers that it concerns and for those that an earlier
    look left due. Nothing where no bars are stored."""
    look = SplitLook()
    if not has_bars(connection):
        return look
    look.failure = read_list(connection, source)

    due = load_due_tickers(connection)
    if due:
        again = plan_refetch(connection, source.calendar, list(due))
        say(f"asked for again after splits: {', '.join(due)}; {again.requests} requests")
        with progress("asking again after splits", len(due)) as advance:
            for ticker, reason in due.items():
                left = refetch_due_ticker(connection, source, ticker)
                if left:
                    look.due[ticker] = f"{reason}: {left}"
                else:
                    look.refetched[ticker] = reason
                advance(1)

    return look


def read_list(connection: sqlite3.Connection, source: Source) -> str:
    """Compare the vendor's list with what is known and keep changes; return why that failed."""
    now_utc, last_look = source.now_utc(), load_last_look(connection)
    since = look_since(last_look, now_utc)
    known = load_known_splits(connection, since)

    try:
        listed = parse_splits(source.client.fetch_splits(since).rows)
        changed = compare_splits(
            known,
            listed,
            since=since,
            now_utc=now_utc,
            bars_came_first=last_look is None and has_bars(connection),
        )
    except StoppedRunError:
        raise
    except (MarketDataError, IncompleteListError) as error:
        return str(error)

    # A split that an earlier look saw before the opening of its day is judged once more after it.
    waiting = load_waiting_splits(connection, last_look) if last_look else []
    new = {each.split for each in changed}
    unchanged = [each for each in waiting if each.split not in new]
    save_look(connection, changed, [*changed, *unchanged], now_utc)
    return ""


def refetch_due_ticker(connection: sqlite3.Connection, source: Source, ticker: str) -> str:
    """Ask again for all that is stored of a ticker; return what is left to do, if anything."""
    try:
        parts = refetch_ticker(connection, source, ticker)
    except StoppedRunError:
        raise
    except MarketDataError as error:
        return str(error)

    left = describe_left(parts)
    if not left:
        clear_due_ticker(connection, ticker)
    return left


def describe_left(parts: Sequence[Refetched]) -> str:
    return "; ".join(
        f"{part.not_answered} sessions of {part.request.start} to {part.request.end} were not in "
        "the answer"
        for part in parts
        if part.not_answered
    )
