"""What the container of the copies off this machine is given: keys as files, and the folder they go
to."""

import hashlib
import os
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.errors import ProjectError
from backtestdb.scheduling.sidecar import Owner, give_to


def prepare_offsite(settings: Settings, owner: Owner) -> None:
    """Write keys and passphrase as files that only the container's user reads. Raise ProjectError
    when the folder of OFFSITE is not there."""
    if not settings.offsite:
        return
    if settings.offsite.startswith("/") and not Path(settings.offsite).is_dir():
        raise ProjectError(
            f"the folder OFFSITE={settings.offsite} is not there",
            next_step="connect its disk, or make offsite-init",
        )

    folder = secrets_folder(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # Not as variables: docker inspect shows a container's environment.
    secrets = {
        "key_id": settings.offsite_key_id,
        "secret": settings.offsite_secret,
        "passphrase": settings.offsite_passphrase,
    }
    for name, value in secrets.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)

    give_to(owner, [folder, *folder.iterdir()])


def secrets_folder(settings: Settings) -> Path:
    """Return the folder of one target: two clones may send to two, with two passphrases."""
    mark = hashlib.sha256(settings.offsite.encode()).hexdigest()[:12]
    return settings.state_dir / f"offsite-secrets-{mark}"


def make_offsite_variables(settings: Settings) -> dict[str, str]:
    """Return the variables of the container, without key and passphrase: these are in files."""
    if not settings.offsite:
        return {}
    secrets = str(secrets_folder(settings))
    return {
        "OFFSITE": settings.offsite,
        "OFFSITE_ENDPOINT": settings.offsite_endpoint,
        "OFFSITE_EVERY_SECONDS": str(settings.offsite_every_seconds),
        "OFFSITE_SECRETS_DIR": secrets,
        "OFFSITE_FOLDER": settings.offsite if settings.offsite.startswith("/") else secrets,
    }
