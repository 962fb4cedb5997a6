"""A session's 5-minute bars on this machine's disk, until its month is merged into the lake.

One Parquet file a session with a row group for each bucket: read by session once, and by bucket
once. What was staged before a kill is not fetched again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backtestdb.files import rename_durably
from backtestdb.lake.flat_files import FlatFiles, NotInSubscriptionError, NotThereError
from backtestdb.lake.layout import BUCKETS, SCHEMAS
from backtestdb.lake.minutes import SessionBars, make_session_bars

FACTS = b"session"


@dataclass(frozen=True)
class StageTask:
    """One flat file to fetch."""

    files: FlatFiles
    session_date: date
    folder: Path

    def __hash__(self) -> int:
        return hash(self.session_date)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """`missing`: why there is nothing, "" when there is something. Otherwise as in SessionBars."""

    session_date: date
    missing: str = ""
    received: int = 0
    stored: int = 0
    tickers: int = 0
    rejected: dict[str, tuple[int, str]]
    lost: list[str]


def staging_folder(state_dir: Path, root: str) -> Path:
    """Return the folder for a lake's staged sessions; two lakes never share one."""
    return state_dir / "lake-staging" / blake2b(root.encode(), digest_size=8).hexdigest()


def staged_path(folder: Path, session_date: date) -> Path:
    return folder / f"{session_date}.parquet"


def stage_session(task: StageTask) -> Staged:
    """Fetch and stage one session, unless that is done. A session without a file is told, not
    raised: the others go on."""
    path = staged_path(task.folder, task.session_date)
    if not path.exists():
        try:
            session = make_session_bars(
                task.files.fetch_minutes(task.session_date), task.session_date
            )
        except (NotThereError, NotInSubscriptionError) as error:
            return Staged(session_date=task.session_date, missing=str(error), rejected={}, lost=[])
        write_staged(path, session)

    return load_staged(path)


def write_staged(path: Path, session: SessionBars) -> None:
    """Write a session's bars with their facts, whole or not at all."""
    facts = {
        "session_date": session.session_date.isoformat(),
        "received": session.received,
        "stored": len(session.bars),
        "tickers": len(session.bars["ticker"].unique()),
        "rejected": session.rejected,
        "lost": session.lost,
    }

    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(f".{os.getpid()}.writing")
    schema = SCHEMAS["bars_5min"].with_metadata({FACTS: json.dumps(facts)})
    ends = [0, *session.bucket_ends.tolist()]

    with pq.ParquetWriter(writing, schema, compression="lz4", use_dictionary=["ticker"]) as writer:
        for bucket in range(BUCKETS):
            writer.write_table(session.bars.slice(ends[bucket], ends[bucket + 1] - ends[bucket]))
    rename_durably(writing, path)


def load_staged(path: Path) -> Staged:
    facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[FACTS])
    return Staged(
        session_date=date.fromisoformat(facts.pop("session_date")),
        rejected={
            reason: (count, example) for reason, (count, example) in facts.pop("rejected").items()
        },
        **facts,
    )


def read_staged(folder: Path, sessions: Sequence[date], bucket: int) -> pa.Table:
    """Return a bucket's rows of some sessions."""
    files = (pq.ParquetFile(staged_path(folder, day)) for day in sessions)
    return pa.concat_tables(
        [file.read_row_group(bucket).cast(SCHEMAS["bars_5min"]) for file in files]
    )


def drop_staged(folder: Path, sessions: Sequence[date]) -> None:
    for day in sessions:
        staged_path(folder, day).unlink(missing_ok=True)
