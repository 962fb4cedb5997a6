"""One S3 server for all tests of a worker that need no users; each test takes a prefix of its
own."""

from collections.abc import Iterator

import pytest

from s3_server import PUT_ONLY, S3Server, running_s3


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(scope="session")
def s3_with_users() -> Iterator[S3Server]:
    with running_s3({"owner": ("s3:*",), "daily": PUT_ONLY}) as server:
        yield server
