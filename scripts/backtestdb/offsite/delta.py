"""What changed since a base: of a full backup the pages, of a small one a zstd patch.

A full backup is a copy page by page, so a page that was not written is where it was: measured on
1.1 GB and one session more, 10.7 % of the pages. Tools that cut files by content found nothing to
share. A session adds one key for each ticker to each index, so nearly all of these pages hold their
old bytes and some new ones: compressed against the old pages they are a sixth of what they are
alone (91 MB and one session of 4,000 tickers: 1.0 MB in the place of 6.4 MB, 2026-11-28). That
takes the base's file; without it pages are sent alone.

A small backup is built anew each time and its pages move: there `zstd --patch-from` finds the same
bytes elsewhere, for 17 kB a busy minute at 19 MB. It needs file and base in memory, which large
files forbid.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from backtestdb.errors import VerificationError
from backtestdb.offsite.errors import DamagedObjectError
from backtestdb.offsite.objects import Part, as_dictionary, make_decompressor

BLOCK_BYTES = 4096
DIGEST_BYTES = 16
MAGIC, PATCHES_MAGIC = b"ai-backtest pages 1\n", b"ai-backtest page patches 1\n"
# Old and new pages of a part are in memory, with 55 MB for zstd: 133 MB in all where it was 46,
# less than a segment of 32 MB takes on its way. Parts of 32 MB save a quarter more and take 185 MB.
LARGEST_PART_BYTES = 16 << 20
# Below level 12 zstd does not search the whole base: 17 kB became 739 kB at level 9 and 5.5 MB at
# level 3.
PATCH_LEVEL = 12
PATCH_LIMIT_BYTES = 512 << 20


def hash_blocks(path: Path) -> bytes:
    """Return the digests of all blocks of 4,096 bytes, joined: 4.3 MB for a file of 1.1 GB."""
    digests = bytearray()
    with path.open("rb") as file:
        while chunk := file.read(BLOCK_BYTES << 8):
            for start in range(0, len(chunk), BLOCK_BYTES):
                block = chunk[start : start + BLOCK_BYTES]
                digests += hash_block(block)
    return bytes(digests)


def find_changed_runs(digests: bytes, base_digests: bytes) -> list[tuple[int, int]]:
    """Return runs of changed or added blocks as (first, count)."""
    runs: list[tuple[int, int]] = []

    for number in range(len(digests) // DIGEST_BYTES):
        at = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        if digests[at] == base_digests[at]:
            continue
        if runs and sum(runs[-1]) == number:  # first + count: the run goes on
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


def read_page_delta(path: Path, runs: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the page delta of `path` in chunks: a line that names the format, a line of JSON, then
    the blocks of all runs one after the other."""
    head = {"block_bytes": BLOCK_BYTES, "bytes": path.stat().st_size, "runs": runs}
    yield MAGIC + json.dumps(head, separators=(",", ":")).encode() + b"\n"

    with path.open("rb") as file:
        for first, count in runs:
            file.seek(first * BLOCK_BYTES)
            left = count * BLOCK_BYTES
            while left and (chunk := file.read(min(left, 1 << 20))):
                yield chunk
                left -= len(chunk)


def apply_pages(stream: io.BufferedReader, target: Path) -> None:
    """Turn the base in `target` into what the delta was made of. Raise DamagedObjectError."""
    if stream.readline() != MAGIC:
        raise DamagedObjectError("a page delta does not begin like one")

    head = json.loads(stream.readline())
    with target.open("r+b") as file:
        for first, count in head["runs"]:
            start = first * head["block_bytes"]
            file.seek(start)
            copy_exactly(stream, file, min(count * head["block_bytes"], head["bytes"] - start))
        file.flush()
        os.ftruncate(file.fileno(), head["bytes"])


def copy_exactly(stream: io.BufferedReader, file: BinaryIO, count: int) -> None:
    while count:
        chunk = stream.read(min(count, 1 << 20))
        if not chunk:
            raise DamagedObjectError("a page delta ends too early")
        file.write(chunk)
        count -= len(chunk)


def hash_block(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=DIGEST_BYTES).digest()


