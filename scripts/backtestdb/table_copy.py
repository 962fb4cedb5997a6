"""Carry tables from one database to another exactly as they are: their own schema, every row, every
type.

The platform grows columns, tables, triggers and full-text indexes of its own. So the text that made
a table comes from the database that holds it, and rows go from file to file inside SQLite: text
that is not valid UTF-8 would not survive the way through Python.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from backtestdb.database import (
    column_names,
    count_rows,
    primary_code,
    quote,
    unreadable_table_names,
    virtual_table_names,
)
from backtestdb.errors import VerificationError
from backtestdb.newer_sqlite import NEWER_PYTHON, TOO_NEW
from backtestdb.plain_tables import make_plain_table
from backtestdb.stand_ins import add_stand_in

# SQLite stores the text of every object from its name onwards, behind a beginning of its own.
BEGINNING = re.compile(r"CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|TRIGGER)\s+", re.IGNORECASE)
TEXT_OR_SCHEMA = re.compile(r"(?P<text>'(?:[^']|'')*')|\bmain\s*\.|\"main\"\s*\.", re.IGNORECASE)
CALL = re.compile(r"(\w+)\s*\(")
NO_FUNCTIONS = {"in", "and", "or", "not", "where", "when", "then", "else", "between"}
ROWID_NAMES = ("rowid", "_rowid_", "oid")


def carry_tables(
    connection: sqlite3.Connection,
    tables: Iterable[str],
    *,
    source: str = "main",
    target: str = "fresh",
) -> dict[str, int]:
    """Make `tables` in the schema `target` what they are in the schema `source`; return rows per
    table.

    Tables of the same names in `target` are dropped first. Indexes and triggers come with their
    tables, all views come too, triggers after the rows. Virtual tables (full-text indexes) are in
    `tables` together with the tables that hold their content; they are not opened, so their module
    need not be there, and have no number in the answer. The caller has set foreign_keys OFF and
    begun a transaction, in which SQLite ignores that setting. Raise VerificationError when a table
    arrived with another number of rows.
    """
    if not connection.in_transaction or connection.execute("PRAGMA foreign_keys").fetchone()[0]:
        raise ValueError("carry_tables needs an open transaction and foreign_keys = OFF")
    allow_schema_writes(connection)
    wanted = list(tables)
    virtual = virtual_table_names(connection, source)
    ordinary = [table for table in wanted if table not in virtual]
    verify_readable(connection, ordinary, source)

    for table in [table for table in wanted if table in virtual] + ordinary:
        drop_object(connection, table, target)
    # What was stored is carried as it was stored.
    connection.execute("PRAGMA ignore_check_constraints = ON")

    try:
        for table in ordinary:
            carry_table(connection, table, source, target)
    finally:
        connection.execute("PRAGMA ignore_check_constraints = OFF")

    carry_sequences(connection, ordinary, source, target)
    for table in wanted:
        if table in virtual:
            write_schema_row(connection, source, target, table)

    carry_views_and_triggers(connection, source, target)
    return verify_counts(connection, ordinary, source, target)


def verify_readable(connection: sqlite3.Connection, tables: Iterable[str], source: str) -> None:
    """Raise VerificationError for a table that this SQLite cannot read."""
    # The rows of such a table could only be left out.
    hidden = sorted(set(tables) & set(unreadable_table_names(connection, source)))
    if hidden:
        raise VerificationError(
            f"{', '.join(map(ascii, hidden))}: {TOO_NEW}, or its name is not UTF-8: its rows "
            "cannot be carried",
            next_step=NEWER_PYTHON,
        )


@contextmanager
def unknown_words_named(name: str) -> Iterator[None]:
    """Raise VerificationError when this SQLite reads the rows of a table, but does not know all
    words of its text or of an index of it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_ERROR:
            raise
        # An option may decide how rows are stored.
        raise VerificationError(
            f"{name!a}: {TOO_NEW} ({error}): it cannot be carried", next_step=NEWER_PYTHON
        ) from error


def carry_table(connection: sqlite3.Connection, table: str, source: str, target: str) -> None:
    """Carry a table with its own text, its rows and its indexes. Where a row breaks a rule of the
    table, or a function of the platform makes one of its columns, the rows go into plain columns,
    which are stored the same, and the table gets its own text afterwards."""
    stand_ins: list[str] = []
    try:
        with unknown_words_named(table):
            with_stand_ins(
                connection,
                stand_ins,
                lambda: create_objects(connection, source, target, "table", table),
            )
        if stand_ins and has_generated_columns(connection, table, target):
            raise sqlite3.IntegrityError(f"{', '.join(stand_ins)} would have to be computed")
        copy_rows(connection, table, source, target)
    except sqlite3.IntegrityError:
        drop_object(connection, table, target)
        carry_in_plain_columns(connection, table, source, target)

    for name, sql in load_texts(connection, source, "index", table):
        # With a stand-in an index would hold wrong values or a wrong order: the platform makes its
        # own again.
        if uses_missing_function(connection, sql):
            continue
        with unknown_words_named(name):
            with_stand_ins(
                connection, stand_ins, partial(create_object, connection, name, sql, target)
            )
        if uses_missing_collation(connection, name, target):
            drop_object(connection, name, target)


