"""Whether a store keeps two writers apart: tried, not believed."""

from uuid import uuid4

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from backtestdb.lake.store import Store, StoreError
from backtestdb.lake.table import commit_files

SCHEMA = pa.schema([pa.field("probe", pa.int64())])


def verify_conditional_writes(store: Store) -> None:
    """Two handles of one small table commit the same version: the second must be refused, or of two publications at
    the same time each would overwrite what the other one said. Raise StoreError when it is not, or when the store
    cannot be reached."""
    name = f"_probe-{uuid4().hex}"
    try:
        DeltaTable.create(store.uri(name), schema=SCHEMA, storage_options=dict(store.options))
        one, other = (DeltaTable(store.uri(name), storage_options=dict(store.options)) for _ in range(2))
        commit_files(store, one, SCHEMA, [], [])
        try:
            commit_files(store, other, SCHEMA, [], [])
        except CommitFailedError:
            return
        raise StoreError(
            f"{store.root} lets a writer overwrite what another one has just written (no conditional PUT)",
            next_step="choose a store with conditional writes, or a folder on a disk of this machine",
        )
    except (DeltaError, OSError) as error:
        raise StoreError(
            f"{store.root} cannot be written: {shorten(error)}",
            next_step="check LAKE and the LAKE_… settings; make doctor tells whether the server answers",
        ) from error
    finally:
        remove_probe(store, name)


def shorten(error: Exception) -> str:
    """The first line; what S3 libraries add below is an XML document."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def remove_probe(store: Store, name: str) -> None:
    try:
        store.remove_tree(name)
    except OSError:
        return  # a store that cannot be reached has been told of already; `make lake-clean` removes what is left
