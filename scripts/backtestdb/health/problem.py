"""One result of one look: what is said by status, doctor, the page and their JSON."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Problem:
    """`name` is for programs, `what` for people, `next_step` the command or the change that helps.
    `level`: only `wrong` needs the user; a `note` is worth knowing, `ok` is what was looked at and
    is well. `where`: the part that it is about, in a person's words; empty where the name says
    it."""

    name: str
    what: str
    next_step: str = ""
    _: KW_ONLY
    level: Level = "wrong"
    where: str = ""


def ok(name: str, what: str) -> Problem:
    return Problem(name, what, level="ok")


def note(name: str, what: str, next_step: str = "") -> Problem:
    return Problem(name, what, next_step, level="note")


def wrong(name: str, what: str, next_step: str) -> Problem:
    return Problem(name, what, next_step)
