"""What is said of backups and restores: the words that a person acts on, and what programs read."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.backup import Outcome
from backtestdb.backups.catalogue import Backup
from backtestdb.backups.generated_scripts import RestoredPart
from backtestdb.backups.manifest import GeneratedScripts, Loss
from backtestdb.backups.report import (
    describe,
    describe_choice,
    describe_state,
    print_changed_rows,
    print_faults,
    print_left_out,
    show,
    show_outcome,
    show_restored,
)
from backtestdb.backups.restore import RestoreResult
from backtestdb.backups.restore_choice import LeftOut, RestoreChoice
from backtestdb.replace import Replacement
from manifests import FIRST_TAKEN_AT_UTC, make_backups
from small_database import make_small_database

LOST = {"agents": Loss(before=40, before_at_utc=FIRST_TAKEN_AT_UTC, now=1)}
LOST_IN_WORDS = "agents: 40 on Sunday 2026-11-22 21:00, 1 now"
FOLDER = Path("/backups")
UNIVERSES = (
    "CREATE TABLE universe (id INTEGER PRIMARY KEY, name TEXT);"
    "CREATE TABLE universe_stocks (id INTEGER PRIMARY KEY, universe_id INT, is_active INT);"
    "INSERT INTO universe VALUES (1, 'tech_sector'), (2, 'empty_one');"
    "INSERT INTO universe_stocks VALUES (1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 0);"
)
BARS = (
    "CREATE TABLE ohlcv_data (timeframe TEXT);"
    "INSERT INTO ohlcv_data VALUES ('five-minute-bars'), ('five-minute-bars');"
)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user in New York whose terminal is so narrow that each row of a table is a block."""
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", "20")
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def make_scripts(**not_copied: str) -> GeneratedScripts:
    return GeneratedScripts(
        folder="s", count=3, files={}, links={}, parts={}, not_copied=not_copied
    )


def full(**values: object) -> Backup:
    (backup,) = make_backups(FOLDER, ("full", {"agents": 40, "bars": 1200}, values))
    return backup


FULL = full()
FOREIGN = replace(FULL, path=FOLDER / "x.db", manifest=None, problem="no manifest")
SMALL = replace(
    make_backups(FOLDER, ("full", {}, {}), ("irreplaceable", {"agents": 7}, {}))[0],
    path=FOLDER / "small.db",
)


# ── lists


def test_list_shows_each_backup_with_local_time_size_state_and_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    suspicious = replace(full(losses=LOST), path=FOLDER / "1.db", bytes=2500)
    others = replace(FULL, path=FOLDER / "2.db", other_database="/b.db")
    show("all", [FULL, FOREIGN, suspicious, others, others], {FULL.path: "torn"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "all",
        *("  2026-11-22 21:00:00", "    backup    0.db", "    size      1 B"),
        *("    verified  no: torn", "    rows      1,240"),
        *("  2026-11-22 21:00:00", "    backup    x.db", "    size      1 B"),
        "    verified  no: no manifest",
        *("  2026-11-22 21:00:00", "    backup    1.db", "    size      2.5 kB"),
        *("    verified  suspicious", "    rows      1,240"),
        *("  2026-11-22 21:00:00", "    backup    2.db", "    size      1 B"),
        *("    verified  yes; of another database", "    rows      1,240"),
        *("  2026-11-22 21:00:00", "    backup    2.db", "    size      1 B"),
        *("    verified  yes; of another database", "    rows      1,240"),
        f"suspicious: 1.db: {LOST_IN_WORDS}",
        "of another database: /b.db",
    ]


def test_list_without_a_backup_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    show("backups in /backups", [], {}, as_json=False)
    assert capsys.readouterr().out == "backups in /backups: none yet (make backup)\n"
    show("backups in /backups", [], {}, as_json=True)
    assert capsys.readouterr().out == "[]\n"


def test_state_names_what_is_wrong_before_what_is_odd() -> None:
    assert describe_state(FULL, {}) == "yes"
    assert describe_state(full(losses=LOST), {}) == "suspicious"
    assert describe_state(full(losses=LOST), {FULL.path: "torn"}) == "no: torn"
    broken = full(broken_rules=("NULL value in a.b", "another"))
    assert describe_state(broken, {}) == "yes, with rows that break a rule: NULL value in a.b"
    assert describe_state(FOREIGN, {}) == "no: no manifest"


def test_programs_read_all_that_a_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "losses": LOST,
        "accepts_loss": True,
        "generated_scripts": make_scripts(),
        "broken_rules": ("a NULL",),
    }
    backup = full(**values)
    expected = {
        "path": "/backups/0.db",
        "kind": "full",
        "taken_at_utc": "2026-11-23T02:00:00.000000Z",
        "bytes": 1,
        "verified": True,
        "problem": "",
        "other_database": "",
        "losses": {
            "agents": {"before": 40, "before_at_utc": "2026-11-23T02:00:00.000000Z", "now": 1}
        },
        "loss_accepted": True,
        "rows": {"agents": 40, "bars": 1200},
        "generated_scripts": 3,
        "broken_rules": ["a NULL"],
    }
    torn = replace(FULL, path=FOLDER / "torn.db")
    show("not printed", [backup, torn], {torn.path: "it is torn"}, as_json=True)
    read = json.loads(capsys.readouterr().out)
    assert read[0] == expected
    nothing = {"losses": {}, "loss_accepted": False, "generated_scripts": 0, "broken_rules": []}
    assert read[1] == expected | nothing | {
        "path": "/backups/torn.db",
        "verified": False,
        "problem": "it is torn",
    }
    # Without a manifest nothing is known of the rows, which is not the same as none.
    assert describe(FOREIGN, "no manifest") == expected | nothing | {
        "path": "/backups/x.db",
        "verified": False,
        "problem": "no manifest",
        "rows": None,
    }


