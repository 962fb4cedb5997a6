"""Rows that a client must not store, put into a good answer."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from backtestdb.new_york import date_of, midnight_ms

Row = dict[str, Any]


# These take the place of the middle row.
REPLACING: dict[str, Callable[[Row], Row]] = {
    "null": lambda row: row | {"c": None},
    "high_below_low": lambda row: row | {"h": row["l"], "l": row["h"] + 0.01},
    "negative": lambda row: row | {"o": -row["o"]},
    "zero": lambda row: row | {"c": 0.0, "l": 0.0},
    "negative_volume": lambda row: row | {"v": -1.0},
    "junk": lambda row: row | dict.fromkeys("ohlc", 9e11),
}


def spoil_bars(rows: list[Row], kinds: tuple[str, ...], today: date) -> list[Row]:
    """Return rows with one bad bar of each kind; those of REPLACING stand where a good one was.

    The others are added at the end: `duplicate` (the first again), `weekend` (moved to a Saturday)
    and `future` (moved a week behind today).
    """
    spoilt = list(rows)
    for offset, kind in enumerate(kind for kind in kinds if kind in REPLACING):
        place = (len(rows) // 2 + offset) % len(rows)
        spoilt[place] = REPLACING[kind](rows[place])
    return spoilt + [
        make_added_row(rows[0], kind, today) for kind in kinds if kind not in REPLACING
    ]


def make_added_row(row: Row, kind: str, today: date) -> Row:
    """Return a copy of a good row, at its own time or when nothing can have traded."""
    if kind == "duplicate":
        return dict(row)
    day = date_of(row["t"])
    target = day + timedelta((5 - day.weekday()) % 7) if kind == "weekend" else today + timedelta(7)
    return row | {"t": row["t"] - midnight_ms(day) + midnight_ms(target)}
