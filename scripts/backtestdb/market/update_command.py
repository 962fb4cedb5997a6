"""`update_database.py` behind its arguments: plan or update, and what is said about it."""

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime

from backtestdb.config import Settings
from backtestdb.console import DONE, DONE_WITH_HOLES, say
from backtestdb.database import connect
from backtestdb.errors import UsageError
from backtestdb.market.cli import (
    LABELS,
    choose_end,
    describe_cost,
    describe_job,
    make_json_report,
    make_source,
    print_plan,
    print_reports,
)
from backtestdb.market.jobs import Job, Source, all_sessions, plan_jobs
from backtestdb.market.request_plan import Plan, make_plan
from backtestdb.market.sessions import load_calendar
from backtestdb.market.splits import Finding
from backtestdb.market.update import Update, make_update_jobs, update
from backtestdb.schema import ensure_schema

SPLIT_REQUESTS = 1


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
