"""Which command mends a finding."""

import shlex
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from backtestdb.database import table_names
from backtestdb.market.audit.rule import WHOLE_MARKET, Finding, Mend

TARGETS = {"1day": "backfill-daily", "5min": "backfill-intraday"}
DELETE_MEMBERS = "DELETE FROM universe_stocks WHERE universe_id NOT IN (SELECT id FROM universe)"
KEPT_UNIVERSE = "kept"


class Mender:
    """Knows which universe each ticker is in, because a backfill is told a universe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.universe_of = load_universe_of(connection)
        self.universes = load_universes_with_bars(connection, self.universe_of)
        self.database = connection.execute("PRAGMA database_list").fetchone()[2]

    def command(self, mend: Mend, findings: Sequence[Finding]) -> str:
        """Return a command for findings of one rule, timeframe and universe; else empty."""
        first = findings[0]
        if mend == "fix-times" and first.timeframe == "5min":
            return "make fix-time-of-day"
        if mend == "update-list":
            return make_list_command(first.ticker)
        if mend == "keep-or-drop":
            return self.make_orphan_command(findings)
        return self.make_refetch_command(findings)

    def make_refetch_command(self, findings: Sequence[Finding]) -> str:
        """Return the backfill that asks again for the sessions of these findings."""
        first = findings[0]
        tickers = [finding.ticker for finding in findings]
        whole_market = WHOLE_MARKET in tickers
        universes = self.universes if whole_market else [self.universe_of.get(first.ticker, "")]
        if not universes or not universes[0]:
            return make_universe_command(tickers)

        options = [f"--universe {shlex.quote(name)}" for name in universes]
        options.append("--again")
        if not whole_market:
            options.append(f"--tickers {shlex.quote(','.join(dict.fromkeys(tickers)))}")

        options.append(f"--start {min(finding.first_session for finding in findings)}")
        options.append(f"--end {max(finding.last_session for finding in findings)}")
        return f'make {TARGETS[first.timeframe]} ARGS="{" ".join(options)}"'

    def make_orphan_command(self, findings: Sequence[Finding]) -> str:
        if not findings[0].timeframe:
            return f'sqlite3 {shlex.quote(self.database)} "{DELETE_MEMBERS}"'
        return make_universe_command([finding.ticker for finding in findings])

    def group(self, findings: Iterable[Finding]) -> list[list[Finding]]:
        """Return findings of one rule, by timeframe and universe: those that one command mends."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in findings:
            universe = self.universe_of.get(
                finding.ticker, finding.ticker if not finding.timeframe else ""
            )
            groups.setdefault((finding.timeframe, universe), []).append(finding)
        return list(groups.values())


def load_universe_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return for each ticker the oldest universe of which it is an active member, else the oldest
    of which it was a member."""
    if not {"universe", "universe_stocks"} <= set(table_names(connection)):
        return {}
    rows = connection.execute(
        "SELECT ticker, universe.name FROM universe_stocks "
        "JOIN universe ON universe.id = universe_id ORDER BY is_active, universe.id DESC"
    )
    return dict(rows.fetchall())


def load_universes_with_bars(
    connection: sqlite3.Connection, universe_of: Mapping[str, str]
) -> list[str]:
    """Return the universes that together have every ticker with day bars, each in one of them."""
    has_bars = "SELECT 1 FROM ohlcv_data WHERE ticker = ? AND timeframe = '1day' LIMIT 1"
    tickers_of: dict[str, list[str]] = {}
    for ticker, universe in universe_of.items():
        tickers_of.setdefault(universe, []).append(ticker)

    return [
        universe
        for universe, tickers in sorted(tickers_of.items())
        if any(connection.execute(has_bars, (ticker,)).fetchone() for ticker in tickers)
    ]


def make_list_command(universe: str) -> str:
    source = "" if universe in {"tech_sector", "us-stocks"} else " --from-file FILE"
    return f'make create-universe ARGS="--universe {shlex.quote(universe)}{source}"'


def make_universe_command(tickers: Sequence[str]) -> str:
    """Return the command that puts tickers into a universe: else no backfill reaches them."""
    names = shlex.quote(",".join(dict.fromkeys(tickers)))
    return f'make create-universe ARGS="--universe {KEPT_UNIVERSE} --tickers {names}"'
