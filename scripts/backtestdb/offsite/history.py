"""When copies were last checked where they lie, and what came out: a line each, the newest last."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from backtestdb.config import Settings
from backtestdb.console import Say
from backtestdb.files import append_line
from backtestdb.offsite.check import CheckResult, check_copies
from backtestdb.offsite.distrust import save_distrusted
from backtestdb.offsite.liveness import target_folder
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import CopyName
from backtestdb.offsite.sent_log import choose_due, load_sent, shorten

NAME = "checks.jsonl"
LINES_KEPT = 500


def check_and_save(
    settings: Settings, remote: Remote, now_utc: datetime, *, everything: bool, say: Say
) -> CheckResult:
    """Check, remember what is damaged so that it is sent anew, and keep the result."""
    folder = target_folder(settings.backup_dir, settings.offsite)
    sent = find_sent(folder, now_utc)
    result = check_copies(remote, now_utc, everything=everything, sent=sent, say=say)
    save_distrusted(folder, result.damaged)
    save_check(folder, result, now_utc)
    return result


def find_sent(folder: Path, now_utc: datetime) -> list[CopyName]:
    """Return the copies that this machine sent and that must still be there."""
    folders = [folder / "full", folder / "small"]
    for one in folders:
        shorten(one, now_utc)
    return choose_due(load_sent(folders), now_utc)


def save_check(folder: Path, result: CheckResult, now_utc: datetime) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = {
        "checked_at_utc": now_utc.isoformat(),
        "is_good": not result.problems,
        "result": asdict(result),
    }
    append_line(folder / NAME, json.dumps(values), keep=LINES_KEPT)
