"""Days of the exchange's zone in UTC. Standard library only: what makes a backup uses it."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


def midnight_ms(day: date) -> int:
    """Given a date, return its midnight in New York, in milliseconds UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp() * 1000)


def end_of_day_ms(day: date) -> int:
    """Given a date, return its last millisecond in New York, in milliseconds UTC."""
    return midnight_ms(date.fromordinal(day.toordinal() + 1)) - 1


def date_of(timestamp_ms: float) -> date:
    """Given an instant in milliseconds UTC, return the date in New York."""
    return datetime.fromtimestamp(timestamp_ms / 1000, NEW_YORK).date()
