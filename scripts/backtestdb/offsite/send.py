"""Send copies: of verified backups, and of what changed between them.

A copy counts from the moment its record is stored, which is the last thing done. A kill before that
leaves segments that no record names; the next run goes on with them, or makes a new copy.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from backtestdb.backups.catalogue import Backup
from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.files import hash_file
from backtestdb.offsite import chain
from backtestdb.offsite.delta import (
    DIGEST_BYTES,
    LARGEST_PART_BYTES,
    PATCH_LIMIT_BYTES,
    find_changed_runs,
    hash_blocks,
    make_page_patches,
    make_patch,
    read_page_delta,
)
from backtestdb.offsite.errors import TooSlowError
from backtestdb.offsite.objects import (
    LEVEL,
    Part,
    Remote,
    Segment,
    compress_parts,
    cut,
    cut_stream,
    send_segment,
    send_segments,
)
from backtestdb.offsite.record import CopyClass, CopyName, Encoding, Record, save_record
from backtestdb.offsite.scripts_archive import pack_scripts
from backtestdb.offsite.sent_log import note_sent
from backtestdb.offsite.state import Reference, State, Upload, save_state

SMALL_BASE, HOUR_BASE = "small-base.db", "hour.db"
FULL_BASE, FULL_DIGESTS = "full-base.db", "full-base.digests"
SMALLEST_SEGMENT_BYTES = 1 << 20
# From the size of a part and the bytes that are there already to the parts that are not.
MakeParts = Callable[[int, int], Iterator[Part]]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A database file that is to be copied, and what is known about it. `manifest` is empty for a
    copy that was taken between two backups."""

    path: Path
    file: str
    database: str
    database_id: str
    taken_at_utc: datetime
    sha256: str
    rows: dict[str, int]
    manifest: str = ""
    bytes: int = field(default=0)


@dataclass(kw_only=True)
class Sender:
    """One machine's way to one target. `folder`: its state and the bases of its deltas."""

    remote: Remote
    state: State
    folder: Path
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    say: Say = lambda _message: None

    def save(self) -> None:
        save_state(self.state, self.folder)


def describe_backup(backup: Backup) -> Content:
    """Raise VerificationError when the file is not, to the last bit, what its manifest says."""
    manifest = backup.manifest
    if manifest is None or backup.problem:
        raise VerificationError(f"{backup.path.name}: {backup.problem}")
    if hash_file(backup.path) != manifest.sha256:
        raise VerificationError(
            f"{backup.path.name} is no longer what its manifest says",
            next_step="make verify-backups",
        )
    return Content(
        path=backup.path,
        file=backup.path.name,
        database=manifest.source_path,
        database_id=manifest.database_id,
        taken_at_utc=backup.taken_at_utc,
        sha256=manifest.sha256,
        rows=dict(manifest.rows),
        manifest=backup.manifest_path.read_text(),
        bytes=manifest.bytes,
    )


def send_full(sender: Sender, backup: Backup) -> Record:
    """Send a verified full backup: whole, or the pages that changed since the base. Raise
    ProjectError."""
    content, state = describe_backup(backup), sender.state
    digests = hash_blocks(content.path)
    base = find_full_base(sender)
    is_due = chain.needs_new_reference(
        base, sender.clock(), chain.FULL_BASE_MAX_AGE, base.sent_bytes if base else 0
    )

    record = None
    if base and not is_due:
        record = send_page_delta(sender, backup, content, base, digests)
    if record is None:
        record = send_full_base(sender, backup, content, digests)
    state.full_file = content.file
    state.upload = Upload()
    sender.save()
    return record


def find_full_base(sender: Sender) -> Reference | None:
    """Return the base, if the digests of its pages are still here."""
    path = sender.folder / FULL_DIGESTS
    base = sender.state.full
    if base and path.is_file() and path.read_bytes()[:32].hex() == base.sha256:
        return base
    return None


def send_page_delta(
    sender: Sender, backup: Backup, content: Content, base: Reference, digests: bytes
) -> Record | None:
    """None, with nothing sent, when so much changed that a new base is cheaper."""
    base_digests = (sender.folder / FULL_DIGESTS).read_bytes()[32:]
    runs = find_changed_runs(digests, base_digests)
    changed = sum(count for _first, count in runs) * DIGEST_BYTES
    if changed > chain.LARGEST_DELTA * len(digests):
        return None

    encoding: Encoding = "page-patches"
    segments = send_page_patches(sender, content, base, runs, base_digests)
    if segments is None:
        encoding = "pages"
        parts = make_parts(read_page_delta(content.path, runs))
        segments = send_file(sender, "full-delta", content, parts, f"{encoding} {base.name}")
    record = finish(sender, "full-delta", content, encoding, segments, base, backup)
    chain.note_delta(base, record.sent_bytes)
    return record


