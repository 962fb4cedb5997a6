"""The place of the lake, a folder or an S3 bucket: files in and out, and whether two writers can
hurt each other.

pyarrow's own file systems read and write the files (its wheel speaks S3), deltalake the tables'
logs: both get the same endpoint and keys from the settings of the process that uses them. A store
that goes to another process goes without its keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.files import fsync_directory, fsync_file

TIMEOUT_SECONDS = 60


class StoreError(ProjectError):
    """The store cannot be reached, refuses, or cannot keep two writers apart."""


@dataclass(frozen=True)
class Store:
    """`root`: an absolute folder or s3://bucket/prefix. `options`: for deltalake, with the keys."""

    root: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_local(self) -> bool:
        return not self.root.startswith("s3://")

    def uri(self, path: str) -> str:
        """Return the address of a table, as deltalake wants it."""
        return f"{self.root}/{path}"

    def __getstate__(self) -> dict[str, Any]:
        """Keys do not travel: the process at the other end has settings of its own."""
        return {"root": self.root, "options": {}}

    @cached_property
    def _files(self) -> tuple[pa_fs.FileSystem, str]:
        if self.is_local:
            return pa_fs.LocalFileSystem(), self.root
        return make_s3(self.options), self.root.removeprefix("s3://")

    def read(self, path: str) -> bytes:
        files, root = self._files
        with files.open_input_stream(f"{root}/{path}") as stream:
            return bytes(stream.read())

    def open(self, path: str) -> Any:
        """Return a file that pyarrow can seek in."""
        files, root = self._files
        return files.open_input_file(f"{root}/{path}")

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Write a new file, on the disk before this returns."""
        files, root = self._files
        if self.is_local:
            Path(f"{root}/{path}").parent.mkdir(parents=True, exist_ok=True)
        with files.open_output_stream(f"{root}/{path}") as stream:
            stream.write(content)
        self.flush(path)

    def flush(self, path: str) -> None:
        """Bring a file to the disk: only afterwards may a log entry name it."""
        if self.is_local:
            target = Path(self.root, path)
            fsync_file(target)
            fsync_directory(target.parent)

    def exists(self, path: str) -> bool:
        files, root = self._files
        return bool(files.get_file_info(f"{root}/{path}").type != pa_fs.FileType.NotFound)

    def remove_tree(self, path: str) -> None:
        files, root = self._files
        if self.exists(path):
            files.delete_dir(f"{root}/{path}")


def make_s3(options: Mapping[str, str]) -> pa_fs.S3FileSystem:
    """Return pyarrow's own S3 file system with the endpoint and keys of a store's options."""
    endpoint = options.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")

    return pa_fs.S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        region=options.get("AWS_REGION"),
        endpoint_override=host or None,
        scheme=scheme or "https",
        connect_timeout=TIMEOUT_SECONDS,
        request_timeout=TIMEOUT_SECONDS,
    )


def make_store(settings: Settings) -> Store:
    """Raise SettingsError where LAKE is empty."""
    if not settings.lake:
        raise SettingsError(
            "LAKE is empty: there is no lake", next_step="write LAKE=/a/folder into .env"
        )

    options = {}
    if settings.lake.startswith("s3://"):
        options = {
            "AWS_ACCESS_KEY_ID": settings.lake_access_key,
            "AWS_SECRET_ACCESS_KEY": settings.lake_secret_key,
            "AWS_REGION": settings.lake_region,
            "AWS_ENDPOINT_URL": settings.lake_endpoint,
            "AWS_ALLOW_HTTP": "true" if settings.lake_endpoint.startswith("http://") else "",
            # A commit is a PUT that must fail when the file is there already ("If-None-Match: *").
            "aws_conditional_put": "etag",
        }

    return Store(settings.lake, {name: value for name, value in options.items() if value})
