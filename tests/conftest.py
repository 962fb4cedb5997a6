"""What all tests share: the vendor's stand-in of a module, and hypothesis: enough examples to find
things, few enough for a quick suite, no deadline on a busy machine."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

from sandbox_process import SandboxProcess, running_sandbox

settings.register_profile("quick", deadline=None, max_examples=60)
# The same ones at each run, and a failing one is not made small: for mutants.py.
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("quick")

# A shell starts a job in the background with Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def sandbox(request: pytest.FixtureRequest) -> Iterator[SandboxProcess]:
    """Yield the stand-in that a module shares, started with its SANDBOX."""
    options = request.module.SANDBOX
    with running_sandbox(*options.arguments, today=options.today) as running:
        yield running
