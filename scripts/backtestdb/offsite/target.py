"""Settings to an opened target: the store, and the key to what lies there."""

from contextlib import suppress
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.errors import SettingsError
from backtestdb.offsite.errors import MissingObjectError, NameTakenError, OffsiteError
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.seal import DataKey, lock_key, make_data_key, unlock_key
from backtestdb.offsite.store import FolderStore, Store, Target

KEY_NAME = "key.age"


def make_target(settings: Settings) -> Target:
    """Raise SettingsError when OFFSITE is not set."""
    if not settings.offsite:
        raise SettingsError(
            "OFFSITE is empty: there is no place for copies off this machine",
            next_step="set OFFSITE in .env, then make offsite-init",
        )

    return Target(
        address=settings.offsite,
        endpoint=settings.offsite_endpoint,
        key_id=settings.offsite_key_id,
        secret=settings.offsite_secret,
    )


def open_store(target: Target) -> Store:
    """Raise SettingsError for an address of another form. Nothing is asked of the network yet."""
    if target.address.startswith("s3://"):
        from backtestdb.offsite.s3 import open_s3  # noqa: PLC0415  12 MB that a folder does not need

        return open_s3(target)
    if target.address.startswith("/"):
        return FolderStore(Path(target.address))
    raise SettingsError(
        f"OFFSITE={target.address} is neither s3://bucket/prefix nor an absolute folder",
        next_step="change OFFSITE",
    )


def find_passphrase(settings: Settings) -> str:
    if not settings.offsite_passphrase:
        raise SettingsError(
            "OFFSITE_PASSPHRASE is empty: nothing can be sealed or opened",
            next_step="set OFFSITE_PASSPHRASE in .env (of a new target: a long one that you keep "
            "on paper)",
        )
    return settings.offsite_passphrase


def open_remote(settings: Settings) -> Remote:
    """Return the target of `make offsite-init`. Raise ProjectError when it cannot be used."""
    store = open_store(make_target(settings))
    passphrase = find_passphrase(settings)

    try:
        locked = store.get(KEY_NAME)
    except MissingObjectError:
        raise OffsiteError(
            f"{store.where} holds no key.age: it was never set up, or its disk is not connected",
            next_step="make offsite-init, or connect the disk",
        ) from None

    return Remote(store, unlock_key(locked, passphrase, store.where))


def ensure_key(store: Store, passphrase: str) -> tuple[DataKey, bool]:
    """Return the store's data key, and whether it was made just now."""
    # A key that is there is never replaced: with it everything sealed would be lost.
    with suppress(MissingObjectError):
        return unlock_key(store.get(KEY_NAME), passphrase, store.where), False

    key = make_data_key()
    locked = lock_key(key, passphrase)
    with suppress(NameTakenError):
        store.put(KEY_NAME, locked)

    # Another machine may have been quicker: then its key is the one.
    if store.get(KEY_NAME) == locked:
        return key, True
    return unlock_key(store.get(KEY_NAME), passphrase, store.where), False
