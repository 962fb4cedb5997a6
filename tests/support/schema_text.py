"""Words in a schema that this SQLite did not write: those of a newer one, or of a program that
changed a rule of its tables."""

import sqlite3
from contextlib import closing
from pathlib import Path

NEWER_VERSION = 3_999_000
NEWER_VIEW = "CREATE VIEW names AS PICK name OUT OF strategies"


def change_text(path: Path, name: str, sql: str) -> None:
    """Write another text of a table, an index or a view into the schema."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, name))
        database.commit()


def add_newer_view(path: Path) -> Path:
    """Add NEWER_VIEW, which this SQLite cannot read; the header still says that it wrote all."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE VIEW names AS SELECT 1")
    change_text(path, "names", NEWER_VIEW)
    return path


def make_too_new(path: Path) -> Path:
    """Add NEWER_VIEW, and let the header say which SQLite wrote it."""
    write_version(add_newer_view(path), NEWER_VERSION)
    return path


def write_version(path: Path, version: int) -> None:
    """Let the header say that the SQLite of this number wrote the file last."""
    with path.open("r+b") as file:
        file.seek(96)
        file.write(version.to_bytes(4))
