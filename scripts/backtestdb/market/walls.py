"""Where the key's plan ends: cuts that come without a word are noticed, and known walls are tried again."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from backtestdb.database import transaction
from backtestdb.market.client import NotInPlanError, NotListedError, VendorFaultError
from backtestdb.market.first_fill import Staging
from backtestdb.market.jobs import Job, Source, all_tickers, plan_jobs
from backtestdb.market.plan_limits import Limits, load_limits, save_limits
from backtestdb.market.request_plan import RangeRequest

ONE_DAY = timedelta(days=1)


def recheck_limits(
    connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], staging: Staging | None
) -> Limits:
    """What is believed of the plan when a run begins. After an hour the newest session may be there, and one
    request tells whether the plan reaches back further by now, where the jobs would need that."""
    limits = load_limits(connection)
    if limits.is_fresh(source.clock()) or not (limits.covered_from or limits.refused_session):
        return limits
    unbound = save_limits(connection, Limits(proven_from=limits.proven_from), source.clock())
    if limits.covered_from is None:
        return unbound
    last_refused = limits.covered_from - ONE_DAY
    wanted = [
        request
        for request in plan_jobs(connection, source.calendar, jobs, staging)
        if (request.start if isinstance(request, RangeRequest) else request.session_date) <= last_refused
    ]
    if wanted and ask_whether_refused(source, jobs[0].tickers[0], last_refused, last_refused) is False:
        return unbound
    return save_limits(connection, replace(unbound, covered_from=limits.covered_from), source.clock())


def ask_whether_refused(source: Source, ticker: str, start: date, end: date) -> bool | None:
    """None when the vendor does not say, because of a fault of its own."""
    try:
        source.client.fetch_bars(ticker, "1day", start, end)
    except NotInPlanError:
        return True
    except NotListedError:
        return False
    except VendorFaultError:
        return None
    return False


def find_silent_cut(
    connection: sqlite3.Connection, source: Source, jobs: Sequence[Job], limits: Limits
) -> Limits:
    """When no ticker's answer begins where it was asked for, one request about the time before tells whether
    the plan cut it. If so, the records say what was really answered."""
    asked_from, first, ticker = find_late_beginning(connection, jobs)
    if not first or not asked_from or (limits.proven_from and limits.proven_from <= asked_from):
        return limits
    if limits.covered_from and first <= limits.covered_from:
        return limits
    refused = ask_whether_refused(source, ticker, asked_from, first - ONE_DAY)
    if refused is None:
        return limits
    if not refused:
        return save_limits(connection, replace(limits, proven_from=asked_from), source.clock())
    with transaction(connection):
        for member in all_tickers(jobs):
            connection.execute(
                "UPDATE OR REPLACE _ranges_asked SET start_date = :first WHERE ticker = :ticker"
                " AND start_date < :first AND end_date >= :first AND coalesce(first_date, :first) >= :first",
                {"first": first.isoformat(), "ticker": member},
            )
        return save_limits(connection, replace(limits, covered_from=first), source.clock())


def find_late_beginning(
    connection: sqlite3.Connection, jobs: Sequence[Job]
) -> tuple[date | None, date | None, str]:
    """Since when the jobs' tickers were asked for one by one, and the first bar of any of them, with its ticker,
    when that came later."""
    members = set(all_tickers(jobs))
    rows = [
        row
        for row in connection.execute(
            "SELECT ticker, min(start_date), min(first_date) FROM _ranges_asked WHERE timeframe = ? GROUP BY ticker",
            (jobs[0].timeframe,),
        )
        if row[0] in members
    ]
    began = [(first, ticker) for ticker, _, first in rows if first]
    if not began:
        return None, None, ""
    asked_from, (first, ticker) = min(start for _, start, _ in rows), min(began)
    if first <= asked_from:
        return None, None, ""
    return date.fromisoformat(asked_from), date.fromisoformat(first), ticker
