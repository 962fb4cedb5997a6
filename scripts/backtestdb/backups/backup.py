"""One backup from beginning to end. A kill at any point leaves either no backup or a whole one."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.backups.backup_dir import ensure_backup_dir, verify_source_is_no_backup
from backtestdb.backups.catalogue import (
    Backup,
    choose_name,
    choose_taken_at,
    load_catalogue,
    lock_backups,
    look_at_backup,
    partial,
    scripts_path_of,
    verified,
)
from backtestdb.backups.content_hash import Contents
from backtestdb.backups.generated_scripts import copy_scripts
from backtestdb.backups.identity import identify, load_id_of_source, mark_others
from backtestdb.backups.known_folders import remember_folder
from backtestdb.backups.leftovers import clean_leftovers
from backtestdb.backups.manifest import GeneratedScripts, Kind, Manifest, write_manifest
from backtestdb.backups.retention import (
    choose_expired,
    choose_to_give_way,
    make_retention,
    remove_backup,
)
from backtestdb.backups.shrinkage import (
    Shrinkage,
    compare_with_newest,
    describe_losses,
    find_losses,
    find_newest,
    load_expected,
)
from backtestdb.backups.snapshot import (
    SourceFacts,
    copy_everything,
    copy_irreplaceable_tables,
    pinned_source,
    verify_source,
    with_contents,
)
from backtestdb.backups.unlocked_copy import GIVE_UP_AFTER_SECONDS, cannot_be_opened, steady_copy
from backtestdb.backups.verify import Findings, examine, make_manifest
from backtestdb.config import Settings
from backtestdb.console import Say, format_bytes
from backtestdb.errors import SpaceError, VerificationError
from backtestdb.files import fsync_directory, hash_file, remove_database, remove_tree

NAMED_AT_MOST = 5
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Hooks:
    """What a caller may listen to. `step`: the name of each step that is done, and where it can be
    killed. `cannot_be_opened`: whether SQLite has to keep off this database, see unlocked_copy.py;
    its writers then have `give_up_after_seconds` to hold still for the time of a copy."""

    say: Say = lambda _message: None
    step: OnStep = lambda _name: None
    cannot_be_opened: Callable[[Path], bool] = cannot_be_opened
    give_up_after_seconds: float = GIVE_UP_AFTER_SECONDS


@dataclass(frozen=True)
class Outcome:
    """`is_new` is False when nothing had changed and `backup` is the earlier one that still holds.
    `missing_folders`: those of GENERATED_SCRIPTS_DIR that the user named and that are not there."""

    backup: Backup
    is_new: bool
    removed: list[Backup]
    missing_folders: tuple[Path, ...] = ()

    @property
    def is_suspicious(self) -> bool:
        return self.backup.is_suspicious

    @property
    def not_copied(self) -> Mapping[str, str]:
        """Return the generated scripts that could not be copied, name -> reason."""
        scripts = self.backup.manifest.generated_scripts if self.backup.manifest else None
        return scripts.not_copied if scripts else {}


def make_backup(
    settings: Settings,
    kind: Kind,
    now: datetime,
    full_check: bool,
    hooks: Hooks,
    *,
    accept_loss: bool = False,
) -> Outcome:
    """Make one verified backup and remove those that have had their time. `accept_loss`: tables
    that lost rows since the last backup were meant to."""
    needs_copy = hooks.cannot_be_opened(settings.database_path)
    if not needs_copy:
        verify_source(settings.database_path)

    ensure_backup_dir(settings.backup_dir, settings.database_path)
    verify_source_is_no_backup(settings.database_path, settings.backup_dir)

    with lock_backups(settings.backup_dir):
        hooks.step("locked")
        for message in clean_leftovers(settings.backup_dir):
            hooks.say(message)
        hooks.step("cleaned")

        path = choose_name(settings.backup_dir, kind, now)
        with removed_on_failure(path), readable_source(settings, path, hooks, needs_copy) as source:
            everything = load_catalogue(settings.backup_dir)
            identity = identify(settings.database_path, load_id_of_source(source), everything)
            catalogue = mark_others(everything, identity)

            facts = take_snapshot_with_room(
                settings, source, kind, path, catalogue, hooks, accept_loss
            )
            if facts is None:
                # Nothing changed: the newest small backup goes on standing for the database.
                remove_database(partial(path))
                unchanged = verified(catalogue, kind)[0]
                confirm(unchanged.manifest_path, now)
                return Outcome(look_at_backup(unchanged.path), is_new=False, removed=[])

            findings = check_copy(partial(path), facts, full_check, hooks)
            kept_rows = {table: findings.rows[table] for table in findings.content_sha256}
            shrinkage = compare_with_newest(partial(path), kept_rows, catalogue)
            say_what_shrank(shrinkage, accept_loss=accept_loss, hooks=hooks)

            scripts = keep_scripts(settings, path, hooks) if kind == "full" else None
            manifest = make_manifest(
                findings,
                kind=kind,
                file=path.name,
                source=identity,
                shrinkage=shrinkage,
                accepts_loss=accept_loss,
                scripts=scripts,
                taken_at_utc=choose_taken_at(catalogue, now.astimezone(UTC)),
                clock_utc=now.astimezone(UTC),
            )
            publish(manifest, path, hooks)

        remember_folder(settings.database_path, settings.backup_dir)
        made = look_at_backup(path)
        # Older ones may go only now: the new one is verified, and its name is on the disk.
        removed = prune(settings, [made, *catalogue], kind, hooks)

    missing = find_missing_folders(settings) if kind == "full" else ()
    return Outcome(made, is_new=True, removed=removed, missing_folders=missing)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Give the space of a failed run back at once; a killed run's goes with the next run."""
    try:
        yield
    except BaseException:
        remove_database(partial(path))
        remove_tree(partial(scripts_path_of(path)))
        clean_leftovers(path.parent)
        raise


