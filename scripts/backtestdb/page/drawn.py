"""The picture of the market data that the page keeps: counted beside the answers, and again once
the bars have changed."""

import asyncio
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from backtestdb.health.facts import Facts
from backtestdb.page.picture import Picture, draw_picture, mark_market_data
from backtestdb.untouched import read_shared

WAIT_SECONDS = 1.5
# While a backfill runs the bars change all the time: counting takes at most a tenth of it, once it
# takes longer than a moment.
MOMENT_SECONDS, REST_FACTOR = 2.0, 9.0
RECENT_SECONDS = 30.0


class Drawn:
    """`picture` is the last one that was counted, `counted_at` when (seconds since 1970), 0 before
    the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.picture = Picture()
        self.counted_at = 0.0
        self._mark: object = None
        self._seconds = 0.0
        self._task: asyncio.Task[None] | None = None

    def is_recent(self) -> bool:
        """Return whether the picture was counted within the last RECENT_SECONDS."""
        return time.time() - self.counted_at < RECENT_SECONDS

    async def wait(self, facts: Facts) -> bool:
        """Return whether `picture` shows the bars that are there now, or those of a moment ago."""
        if not facts.universes:  # nothing to count, or nothing that can be read now
            return True
        if self._task is None or (self._task.done() and not self._rests()):
            self._task = asyncio.create_task(asyncio.to_thread(self._draw, facts))

        # Counting goes on after WAIT_SECONDS, and the page asks again.
        await asyncio.wait({self._task}, timeout=WAIT_SECONDS)
        if not self._task.done():
            return False
        # An error is a writer that has the file for itself, or damage: status tells which.
        with suppress(sqlite3.Error):
            self._task.result()
            return True
        return False

    def _rests(self) -> bool:
        if self._seconds < MOMENT_SECONDS:
            return False
        return time.time() - self.counted_at < REST_FACTOR * self._seconds

    def _draw(self, facts: Facts) -> None:
        started = time.monotonic()
        mark = read_shared(self.path, mark_market_data)
        if self._mark != mark:
            self.picture = read_shared(
                self.path, lambda connection: draw_picture(connection, facts.universes)
            )
            self._mark, self._seconds = mark, time.monotonic() - started
        self.counted_at = time.time()
