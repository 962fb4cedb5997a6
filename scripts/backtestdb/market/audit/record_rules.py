"""The records of the vendor's answers, and the lists of tickers, against what is stored."""

from collections.abc import Iterable, Sequence

import numpy as np

from backtestdb.market.audit.columns import CODE, EPOCH
from backtestdb.market.audit.rule import (
    NO_DAY,
    WHOLE_MARKET,
    Batch,
    Hits,
    Market,
    RangeRecord,
    Rule,
    Universe,
)

# Answers of a session are corrected later; a hundredth of its bars may go by that.
CORRECTED = 0.01
# The vendor's list changes daily; Russell reconstitutes its indexes twice a year since 2026.
OLD_AFTER_DAYS = {"us-stocks": 35, "russell2000": 200}


def find_lost_range_bars(batch: Batch) -> Iterable[Hits]:
    """Yield answers that lost bars."""
    bars_of = {bars.timeframe: bars for bars in (batch.days, batch.minutes)}

    # A record that a later one overlaps says nothing any more.
    for record in latest_records(batch.records):
        bars = bars_of.get(record.timeframe)
        if bars is None or record.ticker not in bars.tickers:
            continue

        start = bars.tickers.index(record.ticker) * CODE
        edges = np.searchsorted(bars.key, [start + record.first, start + record.last + 1])
        stored = int(edges[1] - edges[0])

        if stored < record.bars:
            came = f"{record.bars:,} bars came in answer of {record.asked_at_utc}"
            text = f"{came}, {stored:,} are stored"
            yield Hits(
                record.timeframe,
                [record.ticker] * 2,
                np.array([record.first, record.last]),
                lambda _, text=text: text,  # type: ignore[misc]
            )


def latest_records(records: Sequence[RangeRecord]) -> list[RangeRecord]:
    """Return those that no record of a later answer overlaps."""
    latest: list[RangeRecord] = []
    for record in sorted(records, key=lambda record: record.asked_at_utc, reverse=True):
        covered = any(
            (later.ticker, later.timeframe) == (record.ticker, record.timeframe)
            and later.first <= record.last
            and record.first <= later.last
            for later in latest
        )
        if not covered:
            latest.append(record)

    return latest


def find_lost_session_bars(market: Market) -> Iterable[Hits]:
    known = market.known
    for day, stored in market.answered:
        place = int(known.place_of(np.array([day]))[0])
        there = int(market.traded[place]) if place >= 0 else 0
        if there < stored * (1 - CORRECTED) - 1:
            text = f"{stored:,} bars of the session were stored, {there:,} are there"
            yield Hits("1day", [WHOLE_MARKET], np.array([day]), lambda _, text=text: text)  # type: ignore[misc]


def find_wrong_lists(market: Market) -> Iterable[Hits]:
    for universe in market.universes:
        text = describe_list(universe, market.known.today, market.known.watchlist)
        if text:
            yield Hits("", [universe.name], np.array([NO_DAY]), lambda _, text=text: text)  # type: ignore[misc]


def describe_list(universe: Universe, today: int, watchlist: Sequence[str]) -> str:
    """Return what is wrong with a universe's list; empty when nothing is."""
    if universe.said != len(universe.active):
        return f"total_stocks says {universe.said}, {len(universe.active)} members are active"
    if universe.name == "tech_sector" and watchlist and universe.active != frozenset(watchlist):
        differing = sorted(universe.active ^ frozenset(watchlist))
        more = " …" if len(differing) > 5 else ""
        return f"differs from its list in {', '.join(differing[:5])}{more}"

    days = OLD_AFTER_DAYS.get(universe.name)
    age = today - (universe.updated_on.toordinal() - EPOCH) if universe.updated_on else 0
    return f"its list is {age} days old" if days and age > days else ""


def find_orphans(market: Market) -> Iterable[Hits]:
    """Yield rows that nothing refers to: no update reaches them."""
    known = market.known_tickers
    orphans = [] if known is None else [ticker for ticker in market.tickers if ticker not in known]
    yield Hits(
        "1day",
        orphans,
        np.zeros(len(orphans), dtype="int64"),
        lambda _: "market data of a ticker that is in no universe and was never asked for",
    )

    members = market.orphan_members
    yield Hits(
        "",
        [f"universe {number}" for number, _ in members],
        np.zeros(len(members), dtype="int64"),
        lambda i: f"{members[i][1]:,} members of a universe that is not there",
    )


RULES = (
    Rule(
        id="lost-bars",
        level="error",
        checks="fewer bars are stored than the vendor's answer is recorded to have brought",
        source="bars and record are one transaction; what is recorded is not asked for again",
        mend="refetch",
        in_batch=find_lost_range_bars,
        in_market=find_lost_session_bars,
    ),
    Rule(
        id="universe-list",
        level="warning",
        checks="a universe's total_stocks is not the number of its active members, tech_sector "
        "differs from its"
        " list, or the list of us-stocks is older than 35 days, that of russell2000 than 200",
        source="sql/schema/partially_recoverable/universe.sql; the lists change",
        mend="update-list",
        in_market=find_wrong_lists,
    ),
    Rule(
        id="orphan-rows",
        level="warning",
        checks="market data belongs to a ticker that is in no universe and was never asked for, or "
        "a member to a universe that is not there",
        source="no update reaches such rows",
        mend="keep-or-drop",
        in_market=find_orphans,
    ),
)
