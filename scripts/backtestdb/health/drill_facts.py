"""The drills so far: restores that were tried out."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.backups.drill import Drill, load_drills


@dataclass(frozen=True, kw_only=True)
class DrillFacts:
    """One drill: when, whether every backup came back whole, the seconds to recover the slowest of
    them, and what was wrong."""

    at_utc: datetime
    passed: bool
    seconds: float
    detail: str = ""
    lacked_space: bool = False

    @property
    def next_step(self) -> str:
        """Return what makes the next drill pass, where this one failed."""
        return (
            "free some space in BACKUP_DIR, then make drill" if self.lacked_space else "make backup"
        )


def load_drill_facts(backup_dir: Path, database: Path) -> list[DrillFacts]:
    """Return the newest first."""
    drills = sorted(
        load_drills(backup_dir, database), key=lambda drill: drill.started_at_utc, reverse=True
    )
    return [make_drill_facts(drill) for drill in drills]


def make_drill_facts(drill: Drill) -> DrillFacts:
    """Return a drill on one line: when, its outcome, its slowest restore, what went wrong."""
    problems = [
        drill.problem,
        *(f"{one.backup}: {one.problem}" for one in drill.rehearsals if one.problem),
    ]

    return DrillFacts(
        at_utc=drill.started_at_utc,
        passed=drill.is_good,
        seconds=max((one.seconds for one in drill.rehearsals), default=0.0),
        detail="; ".join(problem for problem in problems if problem),
        lacked_space=bool(drill.rehearsals)
        and all(one.is_good or one.lacked_space for one in drill.rehearsals),
    )
