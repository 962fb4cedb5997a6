"""Which backup a restore takes, and what it says about those that it passes over."""

import json
import shlex
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups.restore_choice import (
    NoBackupError,
    RestoreChoice,
    choose_backup,
    describe_others,
    holds_rows,
    is_unrelated,
    load_backups_to_restore,
    rows_after,
)
from backtestdb.config import Settings
from backtestdb.database import connect
from backtestdb.errors import DatabaseFileError, ProjectError, UsageError, VerificationError
from backtestdb.schema import ensure_schema
from backup_tools import (
    back_up,
    change,
    copy_with_backups,
    flip_bit,
    make_platform_database,
    make_settings,
)
from manifests import make_backups, write_backup_file


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, and its backups: full, small, full, small, each with a strategy more."""
    folder = tmp_path_factory.mktemp("original")
    settings = make_settings(folder)
    make_platform_database(settings.database_path, bars=10)
    for minutes, kind in enumerate(["full", "irreplaceable", "full", "irreplaceable"]):
        back_up(settings, kind, minutes=minutes)
        change(settings.database_path, f"after {minutes}")
    return folder


@pytest.fixture
def settings(original: Path, tmp_path: Path) -> Settings:
    """A copy of all that, which says of itself that it is the first."""
    return copy_with_backups(original, tmp_path / "copy")


def tell(manifest_path: Path, **values: object) -> None:
    told = json.loads(manifest_path.read_text()) | values
    manifest_path.write_text(json.dumps(told))


def names(settings: Settings, kind: str) -> list[Path]:
    """Backups of one kind, the newest first."""
    return sorted(settings.backup_dir.glob(f"{kind}-*.db"), reverse=True)


def damage(path: Path) -> None:
    flip_bit(path, path.stat().st_size - 9, 0)


def choose(
    settings: Settings, path: Path | None = None, *, all_are_meant: bool = False
) -> tuple[RestoreChoice, str]:
    said: list[str] = []
    choice = choose_backup(
        settings.backup_dir, settings.database_path, path, said.append, all_are_meant=all_are_meant
    )
    return choice, "\n".join(said)


def paths(choice: RestoreChoice) -> tuple[Path | None, Path | None]:
    return tuple(one.path if one else None for one in (choice.full, choice.irreplaceable))  # type: ignore[return-value]


def test_choice_is_the_newest_of_each_kind(settings: Settings) -> None:
    full, small = names(settings, "backtesting"), names(settings, "irreplaceable")
    choice, said = choose(settings)
    assert (paths(choice), choice.left_out, said) == ((full[0], small[0]), (), "")
    small[0].unlink()  # the other small one is older than the full one
    assert paths(choose(settings)[0]) == (full[0], None)


def test_choice_without_a_full_backup_is_the_newest_small_one(settings: Settings) -> None:
    for path in names(settings, "backtesting"):
        path.unlink()
    assert paths(choose(settings)[0]) == (None, names(settings, "irreplaceable")[0])


def test_what_does_not_verify_is_passed_over_and_noted_with_its_reason(settings: Settings) -> None:
    full, small = names(settings, "backtesting"), names(settings, "irreplaceable")
    damage(full[0])
    damage(small[0])
    foreign = settings.backup_dir / "backtesting-2027-01-01-000000.db"
    shutil.copy(full[1], foreign)
    choice, said = choose(settings)
    assert paths(choice) == (full[1], small[1])
    assert [left.backup.path for left in choice.left_out] == [full[0], small[0]]
    for left in choice.left_out:
        assert f"passed over {left.backup.path.name}: {left.reason}" in said
    assert f"passed over {foreign.name}: " in said


def test_suspicious_backups_are_passed_over_unless_all_are_meant(settings: Settings) -> None:
    full, small = names(settings, "backtesting"), names(settings, "irreplaceable")
    lost = {"before": 40, "before_at_utc": "2026-11-23T02:00:00Z", "now": 0}
    for path in (full[0], small[0]):
        tell(path.with_suffix(".json"), losses={"agents": lost})
    choice, said = choose(settings)
    assert (paths(choice), choice.left_out) == ((full[1], small[1]), ())
    assert f"passed over, suspicious: {full[0].name}: agents: 40 on " in said
    plain = choose_backup(settings.backup_dir, settings.database_path, None, say_nothing)
    assert paths(plain) == paths(choice)
    choice, said = choose(settings, all_are_meant=True)
    assert paths(choice) == (full[0], small[0])
    assert f"note: suspicious: {small[0].name}: agents: 40 on " in said


def test_none_that_verifies_is_told_from_none_at_all(settings: Settings) -> None:
    for path in settings.backup_dir.glob("*.db"):
        damage(path)
    with pytest.raises(VerificationError, match="verifies") as caught:
        choose(settings)
    assert not isinstance(caught.value, NoBackupError)
    assert caught.value.next_step
    for path in settings.backup_dir.glob("*.json"):
        path.unlink()
    with pytest.raises(NoBackupError, match=r"verifies that was made of .*backtesting\.db$"):
        choose(settings)


def test_backups_of_another_database_are_named_and_not_taken(
    settings: Settings, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    other.write_text("")
    for path in settings.backup_dir.glob("*.json"):
        tell(path, source_path=str(other))
    newest = names(settings, "irreplaceable")[0]
    with pytest.raises(NoBackupError, match=rf"of another database, {other}: {newest}"):
        choose(settings)
    assert paths(choose(settings, all_are_meant=True)[0])[1] == newest


def test_several_small_backups_tell_the_rows_of_what_is_put_on_top_last(tmp_path: Path) -> None:
    small, full = make_backups(
        tmp_path, ("full", {"a": 5, "b": 1}, {}), ("irreplaceable", {"a": 7}, {})
    )
    assert rows_after(RestoreChoice(full, small)) == {"a": 7, "b": 1}
    assert rows_after(RestoreChoice(None, small)) == {"a": 7}
    assert rows_after(RestoreChoice(replace(full, manifest=None), None)) == {}


# ── a new machine


def say_nothing(_text: str) -> None:
    """What is said is not looked at."""


FIRST, SECOND = "backtesting-2026-11-20-020000", "backtesting-2026-11-20-030000"


def test_new_machine_takes_the_only_database_and_says_so(tmp_path: Path) -> None:
    write_backup_file(tmp_path, FIRST, tmp_path / "gone.db")
    said: list[str] = []
    (backup,) = load_backups_to_restore(tmp_path, tmp_path / "new.db", said.append)
    assert backup.counts
    assert str(tmp_path / "gone.db") in said[0]


def test_new_machine_with_two_databases_has_to_choose(tmp_path: Path) -> None:
    write_backup_file(tmp_path, FIRST, tmp_path / "gone.db")
    newest = write_backup_file(tmp_path, SECOND, tmp_path / "also gone.db")
    with pytest.raises(UsageError, match="of 2 databases") as caught:
        load_backups_to_restore(tmp_path, tmp_path / "new.db", say_nothing)
    assert str(tmp_path / "gone.db") in str(caught.value)
    named = shlex.quote(str(newest.path))
    assert caught.value.next_step == f"choose one: make restore-from-backup BACKUP={named}"


@pytest.mark.parametrize("reason", ["in use", "own", "rows"])
def test_database_that_is_no_new_machine_takes_only_its_own(tmp_path: Path, reason: str) -> None:
    gone, new = tmp_path / "gone.db", tmp_path / "new.db"
    write_backup_file(tmp_path, FIRST, gone)
    if reason == "in use":
        gone.write_text("")
    elif reason == "own":
        write_backup_file(tmp_path, SECOND, new)
    else:
        make_platform_database(new, bars=1)
    backups = load_backups_to_restore(tmp_path, new, say_nothing)
    assert {backup.path.stem for backup in backups if backup.counts} == (
        {SECOND} if reason == "own" else set()
    )


def test_database_without_a_row_of_the_user_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    assert not holds_rows(path)
    path.write_text("")
    assert not holds_rows(path)
    with closing(connect(path)) as connection:
        ensure_schema(connection)
    assert not holds_rows(path)
    change(path, "a strategy")
    assert holds_rows(path)
    path.write_bytes(b"no database")
    assert holds_rows(path)


# ── a file that the user named


def test_named_backup_is_taken_as_its_kind(settings: Settings) -> None:
    full, small = names(settings, "backtesting")[1], names(settings, "irreplaceable")[1]
    assert paths(choose(settings, full)[0]) == (full, None)
    assert paths(choose(settings, small)[0]) == (None, small)
    link = settings.backup_dir.parent / "link.db"
    link.symlink_to(full)
    assert paths(choose(settings, link)[0]) == (full, None)
    damage(full)
    with pytest.raises(VerificationError):
        choose(settings, full)


def test_named_backup_of_another_database_is_taken_with_a_note(settings: Settings) -> None:
    full = names(settings, "backtesting")[0]
    tell(full.with_suffix(".json"), source_path="/elsewhere.db")
    choice, said = choose(settings, full)
    assert paths(choice) == (full, None)
    assert said == f"note: {full.name} is of another database: /elsewhere.db"


def test_named_file_without_a_manifest_is_checked_in_full(
    settings: Settings, tmp_path: Path
) -> None:
    full, small = tmp_path / "full.db", tmp_path / "small.db"
    shutil.copy(names(settings, "backtesting")[0], full)
    shutil.copy(names(settings, "irreplaceable")[0], small)
    with closing(connect(small)) as connection:
        connection.execute("DROP TABLE IF EXISTS ohlcv_data")
    choice, said = choose(settings, full)
    assert (paths(choice), said) == ((full, None), "full.db has no manifest: checking it in full")
    assert paths(choose(settings, small)[0]) == (None, small)

    # An index that lacks a row: quick_check does not look.
    with closing(connect(full)) as connection:
        connection.execute("CREATE TABLE notes (word); ")
        connection.execute("CREATE INDEX by_word ON notes (word)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'by_word'")
        row = connection.execute("SELECT max(rootpage) + 1 FROM sqlite_schema").fetchone()
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("INSERT INTO notes VALUES ('a')")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "INSERT INTO sqlite_schema "
            "VALUES ('index', 'by_word', 'notes', ?, 'CREATE INDEX by_word ON notes (word)')",
            row,
        )
    with pytest.raises(VerificationError, match="by_word"):
        choose(settings, full)


def test_named_file_that_is_missing_or_the_database_itself_is_refused(settings: Settings) -> None:
    with pytest.raises(DatabaseFileError, match="there is no file"):
        choose(settings, settings.backup_dir / "none.db")
    with pytest.raises(ProjectError, match="is the database itself"):
        choose(settings, settings.database_path)


@pytest.mark.parametrize(
    ("text", "is_other"),
    [
        ("[]", True),
        ('{"name": "package"}', True),
        ('{"format": 1}', False),
        ('{"kind": "full", "name": ""}', False),
        ("{", False),
        ("", False),
    ],
)
def test_json_beside_a_file_is_unrelated_when_it_says_so(
    settings: Settings, tmp_path: Path, text: str, is_other: bool
) -> None:
    path = tmp_path / "named.db"
    shutil.copy(names(settings, "backtesting")[0], path)
    path.with_suffix(".json").write_text(text)
    assert is_unrelated(path.with_suffix(".json")) == is_other
    if is_other:
        assert paths(choose(settings, path)[0]) == (path, None)
    else:
        with pytest.raises(VerificationError):
            choose(settings, path)


def test_no_others_are_described_by_nothing() -> None:
    assert describe_others([]) == ""
