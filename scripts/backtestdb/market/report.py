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
from backtestdb.market.jobs import Job, Report, RunTotals
from backtestdb.market.request_plan import Cost, duration_seconds
from backtestdb.market.splits import SplitLook
from backtestdb.market.update import Update
from backtestdb.timeframes import LABELS

NAMED_AT_MOST = 20


def describe_job(job: Job) -> str:
    return (
        f"{LABELS[job.timeframe]} of {job.universe}: {len(job.tickers)} tickers × "
        f"{len(job.sessions)} sessions ({job.sessions[0]} to {job.sessions[-1]})"
    )


def describe_cost(requests: int, settings: Settings) -> str:
    seconds = duration_seconds(requests, settings.requests_per_minute)
    return f"{count_of(requests, 'request')}, at the quota {format_duration(seconds)}"


def print_plan(settings: Settings, plans: Mapping[str, Cost], *, as_json: bool) -> int:
    """Print a cost for each step of `plans`; return the exit code."""
    # `rows` is an upper bound: no bar where nothing traded.
    rows = [(step, plan.requests, plan.rows, plan.bytes) for step, plan in plans.items()]
    total = sum(plan.requests for plan in plans.values())
    per_minute = settings.requests_per_minute
    seconds = duration_seconds(total, per_minute)

    if as_json:
        names = ("step", "requests", "rows_at_most", "bytes_at_most")
        steps = [dict(zip(names, row, strict=True)) for row in rows]
        print(json.dumps({"steps": steps, "requests": total, "seconds_at_quota": seconds}))
        return DONE

    print_table(
        "Plan (no request was sent)",
        ["step", "requests", "rows at most", "disk at most"],
        [[*others, format_bytes(size)] for *others, size in rows],
    )
    quota = f"{per_minute} a minute" if per_minute else "no quota"
    print(f"{count_of(total, 'request')} at {quota}: {format_duration(seconds)}")

    return DONE


def print_reports(reports: Sequence[tuple[str, Report]], *, as_json: bool = False) -> int:
    """Print the table at the end, and by name what is not there; return the exit code."""
    code = DONE_WITH_HOLES if any(report.has_holes for _, report in reports) else DONE
    if as_json:
        print(json.dumps(make_json_reports(reports)))
        return code

    print_table(
        "Result (sessions of tickers)",
        [
            *("step", "requests", "bars", "asked", "stored"),
            *("known empty", "rejected", "beyond plan", "failed", "time"),
        ],
        [
            [
                step,
                run.requests if run else "",
                run.bars if run else "",
                *(getattr(report.coverage, name) for name in COUNTS),
                format_duration(run.seconds) if run else "",
            ]
            for step, report, run in with_totals(reports)
        ],
    )
    for step, report, run in with_totals(reports):
        for note in [*make_job_notes(step, report), *(make_run_notes(step, run) if run else [])]:
            print(note)

    return code


def with_totals(
    reports: Sequence[tuple[str, Report]],
) -> list[tuple[str, Report, RunTotals | None]]:
    """Return each step and report with the totals of its run, which belong to the first job of
    those that ran together (None for the others)."""
    rows: list[tuple[str, Report, RunTotals | None]] = []
    for number, (step, report) in enumerate(reports):
        is_first = number == 0 or report.run is not reports[number - 1][1].run
        rows.append((step, report, report.run if is_first else None))
    return rows


def make_json_reports(reports: Sequence[tuple[str, Report]]) -> list[dict[str, object]]:
    """Return the reports for programs. A job that ran together with the one before it has 0 of what
    that one counts for both."""
    return [
        make_json_report(step, report, run or RunTotals())
        for step, report, run in with_totals(reports)
    ]


def make_json_report(step: str, report: Report, run: RunTotals) -> dict[str, object]:
    """Return the report of a step for programs."""
    return {
        "step": step,
        "requests": run.requests,
        "bars": run.bars,
        "dropped": run.dropped,
        "clamped": run.clamped,
        "coverage": {name: getattr(report.coverage, name) for name in COUNTS},
        "failed_of": report.coverage.failed_of,
        "failures": report.run.failures,
        "silent": report.coverage.silent,
        "set_aside_of": run.set_aside,
        "changed_company": report.gaps,
        "plan_covers_from": report.history_starts.isoformat() if report.history_starts else None,
        "provisional": report.coverage.provisional,
        "not_in_plan": report.refused_tickers,
        "plan_refused": report.refused_session.isoformat() if report.refused_session else None,
        "stopped": run.stopped,
        "asked_again_after_splits": run.splits.refetched,
        "due_after_splits": run.splits.due,
        "splits_failure": run.splits.failure,
        "seconds": round(run.seconds, 1),
    }


def make_job_notes(step: str, report: Report) -> list[str]:
    """Return a line for each thing about a job that the user should know by name."""
    notes = make_plan_notes(step, report)
    if report.coverage.silent:
        notes.append(f"{step}: the vendor has nothing of {name_some(report.coverage.silent)}")

    notes += [f"{step}: {gap}" for gap in report.gaps[:NAMED_AT_MOST]]
    if len(report.gaps) > NAMED_AT_MOST:
        notes.append(f"{step}: and {len(report.gaps) - NAMED_AT_MOST} more were away for months")

    failed_of = report.coverage.failed_of
    for ticker, holes in list(failed_of.items())[:NAMED_AT_MOST]:
        reason = report.run.failures.get(ticker, "not answered")
        notes.append(f"{step}: FAILED {ticker}, {holes} sessions: {reason}")
    if len(failed_of) > NAMED_AT_MOST:
        notes.append(f"{step}: FAILED too: {', '.join(list(failed_of)[NAMED_AT_MOST:])}")
    return notes


def make_run_notes(step: str, run: RunTotals) -> list[str]:
    """Return a line for each thing about all jobs of a run that the user should know by name."""
    notes = []
    stopped = [f"{ticker} ({note})" for ticker, note in run.stopped.items()]
    if stopped:
        notes.append(f"{step}: no bar in the newest sessions: {name_some(stopped)}")

    if run.set_aside:
        named = [f"{what} ({count})" for what, count in run.set_aside.items()]
        notes.append(f"{step}: bars rejected: {name_some(named)}")
    if run.clamped:
        notes.append(
            f"{step}: {run.clamped:,} bars had a high or low within a tick of open or close: "
            "clamped"
        )

    if run.dropped:
        notes.append(
            f"{step}: {run.dropped:,} bars of other tickers were not stored (--all-tickers does)"
        )

    failed = [f"{what}: {why}" for what, why in run.failures.items() if what.startswith("session ")]
    notes += [f"{step}: FAILED {each}" for each in failed[:NAMED_AT_MOST]]
    return notes + describe_splits(run.splits)


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
    """Print the reports of an update, or one JSON object; return the exit code."""
    steps = [
        (f"{universe}: {LABELS[timeframe]}", report) for universe, timeframe, report in done.reports
    ]
    if as_json:
        reports = make_json_reports(steps)
        splits = {"asked_again": done.splits.refetched, "due": done.splits.due}
        failures = {"splits_failure": done.splits.failure, "list_failure": done.list_failure}
        print(json.dumps({"reports": reports, "splits": splits, **failures}))
    else:
        print_reports(steps)
        if done.list_failure:
            print(f"FAILED list of us-stocks: {done.list_failure}")

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
