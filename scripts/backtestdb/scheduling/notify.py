"""Tell a watcher how the backups go: a ping at the start, after success, and after a failure with
its reason.

The convention is that of healthchecks.io: `/start` and `/fail` behind the path of the address, the
reason in the body. A push address of Uptime Kuma (`/api/push/…`) has a query in their place:
`status=down&msg=reason`.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from backtestdb.backups.backup import Hooks, Outcome, make_backup
from backtestdb.backups.manifest import Kind
from backtestdb.backups.shrinkage import describe_losses
from backtestdb.config import Settings
from backtestdb.console import Say
from backtestdb.scheduling.user_commands import run_user_command

Event = Literal["start", "success", "fail"]
# What healthchecks.io keeps of a body.
REASON_BYTES = 10_000
ATTEMPTS = 3
ATTEMPT_SECONDS = 5.0
# Whatever ails the watcher, it delays a backup by no more than this.
LIMIT_SECONDS = 20.0
PUSH_PATH = "/api/push/"


def send_heartbeat(url: str, event: Event, *, reason: str = "", say: Say) -> None:
    """Given the watcher's address (empty: there is none), tell it of `event`, with up to two
    repetitions. Return after LIMIT_SECONDS at the latest and never raise. The address is a secret,
    so no message holds it."""
    address = make_address(url, event, reason) if url else None
    if address is None:
        return
    problems: list[str] = []
    body = reason.encode()[:REASON_BYTES]
    sender = threading.Thread(target=send, args=(address, body, problems), daemon=True)
    sender.start()
    sender.join(LIMIT_SECONDS)
    if sender.is_alive():
        problems.append(f"no answer within {LIMIT_SECONDS:.0f} s")

    if problems:
        say(f"the heartbeat was not delivered: {problems[-1]}")


def make_address(url: str, event: Event, reason: str) -> str | None:
    """Return the address to ask for an event; None where the watcher knows no such event."""
    parts = urlsplit(url)
    if PUSH_PATH in parts.path:
        if event == "start":
            return None
        query = dict(parse_qsl(parts.query)) | {"status": "up" if event == "success" else "down"}
        query["msg"] = "OK" if event == "success" else reason[:200] or "failed"
        return urlunsplit(parts._replace(query=urlencode(query)))
    behind = {"start": "/start", "success": "", "fail": "/fail"}[event]
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + behind))


def send(address: str, body: bytes, problems: list[str]) -> None:
    """Ask `address`, again when that fails; `problems` is empty when it was delivered."""
    import requests  # noqa: PLC0415  0.1 s that only users of a heartbeat pay

    for _ in range(ATTEMPTS):
        try:
            if body and PUSH_PATH not in address:
                answer = requests.post(address, data=body, timeout=ATTEMPT_SECONDS)
            else:
                answer = requests.get(address, timeout=ATTEMPT_SECONDS)
        except (requests.RequestException, ValueError) as error:
            problems.append(type(error).__name__)
            continue
        if answer.ok:
            problems.clear()
            return
        problems.append(f"the answer was {answer.status_code}")


def run_backup(
    settings: Settings,
    kind: Kind,
    now: datetime,
    *,
    full_check: bool = False,
    accept_loss: bool = False,
    hooks: Hooks | None = None,
    find_overdue: Callable[[], str] = lambda: "",
) -> Outcome:
    """Make a backup, drop those beyond the limit, and tell the watcher how it went. `find_overdue`:
    why not all is well although this backup was made, empty when it is.

    `now` has a time zone, the user's: names are in local time. Raise ProjectError, OSError or
    sqlite3.Error when no backup was made; then nothing was removed either.
    """
    hooks = hooks or Hooks()
    say = hooks.say

    send_heartbeat(settings.heartbeat_url, "start", say=say)
    run_user_command(settings, "BEFORE_BACKUP", say, kind=kind)
    try:
        outcome = make_backup(settings, kind, now, full_check, hooks, accept_loss=accept_loss)
    except BaseException as error:
        send_heartbeat(settings.heartbeat_url, "fail", reason=str(error), say=say)
        run_user_command(settings, "ON_FAILURE", say, kind=kind, reason=str(error))
        raise

    manifest = outcome.backup.manifest
    lost = (
        f"rows were lost: {describe_losses(manifest.losses)}"
        if manifest and manifest.is_suspicious
        else ""
    )
    reason = lost or find_overdue()
    path = str(outcome.backup.path)
    run_user_command(settings, "AFTER_BACKUP", say, kind=kind, path=path, reason=reason)

    # The backup was made; the watcher hears of no success while something else is wrong.
    if reason:
        send_heartbeat(settings.heartbeat_url, "fail", reason=reason, say=say)
        run_user_command(settings, "ON_FAILURE", say, kind=kind, path=path, reason=reason)
    else:
        send_heartbeat(settings.heartbeat_url, "success", say=say)

    return outcome
