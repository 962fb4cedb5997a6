"""Which mounts carry file locks: from lines as the systems in question write them."""

from pathlib import Path

import pytest

from backtestdb.mounts import carries_no_locks, find_mount, mount_of, parse_mountinfo

MOUNTINFO = r"""
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
30 22 0:26 / /mac rw,relatime - virtiofs mac rw
31 22 0:27 /Users/a /desktop rw,relatime - fakeowner /run/host_mark/Users rw,fakeowner
32 22 0:28 / /grpc rw,nosuid master:3 - fuse.grpcfuse grpcfuse rw,user_id=0
33 22 0:29 / /wsl rw,noatime shared:4 master:1 - 9p drvfs rw,aname=drvfs
34 22 0:30 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
35 22 8:17 / /stick ro,relatime - fuseblk /dev/sdb1 rw
36 22 0:31 / /with\040space\134\011tab rw - 9p share rw
37 30 259:2 /deep /mac/volume rw,relatime - ext4 /dev/nvme0n1p2 rw
38 22 259:2 / /twice rw,relatime - ext4 /dev/nvme0n1p2 rw
39 38 0:40 / /twice rw,relatime - virtiofs again rw
a line of something else
"""


@pytest.mark.parametrize(
    ("path", "kind", "blind"),
    [
        ("/srv/backtesting.db", "ext4", False),
        ("/mac/backtesting.db", "virtiofs", True),
        ("/desktop/backtesting.db", "fakeowner", True),
        ("/grpc/a/b/backtesting.db", "fuse.grpcfuse", True),
        ("/wsl/backtesting.db", "9p", True),
        ("/home/a/backtesting.db", "nfs4", True),
        ("/homes/backtesting.db", "ext4", False),
        ("/stick/backtesting.db", "fuseblk", False),
        ("/with space\\\ttab/backtesting.db", "9p", True),
        ("/mac/volume/backtesting.db", "ext4", False),
        ("/twice/backtesting.db", "virtiofs", True),
    ],
)
def test_mount_of_a_path_is_the_nearest_above(path: str, kind: str, blind: bool) -> None:
    mount = find_mount(Path(path), parse_mountinfo(MOUNTINFO))
    assert mount is not None
    assert mount.kind == kind
    assert carries_no_locks(mount) is blind


def test_read_only_mount_is_recognised() -> None:
    mount = find_mount(Path("/stick/x"), parse_mountinfo(MOUNTINFO))
    assert mount is not None
    assert mount.is_read_only


def test_this_machine_tells_its_own_mounts(tmp_path: Path) -> None:
    mount = mount_of(tmp_path / "backtesting.db")
    assert mount is not None
    assert tmp_path.resolve().is_relative_to(mount.point)
    assert not mount.is_read_only


def test_system_without_mountinfo_has_no_blind_mounts() -> None:
    assert not carries_no_locks(None)
