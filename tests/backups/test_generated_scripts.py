"""The folder of generated scripts goes and comes back as it was."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.backups.generated_scripts import (
    copy_scripts,
    holds_exactly,
    restore_scripts,
    verify_scripts,
)
from backtestdb.database import connect
from backtestdb.errors import VerificationError
from backtestdb.files import remove_tree
from backup_tools import make_platform_database
from commands import Project

ODD_NAMES = (
    "plain.py",
    "with space & 'quote'.py",
    "ünïcode-漢字.py",
    ".hidden",
    "-dash",
    "new\nline.py",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "generated"
    (folder / "sub" / "empty").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        path = folder / "sub" / name
        path.write_text(f"# {name}")
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    Path(os.fsdecode(os.fsencode(folder) + b"/latin-\xe9.py")).write_text("# not UTF-8")
    (tmp_path / "secret").write_text("outside")
    (folder / "link-out").symlink_to("../secret")
    (folder / "link-in").symlink_to("sub/plain.py")
    (folder / "link-nowhere").symlink_to("/no/such/file")
    (folder / "link-to-folder").symlink_to("sub")
    os.mkfifo(folder / "pipe")
    os.utime(folder / "sub", ns=(10**18, 10**18))
    return folder


def test_copied_folder_keeps_names_times_and_links(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    scripts = copy_scripts([folder], copy, "copy", limit_bytes=10**9)
    assert scripts
    assert scripts.count == len(ODD_NAMES) + 1 + 4
    assert dict(scripts.links)["link-out"] == "../secret"
    assert not (copy / "pipe").exists()
    assert (copy / "sub" / "empty").is_dir()
    for name in (*(f"sub/{name}" for name in ODD_NAMES), "sub"):
        assert (copy / name).stat().st_mtime_ns == (folder / name).stat().st_mtime_ns
    assert "outside" not in {
        path.read_text() for path in copy.rglob("*") if path.is_file() and not path.is_symlink()
    }
    verify_scripts(copy, scripts)


def test_restored_folder_is_the_one_that_was_copied(folder: Path, tmp_path: Path) -> None:
    scripts = copy_scripts([folder], tmp_path / "copy", "copy", limit_bytes=10**9)
    assert scripts
    target, kept = tmp_path / "target", tmp_path / "kept"
    assert not restore_scripts(tmp_path / "copy", scripts, target, kept)
    assert holds_exactly(target, tmp_path / "copy", scripts)
    (target / "sub" / "plain.py").write_text("changed")
    assert restore_scripts(tmp_path / "copy", scripts, target, kept)
    assert (kept / "sub" / "plain.py").read_text() == "changed"
    assert holds_exactly(target, tmp_path / "copy", scripts)


def test_script_that_has_grown_huge_since_is_kept_without_being_read(
    folder: Path, tmp_path: Path
) -> None:
    """Seen: a sparse file of 200 GB was hashed for 15 minutes before the restore went on."""
    scripts = copy_scripts([folder], tmp_path / "copy", "copy", limit_bytes=10**9)
    assert scripts
    with (folder / "sub" / "plain.py").open("r+b") as file:
        file.truncate(200_000_000_000)
    assert restore_scripts(tmp_path / "copy", scripts, folder, tmp_path / "kept")
    assert (tmp_path / "kept" / "sub" / "plain.py").stat().st_size == 200_000_000_000
    assert holds_exactly(folder, tmp_path / "copy", scripts)


@pytest.mark.parametrize("change", ["bit", "missing", "link", "folder"])
def test_changed_copy_is_not_verified(folder: Path, tmp_path: Path, change: str) -> None:
    copy = tmp_path / "copy"
    scripts = copy_scripts([folder], copy, "copy", limit_bytes=10**9)
    assert scripts
    if change == "bit":
        (copy / "sub" / "plain.py").write_text("# plaim.py")
    elif change == "missing":
        (copy / "sub" / "plain.py").unlink()
    elif change == "link":
        (copy / "link-in").unlink()
        (copy / "link-in").symlink_to("sub/.hidden")
    else:
        remove_tree(copy)
    with pytest.raises(VerificationError):
        verify_scripts(copy, scripts)


def test_folder_that_is_missing_gives_no_copy(tmp_path: Path) -> None:
    assert copy_scripts([], tmp_path / "copy", "copy", limit_bytes=10**9) is None
    assert not (tmp_path / "copy").exists()


@pytest.fixture
def backup(tmp_path: Path) -> Project:
    """A project with a database and two scripts."""
    project = Project(tmp_path)
    make_platform_database(project.database, bars=10)
    scripts = tmp_path / "claude-generated-scripts"
    scripts.mkdir()
    for name in ("one.py", "two.py"):
        (scripts / name).write_text(f"print({name!r})\n")
    return project


def scripts_in_newest(project: Project) -> dict[str, object]:
    manifest = next((project.folder / "backups").glob("backtesting-*.json"))
    scripts: dict[str, object] = json.loads(manifest.read_text())["generated_scripts"]
    return scripts


def test_huge_script_is_left_out_and_named_and_the_database_is_backed_up(backup: Project) -> None:
    """A sparse file of 200 GB once cost every night's backup."""
    with (backup.folder / "claude-generated-scripts" / "huge.py").open("wb") as file:
        file.truncate(200_000_000_000)
    said = backup.check("backup_database.py", expect=3, GENERATED_SCRIPTS_MAX_MB="5")
    assert "huge.py" in said
    scripts = scripts_in_newest(backup)
    assert set(scripts["files"]) == {"one.py", "two.py"}  # type: ignore[call-overload]
    assert "GENERATED_SCRIPTS_MAX_MB" in scripts["not_copied"]["huge.py"]  # type: ignore[index]
    backup.check("backup_database.py", "--verify")
    backup.check("restore_database.py", "--from-backup", "--yes")


