"""What the living process did last, for status, doctor and the page: a small file."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backtestdb.files import write_atomically

FOLDER, NAME = ".offsite", "watch.json"
TIMES = ("looked_at_utc", "covered_until_utc", "newest_small_utc", "newest_full_utc")


def target_folder(backup_dir: Path, address: str) -> Path:
    """Return everything that this machine remembers about one target."""
    return backup_dir / FOLDER / hashlib.sha256(address.encode()).hexdigest()[:12]


@dataclass(kw_only=True)
class Liveness:
    """- `covered_until_utc`: every irreplaceable commit before it lies off the machine, proven.
    - `newest_small_utc`, `newest_full_utc`: when the newest copies that were sent were taken.
    - `failures`: small or full -> why it failed last, nothing after a success."""

    looked_at_utc: datetime | None = None
    covered_until_utc: datetime | None = None
    newest_small_utc: datetime | None = None
    newest_full_utc: datetime | None = None
    interval_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


def save_liveness(folder: Path, liveness: Liveness) -> None:
    """Write the file whole-old or whole-new, unflushed: within a minute it is written again."""
    values: dict[str, Any] = asdict(liveness)
    for name in TIMES:
        values[name] = values[name].isoformat() if values[name] else None
    write_atomically(folder / NAME, json.dumps(values) + "\n", mode=0o666, durably=False)


def load_liveness(folder: Path) -> Liveness | None:
    """Return None when there is none, or none that can be read."""
    try:
        values = json.loads((folder / NAME).read_text())
        for name in TIMES:
            values[name] = datetime.fromisoformat(values[name]) if values[name] else None
        return Liveness(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None
