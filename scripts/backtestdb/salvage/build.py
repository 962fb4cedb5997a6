"""From the pages of the private copy and the newest backup to the new database."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backtestdb.backups.catalogue import Backup
from backtestdb.backups.restore_choice import RestoreChoice
from backtestdb.database import (
    Connection,
    connect,
    connect_to_read,
    quote,
    skip_unreadable_schema,
    table_names,
    transaction,
)
from backtestdb.salvage.objects import (
    Schema,
    SchemaObject,
    create_objects,
    load_backup_schema,
    load_live_schema,
    make_creatable,
    unite,
)
from backtestdb.salvage.orphans import adopt_orphans
from backtestdb.salvage.pages import PageFile
from backtestdb.salvage.records import decode
from backtestdb.salvage.rows import claim_pages, read_records
from backtestdb.salvage.scan import Scan, scan_pages
from backtestdb.salvage.sources import TableSource, describe_tables, find_source
from backtestdb.salvage.trees import read_tree
from backtestdb.salvage.union import (
    TableOutcome,
    create_virtual_tables,
    fill_table,
    keep_together,
    make_orphaned_outcome,
    raise_sequences,
)
from backtestdb.schema import KEPT_CLASSES, class_of, ensure_schema
from backtestdb.table_copy import has_sequences


@dataclass(frozen=True)
class Built:
    """`strays`: pages with rows of which no table can be told. `not_created`: names of views,
    triggers and the like that this SQLite refused. `plain`: tables with plain columns, and why this
    SQLite refused their own text."""

    tables: list[TableOutcome]
    strays: int
    not_created: list[str]
    plain: dict[str, str]


def build(
    new: Path, file: PageFile, choice: RestoreChoice | None, *, first_page_is_lost: bool
) -> Built:
    """Make the database `new`; return what became of each table of the damaged file, and of the
    backup's that it does not have."""
    scan = scan_pages(file, first_page_is_lost=first_page_is_lost)
    live = load_live_schema(file, scan.parentless, first_page_is_lost=first_page_is_lost)
    with opened_backup(choice) as saved:
        schema = unite(live, load_known_objects(choice, saved))
        orphaned = find_orphaned_tables(schema)
        sources, strays = find_sources(file, schema, scan, saved, orphaned)
        version = (
            int.from_bytes(file.data[60:64]) if not first_page_is_lost else load_version(saved)
        )

    claims = claim_pages(
        file, [tree for source in sources.values() for tree in (*source.trees, *source.doubtful)]
    )
    new.touch(0o600)

    with closing(connect(new, create=True)) as target:
        prepare(target, file, choice)
        with transaction(target):
            not_created = create_objects(target, tables_and_indexes(schema, sources))
            virtual = [one for one in schema.of_kind("table") if one.root == 0]
            backup_date = (
                f"{newest_of(choice).taken_at_utc.astimezone():%Y_%m_%d}" if choice else ""
            )

            outcomes = {
                table: fill_table(target, file, source, claims, backup_date=backup_date)
                for table, source in sources.items()
            }
            for table in orphaned:
                outcomes[table] = make_orphaned_outcome(target, table, backup_date)
            for table in schema.unreadable:
                outcomes[table] = TableOutcome(table=table, lost_pages=1)

            for one in virtual:
                group = [
                    source for table, source in sources.items() if table.startswith(f"{one.name}_")
                ]
                keep_together(target, group, outcomes, has_backup=choice is not None)

            raise_sequences(
                target, load_sequences(file, schema, target, has_backup=choice is not None)
            )

            create_virtual_tables(target, virtual)
            not_created += create_objects(target, schema.of_kind("view"))

            present = {*sources, *(view.name for view in schema.of_kind("view"))}
            triggers = [
                trigger for trigger in schema.of_kind("trigger") if trigger.table in present
            ]
            not_created += create_objects(target, triggers)

            target.execute(f"PRAGMA user_version = {version}")

    plain = {
        one.name: one.refusal
        for one in schema.of_kind("table")
        if one.plain and one.name in sources
    }

    return Built(list(outcomes.values()), strays, not_created, plain)


def newest_of(choice: RestoreChoice) -> Backup:
    """Return the backup that holds the newest rows; a choice is never empty."""
    backup = choice.irreplaceable or choice.full
    if backup is None:
        raise ValueError("a choice without a backup")
    return backup


