"""The months of a universe as cells of a map, and what one cell leads to."""

import math
from typing import Any
from urllib.parse import quote

from backtestdb.console import count_of
from backtestdb.health.coverage_facts import UniverseCoverage
from backtestdb.health.problems import make_refill
from backtestdb.page.states import Month, States, TickerMonth, find_in_month
from backtestdb.timeframes import LABELS

STEPS = ((100.0, 5), (95.0, 4), (63.0, 3), (32.0, 2), (0.0, 1))


def make_heat_map(coverage: UniverseCoverage, states: States) -> dict[str, Any]:
    """Return a row of twelve cells for each year, the newest first; None where nothing was asked
    for."""
    by_name = {month.month: month for month in states.months}
    years = sorted({name[:4] for name in by_name}, reverse=True)
    return {
        "title": title_of(coverage.universe, coverage.timeframe),
        "coverage": coverage,
        "holes": len(states.failed),
        "rows": [
            (year, [make_cell(states, by_name.get(f"{year}-{n:02}")) for n in range(1, 13)])
            for year in years
        ],
    }


def title_of(universe: str, timeframe: str) -> str:
    return f"{universe}, {LABELS[timeframe]}"


def make_cell(states: States, month: Month | None) -> dict[str, Any] | None:
    if month is None:
        return None
    return {
        "step": choose_step(month),
        "shown": show_percent(month.percent),
        "has_gaps": month.gaps > 0,
        "title": f"{month.month}: {describe_month(month)}",
        "href": month_path(states.universe, states.timeframe, month.month),
    }


def choose_step(month: Month) -> str:
    """Return 0 for nothing to 5 for all; beyond, where the key may not ask."""
    if month.percent is None:
        return "beyond"
    if month.failed >= month.expected - month.beyond_plan:
        return "0"
    return str(next(step for least, step in STEPS if month.percent >= least))


def show_percent(percent: float | None) -> str:
    """Return the percent rounded down: 100 is said of what is whole."""
    return "–" if percent is None else f"{math.floor(percent)}"


def describe_month(month: Month) -> str:
    """Return the counts that are not 0, in sessions of tickers."""
    counts = {
        "holes": month.failed,
        "known empty": month.known_empty,
        "beyond the plan": month.beyond_plan,
    }
    parts = [f"{month.stored:,} of {month.expected:,} sessions of tickers stored"]
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    if month.gaps:
        parts.append(f"{count_of(month.gaps, 'ticker')} with a gap")
    return ", ".join(parts)


def month_path(universe: str, timeframe: str, month: str) -> str:
    return f"/coverage/{quote(universe, safe='')}/{timeframe}/{month}"


def ticker_path(ticker: str) -> str:
    return f"/ticker/{quote(ticker, safe='')}"


def make_month_page(
    coverage: UniverseCoverage, states: States, month: str
) -> dict[str, Any] | None:
    """Return what a cell leads to: the tickers that lack a session of the month, those that can be
    fetched first. None for a month that was not asked for."""
    counted = {each.month: each for each in states.months}
    if month not in counted:
        return None

    months = list(counted)
    place = months.index(month)
    rows = find_in_month(states, month)
    return {
        "title": title_of(states.universe, states.timeframe),
        "month": month,
        "summary": describe_month(counted[month]),
        "before": link_to(states, months[place - 1]) if place else None,
        "after": link_to(states, months[place + 1]) if place + 1 < len(months) else None,
        "is_judged": states.is_judged,
        "refill": make_refill(coverage) if counted[month].failed else "",
        "rows": [(row, ticker_path(row.ticker), describe_row(row, states)) for row in rows],
    }


def link_to(states: States, month: str) -> tuple[str, str]:
    return month, month_path(states.universe, states.timeframe, month)


def describe_row(row: TickerMonth, states: States) -> str:
    """Return why sessions of a ticker have no bar, in words."""
    parts = []
    if row.failed:
        asked = "asked for and not answered" if states.is_judged else "without a bar"
        parts.append(f"{count_of(row.failed, 'session')} {asked}")
    if row.known_empty:
        where = ", between its bars" if row.is_gap else ""
        parts.append(f"{count_of(row.known_empty, 'session')} known to be empty{where}")
    if row.beyond_plan:
        parts.append(f"{count_of(row.beyond_plan, 'session')} beyond the plan")
    return "; ".join(parts)
