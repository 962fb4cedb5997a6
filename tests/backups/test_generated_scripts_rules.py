"""Folders of scripts: what of them is copied, what is left out and why, and where it comes back."""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backtestdb.backups import generated_scripts
from backtestdb.backups.generated_scripts import (
    Copying,
    RestoredPart,
    copy_scripts,
    copy_tree,
    holds_exactly,
    keep_times,
    match_parts,
    name_parts,
    restore_parts,
    restore_scripts,
    select_part,
    verify_scripts,
)
from backtestdb.backups.manifest import GeneratedScripts
from backtestdb.errors import SettingsError, VerificationError
from backup_tools import NOON

PLENTY = 10**12
NOON_STAMP = f"{NOON:%Y-%m-%d-%H%M%S}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scripts(tmp_path / "scripts", {"a.py": "one", "sub/b.py": "two"})


def write_scripts(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def read_scripts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def copy_all(
    *sources: Path, target: Path | None = None, limit_bytes: int = PLENTY
) -> GeneratedScripts:
    """To the folder `copy` beside them."""
    target = target or sources[0].parent / "copy"
    scripts = copy_scripts(sources, target, "copy", limit_bytes=limit_bytes)
    assert scripts
    return scripts


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ── what is copied


def test_one_folder_is_copied_as_it_is_and_described(folder: Path) -> None:
    scripts = copy_all(folder)
    assert read_scripts(folder.parent / "copy") == {"a.py": "one", "sub/b.py": "two"}
    assert (scripts.folder, scripts.count, scripts.parts) == ("copy", 2, {"": str(folder)})
    assert set(scripts.files) == {"a.py", "sub/b.py"}
    assert (scripts.links, scripts.not_copied) == ({}, {})


def test_several_folders_are_copied_each_into_a_private_one_of_its_own(folder: Path) -> None:
    other = write_scripts(folder.parent / "other", {"a.py": "another"})
    scripts = copy_all(folder, other)
    assert scripts.parts == {"1-scripts": str(folder), "2-other": str(other)}
    copied = {"1-scripts/a.py": "one", "1-scripts/sub/b.py": "two", "2-other/a.py": "another"}
    assert read_scripts(folder.parent / "copy") == copied
    assert mode_of(folder.parent / "copy") == 0o700
    assert name_parts([other]) == {"": str(other)}


def test_everything_that_is_copied_is_flushed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_scripts(folder.parent / "other", {"c.py": "three"})
    flushed: list[Path] = []
    monkeypatch.setattr(generated_scripts, "fsync_file", flushed.append)
    monkeypatch.setattr(generated_scripts, "fsync_directory", flushed.append)
    scripts = copy_all(folder, other)
    copy = folder.parent / "copy"
    assert {*flushed} == {copy, *copy.rglob("*")}

    flushed.clear()
    part = select_part(scripts, "2-other")
    restore_scripts(copy / "2-other", part, other.with_name("new"), other.with_name("kept"))
    assert flushed[-1] == folder.parent


def test_folder_of_backups_inside_the_scripts_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="lies inside GENERATED_SCRIPTS_DIR"):
        copy_all(folder, target=folder / "backups" / "copy")
    assert not (folder / "backups").exists()


def test_link_is_copied_with_its_time_and_never_followed(folder: Path) -> None:
    link = folder / "link"
    link.symlink_to("/no/such/file")
    os.utime(link, ns=(10**18, 10**18), follow_symlinks=False)
    scripts = copy_all(folder)
    copied = folder.parent / "copy" / "link"
    assert (scripts.links, scripts.not_copied) == ({"link": "/no/such/file"}, {})
    assert scripts.count == 3
    assert copied.lstat().st_mtime_ns == 10**18


