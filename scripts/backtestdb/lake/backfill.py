"""`make backfill-lake`: sessions of 5-minute bars of the whole market from flat files, a month at a
time.

Each session is fetched, checked and staged by itself, two at once; a month's sessions are merged
into its files, its splits applied, and all of it is one version. Killed, what was staged is there
for the next run.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa

from backtestdb.lake.compute import Progress, find_store
from backtestdb.lake.executor import Engine
from backtestdb.lake.flat_files import FlatFiles
from backtestdb.lake.layout import BUCKETS, SCHEMAS, Part, PartKey, hash_content, sort_rows
from backtestdb.lake.minutes import adjust
from backtestdb.lake.owned import EPOCH, WHOLE_MARKET, Owned, load_owned, select
from backtestdb.lake.splits import apply_splits, as_split, load_lake_splits, make_ratios
from backtestdb.lake.staging import Staged, StageTask, drop_staged, read_staged, stage_session
from backtestdb.lake.store import Store
from backtestdb.lake.table import Draft, open_lake, read_part, write_part
from backtestdb.market.splits import Split

FLAT_FILE = "flat file"


@dataclass(frozen=True, kw_only=True)
class MergeTask:
    """One bucket of a month: what is there, and the staged sessions that come."""

    store: Store
    key: PartKey
    there: Part | None
    sessions: tuple[date, ...]
    folder: Path
    splits: tuple[Split, ...]
    owned: Owned = field(hash=False)


@dataclass(kw_only=True)
class Filled:
    """What a run did. `missing`: sessions that the vendor has no file of, with its reason."""

    version: int
    sessions: int = 0
    received: int = 0
    stored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    missing: dict[date, str] = field(default_factory=dict)
    splits: list[Split] = field(default_factory=list)


def find_lacking(owned: Owned, sessions: Sequence[date]) -> list[date]:
    """Return the sessions of which the lake has no file of the whole market."""
    return [day for day in sessions if (day - EPOCH).days not in owned.sessions]


def backfill_from_flat_files(
    store: Store,
    files: FlatFiles,
    sessions: Sequence[date],
    listed: Sequence[Split],
    folder: Path,
    clock: Callable[[], datetime],
    progress: Progress = lambda _, __: lambda _: None,
    *,
    processes: int = 2,
) -> Filled:
    """Bring what the lake lacks of `sessions`. `listed`: the vendor's splits since the first of
    them; `folder`: for what is staged. A session without a file is named in the result and does not
    stop the others."""
    filled = Filled(version=0)
    lacking = find_lacking(load_owned(open_lake(store, may_be_missing=True)), sessions)

    months: dict[str, list[date]] = {}
    for day in lacking:
        months.setdefault(f"{day:%Y-%m}", []).append(day)

    with Engine(processes=processes) as engine:
        for month, days in months.items():
            staged = stage_month(
                engine, files, days, folder, progress(f"{month}: sessions", len(days))
            )
            filled.missing |= {each.session_date: each.missing for each in staged if each.missing}

            there = [each for each in staged if not each.missing]
            if there:
                draft = Draft(open_lake(store, may_be_missing=True), "backfill-lake")
                save_asked(draft, there, clock())
                merge_month(
                    engine, draft, month, there, folder, progress(f"{month}: files", BUCKETS)
                )
                filled.splits += apply_splits(draft, listed, load_owned(draft.as_version()))
                draft.commit(clock())
                drop_staged(folder, [each.session_date for each in there])
                count(filled, there)

    # Splits that became known since the sessions were brought.
    draft = Draft(open_lake(store, may_be_missing=True), "backfill-lake")
    filled.splits += apply_splits(draft, listed, load_owned(draft.base))
    filled.version = draft.commit(clock()).number
    return filled


def count(filled: Filled, staged: Sequence[Staged]) -> None:
    filled.sessions += len(staged)
    filled.received += sum(each.received for each in staged)
    filled.stored += sum(each.stored for each in staged)
    for each in staged:
        for reason, (minutes, _) in each.rejected.items():
            filled.rejected[reason] = filled.rejected.get(reason, 0) + minutes


def stage_month(
    engine: Engine,
    files: FlatFiles,
    days: Sequence[date],
    folder: Path,
    advance: Callable[[int], None],
) -> list[Staged]:
    """Return the sessions of a month, fetched and staged, in order."""
    staged = []
    tasks = [StageTask(files, day, folder) for day in days]
    for _, each in engine.run(stage_session, tasks):
        staged.append(each)
        advance(1)
    return sorted(staged, key=lambda each: each.session_date)


def merge_month(
    engine: Engine,
    draft: Draft,
    month: str,
    staged: Sequence[Staged],
    folder: Path,
    advance: Callable[[int], None],
) -> None:
    """Take the staged sessions of a month into the draft, one file for each bucket."""
    sessions = tuple(each.session_date for each in staged)
    splits = tuple(as_split(row) for row in load_lake_splits(draft) if row["state"] == "applied")
    owned = load_owned(draft.as_version())

    keys = [PartKey("bars_5min", month, bucket) for bucket in range(BUCKETS)]
    tasks = [
        MergeTask(
            store=draft.store,
            key=key,
            there=draft.parts.get(key),
            sessions=sessions,
            folder=folder,
            splits=splits,
            owned=owned,
        )
        for key in keys
    ]

    for _, part in engine.run(merge_bucket, tasks):
        if part is not None and part.path != getattr(draft.parts.get(part.key), "path", None):
            draft.take(part)
        advance(1)


def merge_bucket(task: MergeTask) -> Part | None:
    """Put staged sessions in the place of what the bucket has of them. Return the part that is
    there when it has this content already, None when there are no rows."""
    coming = read_staged(task.folder, task.sessions, task.key.bucket)
    store = find_store(task.store)
    if task.there is not None:
        there = read_part(store, task.there)
        mine = Owned(frozenset((day - EPOCH).days for day in task.sessions), {})
        coming = pa.concat_tables([select(there, ~mine.mask(there)), coming])

    if not len(coming):
        return None
    rows = sort_rows("bars_5min", adjust(coming, make_ratios(coming, task.splits, task.owned)))

    content = hash_content(rows)
    if task.there is not None and task.there.content == content:
        return task.there
    return write_part(store, task.key, rows, content=content)


def save_asked(draft: Draft, staged: Sequence[Staged], now_utc: datetime) -> None:
    """Add the record of each session, and of what was rejected in it."""
    asked = draft.as_version().read(PartKey("asked")).to_pylist()
    rejected = draft.as_version().read(PartKey("rejected")).to_pylist()

    for each in staged:
        day = each.session_date
        asked.append(
            {
                "ticker": WHOLE_MARKET,
                "start_date": day,
                "end_date": day,
                "source": FLAT_FILE,
                "received": each.received,
                "stored": each.stored,
                "rejected": sum(minutes for minutes, _ in each.rejected.values()),
                "tickers": each.tickers,
                "asked_at_utc": now_utc.isoformat(timespec="seconds"),
            }
        )

        rejected += [
            {"session_date": day, "reason": reason, "minutes": minutes, "example": example}
            for reason, (minutes, example) in each.rejected.items()
        ]
        if each.lost:
            rejected.append(
                {"session_date": day, "reason": "", "minutes": 0, "example": json.dumps(each.lost)}
            )

    asked.sort(key=lambda row: (row["ticker"], row["start_date"], row["end_date"]))
    rejected.sort(key=lambda row: (row["session_date"], row["reason"]))

    draft.put(PartKey("asked"), pa.Table.from_pylist(asked, schema=SCHEMAS["asked"]))
    draft.put(PartKey("rejected"), pa.Table.from_pylist(rejected, schema=SCHEMAS["rejected"]))
