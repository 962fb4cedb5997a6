"""What the key's plan covers: learnt from refusals, remembered, and asked again, because plans get better."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from backtestdb.market.request_plan import mask_between

# A second run at once relies on what the first one learnt; an hour later one request finds out anew.
BELIEVED_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class Limits:
    """Sessions before `covered_from` were refused; a day as early as `proven_from` was answered;
    `refused_session`, the newest, was refused for now (the free plan has no bars of today)."""

    covered_from: date | None = None
    proven_from: date | None = None
    refused_session: date | None = None
    learnt_at_utc: datetime | None = None

    def is_fresh(self, now_utc: datetime) -> bool:
        return self.learnt_at_utc is not None and now_utc - self.learnt_at_utc < BELIEVED_FOR

    def mask(self, sessions: Sequence[date]) -> int:
        """The ones of `sessions` beyond the plan, as bits."""
        beyond = 0
        if self.covered_from:
            beyond |= mask_between(sessions, date.min, self.covered_from - timedelta(days=1))
        if self.refused_session:
            beyond |= mask_between(sessions, self.refused_session, self.refused_session)
        return beyond


def load_limits(connection: sqlite3.Connection) -> Limits:
    """What was learnt before; nothing where nothing was."""
    row = connection.execute(
        "SELECT covered_from, proven_from, refused_session, learnt_at_utc FROM _plan_limits"
    ).fetchone()
    if not row:
        return Limits()
    covered, proven, refused = (date.fromisoformat(day) if day else None for day in row[:3])
    return Limits(covered, proven, refused, datetime.fromisoformat(row[3]))


def save_limits(connection: sqlite3.Connection, limits: Limits, now_utc: datetime) -> Limits:
    """Keep what was learnt now; the caller's transaction, if there is one."""
    days = [
        day.isoformat() if day else None
        for day in (limits.covered_from, limits.proven_from, limits.refused_session)
    ]
    learnt = now_utc.isoformat(timespec="seconds")
    connection.execute("INSERT OR REPLACE INTO _plan_limits VALUES (1, ?, ?, ?, ?)", (*days, learnt))
    return replace(limits, learnt_at_utc=now_utc)
