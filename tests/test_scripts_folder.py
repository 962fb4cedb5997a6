"""The folder of generated scripts goes and comes back as it was."""

import os
from pathlib import Path

import pytest

from backtestdb.backups.generated_scripts import (
    copy_scripts,
    holds_exactly,
    restore_scripts,
    verify_scripts,
)
from backtestdb.errors import VerificationError
from backtestdb.files import remove_tree

ODD_NAMES = ("plain.py", "with space & 'quote'.py", "ünïcode-漢字.py", ".hidden", "-dash", "new\nline.py")


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
    assert holds_exactly(target, scripts)
    (target / "sub" / "plain.py").write_text("changed")
    assert restore_scripts(tmp_path / "copy", scripts, target, kept)
    assert (kept / "sub" / "plain.py").read_text() == "changed"
    assert holds_exactly(target, scripts)


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