def with_stand_ins(
    connection: sqlite3.Connection, added: list[str], work: Callable[[], None]
) -> None:
    """Run work that may need functions or collations of the platform: each one that is missing gets
    a stand-in, whose name is added to `added`, and the work begins again."""
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            name = add_stand_in(connection, error)
            if not name:
                raise
            added.append(name)


def has_generated_columns(connection: sqlite3.Connection, table: str, schema: str) -> bool:
    return any(row[6] for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quote(table)})"))


def uses_missing_function(connection: sqlite3.Connection, sql: str) -> bool:
    """Return whether the text of an index calls a function that SQLite does not bring itself."""
    known = connection.execute("SELECT lower(name) FROM pragma_function_list WHERE builtin")
    words = {word.lower() for word in CALL.findall(TEXT_OR_SCHEMA.sub("", sql.partition("(")[2]))}
    return bool(words - {name for (name,) in known} - NO_FUNCTIONS)


def uses_missing_collation(connection: sqlite3.Connection, index: str, schema: str) -> bool:
    rows = connection.execute(f"PRAGMA {schema}.index_xinfo({quote(index)})")
    return any(row[4].upper() not in {"BINARY", "NOCASE", "RTRIM"} for row in rows)


def carry_in_plain_columns(
    connection: sqlite3.Connection, table: str, source: str, target: str
) -> None:
    """Carry rows first, then the text that they belong to."""
    ((name, sql),) = load_texts(connection, source, "table", table)
    plain = make_plain_table(sql, name, keep_unique=True)
    if plain is None:
        raise VerificationError(f"table {table} cannot be carried: its rows break its own rules")

    # In plain columns neither NOT NULL nor a generated column is looked at.
    create_object(connection, name, plain, target)

    columns = [
        quote(row[1]) for row in connection.execute(f"PRAGMA {target}.table_info({quote(name)})")
    ]
    listed = ", ".join([*rowid_name(connection, table, target), *columns])
    connection.execute(
        f"INSERT INTO {target}.{quote(name)} ({listed}) SELECT {listed} "
        f"FROM {source}.{quote(table)}"
    )

    with_writable_schema(
        connection,
        f"UPDATE {target}.sqlite_schema SET sql = (SELECT sql FROM {source}.sqlite_schema "
        "WHERE type = 'table' AND name = ?1) WHERE type = 'table' AND name = ?1",
        name,
    )

    # Other connections read the schema anew when its number has changed.
    number = connection.execute(f"PRAGMA {target}.schema_version").fetchone()[0]
    connection.execute(f"PRAGMA {target}.schema_version = {number + 1}")


def allow_schema_writes(connection: sqlite3.Connection) -> None:
    """Let the schema be written: the SQLite of macOS protects the tables behind full-text indexes;
    Python 3.12 can say otherwise."""
    if hasattr(connection, "setconfig"):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)  # type: ignore[attr-defined]


def drop_object(connection: sqlite3.Connection, name: str, target: str) -> None:
    """Drop an object, if it is there."""
    found = connection.execute(
        f"SELECT type, name FROM {target}.sqlite_schema WHERE lower(name) = lower(?)", (name,)
    ).fetchone()
    if not found:
        return

    try:
        # A virtual table is only struck from the schema: dropping it would need its module.
        if found[1] not in virtual_table_names(connection, target):
            connection.execute(f"DROP {found[0]} {target}.{quote(name)}")
            return
    except sqlite3.OperationalError:
        if found[0] not in {"view", "trigger"}:  # those may be too new for this SQLite to see them
            raise

    with_writable_schema(connection, f"DELETE FROM {target}.sqlite_schema WHERE name = ?", found[1])


def create_objects(
    connection: sqlite3.Connection, source: str, target: str, kind: str, table: str
) -> None:
    for name, sql in load_texts(connection, source, kind, table):
        create_object(connection, name, sql, target)


def load_texts(
    connection: sqlite3.Connection, source: str, kind: str, table: str
) -> list[tuple[str, str]]:
    """Name and text of the table, or of its indexes."""
    return connection.execute(
        f"SELECT name, sql FROM {source}.sqlite_schema"
        " WHERE type = ? AND lower(tbl_name) = lower(?) AND sql IS NOT NULL ORDER BY rowid",
        (kind, table),
    ).fetchall()


def create_object(connection: sqlite3.Connection, name: str, sql: str, target: str) -> None:
    drop_object(connection, name, target)
    connection.execute(BEGINNING.sub(lambda beginning: f"{beginning[0]}{target}.", sql, count=1))


