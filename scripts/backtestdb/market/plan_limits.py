"""What the key's plan covers: learnt from refusals, remembered, and asked again, because plans get
better.

A refusal is a sign, not a fact: a second request has to agree before anything is concluded from it.
Limits are kept for each endpoint: 1day and 5min (a ticker's range), GROUPED (the whole market's
session).
"""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import Enum

from exchange_calendars import ExchangeCalendar

from backtestdb.database import transaction
from backtestdb.market.client import MarketData, MarketDataError, NotInPlanError
from backtestdb.market.session_mask import EMPTY, SessionMask, first_sessions, mask_between
from backtestdb.market.sessions import sessions_back
from backtestdb.new_york import date_of

GROUPED = "grouped"
# A second run at once relies on what the first one learnt; an hour later one request finds out
# anew. Whether an endpoint or a ticker belongs to the plan changes with the plan only.
BELIEVED_FOR = timedelta(hours=1)
REFUSED_FOR = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class PlanLimits:
    """Of one endpoint. Sessions before `history_starts` were refused; a day as early as
    `proven_from` was answered; `refused_session`, the newest, was refused for now (the free plan
    has no bars of today); `is_refused`: the plan does not have the endpoint at all."""

    history_starts: date | None = None
    proven_from: date | None = None
    refused_session: date | None = None
    is_refused: bool = False
    learnt_at_utc: datetime | None = None

    @property
    def is_bound(self) -> bool:
        return bool(self.history_starts or self.refused_session or self.is_refused)

    def is_fresh(self, now_utc: datetime) -> bool:
        believed_for = REFUSED_FOR if self.is_refused else BELIEVED_FOR
        return self.learnt_at_utc is not None and now_utc - self.learnt_at_utc < believed_for

    def refuses(self, session_date: date) -> bool:
        too_early = self.history_starts is not None and session_date < self.history_starts
        return self.is_refused or too_early or session_date == self.refused_session

    def mask_history(self, sessions: Sequence[date]) -> SessionMask:
        """Return the ones of `sessions` before the plan's history."""
        return (
            mask_between(sessions, date.min, self.history_starts - timedelta(days=1))
            if self.history_starts
            else EMPTY
        )

    def mask(self, sessions: Sequence[date]) -> SessionMask:
        """Return the ones of `sessions` beyond the plan."""
        if self.is_refused:
            return first_sessions(len(sessions))
        beyond = self.mask_history(sessions)
        if self.refused_session:
            beyond |= mask_between(sessions, self.refused_session, self.refused_session)
        return beyond


@dataclass(frozen=True)
class KnownLimits:
    """What is known of all endpoints, and tickers of each timeframe beyond the plan."""

    of_endpoint: Mapping[str, PlanLimits] = field(default_factory=dict)
    refused_tickers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, endpoint: str) -> PlanLimits:
        return self.of_endpoint.get(endpoint, PlanLimits())

    def refused_of(self, timeframe: str) -> frozenset[str]:
        return self.refused_tickers.get(timeframe, frozenset())

    def with_limits(self, endpoint: str, limits: PlanLimits) -> "KnownLimits":
        return replace(self, of_endpoint={**self.of_endpoint, endpoint: limits})

    def with_refused_ticker(self, timeframe: str, ticker: str) -> "KnownLimits":
        tickers = self.refused_of(timeframe) | {ticker}
        return replace(self, refused_tickers={**self.refused_tickers, timeframe: tickers})


def load_limits(connection: sqlite3.Connection) -> KnownLimits:
    """Return what was learnt before; nothing where nothing was."""
    rows = connection.execute(
        "SELECT endpoint, history_starts, proven_from, refused_session, is_refused, learnt_at_utc "
        "FROM _vendor_limits"
    )
    of_endpoint = {}

    for endpoint, *days, is_refused, learnt in rows:
        history_starts, proven, refused = (date.fromisoformat(day) if day else None for day in days)
        moment = datetime.fromisoformat(learnt)
        of_endpoint[endpoint] = PlanLimits(
            history_starts=history_starts,
            proven_from=proven,
            refused_session=refused,
            is_refused=bool(is_refused),
            learnt_at_utc=moment,
        )

    refused_tickers: dict[str, frozenset[str]] = {}
    for ticker, timeframe in connection.execute("SELECT ticker, timeframe FROM _tickers_refused"):
        refused_tickers[timeframe] = refused_tickers.get(timeframe, frozenset()) | {ticker}
    return KnownLimits(of_endpoint, refused_tickers)


