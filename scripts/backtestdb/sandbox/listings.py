"""Who is listed: the tech sector, real prices, traps, and as many others as asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from backtestdb.market.ticker_files import parse_ticker_file
from backtestdb.market.universes import TECH_SECTOR_FILE
from backtestdb.sandbox.made_up import Profiles
from backtestdb.sandbox.noise import make_key, uniform
from backtestdb.sandbox.sessions import Ints, load_sessions
from backtestdb.sandbox.source import REAL_TICKERS

# Live tickers that spreadsheets, CSV readers and upper() break; NEWCO has a history of a few months
# only.
TRAPS = ("NA", "TRUE", "BRK.B", "KIMpL", "MOG.A", "NEWCO")
LISTED_ON = {
    "FB": date(2012, 5, 18),
    "GOOG": date(2004, 8, 19),
    "META": date(2022, 6, 9),
    "SNOW": date(2020, 9, 16),
    "NEWCO": date(2026, 6, 15),
}
DELISTED_ON = {"ANSS": date(2025, 7, 17), "PARA": date(2025, 8, 7)}
# META was a fund until 2022-01-28; the company that has the ticker now took it on 2022-06-09.
OLD_META = ("META", date(2021, 6, 30), date(2022, 1, 31))
FIRST, NEVER = date(2000, 1, 1), date(9999, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One company under one ticker, listed from `first` until the day before `delisted`.

    `company` seeds its prices and identifiers. A thin company does not trade in every session nor
    in every minute. A company that is not in the reference list has bars all the same."""

    ticker: str
    company: str
    kind: str
    first: date = FIRST
    delisted: date = NEVER
    thin: bool = False
    in_reference: bool = True

    def is_listed(self, day: date) -> bool:
        """Return whether the ticker belongs to this company on a day."""
        return self.first <= day < self.delisted


@dataclass(frozen=True)
class Rename:
    """The company called `ticker` is called `successor` from `day` on."""

    ticker: str
    successor: str
    day: date


# Paramount Global is Paramount Skydance since the day its ticker went.
RENAMES = (Rename("PARA", "PSKY", date(2025, 8, 7)),)


@dataclass(frozen=True, kw_only=True)
class Universe:
    """All listings, and beside them the same facts as arrays in the same order."""

    listings: list[Listing]
    by_ticker: dict[str, list[int]]
    profiles: Profiles
    first: Ints
    stop: Ints
    thin: Ints


def make_listings(count: int) -> list[Listing]:
    """Return at least `count` stocks, then a tenth as many funds, then a quarter as many that the
    reference list lacks.

    The stock number n is the same company whatever the count."""
    named = list(dict.fromkeys([*parse_ticker_file(TECH_SECTOR_FILE), *REAL_TICKERS, *TRAPS]))
    listings = [make_named_listing(ticker) for ticker in named]
    ticker, first, delisted = OLD_META
    fund = Listing(
        ticker=ticker, company=f"{ticker} the fund", kind="ETF", first=first, delisted=delisted
    )
    listings.append(fund)

    listings += [make_numbered_stock(number) for number in range(max(0, count - len(named)))]
    listings += [
        Listing(ticker=f"X{letters(n)}", company=f"X{letters(n)}", kind="ETF")
        for n in range(count // 10)
    ]
    warrants = (f"Q{letters(n)}.WS" for n in range(count // 4))

    return listings + [
        Listing(ticker=t, company=t, kind="WARRANT", thin=True, in_reference=False)
        for t in warrants
    ]


def make_named_listing(ticker: str) -> Listing:
    """Return a listing that people know, or a trap."""
    return Listing(
        ticker=ticker,
        company=ticker,
        kind="PFD" if ticker == "KIMpL" else "CS",
        first=LISTED_ON.get(ticker, FIRST),
        delisted=DELISTED_ON.get(ticker, NEVER),
        thin=ticker == "KIMpL",
    )


def make_numbered_stock(number: int) -> Listing:
    """Return a made-up stock: one in 20 is listed late, one delisted, some are no common stock."""
    ticker = f"Z{letters(number)}"
    lot, day, kind = (
        int(make_key(f"{ticker} {what}") % 10_000) for what in ("life", "day", "kind")
    )
    turn = date.fromordinal(date(2021, 1, 4).toordinal() + day % 2100)

    return Listing(
        ticker=ticker,
        company=ticker,
        kind="PFD" if kind < 400 else "ADRC" if kind < 1000 else "CS",
        first=turn if lot < 500 else FIRST,
        delisted=turn if 500 <= lot < 1000 else NEVER,
        thin=kind < 1500,
    )


def letters(number: int) -> str:
    """Return three capital letters for a number below 17,576."""
    return "".join(chr(ord("A") + number // power % 26) for power in (676, 26, 1))


def rename_listings(listings: Iterable[Listing], renames: Iterable[Rename]) -> list[Listing]:
    """Return the listings with one that ends and one that begins for each rename."""
    changed = list(listings)

    for rename in renames:
        for place, each in enumerate(changed):
            if each.ticker == rename.ticker and each.is_listed(rename.day):
                changed[place] = replace(each, delisted=rename.day)
                changed.append(
                    replace(each, ticker=rename.successor, first=rename.day, delisted=NEVER)
                )
                break
    return changed


def make_universe(listings: Sequence[Listing]) -> Universe:
    """Return the listings with everything that their prices are made from."""
    listings = list(listings)
    sessions = load_sessions().dates
    by_ticker: dict[str, list[int]] = {}
    for index, listing in enumerate(listings):
        by_ticker.setdefault(listing.ticker, []).append(index)

    thin = np.array([listing.thin for listing in listings], dtype=np.int64)
    return Universe(
        listings=listings,
        by_ticker=by_ticker,
        profiles=make_profiles(listings, thin),
        first=np.searchsorted(sessions, np.array([each.first for each in listings], "M8[D]")),
        stop=np.searchsorted(sessions, np.array([each.delisted for each in listings], "M8[D]")),
        thin=thin,
    )


def make_profiles(listings: list[Listing], thin: Ints) -> Profiles:
    """Return prices of 6 to 400 dollars, steps of 1 to 3 % a day, some 100,000 to 30 million shares
    (thin: few)."""
    keys = np.array([make_key(listing.company) for listing in listings], dtype=np.uint64)
    level, step, crowd = (
        uniform(keys, np.zeros(1, dtype=np.int64), stream) for stream in (20, 21, 22)
    )

    return Profiles(
        keys=keys,
        log_price=np.log(6.0) + level * np.log(400 / 6),
        volatility=0.006 + 0.012 * step,
        log_volume=np.where(thin, np.log(3_000.0) + crowd, np.log(100_000.0) + crowd * np.log(300)),
    )
