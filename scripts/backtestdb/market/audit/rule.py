"""What a rule of the audit is, what it is asked about, and what it answers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np

from backtestdb.market.audit.columns import Bars, Flags, Floats, Ints, Metrics

Level = Literal["error", "warning"]
# How a finding is mended: see commands.py.
Mend = Literal["refetch", "fix-times", "compute", "update-list", "keep-or-drop"]
WHOLE_MARKET = (
    "market"  # stands where a finding has no ticker: no ticker is written in small letters alone
)
NO_DAY = 0


@dataclass(frozen=True)
class Hits:
    """The places at which a rule is broken. For each the ticker (or universe, or WHOLE_MARKET) and
    the session in days since 1970, NO_DAY where it is not about one; `describe(i)` puts the i-th in
    words."""

    timeframe: str
    tickers: Sequence[str]
    days: Ints
    describe: Callable[[int], str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that one ticker breaks, in `sessions` sessions from the first to the last; `what` is
    about the first. `next_step`: the command that mends it."""

    rule: str
    level: Level
    ticker: str
    timeframe: str
    first_session: str
    last_session: str
    sessions: int
    what: str
    next_step: str = ""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What every rule may look up. Days are days since 1970.

    `session_days`: every session of the exchange in order, `full_bars` how many regular 5-minute
    bars it has, `close_minute` when it closes in minutes of the New York day. `splits`: for each
    ticker the execution days and ratios (how many shares one share became) that the vendor lists.
    `today`: the New York date. `closed`: sessions of the calendar on which nothing traded.
    `companies`: ticker and date of the first bar of another company that took the ticker over.
    `watchlist`: the tickers that tech_sector should have.
    """

    session_days: Ints
    full_bars: Ints
    close_minute: Ints
    splits: Mapping[str, Sequence[tuple[int, float]]]
    today: int
    closed: Ints = field(default_factory=lambda: np.zeros(0, dtype="int64"))
    companies: Collection[tuple[str, str]] = ()
    watchlist: Sequence[str] = ()

    def place_of(self, days: Ints) -> Ints:
        """Return the place of each day among the sessions; -1 for a day without one."""
        places = np.searchsorted(self.session_days, days)
        inside = np.minimum(places, len(self.session_days) - 1)
        return np.where(self.session_days[inside] == days, inside, -1)


@dataclass(frozen=True, kw_only=True)
class RangeRecord:
    """An answer about a range of one ticker: how many bars came with it. Days since 1970."""

    ticker: str
    timeframe: str
    first: int
    last: int
    bars: int
    asked_at_utc: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything stored of some tickers."""

    known: Known
    tickers: Sequence[str]
    days: Bars
    minutes: Bars
    metrics: Metrics
    records: Sequence[RangeRecord]


@dataclass(frozen=True)
class Universe:
    """`said`: its row's total_stocks; `active`: members; `updated_on`: when its list was saved."""

    name: str
    said: int | None
    active: frozenset[str]
    updated_on: date | None


@dataclass(kw_only=True)
class Market:
    """What is known of the whole market once every batch was read.

    By place of the session: `traded` tickers have a day bar, of `alive` tickers one is expected.
    `gaps`: ticker, places of sessions without a bar. `asked_until`: by ticker the place of the last
    session that it was asked for. `answered`: day and stored bars of each answer about the whole
    market. `known_tickers`: those that a universe or a record names; None when every ticker was
    asked for. `orphan_members`: universe that is not there, rows.
    """

    known: Known
    traded: Ints
    alive: Ints
    tickers: list[str] = field(default_factory=list)
    gaps: list[tuple[str, Ints]] = field(default_factory=list)
    asked_until: Mapping[str, int] = field(default_factory=dict)
    everyone_asked_until: int = -1
    answered: Sequence[tuple[int, int]] = ()
    universes: Sequence[Universe] = ()
    known_tickers: frozenset[str] | None = None
    orphan_members: Sequence[tuple[int, int]] = ()

    def answered_until(self, ticker: str) -> int:
        return max(self.everyone_asked_until, self.asked_until.get(ticker, -1))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`checks` ends the sentence "It is wrong when …"; `source`: where that is written. Either
    `in_batch` looks at the tickers of a batch, or `in_market` at what is known when all were
    read."""

    id: str
    level: Level
    checks: str
    source: str
    mend: Mend
    in_batch: Callable[[Batch], Iterable[Hits]] | None = None
    in_market: Callable[[Market], Iterable[Hits]] | None = None


def hits_at(bars: Bars, places: Ints, describe: Callable[[int], str]) -> Hits:
    """Return hits at some places of `bars`; `describe` takes a place."""
    tickers = [bars.tickers[code] for code in bars.code[places].tolist()]
    return Hits(bars.timeframe, tickers, bars.day[places], lambda i: describe(int(places[i])))


def flagged(bars: Bars, broken: Flags, describe: Callable[[Bars, int], str]) -> Iterable[Hits]:
    """Return hits where `broken` is true; `describe` takes the bars and a place."""
    return [hits_at(bars, np.flatnonzero(broken), lambda place: describe(bars, place))]


def price_text(value: float) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def logs(values: Floats) -> Floats:
    """Return logarithms, NaN where there is none: an impossible price is the business of its own
    rule."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(values)
    found[~np.isfinite(found)] = np.nan
    return found