def copy_rows(connection: sqlite3.Connection, table: str, source: str, target: str) -> None:
    """Copy rows with the hidden rowid where the table has one: full-text indexes refer to it."""
    columns = [quote(name) for name in column_names(connection, table, source)]
    listed = ", ".join([*rowid_name(connection, table, source), *columns])
    connection.execute(
        f"INSERT INTO {target}.{quote(table)} ({listed}) SELECT {listed} "
        f"FROM {source}.{quote(table)}"
    )


def rowid_name(connection: sqlite3.Connection, table: str, schema: str = "main") -> list[str]:
    """Return the name that reaches the rowid, in a list; empty when columns took all names or
    WITHOUT ROWID."""
    taken = {
        row[1].lower() for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quote(table)})")
    }
    free = [name for name in ROWID_NAMES if name not in taken][:1]
    try:
        for name in free:
            connection.execute(f"SELECT {name} FROM {schema}.{quote(table)} LIMIT 0")
    except sqlite3.OperationalError:
        return []
    return free


def carry_sequences(
    connection: sqlite3.Connection, tables: list[str], source: str, target: str
) -> None:
    """Carry the highest numbers given out."""
    if not has_sequences(connection, source):
        return

    # An AUTOINCREMENT table never gives one out twice, also after its last rows were deleted.
    carried = [(table,) for table in tables]
    if has_sequences(connection, target):
        connection.executemany(f"DELETE FROM {target}.sqlite_sequence WHERE name = ?", carried)
        connection.executemany(
            f"INSERT INTO {target}.sqlite_sequence (name, seq)"
            f" SELECT name, seq FROM {source}.sqlite_sequence WHERE name = ?",
            carried,
        )


def carry_header_numbers(
    connection: sqlite3.Connection, source: str = "main", target: str = "fresh"
) -> None:
    """Carry the two numbers in the header that belong to the program whose database it is: its
    migrations, its name."""
    for name in ("user_version", "application_id"):
        (number,) = connection.execute(f"PRAGMA {source}.{name}").fetchone()
        connection.execute(f"PRAGMA {target}.{name} = {number}")


def has_sequences(connection: sqlite3.Connection, schema: str) -> bool:
    query = f"SELECT count(*) FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'"
    return bool(connection.execute(query).fetchone()[0])


def carry_views_and_triggers(connection: sqlite3.Connection, source: str, target: str) -> None:
    """Carry all views, and the triggers of tables and views that `target` has."""
    objects = f"SELECT name, sql FROM {source}.sqlite_schema"
    present = f"SELECT lower(name) FROM {target}.sqlite_schema WHERE type IN ('table', 'view')"
    views = f"{objects} WHERE type = 'view' ORDER BY rowid"
    triggers = f"{objects} WHERE type = 'trigger' AND lower(tbl_name) IN ({present}) ORDER BY rowid"
    for query in (views, triggers):
        # SQLite cannot attach a database with a view that names its own schema ("main.notes"):
        # without the schema's name the view is the same.
        for name, sql in connection.execute(query).fetchall():
            create_view_or_trigger(connection, name, sql, source, target)


def create_view_or_trigger(
    connection: sqlite3.Connection, name: str, sql: str, source: str, target: str
) -> None:
    """Create a view or trigger from its own text, or without the name of its schema; where this
    SQLite does not know its words, write them into the schema as they are."""
    try:
        create_object(connection, name, sql, target)
        return
    except sqlite3.OperationalError:
        unqualified = TEXT_OR_SCHEMA.sub(lambda match: match["text"] or "", sql)
    try:
        create_object(connection, name, unqualified, target)
    except sqlite3.OperationalError:
        # In words that this SQLite does not know: as it is, for the program whose SQLite does.
        write_schema_row(connection, source, target, name)


def write_schema_row(connection: sqlite3.Connection, source: str, target: str, name: str) -> None:
    with_writable_schema(
        connection,
        f"INSERT INTO {target}.sqlite_schema (type, name, tbl_name, rootpage, sql)"
        f" SELECT type, name, tbl_name, 0, sql FROM {source}.sqlite_schema WHERE name = ?",
        name,
    )


def with_writable_schema(connection: sqlite3.Connection, statement: str, name: str) -> None:
    before = connection.execute("PRAGMA writable_schema").fetchone()[0]
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute(statement, (name,))
    finally:
        connection.execute(f"PRAGMA writable_schema = {before}")


def verify_counts(
    connection: sqlite3.Connection, tables: list[str], source: str, target: str
) -> dict[str, int]:
    """Return the rows of each carried table. Raise VerificationError where they are not as many as
    there were."""
    expected = count_rows(connection, tables, source)
    carried = count_rows(connection, tables, target)
    for table in tables:
        if expected[table] != carried[table]:
            raise VerificationError(
                f"table {table} arrived with {carried[table]:,} rows instead of {expected[table]:,}"
            )
    return carried
