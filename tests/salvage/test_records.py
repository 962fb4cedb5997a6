"""Rows as SQLite stores them, byte by byte: https://www.sqlite.org/fileformat2.html#record_format."""

import sqlite3
import struct
from contextlib import closing

import pytest

from backtestdb.salvage.pages import DamagedError
from backtestdb.salvage.records import Value, bindable, decode, in_utf_8, parse_record

# The number of a type, the bytes of a value, the value.
KINDS: list[tuple[int, bytes, Value]] = [
    (0, b"", None),
    (1, b"\x80", -128),
    (2, b"\x01\x00", 256),
    (3, b"\xff\xff\xfe", -2),
    (4, b"\x01\x02\x03\x04", 0x01020304),
    (5, b"\x00\x01\x02\x03\x04\x05", 0x0102030405),
    (6, b"\x80" + bytes(7), -(2**63)),
    (7, struct.pack(">d", -1.5), -1.5),
    (8, b"", 0),
    (9, b"", 1),
    (12, b"", b""),
    (13, b"", bytearray()),
    (14, b"\x00", b"\x00"),
    (15, b"a", bytearray(b"a")),
    (16, b"ab", b"ab"),
    (17, b"\xffb", bytearray(b"\xffb")),
]


def make_payload(*fields: tuple[int, bytes, Value]) -> bytes:
    header = bytes(kind for kind, _, _ in fields)
    return bytes([len(header) + 1]) + header + b"".join(data for _, data, _ in fields)


def same(one: list[Value], other: list[Value]) -> bool:
    return list(map(repr, one)) == list(map(repr, other))


@pytest.mark.parametrize("kind", KINDS)
def test_value_of_each_type_is_read_with_its_type(kind: tuple[int, bytes, Value]) -> None:
    assert same(parse_record(make_payload(kind)), [kind[2]])


def test_values_of_a_record_stand_one_behind_the_other() -> None:
    assert same(parse_record(make_payload(*KINDS)), [value for _, _, value in KINDS])
    assert parse_record(b"\x01") == []


@pytest.mark.parametrize("kind", [10, 11])
def test_type_that_sqlite_never_writes_is_damage(kind: int) -> None:
    with pytest.raises(DamagedError, match=f"a value of kind {kind}"):
        parse_record(bytes([2, kind]))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x00\x01\x05",
        b"\x02\x81\x00" + bytes(58),  # the last type goes on behind the header
        b"\x02\x80\x01\x05",
    ],
)
def test_header_that_does_not_end_with_its_last_type_is_damage(payload: bytes) -> None:
    with pytest.raises(DamagedError, match="a record with a wrong header"):
        parse_record(payload)


@pytest.mark.parametrize(
    "payload", [b"\x02\x01", b"\x02\x01\x05\x05", b"\x02\x10a", b"\x02\x00\x00"]
)
def test_values_that_do_not_fill_the_record_to_its_end_are_damage(payload: bytes) -> None:
    with pytest.raises(DamagedError, match="a record of a wrong length"):
        parse_record(payload)


@pytest.mark.parametrize("payload", [b"", b"\x05\x01", b"\x02\x07" + bytes(7)])
def test_record_that_was_cut_is_damage(payload: bytes) -> None:
    with pytest.raises(DamagedError):
        parse_record(payload)


def test_text_is_decoded_and_a_blob_is_not() -> None:
    assert decode([bytearray("ä".encode()), b"\xc3", 1, None], "utf-8") == ["ä", b"\xc3", 1, None]
    assert decode([bytearray(b"a\0")], "utf-16-le") == ["a"]
    with pytest.raises(DamagedError, match="can't decode"):
        decode([bytearray(b"\xff")], "utf-8")


def test_text_of_any_encoding_comes_in_utf_8() -> None:
    values: list[Value] = [bytearray("ä".encode("utf-16-be")), b"\0a", 1.5, None]
    assert same(in_utf_8(values, "utf-16-be"), [bytearray("ä".encode()), b"\0a", 1.5, None])
    invalid: list[Value] = [bytearray(b"\xff"), 1]
    assert in_utf_8(invalid, "utf-8") is invalid
    with pytest.raises(DamagedError):
        in_utf_8([bytearray(b"a")], "utf-16-le")


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_values_are_bound_as_what_they_are(encoding: str) -> None:
    values: list[Value] = [bytearray("ä€".encode()), b"\xff", 7, 1.5, None]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        for value, expected in zip(values, ["ä€", b"\xff", 7, 1.5, None], strict=True):
            assert connection.execute("SELECT ?", (bindable(value),)).fetchone() == (expected,)
    assert bindable(bytearray(b"\xff")) == bytearray(b"\xff"), "text that is no UTF-8"
