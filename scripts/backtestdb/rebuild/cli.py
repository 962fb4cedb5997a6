"""`restore_database.py` without --from-backup: from arguments to a plan to words."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from backtestdb.config import Settings
from backtestdb.console import DONE, DONE_WITH_HOLES
from backtestdb.errors import DeclinedError
from backtestdb.market.cli import choose_end, make_source
from backtestdb.market.report import print_reports
from backtestdb.market.sessions import years_before
from backtestdb.market.universes import RUSSELL2000, US_STOCKS, choose_tickers
from backtestdb.names import make_undo_command
from backtestdb.rebuild.rebuild import RebuildOptions, RebuildResult, rebuild
from backtestdb.rebuild.work_file import OtherTables, RebuildSpec

INTRADAY_DAYS = 30


def other_tables(settings: Settings, arguments: argparse.Namespace) -> OtherTables:
    if arguments.market_only:
        return "none"
    return "platform" if settings.platform_schema else "ours"


def make_market_plan(
    settings: Settings, arguments: argparse.Namespace, now_local: datetime
) -> RebuildSpec:
    """Return universe and dates."""
    if arguments.skip_backfill:
        return RebuildSpec()
    end = choose_end(arguments.end, now_local)

    # Which tickers us-stocks has the vendor tells once the user agreed to the plan.
    tickers: Sequence[str] = ()
    universe, years, intraday_start = US_STOCKS, 5, ""
    if arguments.russell2000:
        universe = RUSSELL2000
        tickers = choose_tickers(universe, [], arguments.russell2000, [])
    elif not arguments.full_us_stocks:
        universe, years = "tech_sector", 1
        tickers = choose_tickers(universe, [], None, settings.watchlist_tickers)
        intraday_start = (end - timedelta(days=INTRADAY_DAYS - 1)).isoformat()

    return RebuildSpec(
        universe=universe,
        tickers=tuple(tickers),
        daily_start=years_before(end, years).isoformat(),
        intraday_start=intraday_start,
        end=end.isoformat(),
    )


def run_rebuild(settings: Settings, arguments: argparse.Namespace, now_local: datetime) -> int:
    """Return the exit code. The key is asked for before anything else happens."""
    source = None if arguments.skip_backfill else make_source(settings)
    market = make_market_plan(settings, arguments, now_local)
    wanted = replace(market, other_tables=other_tables(settings, arguments))
    choices = RebuildOptions(
        end_was_given=arguments.end is not None,
        discard_irreplaceable=arguments.discard_irreplaceable,
        assume_yes=arguments.yes,
        carry_over_from=arguments.carry_over_from,
        accept_fewer=arguments.accept_fewer,
    )
    rebuilt = rebuild(settings, wanted, choices, source, now_local)
    if rebuilt is None:
        raise DeclinedError("nothing was changed: the restore was not confirmed")

    code = print_reports(rebuilt.reports) if rebuilt.reports else DONE
    print_outcome(settings, rebuilt)
    return DONE_WITH_HOLES if rebuilt.losses else code


def print_outcome(settings: Settings, rebuilt: RebuildResult) -> None:
    """Print what was carried over, where the old file is, how to undo, and what is missing."""
    if rebuilt.carried:
        rows = sum(rebuilt.carried.values())
        print(f"carried over: {rows:,} rows of {len(rebuilt.carried)} tables")

    print(f"database: {settings.database_path}")
    if rebuilt.kept_as:
        print(f"the old one is kept: {rebuilt.kept_as}")
        if rebuilt.kept_is_sound:
            print(f"undo with: {make_undo_command(rebuilt.kept_as)}")
        else:
            print("it is damaged, as the old database was; keep it until you have what you need")

    for line in rebuilt.losses:
        print(line)
    if any(report.has_holes for _, report in rebuilt.reports):
        print("there are holes: the same command fetches what is missing")
