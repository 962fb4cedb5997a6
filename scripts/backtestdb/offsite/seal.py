"""Encryption by age (https://age-encryption.org/v1): nothing leaves this machine in the clear.

One data key (an X25519 identity) seals every object. It is kept at the store as `key.age`, itself
sealed under the passphrase, in the form that `age -d -i key.age` takes: plain age opens everything.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import pyrage

from backtestdb.offsite.errors import DamagedObjectError, OffsiteError

Seal = Callable[[bytes], bytes]
KEY_LINE = "AGE-SECRET-KEY-"
# age times this machine's scrypt for a few milliseconds and refuses a file that would take 16 times
# a second here. One busy moment spoils that: beside 16 busy loops it refused one time of two.
UNLOCK_ATTEMPTS, UNLOCK_PAUSE_SECONDS = 20, 0.1
TOO_MUCH_WORK = "Excessive work"


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
def unlock_key(
    locked: bytes, passphrase: str, where: str, attempts: int = UNLOCK_ATTEMPTS
) -> DataKey:
    """Given `key.age`, return the key in it. Raise OffsiteError when the passphrase is another one,
    the file is damaged, or this machine is too slow or too busy for age to try."""
    for _ in range(attempts):
        try:
            text = pyrage.passphrase.decrypt(locked, passphrase).decode()
            break
        except (pyrage.DecryptError, ValueError, UnicodeDecodeError) as error:
            if TOO_MUCH_WORK not in str(error):
                raise OffsiteError(
                    f"OFFSITE_PASSPHRASE does not open key.age at {where}",
                    next_step="take the passphrase from the recovery sheet",
                ) from None
        time.sleep(UNLOCK_PAUSE_SECONDS)
    else:
        raise OffsiteError(
            f"key.age at {where} was locked on a machine that is much faster than this one is now; "
            "whether the passphrase is right was not tried",
            next_step="the same command when less is running here, or on a faster machine",
        )

    if KEY_LINE not in text:
        raise OffsiteError(f"key.age at {where} holds no key")
    return DataKey(text)
