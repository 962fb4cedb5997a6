"""Never exit 0 with a difference: seeded runs of commands against an odd vendor, then one honest
update.

`make test` runs a sample; all 2,000: pytest -m long tests/market/test_vendor_fuzz.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_process import SandboxProcess, running_sandbox
from vendor_fuzz import LAST, FuzzRun

SAMPLE, ALL, AT_ONCE = 12, 2000, 50


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with running_sandbox("--tickers", "200", today=LAST.isoformat()) as running:
        yield running


def check(seed: int, folder: Path, sandbox: SandboxProcess) -> bool:
    """Whether the honest update had nothing left to name; fails where it says so and something
    differs."""
    folder.mkdir(exist_ok=True)
    run = FuzzRun(seed, folder, sandbox)
    run.play()
    if not run.finish():
        return False
    difference = run.find_difference()
    assert not difference, f"seed {seed}: {difference}\n" + "\n".join(run.said)
    return True


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_content_equals_a_fresh_download_after_odd_answers_and_an_honest_update(
    tmp_path: Path, sandbox: SandboxProcess, seed: int
) -> None:
    check(seed, tmp_path, sandbox)


@pytest.mark.long
@pytest.mark.parametrize("first", range(SAMPLE, ALL, AT_ONCE))
def test_content_equals_a_fresh_download_in_all_runs(
    tmp_path: Path, sandbox: SandboxProcess, first: int
) -> None:
    seeds = range(first, min(first + AT_ONCE, ALL))
    whole = [check(seed, tmp_path / str(seed), sandbox) for seed in seeds]
    # A run may end with something that is named; that most of them do would hide the differences.
    assert sum(whole) > 0.7 * len(whole)
