"""A row as SQLite stores it: https://www.sqlite.org/fileformat2.html#record_format."""

import struct
from collections.abc import Sequence
from contextlib import suppress

from backtestdb.salvage.pages import DamagedError, parse_varint

# Text stays bytes, because it need not be valid UTF-8; as bytearray it differs from a blob of the
# same bytes.
Value = int | float | bytes | bytearray | None
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
FIXED_BYTES = {0: 0, **INTEGER_BYTES, 7: 8, 8: 0, 9: 0}


def parse_record(payload: bytes) -> list[Value]:
    """Raise DamagedError unless the values fill the payload to its last byte."""
    header_bytes, position = parse_varint(payload, 0)
    kinds = []
    while position < header_bytes:
        kind, position = parse_varint(payload, position)
        kinds.append(kind)

    if position != header_bytes or header_bytes > len(payload):
        raise DamagedError("a record with a wrong header")
    values: list[Value] = []

    for kind in kinds:
        size = value_bytes(kind)
        values.append(parse_value(kind, payload[position : position + size]))
        position += size

    if position != len(payload):
        raise DamagedError("a record of a wrong length")
    return values


def value_bytes(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind not in FIXED_BYTES:
        raise DamagedError(f"a value of kind {kind}")
    return FIXED_BYTES[kind]


def parse_value(kind: int, data: bytes) -> Value:
    if kind >= 12:
        return bytearray(data) if kind % 2 else data
    if kind == 0:
        return None
    if kind == 7:
        if len(data) != 8:
            raise DamagedError("a number that is cut")
        return float(struct.unpack(">d", data)[0])
    return kind - 8 if kind >= 8 else int.from_bytes(data, signed=True)


def decode(values: Sequence[Value], encoding: str) -> list[object]:
    """Return a record's values with text as text; raise DamagedError where it is none. For the
    schema only, never for rows."""
    try:
        return [
            value.decode(encoding) if isinstance(value, bytearray) else value for value in values
        ]
    except UnicodeDecodeError as error:
        raise DamagedError(str(error)) from error


def in_utf_8(values: list[Value], encoding: str) -> list[Value]:
    """Return a record's values with text in UTF-8, whatever the encoding of the file. Raise
    DamagedError for text of another encoding that is none; text in UTF-8 stays as it is stored."""
    if encoding == "utf-8":
        return values
    return [
        bytearray(value.encode()) if isinstance(value, str) else value  # type: ignore[misc]
        for value in decode(values, encoding)
    ]


def bindable(value: Value) -> Value | str:
    """Return a value as it is bound to a statement: text as text. Text that is no UTF-8 stays what
    it is, to be cast within SQLite; in a database in UTF-16, where there is none, SQLite 3.40 cuts
    what is bound to be cast at an even number of bytes."""
    if isinstance(value, bytearray):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value