@contextmanager
def opened_backup(choice: RestoreChoice | None) -> Iterator[sqlite3.Connection | None]:
    if choice is None:
        yield None
        return
    with closing(connect_to_read(newest_of(choice).path)) as saved:
        saved.text_factory = bytearray
        yield saved


def load_known_objects(
    choice: RestoreChoice | None, saved: sqlite3.Connection | None
) -> list[SchemaObject]:
    """Return the schema of the newest backup, with the root pages of the newest full one, which is
    a copy of the file page by page; the project's own schema where there is no backup."""
    if choice is None or saved is None:
        with closing(
            sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
        ) as connection:
            ensure_schema(connection)
            return load_backup_schema(connection, {})

    roots: dict[str, int] = {}
    if choice.full:
        with closing(connect_to_read(choice.full.path)) as full:
            roots = dict(
                full.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'")
            )

    saved.text_factory = str
    objects = load_backup_schema(saved, roots)
    saved.text_factory = bytearray
    # A backup is what it was when it was made.
    return make_creatable(objects, is_from_newer_sqlite=True)


def load_version(saved: sqlite3.Connection | None) -> int:
    return int(saved.execute("PRAGMA user_version").fetchone()[0]) if saved else 0


def find_sources(
    file: PageFile,
    schema: Schema,
    scan: Scan,
    saved: sqlite3.Connection | None,
    orphaned: list[str],
) -> tuple[dict[str, TableSource], int]:
    """Return for each live table where its rows are, and the number of pages that belong to no
    table. `saved`: a connection to the backup; `orphaned`: tables that only the backup has."""
    described, entries = describe_tables(schema)
    sources = {
        table: find_source(file, one, saved)
        for table, one in described.items()
        if class_of(table) in KEPT_CLASSES and table not in orphaned
    }
    rivals = [one.shape for table, one in described.items() if table not in sources] + entries
    roots = {one.root for one in schema.objects if one.is_live}
    return sources, adopt_orphans(file, scan, sources, rivals, roots, saved)


def find_orphaned_tables(schema: Schema) -> list[str]:
    """Return tables that only the backup has and that refer to one that is no longer there."""
    tables = {one.name.lower() for one in schema.of_kind("table")}
    orphaned = []
    with closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        for one in schema.of_kind("table"):
            if one.has_rows and not one.is_live:
                connection.execute(one.creation)
                parents = connection.execute(f"PRAGMA foreign_key_list({quote(one.name)})")
                # The parent was renamed since, perhaps: no row could be added to this table under
                # its own name.
                if any(str(row[2]).lower() not in tables for row in parents):
                    orphaned.append(one.name)
    return orphaned


def prepare(target: sqlite3.Connection, file: PageFile, choice: RestoreChoice | None) -> None:
    """Make the new database ready: its page size and encoding are those of the damaged file, and
    the backup is attached as `saved`."""
    target.execute("PRAGMA foreign_keys = OFF")
    target.execute(f"PRAGMA page_size = {file.page_size}")
    target.execute(f"PRAGMA encoding = '{file.encoding.replace('-16-', '-16')}'")
    target.execute("PRAGMA synchronous = OFF")
    # What was stored is taken as it was stored.
    target.execute("PRAGMA ignore_check_constraints = ON")
    if choice:
        skip_unreadable_schema(target)  # of the backup: views that say "main.", or that are too new
        target.execute("ATTACH ? AS saved", (str(newest_of(choice).path),))


def tables_and_indexes(schema: Schema, sources: dict[str, TableSource]) -> list[SchemaObject]:
    """Create tables and their unique indexes before the rows, so that no two rows of one key come
    together."""
    tables = [one for one in schema.of_kind("table") if one.name in sources]
    return tables + [one for one in schema.of_kind("index") if one.table in sources and one.sql]


def load_sequences(
    file: PageFile, schema: Schema, target: sqlite3.Connection, *, has_backup: bool
) -> list[tuple[str, int]]:
    """Return the last numbers given out, as far as the damaged file and the backup tell."""
    found = []
    for one in schema.of_kind("table"):
        if one.name == "sqlite_sequence" and one.is_live:
            tree = read_tree(file, one.root, is_index=False)
            for record in read_records(file, tree.pages, Counter()):
                if record and len(record[1]) == 2:
                    found.append(decode(record[1], "utf-8"))

    if has_backup and has_sequences(target, "saved"):
        found += target.execute("SELECT name, seq FROM saved.sqlite_sequence").fetchall()
    kept = set(table_names(target))
    return [
        (str(name), number) for name, number in found if name in kept and isinstance(number, int)
    ]
