"""The type of the file system that a path lies on."""

import os
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
NO_LOCKS = {
    *("virtiofs", "fakeowner", "grpcfuse", "osxfs", "fuse", "9p", "v9fs", "vboxsf", "prl_fs"),
    *("nfs", "nfs4", "cifs", "smb3", "smbfs"),
}


def type_of_mount(path: Path, mountinfo: Path = MOUNTINFO) -> tuple[str, bool]:
    """Its name, empty where the system does not tell, and whether file locks get lost there."""
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", False
    real = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].replace("\\040", " "))
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind, kind in NO_LOCKS or kind.startswith("fuse.")
