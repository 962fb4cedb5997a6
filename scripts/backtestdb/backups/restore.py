"""Put a backup in the place of the database, which is kept; whole-old or whole-new if killed."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.backup import Hooks
from backtestdb.backups.catalogue import LOCK_NAME, Backup, lock_backups
from backtestdb.backups.content_hash import hash_table
from backtestdb.backups.generated_scripts import RestoredPart, restore_parts
from backtestdb.backups.identity import (
    Identity,
    identify_current,
    load_database_id,
    load_id_of_source,
    save_database_id,
)
from backtestdb.backups.restore_choice import RestoreChoice, choose_backup
from backtestdb.commit_counter import CommitCounter
from backtestdb.config import Settings
from backtestdb.console import Say
from backtestdb.database import connect, look_at_file, transaction
from backtestdb.errors import DeclinedError, ProjectError, VerificationError
from backtestdb.files import remove_database, verify_space
from backtestdb.free_name import choose_kept_name
from backtestdb.names import ARRIVING, make_undo_command
from backtestdb.newer_sqlite import keep_writer_version, load_writer_version
from backtestdb.outline import read_outline
from backtestdb.pinned_copy import copy_pinned
from backtestdb.replace import (
    Replacement,
    busy_explained,
    keep_copy,
    keep_version_in_header,
    prove,
    remove_arriving,
    replace_database,
    shrink_log,
    verify_space_to_replace,
)
from backtestdb.schema import ensure_market_schema, tables_to_keep
from backtestdb.table_copy import carry_tables

WAIT_FOR_OTHERS_SECONDS = 60.0


@dataclass(frozen=True)
class RestoreResult:
    """What was restored, what it replaced, and where that is now."""

    choice: RestoreChoice
    replacement: Replacement
    scripts: list[RestoredPart]


def restore_from_backup(
    settings: Settings,
    path: Path | None,
    now_local: datetime,
    *,
    hooks: Hooks | None = None,
    approve: Callable[[RestoreChoice], bool] = lambda _choice: True,
    all_are_meant: bool = False,
) -> RestoreResult:
    """Restore the newest backup that verifies, or the file `path`; see choose_backup.

    Other programs may stay connected. Raise ProjectError when nothing verifies, when `approve` says
    no, when another program does not let go of the database in time, or when space is missing;
    nothing has changed then.
    """
    hooks = hooks or Hooks()
    target = settings.database_path

    with lock_if_possible(settings.backup_dir):
        choice = choose_backup(
            settings.backup_dir, target, path, hooks.say, all_are_meant=all_are_meant
        )
        hooks.step("chosen")

        if not approve(choice):
            raise DeclinedError("nothing was changed: the restore was not confirmed")

        target.parent.mkdir(parents=True, exist_ok=True)
        remove_arriving(target)
        database_id = choose_database_id(choice, identify_current(target, settings.backup_dir))
        replacement = restore_database(
            choice, target, choose_kept_name(target, now_local), database_id, hooks.say
        )

        # Said before anything else that can fail.
        for line in describe_replacement(replacement, target):
            hooks.say(line)
        hooks.step("database restored")

        scripts = bring_scripts_back(choice, settings.generated_scripts_dirs, now_local, hooks)
        hooks.step("scripts restored")

    return RestoreResult(choice, replacement, scripts)


def describe_replacement(done: Replacement, target: Path) -> list[str]:
    """Return what stands where now, and the way back."""
    lines = [f"the database is in its place, opened again and compared: {target}"]
    if done.kept_as and done.kept_is_sound:
        lines.append(f"undo with: {make_undo_command(done.kept_as)}")
    elif done.kept_as:
        lines.append(f"what stood there is damaged, and kept as {done.kept_as}")

    if done.moved_to:
        lines.append(f"what stood there was no database any more, and is kept as {done.moved_to}")
    if done.written_since:
        lines.append(f"another program has written to it since: {'; '.join(done.written_since)}")
    return lines


@contextmanager
def lock_if_possible(backup_dir: Path) -> Iterator[None]:
    """Lock the folder of backups, so that none is made or removed meanwhile."""
    try:
        (backup_dir / LOCK_NAME).touch(mode=0o600)
    except OSError:
        # A folder that is not there, or is read-only, needs no lock.
        yield
        return
    with lock_backups(backup_dir):
        yield


def choose_database_id(choice: RestoreChoice, current: Identity) -> str:
    """Return the id for the restored database: it stays the one that it was, whatever is restored
    into it; a new one becomes the one that the backup was made from."""
    backup = choice.full or choice.irreplaceable
    of_backup = backup.manifest.database_id if backup and backup.manifest else ""
    return current.database_id or of_backup


def restore_database(
    choice: RestoreChoice, target: Path, kept_as: Path, database_id: str, say: Say
) -> Replacement:
    """Put the chosen backups in the database's place, with this `database_id` (empty: none)."""
    full = choice.full
    holds_id = (
        full and full.manifest and load_id_of_source(full.path, read_only=True) == database_id
    )

    if full and holds_id and not choice.irreplaceable:
        verify_space_to_replace(target, full.bytes)
        return replace_database(target, full.path, kept_as, timeout_seconds=WAIT_FOR_OTHERS_SECONDS)
    if choice.irreplaceable and not choice.full and look_at_file(target) in {"database", "too_new"}:
        return merge_in_place(choice.irreplaceable, target, kept_as, database_id)

    return replace_with_built(choice, target, kept_as, database_id, say)


