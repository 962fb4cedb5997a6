"""The manifest: the JSON file beside a database file that makes it a backup.

It is written last, so whatever a killed run leaves behind has none.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from backtestdb.errors import VerificationError
from backtestdb.files import flush_descriptor

# 1 knew neither whose backup it was nor which tables had lost rows; it is still read.
FORMAT = 2
READABLE_FORMATS = (1, 2)
ADDED_IN_FORMAT_2: Mapping[str, Any] = {
    "database_id": "",
    "earlier_paths": [],
    "content_format": 1,
    "losses": {},
    "accepts_loss": False,
    "renames": {},
}
# How content_sha256 was computed, see content_hash.py.
CONTENT_FORMAT = 1
Kind = Literal["full", "irreplaceable"]


@dataclass(frozen=True, kw_only=True)
class GeneratedScripts:
    """- `files`: path inside the folder -> SHA-256; `links`: path inside the folder -> what the
    link says.
    - `parts`: folder inside the copy ("" is the copy itself) -> the folder that it was made from.
    - `not_copied`: path inside the folder -> the reason."""

    folder: str
    count: int
    files: Mapping[str, str]
    links: Mapping[str, str]
    parts: Mapping[str, str]
    not_copied: Mapping[str, str]


@dataclass(frozen=True)
class Loss:
    """A table with fewer rows than `before`, in the backup of `before_at_utc`: `now`."""

    before: int
    before_at_utc: datetime
    now: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """- `taken_at_utc`: the order of backups; later than that of every backup that was there
    before.
    - `clock_utc`: what the clock said. The two differ when the clock was set back.
    - `source_path`: where the database lay, links resolved (in format 1 as the user had written
      it).
    - `database_id`, `earlier_paths`: whose backup this is, see identity.py. Empty in format 1.
    - `content_sha256`: table -> hash of its rows, for every table that no download brings back.
    - `content_format`: the way in which those hashes were computed.
    - `losses`: table -> what it has lost, see shrinkage.py; `accepts_loss`: the user said that it
      was meant; `renames`: table that is gone -> the new one that holds its rows.
    - `structure_sha256`: of the schema of those tables, see content_hash.hash_structure.
    - `rows`: table -> rows, virtual tables left out.
    - `broken_rules`: SQLite's words about rows that break a rule of their table, such as a NULL in
      a NOT NULL column. The platform stored them so; they are in the backup.
    """

    format: int
    kind: Kind
    file: str
    taken_at_utc: datetime
    clock_utc: datetime
    source_path: str
    database_id: str
    earlier_paths: tuple[str, ...]
    schema_version: int
    bytes: int
    sha256: str
    sqlite_version: str
    check: str
    rows: Mapping[str, int]
    foreign_key_violations: int
    content_sha256: Mapping[str, str]
    content_format: int
    structure_sha256: str
    losses: Mapping[str, Loss]
    accepts_loss: bool
    renames: Mapping[str, str]
    generated_scripts: GeneratedScripts | None
    broken_rules: tuple[str, ...] = ()

    @property
    def is_suspicious(self) -> bool:
        """Return whether the database had lost rows: a true copy of it is restored only by name."""
        return bool(self.losses) and not self.accepts_loss

    @property
    def kept_rows(self) -> dict[str, int]:
        """Return the rows of every table that no download brings back."""
        return {table: self.rows[table] for table in self.content_sha256 if table in self.rows}


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write and flush; private to the user."""
    values = asdict(manifest)
    for name in ("taken_at_utc", "clock_utc"):
        values[name] = format_utc(values[name])

    for loss in values["losses"].values():
        loss["before_at_utc"] = format_utc(loss["before_at_utc"])
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(values, file, indent=1)
        file.write("\n")
        file.flush()
        flush_descriptor(file.fileno())


