"""Stand-ins for the functions and collations that the platform registers and this process does not
have.

A table with `CHECK (is_ticker(ticker))` cannot be created or checked without the function. A
stand-in answers NULL, which passes every CHECK; a collation compares as SQLite does by itself.
Neither may decide about what is stored.
"""

import re
import sqlite3

FUNCTION = re.compile(r"(?:no such|unknown) function: (\w+)")
COLLATION = re.compile(r"no such collation sequence: (.+)")


def add_stand_in(connection: sqlite3.Connection, error: sqlite3.Error) -> str:
    """Make what `error` says is missing; return its name, empty when the error is another one."""
    if missing := FUNCTION.search(str(error)):
        connection.create_function(missing[1], -1, lambda *_arguments: None, deterministic=True)
        return missing[1]
    if missing := COLLATION.search(str(error)):
        connection.create_collation(missing[1], compare)
        return missing[1]
    return ""


def compare(one: str, other: str) -> int:
    return (one > other) - (one < other)
