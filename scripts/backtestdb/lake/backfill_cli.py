"""`make backfill-lake` behind its arguments: the plan first, then the work, then what is there."""

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, date, datetime

from backtestdb.config import Settings
from backtestdb.console import (
    DONE,
    DONE_WITH_HOLES,
    format_bytes,
    format_duration,
    print_table,
    progress,
    say,
)
from backtestdb.database import connect
from backtestdb.errors import UsageError
from backtestdb.lake.api_bars import backfill_by_api, plan_ranges
from backtestdb.lake.backfill import backfill_from_flat_files, find_lacking
from backtestdb.lake.cli import open_store_to_write, progress_lines
from backtestdb.lake.coverage import LakeCoverage, count_coverage
from backtestdb.lake.flat_files import make_flat_files
from backtestdb.lake.owned import load_owned
from backtestdb.lake.staging import staging_folder
from backtestdb.lake.store import Store, make_store
from backtestdb.lake.summarise import save_summary
from backtestdb.lake.table import open_lake
from backtestdb.market.cli import choose_range
from backtestdb.market.client import BARS_LIMIT, MarketData
from backtestdb.market.report import name_some
from backtestdb.market.request_plan import duration_seconds
from backtestdb.market.sessions import MINUTES_PER_SESSION, load_calendar, sessions_between
from backtestdb.market.splits import Split, parse_splits
from backtestdb.market.universes import load_members

# A file of 8,101 tickers and 3.1 million minutes, made by the sandbox: 52 MB. The vendor's are of
# the same order.
BYTES_PER_FILE = 52_000_000
SESSIONS_PER_PAGE = BARS_LIMIT // MINUTES_PER_SESSION


def run_backfill(settings: Settings, arguments: argparse.Namespace, now_utc: datetime) -> int:
    """Given the arguments of `make backfill-lake`, return its exit code."""
    start, end = choose_range(arguments, now_utc)
    sessions = sessions_between(load_calendar(), start, end)
    if not sessions:
        raise UsageError(f"there is no session between {start} and {end}")

    universes = load_universes(settings, arguments.universe or [])
    if arguments.by_api and not universes:
        raise UsageError("whose bars? --by-api asks for each ticker: --universe NAME")

    if arguments.plan:
        return print_plan(
            settings, universes, sessions, by_api=arguments.by_api, as_json=arguments.json
        )

    store = open_store_to_write(settings)
    if arguments.by_api:
        holes = fill_by_api(settings, store, universes, sessions)
    else:
        holes = fill_from_flat_files(settings, store, sessions)
        owned = load_owned(open_lake(store, may_be_missing=True))
        if find_lacking(owned, sessions[-1:]) and str(sessions[-1]) not in holes:
            sessions = sessions[:-1]  # its file comes in the morning: no hole yet

    return report(settings, store, universes, sessions, holes, as_json=arguments.json)


def load_universes(settings: Settings, names: Sequence[str]) -> dict[str, list[str]]:
    if not names:
        return {}
    with closing(connect(settings.database_path, read_only=True)) as connection:
        return {name: load_members(connection, name) for name in dict.fromkeys(names)}


