"""Ask a store what it really protects: said once, at `make offsite-init`, by trying it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from backtestdb.offsite.errors import MissingObjectError, NameTakenError, OffsiteError
from backtestdb.offsite.store import Store

PROBE_FOLDER = "probe"


@dataclass(frozen=True)
class Protection:
    """`holds` False is no failure: names never repeat, and a check notices what is deleted."""

    what: str
    holds: bool
    meaning: str


def probe_store(store: Store) -> list[Protection]:
    """Write, read back, write the same name again, ask for what is not there, list, delete. Raise
    OffsiteError when the store cannot do what copies need."""
    name = f"{PROBE_FOLDER}/{secrets.token_hex(8)}"
    data = secrets.token_bytes(1024)
    store.put(name, data)
    if store.get(name) != data:
        raise OffsiteError(
            f"{store.where} returned other bytes than were stored", next_step="use another store"
        )

    protections = [
        probe_overwriting(store, name, data),
        *([checksum] if (checksum := probe_checksum(store)) else []),
    ]

    if name not in {stored.name for stored in store.list(PROBE_FOLDER)}:
        raise OffsiteError(
            f"{store.where} does not list what was stored", next_step="use another store"
        )

    return [*protections, probe_deleting(store, name)]


def probe_overwriting(store: Store, name: str, data: bytes) -> Protection:
    """Write a name that is taken once more: does the store keep what is there?"""
    try:
        store.put(name, data[::-1])
        refused = False
    except NameTakenError:
        refused = True

    holds = refused and store.get(name) == data
    meaning = (
        "a name that is taken stays as it is"
        if holds
        else "this store overwrites a name that is taken; copies never use a name twice, so none "
        "is overwritten"
    )
    return Protection("conditional writes", holds, meaning)


def probe_checksum(store: Store) -> Protection | None:
    """Return whether the store refuses a wrong checksum; None for a folder: only servers take one
    along with the bytes."""
    ask: Callable[[str], bool] | None = getattr(store, "refuses_wrong_checksum", None)
    if ask is None:
        return None

    holds = ask(f"{PROBE_FOLDER}/{secrets.token_hex(8)}")
    meaning = (
        "bytes that arrive changed are refused"
        if holds
        else "this store accepts bytes that do not fit their checksum; every upload is read back "
        "and compared"
    )
    return Protection("checksums", holds, meaning)


def probe_deleting(store: Store, name: str) -> Protection:
    """Delete what was written: could a thief with these credentials do the same?"""
    try:
        store.delete(name)
        store.get(name)
        may_delete = False
    except MissingObjectError:
        may_delete = True
    except OffsiteError:
        may_delete = False

    meaning = (
        "these credentials can delete copies, and so can a thief who finds them: see put-only in "
        "the guide"
        if may_delete
        else "these credentials cannot delete: what was sent stays, whatever happens to this "
        "machine"
    )
    return Protection("put-only credentials", not may_delete, meaning)
