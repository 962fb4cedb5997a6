"""A database as a platform with a newer SQLite leaves it: Debian 12 has 3.40.1, apsw brings its
own."""

from pathlib import Path

import apsw

NEWER = """
CREATE VIEW strategy_names AS SELECT group_concat(name ORDER BY id) AS names FROM strategies;
"""


def write_with_newer_sqlite(database: Path, sql: str = NEWER, *, leave_log: bool = False) -> None:
    """`leave_log`: as a program leaves it that was killed, so that the newest page 1 stands in the
    -wal alone."""
    connection = apsw.Connection(str(database))
    if leave_log:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute(sql)
    connection.close()
