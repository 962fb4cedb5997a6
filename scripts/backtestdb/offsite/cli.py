"""`run_offsite.py` and `restore_database.py --from-offsite`: from arguments to words."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from backtestdb import console
from backtestdb.backups.cli import run_restore_from_backup
from backtestdb.backups.identity import read_database_id
from backtestdb.backups.restore_choice import holds_rows
from backtestdb.config import Settings
from backtestdb.console import format_bytes, print_table, say
from backtestdb.database import look_at_file
from backtestdb.files import choose_free_names, remove_tree
from backtestdb.offsite import report
from backtestdb.offsite.compare import compare_states
from backtestdb.offsite.drill import run_and_save
from backtestdb.offsite.errors import OffsiteError
from backtestdb.offsite.fetch import list_copies
from backtestdb.offsite.history import check_and_save
from backtestdb.offsite.liveness import target_folder
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.owners import choose_own
from backtestdb.offsite.probe import probe_store
from backtestdb.offsite.prune import plan_prune, prune
from backtestdb.offsite.record import CopyName
from backtestdb.offsite.restore import empty_folder, fetch_backups, parse_moment
from backtestdb.offsite.small_copy import take_small_copy
from backtestdb.offsite.target import (
    ensure_key,
    find_passphrase,
    make_target,
    open_remote,
    open_store,
)


def run_init(settings: Settings) -> int:
    """Given OFFSITE in the settings, make the target ready, say what it protects, and print what
    has to be on paper. Return the exit code. Raise ProjectError."""
    store = open_store(make_target(settings))
    passphrase = find_passphrase(settings)

    protections = probe_store(store)
    _key, is_new = ensure_key(store, passphrase)
    print(
        f"{store.where} is {'set up' if is_new else 'ready: its key was there already, and opens'}"
    )

    rows = [(found.what, "yes" if found.holds else "no", found.meaning) for found in protections]
    print_table("what this store protects", ("protection", "there", "meaning"), rows)
    print(report.make_recovery_sheet(settings))
    return console.DONE


def run_list(settings: Settings, *, as_json: bool) -> int:
    names = list_copies(open_remote(settings))
    report.show_copies(settings.offsite, names, as_json)
    return console.DONE


def run_check(settings: Settings, now_utc: datetime, *, everything: bool, as_json: bool) -> int:
    """Exit code 1 when something is missing or damaged."""
    result = check_and_save(
        settings, open_remote(settings), now_utc, everything=everything, say=say
    )
    report.show_check(settings.offsite, result, as_json)
    return console.FAILED if result.problems else console.DONE


def run_drill(settings: Settings, now_local: datetime) -> int:
    """Exit code 1 when the copies do not bring everything back."""
    folder = target_folder(settings.backup_dir, settings.offsite)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database_id = read_database_id(settings.database_path)
    drill = run_and_save(settings, open_remote(settings), folder, database_id, now_local, print)
    return console.DONE if drill.is_good else console.FAILED


def run_prune(settings: Settings, now_utc: datetime, *, dry_run: bool) -> int:
    remote = open_remote(settings)
    plan = plan_prune(remote, now_utc)
    what = f"{len(plan.copies)} copies and {len(plan.objects)} segments, {format_bytes(plan.bytes)}"
    if dry_run:
        print(f"would delete {what}")
        return console.DONE
    prune(remote, plan, say)
    print(f"deleted {what}")
    return console.DONE


def run_restore_from_offsite(
    settings: Settings,
    moment: str,
    now_local: datetime,
    *,
    beside: bool,
    assume_yes: bool,
    writer: str = "",
) -> int:
    """Given a moment (empty: the newest copies), fetch them, then restore like from any backup, and
    return the exit code. `beside`: into a file of their own, compared."""
    remote = open_remote(settings)
    until_utc = parse_moment(moment) if moment else None
    database = settings.database_path
    is_filled = holds_rows(database)
    names = choose_own(
        remote,
        list_copies(remote),
        database,
        read_database_id(database),
        writer=writer,
        is_filled=is_filled,
        say=say,
    )
    if beside:
        return put_beside(settings, remote, names, until_utc)

    folder = empty_folder(find_place(settings) / "fetched")
    try:
        fetched = fetch_backups(
            remote,
            names,
            folder,
            until_utc=until_utc,
            # With a moment only irreplaceable tables go back: market data does not age.
            with_full=not (moment and is_filled),
            say=say,
        )
        say(f"fetched {format_bytes(fetched.sent_bytes)} from {settings.offsite}")
        return run_restore_from_backup(
            replace(settings, backup_dir=folder),
            None,
            now_local,
            assume_yes=assume_yes,
            all_are_meant=True,
        )
    finally:
        remove_tree(folder)


def find_place(settings: Settings) -> Path:
    """Return the folder of what this machine remembers. Beside the database when there is no folder
    for backups: on a new machine BACKUP_DIR may be a disk that is not connected yet."""
    if settings.backup_dir.is_dir():
        return target_folder(settings.backup_dir, settings.offsite)
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    return settings.database_path.with_name(f"{settings.database_path.name}.offsite")


def put_beside(
    settings: Settings, remote: Remote, names: list[CopyName], until_utc: datetime | None
) -> int:
    """Write the irreplaceable tables of that moment to a file of their own, and print how they
    differ from today's; return the exit code."""
    database = settings.database_path
    folder = empty_folder(find_place(settings) / "fetched")
    try:
        fetched = fetch_backups(
            remote, names, folder, until_utc=until_utc, with_full=False, say=say
        )

        if fetched.small is None:
            raise OffsiteError("there is no small copy of that time", next_step="make offsites")
        taken = fetched.small.taken_at_utc.astimezone()
        (beside,) = choose_free_names(
            lambda stamp: [database.with_name(f"{database.name}.of-{stamp}")], taken
        )
        fetched.small.path.rename(beside)
    finally:
        remove_tree(folder)

    print(f"the irreplaceable tables of {taken:%Y-%m-%d %H:%M:%S} are in {beside}")
    if look_at_file(database) == "database":
        show_changes(database, beside)
    print(
        "put them in place with: make restore-from-backup FROM=offsite "
        f'BACKUP="{taken:%Y-%m-%d %H:%M:%S}"'
    )
    return console.DONE


def show_changes(database: Path, older: Path) -> None:
    """Print what `database` has gained, lost and changed since `older`, table by table."""
    now = older.with_name(f"{older.name}.now")
    try:
        take_small_copy(database, now)
        changes = [change for change in compare_states(older, now) if change.is_change]
    finally:
        now.unlink(missing_ok=True)

    if not changes:
        print("nothing irreplaceable has changed since")
        return
    rows = [
        (
            change.table,
            change.added,
            change.removed,
            change.changed,
            report.describe_presence(change),
        )
        for change in changes
    ]

    print_table("what happened since", ("table", "rows added", "removed", "changed", ""), rows)
