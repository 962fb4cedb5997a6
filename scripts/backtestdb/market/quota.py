"""One quota for every process of this machine user: a sliding window kept in a file under lock.

The vendor counts arrivals in 60 seconds. The window here is a second longer, because a request may
travel faster than the one it follows. Of the quota that leaves 60/61, 98.4 %.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOW_SECONDS = 61.0
SHORTEST_WAIT_SECONDS = 0.001


class StoppedError(Exception):
    """The run is ending; what waits for the quota gives up."""


def quota_path(state_dir: Path, base_url: str, api_key: str) -> Path:
    """Return the file of a key at a host, named by a digest: the key is not to be on disk."""
    digest = hashlib.sha256(f"{base_url} {api_key}".encode()).hexdigest()
    return state_dir / f"quota-{digest[:16]}"


class Quota:
    """The file holds the time of each granted request, one line each, in seconds of the system's
    monotonic clock: it is the same in all processes, and setting the clock does not move it. After
    a restart of the machine it begins again, so that times which lie in the future are from before
    and do not count.
    """

    def __init__(
        self,
        path: Path,
        requests_per_minute: int,
        *,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        """`requests_per_minute` 0 means no limit; with another `window_seconds` it is requests per
        window."""
        self.path = path
        self.requests_per_minute = requests_per_minute
        self.stopping = stopping or threading.Event()
        self.clock = clock
        self.window_seconds = window_seconds

    def take(self) -> None:
        """Return when one more request may be sent. Raise StoppedError when the run ends
        meanwhile."""
        while not self.stopping.is_set():
            wait_seconds = self.reserve() if self.requests_per_minute else 0.0
            if not wait_seconds:
                return
            self.stopping.wait(wait_seconds)
        raise StoppedError

    def reserve(self) -> float:
        """Write one request into the window, or return the seconds until the window has room."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.open_window() as granted:
            now = self.clock()
            if len(granted) < self.requests_per_minute:
                granted.append(now)
                return 0.0
            # Rounding must not make a wait of nothing, which means granted.
            free_at = granted[-self.requests_per_minute] + self.window_seconds
            return max(free_at - now, SHORTEST_WAIT_SECONDS)

    def give_back(self) -> None:
        """Take the newest request out of the window: it never left this machine."""
        if self.requests_per_minute:
            with self.open_window() as granted:
                del granted[-1:]

    @contextmanager
    def open_window(self) -> Iterator[list[float]]:
        """Give the times that still count, under lock, and write back what the caller made of
        them."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # The system lets go of it when a process is killed.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            granted = parse_window(os.read(descriptor, 1 << 20), self.clock(), self.window_seconds)
            yield granted

            # Where nothing changed too: a torn line counts as a request of now, and would for ever.
            window = "".join(f"{moment!r}\n" for moment in granted).encode()
            os.pwrite(descriptor, window, 0)
            os.ftruncate(descriptor, len(window))
        finally:
            os.close(descriptor)

    def used(self) -> int:
        """Return the number of requests in the window now, by all processes."""
        try:
            return len(parse_window(self.path.read_bytes(), self.clock(), self.window_seconds))
        except FileNotFoundError:
            return 0


def parse_window(content: bytes, now: float, window_seconds: float = WINDOW_SECONDS) -> list[float]:
    """Return times that still count, oldest first; a line torn by a kill counts as now."""
    granted = []

    for line in content.splitlines():
        try:
            moment = float(line)
        except ValueError:
            moment = now
        if now - window_seconds < moment <= now:
            granted.append(moment)
    return sorted(granted)
