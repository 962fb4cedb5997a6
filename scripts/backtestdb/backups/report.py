"""Backups as people and programs read them."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from backtestdb.backups.backup import Outcome
from backtestdb.backups.catalogue import Backup
from backtestdb.backups.manifest import format_utc
from backtestdb.backups.restore import RestoreResult
from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.backups.shrinkage import describe_losses
from backtestdb.console import (
    DONE,
    DONE_WITH_HOLES,
    FAILED,
    WRONG_USAGE,
    format_bytes,
    print_error,
    print_table,
    say,
)
from backtestdb.database import connect_to_read, table_names
from backtestdb.names import make_undo_command

NEWEST_SHOWN = 5


def show(title: str, backups: Sequence[Backup], bad: Mapping[Path, str], as_json: bool) -> None:
    """Print the list. `bad`: what reading a backup again has found, path -> reason."""
    if as_json:
        print(backups_as_json(backups, bad))
    elif backups:
        print_backups(title, backups, bad)
    else:
        print(f"{title}: none yet (make backup)")


def show_outcome(outcome: Outcome, catalogue: Sequence[Backup]) -> None:
    """Print the summary of a backup and the newest five."""
    backup = outcome.backup
    if outcome.is_new:
        rows = sum(backup.manifest.rows.values()) if backup.manifest else 0
        print(f"backup made and verified: {backup.path}")
        print(
            f"{format_bytes(backup.bytes)}, {rows:,} rows, {len(outcome.removed)} older backups "
            "removed"
        )
    else:
        print(f"nothing changed since {backup.path.name}: it still holds everything irreplaceable")

    print_backups(f"the newest of {len(catalogue)}", catalogue[:NEWEST_SHOWN], {})


def print_faults(outcome: Outcome) -> int:
    """Print what is wrong although the backup was made; return the exit code."""
    manifest = outcome.backup.manifest
    if manifest and manifest.is_suspicious:
        print_error(
            "the backup was kept, and is suspicious: rows were lost: "
            f"{describe_losses(manifest.losses)}",
            "make restore-from-backup brings them back; make backup ARGS=--accept-loss when it "
            "was meant",
        )
        return FAILED

    if outcome.missing_folders:
        folders = ", ".join(map(str, outcome.missing_folders))
        print_error(
            f"the database was backed up without its scripts: GENERATED_SCRIPTS_DIR {folders} is "
            "not there",
            "change GENERATED_SCRIPTS_DIR in .env",
        )
        return WRONG_USAGE

    if outcome.not_copied:
        name, reason = next(iter(outcome.not_copied.items()))
        more = f" and {len(outcome.not_copied) - 1:,} more" if len(outcome.not_copied) > 1 else ""
        print_error(
            f"the database was backed up; of the generated scripts {name} could not be "
            f"copied{more}: {reason}",
            "look at what is named above, then make backup",
        )
        return DONE_WITH_HOLES

    return DONE


def print_backups(title: str, backups: Sequence[Backup], bad: Mapping[Path, str]) -> None:
    """Print a table of backups; times are local, as in the names of the files."""
    rows = [
        (
            format_local(backup.taken_at_utc),
            backup.path.name,
            format_bytes(backup.bytes),
            describe_state(backup, bad),
            sum(backup.manifest.rows.values()) if backup.manifest else None,
        )
        for backup in backups
    ]
    print_table(title, ("taken", "backup", "size", "verified", "rows"), rows)

    for backup in backups:
        if backup.is_suspicious and backup.manifest:
            print(f"suspicious: {backup.path.name}: {describe_losses(backup.manifest.losses)}")

    for path in sorted({backup.other_database for backup in backups if backup.other_database}):
        print(f"of another database: {path}")


def describe_state(backup: Backup, bad: Mapping[Path, str]) -> str:
    fault = find_fault(backup, bad)
    state = f"no: {fault}" if fault else "suspicious" if backup.is_suspicious else "yes"
    if backup.manifest and backup.manifest.broken_rules:
        state += f", with rows that break a rule: {backup.manifest.broken_rules[0]}"
    return f"{state}; of another database" if backup.other_database else state


def find_fault(backup: Backup, bad: Mapping[Path, str]) -> str:
    return bad.get(backup.path, backup.problem)


def format_local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def backups_as_json(backups: Sequence[Backup], bad: Mapping[Path, str]) -> str:
    """Return an array, newest first; `rows` is null for a file without a valid manifest."""
    return json.dumps([describe(backup, find_fault(backup, bad)) for backup in backups], indent=1)


def describe(backup: Backup, fault: str) -> dict[str, object]:
    """Return what `--json` says of a backup. `fault`: what reading it again has found."""
    manifest = backup.manifest
    scripts = manifest.generated_scripts if manifest else None

    return {
        "path": str(backup.path),
        "kind": backup.kind,
        "taken_at_utc": format_utc(backup.taken_at_utc),
        "bytes": backup.bytes,
        "verified": not fault,
        "problem": fault,
        "other_database": backup.other_database,
        "losses": {
            table: {
                "before": loss.before,
                "before_at_utc": format_utc(loss.before_at_utc),
                "now": loss.now,
            }
            for table, loss in (manifest.losses if manifest else {}).items()
        },
        "loss_accepted": bool(manifest and manifest.accepts_loss),
        "rows": dict(manifest.rows) if manifest else None,
        "generated_scripts": scripts.count if scripts else 0,
        "broken_rules": list(manifest.broken_rules) if manifest else [],
    }


def describe_choice(choice: RestoreChoice) -> str:
    """Return in words which backup a restore takes, and what goes on top of it."""
    parts = []
    if choice.full:
        parts.append(f"restoring {choice.full.path} of {format_local(choice.full.taken_at_utc)}")

    if choice.irreplaceable:
        what = (
            "with the irreplaceable tables of"
            if choice.full
            else "restoring the irreplaceable tables of"
        )
        parts.append(
            f"{what} {choice.irreplaceable.path} of "
            f"{format_local(choice.irreplaceable.taken_at_utc)}"
        )

    return ", ".join(parts)


def print_changed_rows(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Print tables whose rows a restore changes in number, and what that says of the others."""
    if not before or not after:
        return
    tables = sorted(before.keys() | after.keys())
    rows = [
        (table, before.get(table), after.get(table))
        for table in tables
        if before.get(table, 0) != after.get(table, 0)
    ]
    if rows:
        print_table("rows that no download brings back", ("table", "now", "restored"), rows)

    print(f"{len(tables) - len(rows)} of {len(tables)} such tables keep their number of rows")


