"""Which backup is meant by what stands after BACKUP=, and what is offered when none is."""

from pathlib import Path

import pytest

from backtestdb.backups.named import find_named, list_names
from backtestdb.errors import UsageError

OLD, FULL, *SMALL = NAMES = [
    "backtesting-2026-11-26-020000",
    "backtesting-2026-11-27-020000",
    "irreplaceable-2026-11-27-030000",
    "irreplaceable-2026-11-28-010000",
    "irreplaceable-2026-11-28-020000",
]
JANUARY = [f"backtesting-2026-01-{day}-020000" for day in ("10", "11", "12")]


def make_files(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.db").touch()
        (folder / f"{name}.json").touch()
    return folder


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return make_files(tmp_path / "backups", NAMES)


def offered(text: str, backup_dir: Path) -> list[str]:
    """The names that the error lists; the command that it prints takes the first of them."""
    with pytest.raises(UsageError) as caught:
        find_named(text, backup_dir)
    names = str(caught.value).partition("; the nearest are ")[2].split(", ")
    assert caught.value.next_step == f"make restore-from-backup BACKUP={names[0]}"
    assert find_named(names[0], backup_dir) == backup_dir / names[0]
    return [name.removesuffix(".db") for name in names]


# ── the one that is meant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("backtesting-2026-11-26-020000.db", OLD),
        ("backtesting-2026-11-26-020000", OLD),
        ("backtesting-2026-11-26-020000.json", OLD),
        ("2026-11-26", OLD),
        ("2026-11-27", FULL),
        ("2026-11-27 03:00", SMALL[0]),
        ("irreplaceable-2026-11-27", SMALL[0]),
        ("2026-11-28T01", SMALL[1]),
    ],
)
def test_backup_is_found_by_name_date_or_beginning(backups: Path, text: str, expected: str) -> None:
    assert find_named(text, backups) == backups / f"{expected}.db"


def test_path_is_taken_as_it_is_even_when_nothing_is_there(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_named("2026/11", backups) == tmp_path / "2026" / "11"
    assert find_named("~/kept.db", backups) == tmp_path / "home" / "kept.db"


def test_file_of_this_folder_wins_over_the_backup_of_that_name(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{FULL}.db"
    assert find_named(name, backups) == backups / name
    (tmp_path / name).touch()
    assert find_named(name, backups) == tmp_path / name


def test_date_with_two_full_backups_is_no_single_one(tmp_path: Path) -> None:
    day = ["backtesting-2026-11-27-020000", "backtesting-2026-11-27-080000", SMALL[0]]
    folder = make_files(tmp_path / "backups", day)
    assert offered("2026-11-27", folder) == [day[1], SMALL[0], day[0]]


# ── when none is


def test_text_that_fits_several_lists_three_the_newest_first(tmp_path: Path) -> None:
    hours = [f"irreplaceable-2026-11-27-0{hour}0000" for hour in range(5)]
    folder = make_files(tmp_path / "backups", [OLD, *hours])
    with pytest.raises(UsageError, match="5 backups begin with '2026-11-27'"):
        find_named("2026-11-27", folder)
    assert offered("2026-11-27", folder) == hours[:1:-1]


@pytest.mark.parametrize("text", [" ", ".db", "yesterday"])
def test_text_that_names_nothing_offers_the_newest_three(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert offered(text, backups) == [SMALL[2], SMALL[1], SMALL[0]]
    with pytest.raises(UsageError, match=f"there is no backup '{text}'"):
        find_named(text, backups)


@pytest.mark.parametrize(
    "text", ["20260110", "snapshot-20260110", "backtesting-2026-01-10-020001.db", "2026-01-1O"]
)
def test_date_that_is_mistyped_offers_the_backups_around_it(tmp_path: Path, text: str) -> None:
    folder = make_files(tmp_path / "backups", [*JANUARY, *NAMES])
    assert sorted(offered(text, folder)) == JANUARY


def test_kind_that_is_mistyped_offers_backups_of_that_kind(tmp_path: Path) -> None:
    later = [f"backtesting-2026-12-0{day}-020000" for day in (1, 2, 3)]
    folder = make_files(tmp_path / "backups", [*SMALL, *later])
    assert sorted(offered("irreplacable", folder)) == SMALL


def test_folder_without_a_backup_or_that_is_missing_asks_for_the_whole_path(
    tmp_path: Path,
) -> None:
    for folder in (make_files(tmp_path / "backups", ["notes"]), tmp_path / "missing"):
        assert list_names(folder) == []
        with pytest.raises(UsageError, match=r"there is no backup in .*, nor a file /") as caught:
            find_named(OLD, folder)
        assert str(folder) in str(caught.value)
        assert caught.value.next_step == "write the file's whole path after BACKUP="


def test_listed_names_are_those_of_databases_the_newest_first(backups: Path) -> None:
    (backups / "notes.db").touch()
    (backups / "backtesting-2026-11-29-020000.json").touch()
    names = [SMALL[2], SMALL[1], SMALL[0], FULL, OLD]
    assert list_names(backups) == [f"{name}.db" for name in names]
