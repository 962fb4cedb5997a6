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


def describe_loss(settings: Settings) -> str:
    """Return what is wrong where a folder that held the lake holds none, as a mount point without
    its disk; empty where nothing is. Of S3 only the server can tell."""
    facts = lake_facts(settings) or {}
    is_there = settings.lake.startswith("s3://") or Path(settings.lake, "versions").is_dir()
    if facts.get("version") is None or is_there:
        return ""
    return f"the lake at {settings.lake} was at version {facts['version']}, and nothing is there"
