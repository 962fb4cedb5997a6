"""What the key's plan covers: learnt from refusals, remembered, and asked again, because plans get better."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from backtestdb.database import transaction
from backtestdb.market.client import MarketData, NotInPlanError, NotListedError, VendorFaultError
from backtestdb.market.session_mask import mask_between

ONE_DAY = timedelta(days=1)

# A second run at once relies on what the first one learnt; an hour later one request finds out anew.
BELIEVED_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class PlanLimits:
    """Sessions before `history_starts` were refused; a day as early as `proven_from` was answered;
    `refused_session`, the newest, was refused for now (the free plan has no bars of today)."""

    history_starts: date | None = None
    proven_from: date | None = None
    refused_session: date | None = None
    learnt_at_utc: datetime | None = None

    def is_fresh(self, now_utc: datetime) -> bool:
        return self.learnt_at_utc is not None and now_utc - self.learnt_at_utc < BELIEVED_FOR

    def mask(self, sessions: Sequence[date]) -> int:
        """The ones of `sessions` beyond the plan, as bits."""
        beyond = 0
        if self.history_starts:
            beyond |= mask_between(sessions, date.min, self.history_starts - timedelta(days=1))
        if self.refused_session:
            beyond |= mask_between(sessions, self.refused_session, self.refused_session)
        return beyond


def load_limits(connection: sqlite3.Connection) -> PlanLimits:
    """What was learnt before; nothing where nothing was."""
    row = connection.execute(
        "SELECT covered_from, proven_from, refused_session, learnt_at_utc FROM _plan_limits"
    ).fetchone()
    if not row:
        return PlanLimits()
    covered, proven, refused = (date.fromisoformat(day) if day else None for day in row[:3])
    return PlanLimits(covered, proven, refused, datetime.fromisoformat(row[3]))


def save_limits(connection: sqlite3.Connection, limits: PlanLimits, now_utc: datetime) -> PlanLimits:
    """Keep what was learnt now; the caller's transaction, if there is one."""
    days = [
        day.isoformat() if day else None
        for day in (limits.history_starts, limits.proven_from, limits.refused_session)
    ]
    learnt = now_utc.isoformat(timespec="seconds")
    connection.execute("INSERT OR REPLACE INTO _plan_limits VALUES (1, ?, ?, ?, ?)", (*days, learnt))
    return replace(limits, learnt_at_utc=now_utc)


def recheck_limits(
    connection: sqlite3.Connection,
    client: MarketData,
    now_utc: datetime,
    ticker: str,
    needs_day_before: Callable[[date], bool],
) -> PlanLimits:
    """What is believed of the plan when a run begins. After an hour the newest session may be there, and one
    request for `ticker` tells whether the plan reaches back further by now, where `needs_day_before` says that
    the run would ask for a day before the given one."""
    limits = load_limits(connection)
    if limits.is_fresh(now_utc) or not (limits.history_starts or limits.refused_session):
        return limits
    unbound = save_limits(connection, PlanLimits(proven_from=limits.proven_from), now_utc)
    if limits.history_starts is None:
        return unbound
    last_refused = limits.history_starts - ONE_DAY
    if needs_day_before(limits.history_starts) and (
        ask_whether_refused(client, ticker, last_refused, last_refused) is False
    ):
        return unbound
    return save_limits(connection, replace(unbound, history_starts=limits.history_starts), now_utc)


def ask_whether_refused(client: MarketData, ticker: str, start: date, end: date) -> bool | None:
    """None when the vendor does not say, because of a fault of its own."""
    try:
        client.fetch_bars(ticker, "1day", start, end)
    except NotInPlanError:
        return True
    except NotListedError:
        return False
    except VendorFaultError:
        return None
    return False


def find_silent_cut(
    connection: sqlite3.Connection,
    client: MarketData,
    now_utc: datetime,
    tickers: Sequence[str],
    timeframe: str,
    limits: PlanLimits,
) -> PlanLimits:
    """When no ticker's answer begins where it was asked for, one request about the time before tells whether
    the plan cut it. If so, the records say what was really answered."""
    asked_from, first, ticker = find_late_beginning(connection, tickers, timeframe)
    if not first or not asked_from or (limits.proven_from and limits.proven_from <= asked_from):
        return limits
    if limits.history_starts and first <= limits.history_starts:
        return limits
    refused = ask_whether_refused(client, ticker, asked_from, first - ONE_DAY)
    if refused is None:
        return limits
    if not refused:
        return save_limits(connection, replace(limits, proven_from=asked_from), now_utc)
    with transaction(connection):
        for member in tickers:
            connection.execute(
                "UPDATE OR REPLACE _ranges_asked SET start_date = :first WHERE ticker = :ticker"
                " AND start_date < :first AND end_date >= :first AND coalesce(first_date, :first) >= :first",
                {"first": first.isoformat(), "ticker": member},
            )
        return save_limits(connection, replace(limits, history_starts=first), now_utc)


def find_late_beginning(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str
) -> tuple[date | None, date | None, str]:
    """Since when `tickers` were asked for one by one, and the first bar of any of them, with its ticker,
    when that came later."""
    members = set(tickers)
    rows = [
        row
        for row in connection.execute(
            "SELECT ticker, min(start_date), min(first_date) FROM _ranges_asked WHERE timeframe = ? GROUP BY ticker",
            (timeframe,),
        )
        if row[0] in members
    ]
    began = [(first, ticker) for ticker, _, first in rows if first]
    if not began:
        return None, None, ""
    asked_from, (first, ticker) = min(start for _, start, _ in rows), min(began)
    if first <= asked_from:
        return None, None, ""
    return date.fromisoformat(asked_from), date.fromisoformat(first), ticker
