"""The sessions of the New York exchange from 2000 to 2030, as arrays.

A session is known by its index: 0 is 2000-01-03. The index does not depend on when the calendar
ends, so that what is made up from it stays the same.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from backtestdb.new_york import NEW_YORK

if TYPE_CHECKING:
    from pandas import DatetimeIndex

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST_DATE, LAST_DATE = "2000-01-01", "2030-12-31"
MINUTE_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """An entry a session: its date, three instants in ms UTC, how many regular 5-minute bars."""

    dates: npt.NDArray[np.datetime64]
    midnight_ms: Ints
    open_ms: Ints
    grouped_ms: Ints
    regular_bars: Ints

    def index_range(self, first: date, last: date) -> range:
        """Return indexes of sessions from first to last, both included, if there are any."""
        start = int(np.searchsorted(self.dates, np.datetime64(first), side="left"))
        return range(start, int(np.searchsorted(self.dates, np.datetime64(last), side="right")))


@cache
def load_sessions() -> Sessions:
    """Return the calendar XNYS with its closures (2012-10-29/30 among them) and half days."""
    # A third of a second that importing this module need not cost.
    import exchange_calendars  # noqa: PLC0415
    from pandas import DatetimeIndex  # noqa: PLC0415

    schedule = exchange_calendars.get_calendar("XNYS", start=FIRST_DATE, end=LAST_DATE).schedule
    midnight = schedule.index.tz_localize(NEW_YORK)
    four_pm = (schedule.index + timedelta(hours=16)).tz_localize(NEW_YORK)
    open_ms, close_ms = (instants_ms(DatetimeIndex(schedule[name])) for name in ("open", "close"))
    return Sessions(
        dates=schedule.index.to_numpy().astype("datetime64[D]"),
        midnight_ms=instants_ms(midnight),
        open_ms=open_ms,
        grouped_ms=instants_ms(four_pm),
        regular_bars=(close_ms - open_ms) // (5 * MINUTE_MS),
    )


def instants_ms(instants: "DatetimeIndex") -> Ints:
    """Return instants with a zone as ms UTC."""
    return np.asarray(instants.as_unit("ms").asi8, dtype=np.int64)
