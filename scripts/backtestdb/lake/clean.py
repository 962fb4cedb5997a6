"""`make lake-clean`: forget old versions, and remove the files that no version needs any more."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from deltalake.exceptions import CommitFailedError, TableNotFoundError

from backtestdb.errors import BusyError
from backtestdb.lake.layout import SCHEMAS
from backtestdb.lake.store import Store
from backtestdb.lake.table import PARTS, VERSIONS, Version, commit_versions, open_delta, open_lake


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    versions_kept: int
    versions_forgotten: int
    files_removed: int


def clean(
    store: Store, now_utc: datetime, *, keep_versions: int, keep_days: float, spare_hours: int
) -> Cleaned:
    """Keep the newest `keep_versions` versions and those of the last `keep_days` days; remove the
    files of the others."""
    version = open_lake(store)
    since = now_utc - timedelta(days=keep_days)

    newest = {row.version for row in version.rows[-keep_versions:]}
    kept = [row for row in version.rows if row.version in newest or row.published_at_utc >= since]

    forgotten = len(version.rows) - len(kept)
    if forgotten:
        try:
            version = commit_versions(version, kept)
        except CommitFailedError as error:
            raise BusyError(
                f"a publication was committed to {store.root} meanwhile",
                next_step="make lake-clean",
            ) from error

    # Files that a version lost within the last `spare_hours` stay: a reader, or a publication under
    # way, may still need them.
    removed = sum(
        remove_files(store, table, version, spare_hours) for table in (*SCHEMAS, PARTS, VERSIONS)
    )
    return Cleaned(versions_kept=len(kept), versions_forgotten=forgotten, files_removed=removed)


def remove_files(store: Store, table: str, version: Version, spare_hours: int) -> int:
    """Remove the files of one table that no version needs; return how many."""
    try:
        delta = open_delta(store, table)
    except TableNotFoundError:
        return 0

    needed = {row.tables[table] for row in version.rows if table in row.tables}
    removed = delta.vacuum(
        retention_hours=spare_hours,
        dry_run=False,
        enforce_retention_duration=False,
        full=True,
        keep_versions=sorted(needed),
    )
    return len(removed)