def save_limits(
    connection: sqlite3.Connection, endpoint: str, limits: PlanLimits, now_utc: datetime
) -> PlanLimits:
    """Keep what was learnt now of an endpoint; the caller's transaction, if there is one."""
    days = [
        day.isoformat() if day else None
        for day in (limits.history_starts, limits.proven_from, limits.refused_session)
    ]

    connection.execute(
        "INSERT OR REPLACE INTO _vendor_limits (endpoint, history_starts, proven_from,"
        " refused_session, is_refused, learnt_at_utc) VALUES (?, ?, ?, ?, ?, ?)",
        (endpoint, *days, limits.is_refused, now_utc.isoformat(timespec="seconds")),
    )
    return replace(limits, learnt_at_utc=now_utc)


def save_learnt(
    connection: sqlite3.Connection, before: KnownLimits, now: KnownLimits, now_utc: datetime
) -> None:
    """Keep what a run learnt since `before`."""
    for endpoint, limits in now.of_endpoint.items():
        if limits != before.of(endpoint):
            save_limits(connection, endpoint, limits, now_utc)

    for timeframe, tickers in now.refused_tickers.items():
        connection.executemany(
            "INSERT OR REPLACE INTO _tickers_refused (ticker, timeframe, refused_at_utc)"
            " VALUES (?, ?, ?)",
            [
                (ticker, timeframe, now_utc.isoformat(timespec="seconds"))
                for ticker in sorted(tickers - before.refused_of(timeframe))
            ],
        )


def recheck_limits(
    connection: sqlite3.Connection,
    client: MarketData,
    calendar: ExchangeCalendar,
    now_utc: datetime,
    tickers: Sequence[str],
    timeframe: str,
    needs_day_before: Callable[[date], bool],
) -> KnownLimits:
    """Return what is believed of the plan when a run begins, with one request at most for each
    endpoint, for one of `tickers`. `needs_day_before`: whether the run would ask for a day before
    the given one."""
    # After a day what was refused as a whole is tried again.
    yesterday = (now_utc - REFUSED_FOR).isoformat(timespec="seconds")
    connection.execute("DELETE FROM _tickers_refused WHERE refused_at_utc < ?", (yesterday,))
    known = load_limits(connection)

    for endpoint in (timeframe, GROUPED) if timeframe == "1day" else (timeframe,):
        limits = known.of(endpoint)
        # After an hour the newest session may be there, and the plan may reach back further.
        if limits.is_fresh(now_utc) or not limits.is_bound:
            continue

        unbound = PlanLimits(proven_from=limits.proven_from)
        # Saved first: whether the run needs an earlier day is asked of a plan without the limit.
        save_limits(connection, endpoint, unbound, now_utc)

        starts = limits.history_starts
        if starts:
            witness = choose_witness(connection, tickers, known.refused_of(timeframe))
            reaches_further = (
                needs_day_before(starts)
                and ask_whether_refused(
                    client, endpoint, witness, sessions_back(calendar, starts, 1)
                )
                is False
            )
            unbound = unbound if reaches_further else replace(unbound, history_starts=starts)

        known = known.with_limits(endpoint, save_limits(connection, endpoint, unbound, now_utc))

    return known


def choose_witness(
    connection: sqlite3.Connection, tickers: Sequence[str], refused: Collection[str]
) -> str:
    """Return a ticker with bars at the vendor, if known; else the first that it did not refuse."""
    entitled = [ticker for ticker in tickers if ticker not in refused] or list(tickers)
    rows = connection.execute("SELECT DISTINCT ticker FROM _ranges_asked WHERE bars > 0")
    with_bars = {ticker for (ticker,) in rows}
    return next((ticker for ticker in entitled if ticker in with_bars), entitled[0])


def ask_whether_refused(
    client: MarketData, endpoint: str, ticker: str, session_date: date
) -> bool | None:
    """Return whether one session is refused; `ticker` where the endpoint has one. None when the
    vendor does not say, because of a fault."""
    try:
        if endpoint == GROUPED:
            client.fetch_grouped(session_date)
        else:
            client.fetch_bars(ticker, endpoint, session_date, session_date)
    except NotInPlanError:
        return True
    except MarketDataError:
        return None
    return False


def probe_history(
    connection: sqlite3.Connection,
    client: MarketData,
    calendar: ExchangeCalendar,
    now_utc: datetime,
    sessions: Sequence[date],
    ticker: str,
    *,
    by_session: bool,
) -> date | None:
    """Ask, before a long job, for its oldest session, of the whole market (`by_session`) or of
    `ticker`. Return the first session that the plan has, where that is a later one; it is
    remembered."""
    endpoint = GROUPED if by_session else "1day"
    known = load_limits(connection).of(endpoint)
    if known.history_starts or known.is_refused:
        return known.history_starts

    refused = ask_whether_refused(client, endpoint, ticker, sessions[0])
    if refused is False:
        save_limits(connection, endpoint, replace(known, proven_from=sessions[0]), now_utc)
    if not refused:
        return None

    # The plan cuts a range at its beginning; the session before that has to be refused, too.
    try:
        rows = client.fetch_bars(ticker, "1day", sessions[0], sessions[-2]).rows
    except MarketDataError:
        return None

    if not rows:
        return None

    starts = date_of(rows[0]["t"])
    before = sessions_back(calendar, starts, 1)
    if ask_whether_refused(client, endpoint, ticker, before) is not True:
        return None

    for each in {endpoint, "1day"}:
        limits = load_limits(connection).of(each)
        save_limits(connection, each, replace(limits, history_starts=starts), now_utc)

    return starts


