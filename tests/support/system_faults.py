"""Faults in the system calls of a real process: strace makes the n-th of a kind fail, or kills the
process there."""

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    *(
        "fsync",
        "fdatasync",
        "rename",
        "renameat2",
        "link",
        "linkat",
        "unlink",
        "unlinkat",
        "ftruncate",
    ),
    *(
        "pwrite64",
        "write",
        "pread64",
        "read",
        "openat",
        "mkdir",
        "rmdir",
        "copy_file_range",
        "sendfile",
    ),
)
# A line of strace's log: the thread, the call, and its arguments with the paths of descriptors
# (-y).
LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")


@dataclass(frozen=True)
class Place:
    """The `number`-th call of this name in one thread of a process."""

    call: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What happens at a place: an error of this name, or a kill."""

    place: Place
    what: str

    @property
    def option(self) -> str:
        effect = "signal=SIGKILL" if self.what == "KILL" else f"error={self.what}"
        return f"inject={self.place.call}:{effect}:when={self.place.number}"

    def __str__(self) -> str:
        return f"{self.what} at {self.place.call} {self.place.number}"


def record_places(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path
) -> list[Place]:
    """Run a command to its end and return every call that it made about something below
    `folder`."""
    log = folder.with_name(f"{folder.name}.calls")
    strace = ["strace", "-f", "-qq", "-y", "-o", log, "-e", f"trace={','.join(CALLS)}"]
    subprocess.run([*strace, *command], env=environment, capture_output=True, check=True)
    counts: Counter[tuple[str, str]] = Counter()
    places = set()
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if not found or "resumed>" in line:
            continue
        thread, call, arguments = found.groups()
        counts[thread, call] += 1
        if str(folder) in arguments:
            places.add(Place(call, counts[thread, call]))
    return sorted(places, key=lambda place: (place.call, place.number))


def choose_faults(places: Sequence[Place]) -> list[Fault]:
    """Every fault that can happen at each of the places."""
    errors = {
        "openat": ("EIO", "ENOSPC", "EMFILE"),
        "mkdir": ("EIO", "ENOSPC"),
        "write": ("EIO", "ENOSPC"),
        "pwrite64": ("EIO", "ENOSPC"),
        "copy_file_range": ("EIO", "ENOSPC"),
        "sendfile": ("EIO", "ENOSPC"),
        "read": ("EIO", "EINTR"),
        "pread64": ("EIO", "EINTR"),
    }
    return [
        Fault(place, what)
        for place in places
        for what in (*errors.get(place.call, ("EIO", "ENOSPC")), "KILL")
    ]


def run_with_fault(
    command: Sequence[str | Path], environment: Mapping[str, str], fault: Fault
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with one fault in it; the exit code is the command's own, negative
    when killed."""
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",  # the kernel stops the process at these calls alone
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={fault.place.call}",
        "-e",
        fault.option,
    ]
    return subprocess.run(
        [*strace, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