def test_folders_without_end_are_cut_off_and_named(backup: Project) -> None:
    folder = backup.folder / "claude-generated-scripts"
    for _ in range(200):
        folder /= "d"
        folder.mkdir()
    backup.check("backup_database.py", expect=3)
    assert len(scripts_in_newest(backup)["not_copied"]) == 1  # type: ignore[arg-type]
    backup.check("backup_database.py", "--verify")


def test_script_that_cannot_be_read_or_named_does_not_cost_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of single files, as other users' files and exFAT give them; the file that vanished is
    none."""

    def copyfile(source: Path, target: Path) -> None:
        if source.name == "plain.py":
            raise PermissionError(13, "Permission denied")
        if source.name == ".hidden":
            source.unlink()
            raise FileNotFoundError(2, "No such file or directory")
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr("shutil.copyfile", copyfile)
    scripts = copy_scripts([folder], tmp_path / "copy", "copy", limit_bytes=10**9)
    assert scripts
    assert dict(scripts.not_copied) == {"sub/plain.py": "Permission denied"}
    verify_scripts(tmp_path / "copy", scripts)


def test_names_that_differ_only_in_case_are_noticed_where_the_disk_ignores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "Pattern.py").write_text("one")
    (folder / "pattern.py").write_text("two")
    exists = Path.exists
    monkeypatch.setattr(
        Path,
        "exists",
        lambda path: exists(path) or (path.parent.name == "copy" and path.name == "pattern.py"),
    )
    scripts = copy_scripts([folder], tmp_path / "copy", "copy", limit_bytes=10**9)
    assert scripts
    assert "differs from Pattern.py only in case" in scripts.not_copied["pattern.py"]


def test_folder_that_was_named_and_is_missing_is_exit_code_2_and_the_database_is_backed_up(
    backup: Project, tmp_path: Path
) -> None:
    said = backup.check(
        "backup_database.py", expect=2, GENERATED_SCRIPTS_DIR=str(tmp_path / "gone")
    )
    assert str(tmp_path / "gone") in said
    assert list((tmp_path / "backups").glob("backtesting-*.json"))
    doctor = backup.run(
        "check_environment.py", "--json", GENERATED_SCRIPTS_DIR=str(tmp_path / "gone")
    )
    assert {"scripts"} == {
        f["name"] for f in json.loads(doctor.stdout) if "GENERATED_SCRIPTS_DIR" in f["what"]
    }


def test_default_folder_that_is_missing_is_one_line_and_a_note(backup: Project) -> None:
    remove_tree(backup.folder / "claude-generated-scripts")
    said = backup.check("backup_database.py")
    assert said.count("there is no folder") == 1
    findings = json.loads(backup.run("check_environment.py", "--json").stdout)
    assert [f["level"] for f in findings if f["name"] == "scripts"] == ["note"]


def test_several_folders_come_back_each_to_its_own_place(backup: Project, tmp_path: Path) -> None:
    second = tmp_path / "backend" / "success"
    second.mkdir(parents=True)
    (second / "one.py").write_text("another")
    first = tmp_path / "claude-generated-scripts"
    both = f"{first}:{second}"
    backup.check("backup_database.py", GENERATED_SCRIPTS_DIR=both)
    backup.check("backup_database.py", "--verify")
    assert json.loads(backup.run("run_drill.py", "--json", GENERATED_SCRIPTS_DIR=both).stdout)[
        "is_good"
    ]
    (first / "one.py").write_text("changed")
    remove_tree(second)
    backup.check("restore_database.py", "--from-backup", "--yes", GENERATED_SCRIPTS_DIR=both)
    assert (first / "one.py").read_text() == "print('one.py')\n"
    assert (second / "one.py").read_text() == "another"
    remove_tree(second)
    # A machine that knows one folder.
    said = backup.check("restore_database.py", "--from-backup", "--yes")
    assert "2-success has no folder of its own" in said


def test_doctor_counts_the_scripts_of_the_database_that_lie_outside(
    backup: Project, tmp_path: Path
) -> None:
    inside = tmp_path / "claude-generated-scripts" / "one.py"
    with closing(connect(backup.database)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.executemany(
            "INSERT INTO strategy_backtest_scripts (id, strategy_recommendation_id, script_path) "
            "VALUES (?, ?, ?)",
            [
                ("1", "1", str(inside)),
                ("2", "2", "claude-generated-scripts/two.py"),
                ("3", "3", "/elsewhere/x.py"),
            ],
        )
    findings = json.loads(backup.run("check_environment.py", "--json").stdout)
    (found,) = [f["what"] for f in findings if f["name"] == "scripts" and "refers to" in f["what"]]
    assert found.startswith("1 of 3 scripts")
    assert found.endswith("/elsewhere/x.py")
