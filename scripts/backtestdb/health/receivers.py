"""Do those who are told of failures answer? A test message to the watcher and NOTIFY_URLS."""

from collections.abc import Iterator

from backtestdb.config import Settings
from backtestdb.health.problem import Problem, ok, wrong
from backtestdb.scheduling.messages import Message, send_message
from backtestdb.scheduling.notify import PUSH_PATH, Event, send_heartbeat


def ask_receivers(settings: Settings) -> Iterator[Problem]:
    """Given the settings, send one test to each that is set. The watcher gets what begins a backup,
    which no watcher takes for a success or a failure; a push address knows success alone."""
    said: list[str] = []
    if settings.heartbeat_url:
        event: Event = "success" if PUSH_PATH in settings.heartbeat_url else "start"
        send_heartbeat(settings.heartbeat_url, event, say=said.append)
        if said:
            yield wrong("heartbeat", said[-1], "check HEARTBEAT_URL in .env")
        else:
            yield ok("heartbeat", "the watcher at HEARTBEAT_URL answers")

    if settings.notify_urls:
        title = f"{settings.database_path.name}: a test"
        message = Message(title, "make doctor ARGS=--online sent this.", is_failure=False)
        if send_message(settings.notify_urls, message, said.append):
            yield ok("messages", f"{len(settings.notify_urls)} by NOTIFY_URLS were taken")
        else:
            yield wrong("messages", said[-1], "check NOTIFY_URLS in .env; ./db setup notify")
