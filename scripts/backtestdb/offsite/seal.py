"""Encryption by age (https://age-encryption.org/v1): nothing leaves this machine in the clear.

One data key (an X25519 identity) seals every object. It is kept at the store as `key.age`, itself
sealed under the passphrase, in the form that `age -d -i key.age` takes: plain age opens everything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import pyrage

from backtestdb.offsite.errors import DamagedObjectError, OffsiteError

Seal = Callable[[bytes], bytes]
KEY_LINE = "AGE-SECRET-KEY-"


@dataclass(frozen=True)
class DataKey:
    """`text`: the identity as age-keygen writes it. It is a secret."""

    text: str = field(repr=False)

    def seal(self, data: bytes) -> bytes:
        sealed: bytes = pyrage.encrypt(data, [self.identity().to_public()])
        return sealed

    def open(self, sealed: bytes, name: str) -> bytes:
        """Raise DamagedObjectError when this is not what was sealed, to the last bit."""
        try:
            opened: bytes = pyrage.decrypt(sealed, [self.identity()])
        except (pyrage.DecryptError, ValueError):
            raise DamagedObjectError(f"{name} is damaged, or sealed with another key") from None
        return opened

    def identity(self) -> "pyrage.x25519.Identity":
        line = next(line for line in self.text.splitlines() if line.startswith(KEY_LINE))
        return pyrage.x25519.Identity.from_str(line)


def make_data_key() -> DataKey:
    identity = pyrage.x25519.Identity.generate()
    return DataKey(f"# public key: {identity.to_public()}\n{identity}\n")


def lock_key(key: DataKey, passphrase: str) -> bytes:
    """Return the key locked with scrypt: about a second of work for each guess."""
    locked: bytes = pyrage.passphrase.encrypt(key.text.encode(), passphrase)
    return locked


@lru_cache(maxsize=8)
def unlock_key(locked: bytes, passphrase: str, where: str) -> DataKey:
    """Raise OffsiteError when the passphrase is another one, or the file is damaged."""
    try:
        text = pyrage.passphrase.decrypt(locked, passphrase).decode()
    except (pyrage.DecryptError, ValueError, UnicodeDecodeError):
        raise OffsiteError(
            f"OFFSITE_PASSPHRASE does not open key.age at {where}",
            next_step="take the passphrase from the recovery sheet",
        ) from None

    if KEY_LINE not in text:
        raise OffsiteError(f"key.age at {where} holds no key")
    return DataKey(text)
