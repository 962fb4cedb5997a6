"""A fault in any system call of a backup, a restore, a verification: no bad backup is listed, none
is lost, the database is the whole old or the whole new one, the exit code is true, and the same
command comes to the same end.

A seeded sample of all places runs with the other tests, a larger one with `make test-faults
COUNT=10000 SEED=1`.
"""

import functools
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from backtestdb.backups.identity import load_own_catalogue
from backtestdb.backups.verify import verify_all
from backtestdb.database import connect
from commands import SCRIPTS, Project
from contents import find_damage
from platform_database import make_used_database
from system_faults import Fault, choose_faults, record_places, run_with_fault

COUNT = int(os.environ.get("COUNT") or 200)
SEED = int(os.environ.get("SEED") or 1)

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (apt-get install strace)"
)


@dataclass(frozen=True)
class Scenario:
    """A command, the state that it finds, and the settings beside the project's."""

    name: str
    prepare: Callable[[Project], None]
    command: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()


def with_backups(project: Project) -> None:
    """A full and a small backup of an earlier state, and a database that has changed since."""
    make_used_database(project.database)
    project.check("backup_database.py")
    change(project.database)
    project.check("backup_database.py", "--irreplaceable-only")
    change(project.database)


def change(database: Path) -> None:
    with closing(connect(database)) as connection:
        connection.execute(
            "INSERT INTO strategies (name, ticker, timeframe, config) "
            "VALUES ('n', 'a', '1day', '{}')"
        )


def with_missing_database(project: Project) -> None:
    with_backups(project)
    project.database.unlink()


def with_damaged_database(project: Project) -> None:
    with_backups(project)
    project.database.write_bytes(b"\xff" * project.database.stat().st_size)


def with_two_full_backups(project: Project) -> None:
    with_backups(project)
    project.check("backup_database.py")
    change(project.database)


def with_foreign_backup(project: Project) -> None:
    with_backups(project)
    shutil.copy(project.database, project.folder / "backups" / "backtesting-2026-01-31-020000.db")


ADOPT = ("backup_database.py", "--adopt", "{folder}/backups/backtesting-2026-01-31-020000.db")
RESTORE = ("restore_database.py", "--from-backup", "--yes")
ONE_KEPT = (
    *(
        ("MAX_BACKUPS", "1"),
        ("KEEP_FULL_WEEKLY", "0"),
        ("KEEP_FULL_MONTHLY", "0"),
        ("MIN_BACKUPS", "1"),
    ),
)
SCENARIOS = [
    Scenario("backup", with_backups, ("backup_database.py",)),
    Scenario("small backup", with_backups, ("backup_database.py", "--irreplaceable-only")),
    Scenario("verify", with_backups, ("backup_database.py", "--verify")),
    Scenario("restore missing", with_missing_database, RESTORE),
    Scenario("restore damaged", with_damaged_database, RESTORE),
    Scenario("restore live", with_backups, RESTORE),
    Scenario("prune", with_two_full_backups, ("backup_database.py",), ONE_KEPT),
    Scenario("adopt", with_foreign_backup, ADOPT),
]


