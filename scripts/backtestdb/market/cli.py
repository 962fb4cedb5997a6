"""What the pipeline's scripts share: arguments, the connection to the vendor, the printed plan and report."""

import argparse
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

from backtestdb.arguments import parse_date
from backtestdb.config import Settings
from backtestdb.console import (
    DONE,
    DONE_WITH_HOLES,
    format_bytes,
    format_duration,
    print_table,
    say,
)
from backtestdb.database import connect, table_names
from backtestdb.errors import UsageError
from backtestdb.market.backfill import backfill_together
from backtestdb.market.client import MarketData
from backtestdb.market.coverage import COUNTS
from backtestdb.market.jobs import Job, Report, Source, all_sessions, make_job, plan_jobs
from backtestdb.market.request_plan import Plan, duration_seconds, make_plan
from backtestdb.market.sessions import last_completed_session, load_calendar, years_before
from backtestdb.market.splits import Finding
from backtestdb.market.universes import TICKERS_ABOUT, US_STOCKS, choose_tickers, load_members, load_tickers
from backtestdb.market.update import Update, make_update_jobs, update
from backtestdb.schema import ensure_schema

SPLIT_REQUESTS = 1

RUSSELL_ABOUT = 2_000

LABELS = {"1day": "daily bars", "5min": "5-minute bars"}
NAMED_AT_MOST = 20


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
        ensure_schema(connection, ["recoverable", "bookkeeping"])
        jobs = [
            make_job(load_calendar(), timeframe, load_members(connection, name), start, end, universe=name)
            for name in names
        ]
        for job in jobs:
            say(describe_job(job))
        requests = plan_jobs(connection, load_calendar(), jobs)
        planned = make_plan(requests, all_sessions(load_calendar(), jobs))
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
        planned = make_plan(requests, all_sessions(load_calendar(), jobs))
    return print_plan(settings, {LABELS[timeframe]: planned}, as_json=as_json)


def describe_job(job: Job) -> str:
    return (
        f"{LABELS[job.timeframe]} of {job.universe}: {len(job.tickers)} tickers × {len(job.sessions)} sessions "
        f"({job.sessions[0]} to {job.sessions[-1]})"
    )


def describe_cost(requests: int, settings: Settings) -> str:
    seconds = duration_seconds(requests, settings.requests_per_minute)
    return f"{requests} requests, at the quota {format_duration(seconds)}"


def print_plan(settings: Settings, plans: Mapping[str, Plan], *, as_json: bool) -> int:
    """`plans`: a Plan for each step. `rows` is an upper bound: no bar where nothing traded."""
    rows = [
        {
            "step": step,
            "requests": plan.requests,
            "rows_at_most": plan.rows,
            "bytes_at_most": plan.bytes,
        }
        for step, plan in plans.items()
    ]
    total = sum(plan.requests for plan in plans.values())
    seconds = duration_seconds(total, settings.requests_per_minute)
    if as_json:
        print(json.dumps({"steps": rows, "requests": total, "seconds_at_quota": seconds}))
        return DONE
    print_table(
        "Plan (no request was sent)",
        ["step", "requests", "rows at most", "disk at most"],
        [[step, plan.requests, plan.rows, format_bytes(plan.bytes)] for step, plan in plans.items()],
    )
    quota = f"{settings.requests_per_minute} a minute" if settings.requests_per_minute else "no quota"
    print(f"{total} requests at {quota}: {format_duration(seconds)}")
    return DONE


def print_reports(reports: Sequence[tuple[str, Report]], *, as_json: bool = False) -> int:
    """The table at the end, and by name what is not there; return the exit code."""
    code = DONE_WITH_HOLES if any(report.has_holes for _, report in reports) else DONE
    if as_json:
        print(json.dumps([make_json_report(step, report) for step, report in reports]))
        return code
    print_table(
        "Result (sessions of tickers)",
        [
            *("step", "requests", "bars", "asked", "stored", "known empty", "set aside", "beyond plan"),
            *("failed", "time"),
        ],
        [
            [
                step,
                report.requests,
                report.bars,
                *(getattr(report.coverage, name) for name in COUNTS),
                format_duration(report.seconds),
            ]
            for step, report in reports
        ],
    )
    for step, report in reports:
        for note in make_notes(step, report):
            print(note)
    return code


