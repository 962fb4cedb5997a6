"""One backup from beginning to end. A kill at any point leaves either no backup or a whole one."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.backups.backup_dir import ensure_backup_dir, save_mount_point, verify_source_is_no_backup
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
from backtestdb.backups.generated_scripts import copy_scripts, tree_bytes
from backtestdb.backups.identity import identify, load_id_of_source, mark_others
from backtestdb.backups.leftovers import clean_leftovers
from backtestdb.backups.manifest import GeneratedScripts, Kind, Manifest, write_manifest
from backtestdb.backups.retention import choose_expired, remove_backup
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
from backtestdb.console import format_bytes
from backtestdb.errors import VerificationError
from backtestdb.files import fsync_directory, hash_file, remove_database, remove_tree, verify_space

Say = Callable[[str], None]
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Hooks:
    """What a caller may listen to. `step`: the name of each step that is done, and where it can be killed.
    `cannot_be_opened`: whether SQLite has to keep off this database, see unlocked_copy.py; its writers then have
    `give_up_after_seconds` to hold still for the time of a copy."""

    say: Say = lambda _message: None
    step: OnStep = lambda _name: None
    cannot_be_opened: Callable[[Path], bool] = cannot_be_opened
    give_up_after_seconds: float = GIVE_UP_AFTER_SECONDS


@dataclass(frozen=True)
class Outcome:
    """`is_new` is False when nothing had changed and `backup` is the earlier one that still holds."""

    backup: Backup
    is_new: bool
    removed: list[Backup]


def make_backup(settings: Settings, kind: Kind, now: datetime, full_check: bool, hooks: Hooks) -> Outcome:
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
            facts = take_snapshot(source, kind, path, catalogue, hooks)
            if facts is None:
                remove_database(partial(path))
                unchanged = verified(catalogue, kind)[0]
                confirm(unchanged.manifest_path, now)
                return Outcome(look_at_backup(unchanged.path), is_new=False, removed=[])
            findings = check_copy(partial(path), facts, full_check, hooks)
            scripts = keep_scripts(settings, path, hooks) if kind == "full" else None
            manifest = make_manifest(
                findings,
                kind=kind,
                file=path.name,
                source=identity,
                scripts=scripts,
                taken_at_utc=choose_taken_at(catalogue, now.astimezone(UTC)),
                clock_utc=now.astimezone(UTC),
            )
            publish(manifest, path, hooks)
        save_mount_point(settings.database_path, settings.backup_dir)
        made = look_at_backup(path)
        removed = prune(settings, [made, *catalogue], kind, hooks)
    return Outcome(made, is_new=True, removed=removed)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """A run that fails gives its space back at once; one that is killed leaves that to the next run."""
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
    """The database, or a proven copy of it where SQLite must not open it; named so that the next run removes
    what a killed one leaves."""
    if not needs_copy:
        return nullcontext(settings.database_path)
    return steady_copy(
        settings.database_path,
        partial(path.with_name(f"{partial(path).name}.source")),
        say=hooks.say,
        give_up_after_seconds=hooks.give_up_after_seconds,
    )


def take_snapshot(
    source_path: Path, kind: Kind, path: Path, catalogue: list[Backup], hooks: Hooks
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
        if holds_the_same(earlier, facts.contents):
            return None
    hooks.step("copied")
    hooks.say(f"snapshot: {format_bytes(target.stat().st_size)}")
    return facts


def holds_the_same(backups: list[Backup], contents: Contents | None) -> bool:
    """Compared by hashes of all rows: a number in a file's header or its time can miss a change. The backup
    that is to go on standing for the database is read again, too."""
    newest = backups[0].manifest if backups else None
    return (
        newest is not None
        and contents is not None
        and newest.content_sha256 == contents.tables
        and newest.structure_sha256 == contents.structure
        and newest.sha256 == hash_file(backups[0].path)
    )


def check_copy(copy: Path, facts: SourceFacts, full_check: bool, hooks: Hooks) -> Findings:
    """Read the copy again, with nothing of it in memory, and compare it with the state it was made from."""
    findings = examine(copy, full=full_check, flush=True)
    if findings.tables != facts.tables:
        different = sorted(set(findings.tables) ^ set(facts.tables))
        raise VerificationError(
            f"the copy and the source do not have the same tables: {', '.join(different)}"
        )
    emptied = [table for table in facts.filled_tables if not findings.rows[table]]
    if emptied:
        raise VerificationError(f"tables arrived empty that have rows in the source: {', '.join(emptied)}")
    if facts.contents:
        if facts.contents.tables != findings.content_sha256:
            raise VerificationError("the copied tables do not hold what the source held")
        findings = replace(findings, structure_sha256=facts.contents.structure)
    hooks.step("checked")
    hooks.say(
        f"checked: {findings.check} ok, {len(findings.tables)} tables, {sum(findings.rows.values()):,} rows"
    )
    if findings.foreign_key_violations:
        hooks.say(f"note: {findings.foreign_key_violations:,} rows refer to a row that does not exist")
    for broken in findings.broken_rules:
        hooks.say(f"note: a row breaks a rule of its table, and is in the backup as it is: {broken}")
    return findings


def keep_scripts(settings: Settings, path: Path, hooks: Hooks) -> GeneratedScripts | None:
    folder = scripts_path_of(path)
    source = settings.generated_scripts_dir
    verify_space(path.parent, tree_bytes(source), f"the copy of {source}")
    scripts = copy_scripts(source, partial(folder), folder.name)
    if scripts:
        hooks.step("scripts copied")
        hooks.say(f"generated scripts: {scripts.count:,} files")
    return scripts


def publish(manifest: Manifest, path: Path, hooks: Hooks) -> None:
    """Give the checked parts their names, the manifest last: with it they become a backup. Everything is on
    the disk before, so a power cut does not reorder this."""
    manifest_path = path.with_suffix(".json")
    write_manifest(manifest, partial(manifest_path))
    confirm(partial(manifest_path), manifest.clock_utc)
    fsync_directory(path.parent)
    hooks.step("manifest written")
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
    """The time of a manifest says when its backup was last known to hold all that there is."""
    os.utime(manifest_path, (now.timestamp(), now.timestamp()))


def prune(settings: Settings, catalogue: list[Backup], kind: Kind, hooks: Hooks) -> list[Backup]:
    keep = settings.max_backups if kind == "full" else settings.max_irreplaceable_backups
    expired = choose_expired(catalogue, kind, keep)
    for backup in expired:
        remove_backup(backup, hooks.step)
        hooks.say(f"removed {backup.path.name}: {keep} newer ones are kept")
    hooks.step("pruned")
    return expired
