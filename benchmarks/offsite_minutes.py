"""Part of bench_offsite.py: a day in which every minute has work."""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backtestdb.console import format_bytes
from backtestdb.database import connect
from backtestdb.files import hash_file
from backtestdb.offsite.send import Content
from backtestdb.offsite.send_small import send_small
from backtestdb.offsite.small_copy import take_small_copy
from measuring import cpu_seconds, folder_bytes
from offsite_work import add_work, make_irreplaceable, make_sender

MINUTES_LIMIT_BYTES = 60_000_000
# What an agent platform writes in a busy minute: one insight, one strategy, six trades.
INSIGHTS_A_MINUTE = 1


def bench_minutes(folder: Path, minutes: int, megabytes: float) -> None:
    """Print what a day sends in which every minute has work, and what a look costs."""
    folder.mkdir()
    database, path = folder / "backtesting.db", folder / "now.db"
    chance = make_irreplaceable(database, megabytes)
    clock = [datetime(2026, 11, 24, tzinfo=UTC)]
    sender = make_sender(folder, clock)
    sent: dict[str, list[int]] = {}
    started, cpu = time.monotonic(), cpu_seconds()
    for minute in range(minutes + 1):
        with closing(connect(database)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("BEGIN")
            add_work(connection, chance, INSIGHTS_A_MINUTE, 1_700_000_000_000 + minute)
            connection.execute("COMMIT")
        copy = take_small_copy(database, path)
        content = Content(
            path=path,
            file="irreplaceable.db",
            database=str(database),
            database_id="",
            taken_at_utc=clock[0],
            sha256=hash_file(path),
            rows=copy.rows,
        )
        record = send_small(sender, content, is_minute=bool(minute % 60))
        sent.setdefault(record.name.copy_class, []).append(record.sent_bytes)
        clock[0] += timedelta(minutes=1)
    total = folder_bytes(folder / "elsewhere")
    first = sum(sent["small-base"][:1])
    print(f"\n{minutes} busy minutes at {format_bytes(database.stat().st_size)} irreplaceable")
    for copy_class, sizes in sent.items():
        average = format_bytes(sum(sizes) // len(sizes))
        print(f"  {copy_class}: {len(sizes)} copies, {format_bytes(sum(sizes))}, {average} each")
    after = total - first
    print(
        f"  sent in all {format_bytes(total)}, records included; after the first base "
        f"{format_bytes(after)}"
    )
    print(f"  {after / minutes * 1440 / MINUTES_LIMIT_BYTES:.2f} of 60 MB a day")
    print(
        f"  a look: {(time.monotonic() - started) / minutes:.2f} s, "
        f"{(cpu_seconds() - cpu) / minutes:.2f} s of a core"
    )
