"""All facts at once: what the table, the JSON and the page are made from."""

import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from backtestdb.config import Settings
from backtestdb.database import UNREADABLE_SCHEMA, skip_unreadable_schema
from backtestdb.health.backup_facts import BackupFacts, load_backup_facts
from backtestdb.health.coverage_facts import UniverseCoverage, load_universe_coverage
from backtestdb.health.database_facts import (
    DatabaseFacts,
    load_database_facts,
    make_absent_facts,
    make_failed_facts,
    rows_of,
)
from backtestdb.health.drill_facts import DrillFacts, load_drill_facts
from backtestdb.health.lake import check_lake
from backtestdb.health.market_facts import MarketFacts, load_market_facts
from backtestdb.health.problem import Problem
from backtestdb.health.schedule_facts import ScheduleFacts, User, look_at_schedule
from backtestdb.kept import KeptCopy, find_interrupted_rebuild, find_kept
from backtestdb.lake.summary import lake_facts
from backtestdb.market.quota import Quota, quota_path
from backtestdb.newer_sqlite import was_written_by_newer_sqlite
from backtestdb.offsite.facts import OffsiteFacts, load_offsite_facts
from backtestdb.untouched import Reader, read_untouched


@dataclass(frozen=True)
class QuotaFacts:
    """Requests of the last minute by all of the user's commands; `per_minute` 0 means no limit."""

    used: int
    per_minute: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """- `drills`: the newest first.
    - `kept`: copies beside the database that a restore left.
    - `lake`: None where there is no LAKE, else as `lake_facts` says; `lake_places`: what
      `check_lake` found.
    - `database_link`: DATABASE_PATH, where that is a symbolic link.
    - `offsite`: None where OFFSITE is not set.
    """

    checked_at: datetime
    database: DatabaseFacts
    universes: list[UniverseCoverage]
    backups: BackupFacts
    schedule: ScheduleFacts
    drills: list[DrillFacts]
    quota: QuotaFacts
    lake: dict[str, Any] | None = None
    database_link: Path | None = None
    market: MarketFacts = field(default_factory=MarketFacts)
    kept: list[KeptCopy] = field(default_factory=list)
    interrupted_rebuild: KeptCopy | None = None
    offsite: OffsiteFacts | None = None
    lake_places: list[Problem] = field(default_factory=list)


Contents = tuple[DatabaseFacts, list[UniverseCoverage], MarketFacts]


def load_facts(
    settings: Settings, user: User, now: datetime, *, read: Reader[Contents] = read_untouched
) -> Facts:
    """Return all facts of status. `read`: how the database is opened; a process with other
    connections to it uses read_shared."""
    database, universes, market = load_contents(
        settings.database_path, settings.origins["DATABASE_PATH"], now, read
    )
    path = quota_path(settings.state_dir, settings.base_url, settings.api_key)

    return Facts(
        checked_at=now,
        database=database,
        universes=universes,
        backups=load_backup_facts(
            settings.backup_dir,
            settings.database_path,
            database.bytes,
            now,
            database_id=database.database_id,
            rows=rows_of(database),
            settings=settings,
        ),
        schedule=look_at_schedule(
            sys.platform, user, settings.backup_dir, settings.database_path, now
        ),
        drills=load_drill_facts(settings.backup_dir, settings.database_path),
        quota=QuotaFacts(
            Quota(path, settings.requests_per_minute).used(), settings.requests_per_minute
        ),
        lake=lake_facts(settings),
        database_link=settings.database_link,
        market=market,
        kept=find_kept(settings.database_path),
        interrupted_rebuild=find_interrupted_rebuild(settings.database_path),
        offsite=load_offsite_facts(settings, now),
        lake_places=check_lake(settings),
    )


def load_contents(path: Path, origin: str, now: datetime, read: Reader[Contents]) -> Contents:
    """Return what the database holds, as far as this SQLite can read it."""
    absent = make_absent_facts(path, origin)
    if absent:
        return absent, [], MarketFacts()

    def look(connection: sqlite3.Connection) -> Contents:
        return (
            load_database_facts(connection, path, origin),
            load_universe_coverage(connection),
            load_market_facts(connection, now),
        )

    try:
        return read(path, look)
    except sqlite3.Error as error:
        failed = make_failed_facts(path, origin, error)
        is_schema = str(error).startswith(UNREADABLE_SCHEMA)

    if not is_schema:
        return failed, [], MarketFacts()
    with suppress(sqlite3.Error):
        part, universes, market = read(
            path, lambda connection: look_at_part(connection, path, look)
        )
        return replace(part, state="too_new", detail=failed.detail), universes, market

    return failed, [], MarketFacts()


def look_at_part(
    connection: sqlite3.Connection, path: Path, look: Callable[[sqlite3.Connection], Contents]
) -> Contents:
    """Return what can be read of a newer SQLite's database. Raise sqlite3.Error for any other."""
    skip_unreadable_schema(connection)
    if not was_written_by_newer_sqlite(connection, path):
        raise sqlite3.DatabaseError("damaged")
    return look(connection)


def make_user(environment: Mapping[str, str]) -> User:
    """Return the user who runs this process."""
    home = Path.home()
    return User(os.getuid(), home, Path(environment.get("XDG_CONFIG_HOME") or home / ".config"))
