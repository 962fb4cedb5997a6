"""Send the irreplaceable tables: whole, or as a patch to the base or the copy of its hour."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from backtestdb.offsite import chain
from backtestdb.offsite.delta import PATCH_LIMIT_BYTES, make_patch
from backtestdb.offsite.objects import compress_parts, cut, send_segments
from backtestdb.offsite.record import CopyClass, Record
from backtestdb.offsite.send import Content, Sender, finish, make_reference
from backtestdb.offsite.state import Reference

SMALL_BASE, HOUR_BASE = "small-base.db", "hour.db"


def send_small(sender: Sender, content: Content, *, is_minute: bool) -> Record:
    """Given a copy of the irreplaceable tables, send it whole, as a patch to the small base, or
    (`is_minute`) as one to the copy of its hour; return the record.

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
    # A new copy of the hour costs about what the last delta to the small base did; they grow all
    # day, so the first one is the smallest.
    hour_price = small.last_delta_bytes if small and small.last_delta_bytes > 0 else base_price
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
    """Return None, with nothing sent, when a new base is cheaper."""
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
    """Return the reference if its file is here as it was: else a delta would be worthless."""
    path = sender.folder / name
    if not reference or not path.is_file():
        return None
    with path.open("rb") as file:
        is_same = hashlib.file_digest(file, "sha256").hexdigest() == reference.sha256
    return reference if is_same else None
