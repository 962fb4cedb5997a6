"""The front page as values: what the template shows, with places and sizes worked out."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from backtestdb.backups.catalogue import Backup
from backtestdb.console import count_of, format_bytes
from backtestdb.health.drill_facts import DrillFacts
from backtestdb.health.facts import Facts
from backtestdb.health.problems import judge
from backtestdb.health.report import describe_tables, format_age
from backtestdb.market.sessions import last_completed_session, load_calendar, sessions_between
from backtestdb.page.backup_lanes import make_backup_lanes
from backtestdb.page.elsewhere import make_elsewhere
from backtestdb.page.heat_map import make_heat_map, ticker_path
from backtestdb.page.picture import Day, Picture
from backtestdb.timeframes import LABELS

WIDTH, HEIGHT = 600.0, 110.0
DRILLS_SHOWN = 10
WORST_SHOWN = 12


def make_front(
    facts: Facts, catalogue: Sequence[Backup], picture: Picture, datasette_path: str
) -> dict[str, Any]:
    """Return everything that the template needs. `datasette_path`: of the database's own pages,
    empty without one."""
    coverage_of = {(row.universe, row.timeframe): row for row in facts.universes}
    drawn = [
        (coverage_of[states.universe, states.timeframe], states)
        for states in picture.states
        if (states.universe, states.timeframe) in coverage_of
    ]

    return {
        "facts": facts,
        "problems": judge(facts),
        "checked_at": f"{facts.checked_at.astimezone():%Y-%m-%d %H:%M:%S}",
        "figures": make_figures(facts),
        "datasette_path": datasette_path,
        "tables": describe_tables(facts.database.tables),
        "heat_maps": [make_heat_map(coverage, states) for coverage, states in drawn],
        "worst": find_worst(picture),
        "charts": [
            make_day_chart(LABELS[name], days) for name, days in picture.days.items() if days
        ],
        "backup_lanes": make_backup_lanes(catalogue, facts.checked_at),
        "elsewhere": make_elsewhere(facts.offsite, facts.checked_at),
        "drills": [
            make_drill_row(facts.checked_at, drill) for drill in facts.drills[:DRILLS_SHOWN]
        ],
    }


def make_figures(facts: Facts) -> list[tuple[str, str, str]]:
    """Return for each figure its name, its value, and what is said below it (may be empty)."""
    full, small = facts.backups.full, facts.backups.irreplaceable

    last = max((row.last for row in facts.universes if row.timeframe == "1day"), default="")
    schedule = facts.schedule
    runs = schedule.kind if schedule.loaded else "not loaded" if schedule.installed else "none"
    limit = f"of {facts.quota.per_minute:,} a minute" if facts.quota.per_minute else "no limit"

    figures = [
        ("database", format_bytes(facts.database.bytes), facts.database.state),
        ("last session", last or "none", describe_lag(last, facts.checked_at) if last else ""),
        ("newest full backup", *show_age(full.newest_age, full.count)),
        ("newest small backup", *show_age(small.newest_age, small.count)),
        ("free for backups", format_bytes(facts.backups.free_bytes), ""),
        ("schedule", str(runs), ""),
        ("requests", f"{facts.quota.used:,}", limit),
    ]

    if facts.offsite:
        lag = facts.offsite.lag
        shown = "nothing yet" if lag is None else format_age(lag)
        figures.insert(4, ("off this machine", shown, "" if lag is None else "behind"))

    return figures


def show_age(age: timedelta | None, count: int) -> tuple[str, str]:
    if age is None:
        return "none", ""
    return f"{format_age(age)} ago", f"{count:,} kept"


def describe_lag(last: str, now: datetime) -> str:
    """Return how many sessions became final after the newest one that is stored, in words."""
    day = date.fromisoformat(last)
    behind = sessions_between(
        load_calendar(),
        date.fromordinal(day.toordinal() + 1),
        last_completed_session(load_calendar(), now),
    )
    return f"{count_of(len(behind), 'session')} behind" if behind else "the newest there is"


def find_worst(picture: Picture) -> list[dict[str, Any]]:
    """Return for each universe and timeframe with holes the tickers that miss the most sessions."""
    found = []
    for states in picture.states:
        worst = sorted(states.failed, key=lambda ticker: (-states.holes_of(ticker), ticker))
        if worst:
            found.append(
                {
                    "title": f"{states.universe}, {LABELS[states.timeframe]}",
                    "universe": states.universe,
                    "tickers": [
                        (ticker, ticker_path(ticker), states.holes_of(ticker))
                        for ticker in worst[:WORST_SHOWN]
                    ],
                    "more": max(len(worst) - WORST_SHOWN, 0),
                }
            )

    return found


def make_day_chart(label: str, days: Sequence[Day]) -> dict[str, Any]:
    """Return the bars of an SVG of WIDTH × HEIGHT, and their numbers."""
    highest = max((day.bars for day in days), default=0) or 1
    step = WIDTH / max(len(days), 1)
    bars = [
        {
            "x": round(place * step + step * 0.1, 2),
            "width": round(step * 0.8, 2),
            "y": round(HEIGHT - HEIGHT * day.bars / highest, 2),
            "height": round(HEIGHT * day.bars / highest, 2),
        }
        for place, day in enumerate(days)
    ]

    return {
        "label": label,
        "highest": f"{highest:,}",
        "first": days[0].session_date,
        "last": days[-1].session_date,
        "bars": bars,
        "rows": [(day.session_date, f"{day.bars:,}") for day in reversed(days)],
    }


def make_drill_row(now: datetime, drill: DrillFacts) -> dict[str, Any]:
    return {
        "age": format_age(now - drill.at_utc),
        "passed": drill.passed,
        "seconds": f"{drill.seconds:.1f} s",
        "detail": drill.detail,
    }
