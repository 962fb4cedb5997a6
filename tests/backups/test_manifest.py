"""What a manifest says is read as it was written, or it is no manifest."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from backtestdb.backups import manifest as manifest_module
from backtestdb.backups.manifest import (
    GeneratedScripts,
    Kind,
    Loss,
    Manifest,
    format_utc,
    load_manifest,
    parse_manifest,
    write_manifest,
)
from backtestdb.errors import VerificationError
from manifests import FIRST_TAKEN_AT_UTC, make_manifest

STEM = "backtesting-2026-11-23-020000"
LOSS = Loss(before=40, before_at_utc=FIRST_TAKEN_AT_UTC, now=3)
SCRIPTS = GeneratedScripts(
    folder="claude-scripts-2026-11-23-020000",
    count=2,
    files={"one.py": "00"},
    links={"latest.py": "one.py"},
    parts={"": "/scripts"},
    not_copied={"huge.csv": "too large"},
)
# Every field that format 2 has brought, with a value that is not its default.
TOLD = {
    "database_id": "an id",
    "earlier_paths": ("/earlier.db",),
    "content_format": 2,
    "losses": {"agents": LOSS},
    "accepts_loss": True,
    "renames": {"old": "new"},
    "generated_scripts": SCRIPTS,
    "broken_rules": ("NULL value in t.x",),
}


def make(folder: Path, kind: Kind = "full", **values: object) -> Manifest:
    return make_manifest(folder / f"{STEM}.db", kind, FIRST_TAKEN_AT_UTC, {"agents": 3}, **values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A manifest with a value in every field."""
    write_manifest(make(tmp_path, **TOLD), tmp_path / f"{STEM}.json")
    return tmp_path / f"{STEM}.json"