def readable_source(
    settings: Settings, path: Path, hooks: Hooks, needs_copy: bool
) -> AbstractContextManager[Path]:
    """Return the database, or a proven copy of it where SQLite must not open it; named so that the
    next run removes what a killed one leaves."""
    if not needs_copy:
        return nullcontext(settings.database_path)
    return steady_copy(
        settings.database_path,
        partial(path.with_name(f"{partial(path).name}.source")),
        say=hooks.say,
        give_up_after_seconds=hooks.give_up_after_seconds,
    )


def take_snapshot_with_room(
    settings: Settings,
    source: Path,
    kind: Kind,
    path: Path,
    catalogue: list[Backup],
    hooks: Hooks,
    accept_loss: bool,
) -> SourceFacts | None:
    """Take the snapshot; when space is missing, let the oldest full backups give way, down to
    MIN_BACKUPS, if that helps."""
    try:
        return take_snapshot(source, kind, path, catalogue, hooks, accept_loss)
    except SpaceError as error:
        giving_way = choose_to_give_way(catalogue, error.missing_bytes, settings.min_backups)
        if not giving_way:
            raise

    for backup in giving_way:
        remove_backup(backup, hooks.step)
        catalogue.remove(backup)
        hooks.say(
            f"removed {backup.path.name}: the disk is full, and MIN_BACKUPS newer ones are kept"
        )

    return take_snapshot(source, kind, path, catalogue, hooks, accept_loss)


def take_snapshot(
    source_path: Path,
    kind: Kind,
    path: Path,
    catalogue: list[Backup],
    hooks: Hooks,
    accept_loss: bool,
) -> SourceFacts | None:
    """Write the partial file; None when the newest small backup holds the same already."""
    target = partial(path)
    if kind == "full":
        facts = copy_everything(source_path, target, on_step=hooks.step)
    else:
        earlier = verified(catalogue, kind)
        with pinned_source(source_path, fresh=target) as source:
            hooks.step("pinned")
            facts = copy_irreplaceable_tables(
                source, target, expected_bytes=earlier[0].bytes if earlier else 0
            )
        # The copy is hashed, not the source: 300 MB take 1.3 s, for which writers would wait.
        facts = with_contents(facts, target)
        if not accept_loss and holds_the_same(catalogue, facts.contents):
            return None

    hooks.step("copied")
    hooks.say(f"snapshot: {format_bytes(target.stat().st_size)}")
    return facts


def holds_the_same(catalogue: list[Backup], contents: Contents | None) -> bool:
    """Return whether the newest small backup holds what the database holds and can stand for it."""
    newest, small = find_newest(catalogue), next(iter(verified(catalogue, "irreplaceable")), None)
    manifest = small.manifest if small else None

    return (
        small is not None
        and manifest is not None
        and contents is not None
        # Hashes of all rows: a number in a file's header or its time can miss a change.
        and manifest.content_sha256 == contents.tables
        and manifest.structure_sha256 == contents.structure
        # A newer full backup with other rows would be taken for the newer state by a restore.
        and newest is not None
        and newest.manifest is not None
        and newest.manifest.content_sha256 == contents.tables
        # A loss that was accepted since, or rows that came back, need a new manifest.
        and small.is_suspicious
        == bool(find_losses(load_expected(newest.manifest), manifest.kept_rows))
        and manifest.sha256 == hash_file(small.path)
    )


