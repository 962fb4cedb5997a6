"""What the commands of the lake print, behind their arguments; the scripts parse and call."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb

from backtestdb.config import Settings
from backtestdb.console import DONE, FAILED, format_bytes, format_cell, print_table, progress, say
from backtestdb.errors import UsageError
from backtestdb.lake.audit import audit
from backtestdb.lake.clean import clean
from backtestdb.lake.compute import Progress, compute_metrics
from backtestdb.lake.executor import Engine
from backtestdb.lake.layout import BUCKETS
from backtestdb.lake.probe import verify_conditional_writes
from backtestdb.lake.publish import publish
from backtestdb.lake.scan import Lake
from backtestdb.lake.store import Store, make_store
from backtestdb.lake.summarise import save_summary
from backtestdb.lake.summary import describe_loss, summary_path
from backtestdb.lake.table import LakeError, Version, open_lake

ROWS_SHOWN = 1000


@contextmanager
def progress_lines() -> Iterator[Progress]:
    """Yield progress for work that counts one thing after the other; it ends with the work."""
    with ExitStack() as shown:

        def start(label: str, total: int) -> Callable[[int], None]:
            shown.close()
            return shown.enter_context(progress(label, total))

        yield start


def open_store_to_write(settings: Settings) -> Store:
    """Return the lake's place. Raise LakeError where a lake was and none is, StoreError where two
    writers could hurt each other."""
    # Where a lake was and none is, a new one would fill the disk below the mount point.
    if loss := describe_loss(settings):
        anew = f"rm {shlex.quote(str(summary_path(settings)))}"
        raise LakeError(loss, next_step=f"connect its disk; to begin a new one there: {anew}")

    store = make_store(settings)
    verify_conditional_writes(store)
    return store


def run_publish(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make publish`, return its exit code."""
    store = open_store_to_write(settings)
    with progress("publishing: buckets", BUCKETS) as advance:
        done = publish(
            settings.database_path,
            store,
            datetime.now(UTC),
            advance,
            accept_fewer_rows=arguments.accept_fewer_rows,
        )

    save_summary(settings, open_lake(store))

    written = f"{done.files} of {done.files_in_all} files written"
    what = written if done.is_new else "nothing had changed"
    size = format_bytes(done.bytes)
    print(f"{settings.lake}: version {done.version}, {done.rows:,} rows, {size}; {what}")
    return DONE


def run_metrics(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make lake-metrics`, return its exit code."""
    store = open_store_to_write(settings)
    started = datetime.now(UTC)

    with Engine(settings.engine, arguments.processes) as engine, progress_lines() as lines:
        done = compute_metrics(store, engine, started, lines)

    save_summary(settings, open_lake(store))
    seconds = (datetime.now(UTC) - started).total_seconds()

    print(
        f"{settings.lake}: version {done.version}, {done.parts} files of metrics from "
        f"{done.rows:,} bars in {seconds:.1f} s by {settings.engine}"
        if done.parts
        else f"{settings.lake}: version {done.version}, all metrics follow their bars"
    )
    return DONE


def run_query(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make lake-query`, return its exit code."""
    version = open_lake(make_store(settings), arguments.version)
    if arguments.versions:
        return print_versions(version)

    if not arguments.sql:
        raise UsageError(
            "which query?", next_step="make lake-query ARGS=\"'SELECT count(*) FROM bars_5min'\""
        )

    try:
        answer = Lake(version).connection.execute(" ".join(arguments.sql))
        columns = [column[0] for column in answer.description or []]
        if arguments.csv:
            return print_csv(columns, answer)
        rows = answer.fetchmany(ROWS_SHOWN + 1)
    except duckdb.Error as error:
        raise UsageError(
            f"DuckDB: {error}", next_step="docs/DATABASE.md, chapter 10, has examples"
        ) from error

    shown = rows[:ROWS_SHOWN]
    if arguments.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in shown], default=str))
    else:
        title = f"{settings.lake}, version {version.number}"
        print_table(title, columns, [[show(cell) for cell in row] for row in shown])

    if len(rows) > ROWS_SHOWN:
        say(f"only the first {ROWS_SHOWN} rows are shown; --csv prints all")
    return DONE


def show(cell: object) -> object:
    """Return a price with its digits: the table's own form has one."""
    return f"{cell:.10g}" if isinstance(cell, float) else cell


def print_csv(columns: list[str], answer: Any) -> int:
    import csv  # noqa: PLC0415  of this one form

    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    while rows := answer.fetchmany(10_000):
        writer.writerows(rows)
    return DONE


def print_versions(version: Version) -> int:
    print_table(
        "Versions that can be read (make lake-query ARGS=\"--version N '…'\")",
        ["version", "published", "by"],
        [
            [row.version, f"{row.published_at_utc:%Y-%m-%d %H:%M:%S} UTC", row.command]
            for row in version.rows
        ],
    )
    return DONE


def run_clean(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make lake-clean`, return its exit code."""
    store = open_store_to_write(settings)
    done = clean(
        store,
        datetime.now(UTC),
        keep_versions=arguments.keep,
        keep_days=arguments.days,
        spare_hours=arguments.spare_hours,
    )

    save_summary(settings, open_lake(store))
    print(
        f"{settings.lake}: {done.versions_kept} versions kept, {done.versions_forgotten} "
        f"forgotten, {done.files_removed} files removed"
    )
    return DONE


def run_audit(settings: Settings, arguments: argparse.Namespace) -> int:
    """Given the arguments of `make lake-audit`, return its exit code."""
    version = open_lake(make_store(settings))
    with progress("reading files", len(version.parts)) as advance:
        findings = audit(version, advance)

    if arguments.json:
        print(json.dumps([vars(finding) for finding in findings]))
    elif findings:
        rows = [[finding.where, finding.what, finding.count] for finding in findings]
        print_table(
            f"{settings.lake}, version {version.number}", ["where", "what is wrong", "times"], rows
        )
    else:
        rows_in_all = sum(part.rows for part in version.parts.values())
        print(
            f"{settings.lake}: version {version.number} is whole: "
            f"{format_cell(len(version.parts))} files, "
            f"{rows_in_all:,} rows, every checksum and rule holds"
        )

    return FAILED if findings else DONE
