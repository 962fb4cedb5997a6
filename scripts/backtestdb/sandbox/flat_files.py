"""The vendor's flat files: a gzipped CSV of all minute bars of a session, behind an S3 interface.

    s3://flatfiles/us_stocks_sip/minute_aggs_v1/2026/11/2026-11-20.csv.gz
    ticker,volume,open,close,high,low,window_start,transactions      window_start: ns UTC

By ticker and minute, as traded (not adjusted for splits). Put together, the minutes of five are the
5-minute bar that the API serves.
"""

import gzip
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from threading import Lock
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import numpy as np

from backtestdb.sandbox.exchange import Exchange, load_market_minutes
from backtestdb.sandbox.request import Answer
from backtestdb.sandbox.sessions import MINUTE_MS, Ints, load_sessions
from backtestdb.sandbox.signature import find_signer
from backtestdb.sandbox.subscription import Subscription, find_wall

BUCKET = "/flatfiles"
OBJECT = re.compile(
    BUCKET + r"/us_stocks_sip/minute_aggs_v1/(\d{4})/(\d{2})/(\1-\2-\d{2})\.csv\.gz"
)
COLUMNS = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")
EMPTY_LIST = (
    b'<?xml version="1.0"?><ListBucketResult '
    b'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>flatfiles</Name>'
    b"<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)
FILES_KEPT = 3
NANOSECONDS = 1_000_000


@dataclass
class FlatFiles:
    """The files made last: clients ask for each in many ranges."""

    kept: OrderedDict[tuple[object, ...], bytes] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def make(self, exchange: Exchange, session: int) -> bytes:
        """Return the gzipped file of a session; the newest FILES_KEPT are kept, because clients ask
        for a file in many ranges."""
        key = (session, exchange.splits, len(exchange.universe.listings), exchange.junk)
        with self.lock:
            if key not in self.kept:
                content = make_csv(exchange, session)
                self.kept[key] = gzip.compress(content, compresslevel=1, mtime=0)
            self.kept.move_to_end(key)
            while len(self.kept) > FILES_KEPT:
                self.kept.popitem(last=False)
            return self.kept[key]


def answer_s3(
    files: FlatFiles,
    exchange: Exchange,
    plan: Subscription,
    keys: tuple[str, ...],
    request: tuple[str, str, Mapping[str, str]],
) -> Answer:
    """Given a `request` (method, target and headers, names in lower case), return what S3 answers.
    Access keys are the API's keys, each its own secret. A session that is not over has no file; one
    before the plan's history is forbidden."""
    method, target, headers = request
    _, refused = find_signer(method, target, headers, {key: key for key in keys})
    if refused:
        return refuse(403, refused)
    if urlsplit(target).path.rstrip("/") == BUCKET:
        return Answer(200, EMPTY_LIST, {"Content-Type": "application/xml"})

    match = OBJECT.fullmatch(urlsplit(target).path)
    found = load_sessions().index_range(*(date.fromisoformat(match[3]),) * 2) if match else range(0)
    if match is None or not found or date.fromisoformat(match[3]) >= exchange.today:
        return refuse(404, "NoSuchKey")
    if date.fromisoformat(match[3]) < find_wall(plan, exchange.today):
        return refuse(403, "AccessDenied")

    return cut_range(files.make(exchange, found.start), headers.get("range", ""))


def refuse(status: int, code: str) -> Answer:
    body = (
        "<?xml "
        f'version="1.0"?><Error><Code>{escape(code)}</Code><Message>{escape(code)}</Message></Error>'
    )
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


def cut_range(content: bytes, asked: str) -> Answer:
    """Return the whole, or bytes=FIRST-LAST of it."""
    headers = {
        "Content-Type": "application/gzip",
        "ETag": f'"{len(content):x}"',
        "Accept-Ranges": "bytes",
    }
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if match is None:
        return Answer(200, content, headers)

    first = int(match[1])
    last = min(int(match[2] or len(content)), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(206, content[first : last + 1], headers)


def make_csv(exchange: Exchange, session: int) -> bytes:
    """Return the CSV of a session: every minute in which a ticker traded."""
    # Arrow writes 3 million rows in a second; only the lake's commands ask for these files, and
    # they have it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.csv as pa_csv  # noqa: PLC0415

    columns = make_minutes(exchange, session)
    names = np.array([listing.ticker for listing in exchange.universe.listings], dtype=object)
    texts = pa.DictionaryArray.from_arrays(pa.array(columns.pop("listing")), pa.array(names)).cast(
        pa.string()
    )

    table = (
        pa.table({"ticker": texts, **columns})
        .select(list(COLUMNS))
        .sort_by([("ticker", "ascending"), ("window_start", "ascending")])
    )

    output = pa.BufferOutputStream()
    output.write(",".join(COLUMNS).encode() + b"\n")
    pa_csv.write_csv(table, output, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    return bytes(output.getvalue())


def make_minutes(exchange: Exchange, session: int) -> dict[str, np.ndarray]:
    """Return the 5-minute bars of every ticker, each taken apart into as many minutes as it has
    base bars (or shares)."""
    listing, made = load_market_minutes(exchange, session)
    bars = made.bars
    count = np.clip(made.base_minutes, 1, np.maximum(bars.volume.astype(np.int64), 1))
    row = np.repeat(np.arange(len(count)), count)
    minute: Ints = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    parts = count[row]

    opened, closed = bars.open[row], bars.close[row]
    step = (closed - opened) / parts
    starts = np.where(minute == 0, opened, np.round(opened + step * minute, 4))
    ends = np.where(minute == parts - 1, closed, np.round(opened + step * (minute + 1), 4))
    # Rounding must not leave the bar's own range; one minute reaches its high and one its low.
    starts, ends = (np.clip(edge, bars.low[row], bars.high[row]) for edge in (starts, ends))
    at_high, at_low = ((made.start_ms // MINUTE_MS // part) % count for part in (5, 7))
    high = np.where(minute == at_high[row], bars.high[row], np.maximum(starts, ends))
    low = np.where(minute == at_low[row], bars.low[row], np.minimum(starts, ends))

    shares = np.floor(bars.volume[row] / parts)
    shares[minute == 0] += (bars.volume - np.floor(bars.volume / count) * count)[row[minute == 0]]
    return {
        "listing": listing[row].astype(np.int32),
        "volume": shares.astype(np.int64),
        "open": starts,
        "close": ends,
        "high": high,
        "low": low,
        "window_start": (made.start_ms[row] + minute * MINUTE_MS) * NANOSECONDS,
        "transactions": np.maximum(bars.trades[row] // parts, 1),
    }
