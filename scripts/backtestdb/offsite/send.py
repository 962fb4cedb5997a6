"""What full and small copies have in common on their way out: what is known of a file, a large one
in parts, and the record.

A copy counts from the moment its record is stored, which is the last thing done. A kill before that
leaves segments that no record names; the next run goes on with them, or makes a new copy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from backtestdb.backups.catalogue import Backup
from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.files import hash_file
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
    """Given a backup with its manifest, return what is sent of it. Raise VerificationError when the
    file is not, to the last bit, what its manifest says."""
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


def make_parts(chunks: Iterator[bytes]) -> MakeParts:
    """Return how a file's parts are made: each is a zstd frame, and joined they are one stream."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)

    def parts(size: int, skip: int) -> Iterator[Part]:
        return (Part(len(one), compressor.compress(one)) for one in cut_stream(chunks, size, skip))

    return parts


def send_file(
    sender: Sender, copy_class: CopyClass, content: Content, make: MakeParts, begun: str
) -> list[Segment]:
    """Given the parts of a large file, store them one by one and return their segments. What a
    killed run sent of the same file in the same way (`begun`) stays sent. Raise OffsiteError."""
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


def finish(
    sender: Sender,
    copy_class: CopyClass,
    content: Content,
    encoding: Encoding,
    segments: list[Segment],
    base: Reference | None,
    backup: Backup | None = None,
) -> Record:
    """Store the record, with which the copy exists, and return it."""
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
