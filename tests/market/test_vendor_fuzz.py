"""Never exit 0 with a difference: seeded runs of commands against an odd vendor, then honest
updates.

`make test` runs a sample; all 2,000: pytest -m long tests/market/test_vendor_fuzz.py (less disk,
and so quicker, with TMPDIR=/dev/shm).
"""

from pathlib import Path

import pytest

from sandbox_process import SandboxOptions, SandboxProcess
from vendor_fuzz import LAST, FuzzRun, HonestDownloads

SAMPLE, ALL, AT_ONCE = 8, 2000, 50


SANDBOX = SandboxOptions("--tickers", "200", today=LAST.isoformat())


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess) -> HonestDownloads:
    return HonestDownloads(tmp_path_factory.mktemp("honest"), sandbox)


def check(seed: int, folder: Path, honest: HonestDownloads) -> bool:
    """Whether the honest updates had nothing left to name; fails where they say so and something
    differs."""
    folder.mkdir(exist_ok=True)
    run = FuzzRun(seed, folder, honest.sandbox, honest)
    run.play()
    if not run.finish():
        return not run.has_begun()
    difference = run.find_difference()
    assert not difference, f"seed {seed}: {difference}\n" + "\n".join(run.said)
    return True


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_content_equals_a_fresh_download_after_odd_answers_and_an_honest_update(
    tmp_path: Path, honest: HonestDownloads, seed: int
) -> None:
    check(seed, tmp_path, honest)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(SAMPLE, ALL, AT_ONCE))
def test_content_equals_a_fresh_download_in_all_runs(
    tmp_path: Path, honest: HonestDownloads, first: int
) -> None:
    seeds = range(first, min(first + AT_ONCE, ALL))
    whole = [check(seed, tmp_path / str(seed), honest) for seed in seeds]
    # A run may end with something that is named; that most of them do would hide the differences.
    assert sum(whole) > 0.9 * len(whole)
