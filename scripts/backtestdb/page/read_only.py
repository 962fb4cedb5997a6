"""What a connection of the page may do, whatever SQL is typed into it."""

import sqlite3

READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
# Of the pragmas, those that tell about the schema, and reading the value of any other.
TELLING = {
    *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"),
    *(
        "foreign_key_list",
        "function_list",
        "collation_list",
        "compile_options",
        "pragma_list",
        "module_list",
    ),
}
# Of a generated picture or script; a query for randomblob(1e9) ends here.
LONGEST_VALUE_BYTES = 32 << 20


def restrict(connection: sqlite3.Connection) -> None:
    """Refuse writes, other files (ATTACH, VACUUM INTO), settings, and values that fill the memory,
    on this connection."""
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(authorize)


def authorize(action: int, first: str | None, second: str | None, *_where: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second and second.lower() == "load_extension":
        return sqlite3.SQLITE_DENY
    if action in READING or (
        action == sqlite3.SQLITE_PRAGMA and (second is None or first in TELLING)
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
