"""The wall of a subscription: how far back it reaches, and whether it has today."""

from dataclasses import dataclass
from datetime import date

from backtestdb.sandbox.request import Refusal


@dataclass(frozen=True)
class Subscription:
    """`history_years` = 0 reaches back without end; a free plan has the end of the day only, not
    today. Of `refused_tickers` (indices, say) it has nothing, and without `grouped` no answers
    about the whole market."""

    history_years: int = 0
    free: bool = False
    grouped: bool = True
    refused_tickers: tuple[str, ...] = ()


def verify_included(plan: Subscription, ticker: str | None) -> None:
    """Raise a 403 for a ticker that the plan does not include; None stands for the whole market."""
    if (ticker is None and not plan.grouped) or ticker in plan.refused_tickers:
        message = "You are not entitled to this data. Please upgrade your plan."
        raise Refusal(403, {"status": "NOT_AUTHORIZED", "message": message})


def verify_subscription(plan: Subscription, today: date, first: date, last: date) -> date:
    """Return the first date that the plan covers of those asked; 403 when it covers none, or the
    free one has today.

    A range that begins before the wall is cut without a word, as the vendor does.
    """
    wall = find_wall(plan, today)
    if last < wall or (plan.free and last >= today):
        raise Refusal(
            403,
            {
                "status": "NOT_AUTHORIZED",
                "message": f"Your plan covers {wall} to {'yesterday' if plan.free else 'today'}.",
            },
        )

    return max(first, wall)


def find_wall(plan: Subscription, today: date) -> date:
    """Return the first date that the plan covers."""
    if plan.history_years == 0:
        return date.min
    year, leap_day = today.year - plan.history_years, (today.month, today.day) == (2, 29)
    return date(year, 2, 28) if leap_day else today.replace(year=year)
