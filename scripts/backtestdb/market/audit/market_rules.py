"""What shows only at the end: sessions that lack most tickers, holes in a ticker's life."""

from collections.abc import Iterable

import numpy as np

from backtestdb.market.audit.columns import CODE, Ints
from backtestdb.market.audit.rule import WHOLE_MARKET, Batch, Hits, Market, Rule

# A ticker that trades in 99 of 100 sessions, over at least 100, does not miss one for want of a
# buyer.
LIFE_TO_JUDGE, MISSED_AT_MOST = 100, 0.01
# After its last bar a ticker is expected for five sessions more, as far as the vendor was asked. A
# longer hole than twenty is no hole: the years between were not asked for, or another company has
# the ticker.
EXPECTED_AFTER, HOLE_AT_MOST = 5, 20
# A session with less than seven in ten of what the sessions around it have. Below 20 tickers chance
# decides.
THIN, BESIDE, TICKERS_TO_JUDGE = 0.7, 5, 20


def add_batch(market: Market, batch: Batch) -> None:
    """Count the sessions of a batch's day bars into the market, and remember the holes in them."""
    market.tickers += batch.tickers
    keys = np.unique(batch.days.key)
    codes, places = np.divmod(keys, np.int64(CODE))

    # Bars on days without a session are named by another rule.
    places = batch.known.place_of(places)
    codes, places = codes[places >= 0], places[places >= 0]
    np.add.at(market.traded, places, 1)

    edges = np.searchsorted(codes, np.arange(len(batch.tickers) + 1)).tolist()
    for ticker, first, stop in zip(batch.tickers, edges[:-1], edges[1:], strict=True):
        if first < stop:
            add_ticker(market, ticker, places[first:stop])


def add_ticker(market: Market, ticker: str, places: Ints) -> None:
    """Count a ticker's day bars into the market; `places`: its sessions, in order."""
    holes = np.flatnonzero(np.diff(places) > HOLE_AT_MOST) + 1
    for life in np.split(places, holes):
        begin, end = int(life[0]), int(life[-1])
        missed = np.setdiff1d(np.arange(begin, end), life)
        market.alive[begin : end + 1] += 1
        sessions = end - begin + 1
        if sessions >= LIFE_TO_JUDGE and 0 < len(missed) <= MISSED_AT_MOST * sessions:
            market.gaps.append((ticker, missed))

    last = int(places[-1])
    expected_until = min(last + EXPECTED_AFTER, market.answered_until(ticker))
    market.alive[last + 1 : expected_until + 1] += 1


def find_thin_sessions(market: Market) -> Iterable[Hits]:
    places = thin_places(market)
    yield Hits(
        "1day",
        [WHOLE_MARKET] * len(places),
        market.known.session_days[places],
        lambda i: (
            f"{market.traded[places[i]]:,} of about {market.alive[places[i]]:,} tickers have a bar"
        ),
    )


def thin_places(market: Market) -> Ints:
    closed = np.isin(market.known.session_days, market.known.closed)
    judged = np.flatnonzero((market.alive >= TICKERS_TO_JUDGE) & ~closed)
    share = market.traded / np.maximum(market.alive, 1)
    thin = []
    for place in judged.tolist():
        beside = judged[(np.abs(judged - place) <= BESIDE) & (judged != place)]
        if len(beside) and share[place] < THIN * np.median(share[beside]):
            thin.append(place)
    return np.array(thin, dtype="int64")


def find_gaps(market: Market) -> Iterable[Hits]:
    """Yield sessions without a bar within a ticker's life."""
    # Without those that hardly any ticker has, which are named once, and those that did not take
    # place.
    named = np.append(thin_places(market), market.known.place_of(market.known.closed))
    for ticker, missed in market.gaps:
        places = np.setdiff1d(missed, named)
        yield Hits(
            "1day",
            [ticker] * len(places),
            market.known.session_days[places],
            lambda _: "no bar, of a ticker that trades in 99 of 100 sessions",
        )


RULES = (
    Rule(
        id="thin-session",
        level="error",
        checks="a session has bars of less than 70 % of the tickers that the five sessions on "
        "both sides have",
        source="an answer of the whole market that was cut, or came before the session was over",
        mend="refetch",
        in_market=find_thin_sessions,
    ),
    Rule(
        id="gap-in-life",
        level="warning",
        checks="a ticker with bars in 99 of 100 sessions lacks one between its first and its last",
        source="such a ticker trades every day; a halt is the exception, to be accepted",
        mend="refetch",
        in_market=find_gaps,
    ),
)
