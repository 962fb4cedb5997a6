"""Where copies are kept, an S3 bucket or a folder: bytes whose name is written once."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from backtestdb.files import fsync_directory
from backtestdb.offsite.errors import MissingObjectError, NameTakenError, OffsiteError

ARRIVING = ".arriving-"


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it."""

    name: str
    bytes: int
    changed_at_utc: datetime


class Store(Protocol):
    """Names are relative, with `/` between parts; `where`, for messages, holds no secret."""

    where: str

    def put(self, name: str, data: bytes) -> None:
        """Store `data` so that it outlives a power cut. Raise NameTakenError when the name is taken
        and the store says so: not every S3 server does, which is why names never come twice (see
        objects, record)."""

    def get(self, name: str) -> bytes:
        """Raise MissingObjectError when there is none."""

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Return all objects below the folder `prefix`, in no order."""

    def delete(self, name: str) -> None:
        """Raise OffsiteError where these credentials may not."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the settings say about the place. `key_id` and `secret` may be empty: then the usual
    chain of the AWS tools holds (environment, instance role)."""

    address: str
    endpoint: str = ""
    key_id: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"Target({self.address})"


class FolderStore:
    """Another disk or a mounted share. Each object is flushed before its name exists."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder, str(folder)

    def put(self, name: str, data: bytes) -> None:
        """Write an object under a name that is free. Raise NameTakenError otherwise."""
        path = self.folder / name
        arriving = path.with_name(f"{ARRIVING}{secrets.token_hex(8)}")

        try:
            make_folders(path.parent, self.folder)
            write_flushed(arriving, data)
            try:
                name_once(arriving, path)
            finally:
                arriving.unlink(missing_ok=True)
            fsync_directory(path.parent)
        except FileExistsError:
            raise NameTakenError(f"{path} is there already") from None
        except OSError as error:
            raise explain_folder_error(error, self.folder) from error

    def get(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObjectError(f"{self.folder / name} is missing") from None
        except OSError as error:
            raise explain_folder_error(error, self.folder) from error

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield all objects below the folder `prefix`, in no order."""
        top = self.folder / prefix
        try:
            for folder, _, names in os.walk(top):
                for name in names:
                    path = Path(folder, name)
                    if name.startswith(ARRIVING):
                        continue
                    with suppress(FileNotFoundError):
                        found = path.stat()
                        changed = datetime.fromtimestamp(found.st_mtime, UTC)
                        yield Stored(
                            path.relative_to(self.folder).as_posix(), found.st_size, changed
                        )
        except OSError as error:
            raise explain_folder_error(error, self.folder) from error

    def delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise explain_folder_error(error, self.folder) from error


def make_folders(folder: Path, top: Path) -> None:
    """Make folders and flush their names: without that a power cut takes what was put inside."""
    if folder.is_dir():
        return
    if folder != top:
        make_folders(folder.parent, top)
    folder.mkdir(mode=0o700, parents=folder == top, exist_ok=True)
    fsync_directory(folder.parent)


def write_flushed(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def name_once(arriving: Path, path: Path) -> None:
    """Give a file its name in one step. Raise FileExistsError where the name is taken."""
    try:
        os.link(arriving, path)
    except FileExistsError:
        raise
    except OSError:
        # File systems without links (exFAT, some shares): names never come twice anyway.
        if path.exists():
            raise FileExistsError(path) from None
        arriving.rename(path)


def explain_folder_error(error: OSError, folder: Path) -> OffsiteError:
    return OffsiteError(
        f"the folder {folder} cannot be used: {error.strerror or error}",
        next_step="connect the disk, free space on it, or change OFFSITE",
    )
