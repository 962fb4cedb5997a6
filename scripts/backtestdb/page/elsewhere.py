"""The copies off this machine, in the words of the page."""

from datetime import datetime

from backtestdb.health.report import format_age
from backtestdb.offsite.facts import OffsiteFacts
from backtestdb.page.backup_lanes import format_moment


def make_elsewhere(offsite: OffsiteFacts | None, now: datetime) -> list[tuple[str, str]]:
    """Return what is known of the copies as name and value; nothing when OFFSITE is not set."""
    if offsite is None:
        return []

    checked = (
        f"{format_age(now - offsite.checked_at_utc)} ago"
        + (f": {offsite.check_problems[0]}" if offsite.check_problems else ", all well")
        if offsite.checked_at_utc
        else "not yet"
    )
    restored = (
        f"{format_age(now - offsite.drilled_at_utc)} ago"
        + (
            f", failed: {offsite.drill_problem}"
            if offsite.drill_problem
            else f", in {offsite.drill_seconds:.1f} s"
        )
        if offsite.drilled_at_utc
        else "not yet"
    )

    return [
        ("where", offsite.target),
        ("behind", "nothing sent yet" if offsite.lag is None else format_age(offsite.lag)),
        ("newest full copy", format_copy(offsite.newest_full_utc)),
        ("newest small copy", format_copy(offsite.newest_small_utc)),
        ("checked there", checked),
        ("restored from there", restored),
    ]


def format_copy(taken_at_utc: datetime | None) -> str:
    return "none" if taken_at_utc is None else f"of {format_moment(taken_at_utc)}"
