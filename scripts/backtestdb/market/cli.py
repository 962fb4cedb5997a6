"""What the pipeline's scripts share: arguments, the vendor's client, a run from plan to report."""

import argparse
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from backtestdb.arguments import add_flag, parse_date, parse_ticker_list
from backtestdb.config import Settings
from backtestdb.console import DONE, progress, say
from backtestdb.database import connect, table_names
from backtestdb.errors import UsageError
from backtestdb.files import exclusive_lock
from backtestdb.market.ask_again import AskAgain, apply_again
from backtestdb.market.backfill import backfill_together
from backtestdb.market.client import MarketData
from backtestdb.market.coverage_rows import load_ranges
from backtestdb.market.jobs import Job, Source, cost_jobs, make_job
from backtestdb.market.metric_store import compute_metrics_again
from backtestdb.market.report import (
    announce,
    describe_cost,
    describe_job,
    print_plan,
    print_reports,
    print_update,
)
from backtestdb.market.request_plan import Cost
from backtestdb.market.sessions import last_completed_session, load_calendar, years_before
from backtestdb.market.split_look import look_at_splits, look_before_first_bars, plan_looks
from backtestdb.market.splits import SplitLook
from backtestdb.market.universes import (
    REQUESTS_AT_MOST,
    TICKERS_ABOUT,
    US_STOCKS,
    choose_tickers,
    load_members,
    load_tickers,
)
from backtestdb.market.update import make_update_jobs, update
from backtestdb.market.update_records import renew_us_stocks, save_update, us_stocks_are_old
from backtestdb.schema import ensure_market_schema, ensure_schema
from backtestdb.timeframes import LABELS

RUSSELL_ABOUT = 2_000


def add_range_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose universes and sessions, and those of the output."""
    parser.add_argument(
        "--universe",
        default=[],
        action="append",
        help="whose bars: tech_sector, us-stocks, russell2000 …; given again: together, with "
        "fewer requests",
    )

    parser.add_argument("--start", type=parse_date, help="first session, YYYY-MM-DD")
    parser.add_argument(
        "--end", type=parse_date, help="last session; default: the last completed one"
    )

    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that print a plan or a report, and those that ask again."""
    add_flag(parser, "--plan", "print what it would cost and send no request")
    add_flag(parser, "--json", "the plan or the coverage for programs")

    add_flag(
        parser,
        "--again",
        "ask again whatever the records say, and replace: --tickers, --start and --end choose "
        "what; without them what is provisional",
    )
    parser.add_argument(
        "--tickers",
        type=parse_ticker_list,
        default=[],
        help="with --again: only these, comma-separated",
    )


def make_source(settings: Settings) -> Source:
    """Raise SettingsError without a key."""
    stopping = threading.Event()
    return Source(
        client=MarketData(settings, stopping),
        calendar=load_calendar(),
        concurrency=settings.concurrency,
        stopping=stopping,
        clock=lambda: datetime.now(UTC),
    )


def choose_end(asked: date | None, now_utc: datetime) -> date:
    """Return the last day to ask for. A session that is not over has no final bar, and an answer
    about it would be remembered: it would not be asked for again."""
    last = last_completed_session(load_calendar(), now_utc)
    return min(asked or last, last)


def choose_range(arguments: argparse.Namespace, now_utc: datetime) -> tuple[date, date]:
    """Return first and last asked day from --years, --days, --start and --end. Raise UsageError for
    a start that lies behind the end."""
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


def parse_again(arguments: argparse.Namespace) -> AskAgain | None:
    """Return what --again means; None without it. Raise UsageError for --tickers without it."""
    if not arguments.again:
        if arguments.tickers:
            raise UsageError("--tickers chooses what --again asks for", next_step="add --again")
        return None
    return AskAgain(tuple(arguments.tickers), arguments.start, arguments.end)


