"""Whose copies are these? A target may have those of a second checkout or another machine."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backtestdb.console import Say
from backtestdb.errors import ProjectError, VerificationError
from backtestdb.offsite.errors import MissingObjectError
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import CopyName, load_record


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A database as the records of its copies know it."""

    machine: str
    database: str
    database_id: str

    def describe(self) -> str:
        return f"{self.database} of {self.machine}"


def find_owners(remote: Remote, names: Iterable[CopyName]) -> dict[str, Owner]:
    """Return the owner of each writer, from its newest record that can be read."""
    by_writer: dict[str, list[CopyName]] = {}
    for name in sorted(names, key=lambda name: name.taken_at_utc, reverse=True):
        by_writer.setdefault(name.writer, []).append(name)

    owners = {}
    for writer, found in by_writer.items():
        owner = read_first_owner(remote, found)
        # Without a record that can be read its copies do not come back anyway.
        if owner:
            owners[writer] = owner
    return owners


def read_first_owner(remote: Remote, names: list[CopyName]) -> Owner | None:
    for name in names:
        try:
            record = load_record(remote, name)
        except (VerificationError, MissingObjectError):
            continue
        return Owner(
            machine=record.machine, database=record.database, database_id=record.database_id
        )
    return None


def choose_own(
    remote: Remote,
    names: list[CopyName],
    database: Path,
    database_id: str,
    *,
    writer: str = "",
    is_filled: bool = False,
    say: Say = lambda _message: None,
) -> list[CopyName]:
    """Return the copies of one database: of the one at `database`, or of the one that sent as
    `writer`, or of the only one that is there, unless the database `is_filled` with rows of its
    own. Raise ProjectError with all of them when that does not tell."""
    owners = find_owners(remote, names)
    if writer:
        if writer not in owners:
            raise ProjectError(f"there is no copy of writer {writer}", next_step="make offsites")
        return of_same_database(names, owners, owners[writer])

    path = os.path.realpath(database)
    mine = [owner for owner in owners.values() if is_mine(owner, path, database_id)]
    known = list(dict.fromkeys((owner.database_id, owner.database) for owner in owners.values()))

    if mine:
        return of_same_database(names, owners, mine[0])
    if len(known) <= 1 and not (known and is_filled):
        for owner in list(owners.values())[:1]:
            if owner.database != path:
                say(f"these are the copies of {owner.describe()}, the only ones there")
        return names

    listed = "; ".join(
        sorted(f"{owner.describe()} (writer {one})" for one, owner in owners.items())
    )
    raise ProjectError(
        f"the copies there are of other databases than {path}: {listed}",
        next_step='name one: make restore-from-backup FROM=offsite ARGS="--writer WRITER"',
    )


def is_mine(owner: Owner, path: str, database_id: str) -> bool:
    """Return whether an owner is this database: the path is, and ids, if both have one, too."""
    if database_id and owner.database_id and database_id != owner.database_id:
        return False
    return owner.database == path


def of_same_database(
    names: list[CopyName], owners: dict[str, Owner], owner: Owner
) -> list[CopyName]:
    """Return the copies of every writer of that database."""
    # Full and small copies have a writer each, and so has each machine.
    same = {
        writer
        for writer, other in owners.items()
        if (other.database_id, other.database) == (owner.database_id, owner.database)
    }
    return [name for name in names if name.writer in same]
