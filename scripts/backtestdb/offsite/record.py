"""The record of a copy: the object that makes it one. It is stored last, so with it the copy is
whole.

Its name tells class, time, writer and number, so that a listing is enough to choose by; inside
stands the same name, so that a record put under another name is found out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import zstandard

from backtestdb.errors import VerificationError
from backtestdb.offsite.errors import DamagedObjectError
from backtestdb.offsite.objects import SUFFIX, Remote, Segment, put_proven

FORMAT = 1
# The classes are folders of the store, because a bucket's lifecycle rules go by the beginning of a
# name.
CopyClass = Literal["full-base", "full-delta", "small-base", "small-delta", "minute"]
CLASSES: tuple[CopyClass, ...] = ("full-base", "full-delta", "small-base", "small-delta", "minute")
FULL_CLASSES: tuple[CopyClass, ...] = ("full-base", "full-delta")
SMALL_CLASSES: tuple[CopyClass, ...] = ("small-base", "small-delta", "minute")
Encoding = Literal["whole", "pages", "page-patches", "patch"]
STAMP = "%Y%m%dT%H%M%S.%fZ"
NAME = re.compile(
    rf"({'|'.join(CLASSES)})/copies/(\d{{8}}T\d{{6}}\.\d{{6}}Z)-([0-9a-f]{{8}})-(\d+)\.json{re.escape(SUFFIX)}"
)


@dataclass(frozen=True)
class CopyName:
    """What the name of a record says. `number` counts the copies of one writer in one class: a gap
    is a copy that was taken away."""

    copy_class: CopyClass
    taken_at_utc: datetime
    writer: str
    number: int

    def __str__(self) -> str:
        stamp = self.taken_at_utc.astimezone(UTC).strftime(STAMP)
        return f"{self.copy_class}/copies/{stamp}-{self.writer}-{self.number}.json{SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """- `base`: the name of the copy that a delta was made from, empty for a base. `base_sha256`:
    of its file.
    - `bytes`, `sha256`: of the database file that comes out.
    - `machine`, `database`, `database_id`: whose copy this is; the path with links resolved, see
      backups/identity.
    - `rows`: table -> rows.
    - `manifest`: the backup's own manifest as text, empty for a copy that was taken between two
      backups.
    - `scripts`: the generated scripts as a tar archive, none for a small copy.
    """

    name: CopyName
    machine: str
    database: str
    database_id: str
    file: str
    base: str
    base_sha256: str
    encoding: Encoding
    bytes: int
    sha256: str
    rows: Mapping[str, int]
    manifest: str
    segments: tuple[Segment, ...]
    scripts: tuple[Segment, ...] = ()

    @property
    def sent_bytes(self) -> int:
        return sum(segment.bytes for segment in self.segments)


def parse_name(text: str) -> CopyName | None:
    """Return None for an object that is no record."""
    match = NAME.fullmatch(text)
    if not match:
        return None
    moment = datetime.strptime(match[2], STAMP).replace(tzinfo=UTC)
    return CopyName(match[1], moment, match[3], int(match[4]))  # type: ignore[arg-type]


def save_record(remote: Remote, record: Record) -> int:
    """Store the record; return its bytes there. Raise NameTakenError never: see put_proven."""
    values = asdict(record) | {"format": FORMAT, "name": str(record.name)}
    data = zstandard.ZstdCompressor(level=9).compress(
        json.dumps(values, separators=(",", ":")).encode()
    )
    sealed = remote.key.seal(data)
    put_proven(remote.store, str(record.name), sealed)
    return len(sealed)


def load_record(remote: Remote, name: CopyName) -> Record:
    """Raise MissingObjectError, or DamagedObjectError for anything but what was stored."""
    text = str(name)
    data = remote.key.open(remote.store.get(text), text)
    try:
        values = json.loads(zstandard.ZstdDecompressor().decompress(data))
        return parse_record(values, name)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, VerificationError) as error:
        raise DamagedObjectError(f"{text} is no record that this version reads: {error}") from None


def parse_record(values: Any, name: CopyName) -> Record:
    """Given what was stored as `name`, return the record. Raise VerificationError for another
    format or another name, KeyError, TypeError or ValueError for what is no record."""
    if values["format"] != FORMAT:
        raise VerificationError(f"it has format {values['format']!r}, this version reads {FORMAT}")
    if values["name"] != str(name):
        raise VerificationError(f"it was stored as {values['name']}")

    return Record(
        name=name,
        machine=str(values["machine"]),
        database=str(values["database"]),
        database_id=str(values["database_id"]),
        file=str(values["file"]),
        base=str(values["base"]),
        base_sha256=str(values["base_sha256"]),
        encoding=values["encoding"],
        bytes=int(values["bytes"]),
        sha256=str(values["sha256"]),
        rows={str(table): int(count) for table, count in values["rows"].items()},
        manifest=str(values["manifest"]),
        segments=parse_segments(values["segments"]),
        scripts=parse_segments(values["scripts"]),
    )


def parse_segments(values: Any) -> tuple[Segment, ...]:
    return tuple(Segment(str(value["name"]), int(value["bytes"])) for value in values)
