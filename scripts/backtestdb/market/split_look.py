"""The look at the vendor's splits that ends every run: what changed, and the tickers asked for
again because of it.

One request for the list; for each ticker concerned one for its day bars and one or two for its
5-minute bars.
"""

import sqlite3
from collections.abc import Sequence

from backtestdb.console import progress, say
from backtestdb.database import table_names
from backtestdb.market.client import MarketDataError, StoppedRunError
from backtestdb.market.jobs import Source
from backtestdb.market.refetch import Refetched, refetch_ticker
from backtestdb.market.request_plan import Cost
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
    SplitLook,
    compare_splits,
    look_since,
    parse_splits,
)


def plan_looks(connection: sqlite3.Connection) -> Cost:
    """Return the requests for splits of the next run: the list, also before the first bars; and for
    each ticker that is due already its day bars and its 5-minute bars."""
    if "_splits_due" not in table_names(connection):
        return Cost(1, 0, 0)
    is_first = load_last_look(connection) is None and not has_bars(connection)
    return Cost(1 + is_first + 2 * len(load_due_tickers(connection)), 0, 0)


def look_before_first_bars(connection: sqlite3.Connection, source: Source) -> None:
    """Before an empty database is filled: the splits that are listed by now are in every answer to
    come, so that none of them has a ticker asked for twice at the end. One request; nothing where
    bars are stored or a look was made."""
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
    """Compare the vendor's list with what is known, and keep what changed; return why that was not
    possible."""
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
    waiting = [each for each in known if last_look and each.changed_at_utc > last_look]
    unchanged = [each for each in waiting if each.split not in {new.split for new in changed}]
    save_look(connection, changed, [*changed, *unchanged], now_utc)
    return ""


def refetch_due_ticker(connection: sqlite3.Connection, source: Source, ticker: str) -> str:
    """Ask again for all that is stored of a ticker; return what is left to do, nothing when all was
    replaced."""
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
