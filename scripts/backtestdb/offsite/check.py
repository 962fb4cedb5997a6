"""Read copies again where they lie: a share each week, everything once a quarter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backtestdb.console import Say
from backtestdb.errors import VerificationError
from backtestdb.offsite.chain import find_gaps
from backtestdb.offsite.errors import MissingObjectError
from backtestdb.offsite.objects import SEGMENT_NAME, Remote, verify_name
from backtestdb.offsite.record import CLASSES, CopyName, Record, load_record, parse_name
from backtestdb.offsite.store import Stored

SHARES = 13


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """`problems`: sentences, if any. `damaged`: names of records that do not come back."""

    share: str
    copies: int
    objects_read: int
    bytes_read: int
    problems: tuple[str, ...]
    damaged: tuple[str, ...]


def share_of_week(now_utc: datetime) -> int:
    """Return weeks since 1970, in turn 0 to 12: each share comes once a quarter, whichever weeks
    are skipped last."""
    return int(now_utc.timestamp() // (7 * 86400)) % SHARES


def check_copies(
    remote: Remote,
    now_utc: datetime,
    *,
    everything: bool = False,
    sent: Sequence[CopyName] = (),
    say: Say = lambda _message: None,
) -> CheckResult:
    """Check of every copy: is what its record names there, at its size? Of this week's share (or
    `everything`): read and compare with the hash in its name. `sent`: copies that this machine sent
    and that nothing lets go yet.

    Raise OffsiteError when the store does not answer."""
    share = share_of_week(now_utc)
    listed = {stored.name: stored for stored in remote.store.list()}
    names = [name for text in listed if (name := parse_name(text))]

    problems = [*find_gaps(names), *find_lost(names, sent)]
    damaged: set[str] = set()
    owners: dict[str, str] = {}
    read_bytes, read_objects = 0, 0

    for name in sorted(names, key=str):
        if not (everything or is_in_share(str(name), share) or name.copy_class != "minute"):
            continue
        found = check_record(remote, name, listed, owners)
        read_objects += 1
        read_bytes += listed[str(name)].bytes
        if found:
            problems += found
            damaged.add(str(name))

    for text, stored in sorted(listed.items()):
        if (
            SEGMENT_NAME.fullmatch(text)
            and text.startswith(CLASSES)
            and (everything or is_in_share(text, share))
        ):
            read_objects += 1
            read_bytes += stored.bytes
            found = check_segment(remote, text)
            problems += found
            if found and text in owners:
                damaged.add(owners[text])

    for problem in problems:
        say(problem)
    return CheckResult(
        share="everything" if everything else f"share {share + 1} of {SHARES}",
        copies=len(names),
        objects_read=read_objects,
        bytes_read=read_bytes,
        problems=tuple(problems),
        damaged=tuple(sorted(damaged)),
    )


def is_in_share(name: str, share: int) -> bool:
    """Return whether a segment, by its hash, or a record, by its number, is in the share."""
    match = SEGMENT_NAME.fullmatch(name)
    if match:
        return int(match[1][:8], 16) % SHARES == share
    record = parse_name(name)
    return record is not None and record.number % SHARES == share


def find_lost(names: Sequence[CopyName], sent: Sequence[CopyName]) -> list[str]:
    """Return losses without a gap in the numbers: the newest, the oldest, or all of them."""
    lost = set(sent) - set(names)
    return [
        f"{name} was sent and proven by this machine, and is gone" for name in sorted(lost, key=str)
    ]


def check_record(
    remote: Remote, name: CopyName, listed: dict[str, Stored], owners: dict[str, str]
) -> list[str]:
    """Return what a listing shows to be wrong with a copy; add its segments to `owners`."""
    try:
        record = load_record(remote, name)
    except (VerificationError, MissingObjectError) as error:
        return [str(error)]
    owners |= {segment.name: str(name) for segment in (*record.segments, *record.scripts)}
    return [*check_segments(record, listed), *check_base(record, listed)]


def check_segments(record: Record, listed: dict[str, Stored]) -> list[str]:
    """Return a sentence for each segment that is gone or has another size."""
    problems = []
    for segment in (*record.segments, *record.scripts):
        stored = listed.get(segment.name)
        if stored is None:
            problems.append(f"{record.name}: its segment {segment.name} is gone")
        elif stored.bytes != segment.bytes:
            problems.append(
                f"{record.name}: its segment {segment.name} has {stored.bytes:,} bytes instead of "
                f"{segment.bytes:,}"
            )

    return problems


def check_base(record: Record, listed: dict[str, Stored]) -> list[str]:
    if record.base and record.base not in listed:
        return [f"{record.name}: its base {record.base} is gone"]
    return []


def check_segment(remote: Remote, name: str) -> list[str]:
    try:
        verify_name(name, remote.store.get(name))
    except (VerificationError, MissingObjectError) as error:
        return [str(error)]
    return []
