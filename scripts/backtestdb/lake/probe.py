"""Whether a store keeps two writers apart: tried, not believed.

With obstore, Python's face of the library by which deltalake writes too. A trial with deltalake
alone proves nothing: it looks whether a commit is there before it writes one, and only two writers
at the same instant would tell.
"""

from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store

from backtestdb.lake.store import Store, StoreError


def verify_conditional_writes(store: Store) -> None:
    """Create a small object twice: the second time has to be refused ("If-None-Match: *"). Raise
    StoreError when it is not, or when the store cannot be written."""
    name = f"_probe-{uuid4().hex}"
    try:
        place = open_place(store)
        obstore.put(place, name, b"one", mode="create", use_multipart=False)
        try:
            # Taken, two publications at the same time would overwrite what the other one said.
            obstore.put(place, name, b"other", mode="create", use_multipart=False)
        except AlreadyExistsError:
            return
        finally:
            obstore.delete(place, name)
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(
            f"{store.root} cannot be written: {shorten(error)}",
            next_step="check LAKE and the LAKE_… settings; make doctor tells whether the server "
            "answers",
        ) from error

    raise StoreError(
        f"{store.root} lets a writer overwrite what another one has just written (no conditional "
        "PUT)",
        next_step="choose a store with conditional writes, or a folder on a disk of this machine",
    )


def open_place(store: Store) -> S3Store | LocalStore:
    """Return obstore's store of an empty folder in the lake."""
    if store.is_local:
        return LocalStore(store.root, mkdir=True)
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_region": "AWS_REGION",
        "aws_endpoint": "AWS_ENDPOINT_URL",
    }
    given: Any = {
        name: store.options[theirs] for name, theirs in names.items() if theirs in store.options
    }

    return S3Store.from_url(
        store.root,
        config=given | {"aws_conditional_put": "etag"},
        client_options={"allow_http": True, "timeout": "30s"},
        retry_config={"max_retries": 2},
    )


def shorten(error: Exception) -> str:
    """Return the first line; what S3 libraries add below is an XML document."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
