"""How the copies elsewhere stand, from small files on this machine: no network, and none of the
packages that only the copies need."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backtestdb.config import Settings
from backtestdb.offsite.liveness import Liveness, load_liveness, target_folder

CHECKS, DRILLS = "checks.jsonl", "drills.jsonl"
# Ten looks at the usual 30 seconds, so that a restart or a short break of the network is no
# problem yet.
STALE_AFTER = timedelta(minutes=5)
CHECK_EVERY, DRILL_EVERY = timedelta(days=7), timedelta(days=30)
STAYS = "and make schedule-install for the process that stays"


@dataclass(frozen=True, kw_only=True)
class OffsiteFacts:
    """- `lag`: how far what is elsewhere, proven, is behind; None when nothing is there yet.
    - `newest_full_utc`, `newest_small_utc`: when the newest copies were taken.
    - `failures`: small or full -> why it failed last.
    - `checked_at_utc`, `check_problems`: the last check where they lie.
    - `drilled_at_utc`, `drill_problem`, `drill_seconds`, `drill_bytes`: the last way back that was
      rehearsed.
    """

    target: str
    lag: timedelta | None
    newest_full_utc: datetime | None
    newest_small_utc: datetime | None
    failures: dict[str, str]
    checked_at_utc: datetime | None
    check_problems: tuple[str, ...]
    drilled_at_utc: datetime | None
    drill_problem: str
    drill_seconds: float
    drill_bytes: int


@dataclass(frozen=True)
class OffsiteProblem:
    """`name` is for programs, `what` for people, `next_step` the command that helps."""

    name: str
    what: str
    next_step: str


def load_offsite_facts(settings: Settings, now_utc: datetime) -> OffsiteFacts | None:
    """Return None when OFFSITE is not set."""
    if not settings.offsite:
        return None
    folder = target_folder(settings.backup_dir, settings.offsite)

    liveness = load_liveness(folder) or Liveness()
    check, drill = load_last_line(folder / CHECKS), load_last_line(folder / DRILLS)

    covered = liveness.covered_until_utc

    return OffsiteFacts(
        target=settings.offsite,
        lag=max(now_utc - covered, timedelta(0)) if covered else None,
        newest_full_utc=liveness.newest_full_utc,
        newest_small_utc=liveness.newest_small_utc,
        failures=dict(liveness.failures),
        checked_at_utc=parse_time(check.get("checked_at_utc")),
        check_problems=tuple(map(str, check.get("result", {}).get("problems", ()))),
        drilled_at_utc=parse_time(drill.get("started_at_utc")),
        drill_problem=str(drill.get("problem", "")),
        drill_seconds=float(drill.get("seconds", 0)),
        drill_bytes=int(drill.get("fetched_bytes", 0)),
    )


def load_last_line(path: Path) -> dict[str, Any]:
    """Return the last line that can be read; empty when there is none."""
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for line in reversed(lines):
        with suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict):
                return values
    return {}


def parse_time(text: object) -> datetime | None:
    with suppress(ValueError, TypeError):
        return datetime.fromisoformat(text)  # type: ignore[arg-type]
    return None


def find_offsite_problems(facts: OffsiteFacts | None) -> list[OffsiteProblem]:
    """Return what needs the user, the most urgent first; none if OFFSITE is not set."""
    if facts is None:
        return []
    problems = []

    reason = "; ".join(dict.fromkeys(facts.failures.values()))
    because = f": {reason}" if reason else ""
    if facts.lag is None:
        what = f"nothing was sent to {facts.target} yet{because}"
        problems.append(
            OffsiteProblem("offsite_stale", what, "make offsite-init, then make schedule-install")
        )
    elif facts.lag > STALE_AFTER:
        minutes = facts.lag / timedelta(minutes=1)
        what = f"what lies at {facts.target} is {minutes:.0f} minutes behind{because}"
        problems.append(OffsiteProblem("offsite_stale", what, f"make offsite-send, {STAYS}"))
    elif "full" in facts.failures:
        what = f"the full backup could not be sent to {facts.target}: {facts.failures['full']}"
        problems.append(OffsiteProblem("offsite_failed", what, "make offsite-send"))

    if facts.check_problems:
        more = f", and {found - 1} more" if (found := len(facts.check_problems)) > 1 else ""
        what = f"at {facts.target}: {facts.check_problems[0]}{more}"
        problems.append(
            OffsiteProblem("offsite_damaged", what, 'make offsite-check ARGS="--everything"')
        )

    if facts.drill_problem:
        what = f"the last drill from {facts.target} failed: {facts.drill_problem}"
        problems.append(OffsiteProblem("offsite_drill_failed", what, "make offsite-drill"))

    return problems


def is_due(last_utc: datetime | None, every: timedelta, now_utc: datetime) -> bool:
    """Return whether the last is too long ago, or lies ahead: then the clock was set back since."""
    return last_utc is None or not timedelta(0) <= now_utc - last_utc < every
