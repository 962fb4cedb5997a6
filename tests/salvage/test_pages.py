"""Pages read without SQLite, byte by byte: each is believed wholly or not at all. Numbers are those
of https://www.sqlite.org/fileformat2.html, chapter 1."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backtestdb.salvage.pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    DamagedError,
    PageFile,
    list_overflow,
    local_bytes,
    open_pages,
    parse_page,
    parse_page_size,
    parse_varint,
    read_payload,
)
from small_database import make_small_database

PAGE = 512
CHILD = b"\x01\x02\x03\x04"
KINDS = {2: INDEX_INTERIOR, 5: TABLE_INTERIOR, 10: INDEX_LEAF, 13: TABLE_LEAF}


def test_kinds_of_pages_have_the_numbers_of_the_format() -> None:
    assert {number: kind for number, kind in KINDS.items() if number == kind} == KINDS


# ── numbers


def encode(number: int) -> bytes:
    """As the format has it: seven bits a byte, and eight in a ninth."""
    number &= (1 << 64) - 1
    if number >> 56:
        high, low = number >> 8, number & 0xFF
        return bytes([0x80 | (high >> shift) & 0x7F for shift in range(49, -1, -7)] + [low])
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.insert(0, 0x80 | number & 0x7F)
    return bytes(groups)


NUMBERS = [0, 1, 126, 127, 128, 129, 255, 16383, 16384, 2**21 - 1, 2**35 + 77, 2**56 - 1, 2**56]
NUMBERS += [2**62, 2**62 + 2**61, 2**63 - 1, -1, -(2**63), -77]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_is_read_with_its_sign_wherever_it_stands(number: int) -> None:
    coded = encode(number)
    assert parse_varint(coded, 0) == (number, len(coded))
    assert parse_varint(b"\x81\x55" + coded + b"\xff\x03", 2) == (number, 2 + len(coded))
    for length in range(len(coded)):
        with pytest.raises(DamagedError, match="a number goes beyond its page"):
            parse_varint(b"\x01" + coded[:length], 1)


def test_number_behind_the_end_of_a_page_is_damage() -> None:
    with pytest.raises(DamagedError, match="a number goes beyond its page"):
        parse_varint(b"\x01", 5)


@pytest.mark.parametrize(
    ("stored", "size"), [(1, 65536), (512, 512), (4096, 4096), (32768, 32768), (0, 0), (2, 2)]
)
def test_page_size_stands_in_two_bytes_and_the_largest_is_1(stored: int, size: int) -> None:
    assert parse_page_size(b"\7" * 16 + stored.to_bytes(2) + b"\7" * 82) == size


# ── the file


@pytest.mark.parametrize(
    ("stored", "encoding"), [(1, "utf-8"), (2, "utf-16-le"), (3, "utf-16-be"), (0, "utf-8")]
)
def test_file_is_opened_with_what_its_header_says(
    tmp_path: Path, stored: int, encoding: str
) -> None:
    path = make_small_database(tmp_path / "live.db", "CREATE TABLE t (a);")
    data = bytearray(path.read_bytes())
    data[19], data[20], data[21] = 1, 8, 64
    data[55], data[56:60], data[60] = 9, stored.to_bytes(4), 9
    path.write_bytes(data + bytes(1000))  # a page that was cut
    with open_pages(path) as file:
        assert (file.page_size, file.usable, file.count) == (4096, 4088, 2)
        assert file.encoding == encoding
        assert bytes(file.data) == data + bytes(1000)


def test_page_is_one_of_those_that_are_there() -> None:
    file = make_file(b"a" * PAGE, b"b" * PAGE, b"c" * PAGE)
    assert [file.page(number) for number in (1, 2, 3)] == [b"a" * PAGE, b"b" * PAGE, b"c" * PAGE]
    for number in (-1, 0, 4):
        with pytest.raises(DamagedError, match=f"page {number} is outside the file"):
            file.page(number)


def make_file(*pages: bytes, usable: int = 0) -> PageFile:
    size = len(pages[0])
    return PageFile(
        data=b"".join(pages),  # type: ignore[arg-type]
        page_size=size,
        usable=usable or size,
        count=len(pages),
        encoding="utf-8",
    )


# ── one page


@dataclass(kw_only=True)
class Made:
    """A page as SQLite writes it, cells from the end of the page on; values may be wrong."""

    kind: int = TABLE_LEAF
    cells: list[bytes] = field(default_factory=list)
    size: int = PAGE
    start: int = 0
    right: bytes = b"\x05\x06\x07\x08"
    freeblock: int = 0x0105
    fragmented: int = 60
    content: int | None = None
    shift: int = 0
    gap: int = 0

    @property
    def is_interior(self) -> bool:
        return self.kind in {2, 5}

    def offsets(self) -> list[int]:
        end, found = self.size - self.shift, []
        for cell in self.cells:
            end -= len(cell)
            found.append(end)
            end -= self.gap
        return found

    def make(self) -> bytes:
        data = bytearray(self.size)
        offsets = self.offsets()
        content = min(offsets, default=self.size) if self.content is None else self.content
        head = bytes([self.kind]) + self.freeblock.to_bytes(2) + len(self.cells).to_bytes(2)
        head += (content % 65536).to_bytes(2) + bytes([self.fragmented])
        head += self.right if self.is_interior else b""
        head += b"".join(offset.to_bytes(2) for offset in offsets)
        data[self.start : self.start + len(head)] = head
        for offset, cell in zip(offsets, self.cells, strict=True):
            data[offset : offset + len(cell)] = cell
        return bytes(data)


def make_cell(kind: int, *, rowid: int = 300, payload: bytes = b"payload") -> bytes:
    cell = CHILD if kind in {2, 5} else b""
    if kind != 5:
        cell += encode(len(payload))
    if kind in {5, 13}:
        cell += encode(rowid)
    return cell if kind == 5 else cell + payload


def parse(made: Made, *, number: int = 2, usable: int = 0) -> list[Cell]:
    pages = [made.make() if n == number else bytes(made.size) for n in (1, 2)]
    page = parse_page(make_file(*pages, usable=usable), number)
    assert (page.number, page.kind, page.data) == (number, made.kind, made.make())
    assert page.right == (0x05060708 if made.is_interior else 0)
    assert page.is_interior is made.is_interior
    return page.cells


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_page_of_each_kind_is_read_to_its_last_byte(kind: int, number: int) -> None:
    cells = [make_cell(kind, rowid=7), make_cell(kind, rowid=300, payload=b"x")]
    made = Made(kind=kind, cells=cells, start=100 if number == 1 else 0)
    expected = []
    for begin, cell, rowid, size in zip(made.offsets(), cells, (7, 300), (7, 1), strict=True):
        end = begin + len(cell)
        child = 0x01020304 if kind in {2, 5} else 0
        if kind == 5:
            expected.append(Cell(begin, end, child, rowid, 0, end, 0, 0))
        else:
            number_of_row = rowid if kind == 13 else 0
            expected.append(Cell(begin, end, child, number_of_row, size, end - size, size, 0))
    assert parse(made, number=number) == expected


def test_page_may_be_empty_or_full_and_have_hundreds_of_cells() -> None:
    assert parse(Made()) == []
    assert len(parse(Made(cells=[b"\x01\x01x"] * 300, size=4096))) == 300
    assert len(parse(make_full())) == 100


def make_full() -> Made:
    """The content begins right behind the pointers: 8 + 2 * 100 bytes, and 100 cells in 304."""
    return Made(cells=[b"\x01\x01x"] * 96 + [b"\x02\x01xx"] * 4)


def test_page_of_65536_bytes_may_be_empty() -> None:
    """Its content then begins at 65536, which the two bytes have as 0."""
    assert parse(Made(size=65536)) == []
    with pytest.raises(DamagedError, match="has an impossible header"):
        parse(Made(content=0))


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (Made(kind=0), "is of no kind"),
        (Made(kind=6), "is of no kind"),
        (Made(kind=12), "is of no kind"),
        (Made(fragmented=61), "has an impossible header"),
        (Made(content=PAGE + 1), "has an impossible header"),
        (Made(content=7), "has an impossible header"),
        (Made(kind=5, content=11), "has an impossible header"),
        (Made(cells=[b"\x01\x01x"], content=9), "has an impossible header"),
        (Made(cells=[b"\x01\x01x"], content=PAGE - 2), "points before its content"),
        (Made(cells=[b"\x01\x01x"] * 2, content=PAGE - 3), "points before its content"),
        (Made(cells=[b"\x01\x01x", b"\x02\x01x"]), "has overlapping cells"),
        (Made(cells=[b"\x02\x01x"]), "a cell goes beyond its page"),
        (Made(cells=[b"\x00\x01"]), "a payload of no bytes"),
        (Made(cells=[encode(-1) + b"\x01"]), "a payload of no bytes"),
        (Made(kind=5, cells=[CHILD + b"\x81"]), "a number goes beyond its page"),
    ],
)
def test_page_that_does_not_agree_with_itself_is_damaged(made: Made, problem: str) -> None:
    with pytest.raises(DamagedError, match=problem):
        parse(made)


@pytest.mark.parametrize(
    "made",
    [
        Made(content=8),
        Made(kind=5, content=12),
        Made(content=PAGE),
        Made(cells=[b"\x01\x01x"], content=10),
        Made(cells=[b"\x01\x01x", b"\x01\x02x"], gap=1),
        Made(cells=[b"\x01\x01x"], fragmented=0, freeblock=0),
        Made(kind=5, cells=[CHILD + b"\x01"]),
    ],
)
def test_page_at_each_bound_is_sound(made: Made) -> None:
    assert len(parse(made)) == len(made.cells)


def test_cells_end_before_the_reserved_bytes() -> None:
    made = Made(cells=[b"\x01\x01x"], shift=8)
    assert len(parse(made, usable=PAGE - 8)) == 1
    with pytest.raises(DamagedError, match="a cell goes beyond its page"):
        parse(made, usable=PAGE - 9)
    interior = Made(kind=5, cells=[CHILD + b"\x01"], shift=8)
    assert len(parse(interior, usable=PAGE - 8)) == 1
    with pytest.raises(DamagedError):
        parse(interior, usable=PAGE - 9)


# ── payloads that go on elsewhere


def expected_local(kind: int, size: int, usable: int) -> int:
    """Chapter 1.6: U usable bytes, P of payload, X at most, at least M, and K."""
    most = usable - 35 if kind == 13 else ((usable - 12) * 64) // 255 - 23
    least = ((usable - 12) * 32) // 255 - 23
    if size <= most:
        return size
    rest = least + ((size - least) % (usable - 4))
    return rest if rest <= most else least


@pytest.mark.parametrize("usable", [480, 512, 522, 1016, 1024, 4096, 65536])
@pytest.mark.parametrize("kind", [2, 10, 13])
def test_part_of_a_payload_that_lies_in_the_page_is_that_of_the_format(
    kind: int, usable: int
) -> None:
    sizes = [*range(1, 3 * usable)] if usable < 1100 else [*range(1, 3 * usable, 7)]
    sizes += [usable - 36, usable - 35, usable - 34]
    assert [local_bytes(kind, size, usable) for size in sizes] == [
        expected_local(kind, size, usable) for size in sizes
    ]


@pytest.mark.parametrize("kind", [2, 10, 13])
def test_cell_whose_payload_goes_on_names_the_page(kind: int) -> None:
    local = expected_local(kind, 1000, PAGE)
    cell = make_cell(kind, payload=b"p" * 1000)[: -(1000 - local)] + b"\x0a\x0b\x0c\x0d"
    (found,) = parse(Made(kind=kind, cells=[cell]))
    assert (found.size, found.local, found.overflow) == (1000, local, 0x0A0B0C0D)
    assert found.end == PAGE
    assert found.payload == PAGE - 4 - local


def overflow(following: int, letter: bytes = b"o") -> bytes:
    return following.to_bytes(4) + letter * (PAGE - 4)


def cell_of(first: int, more: int) -> Cell:
    """A cell of which `more` bytes lie behind page `first`."""
    return Cell(0, 0, 0, 1, 10 + more, 0, 10, first)


@pytest.mark.parametrize(
    ("more", "pages"),
    [(1, [2]), (508, [2]), (509, [2, 3]), (1016, [2, 3]), (1017, [2, 3, 4])],
)
def test_payload_is_followed_to_its_last_page(more: int, pages: list[int]) -> None:
    following = dict(zip(pages, [*pages[1:], 0], strict=True))
    file = make_file(bytes(PAGE), *(overflow(following.get(n, 0)) for n in (2, 3, 4)))
    assert list_overflow(file, cell_of(2, more)) == pages


def test_payload_within_its_page_has_no_other() -> None:
    file = make_file(bytes(PAGE))
    assert list_overflow(file, cell_of(0, 0)) == []


@pytest.mark.parametrize(
    ("pages", "more", "problem"),
    [
        ([overflow(2), overflow(0)], 600, "overflow page 2 is lost"),
        ([bytes(PAGE)], 5, "overflow page 2 is lost"),
        ([overflow(0)], 600, "page 0 is outside the file"),
        ([overflow(9)], 600, "page 9 is outside the file"),
        ([overflow(3), overflow(0)], 508, "a row goes on behind its end"),
    ],
)
def test_payload_that_cannot_be_followed_is_damaged(
    pages: list[bytes], more: int, problem: str
) -> None:
    with pytest.raises(DamagedError, match=problem):
        list_overflow(make_file(bytes(PAGE), *pages), cell_of(2, more))


def test_payload_is_its_part_in_the_page_and_all_behind_it() -> None:
    payload = bytes(range(250)) * 5
    local = expected_local(13, len(payload), 504)
    cell = make_cell(13, payload=payload)[: -(len(payload) - local)] + (3).to_bytes(4)
    made = Made(cells=[cell], shift=8)
    rest = payload[local:]
    pages = [
        following.to_bytes(4) + rest[n * 500 : (n + 1) * 500].ljust(500, b"?") + b"reserved"
        for n, following in enumerate((4, 5, 0))
    ][: -(-len(rest) // 500)]
    pages[-1] = bytes(4) + pages[-1][4:]
    file = make_file(bytes(PAGE), made.make(), *pages, usable=504)
    page = parse_page(file, 2)
    assert read_payload(file, page, page.cells[0]) == payload
