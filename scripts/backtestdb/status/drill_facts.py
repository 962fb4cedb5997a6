"""The drills so far: restores that were tried out, from the history in the backup folder."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

HISTORY_NAME = "drill-history.jsonl"


@dataclass(frozen=True)
class DrillFacts:
    """One drill: when, whether every backup came back whole, and the time to recover in seconds."""

    at_utc: datetime
    passed: bool
    seconds: float
    detail: str = ""


def load_drills(backup_dir: Path) -> list[DrillFacts]:
    """The history, the newest first; a line that a killed drill tore is left out."""
    try:
        lines = (backup_dir / HISTORY_NAME).read_text().splitlines()
    except OSError:
        return []
    drills = [drill for line in lines if (drill := parse_drill(line))]
    return sorted(drills, key=lambda drill: drill.at_utc, reverse=True)


def parse_drill(line: str) -> DrillFacts | None:
    try:
        values = json.loads(line)
        at = datetime.fromisoformat(values["at_utc"])
        return DrillFacts(at, bool(values["passed"]), float(values["seconds"]), str(values.get("detail", "")))
    except (ValueError, TypeError, KeyError):
        return None
