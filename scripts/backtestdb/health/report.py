"""The facts as people and programs read them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from backtestdb.console import count_of, format_bytes, format_duration, print_paragraph, print_table
from backtestdb.health.backup_facts import KindFacts
from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.database_facts import Table
from backtestdb.health.facts import Facts
from backtestdb.health.problem import Problem
from backtestdb.offsite.facts import OffsiteFacts
from backtestdb.schema import CLASSES

STOPPED_AT_MOST = 10
LAKE_COUNTS = ("expected", "stored", "known_empty", "rejected", "failed")


def facts_as_json(
    facts: Facts, problems: Sequence[Problem], holes: Sequence[Any] | None = None
) -> str:
    """Return the facts for programs: times in UTC, ages in seconds, sizes in bytes."""
    values = {
        "ok": not problems,
        "problems": [asdict(problem) for problem in problems],
        "holes": None if holes is None else [asdict(each) for each in holes],
        **asdict(facts),
    }
    return json.dumps(values, default=as_plain, indent=1)


def as_plain(value: Any) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} has no plain form")


def show_facts(facts: Facts, problems: Sequence[Problem]) -> None:
    """Print the facts, a paragraph for each part."""
    database = facts.database
    print(
        f"database  {database.path} (from {database.origin}): {database.state}, "
        f"{format_bytes(database.bytes)}"
    )
    if facts.database_link:
        print(f"          {facts.database_link} is a link to it")

    if database.tables:
        print_table(
            "tables", ("class", "tables", "rows", "largest"), describe_tables(database.tables)
        )

    if facts.universes:
        show_universes(facts)

    for ticker, note in list(facts.market.stopped.items())[:STOPPED_AT_MOST]:
        print(f"stopped   {ticker}: {note}")
    if len(facts.market.stopped) > STOPPED_AT_MOST:
        print(
            f"stopped   and {len(facts.market.stopped) - STOPPED_AT_MOST} more: --json names them"
        )

    show_backups(facts)
    show_kept(facts)
    print_paragraph(describe_schedule(facts), 10)
    print_paragraph(describe_drills(facts), 10)
    if facts.lake:
        show_lake(facts.lake)

    if facts.offsite:
        print_paragraph(f"offsite   {describe_offsite(facts.offsite, facts.checked_at)}", 10)
    limit = f" of {facts.quota.per_minute:,} allowed" if facts.quota.per_minute else ", no limit"
    print(f"quota     {count_of(facts.quota.used, 'request')} in the last minute{limit}")

    for problem in problems:
        print_paragraph(f"problem:  {problem.what}", 10)
        print(f"    next: {problem.next_step}")  # in one piece, to be copied

    if not problems:
        print("all is well")


def show_lake(lake: dict[str, Any]) -> None:
    """Print the lake's version, its rows, and what is due in it."""
    if lake["version"] is None:
        print(f"lake      {lake['lake']}: nothing was published from this machine (make publish)")
        return

    size = format_bytes(lake["bytes"])
    print(
        f"lake      {lake['lake']}: version {lake['version']} of {lake['published_at_utc']}, {size}"
    )
    print(
        "          rows: "
        + ", ".join(f"{name} {table['rows']:,}" for name, table in lake["tables"].items())
    )
    if due := sum(lake["due"].values()):
        print(f"          {due} files of metrics do not follow their bars: make lake-metrics")

    for row in lake["coverage"]:
        counts = ", ".join(f"{name.replace('_', ' ')} {row[name]:,}" for name in LAKE_COUNTS)
        print(
            f"          {row['universe']} 5min, {row['start_date']} to {row['end_date']}: {counts}"
        )


def describe_tables(tables: Sequence[Table]) -> list[list[object]]:
    """Return a row for each class; `at most` where a table is too large to count at a glance."""
    rows: list[list[object]] = []
    for group in CLASSES:
        members = [table for table in tables if table.group == group]
        if not members:
            continue
        total = sum(table.rows for table in members)
        exact = all(table.is_exact for table in members)
        largest = max(members, key=lambda table: table.rows)
        shown = f"{total:,}" if exact else f"at most {total:,}"
        name = f"{largest.name} ({largest.rows:,})" if largest.rows else "–"
        rows.append([group.replace("_", " "), len(members), shown, name])

    return rows


def show_universes(facts: Facts) -> None:
    """Print a line for each universe and timeframe, and below them what the shares are made of."""
    print_table(
        "universes",
        ("universe", "bars", "tickers", "first", "last", "answered", "failed"),
        [describe_universe(row) for row in facts.universes],
    )
    counted = [row for row in facts.universes if row.expected]
    for row in counted:
        print_paragraph(f"  {row.universe} {row.timeframe}: {describe_counts(row)}", 4)
        if row.provisional:
            what = (
                f"{row.provisional:,} sessions of tickers are provisional; make update asks again"
            )
            print_paragraph(f"  {row.universe} {row.timeframe}: {what}", 4)

    if counted:
        print_paragraph(
            "  A session of a ticker is one ticker on one trading day. Known empty: the vendor "
            "answered that it has no bar. Beyond the plan: the key may not ask. Answered: stored + "
            "known empty, of what it may ask.",
            4,
        )