def tell(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ── written


@pytest.mark.parametrize("kind", ["full", "irreplaceable"])
@pytest.mark.parametrize("values", [TOLD, {}])
def test_manifest_is_read_as_it_was_written(
    tmp_path: Path, kind: Kind, values: dict[str, object]
) -> None:
    written = make(tmp_path, kind, **values)
    write_manifest(written, tmp_path / f"{STEM}.json")
    assert load_manifest(tmp_path / f"{STEM}.json") == written


def test_manifest_is_private_whole_and_a_text_of_lines(tmp_path: Path) -> None:
    path = tmp_path / f"{STEM}.json"
    before = os.umask(0)
    try:
        write_manifest(make(tmp_path), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("\n}\n")


def test_manifest_that_is_written_again_holds_nothing_of_the_longer_one(path: Path) -> None:
    path.write_text(path.read_text() + " " * 5000)
    write_manifest(make(path.parent), path)
    assert load_manifest(path) == make(path.parent)
    assert path.stat().st_size < 5000


def test_manifest_is_flushed_when_all_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(
        manifest_module,
        "flush_descriptor",
        lambda _descriptor: flushed.append((tmp_path / f"{STEM}.json").read_text()),
    )
    write_manifest(make(tmp_path), tmp_path / f"{STEM}.json")
    assert flushed == [(tmp_path / f"{STEM}.json").read_text()]


def test_moment_is_written_in_utc_whatever_its_zone() -> None:
    moment = datetime(2026, 11, 23, 3, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert format_utc(moment) == "2026-11-23T02:00:00.000005Z"


# ── what it says


@pytest.mark.parametrize(
    ("losses", "accepts_loss", "is_suspicious"),
    [({}, False, False), ({}, True, False), ({"a": LOSS}, False, True), ({"a": LOSS}, True, False)],
)
def test_manifest_is_suspicious_for_a_loss_that_was_not_meant(
    tmp_path: Path, losses: dict[str, Loss], accepts_loss: bool, is_suspicious: bool
) -> None:
    manifest = make(tmp_path, losses=losses, accepts_loss=accepts_loss)
    assert manifest.is_suspicious is is_suspicious


def test_kept_rows_are_those_of_counted_tables_that_no_download_brings_back(tmp_path: Path) -> None:
    hashes = {"agents": "", "hidden": ""}
    manifest = replace(make(tmp_path), rows={"agents": 3, "ohlcv_data": 9}, content_sha256=hashes)
    assert manifest.kept_rows == {"agents": 3}


def test_manifest_of_the_first_format_is_read_with_what_it_could_not_say(path: Path) -> None:
    values = json.loads(path.read_text())
    for name in TOLD:
        del values[name]
    path.write_text(json.dumps(values | {"format": 1}))
    manifest = load_manifest(path)
    assert (manifest.format, manifest.database_id, manifest.earlier_paths) == (1, "", ())
    assert (manifest.content_format, manifest.losses, manifest.renames) == (1, {}, {})
    assert manifest.accepts_loss is False
    assert manifest.broken_rules == ()
    assert manifest.generated_scripts is None


def test_moments_are_read_with_their_zone(path: Path) -> None:
    tell(path, taken_at_utc="2026-11-23T03:00:00+01:00")
    assert load_manifest(path).taken_at_utc == datetime(2026, 11, 23, 2, tzinfo=UTC)
    assert load_manifest(path).taken_at_utc.utcoffset() == timedelta(0)


def test_scripts_of_an_earlier_manifest_say_nothing_of_parts(path: Path) -> None:
    values = json.loads(path.read_text())["generated_scripts"]
    del values["parts"], values["not_copied"]
    tell(path, generated_scripts=values)
    scripts = load_manifest(path).generated_scripts
    assert scripts is not None
    assert (scripts.parts, scripts.not_copied, scripts.count) == ({}, {}, 2)


# ── what is none


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the manifest is not JSON"),
        ("{", "the manifest is not JSON"),
        ("[" * 100_000, "the manifest is not JSON"),
        ("[]", "the manifest is not an object"),
        ("null", "the manifest is not an object"),
    ],
)
def test_text_that_is_no_manifest_is_refused(path: Path, text: str, problem: str) -> None:
    path.write_text(text)
    with pytest.raises(VerificationError, match=problem):
        load_manifest(path)


def test_manifest_that_is_missing_or_cannot_be_read_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(VerificationError, match="no manifest"):
        load_manifest(path)
    path.mkdir()
    with pytest.raises(VerificationError, match="the manifest cannot be read: Is a directory"):
        load_manifest(path)


@pytest.mark.parametrize("stem", ["backtesting-2026-11-22-020000", "backtesting-2026-11-24-020000"])
def test_manifest_of_another_file_is_refused(path: Path, stem: str) -> None:
    tell(path, file=f"{stem}.db")
    with pytest.raises(VerificationError, match=rf"the manifest is for {stem}\.db"):
        load_manifest(path)


def test_manifest_that_is_about_to_expire_belongs_to_its_file_still(path: Path) -> None:
    assert load_manifest(path.rename(path.with_name(f"{STEM}.json.expired"))).file == f"{STEM}.db"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("format", 0, "has format 0, this project reads"),
        ("format", 3, "has format 3, this project reads"),
        ("format", True, "has format True"),
        ("format", None, "has format None"),
        ("kind", "other", "has the unknown kind 'other'"),
        ("kind", 1, "kind is 1 instead of str"),
        ("bytes", "12", "bytes is '12' instead of int"),
        ("bytes", True, "bytes is True instead of int"),
        ("accepts_loss", 0, "accepts_loss is 0 instead of bool"),
        ("earlier_paths", {}, "earlier_paths is {} instead of list"),
        ("earlier_paths", ["/one.db", 1], "earlier_paths holds values that are not str"),
        ("broken_rules", [1], "broken_rules holds values that are not str"),
        ("rows", [], r"rows is \[\] instead of dict"),
        ("rows", {"agents": 3, "signals": "3"}, "rows holds values that are not int"),
        ("losses", {"agents": 40}, "losses holds values that are not dict"),
        ("losses", {"agents": {"before": 40}}, "before_at_utc is None instead of str"),
        ("taken_at_utc", "noon", "taken_at_utc is no time: 'noon'"),
        ("clock_utc", "2026-11-20T12:00:00", "clock_utc has no time zone"),
        ("generated_scripts", [], "generated_scripts is not an object"),
        ("generated_scripts", {"folder": "x"}, "count is None instead of int"),
    ],
)
def test_manifest_with_a_wrong_value_is_refused_by_its_name(
    path: Path, name: str, value: object, problem: str
) -> None:
    values = json.loads(path.read_text()) | {name: value}
    with pytest.raises(VerificationError, match=problem):
        parse_manifest(values)
