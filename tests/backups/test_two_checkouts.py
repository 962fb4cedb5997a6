"""Two checkouts with the printed defaults share a backup folder: through random histories of both,
by the real commands, neither touches, counts or restores what is the other's, and nothing is lost
before it was meant."""

import contextlib
import io
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestdb.backups.catalogue import Backup, load_catalogue
from backup_tools import age_backups, make_platform_database
from commands import SCRIPTS, Project

KEPT_AS_FEW_AS_MAY_BE = {
    **{"MAX_BACKUPS": "1", "MIN_BACKUPS": "1", "KEEP_FULL_WEEKLY": "0", "KEEP_FULL_MONTHLY": "0"},
    **{
        "KEEP_SMALL_HOURLY": "0",
        "KEEP_SMALL_DAILY": "0",
        "KEEP_SMALL_WEEKLY": "0",
        "KEEP_SMALL_MONTHLY": "0",
    },
}
# In parts: COUNT=25 ./db test-long tests/backups/test_two_checkouts.py --hypothesis-seed=1
COUNT = int(os.environ.get("COUNT") or 200)
NOTES = ("lab_notes", "field_notes")
ACTIONS = (
    *("full", "small", "full", "small", "accept", "restore", "age"),
    *("empty", "shrink", "grow", "rename", "drop", "start platform on nothing"),
)
HISTORIES = st.lists(st.tuples(st.booleans(), st.sampled_from(ACTIONS)), min_size=4, max_size=12)
Run = Callable[[Project, str, tuple[str, ...]], int]