def send_page_patches(
    sender: Sender,
    content: Content,
    base: Reference,
    runs: list[tuple[int, int]],
    base_digests: bytes,
) -> list[Segment] | None:
    """None when the base's file is not here any more, or not as it was."""
    kept = sender.folder / FULL_BASE
    if not kept.is_file():
        return None
    part_bytes = min(sender.state.segment_bytes, LARGEST_PART_BYTES)

    def parts(_size: int, skip: int) -> Iterator[Part]:
        return make_page_patches(content.path, runs, kept, base_digests, part_bytes, skip)

    try:
        # The size is part of the name: with another one the parts are others, and begin anew.
        begun = f"page-patches {part_bytes} {base.name}"
        return send_file(sender, "full-delta", content, parts, begun)
    except VerificationError as error:
        sender.say(f"{error}: the pages are sent whole until the next base")
        kept.unlink()
        return None


def send_full_base(sender: Sender, backup: Backup, content: Content, digests: bytes) -> Record:
    segments = send_file(sender, "full-base", content, make_parts(read_chunks(content.path)), "")
    record = finish(sender, "full-base", content, "whole", segments, None, backup)
    (sender.folder / FULL_DIGESTS).write_bytes(bytes.fromhex(content.sha256) + digests)
    keep_full_base(sender, content.path)
    sender.state.full = make_reference(record, sender.clock())
    return record


def keep_full_base(sender: Sender, path: Path) -> None:
    """A second name for the backup, so that retention may take the first. It costs no room while
    the backup is kept, and as much as that one afterwards, for FULL_BASE_MAX_AGE at most. File
    systems without such names (exFAT, some shares) do without, and send more."""
    kept = sender.folder / FULL_BASE
    kept.unlink(missing_ok=True)
    with suppress(OSError):
        kept.hardlink_to(path)


