"""The schema: from the damaged file as far as it can be read, from the backup where it cannot."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

from backtestdb.database import Connection, table_names
from backtestdb.salvage.pages import TABLE_LEAF, DamagedError, PageFile, parse_page, read_payload
from backtestdb.salvage.records import decode, parse_record
from backtestdb.salvage.trees import read_tree

KINDS = {"table", "index", "view", "trigger"}


@dataclass(frozen=True)
class SchemaObject:
    """`root`: the page at which a table or index begins, 0 where it has none or where it is not known.
    `is_live`: read from the damaged file, and not from the backup."""

    kind: str
    name: str
    table: str
    root: int
    sql: str
    is_live: bool


@dataclass(frozen=True)
class Schema:
    """`is_complete`: every page of the live schema could be read, so what it lacks was dropped."""

    objects: list[SchemaObject]
    is_complete: bool

    def of_kind(self, *kinds: str) -> list[SchemaObject]:
        return [one for one in self.objects if one.kind in kinds]


def load_live_schema(file: PageFile, parentless: Iterable[int], *, first_page_is_lost: bool) -> Schema:
    """From page 1 downwards; below a page that is lost, from whatever pages look like a schema."""
    found, is_complete = [], not first_page_is_lost
    if not first_page_is_lost:
        tree = read_tree(file, 1, is_index=False)
        pages = [parse_objects(file, number) for number in tree.pages]
        is_complete = not tree.gaps and None not in pages
        found = [one for page in pages for one in page or []]
    if not is_complete:
        found += [one for number in parentless for one in parse_objects(file, number) or []]
    sound = keep_creatable(without_conflicts(found))
    return Schema(sound, is_complete and len(sound) == len(found))


def keep_creatable(objects: list[SchemaObject]) -> list[SchemaObject]:
    """Without the tables whose text no longer makes a table of their name: a bit of it has changed."""
    with closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        for one in objects:
            if one.kind == "table" and one.root and not one.name.startswith("sqlite_"):
                with suppress(sqlite3.DatabaseError):
                    connection.execute(one.sql)
        made = set(table_names(connection))
    broken = {
        one
        for one in objects
        if one.kind == "table" and one.root and not one.name.startswith("sqlite_") and one.name not in made
    }
    return [one for one in objects if one not in broken]


def parse_objects(file: PageFile, number: int) -> list[SchemaObject] | None:
    """None when this page is not wholly one of a schema."""
    try:
        page = parse_page(file, number)
        if page.kind != TABLE_LEAF:
            return None
        return [
            parse_object(decode(parse_record(read_payload(file, page, cell)), file.encoding), file)
            for cell in page.cells
        ]
    except DamagedError:
        return None


def parse_object(values: list[object], file: PageFile) -> SchemaObject:
    if len(values) != 5:
        raise DamagedError("not a row of a schema")
    kind, name, table, root, sql = values
    if kind not in KINDS or not isinstance(name, str) or not isinstance(table, str):
        raise DamagedError("not a row of a schema")
    if not isinstance(root, int) or not 0 <= root <= file.count or not isinstance(sql, str | None):
        raise DamagedError("not a row of a schema")
    return SchemaObject(str(kind), name, table, root, sql or "", is_live=True)


def without_conflicts(objects: Iterable[SchemaObject]) -> list[SchemaObject]:
    """Two versions of one object: one of them is from an earlier time, and nothing tells which."""
    versions: dict[tuple[str, str], set[SchemaObject]] = {}
    for one in objects:
        versions.setdefault((one.kind, one.name.lower()), set()).add(one)
    return [same.pop() for same in versions.values() if len(same) == 1]


def load_backup_schema(connection: sqlite3.Connection, roots: Mapping[str, int]) -> list[SchemaObject]:
    """`roots`: where tables begin in the damaged file, if that did not change since; -1 where unknown."""
    rows = connection.execute("SELECT type, name, tbl_name, rootpage, coalesce(sql, '') FROM sqlite_schema")
    return [
        SchemaObject(kind, name, table, roots.get(name, -1) if root else 0, sql, is_live=False)
        for kind, name, table, root, sql in rows
    ]


def unite(live: Schema, saved: Iterable[SchemaObject]) -> Schema:
    if live.is_complete:
        return live
    known = {one.name.lower() for one in live.objects}
    return Schema(live.objects + [one for one in saved if one.name.lower() not in known], is_complete=False)


def create_objects(target: sqlite3.Connection, objects: Iterable[SchemaObject]) -> list[str]:
    """Return the names of those that could not be created."""
    failed = []
    for one in objects:
        try:
            target.execute(one.sql)
        except sqlite3.DatabaseError:
            failed.append(one.name)
    return failed
