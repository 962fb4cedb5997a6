"""The list of tickers and the page of one ticker as values for their templates."""

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from backtestdb.market.session_mask import SessionMask
from backtestdb.page.charts import make_day_candles, make_minute_candles, make_session_bars
from backtestdb.page.heat_map import ticker_path, title_of
from backtestdb.page.picture import Picture
from backtestdb.page.states import States
from backtestdb.page.ticker import TickerData
from backtestdb.page.tickers import choose_listed, load_listed, load_rows
from backtestdb.timeframes import LABELS

ROWS_A_PAGE = 100
RUNS_SHOWN = 20


@dataclass(frozen=True)
class Search:
    """What was asked of the list. `order`: ticker or holes; `number`: of the page, from 1 on."""

    words: str = ""
    universe: str = ""
    order: str = "ticker"
    number: int = 1

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> "Search":
        """Given the query of an address, whatever is typed into it."""
        number = arguments.get("page") or "1"
        return cls(
            (arguments.get("q") or "")[:100],
            arguments.get("universe") or "",
            "holes" if arguments.get("order") == "holes" else "ticker",
            max(int(number), 1) if number.isdecimal() and len(number) < 7 else 1,
        )

    def path(self, **changes: object) -> str:
        values = {
            "q": self.words,
            "universe": self.universe,
            "order": self.order if self.order != "ticker" else "",
            "page": self.number if self.number > 1 else "",
            **changes,
        }
        query = urlencode({name: value for name, value in values.items() if value})
        return f"/tickers?{query}" if query else "/tickers"


def load_ticker_list(
    connection: sqlite3.Connection, search: Search, picture: Picture
) -> dict[str, Any]:
    """Return a page of the tickers that fit the search."""
    listed = load_listed(connection)
    holes = {ticker: picture.holes_of(ticker) for ticker in picture.tickers_with_holes()}
    totals = {ticker: sum(counts.values()) for ticker, counts in holes.items()}

    chosen = choose_listed(listed, search.words, search.universe, totals, search.order)
    pages = max(math.ceil(len(chosen) / ROWS_A_PAGE), 1)
    number = min(search.number, pages)
    shown = chosen[(number - 1) * ROWS_A_PAGE : number * ROWS_A_PAGE]

    return {
        "search": search,
        "universes": sorted({name for each in listed.values() for name in each.universes}),
        "total": len(chosen),
        "rows": [
            (row, ticker_path(row.listed.ticker), sum(row.holes.values()))
            for row in load_rows(connection, shown, holes)
        ],
        "number": number,
        "pages": pages,
        "before": search.path(page=number - 1) if number > 1 else "",
        "after": search.path(page=number + 1) if number < pages else "",
        "by_ticker": search.path(order="", page=""),
        "by_holes": search.path(order="holes", page=""),
    }


def make_ticker_page(ticker: str, data: TickerData, picture: Picture) -> dict[str, Any] | None:
    """Return all that is shown of a ticker; None for one that no universe has, and of which nothing
    is stored."""
    member_of = [states for states in picture.states if ticker in states.stored]
    if not (member_of or data.daily.count or data.minutes.count):
        return None

    session = data.session
    return {
        "ticker": ticker,
        "data": data,
        "path": ticker_path(ticker),
        "days": make_day_candles(data.days, data.sessions, data.splits) if data.days else None,
        "session": session,
        "minutes": make_minute_candles(session) if session and session.bars else None,
        "counted": make_session_bars(data.counted) if data.counted else None,
        "states": [describe_states(states, ticker) for states in member_of],
    }


def describe_states(states: States, ticker: str) -> dict[str, Any]:
    """Return of one universe and timeframe how many sessions of a ticker are stored, and which are
    not, as ranges, the newest first."""
    every = (1 << len(states.sessions)) - 1
    stored = states.stored[ticker]
    failed, beyond = states.failed.get(ticker, 0), states.beyond.get(ticker, 0)
    empty = every & ~stored & ~failed & ~beyond

    unanswered = "not answered yet" if states.is_judged else "without a bar"

    return {
        "title": title_of(states.universe, states.timeframe),
        "label": LABELS[states.timeframe],
        "stored": stored.bit_count(),
        "expected": len(states.sessions),
        "parts": [
            (name, kind, mask.bit_count(), *list_runs(states, SessionMask(mask)))
            for name, kind, mask in (
                (unanswered, "no", failed),
                ("known to be empty", "quiet", empty),
                ("beyond the plan", "quiet", beyond),
            )
            if mask
        ],
    }


def list_runs(states: States, mask: SessionMask) -> tuple[list[str], int]:
    """Return the newest runs of sessions as text, and how many older ones are left out."""
    runs = [
        f"{states.sessions[first]}"
        if first == last
        else f"{states.sessions[first]} to {states.sessions[last]}"
        for first, last in mask.runs()
    ]
    return list(reversed(runs))[:RUNS_SHOWN], max(len(runs) - RUNS_SHOWN, 0)