@pytest.mark.parametrize(
    ("mode", "kept"),
    [(0o644, 0o600), (0o755, 0o700), (0o777, 0o700), (0o000, 0o400), (0o111, 0o500)],
)
def test_copy_has_the_times_and_of_the_permissions_only_the_owners(
    tmp_path: Path, mode: int, kept: int
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        path.write_text("x")
    source.chmod(mode)
    os.utime(source, ns=(10**18, 2 * 10**18))
    keep_times(source, target)
    about = target.stat()
    assert (about.st_atime_ns, about.st_mtime_ns) == (10**18, 2 * 10**18)
    assert mode_of(target) == kept


def test_files_and_folders_keep_their_times(folder: Path) -> None:
    for name in ("a.py", "sub", ""):
        os.utime(folder / name, ns=(10**18, 10**18))
    copy_all(folder)
    for name in ("a.py", "sub", ""):
        assert (folder.parent / "copy" / name).stat().st_mtime_ns == 10**18


def test_names_that_differ_in_case_are_both_copied_where_the_disk_tells_them_apart(
    tmp_path: Path,
) -> None:
    names = {"One.py": "1", "one.py": "2"}
    folder = write_scripts(tmp_path / "scripts", names)
    if read_scripts(folder) != names:
        pytest.skip("this disk ignores the case of names")
    assert copy_all(folder).not_copied == {}
    assert read_scripts(tmp_path / "copy") == names


# ── what is left out


def test_files_are_copied_while_they_fit_into_the_limit(tmp_path: Path) -> None:
    texts = {"a": "12345", "b": "123456", "c": "1234", "d": "1"}
    folder = write_scripts(tmp_path / "scripts", texts)
    scripts = copy_all(folder, limit_bytes=9)
    assert set(scripts.files) == {"a", "c"}
    limit = "larger than the 0 MB of GENERATED_SCRIPTS_MAX_MB in all"
    assert scripts.not_copied == {"b": f"6 bytes: {limit}", "d": f"1 bytes: {limit}"}


def test_limit_is_said_in_megabytes(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    with (folder / "huge").open("wb") as file:
        file.truncate(3_000_000_001)
    reason = copy_all(folder, limit_bytes=2_999_999_999).not_copied["huge"]
    assert reason.endswith("larger than the 2,999 MB of GENERATED_SCRIPTS_MAX_MB in all")


@pytest.mark.parametrize(
    ("more", "limit_bytes", "copied", "reason"),
    [
        (6, PLENTY, {"a"}, "the disk of BACKUP_DIR is full"),
        (7, 7, {"a"}, "GENERATED_SCRIPTS_MAX_MB in all"),
        (9, 7, {"a"}, "GENERATED_SCRIPTS_MAX_MB in all"),
        (8, PLENTY, {"a", "b"}, ""),
    ],
)
def test_copy_leaves_room_on_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: int,
    limit_bytes: int,
    copied: set[str],
    reason: str,
) -> None:
    asked = []

    def free_bytes(directory: Path) -> int:
        asked.append(directory)
        return 64 * 1024 * 1024 + more

    monkeypatch.setattr(generated_scripts, "free_bytes", free_bytes)
    folder = write_scripts(tmp_path / "scripts", {"a": "1234", "b": "1234"})
    scripts = copy_all(folder, limit_bytes=limit_bytes)
    assert set(scripts.files) == copied
    assert reason in scripts.not_copied.get("b", "")
    assert asked == [tmp_path]


def test_folders_too_deep_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_scripts, "DEEPEST", 3)
    folder = write_scripts(tmp_path / "scripts", {"d/d/d/x": "x", "d/d/y": "y"})
    scripts = copy_all(folder)
    assert set(scripts.files) == {"d/d/y"}
    assert scripts.not_copied == {"d/d/d": "lies more than 3 folders deep"}
    assert not (tmp_path / "copy" / "d" / "d" / "d").exists()


@pytest.mark.parametrize("name", ["", "sub"])
def test_folder_that_cannot_be_listed_is_named_and_its_copy_private(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> Iterator["os.DirEntry[str]"]:
        if path == folder / name:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    scripts = copy_all(folder)
    assert scripts.not_copied == {name or ".": "Permission denied"}
    assert set(scripts.files) == ({"a.py"} if name else set())
    assert mode_of(folder.parent / "copy" / name) == 0o700


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("no number"), "no number"),
        (ValueError("embedded null byte"), "embedded null byte"),
    ],
)
def test_file_that_fails_half_way_is_named_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    copyfile = shutil.copyfile

    def copy_half(source: Path, target: Path) -> None:
        copyfile(source, target)
        if source.name == "b.py":
            raise error

    monkeypatch.setattr(shutil, "copyfile", copy_half)
    scripts = copy_all(folder)
    assert scripts.not_copied == {"sub/b.py": reason}
    assert read_scripts(folder.parent / "copy") == {"a.py": "one"}


