"""Which copies may go: a rule for each class, by age; a base stays while a copy that is kept refers
to it.

Only `make offsite-prune` deletes, with credentials that may; daily work never does. A bucket's
lifecycle rules can do the same without any credentials (docs/DATABASE.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.offsite.errors import MissingObjectError, OffsiteError
from backtestdb.offsite.objects import SEGMENT_NAME, Remote
from backtestdb.offsite.record import CLASSES, CopyClass, CopyName, load_record, parse_name

# Minutes reach back 7 days; a base has to outlive its youngest delta, which may be as old as the
# base's limit.
KEEP: dict[CopyClass, timedelta] = {
    "minute": timedelta(days=8),
    "small-delta": timedelta(days=60),
    "small-base": timedelta(days=60 + 8),
    "full-delta": timedelta(days=35),
    "full-base": timedelta(days=35 + 31),
}
# A segment without a record may belong to an upload that is under way for days on a slow line.
ORPHAN_AGE = timedelta(days=8)


@dataclass(frozen=True)
class PrunePlan:
    """`copies` and `objects` to delete, records first: a copy without a record is none."""

    copies: tuple[CopyName, ...]
    objects: tuple[str, ...]
    bytes: int


def choose_expired(names: Iterable[CopyName], now_utc: datetime) -> set[CopyName]:
    """Return what has had its time, by age alone."""
    expired: set[CopyName] = set()
    by_class: dict[CopyClass, list[CopyName]] = {}
    for name in names:
        by_class.setdefault(name.copy_class, []).append(name)

    for copy_class, found in by_class.items():
        # Never the newest of a class, nor a copy that lies ahead of this machine's clock.
        newest = max(found, key=lambda name: name.taken_at_utc)
        expired |= {
            name
            for name in found
            if name != newest and now_utc - name.taken_at_utc > KEEP[copy_class]
        }

    return expired


def plan_prune(remote: Remote, now_utc: datetime) -> PrunePlan:
    """Return what may go. Raise OffsiteError when a record that stays cannot be read."""
    listed = {stored.name: stored for stored in remote.store.list()}
    names = [name for text in listed if (name := parse_name(text))]
    expired = choose_expired(names, now_utc)
    needed: set[str] = set()
    # What a record needs is known only when it was read; otherwise nothing may go.
    for name in sorted(set(names) - expired, key=str):
        keep_needed(remote, name, expired, needed)

    objects = [
        text
        for text, stored in listed.items()
        if SEGMENT_NAME.fullmatch(text)
        and text.startswith(CLASSES)
        and text not in needed
        and now_utc - stored.changed_at_utc > ORPHAN_AGE
    ]
    copies = tuple(sorted(expired, key=str))
    total = sum(listed[text].bytes for text in [*objects, *map(str, copies)])
    return PrunePlan(copies, tuple(objects), total)


def keep_needed(remote: Remote, name: CopyName, expired: set[CopyName], needed: set[str]) -> None:
    """Add what the copy and its base refer to to `needed`, and take the base out of `expired`.
    Raise OffsiteError when the record cannot be read."""
    try:
        record = load_record(remote, name)
    except (VerificationError, MissingObjectError) as error:
        raise OffsiteError(
            f"nothing was deleted: {error}, and what it needs is not known",
            next_step="make offsite-check",
        ) from error

    needed |= {segment.name for segment in (*record.segments, *record.scripts)}
    base = parse_name(record.base) if record.base else None
    if base in expired:
        expired.discard(base)
        keep_needed(remote, base, expired, needed)


def prune(remote: Remote, plan: PrunePlan, say: Say) -> None:
    """Remove what is planned, records first. Raise OffsiteError where that is not allowed."""
    for name in plan.copies:
        remote.store.delete(str(name))
    for text in plan.objects:
        remote.store.delete(text)
    say(f"deleted {len(plan.copies)} copies and {len(plan.objects)} segments")