@contextmanager
def market_locks(database: Path, timeframes: Sequence[str]) -> Iterator[None]:
    """Hold the locks of these bars. Raise BusyError."""
    # Two runs that ask for the same bars of one database would ask twice.
    with ExitStack() as locks:
        for timeframe in timeframes:
            path = database.with_name(f"{database.name}.{timeframe}.lock")
            locks.enter_context(
                exclusive_lock(path, f"fetching {LABELS[timeframe]} of this database")
            )
        yield


def make_again_jobs(
    connection: sqlite3.Connection, timeframe: str, names: Sequence[str], again: AskAgain
) -> list[Job]:
    """Return a job for each range that was asked for of these universes before."""
    jobs = [
        make_job(load_calendar(), timeframe, load_members(connection, name), *days, universe=name)
        for name in names
        for days in load_ranges(connection, name, timeframe)
    ]
    if not jobs:
        raise UsageError(
            f"--again: no {LABELS[timeframe]} of {', '.join(names)} were asked for before",
            next_step="leave --again out",
        )

    return apply_again(jobs, again)


def make_backfill_jobs(
    connection: sqlite3.Connection, timeframe: str, arguments: argparse.Namespace, now_utc: datetime
) -> list[Job]:
    """Return a job for each universe of the arguments, or for what is asked for again."""
    names = list(dict.fromkeys(arguments.universe))
    if (again := parse_again(arguments)) is not None:
        return make_again_jobs(connection, timeframe, names, again)
    days = choose_range(arguments, now_utc)
    return [
        make_job(load_calendar(), timeframe, load_members(connection, name), *days, universe=name)
        for name in names
    ]


def run_backfill(
    settings: Settings, timeframe: str, arguments: argparse.Namespace, now_utc: datetime
) -> int:
    """Run 02_backfill_daily.py or 03_backfill_intraday.py; return the exit code."""
    names = list(dict.fromkeys(arguments.universe))
    if not names:
        step = "make backfill-daily" if timeframe == "1day" else "make backfill-intraday"
        raise UsageError("whose bars?", next_step=f'{step} ARGS="--universe tech_sector"')

    if arguments.plan and not arguments.again:
        days = choose_range(arguments, now_utc)
        return plan_backfill(settings, timeframe, names, days, as_json=arguments.json)

    source = None if arguments.plan else make_source(settings)
    with closing(connect(settings.database_path)) as connection, ExitStack() as locks:
        if source is not None:
            locks.enter_context(market_locks(settings.database_path, [timeframe]))
            ensure_market_schema(connection)

        jobs = make_backfill_jobs(connection, timeframe, arguments, now_utc)
        if source is None:
            return print_backfill_cost(settings, connection, jobs, as_json=arguments.json)

        for job in jobs:
            say(describe_job(job))
        planned = cost_jobs(connection, load_calendar(), jobs)
        say(describe_cost(planned.requests + plan_looks(connection).requests, settings))

        looks: list[SplitLook] = []
        look_before_first_bars(connection, source)
        reports = backfill_together(
            connection,
            source,
            jobs,
            f"{', '.join(names)}: {LABELS[timeframe]}",
            keep_every_ticker=getattr(arguments, "all_tickers", False),
            before_metrics=lambda: looks.append(look_at_splits(connection, source)),
        )
        reports[-1].run.splits = looks[-1]

    label = LABELS[timeframe]
    steps = [label if len(jobs) == 1 else f"{job.universe}: {label}" for job in jobs]
    return print_reports(list(zip(steps, reports, strict=True)), as_json=arguments.json)


def run_metrics_again(settings: Settings, names: Sequence[str]) -> int:
    """Compute the daily metrics of universes (all where none is named) anew from the stored bars.
    Sends no request and needs no key."""
    with closing(connect(settings.database_path)) as connection:
        ensure_market_schema(connection)
        rows = connection.execute("SELECT name FROM universe ORDER BY id").fetchall()
        chosen = list(names) or [name for (name,) in rows]
        tickers = list(dict.fromkeys(t for name in chosen for t in load_members(connection, name)))
        with progress("metrics", len(tickers)) as advance:
            count = compute_metrics_again(connection, tickers, advance)

    print(f"{count:,} rows of daily metrics computed anew from the stored bars")
    return DONE