class Refused(Enum):
    """What a refusal turned out to concern."""

    HISTORY = "all sessions before one"
    NEWEST = "the newest session, for now"
    SUBJECT = "the ticker, or the endpoint for the whole market"
    NOTHING = "a passing fault: an older session is answered"
    EVERYTHING = "whatever is asked with this key"


def judge_refusal(
    refused: date,
    sessions: Sequence[date],
    answered_from: date | None,
    is_refused: Callable[[date], bool | None],
    is_other_refused: Callable[[date], bool | None],
) -> tuple[Refused, date | None]:
    """Given a refused session among `sessions` (the calendar, one older session at least, up to the
    newest that was asked for), say what it concerns; for HISTORY with the first session that is
    answered.

    `answered_from`: the earliest later session that this run was answered about. `is_refused` asks
    the same about another session, `is_other_refused` asks about another ticker, or for a ticker in
    the place of the whole market. Two or three requests; a search where many are on their way at
    once.
    """
    place = sessions.index(refused)
    if is_refused(sessions[place - 1]) is not True:
        return (Refused.NEWEST if refused == sessions[-1] else Refused.NOTHING), None

    answered = sessions.index(answered_from) if answered_from and answered_from > refused else None
    if answered is None:
        # The free plan refuses today, so the one before has its say too.
        for candidate in (len(sessions) - 1, len(sessions) - 2):
            if candidate > place and is_refused(sessions[candidate]) is False:
                answered = candidate
                break

    if answered is None:
        other = is_other_refused(refused)
        return (Refused.SUBJECT if other is False else Refused.EVERYTHING), None

    while answered - place > 1:
        middle = (place + answered) // 2
        if is_refused(sessions[middle]) is False:
            answered = middle
        else:
            place = middle

    return Refused.HISTORY, sessions[answered]


def find_silent_cut(
    connection: sqlite3.Connection,
    client: MarketData,
    calendar: ExchangeCalendar,
    now_utc: datetime,
    tickers: Sequence[str],
    timeframe: str,
) -> None:
    """Find out, when no ticker's answer begins where it was asked for, whether the plan cut it: one
    request about the session before the first bar tells, and one about the session before that
    agrees. If so, the records say what was really answered."""
    limits = load_limits(connection).of(timeframe)
    asked_from, first, ticker = find_late_beginning(connection, tickers, timeframe)
    if not first or not asked_from or (limits.proven_from and limits.proven_from <= asked_from):
        return
    if limits.history_starts and first <= limits.history_starts:
        return

    # Sessions, not days: a plan that begins on a weekend refuses the Friday and answers the Sunday
    # with nothing.
    before = sessions_back(calendar, first, 1)
    refused = ask_whether_refused(client, timeframe, ticker, before)
    if refused is None:
        return

    if not refused:
        save_limits(connection, timeframe, replace(limits, proven_from=asked_from), now_utc)
        return

    one_more = sessions_back(calendar, before, 1)
    if ask_whether_refused(client, timeframe, ticker, one_more) is not True:
        return

    with transaction(connection):
        for member in tickers:
            connection.execute(
                "UPDATE OR REPLACE _ranges_asked SET start_date = :first WHERE ticker = :ticker"
                " AND timeframe = :timeframe AND start_date < :first AND end_date >= :first"
                " AND coalesce(first_date, :first) >= :first",
                {"first": first.isoformat(), "ticker": member, "timeframe": timeframe},
            )
        save_limits(connection, timeframe, replace(limits, history_starts=first), now_utc)


def find_late_beginning(
    connection: sqlite3.Connection, tickers: Sequence[str], timeframe: str
) -> tuple[date | None, date | None, str]:
    """Return since when `tickers` were asked for one by one, and the first bar of any of them, with
    its ticker, when that came later."""
    query = (
        "SELECT ticker, min(start_date), min(first_date) FROM _ranges_asked "
        "WHERE timeframe = ? GROUP BY ticker"
    )
    members = set(tickers)
    rows = [row for row in connection.execute(query, (timeframe,)) if row[0] in members]
    began = [(first, ticker) for ticker, _, first in rows if first]
    if not began:
        return None, None, ""

    asked_from, (first, ticker) = min(start for _, start, _ in rows), min(began)
    if first <= asked_from:
        return None, None, ""
    return date.fromisoformat(asked_from), date.fromisoformat(first), ticker