def merge_in_place(
    irreplaceable: Backup, target: Path, kept_as: Path, database_id: str
) -> Replacement:
    """Make everything irreplaceable of the live database what the backup holds, in one transaction;
    market data stays. Tables that are younger than the backup stay, too."""
    verify_same_encoding(irreplaceable, target)
    verify_space(
        target.parent, 2 * target.stat().st_size + irreplaceable.bytes, f"merging into {target}"
    )
    written_by = load_writer_version(target)

    with (
        closing(CommitCounter(target)) as counter,
        target.open("r+b", buffering=0) as file,
        busy_explained(target),
        closing(connect(target, lenient=True, timeout_seconds=WAIT_FOR_OTHERS_SECONDS)) as live,
    ):
        live.execute("PRAGMA foreign_keys = OFF")
        live.execute("ATTACH ? AS small", (str(irreplaceable.path),))
        counter.follow(live)

        with transaction(live):
            seen = counter.read()
            is_sound = keep_copy(target, kept_as, written_by)
            carry_small(live, irreplaceable)
            if load_database_id(live) != database_id:
                save_database_id(live, database_id)
            expected = read_outline(live)

        written = prove(
            target, expected, lambda: counter.read() == seen + 1, WAIT_FOR_OTHERS_SECONDS
        )
        shrink_log(live)
        keep_version_in_header(live, file.fileno(), written_by)

    return Replacement(kept_as, is_sound, None, written)


def carry_small(connection: sqlite3.Connection, irreplaceable: Backup) -> None:
    """Carry tables of the attached `irreplaceable` to main; compare them with the manifest."""
    carry_tables(connection, tables_to_keep(connection, "small"), source="small", target="main")
    expected = irreplaceable.manifest.content_sha256 if irreplaceable.manifest else {}
    for table, digest in expected.items():
        if hash_table(connection, table, like=digest)[0] != digest:
            raise VerificationError(
                f"table {table} did not arrive as {irreplaceable.path.name} holds it"
            )


def replace_with_built(
    choice: RestoreChoice, target: Path, kept_as: Path, database_id: str, say: Say
) -> Replacement:
    """Build the new database beside the target, then replace the target with it."""
    # For what no single file holds as it should be: a full backup with a newer small one on top, a
    # small one in a new schema, a backup without this database's id, a file with a -wal of its own.
    new = target.with_name(target.name + ".restoring" + ARRIVING)
    size = sum(backup.bytes for backup in (choice.full, choice.irreplaceable) if backup)
    verify_space_to_replace(target, size)
    verify_space(target.parent, 2 * size, f"building {new}")
    remove_database(new)

    try:
        build(choice, new, database_id, say)
        return replace_database(target, new, kept_as, timeout_seconds=WAIT_FOR_OTHERS_SECONDS)
    finally:
        remove_database(new)


def build(choice: RestoreChoice, new: Path, database_id: str, say: Say) -> None:
    """Write to the new file `new` what the chosen backups make together, with this identity."""
    sources = [backup.path for backup in (choice.full, choice.irreplaceable) if backup]
    written_by = max(map(load_writer_version, sources))
    if choice.full:
        with closing(connect(choice.full.path, lenient=True)) as source:
            copy_pinned(source, new, private=True)

    with closing(connect(new, create=True, lenient=True)) as connection:
        if not choice.full:
            encoding = encoding_of(sources[0])  # SQLite attaches no database of another one
            connection.execute(f"PRAGMA encoding = '{encoding}'")
            # A small backup brings every table of the platform that there was, in the platform's
            # own form.
            ensure_market_schema(connection)
        if choice.irreplaceable:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("ATTACH ? AS small", (str(choice.irreplaceable.path),))
            for line in describe_older_tables(connection) if choice.full else []:
                say(line)
            with transaction(connection):
                carry_small(connection, choice.irreplaceable)
        if database_id:
            save_database_id(connection, database_id)

    keep_writer_version(new, written_by)


def describe_older_tables(connection: sqlite3.Connection) -> list[str]:
    """Return a line for each table of the full backup (main) that the newer small one (small) does
    not have: the platform has renamed or dropped it in between."""
    older, newer = tables_to_keep(connection), tables_to_keep(connection, "small")
    gone, made = sorted(set(older) - set(newer)), sorted(set(newer) - set(older))
    # What the platform made of them stands beside them from now on.
    new_names = f"; new in it: {', '.join(made)}" if made else ""

    return [
        f"note: {table} is in the full backup and not in the newer small one, so it was renamed or "
        f"dropped in between{new_names}. It comes back as the full backup holds it; drop it when "
        "you do not need it"
        for table in gone
    ]


def encoding_of(database: Path) -> str:
    with closing(connect(database, read_only=True, lenient=True)) as connection:
        return str(connection.execute("PRAGMA encoding").fetchone()[0])


def verify_same_encoding(irreplaceable: Backup, target: Path) -> None:
    """Raise ProjectError when a small backup and the database that it shall go into hold their text
    in different encodings (UTF-8, UTF-16)."""
    ours, theirs = encoding_of(target), encoding_of(irreplaceable.path)
    if ours != theirs:
        raise ProjectError(
            f"{irreplaceable.path.name} has its text in {theirs}, {target} in {ours}: SQLite "
            "cannot unite the two",
            next_step="restore a full backup, or move the database aside and start the same "
            "command again",
        )


def bring_scripts_back(
    choice: RestoreChoice, folders: Sequence[Path], now_local: datetime, hooks: Hooks
) -> list[RestoredPart]:
    backup = choice.full
    if not backup or not backup.manifest or not backup.manifest.generated_scripts:
        return []
    scripts = backup.manifest.generated_scripts
    return restore_parts(backup.scripts_path, scripts, folders, now_local, hooks.say)
