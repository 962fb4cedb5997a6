"""`make backfill-lake --by-api`: 5-minute bars as traded, one ticker after the other, where there
are no flat files.

Each answer is staged by itself; the answers of a bucket are merged into its files as one version.
Killed, what was staged is there for the next run.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backtestdb.files import rename_durably
from backtestdb.lake.layout import BUCKETS, SCHEMAS, PartKey, bucket_of, split_by_period
from backtestdb.lake.minutes import adjust
from backtestdb.lake.owned import EPOCH, Owned, load_owned, select
from backtestdb.lake.read_sqlite import with_nulls
from backtestdb.lake.splits import apply_splits, as_split, load_lake_splits, make_ratios
from backtestdb.lake.store import Store
from backtestdb.lake.table import Draft, open_lake
from backtestdb.market.bars import parse_bars
from backtestdb.market.client import Answer, MarketData, MarketDataError, NotListedError
from backtestdb.market.fetch import fetch_all
from backtestdb.market.request_plan import RangeRequest
from backtestdb.market.sessions import load_calendar, sessions_between
from backtestdb.market.splits import Split

API = "api"
FACTS = b"answer"


@dataclass(frozen=True, kw_only=True)
class TickerAnswer:
    """An answer that is staged."""

    ticker: str
    start: str
    end: str
    received: int
    stored: int
    rejected: dict[str, int]


@dataclass(kw_only=True)
class FilledByApi:
    """`failures`: why a ticker's request brought nothing."""

    version: int
    requests: int = 0
    stored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    splits: list[Split] = field(default_factory=list)


def plan_ranges(
    owned: Owned, tickers: Sequence[str], sessions: Sequence[date]
) -> list[RangeRequest]:
    """Return a request for each ticker that lacks sessions: from the first to the last of them."""
    rest = [day for day in sessions if (day - EPOCH).days not in owned.sessions]
    ranges = []
    for ticker in dict.fromkeys(tickers):
        spans = owned.ranges.get(ticker, [])
        lacking = [day for day in rest if not any(a <= (day - EPOCH).days <= b for a, b in spans)]
        if lacking:
            ranges.append(RangeRequest(ticker, "5min", lacking[0], lacking[-1]))
    return sorted(ranges, key=lambda each: (bucket_of(each.ticker), each.ticker))


def backfill_by_api(
    store: Store,
    client: MarketData,
    concurrency: int,
    ranges: Sequence[RangeRequest],
    listed: Sequence[Split],
    folder: Path,
    clock: Callable[[], datetime],
    advance: Callable[[int], None] = lambda _: None,
) -> FilledByApi:
    """Bring what `plan_ranges` planned, bucket after bucket. `listed`: the vendor's splits."""
    filled, sent_before = FilledByApi(version=0), client.requests_sent
    for bucket in range(BUCKETS):
        mine = [each for each in ranges if bucket_of(each.ticker) == bucket]
        answers = stage_answers(client, concurrency, mine, folder, filled, advance)
        if answers:
            draft = Draft(open_lake(store, may_be_missing=True), "backfill-lake --by-api")
            save_asked(draft, answers, clock())
            merge_answers(draft, bucket, answers, folder)
            filled.splits += apply_splits(draft, listed, load_owned(draft.as_version()))
            draft.commit(clock())
            for each in answers:
                staged_path(folder, each.ticker, each.start, each.end).unlink()

    draft = Draft(open_lake(store, may_be_missing=True), "backfill-lake --by-api")
    filled.splits += apply_splits(draft, listed, load_owned(draft.base))
    filled.version = draft.commit(clock()).number
    filled.requests = client.requests_sent - sent_before
    return filled


def stage_answers(
    client: MarketData,
    concurrency: int,
    ranges: Sequence[RangeRequest],
    folder: Path,
    filled: FilledByApi,
    advance: Callable[[int], None],
) -> list[TickerAnswer]:
    """Ask for what is not staged yet; return all that is staged now of these ranges."""
    stopping = threading.Event()

    def fetch(request: RangeRequest) -> Answer:
        try:
            return client.fetch_bars(
                request.ticker, "5min", request.start, request.end, adjusted=False
            )
        except NotListedError:
            return Answer([])

    answers = []
    unasked = []
    for request in ranges:
        path = staged_path(folder, request.ticker, str(request.start), str(request.end))
        if path.exists():
            answers.append(load_staged(path))
            advance(1)
        else:
            unasked.append(request)

    for request, result in fetch_all(unasked, fetch, concurrency, stopping):
        if isinstance(result, MarketDataError):
            filled.failures[request.ticker] = str(result)
        else:
            answers.append(stage_answer(folder, request, result))
        advance(1)

    for answer in answers:
        filled.stored += answer.stored
        for reason, bars in answer.rejected.items():
            filled.rejected[reason] = filled.rejected.get(reason, 0) + bars

    return answers


