"""Tickers from files: lists, CSV files, holdings of a fund; case-sensitive text, nothing here
guesses types.

Whatever a person's file looks like, a word that cannot be a ticker never becomes one: the lines are
named.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from backtestdb.console import say
from backtestdb.errors import UsageError

# Capitals (and digits behind the first), then what the vendor writes for a class, a preferred
# share, a right, a warrant or a unit: BRK.B, KIMpL, BACpK, AAC.WS, GLEEw.
TICKER_SHAPE = re.compile(r"[A-Z][A-Z0-9]{0,5}(?:[a-z]{1,2}[A-Z]{0,2})?(?:\.[A-Z]{1,4}){0,2}")
# What other programs put around a ticker: NASDAQ:AAPL, $AAPL, "AAPL US Equity".
PREFIX = re.compile(r"^(?:[A-Za-z]{2,8}:\s*|\$)(?=[A-Za-z])")
SUFFIX = re.compile(r"\s+US(?:\s+Equity)?$", re.IGNORECASE)
CLASS_SEPARATOR = re.compile(r"(?<=\w)(?: (?=[A-Z]$)|[/-](?=[A-Z]{1,2}$))")
NO_LETTER = re.compile(r"[^A-Za-z0-9]")
HEADERS = ("ticker", "symbol", "tickers", "symbols", "ticker symbol")
DELIMITERS = (",", ";", "\t", "|")
NO_TICKER = {"", "-", "--", "n/a"}  # what funds write for a holding that is not listed
NAMED_AT_MOST = 5

Row = tuple[int, list[str]]


def parse_ticker_file(file: Path) -> list[str]:
    """Given a file with tickers one a line, several a line, or in a table with a column ticker or
    symbol (with whatever lines before its header and behind its end), return each ticker once, of a
    fund's holdings the shares.

    Raise UsageError when there is none in it, and with the lines where something else stands in a
    ticker's place.
    """
    lines = read_lines(file)
    rows = choose_rows(lines)
    header_place = next(
        (place for place, (_, row) in enumerate(rows) if find_column(row) is not None), None
    )

    found = read_list(rows)
    if header_place is not None:
        found = read_table(rows[header_place][1], rows[header_place + 1 :])
    found = [(number, word) for number, word in found if word.lower() not in NO_TICKER]

    is_small = bool(found) and all(word.islower() for _, word in found)
    words = [
        (number, word, normalise_ticker(word.upper() if is_small else word))
        for number, word in found
    ]

    refuse_other_words(file, words)
    tickers = list(dict.fromkeys(ticker for _, _, ticker in words))
    if not tickers:
        raise UsageError(
            f"{file} names no ticker: one a line, or a CSV with a column ticker or symbol"
        )

    if is_small:
        say(f"{file}: tickers in small letters were read as capitals")
    return tickers


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that hold something, with their numbers; comments begin with #."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no file {file}", next_step="check the path after --from-file") from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{file} is not UTF-8 text", next_step="save it as UTF-8 (CSV UTF-8)"
        ) from None

    lines = enumerate(text.splitlines(), start=1)
    return [
        (number, line)
        for number, line in lines
        if line.strip() and not line.lstrip().startswith("#")
    ]


def choose_rows(lines: Sequence[tuple[int, str]]) -> list[Row]:
    """Return lines cut into cells by the delimiter that gives a header, then most cells."""
    candidates = []
    for delimiter in DELIMITERS:
        rows = [(number, split_line(line, delimiter)) for number, line in lines]
        has_header = any(find_column(row) is not None for _, row in rows)
        candidates.append((has_header, sum(len(row) for _, row in rows), rows))
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def split_line(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def find_column(row: Sequence[str]) -> int | None:
    """Return where a header has the tickers; None for a row that is no header."""
    names = [cell.lower() for cell in row]
    return next((names.index(name) for name in HEADERS if name in names), None)


def read_table(header: Sequence[str], rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Return line number and ticker cell of the rows below a header."""
    names = [cell.lower() for cell in header]
    column = find_column(header) or 0
    kind = names.index("asset class") if "asset class" in names else None
    found = []

    for number, row in rows:
        cells = [cell for cell in row if cell]
        # A line of text without the table's other cells.
        is_footer = len(header) > 1 and len(cells) <= 1 and not is_ticker(row[0])
        if is_footer or len(row) <= column:
            continue
        # Where a fund says what each holding is: cash, futures and money market funds are none.
        if kind is None or (len(row) > kind and row[kind].lower() == "equity"):
            found.append((number, row[column]))

    return found


def read_list(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Return line number and ticker of rows without a header: every cell where all cells look like
    tickers ("AAPL, MSFT"), else the first of each row ("IBM, International Business Machines")."""
    rows = [(number, split_words(row[0]) if len(row) == 1 else row) for number, row in rows]
    cells = [cell for _, row in rows for cell in row if cell]
    if all(is_ticker(cell) for cell in cells):
        return [(number, cell) for number, row in rows for cell in row]
    return [(number, row[0]) for number, row in rows]


def split_words(line: str) -> list[str]:
    """Return several tickers with blanks between them; `BRK B` and a sentence are one cell."""
    words = line.split()
    return words if not is_ticker(line) and all(is_ticker(word) for word in words) else [line]


def is_ticker(word: str) -> bool:
    return TICKER_SHAPE.fullmatch(normalise_ticker(word)) is not None


def refuse_other_words(file: Path, words: Sequence[tuple[int, str, str]]) -> None:
    other = [(number, word) for number, word, ticker in words if not TICKER_SHAPE.fullmatch(ticker)]
    if other:
        named = "; ".join(f"line {number}: {word[:40]!r}" for number, word in other[:NAMED_AT_MOST])
        more = f" and {len(other) - NAMED_AT_MOST} more" if len(other) > NAMED_AT_MOST else ""
        raise UsageError(
            f"{file} has something else where a ticker is expected: {named}{more}",
            next_step="remove these lines, or put # before them",
        )


def normalise_ticker(word: str) -> str:
    """Return a ticker without what other programs put around it, and with the vendor's full stop
    where funds write `BRK B`, `MOG-A` or `BF/B`. Case is kept: it has a meaning (KIMpL)."""
    return CLASS_SEPARATOR.sub(".", SUFFIX.sub("", PREFIX.sub("", word.strip())))


def match_tickers(wanted: Sequence[str], listed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return `wanted` in the spelling of the vendor's list (`BRKB` too is its `BRK.B`), and those
    that are not in it."""
    listed = set(listed)
    by_letters = {NO_LETTER.sub("", ticker): ticker for ticker in sorted(listed)}
    matched = [
        ticker if ticker in listed else by_letters.get(NO_LETTER.sub("", ticker), ticker)
        for ticker in wanted
    ]
    # Those that are not listed stay as they are: the vendor may have their past.
    return list(dict.fromkeys(matched)), [ticker for ticker in matched if ticker not in listed]
