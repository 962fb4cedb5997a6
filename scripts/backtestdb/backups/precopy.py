"""Copy a large database with a rollback journal without keeping its writers waiting.

Under a rollback journal a reader keeps every writer out, so the backup API, which must read through
one pinned transaction, holds commits up for as long as the whole copy takes: 1.6 s at 1.15 GB. Here
the bytes are copied ahead without any lock, torn or not, and then, under the lock of a pinned
transaction, each block is compared with the source and those that differ are copied again. The copy
is the committed state of that transaction, and what the writers wait for is a comparison in memory:
0.15 to 0.25 s at 1.15 GB. Where the two do not fit in memory, the blocks are hashed as they are
copied, and only the source is read under the lock.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from backtestdb.errors import BusyError

BLOCK_BYTES = 1 << 18
THREADS = 2
# The flush of another program's commit waits for all that was given to the disk before it: 0.4 s
# beside a copy of 966 MB that is flushed in one go, after its lock; 0.02 s beside these.
FLUSH_BYTES = 8 << 20
# Two writes within one step of the file system's clock leave the same time behind; Linux steps
# every 4 ms or less.
MTIME_STEP_SECONDS = 0.05
BytesDone = Callable[[int, int], None]


def copy_ahead(
    source: int,
    target: int,
    *,
    deadline_seconds: float,
    on_bytes: BytesDone,
    hash_blocks: bool = False,
) -> list[bytes]:
    """Copy what the file `source` holds while others write to it, and flush it. Both are file
    descriptors. Return the hash of every block that was copied, if asked for."""
    ends = time.monotonic() + deadline_seconds
    total = os.fstat(source).st_size
    buffer = memoryview(bytearray(4 * BLOCK_BYTES))
    hashes: list[bytes] = []
    offset = flushed = 0

    while count := read_most(source, buffer, offset):
        write_all(target, buffer[:count], offset)
        if hash_blocks:
            hashes += [
                hash_block(buffer[start : min(start + BLOCK_BYTES, count)])
                for start in range(0, count, BLOCK_BYTES)
            ]
        offset += count

        if offset - flushed >= FLUSH_BYTES:
            os.fsync(target)
            if hash_blocks and hasattr(os, "posix_fadvise"):
                # It is not read again, so the memory is left to the source.
                os.posix_fadvise(target, flushed, offset - flushed, os.POSIX_FADV_DONTNEED)
            flushed = offset

        on_bytes(offset, total)
        if time.monotonic() > ends:
            raise BusyError(f"copying the database was given up after {deadline_seconds:.0f} s")
        if count < len(buffer):
            break  # what a writer adds behind this end is patched

    return hashes


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """What changes when a program writes to a database with a rollback journal: every commit counts
    up a number in the header, and a page that is written before its commit, or taken back, changes
    the file's time."""

    header: bytes
    bytes: int
    inode: int
    changed_ns: int
    is_old: bool

    def proves_unchanged(self, later: "FileMark") -> bool:
        """Return whether nothing was written between this mark and `later`."""
        return self.is_old and self == replace(later, is_old=self.is_old)


def make_mark(source: int) -> FileMark:
    """Given a descriptor of the live file, return its mark."""
    state = os.fstat(source)
    # Further back than one step of the file system's clock: a later change shows in the time.
    is_old = time.time() - state.st_mtime_ns / 1e9 > MTIME_STEP_SECONDS
    return FileMark(
        header=os.pread(source, 100, 0),
        bytes=state.st_size,
        inode=state.st_ino,
        changed_ns=state.st_mtime_ns,
        is_old=is_old,
    )


def patch_changed_blocks(
    source: int,
    target: int,
    size: int,
    *,
    hashes: Sequence[bytes] = (),
    limit_seconds: float = float("inf"),
) -> int | None:
    """Make `target` the same as the first `size` bytes of `source`, which is not written to
    meanwhile. With the `hashes` of its blocks, the target is not read. Return the number of blocks
    that were written again, or None when it was given up after `limit_seconds`."""
    os.ftruncate(target, size)
    ends = time.monotonic() + limit_seconds
    share = -(-size // (BLOCK_BYTES * THREADS)) * BLOCK_BYTES

    with ThreadPoolExecutor(THREADS) as pool:
        starts = range(0, size, share)
        counts = list(
            pool.map(
                lambda start: patch_range(
                    source, target, start, min(start + share, size), hashes, ends
                ),
                starts,
            )
        )

    return None if None in counts else sum(count or 0 for count in counts)


def patch_range(
    source: int, target: int, start: int, end: int, hashes: Sequence[bytes], ends: float
) -> int | None:
    """Patch the bytes from `start` to `end` as `patch_changed_blocks` does, until the monotonic
    time `ends`."""
    ours, theirs = bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)
    different = 0
    for offset in range(start, end, BLOCK_BYTES):
        if time.monotonic() > ends:
            return None
        count = min(BLOCK_BYTES, end - offset)
        block = memoryview(theirs)[:count]
        read_all(source, block, offset)
        if hashes:
            number = offset // BLOCK_BYTES
            is_same = number < len(hashes) and hash_block(block) == hashes[number]
        else:
            read_all(target, memoryview(ours)[:count], offset)
            is_same = ours == theirs
        if not is_same:
            write_all(target, block, offset)
            different += 1

    return different


def hash_block(block: memoryview) -> bytes:
    return hashlib.sha256(block).digest()


def read_all(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill the buffer, or raise EOFError."""
    count = read_most(descriptor, buffer, offset)
    if count < len(buffer):
        raise EOFError(f"the database file ends at {offset + count:,} bytes, before its last page")


def read_most(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill the buffer as far as the file goes; return the number of bytes."""
    done = 0
    while done < len(buffer) and (count := read_into(descriptor, buffer[done:], offset + done)):
        done += count
    return done


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read into memory that is used again: some systems read only into memory of their own, which
    costs a page fault for every page."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    data = os.pread(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def create_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