def staged_path(folder: Path, ticker: str, start: str, end: str) -> Path:
    """Return where an answer is staged. The ticker is hashed: tickers may differ by case alone, and
    file systems may not tell."""
    name = blake2b(ticker.encode(), digest_size=8).hexdigest()
    return folder / f"{name}-{start}-{end}.parquet"


def stage_answer(folder: Path, request: RangeRequest, answer: Answer) -> TickerAnswer:
    """Write the bars of an answer, as traded, whole or not at all; return what the file holds."""
    sessions = sessions_between(load_calendar(), request.start, request.end)
    bars = parse_bars(answer.rows, "5min", sessions, ticker=request.ticker)

    columns = {
        "ticker": pa.array(bars.tickers, pa.string()),
        "session_date": pa.array(
            [date.fromisoformat(day) for day in bars.session_dates], pa.date32()
        ),
        "timestamp": pa.array(bars.timestamps * 1000).cast(pa.timestamp("us", tz="UTC")),
        **dict(zip(("open", "high", "low", "close"), map(pa.array, bars.prices), strict=True)),
        "volume": pa.array(bars.volume),
    }

    facts = TickerAnswer(
        ticker=request.ticker,
        start=str(request.start),
        end=str(request.end),
        received=bars.received,
        stored=len(bars),
        rejected=dict(Counter(bar.reason for bar in bars.rejected)),
    )

    rows = with_nulls("bars_5min", columns, len(bars))
    path = staged_path(folder, facts.ticker, facts.start, facts.end)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(f".{os.getpid()}.writing")
    pq.write_table(rows.replace_schema_metadata({FACTS: json.dumps(asdict(facts))}), writing)
    rename_durably(writing, path)
    return facts


def load_staged(path: Path) -> TickerAnswer:
    return TickerAnswer(**json.loads(pq.read_schema(path).metadata[FACTS]))


def merge_answers(draft: Draft, bucket: int, answers: Sequence[TickerAnswer], folder: Path) -> None:
    """Put answers in the place of what the bucket has of their tickers and sessions."""
    paths = [staged_path(folder, each.ticker, each.start, each.end) for each in answers]
    coming = pa.concat_tables([pq.read_table(path).cast(SCHEMAS["bars_5min"]) for path in paths])

    replaced: dict[str, list[tuple[int, int]]] = {}
    for each in answers:
        span = tuple((date.fromisoformat(day) - EPOCH).days for day in (each.start, each.end))
        replaced.setdefault(each.ticker, []).append((span[0], span[1]))

    owned = load_owned(draft.as_version())
    splits = [as_split(row) for row in load_lake_splits(draft) if row["state"] == "applied"]

    months = dict(split_by_period("bars_5min", coming)) if len(coming) else {}
    for month, rows in months.items():
        key = PartKey("bars_5min", month, bucket)
        there = draft.as_version().read(key)
        kept = select(there, ~Owned(frozenset(), replaced).mask(there))
        both = pa.concat_tables([kept, rows])
        both = both.sort_by([("ticker", "ascending"), ("timestamp", "ascending")])
        draft.put(key, adjust(both, make_ratios(both, splits, owned)))


def save_asked(draft: Draft, answers: Sequence[TickerAnswer], now_utc: datetime) -> None:
    """Add a record for each answer, the empty ones included."""
    asked = draft.as_version().read(PartKey("asked")).to_pylist()
    asked += [
        {
            "ticker": each.ticker,
            "start_date": date.fromisoformat(each.start),
            "end_date": date.fromisoformat(each.end),
            "source": API,
            "received": each.received,
            "stored": each.stored,
            "rejected": sum(each.rejected.values()),
            "tickers": 1,
            "asked_at_utc": now_utc.isoformat(timespec="seconds"),
        }
        for each in answers
    ]

    asked.sort(key=lambda row: (row["ticker"], row["start_date"], row["end_date"]))
    draft.put(PartKey("asked"), pa.Table.from_pylist(asked, schema=SCHEMAS["asked"]))
