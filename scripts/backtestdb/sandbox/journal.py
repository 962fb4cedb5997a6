"""What the server remembers: every request, and who came how often in the last minute."""

import time
from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Any


@dataclass
class Journal:
    """Every request with its arrival, on the machine's one monotonic clock."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def open_entry(
        self, path: str, *, key_was_right: bool, key_place: str | None
    ) -> dict[str, Any]:
        """Note an arrival; without an answer, or after a broken connection, status is None."""
        entry = {
            "arrived": time.monotonic(),
            "path": path,
            "key_was_right": key_was_right,
            "key_place": key_place,
            "status": None,
            "fault": None,
        }

        with self.lock:
            self.entries.append(entry)
        return entry

    def read(self, since: int = 0) -> list[dict[str, Any]]:
        """Return copies of the entries from number `since` on."""
        with self.lock:
            return [dict(entry) for entry in self.entries[since:]]

    def clear(self) -> None:
        """Forget all entries."""
        with self.lock:
            self.entries.clear()


@dataclass
class Window:
    """A sliding window of arrivals under one key."""

    arrivals: deque[float] = field(default_factory=deque)
    admitted: deque[float] = field(default_factory=deque)
    most: int = 0
    lock: Lock = field(default_factory=Lock)

    def admit(self, arrived: float, *, limit: int, seconds: float) -> float | None:
        """Count an arrival; None when it is admitted, else the seconds until the next one would be.

        At most `limit` are admitted in any `seconds` (0: all). Refused arrivals count for `most`,
        the greatest number seen in one window, but do not keep the door shut.
        """
        with self.lock:
            for times in (self.arrivals, self.admitted):
                while times and times[0] <= arrived - seconds:
                    times.popleft()
            self.arrivals.append(arrived)
            self.most = max(self.most, len(self.arrivals))
            if limit and len(self.admitted) >= limit:
                return self.admitted[0] + seconds - arrived
            self.admitted.append(arrived)
            return None