@dataclass
class Checkout:
    """`highest`: table -> the most rows that a backup of it held since a loss was accepted; `last`:
    the rows at the newest backup. Both are told from what the history did, not from the
    manifests."""

    word: str
    project: Project
    highest: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def rows(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.project.database)) as connection:
            names = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table'"
                )
            }
            return {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("strategies", *NOTES)
                if table in names
            }

    def sql(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.project.database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def words(self) -> set[str]:
        """Whose rows the database holds."""
        with closing(sqlite3.connect(self.project.database)) as connection:
            return {
                name.split()[0] for (name,) in connection.execute("SELECT name FROM strategies")
            }


def make_checkout(folder: Path, word: str) -> Checkout:
    (folder / word).mkdir()
    project = Project(
        folder / word, settings=KEPT_AS_FEW_AS_MAY_BE | {"BACKUP_DIR": str(folder / "backups")}
    )
    make_platform_database(project.database, word=word, bars=10)
    checkout = Checkout(word, project)
    checkout.sql("CREATE TABLE lab_notes (id INTEGER PRIMARY KEY, note TEXT)")
    checkout.sql(*[f"INSERT INTO lab_notes (note) VALUES ('{word} {n}')" for n in range(25)])
    return checkout


def act(checkout: Checkout, action: str, run: Run) -> None:
    if action in {"full", "small", "accept"}:
        options = {"full": (), "small": ("--irreplaceable-only",), "accept": ("--accept-loss",)}[
            action
        ]
        assert run(checkout.project, "backup_database.py", options) in {0, 1}
        note_backup(checkout, accept=action == "accept")
    elif action == "restore":
        assert run(checkout.project, "restore_database.py", ("--from-backup", "--yes")) in {0, 1}
    elif action == "age":
        age_backups(backups_of(checkout), timedelta(days=3))
    else:
        have_an_accident(checkout, action)


def have_an_accident(checkout: Checkout, action: str) -> None:
    """What other programs do to a database."""
    tables = checkout.rows()
    notes = next((table for table in NOTES if table in tables), None)
    if action == "empty":
        checkout.sql("DELETE FROM strategies", *[f"DELETE FROM {notes}" for _ in [notes] if notes])
    elif action == "shrink":
        checkout.sql("DELETE FROM strategies WHERE id % 3")
    elif action == "grow":
        name = f"{checkout.word} {sum(tables.values())}"
        row = (
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            f"VALUES ('{name}', 'A', '1day', '')"
        )
        checkout.sql(*[row] * 7)
    elif action == "rename" and notes:
        other = NOTES[notes == NOTES[0]]
        # A full backup of before the rename with a newer small one on top brings both.
        if other in tables:
            return
        checkout.sql(f"ALTER TABLE {notes} RENAME TO {other}")
    elif action == "drop" and notes:
        checkout.sql(f"DROP TABLE {notes}")
    elif action == "start platform on nothing":
        checkout.project.database.unlink()
        checkout.sql(
            "CREATE TABLE strategies (id INTEGER PRIMARY KEY, name TEXT, ticker TEXT, "
            "timeframe TEXT, config TEXT)"
        )


def note_backup(checkout: Checkout, *, accept: bool) -> None:
    now = checkout.rows()
    if accept:
        checkout.highest = {}
    gone, new = set(checkout.last) - set(now), set(now) - set(checkout.last)
    if gone and new and checkout.last[min(gone)] == now[min(new)] > 0:
        checkout.highest.pop(min(gone), None)  # a rename is no loss
    for table, rows in now.items():
        checkout.highest[table] = max(checkout.highest.get(table, 0), rows)
    checkout.last = now


def backups_of(checkout: Checkout) -> list[Backup]:
    """By the path in the manifest: these databases have no id and never move."""
    catalogue = load_catalogue(Path(checkout.project.settings["BACKUP_DIR"]))
    return [
        b
        for b in catalogue
        if b.manifest and b.manifest.source_path == str(checkout.project.database)
    ]


def find_with_most(checkout: Checkout, table: str) -> tuple[int, Path | None]:
    held = [
        (backup.manifest.rows.get(table, 0), backup.path)
        for backup in backups_of(checkout)
        if backup.manifest and backup.is_verified
    ]
    return max(held, default=(0, None))


def live_through(history: list[tuple[bool, str]], run: Run) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        checkouts = (make_checkout(folder, "first"), make_checkout(folder, "second"))
        for is_second, action in history:
            checkout, other = checkouts[is_second], checkouts[not is_second]
            of_other = {backup.path: backup.path.read_bytes() for backup in backups_of(other)}
            content_of_other = other.project.database.read_bytes()

            act(checkout, action, run)

            assert {
                backup.path: backup.path.read_bytes() for backup in backups_of(other)
            } == of_other
            assert other.project.database.read_bytes() == content_of_other
            assert checkout.words() <= {checkout.word}
            for table, rows in checkout.highest.items():
                assert find_with_most(checkout, table)[0] >= rows, (checkout.word, table)
        for checkout in checkouts:
            bring_everything_back(checkout, run)


def bring_everything_back(checkout: Checkout, run: Run) -> None:
    """The highest counts are not only listed: they can be restored."""
    for table, rows in checkout.highest.items():
        _, path = find_with_most(checkout, table)
        if not rows:
            continue
        assert (
            run(checkout.project, "restore_database.py", ("--from-backup", str(path), "--yes")) == 0
        )
        assert checkout.rows()[table] >= rows
        assert checkout.words() <= {checkout.word}


def run_process(project: Project, script: str, arguments: tuple[str, ...]) -> int:
    done = project.run(script, *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def run_here(project: Project, script: str, arguments: tuple[str, ...]) -> int:
    """The same command without a process of its own: its main and its boundary, with its
    settings."""
    sys.path.insert(0, str(SCRIPTS))
    module, console = import_module(script.removesuffix(".py")), import_module("backtestdb.console")
    quiet = io.StringIO()
    with (
        mock.patch.dict(os.environ, project.environment(), clear=True),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        code: int = console.guard(module.main, list(arguments))
    return code


@given(HISTORIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_two_checkouts_in_one_folder_never_touch_each_other(
    history: list[tuple[bool, str]],
) -> None:
    live_through(history, run_here)


@pytest.mark.long
@pytest.mark.timeout(3600)
@given(HISTORIES)
@settings(max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_two_checkouts_over_200_histories_of_real_processes(
    history: list[tuple[bool, str]],
) -> None:
    live_through(history, run_process)


def test_seen_an_emptied_second_checkout_does_not_empty_the_first() -> None:
    """Seen: a small backup of the empty second checkout was restored over the first, and with
    MAX_BACKUPS=2 the only full backup of the first was pruned."""
    history = [(False, "full"), (True, "empty"), (True, "small"), (True, "full"), (True, "accept")]
    live_through(
        [*history, (False, "restore"), (True, "full"), (True, "full"), (False, "restore")],
        run_process,
    )
