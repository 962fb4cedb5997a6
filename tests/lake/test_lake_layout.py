"""Where rows lie, and how their content is told apart."""

from datetime import date

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.lake.layout import (
    SCHEMAS,
    bucket_of,
    hash_content,
    period_of,
    sort_rows,
    split_by_period,
)

TICKERS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)


def make_days(rows: list[tuple[str, date, float]]) -> pa.Table:
    schema = SCHEMAS["bars_1day"]
    given = {
        "ticker": [row[0] for row in rows],
        "session_date": [row[1] for row in rows],
        "timestamp": [row[1] for row in rows],
        **{name: [row[2] for row in rows] for name in ("open", "high", "low", "close")},
        "volume": [1] * len(rows),
    }
    columns = [
        pa.array(given["timestamp"], pa.date32()).cast(field.type)
        if field.name == "timestamp"
        else pa.array(given[field.name], field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


@given(TICKERS)
def test_bucket_is_the_same_in_sql(ticker: str) -> None:
    query = "SELECT ('0x' || left(md5(?), 2))::INTEGER % 32"
    assert duckdb.connect().execute(query, [ticker]).fetchall() == [(bucket_of(ticker),)]


def test_buckets_of_the_market_are_of_about_one_size() -> None:
    letters = "ABCDEFGHIJKLMNOPQRST"
    sizes = [0] * 32
    for ticker in (a + b + c for a in letters for b in letters for c in letters):
        sizes[bucket_of(ticker)] += 1
    assert max(sizes) < 1.25 * 8000 / 32


def test_content_hash_does_not_see_chunks_slices_or_what_lies_below_a_null() -> None:
    rows = make_days(
        [
            (ticker, date(2026, 1, day), 1.5 * day)
            for ticker in ("A", "NA", "é")
            for day in (5, 6, 7)
        ]
    )
    joined = pa.concat_tables([rows.slice(0, 4), rows.slice(4)])
    padded = pa.concat_tables([rows.slice(8), rows]).slice(1)
    assert hash_content(rows) == hash_content(joined) == hash_content(padded)

    nulls = pa.array([1.0, None]), pa.array([1.0, 7.0]).filter(pa.array([True, False]))
    garbage = pa.Array.from_buffers(
        pa.float64(), 2, [pa.py_buffer(b"\x01"), pa.array([1.0, 99.0]).buffers()[1]], null_count=1
    )
    assert len(nulls[1]) == 1
    assert hash_content(pa.table({"x": nulls[0]})) == hash_content(pa.table({"x": garbage}))


@given(
    st.lists(st.sampled_from(["", "A", "B", "AB", "BA"]), min_size=1, max_size=8), st.integers(0, 7)
)
def test_content_hash_sees_every_value(tickers: list[str], place: int) -> None:
    rows = pa.table({"ticker": pa.array(tickers, pa.string()), "n": pa.array(range(len(tickers)))})
    changed = list(tickers)
    changed[place % len(tickers)] += "x"
    assert hash_content(rows) != hash_content(
        rows.set_column(0, "ticker", pa.array(changed, pa.string()))
    )
    numbers = [None if n == place % len(tickers) else n for n in range(len(tickers))]
    assert hash_content(rows) != hash_content(
        rows.set_column(1, "n", pa.array(numbers, pa.int64()))
    )


def test_rows_are_split_by_period_and_sorted() -> None:
    rows = make_days(
        [("B", date(2026, 1, 5), 1.0), ("A", date(2026, 1, 6), 2.0), ("A", date(2025, 12, 31), 3.0)]
    )
    periods = dict(split_by_period("bars_1day", rows))
    assert list(periods) == ["2025", "2026"]
    assert periods["2026"]["ticker"].to_pylist() == ["A", "B"]
    assert sort_rows("bars_1day", periods["2026"]) is periods["2026"]
    assert (period_of("bars_1day", "2026-01-05"), period_of("bars_5min", "2026-01-05")) == (
        "2026",
        "2026-01",
    )
