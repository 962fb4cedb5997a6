"""Wait for what another process does."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], timeout_seconds: float = 180, what: str = "what was waited for"
) -> None:
    """Ask until the condition holds; fail with `what` when it does not in that time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen in {timeout_seconds:.0f} s: {what}"
        time.sleep(0.01)
