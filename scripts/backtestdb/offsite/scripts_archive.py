"""The generated scripts of a full backup as one tar archive: the same files give the same bytes."""

import io
import tarfile
from pathlib import Path


def pack_scripts(folder: Path) -> bytes:
    """Return files, folders and links below `folder` as one archive, in order of their names."""
    out = io.BytesIO()

    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            member = archive.gettarinfo(path, path.relative_to(folder).as_posix())
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isfile():
                with path.open("rb") as file:
                    archive.addfile(member, file)
            elif member.isdir() or member.issym():
                archive.addfile(member)

    return out.getvalue()


def unpack_scripts(archive: bytes, folder: Path) -> None:
    """Write an archive into the new folder `folder`. It was sealed on this user's machine; even so
    nothing of it may lie outside, and links are only made, never followed."""
    folder.mkdir(mode=0o700, parents=True)

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r") as packed:
        for member in packed.getmembers():
            parts = Path(member.name).parts
            if member.name.startswith("/") or ".." in parts:
                raise ValueError(f"the archive of scripts holds the path {member.name!r}")

            path = folder / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.issym():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(member.linkname)
            elif member.isfile():
                path.parent.mkdir(parents=True, exist_ok=True)
                source = packed.extractfile(member)
                path.write_bytes(source.read() if source else b"")
                path.chmod(member.mode & 0o777)