def print_left_out(choice: RestoreChoice) -> int:
    """Print the newer backups that could not be read, by name; return the exit code."""
    for left in choice.left_out:
        print_error(
            f"left out: {left.backup.path.name} of {format_local(left.backup.taken_at_utc)}: "
            f"{left.reason}",
            "make verify-backups; when it can be read again, the same command once more",
        )
    return DONE_WITH_HOLES if choice.left_out else DONE


def show_restored(restored: RestoreResult, database: Path) -> None:
    """Print what the database holds now, and the way back."""
    print(f"restored {database}: {describe_choice(restored.choice).removeprefix('restoring ')}")
    try:
        with closing(connect_to_read(database)) as connection:
            show_market_data(connection)
    except sqlite3.Error as error:
        # The platform may have migrated since; restored it is all the same.
        say(f"note: what the database holds now could not be listed: {error}")

    for part in restored.scripts:
        if part.kept_as:
            print(f"the generated scripts that stood there are in {part.kept_as}")

    for path in restored.replacement.kept:
        print(f"what stood there is kept as {path}")
    if restored.replacement.kept_as and restored.replacement.kept_is_sound:
        print(f"undo with: {make_undo_command(restored.replacement.kept_as)}")


def show_market_data(connection: sqlite3.Connection) -> None:
    """Print how many bars and universes the database holds."""
    tables = set(table_names(connection))
    if {"universe", "universe_stocks"} <= tables:
        universes = connection.execute(
            "SELECT u.name, count(s.id) FROM universe u LEFT JOIN universe_stocks s "
            "ON s.universe_id = u.id AND s.is_active GROUP BY u.id ORDER BY u.name"
        ).fetchall()
        print_table("universes", ("universe", "tickers"), universes)

    if "ohlcv_data" in tables:
        bars = connection.execute(
            "SELECT timeframe, count(*) FROM ohlcv_data GROUP BY timeframe"
        ).fetchall()
        print_table("bars", ("timeframe", "bars"), bars)
