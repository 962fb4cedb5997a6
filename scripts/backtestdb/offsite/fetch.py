"""From a copy at the store to the file it was made of, proven by its SHA-256."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.files import fsync_file, hash_file, verify_space
from backtestdb.offsite.delta import apply_page_patches, apply_pages
from backtestdb.offsite.errors import DamagedObjectError, MissingObjectError
from backtestdb.offsite.objects import Remote, open_stream, read_all, read_segment
from backtestdb.offsite.record import CopyName, Record, load_record, parse_name
from backtestdb.offsite.scripts_archive import unpack_scripts

COPY_BYTES = 1 << 20
# A minute refers to its hour and that to its base; more would be a ring.
LONGEST_CHAIN = 3


def fetch_copy(remote: Remote, name: CopyName, target: Path) -> Record:
    """Write the database file of this copy to the new file `target`, private and flushed; return
    its record.

    Raise VerificationError when the record, one of its segments, or a base is damaged, or when what
    comes out is not, to the last bit, what was sent; MissingObjectError when something is gone.
    Nothing stays then.
    """
    target.unlink(missing_ok=True)
    records = load_chain(remote, name)
    verify_space(target.parent, 2 * max(record.bytes for record in records), f"fetching {name}")

    target.touch(0o600)
    try:
        for record in reversed(records):
            build(remote, record, target)
        fsync_file(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise

    return records[0]


def load_chain(remote: Remote, name: CopyName) -> list[Record]:
    """Return the record of the copy, of what it refers to, and so on down to a whole one."""
    records = [load_record(remote, name)]

    while records[-1].base:
        base = parse_name(records[-1].base)
        if base is None or len(records) == LONGEST_CHAIN:
            raise DamagedObjectError(
                f"{name} refers to {records[-1].base!r}, which cannot be its base"
            )

        try:
            records.append(load_record(remote, base))
        except MissingObjectError as error:
            raise MissingObjectError(f"the base of {records[-1].name} is gone: {error}") from None

        if records[-1].sha256 != records[-2].base_sha256:
            raise DamagedObjectError(
                f"{base} is not the base that {records[-2].name} was made from"
            )

    return records


def build(remote: Remote, record: Record, target: Path) -> None:
    """Turn `target`, which holds the base (nothing for a whole copy), into this record's file."""
    try:
        if record.encoding == "pages":
            with open_stream(remote, record.segments) as stream:
                apply_pages(io.BufferedReader(stream), target)
        elif record.encoding == "page-patches":
            pieces = (read_segment(remote, segment) for segment in record.segments)
            apply_page_patches(pieces, target)
        else:
            base = target.read_bytes() if record.encoding == "patch" else None
            with (
                open_stream(remote, record.segments, base=base) as stream,
                target.open("wb") as file,
            ):
                while chunk := stream.read(COPY_BYTES):
                    file.write(chunk)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DamagedObjectError(f"{record.name} cannot be decompressed: {error}") from None

    if target.stat().st_size != record.bytes or hash_file(target) != record.sha256:
        raise VerificationError(
            f"{record.name} does not come back as it was sent: its SHA-256 is another one"
        )


def fetch_scripts(remote: Remote, record: Record, folder: Path) -> None:
    """Fetch the generated scripts that belong to a full copy, into the new folder `folder`."""
    try:
        unpack_scripts(read_all(remote, record.scripts, f"the scripts of {record.name}"), folder)
    except (ValueError, OSError) as error:
        raise DamagedObjectError(
            f"the scripts of {record.name} cannot be unpacked: {error}"
        ) from None


def fetch_newest(
    fetch: Callable[[CopyName], Record], names: Iterable[CopyName], say: Say
) -> Record | None:
    """Return the first of `names` that `fetch` brings back whole; each one passed over is said with
    its reason. Raise OffsiteError when the store itself does not answer."""
    for name in names:
        try:
            return fetch(name)
        # A store that does not answer is no reason to take an older copy.
        except (VerificationError, MissingObjectError) as error:
            say(f"passed over {name}: {error}")
    return None


def list_copies(remote: Remote) -> list[CopyName]:
    """Return every copy at the store, in no order."""
    return [name for stored in remote.store.list() if (name := parse_name(stored.name))]
