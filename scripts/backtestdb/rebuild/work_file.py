"""The file beside the database in which a new one grows: `<database>.rebuilding`.

It carries its plan, so that a killed run is continued, and what another plan left is not mistaken
for it.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from backtestdb.database import (
    DAMAGE_CODES,
    connect,
    look_at_file,
    primary_code,
    table_names,
    verify_integrity,
)
from backtestdb.errors import VerificationError
from backtestdb.files import remove_database, rename_durably
from backtestdb.market.staging import remove_staging
from backtestdb.names import ARRIVING, work_path
from backtestdb.pinned_copy import copy_pinned
from backtestdb.rebuild.platform_schema import add_platform_tables
from backtestdb.schema import ensure_market_schema, ensure_schema

CONTINUED_FOR = timedelta(days=7)

OtherTables = Literal["ours", "platform", "none"]
BUILDING, COMPLETE, HOLES = "building", "complete", "holes"


@dataclass(frozen=True, kw_only=True)
class RebuildSpec:
    """`universe` is empty for the schema alone; no `tickers` means those that the vendor lists.
    Dates are sessions in ISO text, empty where nothing is asked."""

    universe: str = ""
    tickers: tuple[str, ...] = ()
    daily_start: str = ""
    intraday_start: str = ""
    end: str = ""
    # Whose tables there are beside those of the market: ours (October 2025), the platform's own, or
    # none.
    other_tables: OtherTables = "ours"

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def parse_spec(text: str) -> RebuildSpec:
    values = json.loads(text)
    return RebuildSpec(**{**values, "tickers": tuple(values["tickers"])})


def continues(earlier: RebuildSpec, wanted: RebuildSpec, *, end_was_given: bool) -> bool:
    """Return whether the work on `earlier` is work on `wanted`.

    The same plan is. So is one of at most a week ago that differs in its dates alone, unless the
    user named the end: a killed rebuild that is started again after midnight is to be finished, and
    the days since are what `make update` is for."""
    if earlier == wanted:
        return True
    if end_was_given or not wanted.end or not earlier.end:
        return False
    age = date.fromisoformat(wanted.end) - date.fromisoformat(earlier.end)
    return without_dates(earlier) == without_dates(wanted) and timedelta(0) <= age <= CONTINUED_FOR


def without_dates(plan: RebuildSpec) -> RebuildSpec:
    """Return a plan in which only the steps still show: an empty start stays empty."""
    return replace(
        plan,
        daily_start="asked" if plan.daily_start else "",
        intraday_start="asked" if plan.intraday_start else "",
        end="",
    )


@dataclass(frozen=True)
class RebuildRecord:
    plan: RebuildSpec
    state: str


class FileForm(NamedTuple):
    """What a new file must have in common with the old one: under WAL the page size cannot be
    changed, and SQLite attaches no database whose text has another encoding."""

    page_size: int = 4096
    encoding: str = "UTF-8"


def load_record(path: Path) -> RebuildRecord | None:
    """Return the rebuild that made the file; None if there is no file or no record of it."""
    if look_at_file(path) != "database":
        return None
    with closing(connect(path)) as connection:
        if "_rebuild" not in table_names(connection):
            return None
        try:
            row = connection.execute("SELECT plan, state FROM _rebuild").fetchone()
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in DAMAGE_CODES:
                raise
            return None

    return RebuildRecord(parse_spec(row[0]), row[1]) if row else None


def is_sound(database: Path) -> bool:
    try:
        with closing(connect(database)) as connection:
            verify_integrity(connection)
    except VerificationError:
        return False
    return True


def prepare_work_file(
    database: Path,
    wanted: RebuildSpec,
    *,
    platform_schema: Path | None,
    end_was_given: bool,
    fresh: bool,
    now_utc: datetime,
) -> RebuildSpec:
    """Make the work file ready for `wanted`, and return the plan to follow (see `continues`).
    `fresh`: holes of the current database are no reason to copy it."""
    # What a killed run left of this plan.
    path = work_path(database)
    left = load_record(path)
    if left and continues(left.plan, wanted, end_was_given=end_was_given):
        return left.plan

    remove_database(path)
    remove_staging(path)

    # A copy of the current database, where this plan made it and left holes in it.
    current = None if fresh else load_record(database)
    if (
        current
        and current.state == HOLES
        and continues(current.plan, wanted, end_was_given=end_was_given)
        and is_sound(database)
    ):
        copy_current(database, path)
        return current.plan

    create_work_file(path, form_of(database), wanted, platform_schema, now_utc)
    return wanted


def copy_current(database: Path, path: Path) -> None:
    arriving = path.with_name(path.name + ARRIVING)
    with closing(connect(database)) as source:
        copy_pinned(source, arriving)
    rename_durably(arriving, path)


def create_work_file(
    path: Path, form: FileForm, plan: RebuildSpec, platform_schema: Path | None, now_utc: datetime
) -> None:
    """Create a work file. The record comes last: a file without it is not continued."""
    create_schema(path, form, plan.other_tables, platform_schema)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "INSERT INTO _rebuild (id, plan, state, started_at_utc) VALUES (1, ?, ?, ?)",
            (plan.to_text(), BUILDING, now_utc.isoformat(timespec="seconds")),
        )


def create_schema(
    path: Path, form: FileForm, other_tables: OtherTables, platform_schema: Path | None
) -> None:
    """Create a database without a row but those of the platform's own schema. Raise SettingsError
    where `platform_schema` cannot be used."""
    with closing(connect(path, create=True)) as connection:
        connection.execute(f"PRAGMA page_size = {form.page_size}")
        connection.execute(f"PRAGMA encoding = '{form.encoding}'")
        if other_tables == "ours":
            ensure_schema(connection)
        else:
            ensure_market_schema(connection)

    if other_tables == "platform":
        if platform_schema is None:
            raise ValueError("a plan with the platform's tables needs PLATFORM_SCHEMA")
        add_platform_tables(path, platform_schema)


def form_of(database: Path) -> FileForm:
    """Return the usual one where there is no database."""
    if look_at_file(database) != "database":
        return FileForm()
    with closing(connect(database)) as connection:
        size, encoding = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "encoding")
        )
    return FileForm(size, encoding)


def finish_work_file(connection: sqlite3.Connection, state: str) -> None:
    """Write the outcome into the file and leave it as one file without a log."""
    connection.execute("UPDATE _rebuild SET state = ?", (state,))
    connection.execute("PRAGMA journal_mode = DELETE")
