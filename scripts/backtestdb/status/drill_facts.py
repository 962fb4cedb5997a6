"""The drills so far: restores that were tried out, from the history in the backup folder."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

HISTORY = Path("drills") / "history.jsonl"


@dataclass(frozen=True)
class DrillFacts:
    """One drill: when, whether every backup came back whole, the seconds to recover the slowest of them, and
    what was wrong."""

    at_utc: datetime
    passed: bool
    seconds: float
    detail: str = ""


def load_drill_facts(backup_dir: Path) -> list[DrillFacts]:
    """The newest first; a line that cannot be read is no drill."""
    try:
        lines = (backup_dir / HISTORY).read_text(errors="replace").splitlines()
    except OSError:
        return []
    drills = [drill for line in lines if (drill := parse_drill(line))]
    return sorted(drills, key=lambda drill: drill.at_utc, reverse=True)


def parse_drill(line: str) -> DrillFacts | None:
    try:
        values = json.loads(line)
        rehearsals = values["rehearsals"]
        problems = [
            values["problem"],
            *(f"{one['backup']}: {one['problem']}" for one in rehearsals if one["problem"]),
        ]
        return DrillFacts(
            datetime.fromisoformat(values["started_at_utc"]),
            bool(values["is_good"]),
            max((float(one["seconds"]) for one in rehearsals), default=0.0),
            "; ".join(problem for problem in problems if problem),
        )
    except (ValueError, TypeError, KeyError):
        return None
