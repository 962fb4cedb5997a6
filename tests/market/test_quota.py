"""One quota for all processes: never more than N grants in any window, whoever asks and whoever is
killed."""

import os
import signal
import stat
import subprocess
import sys
import threading
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.config import PROJECT_DIR
from backtestdb.market.quota import WINDOW_SECONDS, Quota, StoppedError, parse_window, quota_path

GREEDY = """
import sys, time
from pathlib import Path
from backtestdb.market.quota import Quota
path, limit = Path(sys.argv[1]), int(sys.argv[2])
window, count = float(sys.argv[3]), int(sys.argv[4])
moments = []

def clock():
    moments.append(time.monotonic())
    return moments[-1]

quota = Quota(path, limit, window_seconds=window, clock=clock)
for _ in range(count):
    quota.take()
    print(moments[-1], flush=True)
"""
MOMENTS = st.floats(min_value=0, max_value=1e7, allow_nan=False)


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def most_in_any_window(moments: list[float], window_seconds: float) -> int:
    """Half-open windows that begin at a grant: a grant exactly one window later is not in it."""
    ordered = sorted(moments)
    return max(
        (
            sum(1 for moment in ordered[first:] if moment < start + window_seconds)
            for first, start in enumerate(ordered)
        ),
        default=0,
    )


@given(moments=st.lists(MOMENTS), now=MOMENTS)
def test_window_holds_exactly_the_moments_of_the_last_seconds_in_order(
    moments: list[float], now: float
) -> None:
    content = "".join(f"{moment!r}\n" for moment in moments).encode()
    expected = sorted(moment for moment in moments if now - WINDOW_SECONDS < moment <= now)
    assert parse_window(content, now) == expected


@given(content=st.binary(), now=MOMENTS)
def test_window_of_any_bytes_is_readable_and_holds_no_time_of_elsewhere(
    content: bytes, now: float
) -> None:
    window = parse_window(content, now)
    assert len(window) <= len(content.splitlines())
    assert all(now - WINDOW_SECONDS < moment <= now for moment in window)


def test_torn_line_counts_as_a_request_of_now() -> None:
    assert parse_window(b"100.5\n100.7x\n", 101.0) == [100.5, 101.0]


def test_times_in_the_future_are_from_before_a_restart_of_the_machine() -> None:
    assert parse_window(b"90000.5\n30.5\n", 31.0) == [30.5]


@given(
    limit=st.integers(1, 5),
    start=st.floats(min_value=0, max_value=1e7),
    pauses=st.lists(st.floats(min_value=0, max_value=40), min_size=1, max_size=40),
)
def test_grants_never_exceed_the_limit_and_never_wait_needlessly(
    tmp_path_factory: pytest.TempPathFactory, limit: int, start: float, pauses: list[float]
) -> None:
    clock = Clock(start)
    quota = Quota(tmp_path_factory.mktemp("quota") / "q", limit, clock=clock)
    granted: list[float] = []
    for pause in pauses:
        clock.now += pause
        wait = quota.reserve()
        inside = len(granted) - bisect_right(granted, clock.now - WINDOW_SECONDS)
        if inside >= limit:
            assert wait == pytest.approx(
                max(granted[-limit] + WINDOW_SECONDS - clock.now, 0.001), abs=1e-6
            )
        else:
            assert wait == 0
            granted.append(clock.now)
        assert quota.used() == len(
            [moment for moment in granted if moment > clock.now - WINDOW_SECONDS]
        )
    assert most_in_any_window(granted, WINDOW_SECONDS - 1e-6) <= limit


def test_limit_of_the_vendor_has_a_second_to_spare() -> None:
    assert WINDOW_SECONDS >= 61


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_torn_file_delays_by_one_window_and_not_for_ever(tmp_path: Path, limit: int) -> None:
    path, clock = tmp_path / "q", Clock(1000.0)
    path.write_bytes(b"torn\n" * 7)
    quota = Quota(path, limit, clock=clock)
    assert quota.reserve() == WINDOW_SECONDS
    clock.now += WINDOW_SECONDS
    assert [quota.reserve() for _ in range(limit)] == [0.0] * limit
    assert quota.reserve() == WINDOW_SECONDS


