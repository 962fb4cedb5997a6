"""The work of `make lake-metrics`: a part of bars in, a part of metrics out, by `market.metrics` as
it is.

A task names the files that it reads, all of one version, and writes a file under a new name; the
caller commits what all tasks wrote at once. So a task can run anywhere, twice, or die.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import pandas as pd
import pyarrow as pa

from backtestdb.config import load_settings
from backtestdb.lake.aggregates import make_aggregates
from backtestdb.lake.executor import Engine
from backtestdb.lake.layout import SCHEMAS, Part, PartKey, split_by_period
from backtestdb.lake.lineage import INPUTS, find_due_parts, find_inputs, make_lineage
from backtestdb.lake.read_sqlite import as_stamps_ms
from backtestdb.lake.store import Store, StoreError, make_store
from backtestdb.lake.table import Draft, Version, open_lake, read_part, write_part
from backtestdb.market.metrics import make_metrics

Progress = Callable[[str, int], Callable[[int], None]]
BARS = ["ticker", "session_date", "timestamp", "open", "high", "low", "close", "volume"]


@dataclass(frozen=True)
class ComputeTask:
    """One bucket. `outputs`: the parts to make, oldest first, each with its lineage; `inputs`: the
    bars of the newest of them."""

    store: Store
    table: str
    outputs: tuple[tuple[PartKey, str], ...]
    inputs: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Computed:
    """`parts` were made from `rows` bars."""

    version: int
    parts: int
    rows: int


def compute_metrics(
    store: Store,
    engine: Engine,
    now_utc: datetime,
    progress: Progress = lambda _, __: lambda _: None,
    *,
    tables: Iterable[str] = tuple(INPUTS),
) -> Computed:
    """Compute what does not follow its bars yet, and commit it as one version per table: killed, it
    has lost what was not committed and nothing else. `progress`: given a label and a number of
    tasks, return what counts them."""
    version = open_lake(store)
    made = rows = 0

    for table in tables:
        tasks = make_tasks(version, table)
        draft = Draft(version, "lake-metrics")
        for key in find_due_parts(version.parts, table):
            if not make_lineage(version.parts, key):
                draft.drop(key)  # its bars are gone

        advance = progress(table, len(tasks))
        for task, parts in engine.run(run_task, tasks):
            for part in parts:
                draft.take(part)
            made += len(parts)
            rows += sum(part.rows for part in task.inputs)
            advance(1)

        version = draft.commit(now_utc)

    return Computed(version=version.number, parts=made, rows=rows)


def make_tasks(version: Version, table: str) -> list[ComputeTask]:
    """Return a task for each bucket of daily metrics (all years), else each month of a bucket."""
    due = [(key, make_lineage(version.parts, key)) for key in find_due_parts(version.parts, table)]

    groups: dict[object, list[tuple[PartKey, str]]] = {}
    for key, lineage in due:
        if lineage:
            groups.setdefault(key.bucket if table == "daily_metrics" else key, []).append(
                (key, lineage)
            )

    return [
        ComputeTask(
            version.store, table, tuple(outputs), tuple(find_inputs(version.parts, outputs[-1][0]))
        )
        for outputs in groups.values()
    ]


def run_task(task: ComputeTask) -> list[Part]:
    """Compute and write the parts of a task, in whatever process it came to. The task says where
    the lake is; the keys are in the process's own settings."""
    store = find_store(task.store)
    bars = pa.concat_tables([read_part(store, part, BARS) for part in task.inputs])
    bars = bars.sort_by([("ticker", "ascending"), ("timestamp", "ascending")])
    rows = make_daily_metrics(bars) if task.table == "daily_metrics" else make_aggregates(bars)

    periods = dict(split_by_period(task.table, rows)) if len(rows) else {}
    return [
        write_part(store, key, periods.get(key.period, rows.slice(0, 0)), made_from)
        for key, made_from in task.outputs
    ]


def find_store(given: Store) -> Store:
    """Return the store with this machine's own keys. Raise StoreError where LAKE is another one."""
    if given.is_local:
        return given
    mine = make_store(load_settings())
    if mine.root != given.root:
        raise StoreError(
            f"this worker's LAKE is {mine.root}, the command's {given.root}",
            next_step="give every worker the same LAKE settings",
        )
    return mine


def make_daily_metrics(bars: pa.Table) -> pa.Table:
    """Return daily_metrics for day bars of whole tickers, both in order of ticker and time."""
    frame = pd.DataFrame(
        {
            "ticker": bars["ticker"].to_numpy(),
            "date": bars["session_date"].combine_chunks().cast(pa.int32()).to_numpy(),
            "timestamp": as_stamps_ms(bars),
            **{name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")},
        }
    )

    metrics = make_metrics(frame)

    columns = [
        bars[field.name]
        if field.name in BARS
        else pa.array(metrics[field.name].to_numpy("float64"), from_pandas=True).cast(field.type)
        for field in SCHEMAS["daily_metrics"]
    ]
    return pa.table(columns, schema=SCHEMAS["daily_metrics"])