def make_parts(chunks: Iterator[bytes]) -> MakeParts:
    """Each part a zstd frame of its own; joined, the frames are one stream."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)

    def parts(size: int, skip: int) -> Iterator[Part]:
        return (Part(len(one), compressor.compress(one)) for one in cut_stream(chunks, size, skip))

    return parts


def send_file(
    sender: Sender, copy_class: CopyClass, content: Content, make: MakeParts, begun: str
) -> list[Segment]:
    """A large file piece by piece; what a killed run sent of the same file in the same way
    (`begun`) stays sent."""
    state = sender.state
    if (state.upload.file, state.upload.base) != (content.sha256, begun):
        state.upload = Upload(file=content.sha256, base=begun)
    upload = state.upload
    if upload.segments:
        sender.say(f"going on with {content.file} after {upload.bytes:,} bytes")
    try:
        for part in make(state.segment_bytes, upload.bytes):
            segment = send_segment(sender.remote, f"{copy_class}/segments", part.piece)
            upload.segments.append(segment)
            upload.bytes += part.source_bytes
            sender.save()
    except TooSlowError:
        # 32 MB in 25 s is 10 Mbit/s; a slower line gets there in smaller pieces, a dead one costs
        # nothing.
        state.segment_bytes = max(state.segment_bytes // 2, SMALLEST_SEGMENT_BYTES)
        sender.save()
        raise
    return list(upload.segments)


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def send_small(sender: Sender, content: Content, *, is_minute: bool) -> Record:
    """Send a small copy: whole, as a delta to the small base, or (`is_minute`) as one to the copy
    of its hour.

    Raise ProjectError. The state is saved with the record; a kill between the two costs one copy
    twice.
    """
    state, now = sender.state, sender.clock()
    data = content.path.read_bytes()
    small, hour = (
        find_local(sender, state.small, SMALL_BASE),
        find_local(sender, state.hour, HOUR_BASE),
    )
    base_price = small.sent_bytes if small else 0
    hour_price = small.first_delta_bytes if small and small.first_delta_bytes > 0 else base_price
    hour_is_due = chain.needs_new_reference(hour, now, chain.HOUR_MAX_AGE, hour_price)

    record = None
    if small and not chain.needs_new_reference(small, now, chain.SMALL_BASE_MAX_AGE, base_price):
        if is_minute and hour and not hour_is_due:
            record = send_patch(sender, "minute", content, data, hour, HOUR_BASE)
        else:
            record = send_patch(sender, "small-delta", content, data, small, SMALL_BASE)
            if record:
                state.hour = keep_local(sender, record, content.path, HOUR_BASE)
    if record is None:
        record = send_small_base(sender, content, data)
    state.small_sha256 = content.sha256
    if not is_minute:
        state.small_file = content.file
    sender.save()
    return record


def send_patch(
    sender: Sender,
    copy_class: CopyClass,
    content: Content,
    data: bytes,
    base: Reference,
    base_file: str,
) -> Record | None:
    """None, with nothing sent, when a new base is cheaper."""
    if len(data) + base.bytes > PATCH_LIMIT_BYTES:
        return None
    patch = make_patch((sender.folder / base_file).read_bytes(), data)
    if chain.is_too_large(len(patch), base) and copy_class != "minute":
        return None
    folder = f"{copy_class}/segments"
    segments = send_segments(sender.remote, folder, cut(patch, sender.state.segment_bytes))
    record = finish(sender, copy_class, content, "patch", segments, base)
    chain.note_delta(base, record.sent_bytes)
    return record


def send_small_base(sender: Sender, content: Content, data: bytes) -> Record:
    parts = cut(data, sender.state.segment_bytes)
    segments = send_segments(sender.remote, "small-base/segments", compress_parts(parts))
    record = finish(sender, "small-base", content, "whole", segments, None)
    sender.state.small = keep_local(sender, record, content.path, SMALL_BASE)
    sender.state.hour = keep_local(sender, record, content.path, HOUR_BASE)
    return record


def finish(
    sender: Sender,
    copy_class: CopyClass,
    content: Content,
    encoding: Encoding,
    segments: list[Segment],
    base: Reference | None,
    backup: Backup | None = None,
) -> Record:
    """Store the record, with which the copy is there."""
    state = sender.state
    number = state.next_number(copy_class)
    record = Record(
        name=CopyName(copy_class, content.taken_at_utc, state.writer, number),
        machine=state.machine,
        database=content.database,
        database_id=content.database_id,
        file=content.file,
        base=base.name if base else "",
        base_sha256=base.sha256 if base else "",
        encoding=encoding,
        bytes=content.path.stat().st_size,
        sha256=content.sha256,
        rows=content.rows,
        manifest=content.manifest,
        segments=tuple(segments),
        scripts=send_scripts(sender, copy_class, backup) if backup else (),
    )
    save_record(sender.remote, record)
    note_sent(sender.folder, record.name)
    state.sent[copy_class] = number
    return record


def send_scripts(sender: Sender, copy_class: CopyClass, backup: Backup) -> tuple[Segment, ...]:
    if backup.manifest is None or backup.manifest.generated_scripts is None:
        return ()
    archive = pack_scripts(backup.scripts_path)
    parts = cut(archive, sender.state.segment_bytes)
    return tuple(send_segments(sender.remote, f"{copy_class}/segments", compress_parts(parts)))


def make_reference(record: Record, now_utc: datetime) -> Reference:
    return Reference(
        name=str(record.name),
        sha256=record.sha256,
        bytes=record.bytes,
        sent_bytes=record.sent_bytes,
        sent_at_utc=now_utc,
    )


def keep_local(sender: Sender, record: Record, path: Path, name: str) -> Reference:
    """Keep the file that deltas will be made from; the state that names it is saved after it."""
    kept = sender.folder / name
    arriving = kept.with_name(f"{name}.arriving")
    with suppress(FileNotFoundError):
        arriving.unlink()
    shutil.copyfile(path, arriving)
    arriving.chmod(0o600)
    arriving.replace(kept)
    return make_reference(record, sender.clock())


def find_local(sender: Sender, reference: Reference | None, name: str) -> Reference | None:
    """Return the reference, if its file is here and has not changed: a delta to another file would
    be worthless."""
    path = sender.folder / name
    if not reference or not path.is_file():
        return None
    with path.open("rb") as file:
        is_same = hashlib.file_digest(file, "sha256").hexdigest() == reference.sha256
    return reference if is_same else None