def make_page_patches(
    path: Path,
    runs: Sequence[tuple[int, int]],
    base: Path,
    base_digests: bytes,
    part_bytes: int,
    skip: int,
) -> Iterator[Part]:
    """Given the file, its changed runs, the base's file and digests, return the page delta as
    patches: a head, then for each `part_bytes` of changed blocks what `zstd --patch-from` makes of
    them and the blocks that were in their places. The first `skip` bytes are left out.

    Raise VerificationError when the base's file is no longer what its digests say.
    """
    part_blocks = part_bytes // BLOCK_BYTES
    values = {
        **{"block_bytes": BLOCK_BYTES, "bytes": path.stat().st_size},
        **{"part_blocks": part_blocks, "runs": runs},
    }
    head = PATCHES_MAGIC + json.dumps(values, separators=(",", ":")).encode() + b"\n"
    if not skip:
        yield Part(len(head), zstandard.ZstdCompressor().compress(head))

    done = max(skip - len(head), 0) // BLOCK_BYTES
    with path.open("rb") as new_file, base.open("rb") as base_file:
        for numbers in cut_blocks(runs, part_blocks, done):
            old = b"".join(read_proven_block(base_file, n, base_digests) for n in numbers)
            new = b"".join(read_block(new_file, number) for number in numbers)
            yield Part(len(numbers) * BLOCK_BYTES, make_patch(old, new))


def cut_blocks(
    runs: Iterable[tuple[int, int]], part_blocks: int, skip: int = 0
) -> Iterator[list[int]]:
    """Yield numbers of all runs' blocks after the first `skip`, in lists of `part_blocks`."""
    numbers = [number for first, count in runs for number in range(first, first + count)]
    for start in range(skip, len(numbers), part_blocks):
        yield numbers[start : start + part_blocks]


def read_block(file: BinaryIO, number: int) -> bytes:
    """Return a block, shorter at the end of the file, and empty behind it."""
    file.seek(number * BLOCK_BYTES)
    return file.read(BLOCK_BYTES)


def read_proven_block(base_file: BinaryIO, number: int, base_digests: bytes) -> bytes:
    block = read_block(base_file, number)
    known = base_digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
    if block and hash_block(block) != known:
        raise VerificationError(f"block {number} of the kept base has changed")
    return block


def apply_page_patches(pieces: Iterator[bytes], target: Path) -> None:
    """Turn `target`, which holds the base, into what the patches were made of. `pieces`: the opened
    segments. Raise DamagedObjectError, zstandard.ZstdError or ValueError."""
    head = parse_patches_head(zstandard.ZstdDecompressor().decompress(next(pieces, b"")))
    with target.open("r+b") as file:
        for numbers in cut_blocks(head["runs"], head["part_blocks"]):
            old = b"".join(read_block(file, number) for number in numbers)
            piece = next(pieces, None)
            if piece is None:
                raise DamagedObjectError("a page delta ends too early")
            new = apply_patch(old, piece)
            for place, number in enumerate(numbers):
                file.seek(number * BLOCK_BYTES)
                file.write(new[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES])

        file.flush()
        os.ftruncate(file.fileno(), head["bytes"])


def parse_patches_head(data: bytes) -> dict[str, Any]:
    magic, _, text = data.partition(b"\n")
    if magic + b"\n" != PATCHES_MAGIC:
        raise DamagedObjectError("a page delta does not begin like one")
    head: dict[str, Any] = json.loads(text)
    if head["block_bytes"] != BLOCK_BYTES:
        raise DamagedObjectError(f"a page delta has blocks of {head['block_bytes']} bytes")
    return head


def make_patch(base: bytes, new: bytes) -> bytes:
    """Return what `zstd --patch-from=base new` makes; `zstd -d --patch-from=base --long=31` applies
    it."""
    window = min(max((len(base) + len(new)).bit_length(), 17), 31)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        PATCH_LEVEL, window_log=window, enable_ldm=True
    )
    dictionary = as_dictionary(base)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary).compress(
        new
    )


def apply_patch(base: bytes, patch: bytes) -> bytes:
    """Return what make_patch was given as `new`. Raise zstandard.ZstdError."""
    return make_decompressor(base).decompress(patch)
