"""What this machine remembers about its copies at one target: a small file, and the bases of its
deltas.

All of it can be lost: then the next copy is a new base. It lies in BACKUP_DIR, in a folder of its
own for each target, because a delta may only ever refer to a base at the same place.
"""

import json
import platform
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backtestdb.files import write_atomically
from backtestdb.offsite.objects import SEGMENT_BYTES, Segment
from backtestdb.offsite.record import CopyClass

STATE_NAME = "state.json"


@dataclass(kw_only=True)
class Reference:
    """A copy that deltas are made from. `grown_bytes`: by how much its deltas were larger than the
    first of them, added up; `first_delta_bytes` and `last_delta_bytes` -1 until there is one."""

    name: str
    sha256: str
    bytes: int
    sent_bytes: int
    sent_at_utc: datetime
    first_delta_bytes: int = -1
    last_delta_bytes: int = -1
    grown_bytes: int = 0


@dataclass(kw_only=True)
class Upload:
    """A backup whose copy is under way: its segments so far, and how many bytes of it they hold."""

    file: str = ""
    base: str = ""
    bytes: int = 0
    segments: list[Segment] = field(default_factory=list)


@dataclass(kw_only=True)
class State:
    """Of one sender; full and small copies have one each, because they are sent side by side.

    - `hour`: the copy that minutes refer to: the small base itself, or a delta to it.
    - `sent`: of each class the number of the newest copy.
    - `small_sha256`: of the file of the newest small copy, whatever its class.
    - `segment_bytes`: less on a slow line.
    """

    writer: str
    machine: str
    folder: str
    sent: dict[str, int] = field(default_factory=dict)
    full: Reference | None = None
    small: Reference | None = None
    hour: Reference | None = None
    full_file: str = ""
    small_file: str = ""
    small_sha256: str = ""
    upload: Upload = field(default_factory=Upload)
    segment_bytes: int = SEGMENT_BYTES

    def next_number(self, copy_class: CopyClass) -> int:
        return self.sent.get(copy_class, 0) + 1


def load_state(folder: Path) -> State:
    """Return what this folder knows of its copies; a new state when there is none that can be read,
    or when the folder was copied from another place."""
    machine = platform.node() or "unknown"
    try:
        state = parse_state(json.loads((folder / STATE_NAME).read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        state = None
    # Two writers under one name would take each other's numbers.
    if state is None or (state.machine, state.folder) != (machine, str(folder)):
        return State(writer=secrets.token_hex(4), machine=machine, folder=str(folder))
    return state


def parse_state(values: dict[str, Any]) -> State:
    for name in ("full", "small", "hour"):
        values[name] = parse_reference(values[name])
    upload = values["upload"]
    segments = [Segment(**segment) for segment in upload["segments"]]
    values["upload"] = Upload(**upload | {"segments": segments})
    return State(**values)


def parse_reference(values: dict[str, Any] | None) -> Reference | None:
    if values is None:
        return None
    return Reference(**values | {"sent_at_utc": datetime.fromisoformat(values["sent_at_utc"])})


def save_state(state: State, folder: Path) -> None:
    write_atomically(folder / STATE_NAME, json.dumps(asdict(state), default=encode) + "\n")


def encode(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} has no place in JSON")
    return value.astimezone(UTC).isoformat()