def plan_backfill(
    settings: Settings,
    timeframe: str,
    names: Sequence[str],
    days: tuple[date, date],
    *,
    as_json: bool,
) -> int:
    """Print what a backfill would cost. Sends no request, needs no key and no database."""
    with closing(connect_to_plan(settings)) as connection:
        jobs = [
            make_job(
                load_calendar(),
                timeframe,
                tickers_to_plan(connection, settings, name),
                *days,
                universe=name,
            )
            for name in names
        ]
        return print_backfill_cost(settings, connection, jobs, as_json=as_json)


def print_backfill_cost(
    settings: Settings, connection: sqlite3.Connection, jobs: Sequence[Job], *, as_json: bool
) -> int:
    planned = cost_jobs(connection, load_calendar(), jobs)
    costs = {LABELS[jobs[0].timeframe]: planned, "splits": plan_looks(connection)}
    return print_plan(settings, costs, as_json=as_json)


def connect_to_plan(settings: Settings) -> sqlite3.Connection:
    """Return the database, read only; an empty one in memory if it is missing or has no tables."""
    if settings.database_path.is_file():
        connection = connect(settings.database_path, read_only=True)
        if {"_sessions_asked", "_vendor_limits", "universe"} <= set(table_names(connection)):
            return connection
        connection.close()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ensure_schema(connection)
    return connection


def tickers_to_plan(
    connection: sqlite3.Connection, settings: Settings, universe: str
) -> Sequence[str]:
    """Return the members of a universe; where it is not there yet, those that it would get, or as
    many names without a meaning as it has about. Raise UsageError for an unknown universe."""
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
    settings: Settings,
    arguments: argparse.Namespace,
    now_utc: datetime,
    source: Source | None = None,
) -> int:
    """Return the exit code: 3 when sessions failed, or the splits could not be looked up."""
    calendar, again = load_calendar(), parse_again(arguments)
    # What is asked for again was asked for before: nothing newer comes along.
    end = date.min if again else choose_end(arguments.end, now_utc)
    if source is None and not arguments.plan:
        source = make_source(settings)

    with closing(connect(settings.database_path)) as connection, ExitStack() as locks:
        if source is not None:
            locks.enter_context(market_locks(settings.database_path, ["1day", "5min"]))
            ensure_market_schema(connection)
        renews_list, list_failure = not again and us_stocks_are_old(connection, now_utc), ""
        if renews_list and source is not None:
            list_failure = renew_us_stocks(connection, source, settings.us_stock_types)

        jobs = make_update_jobs(connection, calendar, end)
        if not any(jobs.values()):
            raise UsageError(
                "no universe has bars yet", next_step="make backfill-daily, or make restore"
            )
        if again:
            every = apply_again([job for some in jobs.values() for job in some], again)
            jobs = {name: [job for job in every if job.timeframe == name] for name in jobs}

        costs = {
            LABELS[timeframe]: cost_jobs(connection, calendar, some)
            for timeframe, some in jobs.items()
            if some
        }
        costs["splits"] = plan_looks(connection)
        if renews_list:
            costs["the list of us-stocks, weekly"] = Cost(REQUESTS_AT_MOST, 0, 0)
        if source is None:
            return print_plan(settings, costs, as_json=arguments.json)

        announce(settings, [job for some in jobs.values() for job in some], costs)
        done = update(connection, source, end, jobs)
        done.list_failure = list_failure
        if end == choose_end(None, now_utc):
            save_update(connection, done, now_utc, end)

    return print_update(done, as_json=arguments.json)
