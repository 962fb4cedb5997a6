"""What the scripts of the pipeline share: arguments, the connection to the vendor, one run from plan to report."""

import argparse
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

from backtestdb.arguments import parse_date
from backtestdb.config import Settings
from backtestdb.console import (
    say,
)
from backtestdb.database import connect, table_names
from backtestdb.errors import UsageError
from backtestdb.market.backfill import backfill_together
from backtestdb.market.client import MarketData
from backtestdb.market.jobs import Source, all_sessions, make_job, plan_jobs
from backtestdb.market.report import (
    LABELS,
    announce,
    describe_cost,
    describe_job,
    print_plan,
    print_reports,
    print_update,
)
from backtestdb.market.request_plan import Cost, make_cost
from backtestdb.market.sessions import last_completed_session, load_calendar, years_before
from backtestdb.market.universes import (
    REQUESTS_AT_MOST,
    TICKERS_ABOUT,
    US_STOCKS,
    choose_tickers,
    load_members,
    load_tickers,
)
from backtestdb.market.update import make_update_jobs, renew_us_stocks, save_update, update, us_stocks_are_old
from backtestdb.schema import ensure_market_schema, ensure_schema

SPLIT_REQUESTS = 1

RUSSELL_ABOUT = 2_000


def add_range_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--universe",
        required=True,
        action="append",
        help="whose bars: tech_sector, us-stocks, russell2000 …; given again: together, with fewer requests",
    )
    parser.add_argument("--start", type=parse_date, help="first session, YYYY-MM-DD")
    parser.add_argument("--end", type=parse_date, help="last session; default: the last completed one")
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", action="store_true", help="print what it would cost and send no request")
    parser.add_argument("--json", action="store_true", help="the plan or the coverage for programs")


def make_source(settings: Settings) -> Source:
    """Raise SettingsError without a key."""
    stopping = threading.Event()
    return Source(
        MarketData(settings, stopping),
        load_calendar(),
        settings.concurrency,
        stopping,
        lambda: datetime.now(UTC),
    )


def choose_end(asked: date | None, now_utc: datetime) -> date:
    """The last day to ask for. A session that is not over has no final bar, and an answer about it would be
    remembered: nobody would ask again."""
    last = last_completed_session(load_calendar(), now_utc)
    return min(asked or last, last)


def choose_range(arguments: argparse.Namespace, now_utc: datetime) -> tuple[date, date]:
    """First and last asked day from --years, --days, --start and --end. Raise UsageError for a start that
    lies behind the end."""
    end = choose_end(arguments.end, now_utc)
    if arguments.start:
        start = arguments.start
    elif getattr(arguments, "days", None):
        start = end - timedelta(days=arguments.days - 1)
    else:
        start = years_before(end, arguments.years)
    if start > end:
        raise UsageError(f"--start {start} lies behind --end {end}")
    return start, end


def run_backfill(settings: Settings, timeframe: str, arguments: argparse.Namespace, now_utc: datetime) -> int:
    """The whole of 02_backfill_daily.py and 03_backfill_intraday.py behind their arguments."""
    start, end = choose_range(arguments, now_utc)
    names = list(dict.fromkeys(arguments.universe))
    if arguments.plan:
        return plan_backfill(settings, timeframe, names, (start, end), as_json=arguments.json)
    source = make_source(settings)
    with closing(connect(settings.database_path)) as connection:
        ensure_market_schema(connection)
        jobs = [
            make_job(load_calendar(), timeframe, load_members(connection, name), start, end, universe=name)
            for name in names
        ]
        for job in jobs:
            say(describe_job(job))
        requests = plan_jobs(connection, load_calendar(), jobs)
        planned = make_cost(requests, all_sessions(load_calendar(), jobs))
        say(describe_cost(planned.requests, settings))
        reports = backfill_together(
            connection,
            source,
            jobs,
            f"{', '.join(names)}: {LABELS[timeframe]}",
            keep_every_ticker=getattr(arguments, "all_tickers", False),
        )
    steps = [LABELS[timeframe]] if len(names) == 1 else [f"{name}: {LABELS[timeframe]}" for name in names]
    return print_reports(list(zip(steps, reports, strict=True)), as_json=arguments.json)


def plan_backfill(
    settings: Settings, timeframe: str, names: Sequence[str], days: tuple[date, date], *, as_json: bool
) -> int:
    """Print what a backfill would cost. Sends no request, needs no key and no database."""
    with closing(connect_to_plan(settings)) as connection:
        jobs = [
            make_job(
                load_calendar(), timeframe, tickers_to_plan(connection, settings, name), *days, universe=name
            )
            for name in names
        ]
        requests = plan_jobs(connection, load_calendar(), jobs)
        planned = make_cost(requests, all_sessions(load_calendar(), jobs))
    return print_plan(settings, {LABELS[timeframe]: planned}, as_json=as_json)


def connect_to_plan(settings: Settings) -> sqlite3.Connection:
    """The database, read only; an empty one in memory where there is none, or none with the tables of the plan."""
    if settings.database_path.is_file():
        connection = connect(settings.database_path, read_only=True)
        if {"_sessions_asked", "_vendor_limits", "universe"} <= set(table_names(connection)):
            return connection
        connection.close()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ensure_schema(connection)
    return connection


def tickers_to_plan(connection: sqlite3.Connection, settings: Settings, universe: str) -> Sequence[str]:
    """The members of a universe; where it is not there yet, those that it would get, or as many names without a
    meaning as it has about. Raise UsageError for an unknown universe."""
    if load_tickers(connection, universe):
        return load_members(connection, universe)
    if universe == "tech_sector":
        return choose_tickers(universe, [], None, settings.watchlist_tickers)
    about = {US_STOCKS: TICKERS_ABOUT, "russell2000": RUSSELL_ABOUT}.get(universe)
    if about is None:
        return load_members(connection, universe)
    say(f"{universe} is not there yet: planned for about {about:,} tickers")
    return [f"#{number}" for number in range(about)]


def run_update(
    settings: Settings, arguments: argparse.Namespace, now_utc: datetime, source: Source | None = None
) -> int:
    """Return the exit code: 3 when sessions failed, or the splits could not be looked up."""
    calendar = load_calendar()
    end = choose_end(arguments.end, now_utc)
    if source is None and not arguments.plan:
        source = make_source(settings)
    with closing(connect(settings.database_path)) as connection:
        if not arguments.plan:
            ensure_market_schema(connection)
        renews_list = us_stocks_are_old(connection, now_utc)
        list_failure = ""
        if renews_list and source is not None:
            list_failure = renew_us_stocks(connection, source, settings.us_stock_types)
        jobs = make_update_jobs(connection, calendar, end)
        if not any(jobs.values()):
            raise UsageError("no universe has bars yet", next_step="make backfill-daily, or make restore")
        costs = {
            LABELS[timeframe]: make_cost(plan_jobs(connection, calendar, some), all_sessions(calendar, some))
            for timeframe, some in jobs.items()
            if some
        }
        costs["splits"] = Cost(SPLIT_REQUESTS, 0, 0)
        if renews_list:
            costs["the list of us-stocks, weekly"] = Cost(REQUESTS_AT_MOST, 0, 0)
        if source is None:
            return print_plan(settings, costs, as_json=arguments.json)
        announce(settings, [job for some in jobs.values() for job in some], costs)
        done = update(connection, source, end)
        done.list_failure = list_failure
        if end == choose_end(None, now_utc):
            save_update(connection, done, now_utc, end)
    return print_update(done, as_json=arguments.json)