# ── a backup


def test_backup_that_was_made_is_told_with_its_rows_and_the_newest_five(
    capsys: pytest.CaptureFixture[str],
) -> None:
    catalogue = [replace(FULL, path=FOLDER / f"{number}.db") for number in range(7)]
    show_outcome(Outcome(FULL, is_new=True, removed=[FOREIGN, SMALL]), catalogue)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "backup made and verified: /backups/0.db",
        "1 B, 1,240 rows, 2 older backups removed",
        "the newest of 7",
    ]
    shown = [line.split()[-1] for line in lines if line.startswith("    backup ")]
    assert shown == [f"{number}.db" for number in range(5)]
    show_outcome(Outcome(FOREIGN, is_new=True, removed=[]), [])
    assert "1 B, 0 rows, 0 older backups removed" in capsys.readouterr().out


def test_backup_that_was_not_needed_names_the_one_that_still_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_outcome(Outcome(SMALL, is_new=False, removed=[]), [SMALL])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "nothing changed since small.db: it still holds everything irreplaceable",
        "the newest of 1",
    ]


@pytest.mark.parametrize("backup", [FULL, FOREIGN, full(losses=LOST, accepts_loss=True)])
def test_backup_without_a_fault_ends_with_0_and_says_nothing(
    backup: Backup, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_faults(Outcome(backup, is_new=True, removed=[])) == 0
    assert capsys.readouterr().err == ""


def test_backup_that_lost_rows_ends_with_1_and_says_which(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome(full(losses=LOST), is_new=True, removed=[], missing_folders=(Path("/s"),))
    assert print_faults(outcome) == 1
    assert capsys.readouterr().err == (
        f"error: the backup was kept, and is suspicious: rows were lost: {LOST_IN_WORDS}\n"
        "       next: make restore-from-backup brings them back; make backup ARGS=--accept-loss "
        "when it was meant\n"
    )


def test_backup_without_its_scripts_ends_with_2_and_names_their_folders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    backup = full(generated_scripts=make_scripts(one="no"))
    gone = (Path("/s"), Path("/t"))
    assert print_faults(Outcome(backup, is_new=True, removed=[], missing_folders=gone)) == 2
    assert capsys.readouterr().err == (
        "error: the database was backed up without its scripts: GENERATED_SCRIPTS_DIR /s, /t is "
        "not there\n       next: change GENERATED_SCRIPTS_DIR in .env\n"
    )


@pytest.mark.parametrize(
    ("names", "more"), [(["a"], ""), (["a", "b"], " and 1 more"), (["a", "b", "c"], " and 2 more")]
)
def test_backup_without_some_scripts_ends_with_3_and_names_the_first(
    capsys: pytest.CaptureFixture[str], names: list[str], more: str
) -> None:
    backup = full(generated_scripts=make_scripts(**dict.fromkeys(names, "is locked")))
    assert print_faults(Outcome(backup, is_new=True, removed=[])) == 3
    assert capsys.readouterr().err == (
        "error: the database was backed up; of the generated scripts a could not be copied"
        f"{more}: is locked\n       next: look at what is named above, then make backup\n"
    )


# ── a restore


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (RestoreChoice(FULL, None), "restoring /backups/0.db of 2026-11-22 21:00:00"),
        (
            RestoreChoice(FULL, SMALL),
            "restoring /backups/0.db of 2026-11-22 21:00:00, with the irreplaceable tables of "
            "/backups/small.db of 2026-11-22 22:00:00",
        ),
        (
            RestoreChoice(None, SMALL),
            "restoring the irreplaceable tables of /backups/small.db of 2026-11-22 22:00:00",
        ),
    ],
)
def test_what_a_restore_takes_is_told_with_its_time(choice: RestoreChoice, said: str) -> None:
    assert describe_choice(choice) == said