def test_link_that_fails_half_way_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "link").symlink_to("sub")

    def copystat(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(shutil, "copystat", copystat)
    scripts = copy_all(folder)
    assert scripts.not_copied == {"link": "Operation not permitted"}
    assert not os.path.lexists(folder.parent / "copy" / "link")


# ── whether a copy is what it was


@pytest.mark.parametrize("text", ["eno", "one ", "", "ONE", "1", "2", "3"])
def test_file_with_other_contents_is_not_verified(folder: Path, text: str) -> None:
    scripts = copy_all(folder)
    copy = folder.parent / "copy"
    (copy / "a.py").write_text(text)
    with pytest.raises(VerificationError, match=r"copy/a\.py is missing or not what it was"):
        verify_scripts(copy, scripts)


@pytest.mark.parametrize("target", ["a", "z"])
def test_link_to_elsewhere_is_not_verified(folder: Path, target: str) -> None:
    (folder / "link").symlink_to("n")
    scripts = copy_all(folder)
    copy = folder.parent / "copy"
    verify_scripts(copy, scripts)
    (copy / "link").unlink()
    (copy / "link").symlink_to(target)
    with pytest.raises(VerificationError, match="copy/link is missing or not what it was"):
        verify_scripts(copy, scripts)


def test_missing_folder_is_not_verified_and_others_files_are_no_damage(folder: Path) -> None:
    scripts = copy_all(folder)
    (folder / ".DS_Store").write_text("a file manager's")
    verify_scripts(folder, scripts)
    with pytest.raises(VerificationError, match="the folder gone is missing"):
        verify_scripts(folder.with_name("gone"), scripts)


# ── where it comes back


def test_part_is_described_by_what_lies_in_its_folder(folder: Path) -> None:
    other = write_scripts(folder.parent / "other", {"1-scripts/c.py": "three"})
    (other / "link").symlink_to("x")
    scripts = copy_all(folder, other)
    part = select_part(scripts, "2-other")
    assert (set(part.files), part.links, part.count) == ({"1-scripts/c.py"}, {"link": "x"}, 2)
    verify_scripts(other, part)
    assert select_part(scripts, "1-scripts").count == 2
    assert select_part(scripts, "") == scripts


def test_parts_go_back_to_their_own_folder_or_to_the_next_that_is_free() -> None:
    one, two, three = Path("/one"), Path("/two"), Path("/three")
    parts = {"1-a": "/gone", "2-two": "/two", "3-b": "/gone too", "4-c": "/and this"}
    matched = {"1-a": one, "2-two": two, "3-b": three, "4-c": None}
    assert match_parts(parts, [one, two, three]) == matched
    assert match_parts({}, [one, two]) == {"": one}
    assert match_parts({"": "/two"}, [one, two]) == {"": two}


def test_parts_are_restored_and_what_stood_there_is_kept(folder: Path) -> None:
    other = write_scripts(folder.parent / "other", {"c.py": "three"})
    third = write_scripts(folder.parent / "third", {"d.py": "four"})
    scripts = copy_all(folder, other, third)
    copy = folder.parent / "copy"
    (folder / "a.py").write_text("changed")
    said: list[str] = []

    restored = restore_parts(copy, scripts, [folder, other], NOON, said.append)

    kept = folder.with_name(f"scripts.backup-{NOON_STAMP}")
    assert restored == [RestoredPart(folder, kept), RestoredPart(other, None)]
    assert read_scripts(kept)["a.py"] == "changed"
    assert read_scripts(folder) == {"a.py": "one", "sub/b.py": "two"}
    (line,) = said
    assert line.startswith(f"{copy / '3-third'} has no folder of its own")


def test_part_without_a_folder_does_not_cost_those_behind_it(folder: Path) -> None:
    other = write_scripts(folder.parent / "other", {"c.py": "three"})
    scripts = copy_all(folder, other)
    (other / "c.py").write_text("changed")
    restored = restore_parts(folder.parent / "copy", scripts, [other], NOON, print)
    assert [part.folder for part in restored] == [other]
    assert read_scripts(other) == {"c.py": "three"}


def test_scripts_are_restored_where_no_folder_was(folder: Path) -> None:
    scripts = copy_all(folder)
    target = folder.parent / "new" / "deep" / "scripts"
    kept = target.with_name("kept")
    assert restore_scripts(folder.parent / "copy", scripts, target, kept) is False
    assert read_scripts(target) == {"a.py": "one", "sub/b.py": "two"}
    assert not kept.exists()
    assert restore_scripts(folder.parent / "copy", scripts, target, kept) is False
    assert [path.name for path in target.parent.iterdir()] == ["scripts"]


def test_folders_as_deep_as_a_copy_may_be_are_restored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_scripts, "DEEPEST", 2)
    scripts = copy_all(folder)
    target = folder.with_name("target")
    restore_scripts(folder.parent / "copy", scripts, target, folder.with_name("kept"))
    assert read_scripts(target) == {"a.py": "one", "sub/b.py": "two"}


