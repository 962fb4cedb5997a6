"""From the text that makes a table to one that makes a table of plain columns, which stores rows
the same.

The platform registers functions and collations of its own and has a newer SQLite; a CHECK with one
of its functions is enough, and this SQLite cannot create the table. Its rows can be stored all the
same: the columns in their order, their types and the primary key decide how, and nothing else does.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from backtestdb.database import Connection, quote

TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|/\*.*?\*/)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[\w$]+|.""",
    re.DOTALL,
)
TABLE_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}
AFTER_TYPE = {
    *(
        "CONSTRAINT",
        "PRIMARY",
        "NOT",
        "NULL",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
    ),
    *("GENERATED", "AS", "ON"),
}
Tokens = list[str]


@dataclass(frozen=True, kw_only=True)
class PlainColumn:
    """`key`: what makes it the primary key, empty when it is not. `default`: as it stands in the
    text."""

    name: str
    type: str
    key: str
    default: str
    is_unique: bool


def make_plain_table(sql: str, name: str, *, keep_unique: bool = False) -> str | None:
    """Given the text of a CREATE TABLE, return that of a table `name` of plain columns. Defaults
    stay where this SQLite understands them: rows from before a column was added end early.
    `keep_unique`: with the indexes that UNIQUE makes, so that the true text can be put in its
    place. None for a text that does not parse."""
    tokens = [match[0] for match in TOKEN.finditer(sql) if not match["blank"]]
    if "(" not in tokens:
        return None

    body, options = split_at_end(tokens[tokens.index("(") + 1 :])
    is_strict = "STRICT" in map(str.upper, options)
    columns, keys = [], []

    for item in split_items(body):
        if item[0].upper() in TABLE_CONSTRAINTS:
            keys += read_table_key(item, keep_unique=keep_unique)
        elif not is_virtual(item):
            columns.append(read_column(item, is_strict=is_strict))

    without_rowid = " WITHOUT ROWID" if "WITHOUT" in map(str.upper, options) else ""
    for with_defaults in (True, False):
        parts = [
            write_column(column, with_default=with_defaults, with_unique=keep_unique)
            for column in columns
        ]
        text = f"CREATE TABLE {quote(name)} ({', '.join([*parts, *keys])}){without_rowid}"
        if can_be_created(text):
            return text

    return None


def can_be_created(text: str) -> bool:
    with (
        closing(sqlite3.connect(":memory:", factory=Connection)) as connection,
        suppress(sqlite3.Error),
    ):
        connection.execute(text)
        return True
    return False


def split_at_end(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """Return what stands before the parenthesis that closes, and what stands behind it."""
    depth = 1
    for place, word in enumerate(tokens):
        depth += (word == "(") - (word == ")")
        if not depth:
            return tokens[:place], tokens[place + 1 :]
    return tokens, []


def split_items(tokens: Tokens) -> Iterator[Tokens]:
    """Yield the parts between the commas that stand outside of parentheses."""
    item: Tokens = []
    depth = 0
    for word in tokens:
        depth += (word == "(") - (word == ")")
        if word == "," and not depth:
            if item:
                yield item
            item = []
        else:
            item.append(word)

    if item:
        yield item


def outer_words(item: Sequence[str]) -> list[str]:
    """Return the words of a definition in capitals, with "" in the place of what stands in
    parentheses."""
    words, depth = [], 0
    for word in item:
        depth -= word == ")"
        words.append("" if depth else word.upper())
        depth += word == "("
    return words


def read_table_key(item: Tokens, *, keep_unique: bool) -> list[str]:
    """Given a constraint of a table, return it in a list when it is a primary key, or a unique key
    and `keep_unique`; else an empty list."""
    words = outer_words(item)
    word = (
        "PRIMARY KEY"
        if "PRIMARY" in words
        else "UNIQUE"
        if "UNIQUE" in words and keep_unique
        else ""
    )

    if not word:
        return []
    inside, _ = split_at_end(item[words.index("(") + 1 :])
    return [f"{word} ({', '.join(part[0] for part in split_items(inside))})"]


def is_virtual(item: Tokens) -> bool:
    """Return whether a column is generated and not stored."""
    words = outer_words(item)
    return "AS" in words[1:] and "STORED" not in words


def read_column(item: Tokens, *, is_strict: bool) -> PlainColumn:
    """Given the definition of a column, return what decides how its values are stored."""
    words = outer_words(item)
    end = next((place for place, word in enumerate(words[1:], 1) if word in AFTER_TYPE), len(item))
    kind = "".join(item[1:end]) if "(" in item[1:end] else " ".join(item[1:end])
    if is_strict and kind.upper() == "ANY":
        kind = ""  # without STRICT the word would turn text into numbers
    key = ""

    if "PRIMARY" in words:
        is_descending = words[words.index("PRIMARY") + 2 : words.index("PRIMARY") + 3] == ["DESC"]
        key = (
            " PRIMARY KEY" + " DESC" * is_descending + " AUTOINCREMENT" * ("AUTOINCREMENT" in words)
        )

    default = read_default(item[words.index("DEFAULT") + 1 :]) if "DEFAULT" in words else ""
    return PlainColumn(
        name=item[0], type=kind, key=key, default=default, is_unique="UNIQUE" in words
    )


def read_default(tokens: Tokens) -> str:
    if tokens[:1] == ["("]:
        inside, _ = split_at_end(tokens[1:])
        return f"({' '.join(inside)})"
    if tokens[:1] in (["+"], ["-"]):
        return "".join(tokens[:1] + read_number(tokens[1:]))
    return "".join(read_number(tokens))


def read_number(tokens: Tokens) -> Tokens:
    """Return the tokens of a number: one word, or the three of a number with a point."""
    return tokens[:3] if tokens[1:2] == ["."] else tokens[:1]


def write_column(column: PlainColumn, *, with_default: bool, with_unique: bool) -> str:
    default = f" DEFAULT {column.default}" if with_default and column.default else ""
    unique = " UNIQUE" if with_unique and column.is_unique else ""
    return f"{column.name} {column.type}{column.key}{unique}{default}".rstrip()