def test_rows_that_a_restore_takes_away_or_brings_back_are_shown_before_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {"agents": 40, "same": 5, "only_now": 3, "empty_now": 0, "one_now": 1}
    after = {"agents": 7, "same": 5, "only_then": 9, "empty_then": 0, "one_then": 1}
    print_changed_rows(before, after)
    assert capsys.readouterr().out.splitlines() == [
        "rows that no download brings back",
        *("  agents", "    now       40", "    restored  7"),
        *("  one_now", "    now       1"),
        *("  one_then", "    restored  1"),
        *("  only_now", "    now       3"),
        *("  only_then", "    restored  9"),
        "3 of 8 such tables keep their number of rows",
    ]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"a": 1}, {"a": 1}, "1 of 1 such tables keep their number of rows\n"),
        ({}, {"a": 1}, ""),
        ({"a": 1}, {}, ""),
    ],
)
def test_rows_are_compared_only_where_both_sides_are_known(
    capsys: pytest.CaptureFixture[str], before: dict[str, int], after: dict[str, int], said: str
) -> None:
    print_changed_rows(before, after)
    assert capsys.readouterr().out == said


def test_backups_that_were_passed_over_are_named_and_end_with_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    choice = RestoreChoice(FULL, None, left_out=(LeftOut(SMALL, "the disk could not be read"),))
    assert print_left_out(choice) == 3
    assert capsys.readouterr().err == (
        "error: left out: small.db of 2026-11-22 22:00:00: the disk could not be read\n"
        "       next: make verify-backups; when it can be read again, the same command once more\n"
    )
    assert print_left_out(RestoreChoice(FULL, None)) == 0
    assert capsys.readouterr().err == ""


def show_restored_of(database: Path, replacement: Replacement, *scripts: RestoredPart) -> None:
    show_restored(RestoreResult(RestoreChoice(FULL, None), replacement, list(scripts)), database)


def test_restored_database_is_told_with_what_is_kept_and_the_way_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = make_small_database(tmp_path / "live.db", "CREATE TABLE agents (id);")
    kept, moved = Path("/live.db.backup-1"), Path("/live.db.damaged-1")
    parts = [RestoredPart(Path("/s"), Path("/s.backup-1")), RestoredPart(Path("/t"), None)]
    show_restored_of(database, Replacement(kept, True, moved), *parts)
    assert capsys.readouterr().out.splitlines() == [
        f"restored {database}: /backups/0.db of 2026-11-22 21:00:00",
        "the generated scripts that stood there are in /s.backup-1",
        "what stood there is kept as /live.db.backup-1",
        "what stood there is kept as /live.db.damaged-1",
        "undo with: make restore-from-backup BACKUP=/live.db.backup-1",
    ]


@pytest.mark.parametrize("replacement", [(None, False), (Path("/kept.db"), False), (None, True)])
def test_restore_offers_no_way_back_to_what_is_not_there_or_not_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], replacement: tuple[Path | None, bool]
) -> None:
    database = make_small_database(tmp_path / "live.db", "CREATE TABLE agents (id);")
    show_restored_of(database, Replacement(*replacement, None))
    assert "undo" not in capsys.readouterr().out


@pytest.mark.parametrize("has_bars", [False, True])
@pytest.mark.parametrize("has_universes", [False, True])
def test_restored_market_data_is_counted_as_far_as_its_tables_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_universes: bool, has_bars: bool
) -> None:
    sql = f"CREATE TABLE agents (id); {UNIVERSES * has_universes} {BARS * has_bars}"
    show_restored_of(make_small_database(tmp_path / "a.db", sql), Replacement(None, False, None))
    universes = ["universes", "  empty_one", "    tickers   0", "  tech_sector", "    tickers   3"]
    bars = ["bars", "  five-minute-bars", "    bars       2"]
    expected = universes * has_universes + bars * has_bars
    assert capsys.readouterr().out.splitlines()[1:] == expected


def test_universes_alone_are_counted_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = make_small_database(tmp_path / "a.db", UNIVERSES)
    show_restored_of(database, Replacement(None, False, None))
    assert "universes" in capsys.readouterr().out.splitlines()


def test_database_that_cannot_be_listed_is_restored_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = make_small_database(tmp_path / "a.db", "CREATE TABLE ohlcv_data (other);")
    show_restored_of(database, Replacement(Path("/kept.db"), True, None))
    said = capsys.readouterr()
    assert "note: what the database holds now could not be listed: no such column" in said.err
    assert said.out.splitlines()[-1] == "undo with: make restore-from-backup BACKUP=/kept.db"
