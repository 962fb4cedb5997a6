"""The schema: from the damaged file as far as it can be read, from the backup where it cannot."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

from backtestdb.database import Connection, table_names
from backtestdb.newer_sqlite import VERSION, sqlite_version_number
from backtestdb.plain_tables import make_plain_table
from backtestdb.salvage.pages import TABLE_LEAF, DamagedError, PageFile, parse_page, read_payload
from backtestdb.salvage.records import decode, parse_record
from backtestdb.salvage.trees import read_tree

NOT_OURS = ("no such function", "no such collation", "unknown function")
KINDS = {"table", "index", "view", "trigger"}


@dataclass(frozen=True, kw_only=True)
class SchemaObject:
    """`root`: the page at which a table or index begins, 0 where it has none or where it is not
    known. `is_live`: read from the damaged file, and not from the backup. `plain`: the text of a
    table of plain columns, where this SQLite refuses the true one (`refusal`); `is_doubtful`: that
    may be because it is damaged."""

    kind: str
    name: str
    table: str
    root: int
    sql: str
    is_live: bool
    plain: str = ""
    refusal: str = ""
    is_doubtful: bool = False

    @property
    def has_rows(self) -> bool:
        """Return whether this is a table with rows of its own, and not one of SQLite's."""
        return (
            self.kind == "table" and bool(self.root) and not self.name.lower().startswith("sqlite_")
        )

    @property
    def creation(self) -> str:
        """Return the text that this SQLite understands."""
        return self.plain or self.sql


@dataclass(frozen=True)
class Schema:
    """`is_complete`: every page of the live schema could be read, so what it lacks was dropped.
    `unreadable`: tables that are in it and of which nothing can be made."""

    objects: list[SchemaObject]
    is_complete: bool
    unreadable: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[SchemaObject]:
        return [one for one in self.objects if one.kind in kinds]


def load_live_schema(
    file: PageFile, parentless: Iterable[int], *, first_page_is_lost: bool
) -> Schema:
    """Read the schema from page 1 downwards; below a page that is lost, from whatever pages look
    like a schema."""
    found, is_complete = [], not first_page_is_lost
    if not first_page_is_lost:
        tree = read_tree(file, 1, is_index=False)
        pages = [parse_objects(file, number) for number in tree.pages]
        is_complete = not tree.gaps and None not in pages
        found = [one for page in pages for one in page or []]

    if not is_complete:
        found += [one for number in parentless for one in parse_objects(file, number) or []]
    is_newer = (
        int.from_bytes(file.data[VERSION]) > sqlite_version_number() and not first_page_is_lost
    )
    sound = make_creatable(without_conflicts(found), is_from_newer_sqlite=is_newer)
    unreadable = {one.name for one in found if one.kind == "table"} - {one.name for one in sound}

    return Schema(sound, is_complete and len(sound) == len(found), sorted(unreadable))


def make_creatable(
    objects: list[SchemaObject], *, is_from_newer_sqlite: bool
) -> list[SchemaObject]:
    """Give a table that this SQLite cannot create plain columns."""
    creatable = []
    with closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        for one in objects:
            refusal = find_refusal(connection, one) if one.has_rows else ""
            plain = make_plain_table(one.sql, one.name) if refusal and is_text(one.sql) else None
            if not refusal:
                creatable.append(one)
            # A table without plain columns is left out: a bit of its text has changed.
            elif plain:
                is_doubtful = not (is_from_newer_sqlite or refusal.startswith(NOT_OURS))
                creatable.append(
                    replace(one, plain=plain, refusal=refusal, is_doubtful=is_doubtful)
                )

    return creatable


def find_refusal(connection: sqlite3.Connection, one: SchemaObject) -> str:
    """Return why this SQLite cannot create the table; empty when it can, and has."""
    try:
        connection.execute(one.sql)
    except sqlite3.Error as error:
        return str(error)
    return "" if one.name in table_names(connection) else "its text makes another table"


def parse_objects(file: PageFile, number: int) -> list[SchemaObject] | None:
    """Return None when this page is not wholly one of a schema."""
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
    """Given the values of a row of the schema, return the object. Raise DamagedError for what
    cannot be a row of the schema."""
    if len(values) != 5:
        raise DamagedError("not a row of a schema")
    kind, name, table, root, sql = values
    if kind not in KINDS or not isinstance(name, str) or not isinstance(table, str):
        raise DamagedError("not a row of a schema")
    if not isinstance(root, int) or not 0 <= root <= file.count or not isinstance(sql, str | None):
        raise DamagedError("not a row of a schema")
    return SchemaObject(
        kind=str(kind), name=name, table=table, root=root, sql=sql or "", is_live=True
    )


def without_conflicts(objects: Iterable[SchemaObject]) -> list[SchemaObject]:
    """Leave out both of two versions of one object: nothing tells which is from an earlier time."""
    versions: dict[tuple[str, str], set[SchemaObject]] = {}
    for one in objects:
        versions.setdefault((one.kind, one.name.lower()), set()).add(one)
    return [same.pop() for same in versions.values() if len(same) == 1]


def load_backup_schema(
    connection: sqlite3.Connection, roots: Mapping[str, int]
) -> list[SchemaObject]:
    """Read the schema of the backup. `roots`: where tables begin in the damaged file, if that did
    not change since; -1 where unknown."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, rootpage, coalesce(sql, '') FROM sqlite_schema"
    )

    return [
        SchemaObject(
            kind=kind,
            name=name,
            table=table,
            root=roots.get(name, -1) if root else 0,
            sql=sql,
            is_live=False,
        )
        for kind, name, table, root, sql in rows
    ]


def unite(live: Schema, saved: Iterable[SchemaObject]) -> Schema:
    """Take the backup's text where that of a live table may be damaged, unless it is the same."""
    saved = list(saved)
    by_name = {one.name.lower(): one for one in saved}
    doubtful = {
        one.name.lower()
        for one in live.objects
        if one.is_doubtful and by_name.get(one.name.lower(), one).sql != one.sql
    }

    if live.is_complete and not doubtful:
        return live
    kept = [one for one in live.objects if one.name.lower() not in doubtful]
    known = {one.name.lower() for one in kept}
    added = [one for one in saved if one.name.lower() not in known]
    if live.is_complete:  # then what it lacks was dropped
        added = [one for one in added if one.name.lower() in doubtful]
    unreadable = [name for name in live.unreadable if name.lower() not in by_name]

    return Schema(kept + added, is_complete=False, unreadable=unreadable)


def is_text(sql: str) -> bool:
    return all(letter.isprintable() or letter in "\t\r\n" for letter in sql)


def create_objects(target: sqlite3.Connection, objects: Iterable[SchemaObject]) -> list[str]:
    """Return the names of those that could not be created."""
    failed = []
    for one in objects:
        try:
            target.execute(one.creation)
        except sqlite3.DatabaseError:
            failed.append(one.name)
    return failed
