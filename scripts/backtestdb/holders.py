"""Who has a file open, as far as this user may see it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def name_holders(path: Path) -> list[str] | None:
    """Return other processes that have the file at `path` open: "name (number)". None where the
    system does not tell."""
    if Path("/proc/self/fd").is_dir():
        facts = path.stat()
        return list(find_holders(facts.st_dev, facts.st_ino))
    return ask_lsof(path)


def find_holders(device: int, inode: int) -> Iterator[str]:
    """Yield, on Linux, processes with the file open whose descriptors may be read."""
    for process in Path("/proc").iterdir():
        if (
            process.name.isdigit()
            and int(process.name) != os.getpid()
            and has_open(process, device, inode)
        ):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            yield f"{name} ({process.name})"


def has_open(process: Path, device: int, inode: int) -> bool:
    """Return whether a process has this device and inode open, as far as this user may see."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False

    for descriptor in descriptors:
        try:
            facts = descriptor.stat()
        except OSError:
            continue
        if (facts.st_dev, facts.st_ino) == (device, inode):
            return True

    return False


def ask_lsof(path: Path) -> list[str] | None:
    """Return what lsof lists, on macOS and others; None where there is no lsof."""
    try:
        done = subprocess.run(
            ["lsof", "-F", "pc", "--", str(path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None

    fields = [line[1:] for line in done.stdout.splitlines() if line[:1] in {"p", "c"}]
    return [f"{name} ({number})" for number, name in zip(fields[::2], fields[1::2], strict=False)]
