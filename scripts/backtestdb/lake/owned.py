"""Which 5-minute bars `make backfill-lake` brought: those `make publish` leaves alone."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from backtestdb.lake.layout import PartKey
from backtestdb.lake.table import Version

WHOLE_MARKET = "*"
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Owned:
    """`sessions`: those that came as a file of the whole market. `ranges`: first and last session
    of each other answer, by ticker. Both as days since 1970, as date32 counts them."""

    sessions: frozenset[int]
    ranges: dict[str, list[tuple[int, int]]]

    def mask(self, rows: pa.Table) -> np.ndarray:
        """Return for each 5-minute bar whether it is in one of these sessions of tickers."""
        days = rows["session_date"].combine_chunks().cast(pa.int32()).to_numpy()
        mask = np.isin(days, np.array(sorted(self.sessions), dtype="int32"))

        if self.ranges:
            tickers = rows["ticker"].combine_chunks().dictionary_encode()
            codes = tickers.indices.to_numpy()
            for code, ticker in enumerate(tickers.dictionary.to_pylist()):
                for first, last in self.ranges.get(ticker, ()):
                    mask |= (codes == code) & (days >= first) & (days <= last)
        return np.asarray(mask)

    def holds_any(self, period: str) -> bool:
        """Return whether a month has any such session."""
        first = (date.fromisoformat(f"{period}-01") - EPOCH).days
        spans = [(day, day) for day in self.sessions] + [
            span for spans in self.ranges.values() for span in spans
        ]
        return any(start <= first + 31 and end >= first for start, end in spans)


def load_owned(version: Version) -> Owned:
    """Return the sessions that the version's records name, those without a bar included."""
    rows = version.read(PartKey("asked")).to_pylist()
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    sessions = set()

    for row in rows:
        first, last = ((row[name] - EPOCH).days for name in ("start_date", "end_date"))
        if row["ticker"] == WHOLE_MARKET:
            sessions |= set(range(first, last + 1))
        else:
            ranges[row["ticker"]].append((first, last))
    return Owned(frozenset(sessions), dict(ranges))


def select(rows: pa.Table, mask: np.ndarray) -> pa.Table:
    return rows.filter(pa.array(mask)) if not mask.all() else rows