def format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def load_manifest(path: Path) -> Manifest:
    """Raise VerificationError unless this is a complete manifest of the database of that name."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise VerificationError("no manifest") from None
    except OSError as error:
        raise VerificationError(f"the manifest cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"the manifest is not JSON: {error}") from None

    manifest = parse_manifest(values)
    if Path(manifest.file).stem != path.name.split(".")[0]:
        raise VerificationError(f"the manifest is for {manifest.file}")

    return manifest


def parse_manifest(values: Any) -> Manifest:
    """Given decoded JSON, return the manifest. Raise VerificationError with the first value that is
    missing or of another type."""
    if not isinstance(values, dict):
        raise VerificationError("the manifest is not an object")

    format_number = values.get("format")
    if format_number not in READABLE_FORMATS or isinstance(format_number, bool):
        raise VerificationError(
            f"the manifest has format {format_number!r}, this project reads {READABLE_FORMATS}"
        )

    if format_number == 1:
        values = {**values, **ADDED_IN_FORMAT_2}

    kind = take(values, "kind", str)
    if kind not in ("full", "irreplaceable"):
        raise VerificationError(f"the manifest has the unknown kind {kind!r}")

    scripts = values.get("generated_scripts")
    return Manifest(
        format=format_number,
        kind="full" if kind == "full" else "irreplaceable",
        file=take(values, "file", str),
        taken_at_utc=take_time(values, "taken_at_utc"),
        clock_utc=take_time(values, "clock_utc"),
        source_path=take(values, "source_path", str),
        database_id=take(values, "database_id", str),
        earlier_paths=tuple(take_list(values, "earlier_paths", str)),
        schema_version=take(values, "schema_version", int),
        bytes=take(values, "bytes", int),
        sha256=take(values, "sha256", str),
        sqlite_version=take(values, "sqlite_version", str),
        check=take(values, "check", str),
        rows=take_mapping(values, "rows", int),
        foreign_key_violations=take(values, "foreign_key_violations", int),
        content_sha256=take_mapping(values, "content_sha256", str),
        content_format=take(values, "content_format", int),
        structure_sha256=take(values, "structure_sha256", str),
        losses={
            table: parse_loss(loss) for table, loss in take_mapping(values, "losses", dict).items()
        },
        accepts_loss=take(values, "accepts_loss", bool),
        renames=take_mapping(values, "renames", str),
        generated_scripts=None if scripts is None else parse_generated_scripts(scripts),
        broken_rules=tuple(take_list(values, "broken_rules", str))
        if "broken_rules" in values
        else (),
    )


def parse_loss(values: Mapping[str, Any]) -> Loss:
    return Loss(
        before=take(values, "before", int),
        before_at_utc=take_time(values, "before_at_utc"),
        now=take(values, "now", int),
    )


def parse_generated_scripts(values: Any) -> GeneratedScripts:
    """Return what decoded JSON says of the scripts. Raise VerificationError like parse_manifest."""
    if not isinstance(values, dict):
        raise VerificationError("the manifest's generated_scripts is not an object")
    return GeneratedScripts(
        folder=take(values, "folder", str),
        count=take(values, "count", int),
        files=take_mapping(values, "files", str),
        links=take_mapping(values, "links", str),
        parts=take_mapping({"parts": {}, **values}, "parts", str),
        not_copied=take_mapping({"not_copied": {}, **values}, "not_copied", str),
    )


def take(values: Mapping[str, Any], name: str, kind: type) -> Any:
    value = values.get(name)
    if type(value) is not kind:
        raise VerificationError(f"the manifest's {name} is {value!r} instead of {kind.__name__}")
    return value


def take_list(values: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    items: list[Any] = take(values, name, list)
    if any(type(item) is not kind for item in items):
        raise VerificationError(f"the manifest's {name} holds values that are not {kind.__name__}")
    return items


def take_mapping(values: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    mapping: dict[str, Any] = take(values, name, dict)
    if any(type(value) is not kind for value in mapping.values()):
        raise VerificationError(f"the manifest's {name} holds values that are not {kind.__name__}")
    return mapping


def take_time(values: Mapping[str, Any], name: str) -> datetime:
    """Return an ISO 8601 moment with its zone. Raise VerificationError otherwise."""
    text = take(values, name, str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise VerificationError(f"the manifest's {name} is no time: {text!r}") from None
    if time.tzinfo is None:
        raise VerificationError(f"the manifest's {name} has no time zone: {text!r}")
    return time.astimezone(UTC)
