"""One result of one check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """`note`: worth knowing, and no reason to fail. `next_step`: the command or the change that mends it."""

    level: Level
    topic: str
    what: str
    next_step: str = ""


def ok(topic: str, what: str) -> Finding:
    return Finding("ok", topic, what)


def note(topic: str, what: str, next_step: str = "") -> Finding:
    return Finding("note", topic, what, next_step)


def wrong(topic: str, what: str, next_step: str) -> Finding:
    return Finding("wrong", topic, what, next_step)
