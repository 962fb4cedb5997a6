"""Copies of a database that had lost rows: none of them comes back unless its time is named.

A copy of a backup has the backup's own manifest, which says so. A copy that was taken between two
backups has none: its rows are compared with those of the newest backup that was sent before it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

from backtestdb.backups.manifest import Loss, Manifest, parse_manifest
from backtestdb.backups.shrinkage import describe_losses, find_losses, load_expected
from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.offsite.chain import newest_first
from backtestdb.offsite.errors import MissingObjectError
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import CLASSES, CopyName, Record, load_record


def leave_out_suspicious(
    remote: Remote, wanted: Iterable[CopyName], everything: Iterable[CopyName], say: Say
) -> Iterator[CopyName]:
    """Given copies of one database, `wanted` and all that there are, return those of `wanted` that
    lost nothing, in their order; say which are passed over. Raise OffsiteError when the store does
    not answer."""
    known = newest_first(everything, CLASSES)
    for name in wanted:
        losses = load_losses(remote, name, known)
        if losses:
            say(f"suspicious, passed over: {name}: {describe_losses(losses)}")
        else:
            yield name


def load_losses(remote: Remote, name: CopyName, known: list[CopyName]) -> Mapping[str, Loss]:
    """Return table -> what it had lost when this copy was taken; `known`: newest first."""
    record = find_record(remote, name)
    if record is None:
        return {}  # to fetch it tells what is wrong with it

    manifest = find_manifest(record)
    if manifest is not None:
        return manifest.losses if manifest.is_suspicious else {}

    earlier = (one for one in known if one.taken_at_utc < name.taken_at_utc)
    records = (find_record(remote, one) for one in earlier)
    before = next((found for one in records if one and (found := find_manifest(one))), None)
    return leave_out_renames(find_losses(load_expected(before), record.rows), before, record)


def leave_out_renames(
    losses: Mapping[str, Loss], before: Manifest | None, record: Record
) -> Mapping[str, Loss]:
    """Take a new table with as many rows for a renamed one: a record holds no columns."""
    new = {count for table, count in record.rows.items() if before and table not in before.rows}
    return {
        table: loss
        for table, loss in losses.items()
        if table in record.rows or loss.before not in new
    }


def find_record(remote: Remote, name: CopyName) -> Record | None:
    try:
        return load_record(remote, name)
    except (VerificationError, MissingObjectError):
        return None


def find_manifest(record: Record) -> Manifest | None:
    """Return the backup's own; None for a copy that was taken between two backups."""
    if not record.manifest:
        return None
    try:
        return parse_manifest(json.loads(record.manifest))
    except (ValueError, VerificationError):
        return None
