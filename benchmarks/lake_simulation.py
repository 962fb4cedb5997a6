"""Part (d) of bench_lake.py: a cluster of any size, simulated from what was measured here."""

from collections import Counter
from hashlib import md5
from heapq import heapreplace
from typing import Any

# Measured here on 2026-11-28: 753,718 bars into session summaries in 2.1 CPU seconds, files read
# and written included; a commit of 4,000 files in 0.17 s. Assumed: what the scheduler of a cluster
# takes for a task.
ROWS_A_CPU_SECOND, SECONDS_A_COMMIT, SECONDS_A_TASK = 350_000, 0.17, 0.01


def simulate() -> dict[str, Any]:
    """Return the seconds of one pass on 1, 10 and 100 machines of 8 cores."""
    result: dict[str, Any] = {"what": "(d) simulated: one pass of session summaries, 8 cores each"}
    for what, rows, buckets in (
        ("5-minute bars of 5 years, 7.9e8 rows, 32 buckets", 7.9e8, 32),
        ("ticks of 5 years, 1e11 rows, 32 buckets", 1e11, 32),
        ("ticks of 5 years, 1e11 rows, 256 buckets", 1e11, 256),
    ):
        runs = [simulate_cluster(rows, 60, buckets, 8 * machines) for machines in (1, 10, 100)]
        result[what] = "1, 10, 100 machines: " + ", ".join(f"{run:,.1f} s" for run in runs)
    return result


def simulate_cluster(rows: float, months: int, buckets: int, cores: int) -> float:
    """Return the seconds of one pass of session summaries: the months of all buckets as parts, each
    given to the core that is free first, then one commit. How evenly tickers fall into buckets is
    taken from made-up names."""
    names = [f"Z{number:05d}" for number in range(10_000)]
    sizes = Counter(
        md5(name.encode(), usedforsecurity=False).digest()[0] % buckets for name in names
    )
    free = [0.0] * cores
    for _ in range(months):
        for size in sizes.values():
            seconds = rows / months * size / len(names) / ROWS_A_CPU_SECOND + SECONDS_A_TASK
            heapreplace(free, free[0] + seconds)
    return max(free) + SECONDS_A_COMMIT * months * buckets / 4000
