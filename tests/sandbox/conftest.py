"""Tests of the stand-in itself share one a module, and leave it as it was started."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def sandbox_as_it_was_started(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what a test told the stand-in that its module shares."""
    shared = request.getfixturevalue("sandbox") if "sandbox" in request.fixturenames else None
    yield
    if shared:
        shared.reset(request.module.SANDBOX.today)
        shared.set_settings(requests_per_minute=0, junk=False, retry_after=True)
        shared.clear_log()
