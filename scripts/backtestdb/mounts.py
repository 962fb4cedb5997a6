"""Which file systems do not carry file locks to the programs on their other side.

Measured on macOS: locks and WAL shared memory do not cross the bind mount between host and
container; a database in WAL mode that both opened was corrupt within a minute.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
# virtiofs, 9p: virtual machines (Lima, Colima, OrbStack, WSL). fakeowner: Docker Desktop. Any
# fuse.<name> (grpcfuse, osxfs, sshfs, vmhgfs-fuse): the kernel keeps FUSE locks to itself. fuseblk
# is a local disk.
LOCK_BLIND_TYPES = {
    *("virtiofs", "fakeowner", "grpcfuse", "osxfs", "fuse", "9p", "v9fs", "vboxsf", "prl_fs"),
    *("nfs", "nfs4", "cifs", "smb3", "smbfs"),
}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """`is_shared`: what is mounted below it reaches its copies in containers. `is_slave`: it is
    such a copy, and gets what is mounted on the host (mount_namespaces(7))."""

    point: Path
    kind: str
    is_read_only: bool
    is_shared: bool = False
    is_slave: bool = False


def parse_mountinfo(text: str) -> list[Mount]:
    """Given lines as proc(5) describes them, return the mounts."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        # The optional fields end with a lone hyphen, then comes the type.
        if "-" not in fields[6:] or len(fields) < fields.index("-", 6) + 2:
            continue
        end = fields.index("-", 6)
        optional = [field.partition(":")[0] for field in fields[6:end]]
        mounts.append(
            Mount(
                point=Path(unescape(fields[4])),
                kind=fields[end + 1],
                is_read_only="ro" in fields[5].split(","),
                is_shared="shared" in optional,
                is_slave="master" in optional,
            )
        )

    return mounts


def unescape(text: str) -> str:
    r"""Return a path in which space, tab, newline and backslash stood as \040 and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def find_mount(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount of a `path`, absolute and without links; of two at a point the later."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(
        enumerate(holding),
        key=lambda entry: (len(entry[1].point.parts), entry[0]),
        default=(0, None),
    )[1]


def mount_of(path: Path) -> Mount | None:
    """Return None where the system tells nothing (macOS: its own disks carry locks)."""
    try:
        text = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return find_mount(Path(os.path.realpath(path)), parse_mountinfo(text))


def follows_host(path: Path) -> bool:
    """Tell whether a disk that the host mounts at or below `path` appears here too; outside of a
    container there is no difference."""
    mount = mount_of(path)
    return mount is None or mount.is_slave or not Path("/.dockerenv").exists()


def carries_no_locks(mount: Mount | None) -> bool:
    return mount is not None and (mount.kind in LOCK_BLIND_TYPES or mount.kind.startswith("fuse."))
