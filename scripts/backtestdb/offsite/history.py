"""When copies were last checked where they lie, and what came out: a line each, the newest last."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from backtestdb.files import rename_durably
from backtestdb.offsite.check import CheckResult

NAME = "checks.jsonl"
LINES_KEPT = 500


@dataclass(frozen=True, kw_only=True)
class Check:
    checked_at_utc: datetime
    is_good: bool
    result: CheckResult


def save_check(folder: Path, check: Check) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NAME
    lines = path.read_text().splitlines() if path.is_file() else []
    values = asdict(check) | {"checked_at_utc": check.checked_at_utc.isoformat()}
    arriving = path.with_name(f"{NAME}.arriving")
    arriving.touch(0o600)
    arriving.write_text("\n".join([*lines[-LINES_KEPT + 1 :], json.dumps(values)]) + "\n")
    rename_durably(arriving, path)


def load_checks(folder: Path) -> list[Check]:
    """Oldest first; a line that cannot be read is no check."""
    path = folder / NAME
    checks = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError, TypeError, KeyError):
            values = json.loads(line)
            result = CheckResult(**values["result"])
            checked_at = datetime.fromisoformat(values["checked_at_utc"])
            checks.append(Check(checked_at_utc=checked_at, is_good=bool(values["is_good"]), result=result))
    return checks
