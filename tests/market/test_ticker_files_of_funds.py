"""Universes from files as people have them."""

from pathlib import Path

import pytest

from backtestdb.errors import UsageError
from backtestdb.market.ticker_files import match_tickers, parse_ticker_file

HOLDINGS = """\ufeffiShares Russell 2000 ETF
Fund Holdings as of,"Nov 20, 2026"
Shares Outstanding,"300,000,000.00"
\u00a0
Ticker,Name,Sector,Asset Class,Market Value,Weight (%)
"NA","NANO LABS","Information Technology","Equity","1,000.00","0.10"
"TRUE","TRUECAR INC","Communication","Equity","900.00","0.09"
"BRK B","BERKSHIRE HATHAWAY INC CLASS B","Financials","Equity","800.00","0.08"
"MOG-A","MOOG INC CLASS A","Industrials","Equity","700.00","0.07"
"BF/B","BROWN FORMAN CLASS B","Consumer Staples","Equity","650.00","0.06"
"KIMpL","KIMCO PREFERRED","Real Estate","Equity","600.00","0.06"
"NA","NANO LABS","Information Technology","Equity","10.00","0.00"
"-","SOMETHING UNLISTED","Health Care","Equity","1.00","0.00"
"XTSLA","BLK CSH FND TREASURY SL AGENCY","Cash and/or Derivatives","Money Market","5.00","0.00"
"USD","USD CASH","Cash and/or Derivatives","Cash","4.00","0.00"
"RTYZ6","RUSSELL 2000 EMINI DEC 26","Cash and/or Derivatives","Futures","0.00","0.00"

"The content contained herein is owned or licensed by BlackRock."
"""


def test_holdings_of_a_fund_are_its_shares_in_the_vendors_spelling(tmp_path: Path) -> None:
    file = tmp_path / "IWM_holdings.csv"
    file.write_text(HOLDINGS, encoding="utf-8")
    assert parse_ticker_file(file) == ["NA", "TRUE", "BRK.B", "MOG.A", "BF.B", "KIMpL"]


@pytest.mark.parametrize(
    "text",
    [
        "# mine\nNA\nTRUE\nBRK.B\n",
        "symbol,name\nNA,Nano\nTRUE,TrueCar\nBRK-B,Berkshire\n",
        "Name,Ticker\nNano,NA\nTrueCar, TRUE\nBerkshire,BRK B\n\n",
    ],
)
def test_file_of_tickers_is_read_as_text_in_each_form(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tickers.csv"
    file.write_text(text)
    assert parse_ticker_file(file) == ["NA", "TRUE", "BRK.B"]


def test_file_without_tickers_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text("Ticker,Asset Class\nUSD,Cash\n")
    with pytest.raises(UsageError, match="names no ticker"):
        parse_ticker_file(file)


def test_tickers_are_matched_with_the_list_and_the_others_named() -> None:
    listed = ["BRK.B", "MOG.A", "KIMpL", "NA", "GONE.B"]
    matched, unknown = match_tickers(["BRKB", "MOG.A", "KIMpL", "NA", "LOST", "MOGA"], listed)
    assert matched == ["BRK.B", "MOG.A", "KIMpL", "NA", "LOST"]
    assert unknown == ["LOST"]
