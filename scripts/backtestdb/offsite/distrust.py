"""Copies that a check found damaged: nothing new may refer to them. The check and the sender are
two processes, so the one leaves a note that the other reads."""

import json
from collections.abc import Iterable
from pathlib import Path

from backtestdb.files import write_atomically
from backtestdb.offsite.state import State

NAME = "damaged.json"


def save_distrusted(folder: Path, names: Iterable[str]) -> None:
    """Add `names` to those that are known."""
    known = load_distrusted(folder)
    added = known | set(names)
    if added == known:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / NAME, json.dumps(sorted(added)) + "\n")


def load_distrusted(folder: Path) -> set[str]:
    try:
        return set(map(str, json.loads((folder / NAME).read_text())))
    except (OSError, ValueError, TypeError):
        return set()


def drop_distrusted(state: State, damaged: set[str]) -> list[str]:
    """Let `state` forget damaged references and return them: the next copy is a new one."""
    found = [
        reference.name
        for reference in (state.full, state.small, state.hour)
        if reference and reference.name in damaged
    ]

    for name in ("full", "small", "hour"):
        reference = getattr(state, name)
        if reference and reference.name in damaged:
            setattr(state, name, None)
            state.full_file, state.small_sha256 = "", ""

    return list(dict.fromkeys(found))
