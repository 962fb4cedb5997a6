"""What `make status` says about the lake, left behind by the command that changed it: read without
any package.

The lake itself is Parquet, and status must stay light. The figures are those of the last commit
from this machine.
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from backtestdb.config import Settings


def summary_path(settings: Settings) -> Path:
    name = blake2b(settings.lake.encode(), digest_size=8).hexdigest()
    return settings.state_dir / "lake" / f"{name}.json"


def lake_facts(settings: Settings) -> dict[str, Any] | None:
    """Return None without a LAKE; otherwise `lake` and, once something was published from this
    machine, version, published_at_utc, bytes, files, tables (rows, first and last session of each),
    due (parts of metrics that do not follow their bars) and coverage."""
    if not settings.lake:
        return None
    facts: dict[str, Any] = {"lake": settings.lake}
    try:
        facts |= json.loads(summary_path(settings).read_text())
    except (OSError, ValueError):
        facts["version"] = None
    return facts