def make_json_report(step: str, report: Report) -> dict[str, object]:
    return {
        "step": step,
        "requests": report.requests,
        "bars": report.bars,
        "dropped": report.dropped,
        "coverage": {name: getattr(report.coverage, name) for name in COUNTS},
        "failed_of": report.coverage.failed_of,
        "failures": report.failures,
        "silent": report.coverage.silent,
        "set_aside_of": report.set_aside,
        "changed_company": report.gaps,
        "plan_covers_from": report.covered_from.isoformat() if report.covered_from else None,
        "plan_refused": report.refused_session.isoformat() if report.refused_session else None,
        "seconds": round(report.seconds, 1),
    }


def make_notes(step: str, report: Report) -> list[str]:
    """A line for each thing that the user should know by name."""
    notes = []
    if report.coverage.silent:
        notes.append(f"{step}: the vendor has nothing of {name_some(report.coverage.silent)}")
    if report.set_aside:
        named = [f"{what} ({count})" for what, count in report.set_aside.items()]
        notes.append(f"{step}: bars set aside: {name_some(named)}")
    if report.dropped:
        notes.append(f"{step}: {report.dropped:,} bars of other tickers were not stored (--all-tickers does)")
    notes += [f"{step}: {gap}" for gap in report.gaps[:NAMED_AT_MOST]]
    if len(report.gaps) > NAMED_AT_MOST:
        notes.append(f"{step}: and {len(report.gaps) - NAMED_AT_MOST} more changed their company")
    if report.covered_from:
        notes.append(
            f"{step}: the vendor's bars begin on {report.covered_from}: the key's plan reaches no further"
        )
    if report.refused_session:
        notes.append(f"{step}: the key's plan does not have {report.refused_session} yet: ask again tomorrow")
    for ticker, holes in list(report.coverage.failed_of.items())[:NAMED_AT_MOST]:
        notes.append(
            f"{step}: FAILED {ticker}, {holes} sessions: {report.failures.get(ticker, 'not answered')}"
        )
    if len(report.coverage.failed_of) > NAMED_AT_MOST:
        notes.append(f"{step}: FAILED too: {', '.join(list(report.coverage.failed_of)[NAMED_AT_MOST:])}")
    failed = [f"{what}: {why}" for what, why in report.failures.items() if what.startswith("session ")]
    notes += [f"{step}: FAILED {each}" for each in failed[:NAMED_AT_MOST]]
    return notes


def name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def connect_to_plan(settings: Settings) -> sqlite3.Connection:
    """The database, read only; an empty one in memory where there is none, or none with the tables of the plan."""
    if settings.database_path.is_file():
        connection = connect(settings.database_path, read_only=True)
        if {"_sessions_asked", "_plan_limits", "universe"} <= set(table_names(connection)):
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
            ensure_schema(connection, ["recoverable", "bookkeeping"])
        jobs = make_update_jobs(connection, calendar, end)
        if not any(jobs.values()):
            raise UsageError("no universe has bars yet", next_step="make backfill-daily, or make restore")
        costs = {
            LABELS[timeframe]: make_plan(plan_jobs(connection, calendar, some), all_sessions(calendar, some))
            for timeframe, some in jobs.items()
            if some
        }
        costs["splits"] = Plan(SPLIT_REQUESTS, 0, 0)
        if source is None:
            return print_plan(settings, costs, as_json=arguments.json)
        announce(settings, [job for some in jobs.values() for job in some], costs)
        done = update(connection, source, end)
    return print_update(done, as_json=arguments.json)


def announce(settings: Settings, jobs: Sequence[Job], costs: dict[str, Plan]) -> None:
    for job in jobs:
        say(describe_job(job))
    say(describe_cost(sum(cost.requests for cost in costs.values()), settings))


def print_update(done: Update, *, as_json: bool) -> int:
    steps = [(f"{universe}: {LABELS[timeframe]}", report) for universe, timeframe, report in done.reports]
    lines = [describe_finding(finding) for finding in done.findings]
    if as_json:
        reports = [make_json_report(step, report) for step, report in steps]
        print(json.dumps({"reports": reports, "splits": lines, "splits_failure": done.splits_failure}))
        code = DONE_WITH_HOLES if any(report.has_holes for _, report in steps) else DONE
    else:
        code = print_reports(steps)
        for line in lines:
            print(line)
        if done.splits_failure:
            print(f"FAILED splits: {done.splits_failure}")
    return DONE_WITH_HOLES if done.splits_failure else code


def describe_finding(finding: Finding) -> str:
    split = finding.split
    what = f"split {split.ticker} {split.split_to:g}:{split.split_from:g} on {split.execution_date}"
    if finding.state == "applied":
        return f"{what}: applied to the bars that were stored before"
    if finding.state == "waiting":
        return f"{what}: waits for the first bar after it"
    return f"{what}: NOT applied, the prices do not show it (close before to open after: {finding.seen_ratio:.3f})"
