"""Universes: tickers stay text, members come and go, files of several forms are read."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.errors import UsageError
from backtestdb.market.ticker_files import parse_ticker_file
from backtestdb.market.universes import (
    TECH_SECTOR_FILE,
    choose_tickers,
    load_tickers,
    require_tickers,
    save_universe,
)
from commands import Project
from contents import query_all
from market_setup import open_new_database
from sandbox_process import running_sandbox

ODD = ["NA", "TRUE", "BRK.B", "KIMpL", "NULL", "NaN", "ON", "1E5", "007", "INF", "None", "kimpl"]
TICKERS = st.lists(st.sampled_from([*ODD, "AAPL", "MSFT", "IBM"]), unique=True)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_new_database(tmp_path / "u.db")) as connection:
        yield connection


def read_universe(connection: sqlite3.Connection, name: str) -> tuple[int, dict[str, int]]:
    (total,) = connection.execute(
        "SELECT total_stocks FROM universe WHERE name = ?", (name,)
    ).fetchone()
    members = connection.execute(
        "SELECT ticker, is_active FROM universe_stocks JOIN universe ON universe.id = universe_id"
        " WHERE universe.name = ?",
        (name,),
    )
    return total, dict(members.fetchall())


def test_tickers_that_look_like_something_else_survive_file_and_database(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    save_universe(connection, "odd", ODD)
    assert load_tickers(connection, "odd") == ODD
    file = tmp_path / "tickers.txt"
    names = ["NA", "TRUE", "BRK.B", "KIMpL", "NULL", "NaN", "ON", "INF", "E5"]
    file.write_text("\n".join(names))
    assert parse_ticker_file(file) == names
    kinds = connection.execute("SELECT DISTINCT typeof(ticker) FROM universe_stocks").fetchall()
    assert kinds == [("text",)]


def test_new_universe_says_what_came_in(connection: sqlite3.Connection) -> None:
    change = save_universe(connection, "mine", ["B", "A", "B"])
    assert (change.total, change.added, change.left) == (2, ["B", "A"], [])
    assert read_universe(connection, "mine") == (2, {"A": 1, "B": 1})


def test_updated_universe_keeps_those_that_left_as_inactive(connection: sqlite3.Connection) -> None:
    save_universe(connection, "mine", ["A", "B", "C"])
    change = save_universe(connection, "mine", ["B", "D"])
    assert (change.total, change.added, change.left) == (2, ["D"], ["A", "C"])
    assert read_universe(connection, "mine") == (2, {"A": 0, "B": 1, "C": 0, "D": 1})
    assert load_tickers(connection, "mine") == ["B", "D"]


def test_member_that_comes_back_is_active_again_and_keeps_its_row(
    connection: sqlite3.Connection,
) -> None:
    save_universe(connection, "mine", ["A", "B"])
    connection.execute(
        "UPDATE universe_stocks SET sector = 'Tech', name = 'Alpha' WHERE ticker = 'A'"
    )
    before = connection.execute("SELECT * FROM universe_stocks WHERE ticker = 'A'").fetchall()
    save_universe(connection, "mine", ["B"])
    change = save_universe(connection, "mine", ["A", "B"])
    assert change.added == ["A"]
    assert (
        connection.execute("SELECT * FROM universe_stocks WHERE ticker = 'A'").fetchall() == before
    )


def test_saving_the_same_again_changes_nothing(connection: sqlite3.Connection) -> None:
    save_universe(connection, "mine", ODD)
    before = connection.execute("SELECT * FROM universe_stocks").fetchall()
    change = save_universe(connection, "mine", ODD)
    assert (change.total, change.added, change.left) == (len(ODD), [], [])
    assert connection.execute("SELECT * FROM universe_stocks").fetchall() == before


def test_universes_do_not_touch_each_other(connection: sqlite3.Connection) -> None:
    save_universe(connection, "one", ["A", "B"])
    save_universe(connection, "two", ["B", "C"])
    save_universe(connection, "one", ["A"])
    assert read_universe(connection, "two") == (2, {"B": 1, "C": 1})


@given(steps=st.lists(TICKERS, min_size=1, max_size=5))
def test_after_any_updates_the_active_members_are_the_last_list(steps: list[list[str]]) -> None:
    with closing(open_new_database(Path(":memory:"))) as connection:
        for tickers in steps:
            before = set(load_tickers(connection, "u"))
            change = save_universe(connection, "u", tickers)
            assert set(change.added) == set(tickers) - before
            assert set(change.left) == before - set(tickers)
        total, members = read_universe(connection, "u")
        assert total == len(steps[-1])
        assert {ticker for ticker, active in members.items() if active} == set(steps[-1])
        assert set(members) == {ticker for tickers in steps for ticker in tickers}


def test_universe_that_cannot_be_saved_is_left_as_it_was(connection: sqlite3.Connection) -> None:
    save_universe(connection, "mine", ["A", "B"])
    with pytest.raises(sqlite3.IntegrityError):
        save_universe(connection, "mine", ["C", None])  # type: ignore[list-item]
    assert read_universe(connection, "mine") == (2, {"A": 1, "B": 1})


def test_unknown_universe_names_those_that_there_are(connection: sqlite3.Connection) -> None:
    with pytest.raises(UsageError, match="there are: none"):
        require_tickers(connection, "mine")
    save_universe(connection, "theirs", ["A"])
    with pytest.raises(UsageError, match=r"no universe 'mine' .* there are: theirs") as caught:
        require_tickers(connection, "mine")
    assert "create-universe" in caught.value.next_step
    assert require_tickers(connection, "theirs") == ["A"]


def test_tech_sector_is_the_65_unless_the_setting_names_others() -> None:
    built_in = choose_tickers("tech_sector", [], None, [])
    assert len(built_in) == len(set(built_in)) == 65
    assert list(built_in) == parse_ticker_file(TECH_SECTOR_FILE)
    assert {"AAPL", "ON", "NOW", "NET", "WEX"} <= set(built_in)
    assert choose_tickers("tech_sector", [], None, ["NA"]) == ["NA"]
    assert choose_tickers("tech_sector", ["TRUE"], None, ["NA"]) == ["TRUE"]


def test_other_universe_needs_its_tickers(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_text("NA\n")
    assert choose_tickers("mine", [], file, []) == ["NA"]
    with pytest.raises(UsageError, match="which tickers belong to 'mine'"):
        choose_tickers("mine", [], None, ["NA"])


FILES = {
    "one a line": "AAPL\nNA\n",
    "blank lines, comments, blanks": "# mine\n\n  AAPL \n\nNA\n",
    "Windows line ends and a mark at the beginning": "\ufeffAAPL\r\nNA\r\n",
    "no line end": "AAPL\nNA",
    "twice": "AAPL\nNA\nAAPL\n",
    "CSV with ticker": "name,ticker\nApple,AAPL\nNational,NA\n",
    "CSV with Symbol": "Symbol,Name\nAAPL,Apple\nNA,National\n",
    "CSV in quotes": '"Ticker","Name"\n"AAPL","Apple, Inc."\n"NA","Nat"\n',
    "CSV of one column": "ticker\nAAPL\nNA\n",
    "semicolons": "Ticker;Name\nAAPL;Apple, Inc.\nNA;Nat\n",
    "tabs": "Name\tSymbol\nApple\tAAPL\nNational\tNA\n",
    "bars": "Symbol|Name\nAAPL|Apple\nNA|Nat\n",
    "several a line": "AAPL, NA\n",
    "several a line with blanks": "AAPL NA\n",
    "several a line with semicolons": "AAPL;NA;AAPL\n",
    "names of exchanges": "NASDAQ:AAPL\nNYSE:NA\n",
    "dollars": "$AAPL\n$NA\n",
    "small letters": "aapl\nna\n",
    "as a terminal of Bloomberg has them": "AAPL US Equity\nNA US Equity\n",
    "ticker and name without a header": "AAPL, Apple Incorporated\nNA, National\n",
    "footer behind the table": 'Ticker,Name\nAAPL,Apple\nNA,Nat\n\n"Source: a fund. No '
    'warranty."\nTotal\n',
    "header in the plural": "Tickers\nAAPL\nNA\n",
    "preamble before the header": 'Fund Holdings as of,"Nov 20, '
    '2026"\n\nTicker,Name\nAAPL,Apple\nNA,N\n',
}


@pytest.mark.parametrize("form", FILES)
def test_file_of_each_form_is_read(tmp_path: Path, form: str) -> None:
    file = tmp_path / "f"
    file.write_text(FILES[form], encoding="utf-8", newline="")
    assert parse_ticker_file(file) == ["AAPL", "NA"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("AAPL\nTotal: 2 holdings\n", ["line 2: 'Total: 2 holdings'"]),
        ("AAPL\n\n1,234.56\n005930\n", ["line 3: '1'", "line 4: '005930'"]),
        ("Ticker,Name\nApple Inc,AAPL\nNA,Nat\n", ["line 2: 'Apple Inc'"]),
        ("My list of stocks\nAAPL\n", ["line 1: 'My list of stocks'"]),
        ("AAPL\nMICROSOFT\n", ["line 2: 'MICROSOFT'"]),
    ],
)
def test_file_with_something_else_in_a_tickers_place_is_refused_with_its_lines(
    tmp_path: Path, text: str, lines: list[str]
) -> None:
    file = tmp_path / "f.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match="something else") as caught:
        parse_ticker_file(file)
    assert all(line in str(caught.value) for line in lines)


def test_ticker_before_a_name_without_a_header_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("IBM, International Business Machines\nT, AT&T\nF, FORD\n")
    assert parse_ticker_file(file) == ["IBM", "T", "F"]


def test_class_of_a_share_with_a_blank_is_one_ticker(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_text("BRK B\nBF/B\nMOG-A\nAAPL MSFT\n")
    assert parse_ticker_file(file) == ["BRK.B", "BF.B", "MOG.A", "AAPL", "MSFT"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "ticker,name\n", "ticker\n-\n"])
def test_file_without_a_ticker_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "empty.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"empty\.csv"):
        parse_ticker_file(file)


def test_file_that_is_missing_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        parse_ticker_file(tmp_path / "missing.csv")
    (tmp_path / "odd.csv").write_bytes(b"ticker,name\nAAPL,Caf\xe9\n")
    with pytest.raises(UsageError, match="UTF-8"):
        parse_ticker_file(tmp_path / "odd.csv")


def test_fund_that_spells_a_class_without_its_full_stop_gets_its_bars(tmp_path: Path) -> None:
    file = tmp_path / "IWM.csv"
    file.write_text("Ticker,Name\nBRKB,Berkshire\nIBM,Business Machines\n")
    with running_sandbox(today="2026-11-21") as sandbox:
        project = Project(tmp_path, sandbox.url)
        output = project.check(
            "restore_database.py", "--russell2000", str(file), "--yes", "--end", "2026-11-20"
        )
    assert "spelling of the tickers" in output
    query = "SELECT DISTINCT ticker FROM {} ORDER BY 1"
    for table in ("ohlcv_data", "daily_metrics", "universe_stocks"):
        assert query_all(project.database, query.format(table)) == [("BRK.B",), ("IBM",)]
