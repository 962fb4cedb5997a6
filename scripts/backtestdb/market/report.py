"""What backfills and updates cost and brought, as people and programs read it."""

import json
from collections.abc import Mapping, Sequence

from backtestdb.config import Settings
from backtestdb.console import (
    DONE,
    DONE_WITH_HOLES,
    count_of,
    format_bytes,
    format_duration,
    print_table,
    say,
)
from backtestdb.market.coverage import COUNTS
from backtestdb.market.jobs import Job, Report
from backtestdb.market.request_plan import Cost, duration_seconds
from backtestdb.market.splits import SplitLook
from backtestdb.market.update import Update
from backtestdb.timeframes import LABELS

NAMED_AT_MOST = 20


def describe_job(job: Job) -> str:
    return (
        f"{LABELS[job.timeframe]} of {job.universe}: {len(job.tickers)} tickers × "
        f"{len(job.sessions)} sessions "
        f"({job.sessions[0]} to {job.sessions[-1]})"
    )


def describe_cost(requests: int, settings: Settings) -> str:
    seconds = duration_seconds(requests, settings.requests_per_minute)
    return f"{count_of(requests, 'request')}, at the quota {format_duration(seconds)}"


def print_plan(settings: Settings, plans: Mapping[str, Cost], *, as_json: bool) -> int:
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
        [
            [step, plan.requests, plan.rows, format_bytes(plan.bytes)]
            for step, plan in plans.items()
        ],
    )
    quota = (
        f"{settings.requests_per_minute} a minute" if settings.requests_per_minute else "no quota"
    )
    print(f"{count_of(total, 'request')} at {quota}: {format_duration(seconds)}")
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
            *(
                "step",
                "requests",
                "bars",
                "asked",
                "stored",
                "known empty",
                "set aside",
                "beyond plan",
            ),
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
        "clamped": report.clamped,
        "coverage": {name: getattr(report.coverage, name) for name in COUNTS},
        "failed_of": report.coverage.failed_of,
        "failures": report.failures,
        "silent": report.coverage.silent,
        "set_aside_of": report.set_aside,
        "changed_company": report.gaps,
        "plan_covers_from": report.history_starts.isoformat() if report.history_starts else None,
        "provisional": report.coverage.provisional,
        "not_in_plan": report.refused_tickers,
        "plan_refused": report.refused_session.isoformat() if report.refused_session else None,
        "stopped": report.stopped,
        "asked_again_after_splits": report.splits.refetched,
        "due_after_splits": report.splits.due,
        "splits_failure": report.splits.failure,
        "seconds": round(report.seconds, 1),
    }


def make_notes(step: str, report: Report) -> list[str]:
    """Return a line for each thing that the user should know by name."""
    notes = make_plan_notes(step, report)
    if report.coverage.silent:
        notes.append(f"{step}: the vendor has nothing of {name_some(report.coverage.silent)}")
    if report.set_aside:
        named = [f"{what} ({count})" for what, count in report.set_aside.items()]
        notes.append(f"{step}: bars set aside: {name_some(named)}")
    if report.clamped:
        notes.append(
            f"{step}: {report.clamped:,} bars had a high or low within a tick of open or close: "
            "clamped"
        )
    if report.dropped:
        notes.append(
            f"{step}: {report.dropped:,} bars of other tickers were not stored (--all-tickers does)"
        )
    notes += [f"{step}: {gap}" for gap in report.gaps[:NAMED_AT_MOST]]
    if len(report.gaps) > NAMED_AT_MOST:
        notes.append(f"{step}: and {len(report.gaps) - NAMED_AT_MOST} more were away for months")
    for ticker, holes in list(report.coverage.failed_of.items())[:NAMED_AT_MOST]:
        notes.append(
            f"{step}: FAILED {ticker}, {holes} sessions: "
            f"{report.failures.get(ticker, 'not answered')}"
        )
    if len(report.coverage.failed_of) > NAMED_AT_MOST:
        notes.append(
            f"{step}: FAILED too: {', '.join(list(report.coverage.failed_of)[NAMED_AT_MOST:])}"
        )
    failed = [
        f"{what}: {why}" for what, why in report.failures.items() if what.startswith("session ")
    ]
    notes += [f"{step}: FAILED {each}" for each in failed[:NAMED_AT_MOST]]
    return notes + describe_splits(report.splits)


def make_plan_notes(step: str, report: Report) -> list[str]:
    """Return what the key's plan does not cover, and what is asked for again."""
    notes = []
    if report.refused_tickers:
        notes.append(f"{step}: the key's plan does not include {name_some(report.refused_tickers)}")
    if report.coverage.provisional:
        notes.append(
            f"{step}: {report.coverage.provisional:,} sessions of tickers are provisional:"
            " the next run (make update) asks for them again"
        )
    stopped = [f"{ticker} ({note})" for ticker, note in report.stopped.items()]
    if stopped:
        notes.append(f"{step}: no bar in the newest sessions: {name_some(stopped)}")
    if report.history_starts:
        notes.append(
            f"{step}: the vendor's bars begin on {report.history_starts}: the key's plan reaches "
            "no further"
        )
    if report.refused_session:
        notes.append(
            f"{step}: the key's plan does not have {report.refused_session} yet: ask again tomorrow"
        )
    return notes


def name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def announce(settings: Settings, jobs: Sequence[Job], costs: dict[str, Cost]) -> None:
    for job in jobs:
        say(describe_job(job))
    say(describe_cost(sum(cost.requests for cost in costs.values()), settings))


def print_update(done: Update, *, as_json: bool) -> int:
    steps = [
        (f"{universe}: {LABELS[timeframe]}", report) for universe, timeframe, report in done.reports
    ]
    if not as_json:
        code = print_reports(steps)
        if done.list_failure:
            print(f"FAILED list of us-stocks: {done.list_failure}")
        return DONE_WITH_HOLES if done.list_failure else code
    reports = [make_json_report(step, report) for step, report in steps]
    splits = {"asked_again": done.splits.refetched, "due": done.splits.due}
    failures = {"splits_failure": done.splits.failure, "list_failure": done.list_failure}
    print(json.dumps({"reports": reports, "splits": splits, **failures}))
    has_holes = done.list_failure or any(report.has_holes for _, report in steps)
    return DONE_WITH_HOLES if has_holes else DONE


def describe_splits(look: SplitLook) -> list[str]:
    """Return what came of the look at the splits, by ticker."""
    again = [
        f"{reason}: all stored bars of {ticker} were asked for again"
        for ticker, reason in look.refetched.items()
    ]
    due = [
        f"FAILED {ticker}: {reason}: its bars are still to be asked for again (make update)"
        for ticker, reason in look.due.items()
    ]
    return [*again, *due, *([f"FAILED splits: {look.failure}"] if look.failure else [])]