def test_zero_means_no_limit_and_writes_nothing(tmp_path: Path) -> None:
    quota = Quota(tmp_path / "state" / "q", 0)
    for _ in range(1000):
        quota.take()
    assert list(tmp_path.iterdir()) == []
    assert quota.used() == 0


def test_file_is_made_with_its_folders_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "q"
    Quota(path, 5).take()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_does_not_grow(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    quota = Quota(tmp_path / "q", 3, clock=clock)
    for _ in range(200):
        clock.now += 30
        quota.reserve()
    assert len(quota.path.read_text().splitlines()) <= 3


def test_waiting_is_ended_by_the_stopping_event(tmp_path: Path) -> None:
    stopping = threading.Event()
    quota = Quota(tmp_path / "q", 1, stopping=stopping)
    quota.take()
    ended: list[type[BaseException]] = []

    def wait_for_quota() -> None:
        try:
            quota.take()
        except StoppedError as error:
            ended.append(type(error))

    waiting = threading.Thread(target=wait_for_quota)
    waiting.start()
    stopping.set()
    waiting.join(timeout=120)
    assert ended == [StoppedError]
    assert quota.used() == 1


@pytest.mark.parametrize("limit", [0, 5])
def test_quota_of_a_run_that_ends_grants_nothing(tmp_path: Path, limit: int) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(StoppedError):
        Quota(tmp_path / "q", limit, stopping=stopping).take()


def test_file_of_a_key_is_one_and_does_not_name_it(tmp_path: Path) -> None:
    path = quota_path(tmp_path, "https://api.massive.com", "secret-key")
    assert path == quota_path(tmp_path, "https://api.massive.com", "secret-key")
    assert path != quota_path(tmp_path, "https://api.massive.com", "other-key")
    assert path != quota_path(tmp_path, "http://127.0.0.1:1", "secret-key")
    assert "secret" not in str(path)


def start_greedy(
    path: Path, limit: int, window_seconds: float, count: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", GREEDY, str(path), str(limit), str(window_seconds), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT_DIR / "scripts")},
    )


def read_grants(process: subprocess.Popen[str]) -> list[float]:
    """The moment of each grant, from the clock of the quota itself."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return [float(line) for line in output.splitlines()]


def test_four_processes_together_stay_within_one_quota_and_use_it_up(tmp_path: Path) -> None:
    path, limit, window_seconds, each = tmp_path / "q", 5, 0.5, 6
    processes = [start_greedy(path, limit, window_seconds, each) for _ in range(4)]
    grants = sorted(moment for process in processes for moment in read_grants(process))
    assert len(grants) == 4 * each
    assert most_in_any_window(grants, window_seconds - 1e-6) <= limit
    assert grants[-1] - grants[0] >= window_seconds * (4 * each / limit - 1) * 0.9


def test_killed_process_leaves_no_lock_and_its_grants_count(tmp_path: Path) -> None:
    path, window_seconds = tmp_path / "q", 1.0
    greedy = start_greedy(path, 3, window_seconds, 1_000_000)
    assert greedy.stdout is not None
    grants = [float(greedy.stdout.readline()) for _ in range(3)]
    greedy.send_signal(signal.SIGKILL)
    greedy.communicate()
    quota = Quota(path, 3, window_seconds=window_seconds)
    grants += read_grants(start_greedy(path, 3, window_seconds, 3))
    assert most_in_any_window(grants, window_seconds - 1e-6) <= 3
    quota.take()


@pytest.mark.parametrize("seed", range(3))
def test_processes_killed_at_any_moment_never_open_the_quota(tmp_path: Path, seed: int) -> None:
    """The quota is in nobody's way (3 × 40 of 130): each process is killed while it writes as fast
    as it can."""
    path = tmp_path / "q"
    for _ in range(3):
        greedy = start_greedy(path, 130, 30.0, 40)
        assert greedy.stdout is not None
        for _ in range(1 + 11 * seed):
            greedy.stdout.readline()
        greedy.kill()
        greedy.communicate()
    quota = Quota(path, 130, window_seconds=30.0)
    assert quota.used() >= 3 * (1 + 11 * seed)
    granted = 0
    while not quota.reserve():
        granted += 1
    assert granted <= 130 - 3 * (1 + 11 * seed)
