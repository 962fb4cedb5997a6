"""Send a full backup: whole, or what changed since the base."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from backtestdb.backups.catalogue import Backup
from backtestdb.errors import VerificationError
from backtestdb.offsite import chain
from backtestdb.offsite.delta import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    LARGEST_PART_BYTES,
    find_changed_runs,
    hash_blocks,
    make_page_patches,
    read_page_delta,
)
from backtestdb.offsite.objects import Part, Segment
from backtestdb.offsite.record import Encoding, Record
from backtestdb.offsite.send import (
    Content,
    Sender,
    describe_backup,
    finish,
    make_parts,
    make_reference,
    send_file,
)
from backtestdb.offsite.state import STATE_NAME, Reference, Upload

JUDGED_BYTES = 4 << 20
FULL_BASE, FULL_DIGESTS = "full-base.db", "full-base.digests"


def send_full(sender: Sender, backup: Backup) -> Record:
    """Given a verified full backup, send it whole, or the pages that changed since the base; return
    the record. Raise ProjectError."""
    return send_full_content(sender, describe_backup(backup), backup)


def send_full_content(sender: Sender, content: Content, backup: Backup | None = None) -> Record:
    """Send a file whole, or what changed since the base. `backup`: with its generated scripts."""
    state, digests = sender.state, hash_blocks(content.path)
    base = find_full_base(sender)
    is_due = chain.needs_new_reference(
        base, sender.clock(), chain.FULL_BASE_MAX_AGE, base.sent_bytes if base else 0
    )

    record = None
    if base and not is_due:
        record = send_page_delta(sender, content, base, digests, backup)
    if record is None:
        record = send_full_base(sender, content, digests, backup)
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
    sender: Sender, content: Content, base: Reference, digests: bytes, backup: Backup | None
) -> Record | None:
    """Return None, with nothing sent, when so much changed that a new base is cheaper."""
    base_digests = (sender.folder / FULL_DIGESTS).read_bytes()[32:]
    runs = find_changed_runs(digests, base_digests)
    changed = sum(count for _first, count in runs) * DIGEST_BYTES
    has_changed_much = changed > chain.LARGEST_DELTA * len(digests)

    encoding: Encoding = "page-patches"
    segments = None
    if not has_changed_much or are_patches_small(sender, content, base, runs, base_digests):
        segments = send_page_patches(sender, content, base, runs, base_digests)

    if segments is None:
        if has_changed_much:
            return None
        encoding = "pages"
        parts = make_parts(read_page_delta(content.path, runs))
        segments = send_file(sender, "full-delta", content, parts, f"{encoding} {base.name}")

    record = finish(sender, "full-delta", content, encoding, segments, base, backup)
    chain.note_delta(base, record.sent_bytes)
    return record


def are_patches_small(
    sender: Sender,
    content: Content,
    base: Reference,
    runs: list[tuple[int, int]],
    base_digests: bytes,
) -> bool:
    """Judge by the first part. A session adds a key to nearly every index page of a young database,
    and each of these patches is small; after VACUUM no page is where it was."""
    kept = sender.folder / FULL_BASE
    if not kept.is_file():
        return False

    try:
        parts = make_page_patches(content.path, runs, kept, base_digests, JUDGED_BYTES, skip=0)
        _head, first = next(parts), next(parts)
    except VerificationError:
        return False

    changed_bytes = sum(count for _first, count in runs) * BLOCK_BYTES
    expected = len(first.piece) / first.source_bytes * changed_bytes
    return not chain.is_too_large(int(expected), base)


def send_page_patches(
    sender: Sender,
    content: Content,
    base: Reference,
    runs: list[tuple[int, int]],
    base_digests: bytes,
) -> list[Segment] | None:
    """Return None when the base's file is not here any more, or not as it was."""
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


def send_full_base(
    sender: Sender, content: Content, digests: bytes, backup: Backup | None
) -> Record:
    segments = send_file(sender, "full-base", content, make_parts(read_chunks(content.path)), "")
    record = finish(sender, "full-base", content, "whole", segments, None, backup)
    (sender.folder / FULL_DIGESTS).write_bytes(bytes.fromhex(content.sha256) + digests)
    keep_full_base(sender, content.path)
    sender.state.full = make_reference(record, sender.clock())
    return record


def keep_full_base(sender: Sender, path: Path) -> None:
    """Give the backup a second name, so that retention may take the first. It costs no room while
    the backup is kept, and as much as that afterwards, for FULL_BASE_MAX_AGE at most. File systems
    without such names (exFAT, some shares) do without, and send more."""
    kept = sender.folder / FULL_BASE
    kept.unlink(missing_ok=True)
    with suppress(OSError):
        kept.hardlink_to(path)


def drop_left_bases(folders: Iterable[Path], now_utc: datetime) -> None:
    """Given the folders of all targets, remove the base of each that sent nothing for as long as a
    base lives: OFFSITE names another place since, and the file would take its room for ever."""
    for folder in folders:
        with suppress(FileNotFoundError):
            sent_at = datetime.fromtimestamp((folder / "full" / STATE_NAME).stat().st_mtime, UTC)
            if now_utc - sent_at > chain.FULL_BASE_MAX_AGE:
                (folder / "full" / FULL_BASE).unlink()


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