def print_plan(
    settings: Settings,
    universes: dict[str, list[str]],
    sessions: Sequence[date],
    *,
    by_api: bool,
    as_json: bool,
) -> int:
    """Print what the command would ask for; no request is sent."""
    owned = load_owned(open_lake(make_store(settings), may_be_missing=True))
    lacking = len(find_lacking(owned, sessions))

    if not by_api:
        facts: dict[str, object] = {"files": lacking, "bytes_about": lacking * BYTES_PER_FILE}
        text = (
            f"{lacking} flat files, about {format_bytes(lacking * BYTES_PER_FILE)}, and 1 "
            "request for splits"
        )
    else:
        tickers = [ticker for members in universes.values() for ticker in members]
        ranges = plan_ranges(owned, tickers, sessions)
        pages = sum(
            -(-len([day for day in sessions if each.start <= day <= each.end]) // SESSIONS_PER_PAGE)
            for each in ranges
        )
        seconds = duration_seconds(pages + 1, settings.requests_per_minute)
        facts = {"requests": pages + 1, "seconds_at_quota": seconds}
        text = (
            f"{pages + 1} requests for {len(ranges)} tickers, at the quota "
            f"{format_duration(seconds)}"
        )

    print(json.dumps(facts) if as_json else f"Plan (no request was sent): {text}")
    return DONE


def fetch_listed(client: MarketData, since: date) -> list[Split]:
    return parse_splits(client.fetch_splits(since).rows)


def find_first_session(store: Store, sessions: Sequence[date]) -> date:
    """Return the first session of the lake's 5-minute bars, or of the request if earlier."""
    parts = open_lake(store, may_be_missing=True).parts_of("bars_5min")
    return min([sessions[0], *(date.fromisoformat(part.first_session) for part in parts)])


def clock() -> datetime:
    return datetime.now(UTC)


def fill_from_flat_files(
    settings: Settings, store: Store, sessions: Sequence[date]
) -> dict[str, str]:
    """Return what is missing, with its reason."""
    files = make_flat_files(settings)
    listed = fetch_listed(MarketData(settings), find_first_session(store, sessions))
    folder = staging_folder(settings.state_dir, settings.lake)

    with progress_lines() as lines:
        done = backfill_from_flat_files(store, files, sessions, listed, folder, clock, lines)

    print(
        f"{settings.lake}: version {done.version}; {done.sessions} sessions, {done.received:,} "
        f"minutes, {done.stored:,} bars of five minutes{describe_splits(done.splits)}"
    )
    print_rejected(done.rejected)

    missing = {str(day): reason for day, reason in done.missing.items()}
    newest = str(sessions[-1])
    if newest in missing:
        say(f"{missing.pop(newest)} yet: the vendor adds it the morning after; ask again tomorrow")
    return missing


def fill_by_api(
    settings: Settings, store: Store, universes: dict[str, list[str]], sessions: Sequence[date]
) -> dict[str, str]:
    """Return what is missing, with its reason."""
    client = MarketData(settings)
    listed = fetch_listed(client, find_first_session(store, sessions))
    tickers = [ticker for members in universes.values() for ticker in members]
    ranges = plan_ranges(load_owned(open_lake(store, may_be_missing=True)), tickers, sessions)

    folder = staging_folder(settings.state_dir, settings.lake)
    with progress("5-minute bars into the lake", len(ranges)) as advance:
        done = backfill_by_api(
            store, client, settings.concurrency, ranges, listed, folder, clock, advance
        )

    print(
        f"{settings.lake}: version {done.version}; {done.requests} requests, "
        f"{done.stored:,} bars of five minutes{describe_splits(done.splits)}"
    )
    print_rejected(done.rejected)
    return done.failures


def describe_splits(splits: Sequence[Split]) -> str:
    names = [f"{split.ticker} {split.split_to:g}:{split.split_from:g}" for split in splits]
    return f"; adjusted for {name_some(names)}" if names else ""


def print_rejected(rejected: dict[str, int]) -> None:
    if rejected:
        counts = [f"{reason} ({count:,})" for reason, count in rejected.items()]
        print(f"rejected: {', '.join(counts)}")


def report(
    settings: Settings,
    store: Store,
    universes: dict[str, list[str]],
    sessions: Sequence[date],
    holes: dict[str, str],
    *,
    as_json: bool,
) -> int:
    """Print coverage and holes, and leave the coverage for `make status`. Return the exit code."""
    version = open_lake(store, may_be_missing=True)
    counted = [
        count_coverage(version, name, members, sessions)
        for name, members in universes.items()
        if sessions
    ]

    if version.number or counted:
        save_summary(settings, version, counted)

    if as_json:
        found = {"coverage": [asdict(each) for each in counted], "missing": holes}
        print(json.dumps(found, default=str))
    elif counted:
        print_coverage(counted)

    for what in list(holes)[:20]:
        print(f"MISSING {what}: {holes[what]}")
    if len(holes) > 20:
        print(f"MISSING too: {', '.join(list(holes)[20:])}")
    return DONE_WITH_HOLES if holes else DONE


def print_coverage(counted: Sequence[LakeCoverage]) -> None:
    """Print a row for each universe."""
    names = {"universe": "universe", "start_date": "from", "end_date": "to", "tickers": "tickers"}
    names |= {n: n.replace("_", " ") for n in ("expected", "stored", "known_empty")}
    names |= {"rejected": "rejected", "failed": "failed"}
    rows = [[getattr(each, name) for name in names] for each in counted]
    print_table("5-minute bars in the lake (sessions of tickers)", list(names.values()), rows)
