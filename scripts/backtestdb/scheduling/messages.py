"""Messages to a person, by Apprise to NOTIFY_URLS: one for each change of state, never a storm.

The state is what fails now, by task. What was told last is kept beside the database, because the
disk of the backups may be what fails, and survives restarts.
"""

import json
import logging
import platform
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from backtestdb.console import Say
from backtestdb.files import write_atomically

State = Mapping[str, str]
# Apprise gives each address 4 s to connect and 4 s to answer; mail servers take the longest.
LIMIT_SECONDS = 60.0
REASON_CHARACTERS = 1000


@dataclass(frozen=True)
class Message:
    title: str
    body: str
    is_failure: bool


def find_changes(told: State, now: State) -> tuple[State, State]:
    """Return what fails since the last message, and what works again. A task that fails for another
    reason than before is no change: its state is the same."""
    began = {task: reason for task, reason in now.items() if task not in told}
    ended = {task: reason for task, reason in told.items() if task not in now}
    return began, ended


def make_message(began: State, ended: State, words: Mapping[str, str], database: Path) -> Message:
    """Given the changes of one look, return the message: all of them in one. `words`: how a task is
    called."""
    lines = [reason[:REASON_CHARACTERS] for reason in began.values()]
    lines += [f"works again: {words.get(task, task)}" for task in ended]
    names = ", ".join(words.get(task, task) for task in (began or ended))
    title = f"{database.name} on {platform.node()}: {names} {'failed' if began else 'works again'}"
    return Message(title, "\n".join([*lines, str(database)]), bool(began))


def told_path(database: Path, job: str) -> Path:
    return database.with_name(f"{database.name}.told-{job}.json")


def load_told(path: Path) -> dict[str, str]:
    """Return what the last message was about; empty where nothing was told, or where it cannot be
    read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in values.items()} if isinstance(values, dict) else {}


def save_told(path: Path, told: State) -> None:
    """Keep the state in one step; on a full disk in place."""
    text = json.dumps(dict(told), indent=1) + "\n"
    try:
        write_atomically(path, text, durably=False)
    except OSError:
        # A message that is forgotten would be sent again at each look.
        with suppress(OSError):
            path.write_text(text, encoding="utf-8")


def send_message(urls: Sequence[str], message: Message, say: Say) -> bool:
    """Given Apprise addresses, return whether any of them took the message, after LIMIT_SECONDS at
    the latest. Never raise; the addresses are secrets, so nothing that is said holds one."""
    if find_spec("apprise") is None:
        say("the message was not delivered by NOTIFY_URLS: Apprise is missing; ./db setup notify")
        return False
    results: list[bool] = []
    sender = threading.Thread(target=deliver, args=(urls, message, results), daemon=True)
    sender.start()
    sender.join(LIMIT_SECONDS)
    if not results:
        say("the message was not delivered by NOTIFY_URLS: no answer in time; tried again later")
    elif not all(results):
        failed = f"{results.count(False)} of {len(results)} addresses"
        say(f"the message was not delivered by NOTIFY_URLS: {failed}")

    # Any: sent again for the others, it would come twice to that one.
    return any(results)


def deliver(urls: Sequence[str], message: Message, results: list[bool]) -> None:
    """Append one result for each address. Apprise's own log shows parts of addresses, and stays
    silent."""
    from apprise import Apprise, NotifyType  # noqa: PLC0415  an extra that only NOTIFY_URLS needs

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    kind = NotifyType.FAILURE if message.is_failure else NotifyType.SUCCESS
    outcome = []

    for url in urls:
        place = Apprise()
        known = place.add(url)
        outcome.append(
            bool(known and place.notify(title=message.title, body=message.body, notify_type=kind))
        )

    results.extend(outcome)
