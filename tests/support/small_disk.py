"""A small file system of its own, and one that is full."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backtestdb import files


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a disk at `folder`, which is made for it. Skip the test where that is not permitted."""
    folder.mkdir()
    options = f"size={size_bytes},mode=700"
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a file system of its own: mount is not permitted here")
    try:
        yield folder
    finally:
        # At once also when a process of a test that failed still has a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> None:
    """Leave that much; what is written later does not fit."""
    with (disk / "filler").open("ab") as file, suppress(OSError):
        while (free := shutil.disk_usage(disk).free) > leave_bytes:
            file.write(bytes(min(1 << 16, free - leave_bytes)))
            file.flush()


def leave_free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """Let every disk have so much room, as far as the code is told."""
    monkeypatch.setattr(files, "free_bytes", lambda _folder: free_bytes)