def check_copy(copy: Path, facts: SourceFacts, full_check: bool, hooks: Hooks) -> Findings:
    """Read the copy anew, not from memory, and compare it with the state it was made from."""
    findings = examine(copy, full=full_check, flush=True)
    if findings.tables != facts.tables:
        different = sorted(set(findings.tables) ^ set(facts.tables))
        raise VerificationError(
            f"the copy and the source do not have the same tables: {', '.join(different)}"
        )

    emptied = [table for table in facts.filled_tables if not findings.rows[table]]
    if emptied:
        raise VerificationError(
            f"tables arrived empty that have rows in the source: {', '.join(emptied)}"
        )

    if facts.contents:
        if facts.contents.tables != findings.content_sha256:
            raise VerificationError("the copied tables do not hold what the source held")
        findings = replace(findings, structure_sha256=facts.contents.structure)

    hooks.step("checked")
    hooks.say(
        f"checked: {findings.check} ok, {len(findings.tables)} tables, "
        f"{sum(findings.rows.values()):,} rows"
    )

    if findings.foreign_key_violations:
        hooks.say(
            f"note: {findings.foreign_key_violations:,} rows refer to a row that does not exist"
        )

    for broken in findings.broken_rules:
        hooks.say(
            f"note: a row breaks a rule of its table, and is in the backup as it is: {broken}"
        )

    return findings


def keep_scripts(settings: Settings, path: Path, hooks: Hooks) -> GeneratedScripts | None:
    """Copy the generated scripts; return None when there are none."""
    there = [folder for folder in settings.generated_scripts_dirs if folder.is_dir()]
    for folder in settings.generated_scripts_dirs:
        if folder not in there:
            hooks.say(f"no generated scripts: there is no folder {folder}")

    folder = scripts_path_of(path)
    limit = settings.generated_scripts_max_megabytes * 1_000_000

    # What cannot be copied is listed: no script is worth the backup of the database.
    scripts = copy_scripts(there, partial(folder), folder.name, limit_bytes=limit)

    if scripts:
        hooks.step("scripts copied")
        hooks.say(f"generated scripts: {scripts.count:,} files")
        for name, reason in list(scripts.not_copied.items())[:NAMED_AT_MOST]:
            hooks.say(f"not copied: {name}: {reason}")

    return scripts


def find_missing_folders(settings: Settings) -> tuple[Path, ...]:
    """Return folders of scripts that the user named; the default one need not be there."""
    if settings.scripts_dirs_are_default:
        return ()
    return tuple(folder for folder in settings.generated_scripts_dirs if not folder.is_dir())


def say_what_shrank(shrinkage: Shrinkage, *, accept_loss: bool, hooks: Hooks) -> None:
    for before, after in shrinkage.renames.items():
        hooks.say(f"note: table {before} seems to have been renamed to {after}")
    if shrinkage.losses:
        is_meant = "accepted: " if accept_loss else "SUSPICIOUS, rows were lost: "
        hooks.say(is_meant + describe_losses(shrinkage.losses))


def publish(manifest: Manifest, path: Path, hooks: Hooks) -> None:
    """Give the checked parts their names, the manifest last: with it they become a backup."""
    manifest_path = path.with_suffix(".json")
    write_manifest(manifest, partial(manifest_path))
    confirm(partial(manifest_path), manifest.clock_utc)
    fsync_directory(path.parent)
    hooks.step("manifest written")

    # All of it is on the disk by now, so a power cut does not change this order.
    if manifest.generated_scripts:
        partial(scripts_path_of(path)).rename(scripts_path_of(path))
        hooks.step("scripts named")
    partial(path).rename(path)
    fsync_directory(path.parent)
    hooks.step("database named")
    partial(manifest_path).rename(manifest_path)
    fsync_directory(path.parent)
    hooks.step("manifest named")


def confirm(manifest_path: Path, now: datetime) -> None:
    """Set the time at which a backup was last known to hold all that there is."""
    os.utime(manifest_path, (now.timestamp(), now.timestamp()))


def prune(settings: Settings, catalogue: list[Backup], kind: Kind, hooks: Hooks) -> list[Backup]:
    expired = choose_expired(catalogue, kind, make_retention(settings, kind))
    for backup in expired:
        remove_backup(backup, hooks.step)
        hooks.say(f"removed {backup.path.name}: newer ones are kept")
    hooks.step("pruned")
    return expired
