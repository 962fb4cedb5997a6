"""Rebuild a database from scratch, step by step. The old one stays whole and usable until the new
one is proven.

plan -> work file -> universe -> daily bars -> 5-minute bars -> checks -> carry over and replace
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from backtestdb.backups.identity import identify_current, make_database_id, save_database_id
from backtestdb.backups.restore import lock_if_possible
from backtestdb.config import Settings
from backtestdb.console import confirm, format_bytes, format_duration, print_table, say
from backtestdb.database import connect, look_at_file
from backtestdb.errors import ProjectError
from backtestdb.files import exclusive_lock, fsync_file, remove_database, staging_path, verify_space
from backtestdb.free_name import NameTakenError, choose_kept_name, take_free_name
from backtestdb.market.backfill import backfill
from backtestdb.market.fetch import WITNESS
from backtestdb.market.jobs import Job, Report, Source, make_job, plan_job
from backtestdb.market.plan_limits import probe_history
from backtestdb.market.request_plan import Cost, duration_seconds, make_cost
from backtestdb.market.sessions import load_calendar
from backtestdb.market.split_look import look_at_splits, look_before_first_bars, plan_looks
from backtestdb.market.universes import (
    REQUESTS_AT_MOST,
    RUSSELL2000,
    TICKERS_ABOUT,
    load_members,
    load_tickers,
    save_universe,
    spell_as_the_vendor,
    update_us_stocks,
)
from backtestdb.names import ARRIVING, work_path
from backtestdb.rebuild.carry_over import (
    OldContent,
    carry_from,
    carry_salvaged,
    find_backup_to_carry,
    make_carry_over,
    read_old_content,
)
from backtestdb.rebuild.fewer_bars import stop_at_fewer_bars
from backtestdb.rebuild.left_behind import load_left_behind
from backtestdb.rebuild.verify import verify_new_content
from backtestdb.rebuild.work_file import (
    COMPLETE,
    HOLES,
    RebuildSpec,
    create_schema,
    finish_work_file,
    form_of,
    prepare_work_file,
)
from backtestdb.replace import remove_arriving, replace_database
from backtestdb.schema import MARKET_TABLES, ensure_market_schema, load_table_classes
from backtestdb.timeframes import LABELS

REPLACE_TIMEOUT_SECONDS = 120.0
MANY_TICKERS = 1000
# The smallest plan has two years of history; a year and its warm-up lie within them.
LONG_HISTORY_SESSIONS = 500


class NothingFetchedError(ProjectError):
    """The vendor gave no bar at all: nothing that could replace a database."""


@dataclass(frozen=True, kw_only=True)
class RebuildOptions:
    """What the user said on the command line."""

    end_was_given: bool
    discard_irreplaceable: bool
    assume_yes: bool
    carry_over_from: Path | None = None
    accept_fewer: bool = False


@dataclass(frozen=True, kw_only=True)
class RebuildResult:
    """What came of it. `kept_as` is None where there was no old database; `kept_is_sound` is False
    when the kept file is as damaged as the old one was. `losses`: sentences about what of it could
    not be salvaged."""

    reports: list[tuple[str, Report]]
    carried: Mapping[str, int]
    kept_as: Path | None
    kept_is_sound: bool
    losses: list[str]


def rebuild(
    settings: Settings,
    wanted: RebuildSpec,
    choices: RebuildOptions,
    source: Source | None,
    now_local: datetime,
    ask: Callable[[str], bool] = lambda question: confirm(question, assume_yes=False),
) -> RebuildResult | None:
    """Build what `wanted` names and put it in place; None when the user said no. `source` is None
    where the plan needs no vendor. Raise ProjectError, with the old database untouched, when it
    cannot be done."""
    database = settings.database_path
    lock = work_path(database).with_name(work_path(database).name + ".lock")
    with exclusive_lock(lock, "a rebuild of this database"):
        remove_arriving(database)
        remove_arriving(work_path(database))
        plan = prepare_work_file(
            database,
            wanted,
            platform_schema=settings.platform_schema,
            end_was_given=choices.end_was_given,
            fresh=choices.discard_irreplaceable,
            now_utc=now_local,
        )

        with closing(connect(work_path(database))) as connection:
            prepare_to_fill(connection, plan)

            # Asked first: what the key's plan lacks is in the plan that the user agrees to.
            starts = probe_plan_limits(connection, source, plan)
            costs = plan_costs(connection, plan)
            old = load_old_content(settings, plan, choices, now_local)
            show_plan(settings, plan, costs, old)
            show_left_behind(settings.database_path, plan)
            show_history_start(settings, plan, costs, starts)

            verify_space_to_rebuild(database, sum(cost.bytes for cost in costs.values()))

            is_there = look_at_file(database) not in {"missing", "empty"}
            question = (
                f"Replace {database}? The old file is kept." if is_there else "Go on with less?"
            )
            must_ask = (is_there or starts is not None) and not choices.assume_yes
            if must_ask and not ask(question):
                remove_unstarted(connection, work_path(database))
                return None

            reports = run_jobs(connection, source, plan, settings)
            if plan.universe and not choices.accept_fewer:
                stop_at_fewer_bars(
                    database, connection, make_jobs(plan, members_of(connection, plan)), ask
                )

            verify_new_content(connection, work_path(database), expected_tables(plan))
            identity = identify_current(database, settings.backup_dir)
            save_database_id(connection, identity.database_id or make_database_id())
            finish_work_file(
                connection, HOLES if any(report.has_holes for _, report in reports) else COMPLETE
            )

        # A restore from a backup replaces the same file.
        with lock_if_possible(settings.backup_dir):
            return put_in_place(settings, plan, choices, old, reports, now_local)


def prepare_to_fill(connection: sqlite3.Connection, plan: RebuildSpec) -> None:
    """Set cache and journal. A larger cache keeps the pages that are still being filled. With a
    log, a commit need not be flushed: a power cut may cost the newest answers, never the file. The
    whole market is gigabytes in few commits, and a log would write them twice. A kill may have left
    indexes to be made (`deferred_indexes`)."""
    connection.execute("PRAGMA cache_size = -131072")
    is_large = bool(plan.universe) and (not plan.tickers or len(plan.tickers) >= MANY_TICKERS)
    connection.execute(f"PRAGMA journal_mode = {'DELETE' if is_large else 'WAL'}")
    connection.execute(f"PRAGMA synchronous = {'FULL' if is_large else 'NORMAL'}")
    ensure_market_schema(connection)


def expected_tables(plan: RebuildSpec) -> set[str]:
    """Return what every new database has; beside it stand the platform's tables, of October 2025
    where it brings none."""
    classes = load_table_classes()
    own = {name for name, of in classes.items() if of == "bookkeeping"} | set(MARKET_TABLES)
    return set(classes) if plan.other_tables == "ours" else own


def remove_unstarted(connection: sqlite3.Connection, work: Path) -> None:
    """Remove a work file without any answer: a later run has nothing to continue."""
    asked = "SELECT EXISTS (SELECT 1 FROM _ranges_asked) OR EXISTS (SELECT 1 FROM _sessions_asked)"
    if not connection.execute(asked).fetchone()[0] and not staging_path(work).exists():
        connection.close()
        remove_database(work)


def verify_space_to_rebuild(database: Path, bytes_to_come: int) -> None:
    """Raise SpaceError where a rebuild does not fit: the work file still grows, the old file is
    kept once more, and the journal of the replacement is as large as the larger of the two."""
    old, work = (
        path.stat().st_size if path.is_file() else 0 for path in (database, work_path(database))
    )
    needed = bytes_to_come + old + max(old, work + bytes_to_come)
    verify_space(database.parent, needed, f"rebuilding {database}")


def must_ask_for_tickers(connection: sqlite3.Connection, plan: RebuildSpec) -> bool:
    """Return whether the vendor has still to say which tickers the universe has."""
    return bool(plan.universe) and not plan.tickers and not load_tickers(connection, plan.universe)


def plan_costs(connection: sqlite3.Connection, plan: RebuildSpec) -> dict[str, Cost]:
    """Return what each step with requests will cost; about, where the tickers are still unknown."""
    if must_ask_for_tickers(connection, plan):
        unknown = [f"#{number}" for number in range(TICKERS_ABOUT)]
        jobs = make_jobs(plan, unknown)
        lists = {"list of tickers": Cost(REQUESTS_AT_MOST, 0, 0)}
    else:
        if plan.universe and plan.tickers:
            save_universe(connection, plan.universe, plan.tickers)
        jobs, lists = make_jobs(plan, members_of(connection, plan)), {}
        if plan.universe == RUSSELL2000:
            lists = {"spelling of the tickers": Cost(1, 0, 0)}

    bars = {
        label: make_cost(plan_job(connection, job), job.fetched_sessions)
        for label, job in jobs.items()
    }
    return lists | bars | ({"splits": plan_looks(connection)} if jobs else {})


def members_of(connection: sqlite3.Connection, plan: RebuildSpec) -> list[str]:
    return load_members(connection, plan.universe) if plan.universe else []


def make_jobs(plan: RebuildSpec, tickers: list[str]) -> dict[str, Job]:
    """Return a job for each timeframe that is wanted; none for the schema alone."""
    starts = {"1day": plan.daily_start, "5min": plan.intraday_start}
    return {
        LABELS[timeframe]: make_job(
            load_calendar(),
            timeframe,
            tickers,
            date.fromisoformat(start),
            date.fromisoformat(plan.end),
            universe=plan.universe,
        )
        for timeframe, start in starts.items()
        if start
    }


def load_old_content(
    settings: Settings, plan: RebuildSpec, choices: RebuildOptions, now_local: datetime
) -> OldContent:
    """Return what will be carried over, tried on an empty database before any request."""
    if choices.discard_irreplaceable:
        return OldContent({})

    work = work_path(settings.database_path)
    trial = work.with_name(f"{work.name}.trial{ARRIVING}")
    remove_database(trial)

    try:
        create_schema(trial, form_of(work), plan.other_tables, settings.platform_schema)
        return read_old_content(settings, choices.carry_over_from, trial, now_local)
    finally:
        remove_database(trial)


def show_plan(
    settings: Settings, plan: RebuildSpec, costs: Mapping[str, Cost], old: OldContent
) -> None:
    """Print steps, requests and duration, before the first request."""
    rows: list[list[object]] = [["schema", describe_schema(plan), 0, "0 B", "0 s"]]
    if plan.universe:
        tickers = f"{len(plan.tickers)} tickers" if plan.tickers else "as the vendor lists them"
        rows.append(["universe", f"{plan.universe}: {tickers}", 0, "0 B", "0 s"])

    what = {
        LABELS["1day"]: f"{plan.daily_start} to {plan.end}",
        LABELS["5min"]: f"{plan.intraday_start} to {plan.end}",
        "splits": "the vendor's list, before the bars and behind them",
    }
    for label, cost in costs.items():
        duration = format_duration(duration_seconds(cost.requests, settings.requests_per_minute))
        rows.append([label, what.get(label, ""), cost.requests, format_bytes(cost.bytes), duration])

    kept = f"{sum(old.rows.values()):,} rows of {len(old.rows)} tables"
    if old.from_backup:
        kept += f", from {old.from_backup}"
    rows.append(["carry over", kept if old.rows else "nothing to carry over", 0, "", ""])
    rows.append(["check and replace", str(settings.database_path), 0, "", ""])
    print_table("Plan", ["step", "what", "requests", "disk at most", "at the quota"], rows)
    total = sum(cost.requests for cost in costs.values())

    if settings.requests_per_minute:
        seconds = duration_seconds(total, settings.requests_per_minute)
        say(
            f"{total} requests at {settings.requests_per_minute} a minute: "
            f"{format_duration(seconds)}"
        )


def describe_schema(plan: RebuildSpec) -> str:
    if plan.other_tables == "none":
        return f"{len(MARKET_TABLES)} market tables; the platform makes the rest"
    if plan.other_tables == "platform":
        return f"{len(MARKET_TABLES)} market tables, the rest from PLATFORM_SCHEMA"
    tables = sum(1 for name in load_table_classes().values() if name != "bookkeeping")
    return f"{tables} tables, the platform's of October 2025"


def probe_plan_limits(
    connection: sqlite3.Connection, source: Source | None, plan: RebuildSpec
) -> date | None:
    """Return the first session that the key's plan has, where a long rebuild asks for earlier
    ones."""
    if source is None or not plan.universe:
        return None
    tickers = list(plan.tickers) or [WITNESS]
    job = make_jobs(plan, tickers)[LABELS["1day"]]
    if len(job.sessions) < LONG_HISTORY_SESSIONS:
        return None

    # The limit is found out before the question, not after hours.
    return probe_history(
        connection,
        source.client,
        source.calendar,
        source.now_utc(),
        job.sessions,
        WITNESS,
        by_session=not plan.tickers or len(plan.tickers) > len(job.sessions),
    )


def show_history_start(
    settings: Settings, plan: RebuildSpec, costs: Mapping[str, Cost], starts: date | None
) -> None:
    """Print what the key's plan makes of a rebuild."""
    if starts is None:
        return

    sessions = make_jobs(plan, [WITNESS])[LABELS["1day"]].sessions
    covered = sum(1 for day in sessions if day >= starts)
    requests = sum(cost.requests for cost in costs.values())
    duration = format_duration(duration_seconds(requests, settings.requests_per_minute))
    size = format_bytes(sum(cost.bytes for cost in costs.values()))

    say(
        f"your plan begins {starts}: {covered:,} of {len(sessions):,} sessions, {requests:,} "
        f"requests, {duration}, {size} at most"
    )