def describe_universe(row: UniverseCoverage) -> list[object]:
    share = None if row.answered_share is None else format_share(row.answered_share)
    return [
        *(row.universe, row.timeframe, row.tickers, row.first or None, row.last or None),
        *(share, row.failed),
    ]


def describe_counts(row: UniverseCoverage) -> str:
    """Return what the sessions of tickers are: stored, known empty, failed."""
    parts = {
        "stored": row.stored,
        "known empty": row.known_empty,
        "rejected": row.set_aside,
        "beyond the plan": row.beyond_plan,
        "failed": row.failed,
    }

    shown = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    return (
        f"{count_of(row.sessions or 0, 'session')}, {row.expected or 0:,} sessions of tickers: "
        f"{shown}"
    )


def format_share(share: float) -> str:
    """Return percent, rounded down: 100 % is said of what is whole."""
    return f"{math.floor(share * 1000) / 10:.1f} %"


def show_backups(facts: Facts) -> None:
    """Print the backups by kind, files that do not count, and the room on their disk."""
    backups = facts.backups
    print_table(
        f"verified backups in {backups.folder}",
        ("kind", "count", "newest", "age", "size", "all of them"),
        [describe_kind(kind) for kind in (backups.full, backups.irreplaceable)],
    )
    room = "" if backups.room_for is None else f", room for {backups.room_for:,} more full ones"
    if backups.fills_in_days is not None and not backups.fills:
        room += f", full in {backups.fills_in_days} days"

    others = (
        f"; {count_of(len(backups.unverified), 'file')} not verified" if backups.unverified else ""
    )
    for path, count in backups.of_others.items():
        print(f"others    {count_of(count, 'backup')} in this folder of another database: {path}")

    print(f"disk      {format_bytes(backups.free_bytes)} free{room}{others}")


def show_kept(facts: Facts) -> None:
    if facts.kept:
        size = format_bytes(sum(copy.bytes for copy in facts.kept))
        what = f"kept      {count_of(len(facts.kept), 'replaced database')} beside this one, {size}"
        print_paragraph(f"{what}: make kept lists and removes them", 10)
    if facts.interrupted_rebuild:
        size = format_bytes(facts.interrupted_rebuild.bytes)
        what = f"rebuild   interrupted, {size} in {facts.interrupted_rebuild.path}"
        print_paragraph(f"{what}: the same make restore… continues it", 10)


def describe_kind(kind: KindFacts) -> list[object]:
    age = None if kind.newest_age is None else format_age(kind.newest_age)
    return [
        *("full" if kind.kind == "full" else "small", kind.count),
        *(kind.newest.name if kind.newest else None, age),
        *(format_bytes(kind.newest_bytes), format_bytes(kind.bytes_used)),
    ]


def format_age(age: timedelta) -> str:
    if age >= timedelta(days=2):
        return f"{age.days} days"
    if age >= timedelta(days=1):
        return f"{age // timedelta(hours=1)} h"
    return format_duration(age.total_seconds())


def describe_schedule(facts: Facts) -> str:
    schedule = facts.schedule
    if not schedule.installed:
        return "schedule  none installed"
    result = f", last result: {schedule.last_result}" if schedule.last_result else ""
    return (
        f"schedule  {schedule.kind}: installed, "
        f"{'loaded' if schedule.loaded else 'not loaded'}{result}"
    )


def describe_offsite(offsite: OffsiteFacts, now: datetime) -> str:
    """Return a line: how far behind the copies are, when they were checked and restored."""
    lag = f"{format_age(offsite.lag)} behind" if offsite.lag is not None else "nothing sent yet"
    if offsite.newest_small_utc:
        lag += f", newest copy of {offsite.newest_small_utc.astimezone():%Y-%m-%d %H:%M:%S}"
    if offsite.newest_full_utc:
        lag += f" (full: {offsite.newest_full_utc.astimezone():%Y-%m-%d %H:%M})"

    checked = (
        f"checked {format_age(now - offsite.checked_at_utc)} ago"
        if offsite.checked_at_utc
        else "not checked"
    )
    drilled = (
        f"restored {format_age(now - offsite.drilled_at_utc)} ago in {offsite.drill_seconds:.1f} s"
        if offsite.drilled_at_utc
        else "not restored yet"
    )

    return f"{offsite.target}: {lag}, {checked}, {drilled}"


def describe_drills(facts: Facts) -> str:
    if not facts.drills:
        return "drill     none yet"
    last = facts.drills[0]
    outcome = "passed" if last.passed else f"failed: {last.detail}"
    return (
        f"drill     {format_age(facts.checked_at - last.at_utc)} ago, {outcome}, recovered in "
        f"{last.seconds:.1f} s"
    )