def test_file_or_link_in_the_place_of_the_scripts_is_kept(folder: Path) -> None:
    scripts = copy_all(folder)
    target = folder.with_name("target")
    target.symlink_to("/no/such/folder")
    kept = folder.with_name("kept")
    assert restore_scripts(folder.parent / "copy", scripts, target, kept) is True
    assert kept.is_symlink()
    assert read_scripts(target) == {"a.py": "one", "sub/b.py": "two"}


def test_folder_that_is_the_same_is_not_touched(folder: Path) -> None:
    scripts = copy_all(folder)
    before = folder.stat().st_ino
    kept = folder.with_name("kept")
    assert restore_scripts(folder.parent / "copy", scripts, folder, kept) is False
    assert (folder.stat().st_ino, kept.exists()) == (before, False)


def test_what_a_killed_restore_left_is_no_part_of_the_next(folder: Path) -> None:
    scripts = copy_all(folder)
    target = folder.with_name("target")
    write_scripts(folder.with_name("target.arriving"), {"half.py": "half", "sub/b.py": "old"})
    restore_scripts(folder.parent / "copy", scripts, target, folder.with_name("kept"))
    assert read_scripts(target) == {"a.py": "one", "sub/b.py": "two"}


def test_damaged_copy_takes_no_place(folder: Path) -> None:
    scripts = copy_all(folder)
    (folder.parent / "copy" / "a.py").write_text("damaged")
    (folder / "sub" / "b.py").write_text("today's")
    kept = folder.with_name("kept")
    with pytest.raises(VerificationError):
        restore_scripts(folder.parent / "copy", scripts, folder, kept)
    assert read_scripts(folder) == {"a.py": "one", "sub/b.py": "today's"}
    assert not kept.exists()


def test_copy_for_which_the_disk_has_no_room_takes_no_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = copy_all(folder)
    monkeypatch.setattr(generated_scripts, "free_bytes", lambda _: 5)
    with pytest.raises(VerificationError, match="is missing or not what it was"):
        restore_scripts(
            folder.parent / "copy", scripts, folder.with_name("new"), folder.with_name("kept")
        )
    assert not folder.with_name("new").exists()


# ── whether a folder is the same


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"a.py": "eno"}, False),
        ({"a.py": "longer"}, False),
        ({"more.py": "x"}, False),
    ],
)
def test_folder_is_the_same_when_it_holds_just_what_the_copy_has(
    folder: Path, changes: dict[str, str], is_same: bool
) -> None:
    scripts = copy_all(folder)
    copy = folder.parent / "copy"
    (copy / ".DS_Store").write_text("a file manager's")
    write_scripts(folder, changes)
    assert holds_exactly(folder, copy, scripts) is is_same


def test_folder_without_a_file_or_with_another_link_is_not_the_same(folder: Path) -> None:
    (folder / "link").symlink_to("a.py")
    scripts = copy_all(folder)
    copy = folder.parent / "copy"
    assert holds_exactly(folder, copy, scripts)
    (folder / "link").unlink()
    assert not holds_exactly(folder, copy, scripts)
    (folder / "link").symlink_to("b.py")
    assert not holds_exactly(folder, copy, scripts)
    assert not holds_exactly(folder, copy, replace(scripts, links={}))


def test_folder_that_cannot_be_read_is_not_the_same(folder: Path) -> None:
    scripts = copy_all(folder)
    assert holds_exactly(folder.with_name("gone"), folder.parent / "copy", scripts) is False


def test_folder_below_that_stands_already_is_named(folder: Path) -> None:
    """Of a copy's folders only the first is made by others."""
    copy = folder.with_name("copy")
    write_scripts(copy, {"sub/of another.py": "x"})
    copying = Copying(PLENTY, "")
    copy_tree(folder, copy, copying, name="", depth=0)
    assert copying.not_copied == {"sub": "File exists"}