def show_left_behind(database: Path, plan: RebuildSpec) -> None:
    """Print which old bars the new database will lack; they stay in the kept file."""
    if look_at_file(database) != "database":
        return
    with closing(connect(database, read_only=True)) as connection:
        for left in load_left_behind(connection, plan):
            say(left.describe())


def run_jobs(
    connection: sqlite3.Connection, source: Source | None, plan: RebuildSpec, settings: Settings
) -> list[tuple[str, Report]]:
    """Fill the new file; return each job's report. Raise NothingFetchedError for no bar."""
    reports: list[tuple[str, Report]] = []
    if not plan.universe:
        return reports
    if source is None:
        raise ValueError("a plan with bars needs a source")

    if must_ask_for_tickers(connection, plan):
        since = date.fromisoformat(plan.daily_start)
        update_us_stocks(connection, source.client, settings.us_stock_types, since)

    look_before_first_bars(connection, source)
    if plan.universe == RUSSELL2000:
        last = date.fromisoformat(plan.end)
        spell_as_the_vendor(connection, source.client, plan.universe, last)

    for label, job in make_jobs(plan, members_of(connection, plan)).items():
        report = backfill(connection, source, job, f"{plan.universe}: {label}")
        if not report.coverage.stored:
            raise NothingFetchedError(
                f"{label}: the vendor gave no bar of {len(job.tickers)} tickers; the database was "
                "not touched",
                next_step="see the reasons above; check --end and the key's plan"
                if not report.run.failures
                else f"first reason: {next(iter(report.run.failures.values()))}",
            )
        reports.append((label, report))

    reports[-1][1].run.splits = look_at_splits(connection, source)
    return reports


