"""Tickers from files: lists, CSV files, holdings of a fund; case-sensitive text, nothing here guesses types."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from backtestdb.errors import UsageError

CLASS_SEPARATOR = re.compile(r"(?<=\w)[ /-](?=\w)")
NO_LETTER = re.compile(r"[^A-Za-z0-9]")


def parse_ticker_file(file: Path) -> list[str]:
    """One ticker a line, or a CSV with a column ticker or symbol, whatever lines stand before its header; of a
    fund's holdings the shares only. Raise UsageError when there is none in it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no file {file}", next_step="check the path after --from-file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text", next_step="save it as UTF-8 (CSV UTF-8)") from None
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    for number, row in enumerate(rows):
        header = [cell.strip().lower() for cell in row]
        named = [header.index(name) for name in ("ticker", "symbol") if name in header]
        if named:
            found = read_holdings(header, rows[number + 1 :], named[0])
            break
    else:
        found = [row[0].strip() for row in rows if len(row) == 1 and not row[0].startswith("#")]
    tickers = list(dict.fromkeys(normalise_ticker(ticker) for ticker in found if ticker and ticker != "-"))
    if not tickers:
        raise UsageError(f"{file} names no ticker: one a line, or a CSV with a column ticker or symbol")
    return tickers


def read_holdings(header: Sequence[str], rows: Sequence[Sequence[str]], ticker_column: int) -> list[str]:
    """The tickers below a header. Where a fund says what each holding is, cash, futures and money market funds
    are no stocks."""
    kind = header.index("asset class") if "asset class" in header else None
    return [
        row[ticker_column].strip()
        for row in rows
        if len(row) > ticker_column
        and (kind is None or (len(row) > kind and row[kind].strip().lower() == "equity"))
    ]


def normalise_ticker(ticker: str) -> str:
    """Funds write `BRK B`, `MOG-A` or `BF/B` where the vendor writes a full stop. Case is kept: it has a meaning."""
    return CLASS_SEPARATOR.sub(".", ticker)


def match_tickers(wanted: Sequence[str], listed: Iterable[str]) -> tuple[list[str], list[str]]:
    """`wanted` in the spelling of the vendor's list (`BRKB` too is its `BRK.B`), and those that are not in it; they
    stay as they are, for the vendor may have their past."""
    listed = set(listed)
    by_letters = {NO_LETTER.sub("", ticker): ticker for ticker in sorted(listed)}
    matched = [
        ticker if ticker in listed else by_letters.get(NO_LETTER.sub("", ticker), ticker) for ticker in wanted
    ]
    return list(dict.fromkeys(matched)), [ticker for ticker in matched if ticker not in listed]