class Prepared:
    """A scenario's state, made once and laid anew for every fault; and all faults that its command
    can meet."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario, self.folder = scenario, folder
        self.template = folder.with_name(f"{folder.name}.template")
        folder.mkdir()
        scenario.prepare(self.project)
        shutil.copytree(folder, self.template)
        self.before = read_state(self.project)
        self.faults = choose_faults(record_places(self.command, self.environment, folder))
        self.after = read_state(self.project)

    @property
    def project(self) -> Project:
        return Project(self.folder, settings=dict(self.scenario.settings))

    @property
    def environment(self) -> dict[str, str]:
        return self.project.environment()

    @property
    def command(self) -> list[str]:
        script, *options = self.scenario.command
        return [
            sys.executable,
            str(SCRIPTS / script),
            *(text.format(folder=self.folder) for text in options),
        ]

    def lay_anew(self) -> Project:
        shutil.rmtree(self.folder)
        shutil.copytree(self.template, self.folder)
        return self.project


@dataclass(frozen=True)
class State:
    """`content`: rows of the live database, None where it cannot be read. `backups`: SHA-256 of the
    verified ones."""

    content: str | None
    backups: frozenset[str]


def read_state(project: Project) -> State:
    """Read here and not by a command, because there are thousands of places: a process takes 0.2
    s."""
    listed = load_own_catalogue(project.folder / "backups", project.database)
    hashes = frozenset(
        backup.manifest.sha256 for backup in listed if backup.is_verified and backup.manifest
    )
    return State(read_content(project.database), hashes)


def read_content(database: Path) -> str | None:
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(database)) as connection:
            return "\n".join(line for line in connection.iterdump() if "noted" not in line)
    except sqlite3.DatabaseError:
        return None


def check_fault(prepared: Prepared, fault: Fault) -> None:
    project = prepared.lay_anew()
    done = run_with_fault(prepared.command, prepared.environment, fault)
    said = (
        f"{prepared.scenario.name}, {fault}: exit code "
        f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    if "error while loading shared libraries" in done.stderr:
        return  # a later thread's call has the number of a call that loaded Python itself
    killed = done.returncode in {-9, 137}
    assert killed == (fault.what == "KILL") or done.returncode in {0, 1, 2, 3}, said
    assert "Traceback" not in done.stderr, said
    # A verification puts what it found into the table of its result.
    is_told = "error:" in done.stderr or "no: " in done.stdout or done.returncode == 3
    assert killed or done.returncode == 0 or is_told, said

    state = read_state(project)
    assert state.content in {prepared.before.content, prepared.after.content}, (
        f"neither old nor new: {said}"
    )
    kept = prepared.before.backups & prepared.after.backups
    assert kept <= state.backups, f"a backup is lost: {said}"
    assert state.backups, said
    listed = load_own_catalogue(project.folder / "backups", project.database)
    bad = verify_all(listed, full=False, say=lambda _: None)
    assert not bad, f"a bad backup is listed: {bad}: {said}"
    if done.returncode == 0:
        assert is_done(prepared, state), f"exit code 0 and not done: {said}"

    # Started again, without the fault, it comes to the end that it would have had.
    script, *options = prepared.scenario.command
    project.check(script, *(text.format(folder=project.folder) for text in options))
    assert is_done(prepared, read_state(project)), f"started again, not done: {said}"
    if project.database.is_file():
        assert find_damage(project.database) == "ok", said


def is_done(prepared: Prepared, state: State) -> bool:
    """Whether what the command is for is there: as many backups as without a fault, or one more of
    a run that was killed just before its end, and the content that it would have brought."""
    fewest = len(prepared.after.backups)
    return state.content == prepared.after.content and len(state.backups) >= fewest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scenario], Prepared]:
    folder = tmp_path_factory.mktemp("faults")

    @functools.cache
    def prepare(scenario: Scenario) -> Prepared:
        return Prepared(scenario, folder / scenario.name.replace(" ", "-"))

    return prepare


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fault_at_a_sampled_place_loses_nothing_and_is_told(
    scenario: Scenario, prepared: Callable[[Scenario], Prepared]
) -> None:
    for fault in random.Random(SEED).sample(prepared(scenario).faults, 1):
        check_fault(prepared(scenario), fault)


@pytest.mark.long
@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fault_at_any_place_loses_nothing_and_is_told(
    scenario: Scenario, prepared: Callable[[Scenario], Prepared]
) -> None:
    """All failures at once, because each run takes seconds and there are thousands of places."""
    faults = prepared(scenario).faults
    chosen = random.Random(SEED).sample(faults, min(len(faults), COUNT // len(SCENARIOS)))
    failures = []
    for fault in chosen:
        try:
            check_fault(prepared(scenario), fault)
        except AssertionError as error:
            failures.append(str(error)[:1500])
    print(f"{scenario.name}: {len(chosen)} of {len(faults)} faults")
    assert not failures, "\n---\n".join(failures)
