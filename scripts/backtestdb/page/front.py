"""The front page as values: what the template shows, with places and sizes worked out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from backtestdb.backups.catalogue import Backup
from backtestdb.console import format_bytes
from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.drill_facts import DrillFacts
from backtestdb.health.facts import Facts
from backtestdb.health.problems import judge
from backtestdb.health.report import describe_offsite, describe_tables, format_age
from backtestdb.page.picture import Day, Month
from backtestdb.timeframes import LABELS

WIDTH, HEIGHT = 600.0, 110.0
BACKUPS_SHOWN = 60


@dataclass(frozen=True)
class Picture:
    """The drawn part of the market data. `months`: beside each coverage; `days`: by timeframe."""

    months: list[tuple[UniverseCoverage, list[Month]]]
    days: dict[str, list[Day]]


def make_front(
    facts: Facts, catalogue: Sequence[Backup], picture: Picture, datasette_path: str
) -> dict[str, Any]:
    """Return everything that the template needs. `datasette_path`: of the database's own pages,
    empty without one."""
    return {
        "facts": facts,
        "problems": judge(facts),
        "checked_at": f"{facts.checked_at.astimezone():%Y-%m-%d %H:%M:%S}",
        "database_size": format_bytes(facts.database.bytes),
        "datasette_path": datasette_path,
        "tables": describe_tables(facts.database.tables),
        "heat_maps": [make_heat_map(coverage, months) for coverage, months in picture.months],
        "charts": [
            make_day_chart(LABELS[name], days) for name, days in picture.days.items() if days
        ],
        "backup_chart": make_backup_chart(catalogue),
        "newest": [
            ("full", format_optional_age(facts.backups.full.newest_age), facts.backups.full),
            (
                "small",
                format_optional_age(facts.backups.irreplaceable.newest_age),
                facts.backups.irreplaceable,
            ),
        ],
        "free": format_bytes(facts.backups.free_bytes),
        "offsite": facts.offsite and describe_offsite(facts.offsite, facts.checked_at),
        "drills": [make_drill_row(facts.checked_at, drill) for drill in facts.drills[:10]],
    }


def format_optional_age(age: timedelta | None) -> str:
    return "none" if age is None else format_age(age)


def make_heat_map(coverage: UniverseCoverage, months: Sequence[Month]) -> dict[str, Any]:
    """Return a row of twelve cells for each year, the newest first; None where nothing was asked
    for. `step`: 0 for nothing, 5 for all, 4 from 95 %, then by thirds."""
    by_name = {month.month: month for month in months}
    years = sorted({month.month[:4] for month in months}, reverse=True)
    return {
        "title": f"{coverage.universe}, {LABELS[coverage.timeframe]}",
        "coverage": coverage,
        "rows": [
            (year, [make_cell(by_name.get(f"{year}-{number:02}")) for number in range(1, 13)])
            for year in years
        ],
    }


def make_cell(month: Month | None) -> dict[str, Any] | None:
    if month is None:
        return None
    percent = month.percent
    step = (
        0
        if not month.stored
        else 5
        if percent >= 100
        else 4
        if percent >= 95
        else 1 + int(percent * 3 / 95)
    )
    shown = "100" if percent >= 100 else f"{min(percent, 99):.0f}"
    title = (
        f"{month.month}: {month.stored:,} of {month.expected:,} sessions of tickers "
        f"({percent:.1f} %)"
    )
    return {"step": step, "shown": shown, "title": title}


def make_day_chart(label: str, days: Sequence[Day]) -> dict[str, Any]:
    """Return bars of an SVG of WIDTH × HEIGHT."""
    highest = max((day.bars for day in days), default=0) or 1
    step = WIDTH / max(len(days), 1)
    bars = [
        {
            "x": round(place * step + step * 0.1, 2),
            "width": round(step * 0.8, 2),
            "y": round(HEIGHT - HEIGHT * day.bars / highest, 2),
            "height": round(HEIGHT * day.bars / highest, 2),
            "title": f"{day.session_date}: {day.bars:,} bars",
        }
        for place, day in enumerate(days)
    ]
    return {
        "label": label,
        "highest": f"{highest:,}",
        "first": days[0].session_date,
        "last": days[-1].session_date,
        "bars": bars,
    }


def make_backup_chart(catalogue: Sequence[Backup]) -> dict[str, Any] | None:
    """Return the newest 60 files in the order in which they were taken; height by size, each kind
    by its own largest."""
    shown = sorted(catalogue, key=lambda backup: backup.taken_at_utc)[-BACKUPS_SHOWN:]
    if not shown:
        return None
    by_kind = groupby(sorted(shown, key=lambda backup: backup.kind), key=lambda backup: backup.kind)
    largest = {kind: max(backup.bytes for backup in members) or 1 for kind, members in by_kind}
    step = WIDTH / max(len(shown), 12)
    return {
        "first": format_day(shown[0].taken_at_utc),
        "last": format_day(shown[-1].taken_at_utc),
        "bars": [
            {
                "x": round(place * step + step * 0.1, 2),
                "width": round(step * 0.8, 2),
                "height": round(max(HEIGHT * backup.bytes / largest[backup.kind], 2), 2),
                "y": round(HEIGHT - max(HEIGHT * backup.bytes / largest[backup.kind], 2), 2),
                "class": backup.kind if backup.is_verified else "unverified",
                "title": describe_backup(backup),
            }
            for place, backup in enumerate(shown)
        ],
        "rows": [describe_row(backup) for backup in reversed(shown[-8:])],
    }


def describe_backup(backup: Backup) -> str:
    state = "verified" if backup.is_verified else f"does not count: {backup.problem}"
    return f"{backup.path.name}, {format_bytes(backup.bytes)}, {state}"


def describe_row(backup: Backup) -> dict[str, Any]:
    return {
        "name": backup.path.name,
        "size": format_bytes(backup.bytes),
        "is_verified": backup.is_verified,
        "problem": backup.problem,
        "rows": f"{sum(backup.manifest.rows.values()):,}" if backup.manifest else "–",
    }


def format_day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d}"


def make_drill_row(now: datetime, drill: DrillFacts) -> dict[str, Any]:
    return {
        "age": format_age(now - drill.at_utc),
        "passed": drill.passed,
        "seconds": f"{drill.seconds:.1f} s",
        "detail": drill.detail,
    }
