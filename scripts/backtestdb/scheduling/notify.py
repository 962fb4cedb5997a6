"""Tell a watcher (healthchecks.io convention) that a backup was made or failed."""

import threading
from collections.abc import Callable
from datetime import datetime

from backtestdb.backups.backup import Hooks, Outcome, make_backup
from backtestdb.backups.manifest import Kind
from backtestdb.config import Settings

LIMIT_SECONDS = 5.0


def send_heartbeat(url: str, *, success: bool, say: Callable[[str], None]) -> None:
    """GET `url`, or `url`/fail. Return after LIMIT_SECONDS at the latest and never raise: whatever ails the
    watcher is no reason to lose a backup. The address is a secret, so no message holds it."""
    if not url:
        return
    problems: list[str] = []
    address = url.rstrip("/") + ("" if success else "/fail")
    sender = threading.Thread(target=get, args=(address, problems), daemon=True)
    sender.start()
    sender.join(LIMIT_SECONDS)
    if sender.is_alive():
        problems.append(f"no answer within {LIMIT_SECONDS:.0f} s")
    if problems:
        say(f"the heartbeat was not delivered: {problems[0]}")


def get(address: str, problems: list[str]) -> None:
    import requests  # noqa: PLC0415  0.1 s that only users of a heartbeat pay

    try:
        answer = requests.get(address, timeout=LIMIT_SECONDS, allow_redirects=True)
        if not answer.ok:
            problems.append(f"the answer was {answer.status_code}")
    except (requests.RequestException, ValueError) as error:
        problems.append(type(error).__name__)


def run_backup(
    settings: Settings,
    kind: Kind,
    now: datetime,
    *,
    full_check: bool = False,
    accept_loss: bool = False,
    hooks: Hooks | None = None,
) -> Outcome:
    """Make a backup, drop those beyond the limit, and tell the watcher how it went: a backup of a database that
    has lost rows is a failure.

    `now` has a time zone, the user's: names are in local time. Raise ProjectError, OSError or sqlite3.Error
    when no backup was made; then nothing was removed either.
    """
    hooks = hooks or Hooks()
    try:
        outcome = make_backup(settings, kind, now, full_check, hooks, accept_loss=accept_loss)
    except BaseException:
        send_heartbeat(settings.heartbeat_url, success=False, say=hooks.say)
        raise
    send_heartbeat(settings.heartbeat_url, success=not outcome.is_suspicious, say=hooks.say)
    return outcome