def put_in_place(
    settings: Settings,
    plan: RebuildSpec,
    choices: RebuildOptions,
    old: OldContent,
    reports: list[tuple[str, Report]],
    now_local: datetime,
) -> RebuildResult:
    """Carry over what is kept and put the new file in the place of the old one."""
    database = settings.database_path
    state = look_at_file(database)
    kept_as = choose_kept_name(database, now_local)
    carried: dict[str, int] = {}
    losses: list[str] = []

    # Retention may have removed meanwhile what was the newest backup when the plan was shown.
    named = choices.carry_over_from or (find_backup_to_carry(settings) if old.from_backup else None)
    if named:
        carried = carry_from(named, work_path(database), plan.universe)
    elif old.is_damaged:
        carried, losses = carry_salvaged(settings, work_path(database), plan.universe, now_local)

    if state == "missing" and takes_the_free_name(work_path(database), database):
        return RebuildResult(
            reports=reports, carried=carried, kept_as=None, kept_is_sound=True, losses=losses
        )

    must_carry = not (choices.discard_irreplaceable or named or old.is_damaged)
    done = replace_database(
        database,
        work_path(database),
        kept_as,
        carry_over=make_carry_over(carried, plan.universe) if must_carry else None,
        timeout_seconds=REPLACE_TIMEOUT_SECONDS,
    )
    remove_database(work_path(database))
    kept = done.kept_as or done.moved_to

    return RebuildResult(
        reports=reports,
        carried=carried,
        kept_as=kept,
        kept_is_sound=done.kept_is_sound or kept is None,
        losses=losses,
    )


def takes_the_free_name(work: Path, database: Path) -> bool:
    """Return whether the new file took the name. False when a program made a file of this name
    meanwhile, or a log lies there."""
    # Nothing is to be kept and no program has the file open: 5 GB need no copy.
    fsync_file(work)
    try:
        take_free_name(work, database)
    except NameTakenError:
        return False
    return True
